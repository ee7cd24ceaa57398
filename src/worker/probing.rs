//! Reads the headers of videos, to plan with.
//!
//! Of a video in a bucket only what its header takes is brought here: FFmpeg then reads a file of the same length whose
//! other bytes are zeros. That is done for MP4 and its kin, whose header lies in one box and says how many frames there
//! are; other formats are fetched whole, since FFmpeg guesses from what it finds all over them.

use super::heartbeat::Reports;
use affectmill_base::Location;
use affectmill_base::SourceKind;
use affectmill_discover as discover;
use affectmill_labelset::PlannedVideo;
use affectmill_media::boxes::BoxHeader;
use affectmill_media::decode;
use affectmill_media::decode::{DecodeError, DecodeOptions, Probe};
use affectmill_queue::Reach;
use affectmill_store::{Access, Bucket, Object, StoreError, Trouble};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A video no longer than this is fetched whole: quicker than looking for its header.
const SMALL: u64 = 4 << 20;
/// First bytes that are read of a longer one.
const HEAD: u64 = 64 << 10;
/// A header box longer than this is no header box.
const LONGEST_BOX: u64 = 256 << 20;
/// Boxes looked at in search of the header.
const MOST_BOXES: usize = 64;

/// Probes videos one after the other; keeps the connection to their bucket.
#[derive(Default)]
pub(super) struct Prober {
    bucket: Option<(Location, Bucket)>,
}

impl Prober {
    /// The video with its frames and duration, or with why it cannot be read; and whether the credentials may not read it.
    ///
    /// # Errors
    /// The store fails.
    pub fn probe(
        &mut self,
        mut video: PlannedVideo,
        root: &Location,
        reach: Reach,
        (image_base, max_pixels): (u64, u64),
        reports: &Arc<Reports>,
    ) -> Result<(PlannedVideo, bool), StoreError> {
        let options = DecodeOptions {
            threads: 1,
            image_base,
            image_fps: None,
            max_pixels,
            max_frames: u64::MAX,
            nvdec: None,
        };
        let probed = match root {
            Location::Local(_) => {
                let path = discover::source_path(root, &video.key).to_string();
                decode::probe(path.as_ref(), video.kind, &options).map_err(Unreadable::from)
            }
            Location::S3 { .. } => in_bucket(self.bucket(root, reach, reports)?, &video, &options),
        };
        let forbidden = matches!(probed, Err(Unreadable::Forbidden(_)));
        match probed {
            Ok(probe) => (video.frames, video.duration_us) = (probe.frames, probe.duration_us),
            Err(Unreadable::Store(error)) => return Err(error),
            Err(Unreadable::Forbidden(cause) | Unreadable::Video(cause)) => video.unreadable = Some(cause),
        }
        Ok((video, forbidden))
    }

    fn bucket(
        &mut self,
        root: &Location,
        reach: Reach,
        reports: &Arc<Reports>,
    ) -> Result<&Bucket, StoreError> {
        let is_open = self.bucket.as_ref().is_some_and(|(open, _)| open == root);
        if !is_open {
            let patience = Duration::from_secs_f64(reach.outage_timeout);
            let access = Access::new(reach.s3, reach.scratch, patience)
                .patient()
                .on_wait(reports.store_waits());
            self.bucket = Some((root.clone(), Bucket::open(root, &access)?));
        }
        Ok(&self.bucket.as_ref().expect("opened above").1)
    }
}

/// Why a header was not read.
enum Unreadable {
    /// The video's own fault, in words that name it.
    Video(String),
    /// The credentials may not read it.
    Forbidden(String),
    /// The store's fault.
    Store(StoreError),
}

impl From<DecodeError> for Unreadable {
    fn from(error: DecodeError) -> Self {
        Self::Video(error.to_string())
    }
}

impl From<StoreError> for Unreadable {
    fn from(error: StoreError) -> Self {
        match error.trouble() {
            Some(Trouble::Forbidden) => Self::Forbidden(error.to_string()),
            _ if error.is_of_one_object() => Self::Video(error.to_string()),
            _ => Self::Store(error),
        }
    }
}

fn in_bucket(bucket: &Bucket, video: &PlannedVideo, options: &DecodeOptions) -> Result<Probe, Unreadable> {
    // Messages name the object instead of its copy.
    let naming = |copy: &Path, error: DecodeError| {
        let (copy, name) = (
            copy.display().to_string(),
            bucket.place(video.key.as_str()).to_string(),
        );
        Unreadable::Video(error.to_string().replace(&copy, &name))
    };
    match video.kind {
        SourceKind::Images => {
            // Names are all there is to learn from: empty files of these names tell as much.
            let (images, ..) = discover::images_in(bucket, &video.key)?;
            let folder = bucket.scratch().subfolder("names")?;
            for image in images {
                let path = folder
                    .path()
                    .join(image.key.rsplit('/').next().unwrap_or_default());
                File::create(&path).map_err(|source| StoreError::Io {
                    operation: "make the scratch file",
                    path: path.clone(),
                    source,
                })?;
            }
            let probed = decode::probe(folder.path(), video.kind, options);
            probed.map_err(|error| naming(folder.path(), error))
        }
        SourceKind::File => {
            let object = Object {
                key: video.key.as_str().into(),
                bytes: video.bytes,
                etag: video.etag.clone(),
                sha256: None,
            };
            let file = bucket.scratch().file("header", "bin")?;
            let probe = || decode::probe(file.path(), video.kind, options);
            if fill_header(bucket, &object, file.as_file())?
                && let Ok(found) = probe()
            {
                return Ok(found);
            }
            bucket.fetch(&object, file.as_file())?;
            probe().map_err(|error| naming(file.path(), error))
        }
    }
}

/// Brings the header of a long MP4 or MOV into a file of the video's length; `false` for anything else.
///
/// The header is the box `moov`.
fn fill_header(bucket: &Bucket, object: &Object, file: &File) -> Result<bool, StoreError> {
    if object.bytes <= SMALL {
        return Ok(false);
    }
    let scratch = |source| StoreError::Io {
        operation: "fill scratch space in",
        path: bucket.scratch().folder().to_path_buf(),
        source,
    };
    let head = bucket.read(object, 0..HEAD)?;
    file.set_len(object.bytes).map_err(scratch)?;
    file.write_all_at(&head, 0).map_err(scratch)?;
    let mut at = 0;
    for _ in 0..MOST_BOXES {
        let beginning = match head.get(at as usize..at as usize + 16) {
            Some(beginning) => beginning.to_vec(),
            None if at + 16 <= object.bytes => {
                let read = bucket.read(object, at..at + 16)?;
                file.write_all_at(&read, at).map_err(scratch)?;
                read
            }
            None => return Ok(false),
        };
        let Some((kind, length)) = box_header(&beginning, object.bytes - at) else {
            return Ok(false);
        };
        if at == 0 && &kind != b"ftyp" {
            return Ok(false);
        }
        if &kind == b"moov" {
            if length > LONGEST_BOX {
                return Ok(false);
            }
            let moov = bucket.read(object, at..at + length)?;
            file.write_all_at(&moov, at).map_err(scratch)?;
            return Ok(!is_fragmented(&moov));
        }
        if &kind == b"moof" {
            return Ok(false);
        }
        at += length;
        if at >= object.bytes {
            return Ok(false);
        }
    }
    Ok(false)
}

/// Whether a `moov` says that samples are told all over the file, in fragments: it then holds the box `mvex` (8.8.1).
fn is_fragmented(moov: &[u8]) -> bool {
    let header = BoxHeader::read(moov).map_or(0, |found| found.header);
    let mut rest = &moov[header as usize..];
    while let Some((kind, length)) = box_header(rest, rest.len() as u64) {
        if &kind == b"mvex" {
            return true;
        }
        rest = &rest[length as usize..];
    }
    false
}

/// Kind and length of the box that begins with these 16 bytes, of which `left` are left; `None` where it is none.
fn box_header(bytes: &[u8], left: u64) -> Option<([u8; 4], u64)> {
    let found = BoxHeader::read(bytes)?;
    let length = found.length.unwrap_or(left);
    (length <= left).then_some((found.kind, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_read_as_the_standard_has_them() {
        let beginning = |length: u32, long: u64| {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.extend(b"moov");
            bytes.extend(long.to_be_bytes());
            bytes
        };
        let read = |length, long, left| box_header(&beginning(length, long), left).map(|(_, length)| length);
        assert_eq!(read(24, 0, 100), Some(24));
        assert_eq!(read(0, 0, 100), Some(100), "to the end");
        assert_eq!(read(1, 70, 100), Some(70), "64-bit length");
        assert_eq!(read(101, 0, 100), None, "longer than the file");
        assert_eq!(read(1, u64::MAX, 100), None);
        assert_eq!(read(7, 0, 100), None, "shorter than its own header");
        assert_eq!(box_header(&[0; 3], 100), None);
    }

    #[test]
    fn a_fragmented_header_says_so() {
        let boxed = |kind: &[u8; 4], content: &[u8]| {
            [&(8 + content.len() as u32).to_be_bytes()[..], kind, content].concat()
        };
        let long = |kind: &[u8; 4], content: &[u8]| {
            let length = (16 + content.len() as u64).to_be_bytes();
            [&1_u32.to_be_bytes()[..], kind, &length, content].concat()
        };
        let (header, track, extends) = (
            boxed(b"mvhd", &[0; 100]),
            boxed(b"trak", b"mvex"),
            boxed(b"mvex", &[0; 32]),
        );
        let whole = [header.clone(), track.clone()].concat();
        let parts = [header, track, extends].concat();
        assert!(!is_fragmented(&boxed(b"moov", &whole)) && !is_fragmented(&long(b"moov", &whole)));
        assert!(is_fragmented(&boxed(b"moov", &parts)) && is_fragmented(&long(b"moov", &parts)));
        for cut in 0..parts.len() {
            is_fragmented(&boxed(b"moov", &parts)[..cut]);
        }
    }
}
