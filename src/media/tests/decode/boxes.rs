//! Boxes of MP4 files, taken apart and put together (ISO/IEC 14496-12).

use std::ops::Range;

/// A box: its size and name, then the content.
pub fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32 + 8).to_be_bytes()[..], name, content].concat()
}

/// The boxes that lie one behind the other in a stretch of bytes: names and places.
pub fn boxes(bytes: &[u8], within: Range<usize>) -> Vec<([u8; 4], Range<usize>)> {
    let mut found = Vec::new();
    let mut at = within.start;
    while at < within.end {
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        assert!(size >= 8, "a plain size");
        found.push((bytes[at + 4..at + 8].try_into().unwrap(), at..at + size));
        at += size;
    }
    found
}

/// Adds a box at the end of the one that a path leads to; each step is a name, and the bytes of it that come before its boxes.
/// What the file points to must not lie behind.
pub fn add(bytes: &mut Vec<u8>, path: &[(&[u8; 4], usize)], content: &[u8]) {
    let mut within = 0..bytes.len();
    for (name, before) in path {
        let found = boxes(bytes, within).into_iter().find(|(found, _)| found == *name);
        let (_, place) = found.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(*name)));
        let size = place.len() as u32 + content.len() as u32;
        bytes[place.start..place.start + 4].copy_from_slice(&size.to_be_bytes());
        within = place.start + 8 + before..place.end;
    }
    bytes.splice(within.end..within.end, content.iter().copied());
}
