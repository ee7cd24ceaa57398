//! Counts rows: everything the page says of them, in one pass.

use super::LISTED;
use super::agreement::Pairs;
use super::faces::Extremes;
use super::figures::{
    ACTIVE, Apart, ByExpression, CELLS, CONFIDENCE_BINS, Corpus, Expressions, Failures, Figures, Model,
    Moments, Plane, Stretch, Units,
};
use super::parts::with_numbers;
use super::timeline::Timelines;
use affectmill_base::{ACTION_UNITS, EXPRESSIONS, RowStatus, ShardId, Task};
use affectmill_labelset::rows::{ExpressionColumns, LabelColumns, having};
use affectmill_labelset::{JobRecord, StageSeconds, Unseen, VideoOutcome};
use std::collections::BTreeMap;

/// Stretches of the drift.
const STRETCHES: usize = 60;
/// Fewer faces say too little of a video to call it apart.
const FACES_TO_BE_APART: u64 = 25;

/// What was counted so far.
pub struct Tally {
    corpus: Corpus,
    planes: Vec<PlaneSums>,
    expressions: Vec<ExpressionSums>,
    units: Vec<UnitSums>,
    pairs: Pairs,
    /// Which of the models with expressions, and with action units, is followed.
    followed: Option<usize>,
    followed_units: Option<usize>,
    videos: BTreeMap<String, VideoSums>,
    timelines: Timelines,
    extremes: Extremes,
    /// Position of the row before.
    last: Option<(String, i64)>,
}

#[derive(Default)]
struct VideoSums {
    faces: u64,
    /// Of each model, the faces for which it gave numbers, and their sums.
    planes: Vec<(u64, [f64; 2])>,
    expressions: ByExpression,
}

impl Tally {
    /// Nothing counted yet. Timelines are made of `shown`; `faces` are kept of the most and of the least confident ones.
    pub fn new(job: &JobRecord, shown: &[&VideoOutcome], faces: usize) -> Self {
        let count = |task| having(job, task).count();
        let trained = |task| having(job, task).position(|model| !model.untrained);
        let followed = |task| trained(task).or((count(task) > 0).then_some(0));
        Self {
            corpus: Corpus::default(),
            planes: (0..count(Task::Va)).map(|_| PlaneSums::default()).collect(),
            expressions: (0..count(Task::Expr))
                .map(|_| ExpressionSums::default())
                .collect(),
            units: (0..count(Task::Au)).map(|_| UnitSums::default()).collect(),
            pairs: Pairs::new(job),
            followed: followed(Task::Expr),
            followed_units: followed(Task::Au),
            videos: BTreeMap::new(),
            timelines: Timelines::new(shown, followed(Task::Expr), followed(Task::Au)),
            extremes: Extremes::new(faces),
            last: None,
        }
    }

    /// Counts some rows, which come after those before.
    pub fn add(&mut self, shard: &ShardId, rows: &LabelColumns) {
        self.count(rows);
        let labelled: Vec<usize> = (0..rows.len()).filter(|&row| rows.faces[row].is_some()).collect();
        for (sums, columns) in self.planes.iter_mut().zip(&rows.planes) {
            sums.add(columns, &with_numbers(&labelled, &columns[0]));
        }
        for (sums, classes) in self.expressions.iter_mut().zip(&rows.expressions) {
            sums.add(classes, &labelled);
        }
        for (sums, columns) in self.units.iter_mut().zip(&rows.units) {
            sums.add(columns, &with_numbers(&labelled, &columns[0]));
        }
        self.pairs.add(rows, &labelled);
        self.timelines.add(rows, &labelled);
        if let Some(followed) = self.followed {
            self.extremes
                .add(shard, rows, &rows.expressions[followed], &labelled);
        }
    }

    /// What does not ask the models: frames and faces, and each video's sums.
    fn count(&mut self, rows: &LabelColumns) {
        self.corpus.rows += rows.len() as u64;
        let models = rows.planes.len();
        let mut row = 0;
        while row < rows.len() {
            let video = rows.videos.get(row).unwrap_or_default();
            let end = (row..rows.len()).find(|&next| rows.videos.get(next) != Some(video));
            let end = end.unwrap_or(rows.len());
            let mut before = self
                .last
                .take()
                .filter(|(last, _)| last == video)
                .map(|(_, frame)| frame);
            let sums = match self.videos.get_mut(video) {
                Some(sums) => sums,
                None => self.videos.entry(video.to_owned()).or_default(),
            };
            sums.planes.resize(models, Default::default());
            for row in row..end {
                if before.replace(rows.frames[row]) != Some(rows.frames[row]) {
                    self.corpus.frames += 1;
                    match rows.statuses[row] {
                        RowStatus::Ok | RowStatus::NotFinite => self.corpus.frames_labelled += 1,
                        RowStatus::NoFace => self.corpus.no_face += 1,
                        RowStatus::DecodeError => self.corpus.decode_error += 1,
                    }
                }
                if rows.faces[row].is_none() {
                    continue;
                }
                self.corpus.faces += 1;
                self.corpus.not_finite += u64::from(rows.statuses[row] == RowStatus::NotFinite);
                sums.faces += 1;
                for ((faces, sums), columns) in sums.planes.iter_mut().zip(&rows.planes) {
                    if columns[0][row].is_nan() {
                        continue;
                    }
                    *faces += 1;
                    sums.iter_mut()
                        .zip(columns)
                        .for_each(|(sum, column)| *sum += f64::from(column[row]));
                }
                if let Some(class) = self.followed.and_then(|model| rows.expressions[model].class[row]) {
                    sums.expressions[usize::from(class)] += 1;
                }
            }
            self.last = before.map(|frame| (video.to_owned(), frame));
            row = end;
        }
    }

    /// What came out; the caller fills in what rows do not tell.
    pub fn finish(self, job: &JobRecord, outcomes: &[&VideoOutcome]) -> Figures {
        let names = |task| having(job, task).map(|model| model.name.clone());
        let planes = names(Task::Va).zip(self.planes);
        let expressions = names(Task::Expr).zip(self.expressions);
        let units = names(Task::Au).zip(self.units);
        Figures {
            affectmill: env!("CARGO_PKG_VERSION"),
            output: String::new(),
            fingerprint: job.fingerprint.to_string(),
            corpus: self.corpus,
            failures: Failures::default(),
            passed_over: Vec::new(),
            unseen: Unseen::default(),
            models: Model::all(job),
            valence_arousal: planes.map(|(model, sums)| sums.finish(model)).collect(),
            expressions: expressions.map(|(model, sums)| sums.finish(model)).collect(),
            action_units: units.map(|(model, sums)| sums.finish(model)).collect(),
            agreement: self.pairs.finish(),
            drift: drift(&self.videos, self.followed.is_some()),
            apart: self.followed.map_or(Vec::new(), |_| apart(&self.videos)),
            followed: self.followed.and_then(|model| names(Task::Expr).nth(model)),
            followed_units: self.followed_units.and_then(|model| names(Task::Au).nth(model)),
            timelines: self.timelines.finish(outcomes),
            faces: self.extremes.finish(),
            stages: StageSeconds::default(),
        }
    }
}

/// Count, sum, sum of squares, extremes of one number.
#[derive(Clone, Copy)]
struct Sums {
    count: u64,
    sum: f64,
    squares: f64,
    min: f32,
    max: f32,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            count: 0,
            sum: 0.0,
            squares: 0.0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
        }
    }
}

impl Sums {
    fn add(&mut self, number: f32) {
        self.count += 1;
        self.sum += f64::from(number);
        self.squares += f64::from(number) * f64::from(number);
        self.min = self.min.min(number);
        self.max = self.max.max(number);
    }

    fn finish(self) -> Moments {
        if self.count == 0 {
            return Moments::default();
        }
        let count = self.count as f64;
        let mean = self.sum / count;
        Moments {
            mean,
            deviation: (self.squares / count - mean * mean).max(0.0).sqrt(),
            min: self.min,
            max: self.max,
        }
    }
}

struct PlaneSums {
    numbers: [Sums; 2],
    outside: u64,
    density: Vec<Vec<u64>>,
}

impl Default for PlaneSums {
    fn default() -> Self {
        Self {
            numbers: [Sums::default(); 2],
            outside: 0,
            density: vec![vec![0; CELLS]; CELLS],
        }
    }
}

impl PlaneSums {
    fn add(&mut self, [valence, arousal]: &[Vec<f32>; 2], labelled: &[usize]) {
        for &row in labelled {
            let point = [valence[row], arousal[row]];
            self.numbers
                .iter_mut()
                .zip(point)
                .for_each(|(sums, number)| sums.add(number));
            match point.map(cell) {
                [Some(column), Some(line)] => self.density[line][column] += 1,
                _ => self.outside += 1,
            }
        }
    }

    fn finish(self, model: String) -> Plane {
        let [valence, arousal] = self.numbers.map(Sums::finish);
        Plane {
            model,
            valence,
            arousal,
            outside: self.outside,
            density: self.density,
        }
    }
}

/// The cell of a number in [−1, 1]; 1 itself belongs to the last one.
fn cell(number: f32) -> Option<usize> {
    let at = ((f64::from(number) + 1.0) / 2.0 * CELLS as f64).floor();
    ((-1.0..=1.0).contains(&number)).then_some((at as usize).min(CELLS - 1))
}

#[derive(Default)]
struct ExpressionSums {
    faces: ByExpression,
    sum: f64,
    confidence: [u64; CONFIDENCE_BINS],
}

impl ExpressionSums {
    fn add(&mut self, classes: &ExpressionColumns, labelled: &[usize]) {
        for &row in labelled {
            let Some(class) = classes.class[row] else { continue };
            let confidence = f64::from(classes.probabilities[usize::from(class)][row]);
            self.faces[usize::from(class)] += 1;
            self.sum += confidence;
            self.confidence[((confidence * CONFIDENCE_BINS as f64) as usize).min(CONFIDENCE_BINS - 1)] += 1;
        }
    }

    fn finish(self, model: String) -> Expressions {
        Expressions {
            model,
            mean_confidence: self.sum / (self.faces.iter().sum::<u64>().max(1)) as f64,
            faces: self.faces,
            confidence: self.confidence,
        }
    }
}

#[derive(Default)]
struct UnitSums {
    faces: u64,
    active: [u64; ACTION_UNITS.len()],
    sum: [f64; ACTION_UNITS.len()],
}

impl UnitSums {
    fn add(&mut self, columns: &[Vec<f32>; ACTION_UNITS.len()], labelled: &[usize]) {
        self.faces += labelled.len() as u64;
        for (unit, column) in columns.iter().enumerate() {
            for &row in labelled {
                self.active[unit] += u64::from(column[row] > ACTIVE);
                self.sum[unit] += f64::from(column[row]);
            }
        }
    }

    fn finish(self, model: String) -> Units {
        Units {
            model,
            faces: self.faces,
            active: self.active,
            mean: self.sum.map(|sum| sum / self.faces.max(1) as f64),
        }
    }
}

fn shares(counts: &ByExpression) -> [f64; EXPRESSIONS.len()] {
    let sum = counts.iter().sum::<u64>().max(1) as f64;
    counts.map(|count| count as f64 / sum)
}

/// Videos with faces, in key order, in as many stretches as a chart can show.
fn drift(videos: &BTreeMap<String, VideoSums>, expressions: bool) -> Vec<Stretch> {
    let videos: Vec<(&String, &VideoSums)> = videos.iter().filter(|(_, sums)| sums.faces > 0).collect();
    let stretch = |videos: &[(&String, &VideoSums)]| {
        let faces: u64 = videos.iter().map(|(_, sums)| sums.faces).sum();
        let models = videos[0].1.planes.len();
        let means = |model: usize| {
            let (mut faces, mut means) = (0, [0.0; 2]);
            for (more, sums) in videos.iter().map(|(_, sums)| &sums.planes[model]) {
                faces += more;
                means.iter_mut().zip(sums).for_each(|(mean, sum)| *mean += sum);
            }
            (faces > 0).then(|| means.map(|sum| sum / faces as f64))
        };
        let mut counts = ByExpression::default();
        for (_, sums) in videos {
            counts
                .iter_mut()
                .zip(sums.expressions)
                .for_each(|(count, more)| *count += more);
        }
        Stretch {
            first: videos[0].0.clone(),
            last: videos[videos.len() - 1].0.clone(),
            videos: videos.len(),
            faces,
            valence_arousal: (0..models).map(means).collect(),
            expressions: expressions.then(|| shares(&counts)),
        }
    };
    let size = videos.len().div_ceil(STRETCHES).max(1);
    videos.chunks(size).map(stretch).collect()
}

/// The videos whose expressions differ most from the whole set's, most different first.
fn apart(videos: &BTreeMap<String, VideoSums>) -> Vec<Apart> {
    let mut whole = ByExpression::default();
    for sums in videos.values() {
        whole
            .iter_mut()
            .zip(sums.expressions)
            .for_each(|(count, more)| *count += more);
    }
    let whole = shares(&whole);
    let mut apart: Vec<(f64, &String, &VideoSums)> = videos
        .iter()
        .filter(|(_, sums)| sums.faces >= FACES_TO_BE_APART)
        .map(|(video, sums)| {
            let differences = shares(&sums.expressions).into_iter().zip(whole);
            let distance = differences.map(|(own, whole)| (own - whole).abs()).sum::<f64>() / 2.0;
            (distance, video, sums)
        })
        .collect();
    apart.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let first = apart.into_iter().take(LISTED);
    first
        .map(|(distance, video, sums)| Apart {
            video: video.clone(),
            faces: sums.faces,
            distance,
            expressions: shares(&sums.expressions),
        })
        .collect()
}
