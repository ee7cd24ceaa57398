//! The labels of one video, frame by frame, from its part.

use super::RenderError;
use affectmill_base::{ACTION_UNITS, EXPRESSIONS, Rect, Task};
use affectmill_labelset::JobRecord;
use affectmill_labelset::rows::{self, LabelColumns, ReadError, having};
use affectmill_spec::ModelRecord;
use std::fs::File;
use std::path::PathBuf;

/// What a frame's rows say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrameLabels {
    /// Frame.
    pub frame: i64,
    /// Its time.
    pub timestamp_us: Option<i64>,
    /// Its faces, largest first.
    pub faces: Vec<FaceLabel>,
}

/// What one row says of a face.
#[derive(Clone, Debug, PartialEq)]
pub struct FaceLabel {
    /// Index within the frame.
    pub index: i32,
    /// Track.
    pub track: Option<i32>,
    /// Box.
    pub rect: Rect,
    /// Expression: index into [`EXPRESSIONS`].
    pub class: Option<u8>,
    /// Probability of each expression.
    pub expressions: Option<[f32; EXPRESSIONS.len()]>,
    /// Valence and arousal.
    pub valence_arousal: Option<[f32; 2]>,
    /// Probability of each action unit.
    pub units: Option<[f32; ACTION_UNITS.len()]>,
    /// Whether untrained weights speak, by task in output order.
    pub untrained: [bool; Task::ALL.len()],
}

/// Which model speaks for each task: its number among those that have the task.
#[derive(Clone, Copy, Debug, Default)]
struct Speakers {
    plane: Option<usize>,
    expressions: Option<usize>,
    units: Option<usize>,
    untrained: [bool; Task::ALL.len()],
}

/// Which model speaks for a task, by its number among those that have it: the one that is asked for, else the first trained one.
fn speaker(job: &JobRecord, task: Task, asked: Option<&str>) -> Option<usize> {
    let named = having(job, task).position(|model| Some(model.name.as_str()) == asked);
    named.or_else(|| having(job, task).position(|model| !model.untrained))
}

/// Untrained models whose labels are not drawn because no trained one has their task, with these tasks.
pub fn left_out<'a>(job: &'a JobRecord, asked: Option<&str>) -> Vec<(&'a str, Vec<Task>)> {
    let silent: Vec<Task> = Task::ALL
        .into_iter()
        .filter(|task| speaker(job, *task, asked).is_none())
        .collect();
    let of = |model: &'a ModelRecord| {
        let tasks = silent.iter().copied().filter(|task| model.tasks().contains(task));
        (model.name.as_str(), tasks.collect::<Vec<_>>())
    };
    job.models
        .iter()
        .map(of)
        .filter(|(_, tasks)| !tasks.is_empty())
        .collect()
}

/// Reads the labels of one video.
pub struct LabelReader<'a> {
    job: &'a JobRecord,
    part: PathBuf,
    /// The next row of the part, and the one after the last.
    next: u64,
    end: u64,
    /// The rows behind `rows`, once the part is open.
    ahead: Option<rows::LabelReader<'a>>,
    rows: Option<LabelColumns>,
    /// The next row of `rows`.
    at: usize,
    speakers: Speakers,
}

impl<'a> LabelReader<'a> {
    /// `count` rows from `first` on, as `model` says, where it has the task; else as the first trained model does.
    pub fn new(job: &'a JobRecord, part: PathBuf, first: u64, count: u64, model: Option<&str>) -> Self {
        let speaker = |task| speaker(job, task, model);
        let untrained = |task| {
            let speaks = speaker(task).and_then(|at| having(job, task).nth(at));
            speaks.is_some_and(|model| model.untrained)
        };
        Self {
            job,
            part,
            next: first,
            end: first + count,
            ahead: None,
            rows: None,
            at: 0,
            speakers: Speakers {
                plane: speaker(Task::Va),
                expressions: speaker(Task::Expr),
                units: speaker(Task::Au),
                untrained: Task::ALL.map(untrained),
            },
        }
    }

    /// Names of the models that speak, each once, and whether it is untrained.
    pub fn speakers(&self) -> Vec<(&'a str, bool)> {
        let Speakers {
            plane,
            expressions,
            units,
            ..
        } = self.speakers;
        let mut names = Vec::new();
        for (task, at) in [(Task::Expr, expressions), (Task::Va, plane), (Task::Au, units)] {
            let model = at.and_then(|at| having(self.job, task).nth(at));
            let name = model.map(|model| (model.name.as_str(), model.untrained));
            names.extend(name.filter(|name| !names.contains(name)));
        }
        names
    }

    /// The labels of the next frame that has some; `None` at the end.
    pub fn next(&mut self) -> Result<Option<FrameLabels>, RenderError> {
        let mut labels: Option<FrameLabels> = None;
        let speakers = self.speakers;
        while let Some((rows, row)) = self.peek()? {
            let frame = rows.frames[row];
            if labels.as_ref().is_some_and(|labels| labels.frame != frame) {
                break;
            }
            let face = rows.faces[row].map(|index| face(rows, row, index, speakers));
            let labels = labels.get_or_insert_with(|| FrameLabels {
                frame,
                timestamp_us: rows.timestamps[row],
                faces: Vec::new(),
            });
            labels.faces.extend(face);
            self.at += 1;
            self.next += 1;
        }
        Ok(labels)
    }

    fn peek(&mut self) -> Result<Option<(&LabelColumns, usize)>, RenderError> {
        if self.next >= self.end {
            return Ok(None);
        }
        if self.rows.as_ref().is_none_or(|rows| self.at >= rows.len()) {
            let rows = self.read().map_err(|error| self.unreadable(error.to_string()))?;
            let fewer = || self.unreadable("it has fewer rows than its commit says".into());
            let rows = rows.ok_or_else(fewer)?;
            (self.rows, self.at) = (Some(rows), 0);
        }
        Ok(self.rows.as_ref().map(|rows| (rows, self.at)))
    }

    /// The next rows of the part.
    fn read(&mut self) -> Result<Option<LabelColumns>, ReadError> {
        let ahead = match &mut self.ahead {
            Some(ahead) => ahead,
            none => {
                let part = File::open(&self.part)?;
                none.insert(rows::LabelReader::open(part, self.job, self.next..self.end)?)
            }
        };
        ahead.next().transpose()
    }

    fn unreadable(&self, cause: String) -> RenderError {
        RenderError::Part {
            part: self.part.clone(),
            cause,
        }
    }
}

fn face(rows: &LabelColumns, row: usize, index: i32, speakers: Speakers) -> FaceLabel {
    let [x, y, w, h] = rows.boxes.each_ref().map(|side| side[row]);
    let classes = speakers.expressions.map(|model| &rows.expressions[model]);
    FaceLabel {
        index,
        track: rows.tracks[row],
        rect: Rect { x, y, w, h },
        class: classes.and_then(|classes| classes.class[row]),
        expressions: classes.and_then(|classes| numbers(&classes.probabilities, row)),
        valence_arousal: speakers.plane.and_then(|model| numbers(&rows.planes[model], row)),
        units: speakers.units.and_then(|model| numbers(&rows.units[model], row)),
        untrained: speakers.untrained,
    }
}

/// What a model gave for a face; `None` where that were no numbers.
fn numbers<const N: usize>(columns: &[Vec<f32>; N], row: usize) -> Option<[f32; N]> {
    let numbers = columns.each_ref().map(|column| column[row]);
    numbers.iter().all(|number| !number.is_nan()).then_some(numbers)
}
