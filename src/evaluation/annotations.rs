//! What people annotated: the folders of ABAW2, and the single file of the multi-task challenges.
//!
//! Flows in: text files. Flows out: for each annotated person the truth of each frame, invalid marks counted and left out.
//! A file's task is what its header says, its video what it is called; row *i* (from 0, after the header) is frame *i*, as
//! row *i* of the multi-task file is that of the image it names. Guesses nothing: below a header of annotations, what cannot
//! be read is an error with file and line. A text without such a header is passed over and named.

mod files;

pub use files::{LeftOut, PassedOver, Set, Split};

use super::metrics::{CLASSES, OTHER, Truth, Units};
use affectmill_base::nfc;
use affectmill_base::{ACTION_UNITS, EXPRESSIONS, Task};
use files::Annotated;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

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
    #[error("no annotations of {split} in `{}`{}", path.display(), files::instead(left_out, passed_over))]
    None {
        /// The folder or file.
        path: PathBuf,
        /// The files that were looked for.
        split: Split,
        /// Files of other sets.
        left_out: LeftOut,
        /// Texts that are no annotations.
        passed_over: Vec<PassedOver>,
    },
}

/// One annotated person of one video.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Person {
    /// Truth by frame; frames of which nothing is valid are missing.
    pub frames: BTreeMap<u64, Truth>,
    /// Rows that are marked invalid, by task in output order.
    pub invalid: [u64; Task::ALL.len()],
    /// The sets that the person's files belong to; empty where no name tells one.
    pub sets: BTreeSet<Set>,
}

impl Person {
    /// Which tasks are annotated.
    pub fn has(&self, task: Task) -> bool {
        self.invalid[task as usize] > 0 || self.frames.values().any(|truth| truth.has(task))
    }
}

/// Annotations by the name of the person's file in Unicode NFC, such as `12-24-1920x1080` or `video5_left`; with its folder
/// (`subject1/video`) where several files have that name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations {
    /// The persons.
    pub persons: BTreeMap<String, Person>,
    /// Annotated action units that no model here knows, such as `AU20` of ABAW1.
    pub unknown_units: Vec<String>,
    /// What was read: [`Split::All`] also where no name tells a set.
    pub split: Split,
    /// Files of other sets than `split`, which were not read.
    pub left_out: LeftOut,
    /// Texts that are no annotations.
    pub passed_over: Vec<PassedOver>,
}

/// Reads the `.txt` files of `split` in a folder with its subfolders, or a single file.
///
/// # Errors
/// [`AnnotationError`].
pub fn read(path: &Path, split: Split) -> Result<Annotations, AnnotationError> {
    let found = files::find(path, split)?;
    let mut annotations = Annotations {
        split: found.split,
        left_out: found.left_out,
        passed_over: found.passed_over,
        ..Annotations::default()
    };
    for file in &found.files {
        annotations.read_file(file)?;
    }
    if found.files.is_empty() || path.is_dir() && annotations.persons.is_empty() {
        return Err(AnnotationError::None {
            path: path.into(),
            split,
            left_out: annotations.left_out,
            passed_over: annotations.passed_over,
        });
    }
    Ok(annotations)
}

/// What a file's rows hold.
#[derive(Clone, Debug, PartialEq)]
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
    fn read_file(&mut self, file: &Annotated) -> Result<(), AnnotationError> {
        let path = &file.path;
        let unreadable = |cause| AnnotationError::Read {
            path: path.into(),
            cause,
        };
        let mut lines = BufReader::new(File::open(path).map_err(unreadable)?).lines();
        lines.next().transpose().map_err(unreadable)?;
        for unit in &file.unknown_units {
            if !self.unknown_units.contains(unit) {
                self.unknown_units.push(unit.clone());
            }
        }
        let mut blank = None;
        for (frame, line) in lines.enumerate() {
            let row = frame + 2;
            let bad = |line, cause: String| AnnotationError::Row {
                path: path.into(),
                line,
                cause,
            };
            let line = line.map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => bad(row, "is not UTF-8 text; save the file as UTF-8".into()),
                _ => unreadable(error),
            })?;
            if line.trim().is_empty() {
                blank = blank.or(Some(row));
                continue;
            }
            if let Some(blank) = blank {
                let cause = "an empty line between rows: which frame the next row belongs to cannot be told";
                return Err(bad(blank, cause.into()));
            }
            let cells = cells(&line);
            let (name, frame, truth) = match &file.columns {
                Columns::MultiTask => multi_task(&cells).map_err(|cause| bad(row, cause))?,
                columns => {
                    let truth = columns.row(&cells).map_err(|cause| bad(row, cause))?;
                    (&*file.name, frame as u64, truth)
                }
            };
            let person = self.person(name);
            person.sets.extend(file.set);
            // Of the single file each row is its own; of a folder the first row tells.
            if !person.take(frame, truth, file.columns.tasks()) {
                return Err(match file.columns {
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
        let name = nfc(name);
        if !self.persons.contains_key(&*name) {
            self.persons.insert(name.clone().into_owned(), Person::default());
        }
        self.persons.get_mut(&*name).expect("it is there now")
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
    /// What a first line says of the rows below, and the action units in it that no model here knows; nothing where it heads no
    /// annotations.
    fn of(header: &str) -> Option<(Self, Vec<String>)> {
        let names = cells(header.trim_start_matches('\u{feff}'));
        let is = |at: usize, expected: &str| {
            names
                .get(at)
                .is_some_and(|name| name.eq_ignore_ascii_case(expected))
        };
        if is(0, IMAGE) && is(1, "valence") {
            return Some((Columns::MultiTask, Vec::new()));
        }
        if is(0, "valence") && is(1, "arousal") && names.len() == 2 {
            return Some((Columns::Va, Vec::new()));
        }
        if let Some(units) = names.iter().map(|name| unit(name)).collect::<Option<Vec<_>>>() {
            let all = names.iter().zip(&units);
            let unknown = all.filter(|(_, unit)| unit.is_none());
            let unknown = unknown.map(|(name, _)| (*name).into()).collect();
            return Some((Columns::Units(units), unknown));
        }
        let class = |name: &&str| match EXPRESSIONS
            .iter()
            .position(|class| name.eq_ignore_ascii_case(class))
        {
            Some(class) => Some(class as u8),
            None => name.eq_ignore_ascii_case("other").then_some(OTHER),
        };
        let classes = names.iter().map(class).collect::<Option<Vec<_>>>()?;
        Some((Columns::Expression(classes), Vec::new()))
    }

    /// The tasks that each row speaks of.
    fn tasks(&self) -> &'static [Task] {
        match self {
            Columns::Va => &[Task::Va],
            Columns::Expression(_) => &[Task::Expr],
            Columns::Units(_) => &[Task::Au],
            Columns::MultiTask => &Task::ALL,
        }
    }

    fn row(&self, cells: &[&str]) -> Result<Truth, String> {
        let mut truth = Truth::default();
        match self {
            Columns::Va | Columns::MultiTask => {
                let [valence, arousal] = exactly(cells)?;
                truth.va = va(valence, arousal)?;
            }
            Columns::Expression(classes) => {
                let [class] = exactly(cells)?;
                truth.expression = expression(class, classes)?;
            }
            Columns::Units(known) => truth.units = units(cells, known)?,
        }
        Ok(truth)
    }
}

/// `video/00001.jpg,v,a,e,au1…au12`.
fn multi_task<'a>(cells: &[&'a str]) -> Result<(&'a str, u64, Truth), String> {
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
    Ok((video, frame, truth))
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
