//! Identities that appear in files: video keys, shard ids, fingerprints.

use super::escaped;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;

/// The key of one video: its path relative to the input root, components separated by `/` on every platform.
///
/// A key never starts with `/` and has no empty, `.` or `..` component, so joining it to a root cannot leave
/// that root. A folder of numbered images is one video; its key is the folder's path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VideoKey(String);

/// Why a string is no video key.
#[derive(Debug, PartialEq, Eq)]
pub struct BadKey(String);

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a usable key: keys are relative and have no empty, `.` or `..` component",
            self.0.escape_debug()
        )
    }
}

impl std::error::Error for BadKey {}

impl VideoKey {
    /// Checks and wraps a key.
    ///
    /// # Errors
    /// [`BadKey`] when the key is empty, absolute, holds a NUL, or has an empty, `.` or `..` component.
    pub fn new(key: impl Into<String>) -> Result<Self, BadKey> {
        let key = key.into();
        let bad = key.contains('\0') || key.split('/').any(|part| matches!(part, "" | "." | ".."));
        if bad { Err(BadKey(key)) } else { Ok(Self(key)) }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for VideoKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for VideoKey {
    type Error = BadKey;
    fn try_from(key: String) -> Result<Self, BadKey> {
        Self::new(key)
    }
}

impl From<VideoKey> for String {
    fn from(key: VideoKey) -> String {
        key.0
    }
}

/// For people; [`as_str`](VideoKey::as_str) is the key itself.
impl fmt::Display for VideoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped(&self.0))
    }
}

/// The identity of a shard: 16 lower-case hex digits, a hash of the shard's content (its videos).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(String);

impl ShardId {
    /// Takes the first 8 bytes of a digest as the id.
    pub fn from_digest(digest: &[u8]) -> Self {
        Self(hex(&digest[..8]))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 over everything that can change a label, as 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Wraps a SHA-256 digest.
    pub fn from_digest(digest: &[u8]) -> Self {
        Self(hex(digest))
    }

    /// The fingerprint as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower-case hex digits of bytes, two a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_the_root() {
        for bad in ["", "/etc/passwd", "a//b", "../a", "a/../b", "a/.", "a/", "a\0b"] {
            assert!(VideoKey::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a.mp4", "a b/c+d%20#é.mp4", "...", "a/..b"] {
            assert_eq!(VideoKey::new(good).unwrap().as_str(), good);
        }
        assert!(serde_json::from_str::<VideoKey>("\"../x\"").is_err());
    }
}
