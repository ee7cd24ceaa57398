//! Problems of a job: what, where, and the remedy.

use std::fmt;
use std::path::{Path, PathBuf};

/// An invalid job: all its problems, one per line when displayed.
///
/// Never worth a retry: the job file or the command line has to change.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", self.lines().join("\n"))]
pub struct SpecError {
    path: PathBuf,
    problems: Vec<Problem>,
}

impl SpecError {
    /// Problems inside a file, sorted by position.
    pub(super) fn at(path: &Path, mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        Self {
            path: path.into(),
            problems,
        }
    }

    /// The file as a whole cannot be read.
    pub(super) fn unreadable(path: &Path, cause: String) -> Self {
        Self::at(path, vec![Problem::new(Place::File, cause)])
    }

    /// The problems, those of the file first in the order of the file, then those of overrides. Never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    fn lines(&self) -> Vec<String> {
        let path = self.path.display();
        let line = |problem: &Problem| match &problem.place {
            Place::File => format!("{path}: {}", problem.message),
            Place::At { line, column } => format!("{path}:{line}:{column}: {}", problem.message),
            Place::Override(text) => format!("--set {text}: {}", problem.message),
        };
        self.problems.iter().map(line).collect()
    }
}

/// One problem of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and the remedy.
    pub message: String,
}

impl Problem {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            message: message.into(),
        }
    }
}

/// The origin of a value of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The job file as a whole.
    File,
    /// A position in the job file, both counted from 1; a column is a character (not a byte), a tab is one column.
    At {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// The text of a `--set` override.
    Override(String),
}

impl Place {
    /// The first character of the file, for missing values.
    pub(super) const START: Place = Place::At { line: 1, column: 1 };

    /// The place of a byte offset in a text; an offset past the end or inside a character counts as just before it.
    pub(super) fn of_offset(text: &str, offset: usize) -> Self {
        let whole = |at| text.get(..at);
        let before = (0..=offset.min(text.len()))
            .rev()
            .find_map(whole)
            .unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::At {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// The candidate nearest to a misspelt word; `None` when none is near.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |candidate: &&str| strsim::jaro_winkler(&word.to_lowercase(), &candidate.to_lowercase());
    candidates
        .into_iter()
        .max_by(|a, b| near(a).total_cmp(&near(b)))
        .filter(|candidate| near(candidate) > 0.75)
}

/// `; did you mean `x`?` for the nearest candidate, or nothing when there is none.
pub(super) fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |candidate| {
        format!("; did you mean `{candidate}`?")
    })
}

/// `a`, `b`, `c`: for the list of what is valid.
pub(super) fn listed(words: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}
