//! Which video of a label set is meant, where it lies, and whether it still is the one that was labelled.

use super::Task;
use affectmill_base::SourceKind;
use affectmill_base::{AmbiguousName, NameIndex, nfc};
use affectmill_base::{Location, ShardId, escaped};
use affectmill_discover as discover;
use affectmill_labelset::plan;
use affectmill_labelset::plan::Latest;
use affectmill_labelset::{JobRecord, LabelSet, LabelSetError, PlannedVideo, paths};
use affectmill_store::{Access, Bucket, ScratchFolder, Store, StoreError};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Why there is nothing to draw.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Labels or video cannot be brought here.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The label set cannot be opened.
    #[error(transparent)]
    Set(#[from] LabelSetError),
    /// No such video.
    #[error("{labels} has no video `{video}`; name it as in videos.parquet, or by its path")]
    Unknown {
        /// The label set.
        labels: String,
        /// What was asked for.
        video: String,
    },
    /// Several read like it.
    #[error(transparent)]
    AmbiguousName(#[from] AmbiguousName),
    /// Its shard is not done, or nothing came of it.
    #[error("`{video}` has no rows in {labels}: {cause}")]
    NoRows {
        /// The label set.
        labels: String,
        /// The video.
        video: String,
        /// Why.
        cause: String,
    },
    /// It is a set of crops.
    #[error(
        "`{0}` was labelled from crops, and they are no video; render the video that they were cut from, with its own labels"
    )]
    Crops(String),
    /// Another file lies there now.
    #[error(
        "{path} has {found} bytes, and the video that was labelled as `{video}` had {expected}; render the one that was labelled"
    )]
    Changed {
        /// Where it lies.
        path: String,
        /// Its size.
        found: u64,
        /// The video.
        video: String,
        /// Its size when it was planned.
        expected: u64,
    },
    /// It cannot be looked at.
    #[error("{path}: {cause}; bring the video back, or name its path")]
    Missing {
        /// Where it should lie.
        path: String,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// A task and what must stay while it is carried out.
pub struct Found {
    /// What is to be drawn; what to write is not said yet.
    pub task: Task,
    /// Copies of what does not lie on a disk here.
    _copies: Vec<ScratchFolder>,
}

/// Finds the video and its rows.
///
/// # Errors
/// [`FindError`].
pub fn find(set: &LabelSet, video: &OsStr) -> Result<Found, FindError> {
    let (store, job) = (set.store(), set.job());
    let labels = store.root().to_string();
    let plans = set.plans()?;
    let latest = plan::latest(&plans.shards);
    let roots: Vec<&Location> = plans.places.iter().rev().map(|place| &place.root).collect();
    let (wanted, path) = meant(&latest, &roots, video)?.ok_or_else(|| FindError::Unknown {
        labels: labels.clone(),
        video: video.to_string_lossy().into_owned(),
    })?;
    let planned = wanted.planned;
    if planned.archive.is_some() {
        return Err(FindError::Crops(planned.key.to_string()));
    }
    let shard = &wanted.shard.id;
    let no_rows = |cause: String| FindError::NoRows {
        labels: labels.clone(),
        video: planned.key.to_string(),
        cause,
    };
    let unfinished = || no_rows("its shard is not committed yet; `affectmill run` goes on".into());
    let record = set.commits()?.get(shard).ok_or_else(unfinished)?;
    let at = record
        .videos
        .iter()
        .position(|outcome| outcome.key == planned.key);
    let at = at.ok_or_else(unfinished)?;
    let outcome = &record.videos[at];
    if outcome.rows == 0 {
        return Err(no_rows(
            escaped(outcome.error.as_deref().unwrap_or("it has no frame")).into_owned(),
        ));
    }
    let first_row = record.videos[..at].iter().map(|video| video.rows).sum();
    let mut copies = Vec::new();
    let part = bring_part(store, shard, &mut copies)?;
    let path = match path {
        Location::Local(path) => path,
        remote => bring_video(&remote, planned, job, &mut copies)?,
    };
    let path = same(path, planned)?;
    let (key, rows, frames) = (planned.key.clone(), outcome.rows, outcome.frames);
    let task = Task {
        key,
        video: path,
        kind: planned.kind,
        frames,
        duration_us: planned.duration_us,
        part,
        first_row,
        rows,
        model: None,
        film: None,
        sheet: None,
        job: job.clone(),
    };
    Ok(Found {
        task,
        _copies: copies,
    })
}

/// The video that a person names by its key, or by a path: that of an input's root, the latest first, or another one's with
/// its name and size.
fn meant<'a>(
    latest: &[Latest<'a>],
    roots: &[&Location],
    video: &OsStr,
) -> Result<Option<(Latest<'a>, Location)>, AmbiguousName> {
    let keys = latest.iter().map(|video| (video.planned.key.as_str(), *video));
    let keys: NameIndex<&str, Latest> = keys.collect();
    let find = |key: &str| Ok(keys.get(key)?.map(|(_, found)| *found));
    if let Some(name) = video.to_str() {
        if let Some(found) = find(name)? {
            let place = |root: &&Location| discover::source_path(root, &found.planned.key);
            let places: Vec<Location> = roots.iter().map(place).collect();
            let is_here = |place: &&Location| place.as_local().is_none_or(Path::exists);
            let place = places.iter().find(is_here).or(places.first());
            return Ok(place.map(|place| (found, place.clone())));
        }
        for root in roots {
            let below = name.strip_prefix(&format!("{root}/"));
            if let Some(found) = below.map(find).transpose()?.flatten() {
                return Ok(Some((found, discover::source_path(root, &found.planned.key))));
            }
        }
    }
    let Ok(path) = fs::canonicalize(video) else {
        return Ok(None);
    };
    for root in roots
        .iter()
        .filter_map(|root| fs::canonicalize(root.as_local()?).ok())
    {
        let key = path.strip_prefix(root).ok().and_then(Path::to_str);
        if let Some(found) = key.map(find).transpose()?.flatten() {
            return Ok(Some((found, path.into())));
        }
    }
    let bytes = fs::metadata(&path)
        .ok()
        .filter(fs::Metadata::is_file)
        .map(|file| file.len());
    let name = path
        .file_name()
        .map(|name| nfc(&name.to_string_lossy()).into_owned());
    let alike = |video: &&Latest| {
        let key = video.planned.key.as_str();
        let file = key.rsplit_once('/').map_or(key, |(_, file)| file);
        Some(nfc(file).into_owned()) == name && Some(video.planned.bytes) == bytes
    };
    let mut alike = latest.iter().filter(alike);
    let found = alike.next().filter(|_| alike.next().is_none());
    Ok(found.map(|found| (*found, path.clone().into())))
}

fn bring_part(
    store: &Store,
    shard: &ShardId,
    copies: &mut Vec<ScratchFolder>,
) -> Result<PathBuf, StoreError> {
    let key = paths::part(shard);
    let (at_hand, copy) = store.at_hand(std::slice::from_ref(&key))?;
    copies.extend(copy);
    // One key, one path.
    Ok(at_hand.into_iter().next().unwrap_or_default())
}

/// Brings a video of a bucket to scratch space, as it was planned.
fn bring_video(
    place: &Location,
    planned: &PlannedVideo,
    job: &JobRecord,
    copies: &mut Vec<ScratchFolder>,
) -> Result<PathBuf, FindError> {
    let Location::S3 { bucket, key } = place else {
        return Err(StoreError::NotAnOutput(place.clone()).into());
    };
    let whole = Location::S3 {
        bucket: bucket.clone(),
        key: String::new(),
    };
    let bucket = Bucket::open(&whole, &Access::of(&job.job))?;
    let folder = bucket.scratch().subfolder("video")?;
    let missing = |cause| FindError::Missing {
        path: place.to_string(),
        cause,
    };
    if planned.kind == SourceKind::Images {
        return Err(missing(std::io::Error::other(
            "it is a folder of images in a bucket, which `render` does not fetch",
        )));
    }
    let object = bucket.head(key)?;
    let object = object.ok_or_else(|| missing(std::io::ErrorKind::NotFound.into()))?;
    let path = folder.path().join("video");
    // What arrives is read again, to be held against its checksum.
    let mut open = fs::File::options();
    let file = open
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(missing)?;
    bucket.fetch(&object, &file)?;
    copies.push(folder);
    Ok(path)
}

/// The path, if what lies there has the size of the video that was labelled. Times are compared frame by frame later.
fn same(path: PathBuf, planned: &PlannedVideo) -> Result<PathBuf, FindError> {
    let metadata = fs::metadata(&path).map_err(|cause| FindError::Missing {
        path: path.display().to_string(),
        cause,
    })?;
    if metadata.is_file() && metadata.len() != planned.bytes {
        return Err(FindError::Changed {
            path: path.display().to_string(),
            found: metadata.len(),
            video: planned.key.to_string(),
            expected: planned.bytes,
        });
    }
    Ok(path)
}
