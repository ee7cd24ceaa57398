//! What the page shows, as numbers; its JSON form.

use affectmill_base::{ACTION_UNITS, EXPRESSIONS};
use affectmill_labelset::events::NotOk;
use affectmill_labelset::{PassedOver, StageSeconds, Unseen};
use serde::Serialize;
use std::collections::BTreeMap;

/// Cells of the valence-arousal plane, across and down, over [−1, 1].
pub const CELLS: usize = 40;
/// Bins of confidence, over [0, 1].
pub const CONFIDENCE_BINS: usize = 20;
/// Probability above which an action unit counts as active: its logit is above 0.
pub const ACTIVE: f32 = 0.5;

/// Counts of the expressions, in the order of [`EXPRESSIONS`].
pub type ByExpression = [u64; EXPRESSIONS.len()];

/// Everything the page says.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Version of affectmill.
    pub affectmill: &'static str,
    /// The label set.
    pub output: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Totals.
    pub corpus: Corpus,
    /// Videos that did not end `ok`.
    pub failures: Failures,
    /// What the last search of the input passed over, by kind.
    pub passed_over: Vec<PassedOver>,
    /// What it could not look at.
    pub unseen: Unseen,
    /// The models, in job order.
    pub models: Vec<Model>,
    /// Valence and arousal of each model that has them.
    pub valence_arousal: Vec<Plane>,
    /// Expressions of each model that has them.
    pub expressions: Vec<Expressions>,
    /// Action units of each model that has them.
    pub action_units: Vec<Units>,
    /// Models held against one another, wherever two share a task.
    pub agreement: Agreement,
    /// Drift over the videos, in key order.
    pub drift: Vec<Stretch>,
    /// Videos whose expressions differ most from the whole set's.
    pub apart: Vec<Apart>,
    /// The model whose expressions `drift`, `apart`, `faces` and the timelines follow: the first trained one.
    pub followed: Option<String>,
    /// The model whose action units the timelines follow: the first trained one.
    pub followed_units: Option<String>,
    /// Timelines of single videos.
    pub timelines: Vec<Timeline>,
    /// The most and the least confident faces.
    pub faces: Faces,
    /// Seconds of all workers by stage.
    pub stages: StageSeconds,
}

/// Totals.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Corpus {
    /// Videos in the plans.
    pub videos_planned: usize,
    /// Videos whose shard is committed.
    pub videos: usize,
    /// Every frame has its row.
    pub ok: usize,
    /// Damaged, good frames kept.
    pub partial: usize,
    /// Without rows.
    pub failed: usize,
    /// Given up after strikes.
    pub quarantined: usize,
    /// Frames decoded, before sampling.
    pub frames_decoded: u64,
    /// Frames that have rows.
    pub frames: u64,
    /// Of these, frames with a face that was labelled.
    pub frames_labelled: u64,
    /// Of these, frames without a face.
    pub no_face: u64,
    /// Of these, frames that could not be decoded whole.
    pub decode_error: u64,
    /// Rows.
    pub rows: u64,
    /// Rows with a face.
    pub faces: u64,
    /// Of these, rows for which a model gave NaN or an infinity.
    pub not_finite: u64,
    /// Committed parts.
    pub parts: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Videos that did not end `ok`.
#[derive(Debug, Default, Serialize)]
pub struct Failures {
    /// How many.
    pub videos: usize,
    /// How many of each class.
    pub classes: BTreeMap<&'static str, usize>,
    /// The first ones, in key order.
    pub listed: Vec<NotOk>,
}

/// A model.
#[derive(Debug, Serialize)]
pub struct Model {
    /// What its columns begin with.
    pub name: String,
    /// Kind.
    pub kind: &'static str,
    /// Architecture.
    pub architecture: String,
    /// Arithmetic.
    pub precision: &'static str,
    /// SHA-256 of its weights.
    pub sha256: String,
    /// Its labels mean nothing.
    pub untrained: bool,
}

/// Moments of a number over all faces.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Moments {
    /// Mean.
    pub mean: f64,
    /// Standard deviation, of the population.
    pub deviation: f64,
    /// Smallest.
    pub min: f32,
    /// Largest.
    pub max: f32,
}

/// Valence and arousal of one model.
#[derive(Debug, Serialize)]
pub struct Plane {
    /// Model.
    pub model: String,
    /// Valence.
    pub valence: Moments,
    /// Arousal.
    pub arousal: Moments,
    /// Faces outside [−1, 1]²; they are in no cell.
    pub outside: u64,
    /// Faces by cell: rows of rising arousal, each of rising valence, `CELLS` × `CELLS` over [−1, 1]².
    pub density: Vec<Vec<u64>>,
}

/// Expressions of one model.
#[derive(Debug, Serialize)]
pub struct Expressions {
    /// Model.
    pub model: String,
    /// Faces by their expression.
    pub faces: ByExpression,
    /// Mean of the largest probability.
    pub mean_confidence: f64,
    /// Faces by their largest probability, in equal bins over [0, 1].
    pub confidence: [u64; CONFIDENCE_BINS],
}

/// Action units of one model.
#[derive(Debug, Serialize)]
pub struct Units {
    /// Model.
    pub model: String,
    /// Faces for which it gave numbers.
    pub faces: u64,
    /// Faces on which each is active (p > 0.5).
    pub active: [u64; ACTION_UNITS.len()],
    /// Mean probability of each.
    pub mean: [f64; ACTION_UNITS.len()],
}

/// Models held against one another.
#[derive(Debug, Default, Serialize)]
pub struct Agreement {
    /// Pairs that share valence and arousal.
    pub valence_arousal: Vec<Concordance>,
    /// Pairs that share expressions.
    pub expressions: Vec<Confusion>,
    /// Pairs that share action units.
    pub action_units: Vec<UnitAgreement>,
}

/// How far two models' valence and arousal are the same.
#[derive(Debug, Serialize)]
pub struct Concordance {
    /// Two models.
    pub models: [String; 2],
    /// Concordance correlation coefficient of valence; null when neither varies.
    pub valence: Option<f64>,
    /// The same of arousal.
    pub arousal: Option<f64>,
}

/// How far two models' expressions are the same.
#[derive(Debug, Serialize)]
pub struct Confusion {
    /// Two models.
    pub models: [String; 2],
    /// Faces by the expressions of the first (rows) and the second (columns).
    pub faces: [ByExpression; EXPRESSIONS.len()],
    /// Share of faces with the same expression.
    pub agreement: f64,
    /// Cohen's kappa: agreement beyond chance; null when chance alone agrees always.
    pub kappa: Option<f64>,
}

/// How far two models' action units are the same.
#[derive(Debug, Serialize)]
pub struct UnitAgreement {
    /// Two models.
    pub models: [String; 2],
    /// Each unit.
    pub units: Vec<UnitPair>,
}

/// One action unit of two models.
#[derive(Debug, Serialize)]
pub struct UnitPair {
    /// Its name.
    pub unit: &'static str,
    /// Faces on which both, only the first, only the second, neither finds it active.
    pub faces: [u64; 4],
    /// Share of faces on which they say the same.
    pub agreement: f64,
    /// Cohen's kappa.
    pub kappa: Option<f64>,
}

/// Consecutive videos, in key order.
#[derive(Debug, Serialize)]
pub struct Stretch {
    /// The first.
    pub first: String,
    /// The last.
    pub last: String,
    /// How many have a face.
    pub videos: usize,
    /// Faces.
    pub faces: u64,
    /// Mean valence and arousal of each model that has them; null where it gave no numbers.
    pub valence_arousal: Vec<Option<[f64; 2]>>,
    /// Share of each expression.
    pub expressions: Option<[f64; EXPRESSIONS.len()]>,
}

/// A video apart from the others.
#[derive(Debug, Serialize)]
pub struct Apart {
    /// Video.
    pub video: String,
    /// Faces.
    pub faces: u64,
    /// Half the sum of the differences between its shares of expressions and the whole set's: 0 the same, 1 nothing shared.
    pub distance: f64,
    /// Share of each expression.
    pub expressions: [f64; EXPRESSIONS.len()],
}

/// One video over time: means over stretches of equal numbers of frames, of the largest face of each frame.
#[derive(Debug, Serialize)]
pub struct Timeline {
    /// Video.
    pub video: String,
    /// Faces, all of them.
    pub faces: u64,
    /// `x` of the points counts seconds, else frames: images without a rate.
    pub in_seconds: bool,
    /// Stretches that have a face, in order.
    pub points: Vec<Point>,
}

/// One stretch of a timeline.
#[derive(Debug, Serialize)]
pub struct Point {
    /// Number of the stretch; where numbers are missing there was no face.
    pub bin: usize,
    /// Mean time in seconds, or mean frame.
    pub x: f64,
    /// Mean valence and arousal of each model that has them; null where it gave no numbers.
    pub valence_arousal: Vec<Option<[f32; 2]>>,
    /// Mean probability of each expression.
    pub expressions: Option<[f32; EXPRESSIONS.len()]>,
    /// Mean probability of each action unit.
    pub action_units: Option<[f32; ACTION_UNITS.len()]>,
}

/// The most and the least confident faces: at most one of each track and expression.
#[derive(Debug, Default, Serialize)]
pub struct Faces {
    /// Largest probability first.
    pub most: Vec<Shown>,
    /// Smallest first.
    pub least: Vec<Shown>,
}

/// One face.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Video.
    pub video: String,
    /// Frame.
    pub frame: i64,
    /// Face within the frame.
    pub face: i32,
    /// Its track.
    pub track: Option<i32>,
    /// Presentation time.
    pub timestamp_us: Option<i64>,
    /// Expression.
    pub expression: &'static str,
    /// Its probability.
    pub confidence: f32,
    /// Shard.
    pub shard: String,
    /// The crop, where crops were kept.
    #[serde(skip)]
    pub jpeg: Option<Vec<u8>>,
}
