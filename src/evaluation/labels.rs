//! What a model of a label set said, part by part.
//!
//! Flows in: the committed parts, and only the columns that are needed. Flows out: [`Part`]s, whose rows are in the
//! order of the set: video, frame, face. One part is in memory at a time; the longest video bounds it.

use super::metrics::{CLASSES, Prediction, UNITS};
use affectmill_base::{ShardId, Task};
use affectmill_labelset::rows::{ReadError, RowReader, Texts};
use affectmill_labelset::schema::column;
use affectmill_labelset::{CommitRecord, LabelSet, LabelSetError, paths};
use affectmill_spec::ModelRecord;
use affectmill_spec::Values;
use affectmill_store::{Store, StoreError};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;

/// A probability of 0 or 1 has no finite logit; this is the nearest that 32-bit floats tell from it.
const LEAST: f64 = f32::EPSILON as f64 / 2.0;

/// Why labels cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The label set cannot be opened, or is empty.
    #[error(transparent)]
    Set(#[from] LabelSetError),
    /// A part is not what was committed.
    #[error(
        "cannot read `{path}`: {cause}; `affectmill run` with its job checks every part and says what to do"
    )]
    Part {
        /// The part.
        path: String,
        /// Why not.
        cause: ReadError,
    },
    /// There is no such model.
    #[error("{labels} has no model `{name}`; its models: {}", known.join(", "))]
    NoModel {
        /// The label set.
        labels: String,
        /// What was asked for.
        name: String,
        /// Names of its models.
        known: Vec<String>,
    },
    /// No model was named and there are several.
    #[error("{labels} has several models, name one: {}", known.join(", "))]
    WhichModel {
        /// The label set.
        labels: String,
        /// Names of its models.
        known: Vec<String>,
    },
}

/// One model of a label set.
pub struct Labels<'a> {
    store: &'a Store,
    values: Values,
    model: &'a ModelRecord,
    commits: &'a BTreeMap<ShardId, CommitRecord>,
}

impl<'a> Labels<'a> {
    /// The labels of a model, or of the only one.
    ///
    /// # Errors
    /// There is no such model, or it must be named; nothing is committed yet.
    pub fn of(set: &'a LabelSet, model: Option<&str>) -> Result<Self, LabelError> {
        let (job, commits) = (set.job(), set.labels()?);
        let labels = set.store().root().to_string();
        let known = || job.models.iter().map(|model| model.name.clone()).collect();
        let model = match (model, &job.models[..]) {
            (Some(name), _) => set.model(name).ok_or_else(|| LabelError::NoModel {
                labels,
                name: name.into(),
                known: known(),
            })?,
            (None, [model]) => model,
            (None, _) => {
                let known = known();
                return Err(LabelError::WhichModel { labels, known });
            }
        };
        Ok(Self {
            store: set.store(),
            values: job.job.output.values,
            model,
            commits,
        })
    }

    /// The model.
    pub fn model(&self) -> &ModelRecord {
        self.model
    }

    /// Videos that have rows, with their shard.
    pub fn videos(&self) -> BTreeMap<&str, &ShardId> {
        let records = self.commits.iter();
        let videos =
            records.flat_map(|(shard, record)| record.videos.iter().map(move |video| (shard, video)));
        videos
            .filter(|(_, video)| video.rows > 0)
            .map(|(shard, video)| (video.key.as_str(), shard))
            .collect()
    }

    /// The rows of a shard, as far as `tasks` need them.
    ///
    /// # Errors
    /// The part cannot be read.
    pub fn part(&self, shard: &ShardId, tasks: &[Task]) -> Result<Part, LabelError> {
        let key = paths::part(shard);
        let (at_hand, _copy) = self.store.at_hand(std::slice::from_ref(&key))?;
        let part = File::open(&at_hand[0]).map_err(ReadError::from);
        part.and_then(|part| self.read(part, tasks))
            .map_err(|cause| LabelError::Part {
                path: self.store.path(&key).to_string(),
                cause,
            })
    }

    fn read(&self, part: File, tasks: &[Task]) -> Result<Part, ReadError> {
        let of_task = |task: Task| -> Vec<String> {
            let column = if self.values == Values::Probabilities {
                column::probability
            } else {
                column::raw
            };
            let outputs = task.outputs().iter();
            outputs
                .map(|output| column(&self.model.name, task, output))
                .collect()
        };
        let outputs = Task::ALL.map(|task| {
            if tasks.contains(&task) {
                of_task(task)
            } else {
                Vec::new()
            }
        });
        let fixed = [column::VIDEO, column::FRAME, column::FACE, column::TRACK];
        let names = fixed.into_iter().chain(column::BOX);
        let names = names.chain(outputs.iter().flatten().map(String::as_str));
        let mut read = Part {
            videos: Vec::new(),
            frame: Vec::new(),
            face: Vec::new(),
            track: Vec::new(),
            boxes: Default::default(),
            probabilities: self.values == Values::Probabilities,
            outputs: outputs.each_ref().map(|names| vec![Vec::new(); names.len()]),
        };
        for batch in RowReader::open(part, names)? {
            let batch = batch?;
            read.name(&batch.texts(column::VIDEO)?);
            let frames = batch.longs(column::FRAME)?.iter();
            read.frame.extend(frames.map(|frame| frame.unwrap_or(0) as u64));
            read.face.extend(batch.integers(column::FACE)?);
            read.track.extend(batch.integers(column::TRACK)?);
            let sides = read.boxes.iter_mut().zip(column::BOX);
            let numbers = read.outputs.iter_mut().flatten().zip(outputs.iter().flatten());
            for (to, name) in sides.chain(numbers.map(|(to, name)| (to, name.as_str()))) {
                let values = batch.floats(name)?.iter();
                to.extend(values.map(|value| value.unwrap_or(f32::NAN)));
            }
        }
        Ok(read)
    }
}

/// The rows of one part, column by column.
pub struct Part {
    /// The videos and their rows, in order.
    pub videos: Vec<(String, Range<usize>)>,
    frame: Vec<u64>,
    face: Vec<Option<i32>>,
    track: Vec<Option<i32>>,
    boxes: [Vec<f32>; 4],
    probabilities: bool,
    /// By task, in output order.
    outputs: [Vec<Vec<f32>>; Task::ALL.len()],
}

impl Part {
    /// Adds the videos of further rows.
    fn name(&mut self, keys: &Texts) {
        for key in keys.iter() {
            let (key, row) = (
                key.unwrap_or_default(),
                self.videos.last().map_or(0, |(_, rows)| rows.end),
            );
            match self.videos.last_mut().filter(|(last, _)| last == key) {
                Some((_, range)) => range.end = row + 1,
                None => self.videos.push((key.into(), row..row + 1)),
            }
        }
    }

    /// The rows of a video.
    pub fn rows_of(&self, video: &str) -> Option<Range<usize>> {
        let (_, rows) = self.videos.iter().find(|(key, _)| key == video)?;
        Some(rows.clone())
    }

    /// Frame of a row.
    pub fn frame(&self, row: usize) -> u64 {
        self.frame[row]
    }

    /// Index of the face within the frame; `None` where the frame has none.
    pub fn face(&self, row: usize) -> Option<i32> {
        self.face[row]
    }

    /// The track.
    pub fn track(&self, row: usize) -> Option<i32> {
        self.track[row]
    }

    /// Left, top, width and height in pixels; NaN where the whole picture is the face.
    pub fn face_box(&self, row: usize) -> [f32; 4] {
        [0, 1, 2, 3].map(|side| self.boxes[side][row])
    }

    /// What the model said of a row: logits, also where probabilities are stored.
    pub fn prediction(&self, row: usize) -> Prediction {
        let [va, expression, units] = &self.outputs;
        Prediction {
            va: values(va, row),
            expression: values(expression, row).map(|values: [f64; CLASSES]| {
                if self.probabilities {
                    values.map(|p| p.max(f64::from(f32::MIN_POSITIVE)).ln())
                } else {
                    values
                }
            }),
            units: values(units, row).map(|values: [f64; UNITS]| {
                if self.probabilities {
                    values
                        .map(|p| p.clamp(LEAST, 1.0 - LEAST))
                        .map(|p| (p / (1.0 - p)).ln())
                } else {
                    values
                }
            }),
        }
    }
}

/// One row of some columns; `None` where there are none, or one of them holds no number.
fn values<const N: usize>(columns: &[Vec<f32>], row: usize) -> Option<[f64; N]> {
    let mut values = [0.0; N];
    if columns.len() != N {
        return None;
    }
    for (value, column) in values.iter_mut().zip(columns) {
        *value = f64::from(column[row]);
    }
    values.iter().all(|value| value.is_finite()).then_some(values)
}
