//! S3: everything below one prefix of a bucket.
//!
//! The SDK is asynchronous and the rooms are not: each operation runs on a small runtime of this module's own while the
//! caller waits, so it may be called from anywhere. The SDK's own retries are off; `again` repeats what is worth
//! it for as long as the access has patience.
//!
//! What is written carries its SHA-256: the server checks it on arrival, and as `x-amz-meta-sha256` it is held against
//! what comes back.

mod connect;
mod failure;
mod read;
mod retry;
mod route;
mod sums;
mod write;

pub(super) use connect::Clients;

use super::{Access, Scratch, StoreError, Trouble};
use affectmill_base::Location;
use aws_sdk_s3::Client;

/// An object as a listing or a HEAD tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Key relative to the bucket view's prefix.
    pub key: String,
    /// Size.
    pub bytes: u64,
    /// Entity tag, without quotes.
    pub etag: String,
    /// SHA-256, hex, as affectmill stored it with the object.
    pub sha256: Option<String>,
}

/// A prefix of a bucket; keys are relative to it.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    access: Access,
    root: Location,
    bucket: String,
    /// Empty, or ends in `/`.
    prefix: String,
    scratch: Scratch,
}

impl Bucket {
    /// A view of everything below `root`; nothing is asked of the server yet.
    ///
    /// # Errors
    /// `root` is no `s3://` location, or scratch space cannot be had.
    pub fn open(root: &Location, access: &Access) -> Result<Self, StoreError> {
        let Location::S3 { bucket, key } = root else {
            return Err(StoreError::NotAnOutput(root.clone()));
        };
        let client = access.clients.client(&access.settings, bucket);
        let client = client.map_err(|cause| StoreError::S3 {
            operation: "reach",
            place: root.to_string(),
            cause: cause.to_string(),
            remedy: "correct that variable, or unset it".into(),
            trouble: Trouble::Setup,
        })?;
        Ok(Self {
            client,
            access: access.clone(),
            root: root.clone(),
            bucket: bucket.clone(),
            prefix: match key.trim_end_matches('/') {
                "" => String::new(),
                key => format!("{key}/"),
            },
            scratch: access.scratch()?,
        })
    }

    /// Where a key lies.
    pub fn place(&self, key: &str) -> Location {
        match key {
            "" => self.root.clone(),
            key => self.root.join(key),
        }
    }

    /// Space for what is brought from here.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}
