//! The mounts of this process, as proc(5)'s `mountinfo` lists them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
pub(crate) struct Mount<'a> {
    /// Which folder of its file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Type of the file system.
    pub kind: &'a str,
    /// Options of the file system.
    pub options: &'a str,
}

/// The mounts in this text; lines that are none are ignored.
pub(crate) fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let (mut place, mut kind) = (place.split(' ').skip(3), kind.split(' '));
        Some(Mount {
            root: unescaped(place.next()?),
            point: unescaped(place.next()?),
            kind: kind.next().unwrap_or(""),
            options: kind.nth(1).unwrap_or(""),
        })
    })
}

/// A path in which spaces, tabs, line ends and backslashes stand as `\` and three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.first_chunk::<3>().filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        rest = if byte.is_some() { &tail[3..] } else { tail };
        bytes.push(byte.unwrap_or(*first));
    }
    OsString::from_vec(bytes).into()
}
