//! Identities that appear in files and messages: video keys, shard ids, fingerprints, checksums. Each may become a file name,
//! so each is checked when it is read.

use super::escaped;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

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
    /// [`BadKey`] when the key is empty, absolute, contains a NUL, or has an empty, `.` or `..` component.
    pub fn new(key: impl Into<String>) -> Result<Self, BadKey> {
        relative(key.into()).map(Self)
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

fn relative(key: String) -> Result<String, BadKey> {
    let bad = key.contains('\0') || key.split('/').any(|part| matches!(part, "" | "." | ".."));
    if bad { Err(BadKey(key)) } else { Ok(key) }
}

/// A file's path relative to a root given elsewhere, with the rules of a [`VideoKey`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePath(String);

impl TryFrom<String> for RelativePath {
    type Error = BadKey;
    fn try_from(path: String) -> Result<Self, BadKey> {
        relative(path).map(Self)
    }
}

impl From<RelativePath> for String {
    fn from(path: RelativePath) -> String {
        path.0
    }
}

impl Deref for RelativePath {
    type Target = str;
    fn deref(&self) -> &str {
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

/// Escaped for messages; [`as_str`](VideoKey::as_str) is the key itself.
impl fmt::Display for VideoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped(&self.0))
    }
}

/// The identity of a shard: 16 lower-case hex digits, a hash of the shard's content (its videos).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShardId(String);

/// A text that is not the expected number of hex digits.
#[derive(Debug, PartialEq, Eq)]
pub struct BadHex {
    text: String,
    digits: usize,
}

impl fmt::Display for BadHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, digits } = self;
        write!(
            f,
            "`{}` is not {digits} lower-case hex digits",
            text.escape_debug()
        )
    }
}

impl std::error::Error for BadHex {}

fn hex_digits(text: String, digits: usize) -> Result<String, BadHex> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() == digits && text.bytes().all(is_digit) {
        Ok(text)
    } else {
        Err(BadHex { text, digits })
    }
}

impl TryFrom<String> for ShardId {
    type Error = BadHex;
    fn try_from(id: String) -> Result<Self, BadHex> {
        hex_digits(id, 16).map(Self)
    }
}

impl From<ShardId> for String {
    fn from(id: ShardId) -> String {
        id.0
    }
}

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
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl TryFrom<String> for Fingerprint {
    type Error = BadHex;
    fn try_from(digest: String) -> Result<Self, BadHex> {
        hex_digits(digest, 64).map(Self)
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.0
    }
}

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

/// For serde: reads a SHA-256, 64 lower-case hex digits.
///
/// # Errors
/// The text is not 64 lower-case hex digits.
pub fn checksum<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    hex_digits(String::deserialize(reader)?, 64).map_err(de::Error::custom)
}

/// For serde: reads a list of SHA-256 digests.
///
/// # Errors
/// As [`checksum`].
pub fn checksums<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<String>, D::Error> {
    let texts = Vec::<String>::deserialize(reader)?.into_iter();
    let read: Result<_, _> = texts.map(|text| hex_digits(text, 64)).collect();
    read.map_err(de::Error::custom)
}

/// Bytes as lower-case hex digits, two per byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_hex_digits_of_their_length() {
        let read = |json: &str| serde_json::from_str::<ShardId>(json);
        let id = ShardId::from_digest(&[0xa1; 8]);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(
            (json.as_str(), read(&json).unwrap()),
            ("\"a1a1a1a1a1a1a1a1\"", id)
        );
        for bad in [
            "",
            "a1a1",
            "A1A1A1A1A1A1A1A1",
            "../../../etc/pass",
            "a1a1a1a1a1a1a1a1\\n",
            "*",
            "a1a1a1a1a1a1a1a1a1",
        ] {
            assert!(read(&format!("\"{bad}\"")).is_err(), "{bad}");
        }
        let fingerprint = |digits: usize| format!("\"{}\"", "0".repeat(digits));
        assert!(serde_json::from_str::<Fingerprint>(&fingerprint(64)).is_ok());
        assert!(serde_json::from_str::<Fingerprint>(&fingerprint(63)).is_err());
        assert!(serde_json::from_str::<RelativePath>("\"crops/../../x.tar\"").is_err());
    }

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
