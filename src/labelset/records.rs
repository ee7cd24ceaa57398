//! The JSON records under `_affectmill/`. Each carries `version`; a reader refuses a version it does not know.

use crate::{ShardDevice, VideoOutcome};
use affectmill_base::{
    Fingerprint, Location, RelativePath, ShardId, SourceKind, Trouble, VideoKey, checksum,
};
use affectmill_spec::{Job, ModelRecord, ModelSpec};
use schemars::JsonSchema;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize};
use std::cmp::Ordering;

/// Version written into every record.
pub const RECORD_VERSION: u32 = 1;

/// `job.json`: the resolved job. Create-only; a run whose fingerprint differs is refused.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct JobRecord {
    /// Format version.
    pub version: u32,
    /// The affectmill version that wrote it.
    pub affectmill: String,
    /// Hash of `identity`.
    #[schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$"))]
    pub fingerprint: Fingerprint,
    /// Everything that can change a label, field by field, so that a refusal can name what differs.
    #[serde(deserialize_with = "identity")]
    #[schemars(with = "serde_json::Value")]
    pub identity: serde_json::Value,
    /// The models as found: one entry per `[[models]]`, in job order.
    pub models: Vec<ModelRecord>,
    /// The job with absolute paths, as the first run had it.
    pub job: Job,
}

/// The one text in it that becomes a name of a file is the checksum of the detector.
fn identity<'de, D: Deserializer<'de>>(reader: D) -> Result<serde_json::Value, D::Error> {
    let identity = serde_json::Value::deserialize(reader)?;
    if let Some(detector) = identity["faces"]["detector"].as_str() {
        checksum(detector.into_deserializer()).map(|_: String| ())?;
    }
    Ok(identity)
}

impl JobRecord {
    /// Where the weights are, the face detector's last, each with its SHA-256.
    pub fn weights(&self) -> impl Iterator<Item = (&Location, &str)> {
        let known = self.models.iter().flat_map(ModelRecord::weights);
        let models = self.job.models.iter().flat_map(ModelSpec::all_weights).zip(known);
        let detector = self.job.faces.detector.as_ref();
        models.chain(detector.zip(self.identity["faces"]["detector"].as_str()))
    }

    /// Other places for the same weights, in the order of [`Self::weights`].
    pub fn set_weights(&mut self, places: impl IntoIterator<Item = Location>) {
        let models = self
            .job
            .models
            .iter_mut()
            .flat_map(|model| std::iter::once(&mut model.weights).chain(&mut model.also));
        let old = models.chain(self.job.faces.detector.as_mut());
        old.zip(places).for_each(|(old, new)| *old = new);
    }

    /// Names of the models whose weights were never trained.
    pub fn untrained(&self) -> impl Iterator<Item = &str> {
        let untrained = self.models.iter().filter(|model| model.untrained);
        untrained.map(|model| model.name.as_str())
    }
}

/// `plans/NNNNN.json.zst`: shards of videos that no earlier plan covers, or that are to be tried again. Immutable.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Plan {
    /// Format version.
    pub version: u32,
    /// Where the videos were found; none in plans that were written before this was kept. A plan without shards says that the
    /// videos of the earlier plans lie there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputPlace>,
    /// Shards in order of their first video.
    pub shards: Vec<ShardPlan>,
}

/// Where the videos of a plan were found.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct InputPlace {
    /// `[input] uri`, absolute.
    #[schemars(with = "String")]
    #[serde(deserialize_with = "Location::deserialize_input")]
    pub uri: Location,
    /// What keys are relative to: the folder or prefix that was searched, or the one above a single file.
    #[schemars(with = "String")]
    pub root: Location,
}

/// Consecutive videos, in key order, whose frames add up to about the target.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct ShardPlan {
    /// Hash of the shard's content.
    #[schemars(with = "String", extend("pattern" = "^[0-9a-f]{16}$"))]
    pub id: ShardId,
    /// How often its videos were planned before: 0 at first, one more for each `affectmill retry`, or where their rows were moved
    /// out of a shard of which another video was tried again. What counts of a video is what became of it in its latest attempt;
    /// earlier ones left no row, or their shard is retired.
    #[serde(default, skip_serializing_if = "is_first")]
    pub attempt: u32,
    /// The shard that is retired for this one: the rows of these videos are moved out of it, as they are, because others of its
    /// videos are labelled again. Perhaps of no video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("pattern" = "^[0-9a-f]{16}$"))]
    pub copy_of: Option<ShardId>,
    /// The videos, sorted by key.
    #[serde(deserialize_with = "fitting")]
    pub videos: Vec<PlannedVideo>,
}

pub(super) fn is_none(number: &u64) -> bool {
    *number == 0
}

/// A list without the room that it grew into: of millions of videos that is much.
fn fitting<'de, D: Deserializer<'de>, T: Deserialize<'de>>(reader: D) -> Result<Vec<T>, D::Error> {
    let mut list = Vec::deserialize(reader)?;
    list.shrink_to_fit();
    Ok(list)
}

fn is_first(attempt: &u32) -> bool {
    *attempt == 0
}

impl ShardPlan {
    /// The order in which shards are handed out: the longest first, so that nobody works alone on a long one at the end.
    pub fn longest_first(&self, other: &Self) -> Ordering {
        let (a, b) = (self, other);
        b.frames().cmp(&a.frames()).then_with(|| a.id.cmp(&b.id))
    }

    /// Its videos of unknown length.
    pub fn unknown(&self) -> usize {
        let unknown = self.videos.iter().filter(|video| video.has_unknown_length());
        unknown.count()
    }

    /// Estimated frames of the shard.
    pub fn frames(&self) -> u64 {
        let frames = self.videos.iter().map(|video| video.frames);
        frames.fold(0, u64::saturating_add)
    }
}

/// A video as it was when it was planned.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct PlannedVideo {
    /// Key.
    #[schemars(with = "String")]
    pub key: VideoKey,
    /// File or folder of images.
    pub kind: SourceKind,
    /// Size in bytes (of all images for a folder); a video whose size differs later is reported, not labelled.
    pub bytes: u64,
    /// Identity of the content as the store tells it (modification time in ns on disk, etag on S3).
    pub etag: String,
    /// Estimated frames; 0 when unknown.
    pub frames: u64,
    /// Estimated duration in microseconds; 0 when unknown.
    pub duration_us: u64,
    /// The tar file, relative to the input root, in which its crops are; none for a video that lies by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub archive: Option<RelativePath>,
    /// Why the prober could not read it. It is tried again when its shard runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

impl PlannedVideo {
    /// Whether its header was read and does not tell how long it is, as of live recordings.
    pub fn has_unknown_length(&self) -> bool {
        self.frames == 0 && self.unreadable.is_none()
    }

    /// What must be opened to read it, relative to the input root.
    pub fn file(&self) -> &str {
        self.archive.as_deref().unwrap_or(self.key.as_str())
    }
}

/// `commits/<shard>.json`: the shard is done. Create-only; the first writer wins.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct CommitRecord {
    /// Format version.
    pub version: u32,
    /// Shard.
    #[schemars(with = "String", extend("pattern" = "^[0-9a-f]{16}$"))]
    pub shard: ShardId,
    /// The fingerprint it was labelled under.
    #[schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$"))]
    pub fingerprint: Fingerprint,
    /// The part.
    pub part: PartInfo,
    /// The crops beside it, where they are kept; their rows are samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crops: Option<PartInfo>,
    /// What became of each video, in key order.
    #[serde(deserialize_with = "fitting")]
    pub videos: Vec<VideoOutcome>,
    /// What it was labelled on; absent where an older affectmill wrote it, or the part was another attempt's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<ShardDevice>,
    /// Its videos were planned again, and nothing of it counts: its part has no rows any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Retired>,
    /// Where the time went.
    pub seconds: StageSeconds,
}

/// What a retired shard held, for its copy to be made of.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Retired {
    /// Its record; absent where it was lost before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Box<CommitRecord>>,
}

/// Size and checksum of a Parquet part, or of the crops beside it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct PartInfo {
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256, hex.
    #[serde(deserialize_with = "checksum")]
    #[schemars(with = "String")]
    pub sha256: String,
}

/// A video that must not be opened again, with the reason; travels with a lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Key.
    pub key: VideoKey,
    /// How often and how it took its worker down, the class of the last time, and the last frame that was reached.
    pub trouble: Trouble,
}

/// Busy seconds of each stage of the pipeline, and of the whole shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct StageSeconds {
    /// Bringing videos from S3 to scratch space, beside everything else.
    #[serde(default)]
    pub fetch: f64,
    /// The decoder waited for a video to arrive.
    #[serde(default)]
    pub fetch_blocked: f64,
    /// Decoding and preparation.
    pub decode: f64,
    /// The decoder waited because the model was behind.
    pub decode_blocked: f64,
    /// Finding faces and cutting them out.
    #[serde(default)]
    pub faces: f64,
    /// The models.
    pub infer: f64,
    /// The models, and what finds faces, waited for frames.
    pub infer_blocked: f64,
    /// Rows and Parquet.
    pub rows: f64,
    /// Begin to commit.
    pub total: f64,
}

impl StageSeconds {
    /// Adds another shard's times.
    pub fn add(&mut self, other: &Self) {
        self.fetch += other.fetch;
        self.fetch_blocked += other.fetch_blocked;
        self.decode += other.decode;
        self.decode_blocked += other.decode_blocked;
        self.faces += other.faces;
        self.infer += other.infer;
        self.infer_blocked += other.infer_blocked;
        self.rows += other.rows;
        self.total += other.total;
    }
}

/// `manifest.json`: every part with its rows and checksum.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version.
    pub version: u32,
    /// Fingerprint of the whole set.
    #[schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$"))]
    pub fingerprint: Fingerprint,
    /// Rows of all parts.
    pub rows: u64,
    /// Parts sorted by path.
    pub parts: Vec<ManifestPart>,
    /// Shards of crops sorted by path, where they are kept; their rows are samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crops: Vec<ManifestPart>,
}

/// One part of the manifest.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct ManifestPart {
    /// Path relative to the output root.
    pub path: String,
    /// Shard.
    #[schemars(with = "String", extend("pattern" = "^[0-9a-f]{16}$"))]
    pub shard: ShardId,
    /// Rows, bytes, checksum.
    #[serde(flatten)]
    pub info: PartInfo,
}
