//! Folders as the ABAW competitions have them: `annotations/` as trainers read them, `submission/` as the second one's organisers
//! did. In both a file for each task and video, a row for each frame of the video from its first: of the largest face.
//!
//! In an annotation a frame without a label is invalid (−5 for valence and arousal, −1 else); in a submission it repeats the
//! row before it, and only what comes before the first label is invalid.

use super::folder::Folder;
use super::per_video::{list, name, put};
use super::{Exported, names};
use crate::labels::{LabelError, Labels, Quantity, floats, integers};
use affectmill_base::AtomicFile;
use affectmill_base::Task;
use affectmill_labelset::schema::column;
use affectmill_spec::ModelRecord;
use polars::prelude::{DataFrame, Expr, PolarsResult, col};
use std::collections::BTreeMap;

/// Rows that a gap between two frames may take: a number in a file's name is no reason to fill a disk.
const LONGEST_GAP: u64 = 10_000_000;

/// A task's folder and what a row without a label says.
fn set(task: Task) -> (&'static str, &'static str) {
    match task {
        Task::Va => ("VA_Set", "-5,-5"),
        Task::Expr => ("EXPR_Set", "-1"),
        Task::Au => ("AU_Set", "-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1"),
    }
}

pub(super) fn write(
    labels: &Labels,
    folder: &Folder,
    chosen: &[(Task, &ModelRecord)],
) -> Result<Exported, LabelError> {
    let names = names::of_videos(labels.videos().map(|video| video.key.as_str()));
    let frames: BTreeMap<&str, u64> = labels
        .videos()
        .map(|video| (video.key.as_str(), video.frames))
        .collect();
    let values = labels.job().job.output.values;
    let mut columns: Vec<Expr> = [column::FRAME, column::FACE].map(col).to_vec();
    for (task, model) in chosen {
        columns.extend(
            Quantity::of(*task).map(|quantity| quantity.value(&model.name, values).alias(quantity.name())),
        );
        for kind in ["annotations", "submission"] {
            folder.make(&format!("{kind}/{}", set(*task).0))?;
        }
    }
    let mut submitted = folder.create("submission/videos.txt")?;
    let mut exported = Exported::default();
    let mut end = |video: &str, files: Vec<TaskFiles>, exported: &mut Exported| {
        let decoded = frames.get(video).copied().unwrap_or_default();
        let mut rows = 0;
        for mut of_task in files {
            of_task.fill(video, decoded)?;
            rows = of_task.rows;
            of_task.annotation.finish()?;
            of_task.submission.finish()?;
            exported.files += 2;
        }
        exported.rows += rows;
        put(
            Some(&mut submitted),
            format!("{} {rows}\n", name(&names, video)?).as_bytes(),
        )
    };
    let mut open: Option<(String, Vec<TaskFiles>)> = None;
    labels.each_video_piece(&columns, |video, rows| {
        if open.as_ref().is_none_or(|(of, _)| of != video) {
            if let Some((video, files)) = open.take() {
                end(&video, files, &mut exported)?;
            }
            let file = name(&names, video)?;
            let files = chosen
                .iter()
                .map(|(task, _)| TaskFiles::create(folder, *task, file));
            open = Some((video.to_owned(), files.collect::<Result<_, _>>()?));
        }
        open.iter_mut()
            .flat_map(|(_, files)| files)
            .try_for_each(|of_task| of_task.push(video, &rows))
    })?;
    if let Some((video, files)) = open {
        end(&video, files, &mut exported)?;
    }
    submitted.finish()?;
    list(folder, &names, "txt")?;
    Ok(exported)
}

/// The two files of a task and a video.
struct TaskFiles {
    task: Task,
    annotation: AtomicFile,
    submission: AtomicFile,
    /// Rows written.
    rows: u64,
    /// The row that a frame without a label repeats.
    last: String,
}

impl TaskFiles {
    fn create(folder: &Folder, task: Task, name: &str) -> Result<Self, LabelError> {
        let (set, invalid) = set(task);
        let [annotation, submission] =
            ["annotations", "submission"].map(|kind| folder.create(&format!("{kind}/{set}/{name}.txt")));
        let mut files = Self {
            task,
            annotation: annotation?,
            submission: submission?,
            rows: 0,
            last: invalid.into(),
        };
        let header = task.outputs().join(",");
        files.lines(&format!("{header}\n"), &format!("{header}\n"))?;
        Ok(files)
    }

    fn lines(&mut self, annotation: &str, submission: &str) -> Result<(), LabelError> {
        put(Some(&mut self.annotation), annotation.as_bytes())?;
        put(Some(&mut self.submission), submission.as_bytes())
    }

    /// Adds rows without a label up to `frame`.
    fn fill(&mut self, video: &str, frame: u64) -> Result<(), LabelError> {
        let gap = frame.saturating_sub(self.rows);
        if gap > LONGEST_GAP {
            let error = format!(
                "`{video}` has no label between frames {} and {frame}, and abaw wants a row for each; csv or jsonl hold what there is",
                self.rows
            );
            return Err(LabelError::Unanswerable(error));
        }
        let (invalid, last) = (format!("{}\n", set(self.task).1), format!("{}\n", self.last));
        for _ in 0..gap {
            self.lines(&invalid, &last)?;
        }
        self.rows += gap;
        Ok(())
    }

    fn push(&mut self, video: &str, rows: &DataFrame) -> Result<(), LabelError> {
        let (frames, faces) = (integers(rows, column::FRAME)?, integers(rows, column::FACE)?);
        let outputs: Vec<Vec<Option<f32>>> = self
            .task
            .outputs()
            .iter()
            .map(|name| floats(rows, name))
            .collect::<PolarsResult<_>>()?;
        for row in 0..rows.height() {
            // The largest face; a frame without one is filled in when the next row comes.
            let frame = frames[row].and_then(|frame| u64::try_from(frame).ok());
            let Some(frame) = frame.filter(|_| faces[row] == Some(0)) else {
                continue;
            };
            let values: Option<Vec<f32>> = outputs.iter().map(|output| output[row]).collect();
            let Some(values) = values else { continue };
            self.fill(video, frame)?;
            self.last = line(self.task, &values);
            let line = format!("{}\n", self.last);
            self.lines(&line, &line)?;
            self.rows += 1;
        }
        Ok(())
    }
}

/// A face's row: valence and arousal within their range, the most probable expression, units with a probability above a half.
fn line(task: Task, values: &[f32]) -> String {
    let joined = |texts: Vec<String>| texts.join(",");
    match task {
        Task::Va => joined(
            values
                .iter()
                .map(|value| value.clamp(-1.0, 1.0).to_string())
                .collect(),
        ),
        Task::Expr => {
            let best = (0..values.len())
                .rev()
                .max_by(|&a, &b| values[a].total_cmp(&values[b]));
            best.unwrap_or_default().to_string()
        }
        Task::Au => joined(values.iter().map(|&p| u8::from(p > 0.5).to_string()).collect()),
    }
}
