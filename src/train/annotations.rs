//! What people annotated: the folders of ABAW2, and the single file of the multi-task challenges.
//!
//! Flows in: text files. Flows out: for each annotated person the truth of each frame, invalid marks counted and left out.
//! A file's task is what its header says, its video what it is called; row *i* (from 0, after the header) is frame *i*, as
//! row *i* of the multi-task file is that of the image it names. Guesses nothing: what cannot be read is an error with file
//! and line.

use super::metrics::{CLASSES, OTHER, Truth, Units};
use crate::domain::{ACTION_UNITS, EXPRESSIONS, Task};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// First column of the multi-task file.
const IMAGE: &str = "image";
/// Columns of the multi-task file before the action units.
const MULTI_TASK: usize = 4;

/// Why annotations cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnnotationError {
    /// A file or folder cannot be read.
    #[error("cannot read annotations `{}`: {cause}", path.display())]
    Read {
        /// File or folder.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        cause: io::Error,
    },
    /// A header names no task.
    #[error(
        "`{}`:1: `{header}` heads no annotations: expected `valence,arousal`, the expressions from `Neutral` on, action \
         units as `AU1,AU2,…`, or `image,valence,arousal,expression,aus`",
        path.display()
    )]
    Header {
        /// The file.
        path: PathBuf,
        /// Its first line.
        header: String,
    },
    /// A row is not what the header promises.
    #[error("`{}`:{line}: {cause}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        cause: String,
    },
    /// Two files annotate the same.
    #[error("`{}` annotates a person and task that another file has already: choose one set with --split", path.display())]
    Twice {
        /// The second file.
        path: PathBuf,
    },
    /// Nothing is there.
    #[error("no annotations in `{}`{}", path.display(), match split { Split::All => "", _ => " for that --split; `--split all` takes every file" })]
    None {
        /// The folder.
        path: PathBuf,
        /// The files that were looked for.
        split: Split,
    },
}

/// Which of the challenge's sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Folders whose name begins with `train`.
    Train,
    /// Folders whose name begins with `valid`.
    #[default]
    Validation,
    /// Both.
    All,
}

impl Split {
    /// Whether a file is in it; one that lies in no set's folder always is.
    fn holds(self, file: &Path) -> bool {
        let folders = file.parent().into_iter().flat_map(Path::components);
        let names = folders.map(|part| part.as_os_str().to_string_lossy().to_lowercase());
        let set = names.filter_map(|name| match name {
            name if name.starts_with("train") => Some(Self::Train),
            name if name.starts_with("valid") => Some(Self::Validation),
            _ => None,
        });
        self == Self::All || set.last().is_none_or(|set| set == self)
    }
}

/// One annotated person of one video.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Person {
    /// Truth by frame; frames of which nothing is valid are missing.
    pub frames: BTreeMap<u64, Truth>,
    /// Rows that are marked invalid, by task in output order.
    pub invalid: [u64; Task::ALL.len()],
}

impl Person {
    /// Which tasks are annotated.
    pub fn has(&self, task: Task) -> bool {
        self.invalid[task as usize] > 0 || self.frames.values().any(|truth| truth.has(task))
    }
}

/// Annotations by the name of the person's file, such as `12-24-1920x1080` or `video5_left`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations {
    /// The persons.
    pub persons: BTreeMap<String, Person>,
    /// Annotated action units that no model here knows, such as `AU20` of ABAW1.
    pub unknown_units: Vec<String>,
}

/// Reads a folder with its subfolders, of whose `.txt` files `split` are taken, or a single file.
///
/// # Errors
/// [`AnnotationError`].
pub fn read(path: &Path, split: Split) -> Result<Annotations, AnnotationError> {
    let mut annotations = Annotations::default();
    if !path.is_dir() {
        annotations.read_file(path)?;
        return Ok(annotations);
    }
    for entry in WalkDir::new(path).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|error| AnnotationError::Read {
            path: error.path().unwrap_or(path).into(),
            cause: error.into(),
        })?;
        let inner = entry.path().strip_prefix(path).unwrap_or(entry.path());
        let is_text = inner.extension().is_some_and(|ending| ending == "txt");
        if entry.file_type().is_file() && is_text && split.holds(inner) {
            annotations.read_file(entry.path())?;
        }
    }
    match annotations.persons.is_empty() {
        true => Err(AnnotationError::None {
            path: path.into(),
            split,
        }),
        false => Ok(annotations),
    }
}

/// What a file's rows hold.
enum Columns {
    Va,
    /// The classes that the numbers stand for.
    Expression(Vec<u8>),
    /// The action units; `None` of an unknown one.
    Units(Vec<Option<usize>>),
    /// Image, valence, arousal, expression, action units.
    MultiTask,
}

impl Annotations {
    fn read_file(&mut self, path: &Path) -> Result<(), AnnotationError> {
        let unreadable = |cause| AnnotationError::Read {
            path: path.into(),
            cause,
        };
        let mut lines = BufReader::new(File::open(path).map_err(unreadable)?).lines();
        let header = lines.next().transpose().map_err(unreadable)?.unwrap_or_default();
        let Some(columns) = self.columns(&header) else {
            return Err(AnnotationError::Header {
                path: path.into(),
                header,
            });
        };
        let mut blank = None;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        for (frame, line) in lines.enumerate() {
            let (row, line) = (frame + 2, line.map_err(unreadable)?);
            let bad = |line, cause: String| AnnotationError::Row {
                path: path.into(),
                line,
                cause,
            };
            if line.trim().is_empty() {
                blank = blank.or(Some(row));
                continue;
            }
            if let Some(blank) = blank {
                let cause = "an empty line between rows: which frame the next row belongs to cannot be told";
                return Err(bad(blank, cause.into()));
            }
            let cells = cells(&line);
            let (name, frame, truth, tasks) = match &columns {
                Columns::MultiTask => multi_task(&cells).map_err(|cause| bad(row, cause))?,
                columns => {
                    let (task, truth) = columns.row(&cells).map_err(|cause| bad(row, cause))?;
                    (name.as_ref(), frame as u64, truth, vec![task])
                }
            };
            let fresh = self.person(name).take(frame, truth, &tasks);
            // Of the single file each row is its own; of a folder the first row tells.
            if !fresh {
                return Err(match columns {
                    Columns::MultiTask => {
                        bad(row, format!("image {} of `{name}` has a row already", frame + 1))
                    }
                    _ => AnnotationError::Twice { path: path.into() },
                });
            }
        }
        Ok(())
    }

    fn person(&mut self, name: &str) -> &mut Person {
        if !self.persons.contains_key(name) {
            self.persons.insert(name.into(), Person::default());
        }
        self.persons.get_mut(name).expect("it is there now")
    }

    fn columns(&mut self, header: &str) -> Option<Columns> {
        let names = cells(header.trim_start_matches('\u{feff}'));
        let first = names.first()?.to_lowercase();
        let is = |name: &str, expected: &str| name.eq_ignore_ascii_case(expected);
        if first == IMAGE {
            return Some(Columns::MultiTask);
        }
        if first == "valence" && names.len() == 2 && is(names[1], "arousal") {
            return Some(Columns::Va);
        }
        if first.starts_with("au") {
            let units = names.iter().map(|name| unit(name)).collect::<Option<Vec<_>>>()?;
            let unknown = names.iter().zip(&units).filter(|(_, unit)| unit.is_none());
            for (name, _) in unknown {
                if !self.unknown_units.iter().any(|known| known == name) {
                    self.unknown_units.push((*name).into());
                }
            }
            return Some(Columns::Units(units));
        }
        let class = |name: &&str| match EXPRESSIONS.iter().position(|class| is(name, class)) {
            Some(class) => Some(class as u8),
            None => is(name, "other").then_some(OTHER),
        };
        let classes = names.iter().map(class).collect::<Option<Vec<_>>>()?;
        Some(Columns::Expression(classes))
    }
}

impl Person {
    /// Takes a row that speaks of some tasks; false when one of them is there already.
    fn take(&mut self, frame: u64, truth: Truth, tasks: &[Task]) -> bool {
        let known = self.frames.get(&frame).copied().unwrap_or_default();
        if tasks.iter().any(|task| known.has(*task)) {
            return false;
        }
        for task in tasks.iter().filter(|task| !truth.has(**task)) {
            self.invalid[*task as usize] += 1;
        }
        let joined = Truth {
            va: truth.va.or(known.va),
            expression: truth.expression.or(known.expression),
            units: truth.units.or(known.units),
        };
        if joined != Truth::default() {
            self.frames.insert(frame, joined);
        }
        true
    }
}

impl Columns {
    fn row(&self, cells: &[&str]) -> Result<(Task, Truth), String> {
        let mut truth = Truth::default();
        let task = match self {
            Columns::Va | Columns::MultiTask => {
                let [valence, arousal] = exactly(cells)?;
                truth.va = va(valence, arousal)?;
                Task::Va
            }
            Columns::Expression(classes) => {
                let [class] = exactly(cells)?;
                truth.expression = expression(class, classes)?;
                Task::Expr
            }
            Columns::Units(known) => {
                truth.units = units(cells, known)?;
                Task::Au
            }
        };
        Ok((task, truth))
    }
}

/// `video/00001.jpg,v,a,e,au1…au12`.
fn multi_task<'a>(cells: &[&'a str]) -> Result<(&'a str, u64, Truth, Vec<Task>), String> {
    let expected = MULTI_TASK + ACTION_UNITS.len();
    if cells.len() != expected {
        return Err(format!("{} values, expected {expected}", cells.len()));
    }
    let no_image = || format!("`{}` names no image as `video/00001.jpg` does", cells[0]);
    let (video, file) = cells[0].rsplit_once('/').ok_or_else(no_image)?;
    let number = file
        .split('.')
        .next()
        .and_then(|number| number.parse::<u64>().ok());
    let frame = number
        .and_then(|number| number.checked_sub(1))
        .ok_or_else(no_image)?;
    let classes: Vec<u8> = (0..=OTHER).collect();
    let known: Vec<Option<usize>> = (0..ACTION_UNITS.len()).map(Some).collect();
    let truth = Truth {
        va: va(cells[1], cells[2])?,
        expression: expression(cells[3], &classes)?,
        units: units(&cells[MULTI_TASK..], &known)?,
    };
    Ok((video, frame, truth, Task::ALL.to_vec()))
}

/// The values of a line; a comma or blank at its end adds none.
fn cells(line: &str) -> Vec<&str> {
    let line = line.trim().trim_end_matches([',', ' ', '\t']);
    line.split(',').map(str::trim).collect()
}

/// `AU1` or `AU01`: its place among the known ones, or `None` of an unknown one; nothing of other text.
fn unit(name: &str) -> Option<Option<usize>> {
    let (prefix, number) = name.split_at_checked(2)?;
    let number: u8 = number.parse().ok()?;
    let known = ACTION_UNITS
        .iter()
        .position(|unit| *unit == format!("AU{number}"));
    prefix.eq_ignore_ascii_case("au").then_some(known)
}

fn exactly<'a, const N: usize>(cells: &[&'a str]) -> Result<[&'a str; N], String> {
    let wrong = |_| format!("{} values, expected {N}", cells.len());
    cells.try_into().map_err(wrong)
}

fn number(cell: &str) -> Result<f64, String> {
    let number: f64 = cell.parse().map_err(|_| format!("`{cell}` is no number"))?;
    Ok(number)
}

/// A whole number, which some writers give as `3.0`.
fn whole(cell: &str) -> Result<i64, String> {
    let value = number(cell)?;
    let is_whole = value.fract() == 0.0 && value.abs() < 1e6;
    is_whole
        .then_some(value as i64)
        .ok_or_else(|| format!("`{cell}` is no whole number"))
}

fn va(valence: &str, arousal: &str) -> Result<Option<[f64; 2]>, String> {
    let values = [number(valence)?, number(arousal)?];
    if values.contains(&-5.0) {
        return Ok(None);
    }
    match values.iter().find(|value| !(-1.0..=1.0).contains(*value)) {
        Some(value) => Err(format!(
            "{value} is neither within −1 to 1 nor the mark −5 of an invalid frame"
        )),
        None => Ok(Some(values)),
    }
}

fn expression(cell: &str, classes: &[u8]) -> Result<Option<u8>, String> {
    match whole(cell)? {
        -1 => Ok(None),
        class => {
            let known = usize::try_from(class).ok().and_then(|class| classes.get(class));
            let wrong = || {
                format!(
                    "expression {class} is neither one of 0 to {} nor the mark −1",
                    classes.len() - 1
                )
            };
            known.copied().map(Some).ok_or_else(wrong)
        }
    }
}

fn units(cells: &[&str], known: &[Option<usize>]) -> Result<Option<Units>, String> {
    if cells.len() != known.len() {
        return Err(format!("{} values, expected {}", cells.len(), known.len()));
    }
    let mut units = Units::default();
    let mut valid = true;
    for (cell, unit) in cells.iter().zip(known) {
        let value = whole(cell)?;
        match value {
            -1 => valid = false,
            0 | 1 => {}
            _ => return Err(format!("action unit {value} is neither 0 nor 1 nor the mark −1")),
        }
        if let Some(unit) = unit {
            units.annotated |= 1 << unit;
            units.active |= u16::from(value == 1) << unit;
        }
    }
    Ok(valid.then_some(units))
}

const _: () = assert!(CLASSES == OTHER as usize && ACTION_UNITS.len() <= 16);

#[cfg(test)]
mod tests;
