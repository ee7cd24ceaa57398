//! Rules of names: what is a video, what is skipped and why. The same on disks and in buckets.

use affectmill_labelset::Passed;
use affectmill_spec::DEFAULT_EXTENSIONS;
use std::path::Path;

/// Extensions of the pictures that make a folder of numbered images one video.
pub const IMAGE_EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];

/// The folder that marks a label set.
pub(super) const LABEL_SET: &str = "_affectmill";

/// Extensions of videos that are not searched for by default: games', low-resolution copies that cameras write beside their
/// recordings, cameras' raw data that FFmpeg cannot decode, and what is rare.
const OTHER_VIDEOS: &str = "
    266 3gp2 3mm av1 avs2 avs3 bik bik2 bk2 bmv braw camrec cavs cine cpk crm dxa film flc fli flic flm h266 ifv ipu ivr jv kux
    lrf lrv lvf mcraw moflex mp2v mp4v mpeg1 mpeg2 mpeg4 mpg2 mpv mqv mtv mve mvi mxg nsv pva r3d rcv roq rpl ser smk swf thp trec
    ty vc1 viv vivo vmd vp6 vqa vvc wc3 xmv yop yuv
";

/// Longest extension that is reported by its name.
const LONGEST: usize = 12;

/// Class of a file by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A video.
    Video,
    /// A video, unless its first bytes say otherwise.
    Doubtful(HeadCheck),
    /// A picture whose name is a number.
    Image,
    /// A tar file, which may contain crops.
    Tar,
    /// Not a video.
    Other(Passed),
}

/// How the first bytes decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadCheck {
    /// The other meaning is text.
    Binary,
    /// Other meanings are manifold: it must begin as videos do.
    Signature,
}

/// Extensions that have another meaning: TypeScript and Qt's translations; tracker music and `go.mod`; anything; sound.
const DOUBTFUL: [(&str, HeadCheck); 5] = [
    ("ts", HeadCheck::Binary),
    ("mts", HeadCheck::Binary),
    ("mod", HeadCheck::Signature),
    ("dat", HeadCheck::Signature),
    ("ogg", HeadCheck::Signature),
];

/// Folders that systems leave behind, as these write their names: Synology, QNAP, Windows, Linux, macOS, NetApp.
const LEFT_BEHIND: [(&str, Passed); 13] = [
    ("#recycle", Passed::Deleted),
    ("@Recycle", Passed::Deleted),
    ("$RECYCLE.BIN", Passed::Deleted),
    ("$Recycle.Bin", Passed::Deleted),
    ("RECYCLER", Passed::Deleted),
    ("@eaDir", Passed::Preview),
    (".@__thumb", Passed::Preview),
    ("#snapshot", Passed::Snapshot),
    ("@Recently-Snapshot", Passed::Snapshot),
    ("~snapshot", Passed::Snapshot),
    ("System Volume Information", Passed::System),
    ("lost+found", Passed::System),
    ("__MACOSX", Passed::System),
];

/// Why a file or folder of this name, with everything below it, is skipped; `None` when it is not.
pub(super) fn passed_over(name: &str) -> Option<Passed> {
    let known = LEFT_BEHIND.iter().find(|(known, _)| *known == name);
    match known {
        Some((_, kind)) => Some(*kind),
        None if name == LABEL_SET => Some(Passed::Labels),
        None if name.starts_with(".Trash") => Some(Passed::Deleted),
        None if name.starts_with('.') => Some(Passed::Hidden),
        None => None,
    }
}

/// Class of a file of this name, with the job's extensions.
pub(super) fn named(name: &str, extensions: &[String]) -> Named {
    let Some(extension) = extension(name) else {
        return Named::Other(Passed::Extension);
    };
    let look = DOUBTFUL.iter().find(|(doubtful, _)| *doubtful == extension);
    if extensions
        .iter()
        .any(|want| want.eq_ignore_ascii_case(&extension))
    {
        return look.map_or(Named::Video, |(_, look)| Named::Doubtful(*look));
    }
    if extension == "tar" {
        return Named::Tar;
    }
    if is_numbered_image(name) {
        return Named::Image;
    }
    let is_among = |list: &str| list.split_whitespace().any(|other| other == extension);
    let is_video = is_among(OTHER_VIDEOS)
        || is_among(DEFAULT_EXTENSIONS) && !matches!(look, Some((_, HeadCheck::Signature)));
    Named::Other(if is_video {
        Passed::Video
    } else {
        Passed::Extension
    })
}

/// The extension in lower case.
pub(super) fn extension(name: &str) -> Option<String> {
    let extension = Path::new(name).extension()?.to_str()?;
    Some(extension.to_lowercase())
}

/// The extension for reports: empty for none, `*` when it is too long or has unusual characters.
pub(super) fn reported_extension(name: &str) -> String {
    match extension(name) {
        None => String::new(),
        Some(extension) if extension.chars().count() > LONGEST || !extension.chars().all(is_plain) => {
            "*".into()
        }
        Some(extension) => extension,
    }
}

fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "-_+~".contains(c)
}

/// Whether a name is digits and the extension of a picture.
pub(super) fn is_numbered_image(name: &str) -> bool {
    let stem = Path::new(name)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    !stem.is_empty()
        && stem.bytes().all(|byte| byte.is_ascii_digit())
        && extension(name).is_some_and(|extension| IMAGE_EXTENSIONS.contains(&extension.as_str()))
}

/// Number of first bytes that are read.
pub(super) const HEAD: usize = 8 << 10;

impl HeadCheck {
    /// Whether a file with these first bytes is a video. An empty one is, so that its failure is reported.
    pub(super) fn is_video(self, head: &[u8]) -> bool {
        head.is_empty()
            || match self {
                HeadCheck::Binary => !is_text(head),
                HeadCheck::Signature => has_signature(head),
            }
    }
}

/// Text has no control characters except separators of words and lines; the first packets of a transport stream do. UTF-16 has a
/// byte order mark.
fn is_text(head: &[u8]) -> bool {
    let is_control = |byte: &u8| *byte < b' ' && !matches!(*byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b);
    head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) || !head.iter().any(is_control)
}

/// Whether it starts with a signature of video files or streams.
fn has_signature(head: &[u8]) -> bool {
    let at = |offset: usize, bytes: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(bytes));
    // ISO/IEC 13818-1 packs and 13818-2 sequences; H.264 and HEVC parameter sets and delimiters (Annex B).
    let start_code = [0usize, 1].iter().any(|zeros| {
        at(*zeros, &[0, 0, 1])
            && head[..*zeros].iter().all(|byte| *byte == 0)
            && matches!(
                head.get(zeros + 3),
                Some(0xba | 0xb3 | 0x67 | 0x27 | 0x47 | 0x09 | 0x40 | 0x46)
            )
    });
    let ogg = || {
        let contains = |id: &[u8]| head.windows(id.len()).any(|bytes| bytes == id);
        contains(b"\x80theora") || contains(b"\x01video\0") || contains(b"BBCD\0") || contains(b"OVP80")
    };
    start_code
        || is_transport_stream(head)
        || at(0, b"RIFF") && (at(8, b"CDXA") || at(8, b"AVI "))
        || at(4, b"ftyp")
        || at(0, b"\x1aE\xdf\xa3")
        || at(0, &[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11])
        || at(0, b"FLV\x01")
        || at(0, b"DHAV")
        || at(0, b"OggS") && ogg()
}

/// ISO/IEC 13818-1, 2.4.3.2: packets of 188 bytes that begin with 0x47; M2TS puts 4 bytes before each, error correction 16
/// behind. The first one may be cut off.
fn is_transport_stream(head: &[u8]) -> bool {
    [188, 192, 204].into_iter().any(|length| {
        (0..length).any(|first| {
            let packets = head.get(first..).unwrap_or_default().iter().step_by(length);
            packets.len() >= 5 && packets.clone().all(|byte| *byte == 0x47)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(list: &str) -> Vec<String> {
        list.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn names_are_told_apart() {
        let wanted = listed(DEFAULT_EXTENSIONS);
        let of = |name: &str| named(name, &wanted);
        for name in ["_x.mp4", "-Zx9.MP4", "VTS_01_1.VOB", "a.dvr-ms", "x.360"] {
            assert_eq!(of(name), Named::Video, "{name}");
        }
        assert_eq!(of("00001.MTS"), Named::Doubtful(HeadCheck::Binary));
        assert_eq!(of("go.mod"), Named::Doubtful(HeadCheck::Signature));
        assert_eq!(of("00001.jpg"), Named::Image);
        assert_eq!(of("a.tar"), Named::Tar);
        assert_eq!(of("intro.bik"), Named::Other(Passed::Video));
        assert_eq!(of("mp4"), Named::Other(Passed::Extension));
        assert_eq!(of("a.mp4.part"), Named::Other(Passed::Extension));
        let few = ["mp4".to_string()];
        assert_eq!(named("a.mkv", &few), Named::Other(Passed::Video));
        assert_eq!(named("values.dat", &few), Named::Other(Passed::Extension));
        for (name, reported) in [
            ("a.Txt", "txt"),
            ("LICENSE", ""),
            ("a.2024-01-01T10:00", "*"),
            ("v.1 (copy)", "*"),
        ] {
            assert_eq!(reported_extension(name), reported, "{name}");
        }
    }

    #[test]
    fn no_extension_is_listed_twice_or_both_ways() {
        let mut all = [listed(OTHER_VIDEOS), listed(DEFAULT_EXTENSIONS)].concat();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(
            DOUBTFUL
                .iter()
                .all(|(extension, _)| all.contains(&extension.to_string()))
        );
    }

    #[test]
    fn what_systems_leave_behind_is_passed_over_by_its_name() {
        for (name, kind) in [
            ("@eaDir", Some(Passed::Preview)),
            (".Trash-1000", Some(Passed::Deleted)),
            ("$RECYCLE.BIN", Some(Passed::Deleted)),
            ("lost+found", Some(Passed::System)),
            ("_affectmill", Some(Passed::Labels)),
            (".git", Some(Passed::Hidden)),
            ("._a.mp4", Some(Passed::Hidden)),
            ("_raOc3x", None),
            ("@home", None),
            ("#1", None),
        ] {
            assert_eq!(passed_over(name), kind, "{name}");
        }
    }

    #[test]
    fn first_bytes_tell_videos_from_their_namesakes() {
        let packets = |length: usize, before: usize, count: usize| {
            let mut bytes = vec![0xff; before];
            for _ in 0..count {
                bytes.push(0x47);
                bytes.resize(bytes.len() + length - 1, 0);
            }
            bytes
        };
        for (length, before) in [(188, 0), (188, 100), (192, 4), (204, 0)] {
            let stream = packets(length, before, 20);
            assert!(
                HeadCheck::Binary.is_video(&stream) && HeadCheck::Signature.is_video(&stream),
                "{length} {before}"
            );
        }
        assert!(
            !HeadCheck::Signature.is_video(&packets(188, 0, 3)),
            "too few to tell"
        );
        for text in [
            &b"export const a = 1;\n"[..],
            "// \u{e9}t\u{e9}\n\tlet x;\r\n".as_bytes(),
            b"\xff\xfea\0=\0",
            b"caf\xe9",
        ] {
            assert!(!HeadCheck::Binary.is_video(text), "{text:?}");
        }
        assert!(HeadCheck::Binary.is_video(&[0; 100]), "damaged, and no text");
        assert!(HeadCheck::Binary.is_video(b"") && HeadCheck::Signature.is_video(b""));
        for (bytes, is_video) in [
            (&b"\0\0\x01\xba\x44\0"[..], true),
            (b"\0\0\0\x01\x67\x42", true),
            (b"RIFF\x24\0\0\0CDXAfmt ", true),
            (b"RIFF\x24\0\0\0WAVEfmt ", false),
            (b"OggS\0\x02\0\0\0\0\0\0\0\0\x80theora\x03", true),
            (b"OggS\0\x02\0\0\0\0\0\0\0\0\x01vorbis\0", false),
            (b"\0\0\x01\0\x01\0", false),
            (b"module a\n", false),
        ] {
            assert_eq!(HeadCheck::Signature.is_video(bytes), is_video, "{bytes:?}");
        }
    }
}
