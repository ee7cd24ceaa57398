//! Writing: whole objects in one request or in parts, create-only where it counts, and away with what was left behind.

use super::Bucket;
use super::failure::Failure;
use super::read::SHA256;
use super::retry::Notice;
use crate::{Access, Put, StoreError, Trouble};
use affectmill_base::Location;
use affectmill_base::{sha256_file, sha256_hex};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;
use tokio::task::JoinSet;

/// What exists in every output that was opened for writing.
const PROBE: &str = "_affectmill/create-only";
/// What exists in every output in which uploads in parts were tried, too.
const PROBE_OF_PARTS: &str = "_affectmill/create-only-parts";
/// A longer file goes in parts of this length; each part on its way is held in memory.
const PART: u64 = 16 << 20;
/// Most parts of an upload (Amazon S3 multipart upload limits).
const MOST_PARTS: u64 = 10_000;
/// Parts on their way at a time.
const SIDE_BY_SIDE: usize = 4;
/// Create-only: no entity tag may match.
const NONE: &str = "*";

impl Bucket {
    /// A view for writing a label set below `root`.
    ///
    /// # Errors
    /// The store failed, or the server overwrites what must not be overwritten.
    pub(crate) fn for_writing(root: &Location, access: &Access) -> Result<Self, StoreError> {
        let bucket = Self::open(root, access)?;
        let unfit = |cause: &str, remedy: &str| {
            Err(StoreError::S3 {
                operation: "write safely to",
                place: root.to_string(),
                cause: cause.into(),
                remedy: remedy.into(),
                trouble: Trouble::Setup,
            })
        };
        // There already: the server has just kept it. Otherwise it has to be tried a second time.
        let kept = bucket.put_new(PROBE, b"")? == Put::Exists || bucket.put_new(PROBE, b"")? == Put::Exists;
        if !kept {
            return unfit(
                "this server overwrites objects although it is told not to (If-None-Match: *)",
                "two workers could then write one shard twice: label into another store",
            );
        }
        if bucket.head(PROBE)?.is_none() {
            return unfit(
                "this server has not kept what it said was stored",
                "look into its log, or label into another store",
            );
        }
        // Once for an output: servers have the one and not the other.
        if bucket.head(PROBE_OF_PARTS)?.is_none() {
            let mut file = bucket.scratch.file("probe", "tmp")?;
            let filled = file.write_all(b"probe");
            filled.map_err(StoreError::io("write", file.path()))?;
            if bucket.put_in_parts(PROBE, file)? == Put::Created {
                return unfit(
                    "this server overwrites objects although it is told not to when an upload in parts is completed \
                     (If-None-Match: * of CompleteMultipartUpload)",
                    "two workers could then write one shard twice: take a newer version of the server, or label into another store",
                );
            }
            let _ = bucket.put_new(PROBE_OF_PARTS, b"")?;
        }
        Ok(bucket)
    }

    pub(crate) fn put_new(&self, key: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        let (key, bytes) = (key.to_string(), bytes.to_vec());
        self.wait(|bucket, notice| async move { bucket.put(&key, bytes, Some(NONE), &notice).await })
    }

    pub(crate) fn replace(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (key, bytes) = (key.to_string(), bytes.to_vec());
        self.wait(|bucket, notice| async move { bucket.put(&key, bytes, None, &notice).await.map(drop) })
    }

    pub(crate) fn put_new_file(&self, key: &str, file: NamedTempFile) -> Result<Put, StoreError> {
        let path = file.path().to_path_buf();
        let failed = |error| StoreError::io("read", &path)(error);
        if file.as_file().metadata().map_err(failed)?.len() <= PART {
            return self.put_new(key, &std::fs::read(&path).map_err(failed)?);
        }
        // Gigabytes need not travel to learn that they are there.
        match self.head(key)? {
            Some(_) => Ok(Put::Exists),
            None => self.put_in_parts(key, file),
        }
    }

    fn put_in_parts(&self, key: &str, file: NamedTempFile) -> Result<Put, StoreError> {
        let path = file.path().to_path_buf();
        let failed = |error| StoreError::io("read", &path)(error);
        let whole = sha256_file(&path).map_err(failed)?;
        let handle = File::open(&path).map_err(failed)?;
        let key = key.to_string();
        self.wait(|bucket, notice| async move {
            let upload = Upload {
                bucket: bucket.clone(),
                key,
                notice,
                file: Arc::new(handle),
                bytes: whole.bytes,
            };
            upload.run(whole.sha256).await
        })
    }

    async fn put(
        &self,
        key: &str,
        bytes: Vec<u8>,
        condition: Option<&str>,
        notice: &Notice,
    ) -> Result<Put, StoreError> {
        let sha256 = sha256_hex(&bytes);
        let ask = || async {
            let request = self.client.put_object().bucket(&self.bucket);
            request
                .key(self.full(key))
                .set_if_none_match(condition.map(String::from))
                .checksum_algorithm(ChecksumAlgorithm::Sha256)
                .metadata(SHA256, &sha256)
                .body(bytes.clone().into())
                .send()
                .await?;
            Ok(())
        };
        created(self.again("write", key, notice, ask).await)
    }

    pub(crate) fn delete(&self, key: &str) -> Result<bool, StoreError> {
        let key = key.to_string();
        self.wait(|bucket, notice| async move {
            if bucket.head_async(&key, &notice).await?.is_none() {
                return Ok(false);
            }
            let ask = || async {
                let request = bucket.client.delete_object().bucket(&bucket.bucket);
                request.key(bucket.full(&key)).send().await?;
                Ok(())
            };
            bucket.again("delete", &key, &notice, ask).await?;
            Ok(true)
        })
    }

    /// Removes uploads below the prefix that were begun at least `older_than` ago and never completed. Returns how many;
    /// none where these credentials may not look for them.
    pub(crate) fn sweep_uploads(&self, older_than: Duration) -> Result<usize, StoreError> {
        let before = SystemTime::now()
            .checked_sub(older_than)
            .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map_or(0, |since| since.as_secs() as i64);
        self.wait(|bucket, notice| async move {
            match bucket.left_uploads(before, &notice).await {
                Ok(left) => {
                    for (key, id) in &left {
                        bucket.abort(key, id, &notice).await?;
                    }
                    Ok(left.len())
                }
                Err(error) if matches!(error.trouble(), Some(Trouble::Setup | Trouble::Forbidden)) => Ok(0),
                Err(error) => Err(error),
            }
        })
    }

    /// Keys and ids of uploads begun before this second since 1970.
    async fn left_uploads(&self, before: i64, notice: &Notice) -> Result<Vec<(String, String)>, StoreError> {
        let mut left = Vec::new();
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let ask = || async {
                let request = self.client.list_multipart_uploads().bucket(&self.bucket);
                Ok(request
                    .prefix(&self.prefix)
                    .set_key_marker(key_marker.clone())
                    .set_upload_id_marker(id_marker.clone())
                    .send()
                    .await?)
            };
            let page = self
                .again("list the unfinished uploads of", "", notice, ask)
                .await?;
            for upload in page.uploads() {
                let (Some(key), Some(id), Some(begun)) =
                    (upload.key(), upload.upload_id(), upload.initiated())
                else {
                    continue;
                };
                if begun.secs() <= before
                    && let Some(key) = key.strip_prefix(&self.prefix)
                {
                    left.push((key.to_string(), id.to_string()));
                }
            }
            if !page.is_truncated().unwrap_or_default() || page.next_key_marker.is_none() {
                return Ok(left);
            }
            (key_marker, id_marker) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }

    /// What a process leaves that is killed in the middle of an upload.
    #[cfg(test)]
    pub(crate) fn begin_upload_for_tests(&self, key: &str) {
        let (bucket, key) = (self.clone(), self.full(key));
        super::retry::on_runtime(async move {
            let request = bucket.client.create_multipart_upload().bucket(&bucket.bucket);
            request.key(key).send().await.expect("an upload begins")
        });
    }

    async fn abort(&self, key: &str, id: &str, notice: &Notice) -> Result<(), StoreError> {
        let ask = || async {
            let request = self.client.abort_multipart_upload().bucket(&self.bucket);
            request.key(self.full(key)).upload_id(id).send().await?;
            Ok(())
        };
        match self
            .again("clear away the unfinished upload of", key, notice, ask)
            .await
        {
            // Somebody else did.
            Err(error) if error.trouble() == Some(Trouble::Missing) => Ok(()),
            other => other,
        }
    }
}

/// Where a condition was not met, something was there: somebody else's, or ours, when the answer to an earlier attempt
/// was lost.
fn created(answer: Result<(), StoreError>) -> Result<Put, StoreError> {
    match answer {
        Ok(()) => Ok(Put::Created),
        Err(error) if error.trouble() == Some(Trouble::Changed) => Ok(Put::Exists),
        Err(error) => Err(error),
    }
}

/// A file on its way in parts.
struct Upload {
    bucket: Bucket,
    key: String,
    notice: Notice,
    file: Arc<File>,
    bytes: u64,
}

impl Upload {
    async fn run(self, sha256: String) -> Result<Put, StoreError> {
        let Self {
            bucket, key, notice, ..
        } = &self;
        let begin = || async {
            let request = bucket.client.create_multipart_upload().bucket(&bucket.bucket);
            let begun = request
                .key(bucket.full(key))
                .checksum_algorithm(ChecksumAlgorithm::Sha256)
                .metadata(SHA256, &sha256)
                .send()
                .await?;
            begun
                .upload_id
                .ok_or_else(|| Failure::damaged("the answer names no upload"))
        };
        let id = bucket.again("begin to write", key, notice, begin).await?;
        let put = match self.parts(&id).await {
            Ok(parts) => self.complete(&id, parts).await,
            Err(error) => Err(error),
        };
        if matches!(put, Ok(Put::Created)) {
            // A server whose condition is not atomic when uploads are completed may have let somebody else win after us.
            let there = bucket.head_async(key, notice).await?;
            let ours = there.is_some_and(|there| there.sha256.is_none_or(|found| found == sha256));
            return Ok(if ours { Put::Created } else { Put::Exists });
        }
        // What was not completed is of no use to anybody; the sweep takes what cannot be cleared away now.
        let _ = bucket.abort(key, &id, notice).await;
        put
    }

    async fn parts(&self, id: &str) -> Result<Vec<CompletedPart>, StoreError> {
        let length = PART.max(self.bytes.div_ceil(MOST_PARTS));
        let mut starts = (0..self.bytes).step_by(length as usize).zip(1..);
        let mut sends = JoinSet::new();
        let mut parts = Vec::new();
        loop {
            while sends.len() < SIDE_BY_SIDE
                && let Some((start, number)) = starts.next()
            {
                let (bucket, notice, file) = (self.bucket.clone(), self.notice.clone(), self.file.clone());
                let (key, id) = (self.key.clone(), id.to_string());
                let size = length.min(self.bytes - start) as usize;
                sends.spawn(async move {
                    let ask = || async {
                        let mut bytes = vec![0; size];
                        file.read_exact_at(&mut bytes, start)
                            .map_err(|error| Failure::damaged(format!("scratch space: {error}")))?;
                        let request = bucket.client.upload_part().bucket(&bucket.bucket);
                        let sent = request
                            .key(bucket.full(&key))
                            .upload_id(&id)
                            .part_number(number)
                            .checksum_algorithm(ChecksumAlgorithm::Sha256)
                            .body(bytes.into())
                            .send()
                            .await?;
                        let part = CompletedPart::builder().part_number(number);
                        Ok(part
                            .set_e_tag(sent.e_tag)
                            .set_checksum_sha256(sent.checksum_sha256)
                            .build())
                    };
                    bucket.again("write", &key, &notice, ask).await
                });
            }
            match sends.join_next().await {
                None => break,
                Some(Ok(part)) => parts.push(part?),
                Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        parts.sort_by_key(CompletedPart::part_number);
        Ok(parts)
    }

    async fn complete(&self, id: &str, parts: Vec<CompletedPart>) -> Result<Put, StoreError> {
        let Self {
            bucket, key, notice, ..
        } = self;
        let whole = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let ask = || async {
            let request = bucket.client.complete_multipart_upload().bucket(&bucket.bucket);
            request
                .key(bucket.full(key))
                .upload_id(id)
                .multipart_upload(whole.clone())
                .if_none_match(NONE)
                .send()
                .await?;
            Ok(())
        };
        let answer = bucket.again("complete", key, notice, ask).await;
        // An upload that is gone was completed by an attempt whose answer was lost, if the object is there.
        let gone = |error: &StoreError| error.trouble() == Some(Trouble::Missing);
        if answer.as_ref().is_err_and(gone) && bucket.head_async(key, notice).await?.is_some() {
            return Ok(Put::Exists);
        }
        created(answer)
    }
}
