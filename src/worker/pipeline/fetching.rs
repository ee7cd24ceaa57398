//! The fetch stage: videos of a bucket are brought to scratch space while earlier ones are decoded.
//!
//! A few threads fetch the videos of the shard in hand, then those of the one that most likely follows, in that order,
//! as long as what lies in scratch space stays within its bounds; a video longer than that is fetched when nothing else
//! lies there. A copy goes as soon as its video is done with. What is fetched is the object that was planned (its
//! entity tag says so), or nothing.

use super::input::{NotOpened, changed};
use crate::heartbeat::Reports;
use affectmill_base::{ErrorClass, SourceKind, Trouble};
use affectmill_base::{RetryPolicy, VideoKey};
use affectmill_discover as discover;
use affectmill_labelset::{PlannedVideo, ShardPlan};
use affectmill_store as store;
use affectmill_store::{Bucket, Object, ScratchFolder, StoreError};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// Videos fetched at a time: short ones take longer to ask for than to arrive.
const SIDE_BY_SIDE: usize = 4;
/// How often a waiting decoder says that it lives.
const TICK: Duration = Duration::from_secs(1);
/// How long scratch space that others use may stay full.
const ROOM: RetryPolicy = RetryPolicy::within(Duration::from_secs(600), TICK, TICK);
/// Folders and files in scratch space are locked by whoever made them; this covers the moment before.
const ABANDONED: Duration = Duration::from_secs(60);

/// The last trouble of the store that is fetched from, in words; none while it works.
#[derive(Clone, Default)]
pub(super) struct StoreTrouble(Arc<Mutex<Option<String>>>);

impl StoreTrouble {
    pub fn note(&self, trouble: Option<&str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble.map(str::to_owned);
    }

    fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A video in scratch space, removed when this is dropped.
pub(super) struct Copy {
    content: Content,
    bytes: u64,
    shared: Arc<Shared>,
}

enum Content {
    File(NamedTempFile),
    Folder(ScratchFolder),
}

impl Copy {
    /// Where FFmpeg finds it.
    pub fn path(&self) -> &Path {
        match &self.content {
            Content::File(file) => file.path(),
            Content::Folder(folder) => folder.path(),
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // The space is free once the file is gone, which is a moment after; what is left over covers that.
        self.shared.state().held -= self.bytes;
        self.shared.changed.notify_all();
    }
}

/// What was fetched, by all threads together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fetched {
    /// Time it took.
    pub time: Duration,
    /// Bytes that arrived; of a video that was read twice, twice.
    pub bytes: u64,
}

/// Fetches what it is told to want.
pub(super) struct Fetcher {
    shared: Arc<Shared>,
}

struct Shared {
    bucket: Bucket,
    trouble: StoreTrouble,
    budget: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// In the order they are needed.
    wanted: Vec<PlannedVideo>,
    fetching: HashSet<VideoKey>,
    arrived: HashMap<VideoKey, Result<Copy, NotOpened>>,
    /// Bytes of copies that lie in scratch space or are on their way there.
    held: u64,
    fetched: Fetched,
    closed: bool,
}

impl Fetcher {
    /// Starts the threads; they end with this.
    pub fn start(bucket: Bucket, trouble: StoreTrouble, budget: u64) -> Result<Self, StoreError> {
        bucket.scratch().sweep(ABANDONED)?;
        let shared = Arc::new(Shared {
            bucket,
            trouble,
            budget,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let folder = shared.bucket.scratch().folder().to_path_buf();
        for n in 0..SIDE_BY_SIDE {
            let shared = shared.clone();
            let started = thread::Builder::new()
                .name(format!("fetch {n}"))
                .spawn(move || shared.serve());
            started.map_err(|source| StoreError::Io {
                operation: "start threads to fetch into",
                path: folder.clone(),
                source,
            })?;
        }
        Ok(Self { shared })
    }

    /// Says what is needed from now on, and forgets what is not.
    pub fn want(&self, shard: &ShardPlan, skip: impl Fn(&VideoKey) -> bool, next: Option<&ShardPlan>) {
        let now = shard.videos.iter().filter(|video| !skip(&video.key));
        let then = next.into_iter().flat_map(|shard| &shard.videos);
        let wanted: Vec<PlannedVideo> = now.chain(then).cloned().collect();
        let mut state = self.shared.state();
        let keys: HashSet<&VideoKey> = wanted.iter().map(|video| &video.key).collect();
        let forgotten: Vec<VideoKey> = state
            .arrived
            .keys()
            .filter(|key| !keys.contains(key))
            .cloned()
            .collect();
        let dropped: Vec<_> = forgotten
            .iter()
            .filter_map(|key| state.arrived.remove(key))
            .collect();
        state.wanted = wanted;
        drop(state);
        // A copy's end takes the lock.
        drop(dropped);
        self.shared.changed.notify_all();
    }

    /// The copy of a video that is wanted, once it has arrived. Says every second that it waits.
    pub fn take(&self, key: &VideoKey, reports: &Reports) -> Result<Copy, NotOpened> {
        let mut state = self.shared.state();
        loop {
            if let Some(arrived) = state.arrived.remove(key) {
                state.wanted.retain(|video| video.key != *key);
                return arrived;
            }
            let (again, timeout) = self
                .shared
                .changed
                .wait_timeout(state, TICK)
                .unwrap_or_else(PoisonError::into_inner);
            state = again;
            if timeout.timed_out() {
                drop(state);
                let place = self.shared.bucket.place(key.as_str());
                let trouble = self.shared.trouble.last();
                reports.waiting(&format!("waiting for {place}"), trouble.as_deref());
                state = self.shared.state();
            }
        }
    }

    /// Time spent fetching since this was last asked.
    pub fn fetched(&self) -> Fetched {
        std::mem::take(&mut self.shared.state().fetched)
    }

    /// Where a video comes from, for messages.
    pub fn place(&self, key: &VideoKey) -> String {
        self.shared.bucket.place(key.as_str()).to_string()
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        state.wanted.clear();
        let left_over = std::mem::take(&mut state.arrived);
        drop(state);
        // A copy's end takes the lock.
        drop(left_over);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// A panic of another thread leaves nothing half done in here.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: Arc<Self>) {
        loop {
            let mut state = self.state();
            let video = loop {
                if state.closed {
                    return;
                }
                if let Some(video) = state.next(self.budget) {
                    break video;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            state.fetching.insert(video.key.clone());
            state.held += video.bytes;
            drop(state);

            let began = Instant::now();
            let content = self.fetch(&video);
            let busy = began.elapsed();
            if content.is_ok() {
                self.trouble.note(None);
            }
            let mut came = 0;
            let arrived = match content {
                Ok((content, bytes)) => {
                    came = bytes;
                    Ok(Copy {
                        content,
                        bytes: video.bytes,
                        shared: self.clone(),
                    })
                }
                Err(error) => {
                    self.state().held -= video.bytes;
                    Err(error)
                }
            };

            let mut state = self.state();
            state.fetched.time += busy;
            state.fetched.bytes += came;
            state.fetching.remove(&video.key);
            let is_wanted = state.wanted.iter().any(|wanted| wanted.key == video.key);
            let left_over = if is_wanted {
                state.arrived.insert(video.key, arrived)
            } else {
                Some(arrived)
            };
            drop(state);
            drop(left_over);
            self.changed.notify_all();
        }
    }

    /// A copy of a video, and how many bytes came for it.
    fn fetch(&self, video: &PlannedVideo) -> Result<(Content, u64), NotOpened> {
        self.room_for(video.bytes).map_err(NotOpened::Store)?;
        match video.kind {
            SourceKind::File => self.fetch_file(video),
            SourceKind::Images => self.fetch_images(video),
        }
        .map_err(|error| self.verdict(video, error))
    }

    fn fetch_file(&self, video: &PlannedVideo) -> Result<(Content, u64), StoreError> {
        let file = self.bucket.scratch().file("video", &extension(&video.key))?;
        let object = Object {
            key: video.key.as_str().into(),
            bytes: video.bytes,
            etag: video.etag.clone(),
            sha256: None,
        };
        let came = self.bucket.fetch(&object, file.as_file())?;
        Ok((Content::File(file), came))
    }

    fn fetch_images(&self, video: &PlannedVideo) -> Result<(Content, u64), StoreError> {
        let (images, bytes, etag) = discover::images_in(&self.bucket, &video.key)?;
        if (bytes, &etag) != (video.bytes, &video.etag) {
            return Err(self.bucket.changed(video.key.as_str()));
        }
        let folder = self.bucket.scratch().subfolder("images")?;
        let mut came = 0;
        for image in images {
            // Digits and a known extension: nothing that could lead out of the folder.
            let name = image.key.rsplit('/').next().unwrap_or_default();
            let path = folder.path().join(name);
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(|source| StoreError::Io {
                    operation: "make the scratch file",
                    path: path.clone(),
                    source,
                })?;
            came += self.bucket.fetch(&image, &file)?;
        }
        Ok((Content::Folder(folder), came))
    }

    fn verdict(&self, video: &PlannedVideo, error: StoreError) -> NotOpened {
        let place = || self.bucket.place(video.key.as_str()).to_string();
        match error.trouble() {
            Some(store::Trouble::Changed) => NotOpened::Video(changed(&place())),
            // Of many videos these credentials may read all but some.
            Some(store::Trouble::Missing | store::Trouble::Forbidden) => NotOpened::Video(Trouble {
                error: error.to_string(),
                class: ErrorClass::Io,
                frame: None,
            }),
            _ => NotOpened::Store(error),
        }
    }

    /// Waits until there is room in scratch space, which others use too.
    fn room_for(&self, bytes: u64) -> Result<(), StoreError> {
        let attempt = || {
            let free = self.bucket.scratch().free_bytes()?;
            if free >= bytes {
                return Ok(());
            }
            Err(StoreError::NoRoom {
                folder: self.bucket.scratch().folder().to_path_buf(),
                free,
                needed: bytes,
            })
        };
        ROOM.run(attempt, |error| matches!(error, StoreError::NoRoom { .. }))
    }
}

impl State {
    /// The first video that is neither there nor on its way, if it may be fetched now. Never a later one: the earliest
    /// must not wait behind others for room.
    fn next(&self, budget: u64) -> Option<PlannedVideo> {
        let video = self
            .wanted
            .iter()
            .find(|video| !self.fetching.contains(&video.key) && !self.arrived.contains_key(&video.key))?;
        (self.held == 0 || self.held + video.bytes <= budget).then(|| video.clone())
    }
}

/// A file name's extension, by which FFmpeg tells some formats, as far as it is harmless.
fn extension(key: &VideoKey) -> String {
    let extension = Path::new(key.as_str())
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or("bin");
    let letters = extension.chars().filter(char::is_ascii_alphanumeric);
    letters.take(8).collect()
}
