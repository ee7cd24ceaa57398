//! Reading: listings page by page, objects whole, and large ones in ranges side by side.

use super::failure::{Failure, chain};
use super::retry::Notice;
use super::sums::Sums;
use super::{Bucket, Object};
use crate::{Access, Entry, StoreError, Trouble};
use affectmill_base::Location;
use affectmill_base::sha256_hex;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::ServerSideEncryption;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Metadata that affectmill stores with each object: SHA-256, hex.
pub(super) const SHA256: &str = "sha256";
/// Bytes of one ranged read.
const RANGE: u64 = 8 << 20;
/// Ranged reads of one object at a time; each holds [`RANGE`] bytes of memory.
const SIDE_BY_SIDE: usize = 4;

/// Small objects read at a time.
const SMALL_SIDE_BY_SIDE: usize = 16;

/// What a ranged read brought.
#[derive(Default)]
struct Came {
    bytes: Vec<u8>,
    /// The object's tag may be the MD5 of its bytes.
    may_be_md5: bool,
}

/// One page of a listing, and what continues it.
type Page = (Vec<Object>, Option<String>);

impl Bucket {
    /// A view of the label set below `root`.
    ///
    /// # Errors
    /// There is none, or the store failed.
    pub(crate) fn of_label_set(root: &Location, access: &Access) -> Result<Self, StoreError> {
        let bucket = Self::open(root, access)?;
        let (objects, _) = bucket.page("_affectmill/", None, Some(1), None)?;
        if objects.is_empty() {
            Err(StoreError::NotAnOutput(root.clone()))
        } else {
            Ok(bucket)
        }
    }

    /// What is known of an object; `None` when there is none.
    ///
    /// The answer has no body that its length could be held against, so it counts when two in a row agree.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn head(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let key = key.to_string();
        self.wait(|bucket, notice| async move {
            let mut before = bucket.head_async(&key, &notice).await?;
            loop {
                let now = bucket.head_async(&key, &notice).await?;
                if now == before {
                    return Ok(now);
                }
                before = now;
            }
        })
    }

    pub(super) async fn head_async(&self, key: &str, notice: &Notice) -> Result<Option<Object>, StoreError> {
        let ask = || async {
            let request = self.client.head_object().bucket(&self.bucket);
            let head = request.key(self.full(key)).send().await?;
            Ok(Object {
                key: key.into(),
                bytes: length(head.content_length)?,
                etag: unquoted(head.e_tag),
                sha256: stored_sha256(head.metadata),
            })
        };
        found(self.again("look at", key, notice, ask).await)
    }

    /// The bytes under a key; `None` when there are none.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.to_string();
        self.wait(|bucket, notice| async move { bucket.get_async(&key, &notice).await })
    }

    async fn get_async(&self, key: &str, notice: &Notice) -> Result<Option<Vec<u8>>, StoreError> {
        let ask = || async {
            let request = self.client.get_object().bucket(&self.bucket);
            let mut answer = request.key(self.full(key)).send().await?;
            let sha256 = stored_sha256(answer.metadata.take());
            let bytes = body(answer, None).await?;
            match sha256 {
                Some(sha256) if sha256_hex(&bytes) != sha256 => Err(Failure::damaged(
                    "what came is not what was stored (its SHA-256 differs)",
                )),
                _ => Ok(bytes),
            }
        };
        found(self.again("read", key, notice, ask).await)
    }

    /// The bytes under each of some keys, in their order.
    pub(crate) fn get_each(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let keys = keys.to_vec();
        self.wait(|bucket, notice| async move {
            let read = |(bucket, notice): (Bucket, Notice), key: String| async move {
                bucket.get_async(&key, &notice).await
            };
            side_by_side(&(bucket, notice), keys, read).await
        })
    }

    /// Copies an object to a path.
    pub(crate) fn copy(&self, key: &str, path: &Path) -> Result<(), StoreError> {
        let object = self.present(key)?;
        let failed = |error| StoreError::io("make a temporary file in", self.scratch.folder())(error);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(failed)?;
        self.fetch(&object, &file).map(drop)
    }

    /// A copy of an object in scratch space, made once for each version of it and kept.
    pub(crate) fn kept_copy(&self, key: &str) -> Result<PathBuf, StoreError> {
        let object = self.present(key)?;
        let identity = format!("{}\n{}\n{}", self.place(key), object.etag, object.bytes);
        let extension = Path::new(key)
            .extension()
            .and_then(OsStr::to_str)
            .unwrap_or("bin");
        let name = &sha256_hex(identity.as_bytes())[..32];
        let path = self.scratch.kept(&format!("{name}.{extension}"))?;
        if path.metadata().is_ok_and(|meta| meta.len() == object.bytes) {
            return Ok(path);
        }
        let file = self.scratch.file(name, extension)?;
        self.fetch(&object, file.as_file())?;
        self.scratch.keep(file, &path)?;
        Ok(path)
    }

    /// The error of an object that is not what was meant.
    pub fn changed(&self, key: &str) -> StoreError {
        self.error("read", key, Failure::changed(), Default::default())
    }

    /// An object that must be there.
    fn present(&self, key: &str) -> Result<Object, StoreError> {
        self.head(key)?.ok_or_else(|| {
            let failure = Failure::missing();
            self.error("read", key, failure, Default::default())
        })
    }

    /// The file under a key, brought to scratch space, where it has no name.
    pub(crate) fn file(&self, key: &str) -> Result<Option<File>, StoreError> {
        let Some(object) = self.head(key)? else {
            return Ok(None);
        };
        let folder = self.scratch.folder();
        let file =
            tempfile::tempfile_in(folder).map_err(StoreError::io("make a temporary file in", folder))?;
        self.fetch(&object, &file)?;
        Ok(Some(file))
    }

    /// Bytes of an object as it was when it was looked at.
    ///
    /// # Errors
    /// [`StoreError`]; of [`Trouble::Changed`] when it was written anew since, [`Trouble::Missing`] when it is gone.
    pub fn read(&self, object: &Object, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let object = object.clone();
        let came =
            self.wait(|bucket, notice| async move { bucket.read_async(&object, range, &notice).await });
        came.map(|came| came.bytes)
    }

    async fn read_async(
        &self,
        object: &Object,
        range: Range<u64>,
        notice: &Notice,
    ) -> Result<Came, StoreError> {
        if range.is_empty() {
            return Ok(Came::default());
        }
        let ask = || async {
            let request = self.client.get_object().bucket(&self.bucket);
            let answer = request
                .key(self.full(&object.key))
                .if_match(format!("\"{}\"", object.etag))
                .range(format!("bytes={}-{}", range.start, range.end - 1))
                .send()
                .await?;
            let may_be_md5 = answer.sse_customer_algorithm.is_none()
                && matches!(
                    answer.server_side_encryption,
                    None | Some(ServerSideEncryption::Aes256)
                );
            let bytes = body(answer, Some(range.end - range.start)).await?;
            Ok(Came { bytes, may_be_md5 })
        };
        self.again("read", &object.key, notice, ask).await
    }

    /// Brings an object, as it was when it was looked at, into an empty file, which is at its beginning afterwards. Returns how
    /// many bytes came.
    ///
    /// The content is held against the SHA-256 that affectmill stored with it, else against the entity tag where that is
    /// an MD5: not that of an upload in parts, nor where the server says that it encrypts with a key of KMS ("Object", Amazon
    /// S3 API reference). Some servers' tags only look like one, so a second reading that gives the same bytes is believed.
    ///
    /// # Errors
    /// As [`read`](Self::read); or the file cannot be written.
    pub fn fetch(&self, object: &Object, file: &File) -> Result<u64, StoreError> {
        let mut before = None;
        for reading in 1..=3 {
            let may_be_md5 = self.transfer(object, file)?;
            let sums =
                Sums::of(file).map_err(StoreError::io("read scratch space in", self.scratch.folder()))?;
            let is_same = object.sha256.is_none() && before.as_ref() == Some(&sums);
            if is_same || sums.fit(object, may_be_md5) {
                return Ok(reading * object.bytes);
            }
            before = Some(sums);
        }
        let failure = Failure::damaged("three readings gave other bytes than were stored");
        Err(self.error("read", &object.key, failure, Default::default()))
    }

    /// Whether the tag may be the MD5 of what came.
    fn transfer(&self, object: &Object, file: &File) -> Result<bool, StoreError> {
        let folder = self.scratch.folder().to_path_buf();
        let scratch = |error| StoreError::io("fill scratch space in", &folder)(error);
        file.set_len(object.bytes).map_err(scratch)?;
        let file = Arc::new(file.try_clone().map_err(scratch)?);
        let object = object.clone();
        let written = self.wait(|bucket, notice| async move {
            let mut starts = (0..object.bytes).step_by(RANGE as usize);
            let mut reads = JoinSet::new();
            let mut may_be_md5 = true;
            loop {
                while reads.len() < SIDE_BY_SIDE
                    && let Some(start) = starts.next()
                {
                    let (bucket, object, notice) = (bucket.clone(), object.clone(), notice.clone());
                    let file = file.clone();
                    reads.spawn(async move {
                        let range = start..(start + RANGE).min(object.bytes);
                        let came = bucket.read_async(&object, range, &notice).await?;
                        Ok(file.write_all_at(&came.bytes, start).map(|()| came.may_be_md5))
                    });
                }
                match reads.join_next().await {
                    None => return Ok(Ok(may_be_md5)),
                    Some(Ok(Ok(Ok(may_be)))) => may_be_md5 &= may_be,
                    // What is still on its way is broken off with the set.
                    Some(Ok(other)) => return other,
                    Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
                }
            }
        })?;
        written.map_err(scratch)
    }

    /// The first bytes of each of some objects, at most `most`, in their order, several at a time; `None` of one that cannot
    /// be read though others can.
    ///
    /// # Errors
    /// The store failed.
    pub fn beginnings(&self, objects: Vec<Object>, most: u64) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.wait(|bucket, notice| async move {
            let read = |(bucket, notice): (Bucket, Notice), object: Object| async move {
                let range = 0..object.bytes.min(most);
                match bucket.read_async(&object, range, &notice).await {
                    Ok(came) => Ok(Some(came.bytes)),
                    Err(error) if error.is_of_one_object() => Ok(None),
                    Err(error) => Err(error),
                }
            };
            side_by_side(&(bucket, notice), objects, read).await
        })
    }

    /// Whether nothing lies below the prefix.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        let (objects, _) = self.page("", None, Some(1), None)?;
        Ok(objects.is_empty())
    }

    /// The objects directly in a folder, sorted by key.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<Entry>, StoreError> {
        let below = format!("{folder}/");
        let mut found = Vec::new();
        self.pages(&below, Some("/"), |object| {
            // The listing of a folder may hold an object that stands for the folder itself.
            let name = object.key.strip_prefix(&below).unwrap_or_default();
            if !name.is_empty() && !name.starts_with('.') {
                found.push(Entry {
                    key: object.key,
                    bytes: object.bytes,
                });
            }
        })?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// Shows every object below the prefix, in the order of the listing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn walk(&self, visit: impl FnMut(Object)) -> Result<(), StoreError> {
        self.pages("", None, visit)
    }

    /// As [`walk`](Self::walk), of the objects directly in `folder` alone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn walk_folder(&self, folder: &str, visit: impl FnMut(Object)) -> Result<(), StoreError> {
        self.pages(&format!("{folder}/"), Some("/"), visit)
    }

    fn pages(
        &self,
        below: &str,
        delimiter: Option<&'static str>,
        mut visit: impl FnMut(Object),
    ) -> Result<(), StoreError> {
        let mut next = None;
        loop {
            let (objects, more) = self.page(below, delimiter, None, next)?;
            objects.into_iter().for_each(&mut visit);
            match more {
                Some(token) => next = Some(token),
                None => return Ok(()),
            }
        }
    }

    fn page(
        &self,
        below: &str,
        delimiter: Option<&'static str>,
        most: Option<i32>,
        token: Option<String>,
    ) -> Result<Page, StoreError> {
        let below = below.to_string();
        self.wait(|bucket, notice| async move {
            let ask = || async {
                let request = bucket.client.list_objects_v2().bucket(&bucket.bucket);
                let page = request
                    .prefix(bucket.full(&below))
                    .set_delimiter(delimiter.map(String::from))
                    .set_max_keys(most)
                    .set_continuation_token(token.clone())
                    .send()
                    .await?;
                let more = page.is_truncated.unwrap_or_default();
                if more && page.next_continuation_token.is_none() && most.is_none() {
                    return Err(Failure::damaged(
                        "the listing breaks off without saying how it goes on",
                    ));
                }
                let relative = |object: aws_sdk_s3::types::Object| {
                    Some(Object {
                        key: object.key?.strip_prefix(&bucket.prefix)?.to_string(),
                        bytes: u64::try_from(object.size?).ok()?,
                        etag: unquoted(object.e_tag),
                        sha256: None,
                    })
                };
                let objects = page.contents.unwrap_or_default().into_iter().map(relative);
                let objects: Option<Vec<Object>> = objects.collect();
                let objects =
                    objects.ok_or_else(|| Failure::damaged("the listing lacks an object's key or size"))?;
                Ok((objects, page.next_continuation_token.filter(|_| more)))
            };
            bucket.again("list", &below, &notice, ask).await
        })
    }
}

/// Asks for each of some things, a few at a time, until one cannot be had; the answers are in their order.
async fn side_by_side<C, A, T, F>(
    context: &C,
    asked: Vec<A>,
    ask: impl Fn(C, A) -> F,
) -> Result<Vec<T>, StoreError>
where
    C: Clone,
    T: Send + 'static,
    F: Future<Output = Result<T, StoreError>> + Send + 'static,
{
    let mut answers: Vec<Option<T>> = asked.iter().map(|_| None).collect();
    let mut asked = asked.into_iter().enumerate();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < SMALL_SIDE_BY_SIDE
            && let Some((at, what)) = asked.next()
        {
            let answer = ask(context.clone(), what);
            under_way.spawn(async move { (at, answer.await) });
        }
        match under_way.join_next().await {
            None => return Ok(answers.into_iter().flatten().collect()),
            // What is still on its way is broken off with the set.
            Some(Ok((at, answer))) => answers[at] = Some(answer?),
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// A missing object is an answer, not an error.
fn found<T>(answer: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.trouble() == Some(Trouble::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The whole body; it must be as long as the answer says, and as was `asked` for.
async fn body(answer: GetObjectOutput, asked: Option<u64>) -> Result<Vec<u8>, Failure> {
    let said = length(answer.content_length)?;
    let collected = answer.body.collect().await;
    let bytes = collected
        .map_err(|error| Failure::damaged(chain(&error)))?
        .to_vec();
    let came = bytes.len() as u64;
    let expected = asked.unwrap_or(said);
    if came != said || came != expected {
        return Err(Failure::damaged(format!(
            "{came} bytes came of {expected}, and {said} were announced"
        )));
    }
    Ok(bytes)
}

fn length(said: Option<i64>) -> Result<u64, Failure> {
    said.and_then(|said| u64::try_from(said).ok())
        .ok_or_else(|| Failure::damaged("the answer does not say how long it is"))
}

fn unquoted(etag: Option<String>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_string()
}

fn stored_sha256(metadata: Option<HashMap<String, String>>) -> Option<String> {
    metadata?.remove(SHA256)
}
