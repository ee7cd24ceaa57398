//! The folder of an export, and the note in it by which it is known again.

use super::Format;
use crate::report::labels::{LabelError, Labels};
use crate::runtime::{AtomicFile, WriteError, write_atomic};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Names the export; written before its files.
const NOTE: &str = "export.json";
const VERSION: u32 = 1;

/// What an export is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    version: u32,
    format: String,
    labels: String,
    fingerprint: String,
    models: Vec<String>,
    /// Whether every file is there.
    finished: bool,
}

/// A folder that is ours to write in.
pub(super) struct Folder {
    root: PathBuf,
    note: Note,
}

impl Folder {
    /// Takes a folder that is empty, missing, or of an earlier export of the same.
    pub fn open(root: &Path, labels: &Labels, format: Format, models: &[&str]) -> Result<Self, LabelError> {
        let note = Note {
            version: VERSION,
            format: format.name().into(),
            labels: labels.store().root().to_string(),
            fingerprint: labels.job().fingerprint.to_string(),
            models: models.iter().map(|&name| name.to_owned()).collect(),
            finished: false,
        };
        check(root, &note)?;
        let folder = Self {
            root: root.to_path_buf(),
            note,
        };
        folder.make("")?;
        folder.write_note()?;
        Ok(folder)
    }

    /// Makes a folder in it.
    pub fn make(&self, name: &str) -> Result<(), WriteError> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(|cause| WriteError {
            path,
            step: "making the folder",
            cause,
        })
    }

    /// Begins a file in it.
    pub fn create(&self, name: &str) -> Result<AtomicFile, WriteError> {
        AtomicFile::create(&self.root.join(name))
    }

    /// Notes that every file is there.
    pub fn finish(mut self) -> Result<(), WriteError> {
        self.note.finished = true;
        self.write_note()
    }

    fn write_note(&self) -> Result<(), WriteError> {
        let mut text = serde_json::to_string_pretty(&self.note).expect("plain text becomes JSON");
        text.push('\n');
        write_atomic(&self.root.join(NOTE), text.as_bytes())
    }
}

fn check(root: &Path, ours: &Note) -> Result<(), LabelError> {
    let refuse = |cause: &str| {
        let error = format!(
            "`{}` {cause}; choose another folder with -o, or remove this one",
            root.display()
        );
        Err(LabelError::Unanswerable(error))
    };
    let is_empty = match fs::read_dir(root) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => return refuse(&format!("is no folder to export into ({error})")),
    };
    if is_empty {
        return Ok(());
    }
    let theirs = fs::read(root.join(NOTE))
        .and_then(|bytes| serde_json::from_slice::<Note>(&bytes).map_err(io::Error::other));
    match theirs {
        Err(_) => refuse("holds files that are no export of affectmill's"),
        Ok(theirs) => {
            let of = |note: &Note| {
                (
                    note.version,
                    note.format.clone(),
                    note.labels.clone(),
                    note.fingerprint.clone(),
                    note.models.clone(),
                )
            };
            match of(&theirs) == of(ours) {
                true => Ok(()),
                false => refuse(&format!(
                    "holds another export: {} of {} ({})",
                    theirs.format,
                    theirs.labels,
                    theirs.models.join(", ")
                )),
            }
        }
    }
}
