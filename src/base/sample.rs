//! Names of crops in tar shards.

use std::fmt;

/// Name of a member of a tar shard of crops, `<video>/<frame>-<face>.<ending>`: WebDataset's key ends at the first dot after
/// the last `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleName<'a> {
    /// Key of the video.
    pub video: &'a str,
    /// Frame.
    pub frame: u64,
    /// Index of the face within the frame.
    pub face: i32,
    /// `jpg` or `json`.
    pub ending: &'a str,
}

impl<'a> SampleName<'a> {
    /// Parses a name; tools that repack a folder may prefix it with `./`. `None` when it is no such name.
    pub fn parse(name: &'a str) -> Option<Self> {
        let name = name.strip_prefix("./").unwrap_or(name);
        let (video, rest) = name.rsplit_once('/')?;
        let (numbers, ending) = rest.split_once('.')?;
        let (frame, face) = numbers.split_once('-')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (matches!(ending, "jpg" | "json") && is_number(frame) && is_number(face)).then_some(())?;
        Some(Self {
            video,
            frame: frame.parse().ok().filter(|frame| i64::try_from(*frame).is_ok())?,
            face: face.parse().ok()?,
            ending,
        })
    }
}

impl fmt::Display for SampleName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{:09}-{:03}.{}",
            self.video, self.frame, self.face, self.ending
        )
    }
}
