//! Locations: on local disks or in an S3 bucket.

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use std::fmt;
use std::path::{Path, PathBuf};

/// A path, or a place in S3 written `s3://bucket/key`.
///
/// The key of an S3 location is what follows the bucket, byte for byte: nothing in it is percent-decoded, no `.` or
/// `..` is resolved. A trailing `/` is dropped, except in an input, where it marks a prefix instead of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// A path on a local disk or a mounted share.
    Local(PathBuf),
    /// An object, or everything below a prefix.
    S3 {
        /// Bucket.
        bucket: String,
        /// Key or prefix; empty for the whole bucket. Only [`Self::parse_input`] keeps a single trailing `/`.
        key: String,
    },
}

/// An `s3://` uri without a valid bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a bucket; write s3://bucket/prefix")]
pub struct BadBucket(String);

impl Location {
    /// Reads a plain path or an `s3://` uri.
    ///
    /// # Errors
    /// [`BadBucket`] when the uri has no bucket, or an invalid one.
    pub fn parse(text: &str) -> Result<Self, BadBucket> {
        Self::parse_input(text).map(Self::without_slash)
    }

    /// Like [`parse`](Self::parse), but keeps a trailing `/` of a key.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_input(text: &str) -> Result<Self, BadBucket> {
        let Some(rest) = text.strip_prefix("s3://") else {
            return Ok(Self::Local(text.into()));
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let is_good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if bucket.is_empty() || !bucket.chars().all(is_good) {
            return Err(BadBucket(bucket.into()));
        }
        let name = key.trim_end_matches('/');
        let slash = if name.is_empty() || name == key { "" } else { "/" };
        Ok(Self::S3 {
            bucket: bucket.into(),
            key: format!("{name}{slash}"),
        })
    }

    /// Reads an input's location from a job; keeps a trailing `/` of an S3 key.
    ///
    /// # Errors
    /// The value is not a string.
    pub fn deserialize_input<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // A bad uri stays text; the check of the job file reports its position.
        Ok(Self::parse_input(&text).unwrap_or_else(|_| Self::Local(text.into())))
    }

    /// The same location without a trailing `/` of an S3 key.
    #[must_use]
    pub fn without_slash(self) -> Self {
        match self {
            Self::S3 { bucket, key } => Self::S3 {
                bucket,
                key: key.trim_end_matches('/').into(),
            },
            local => local,
        }
    }

    /// The location of `key` below this one; `key` is `/`-separated.
    pub fn join(&self, key: &str) -> Self {
        match self {
            Self::Local(path) => Self::Local(path.join(key)),
            Self::S3 { bucket, key: prefix } => Self::S3 {
                bucket: bucket.clone(),
                key: match prefix.trim_end_matches('/') {
                    "" => key.into(),
                    prefix => format!("{prefix}/{key}"),
                },
            },
        }
    }

    /// The path of a local location.
    pub fn as_local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::S3 { .. } => None,
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::Local(path)
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Self::Local(path.into())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
        }
    }
}

impl Serialize for Location {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // Like serde's own paths: a path that is not UTF-8 cannot be written.
            Self::Local(path) => {
                let text = path
                    .to_str()
                    .ok_or_else(|| ser::Error::custom("a path that is not UTF-8"))?;
                serializer.serialize_str(text)
            }
            Self::S3 { .. } => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize_input(deserializer).map(Self::without_slash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read_and_written_byte_for_byte() {
        for (text, bucket, key) in [
            ("s3://b/a b/c+d%20#é/..", "b", "a b/c+d%20#é/.."),
            ("s3://my.bucket-1", "my.bucket-1", ""),
            ("s3://b/x//", "b", "x"),
        ] {
            let location = Location::parse(text).unwrap();
            let expected = Location::S3 {
                bucket: bucket.into(),
                key: key.into(),
            };
            assert_eq!(location, expected);
            let json = serde_json::to_string(&location).unwrap();
            assert_eq!(serde_json::from_str::<Location>(&json).unwrap(), expected);
        }
        for bad in ["s3://", "s3:///key", "s3://a b/c", "s3://a@b/c"] {
            assert!(Location::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Location::parse("a/b").unwrap().as_local(), Some(Path::new("a/b")));
    }

    #[test]
    fn an_input_keeps_the_slash_that_says_prefix() {
        for (text, shown) in [
            ("s3://b/x//", "s3://b/x/"),
            ("s3://b/x", "s3://b/x"),
            ("s3://b/", "s3://b/"),
            ("s3://b", "s3://b/"),
        ] {
            let input = Location::parse_input(text).unwrap();
            assert_eq!(input.to_string(), shown);
            assert_eq!(input.join("y"), Location::parse(text).unwrap().join("y"));
            assert_eq!(input.without_slash(), Location::parse(text).unwrap());
        }
    }

    #[test]
    fn joining_goes_below() {
        let join = |text: &str, key: &str| Location::parse(text).unwrap().join(key).to_string();
        assert_eq!(join("s3://b", "x/y"), "s3://b/x/y");
        assert_eq!(join("s3://b/p/", "x/y"), "s3://b/p/x/y");
        assert_eq!(join("/p", "x/y"), "/p/x/y");
    }
}
