//! The folder of an export, and the note in it by which it is known again.

use super::Format;
use crate::labels::{LabelError, Labels};
use affectmill_base::{AtomicFile, WriteError, write_atomic};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

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
    /// The files; while they are written, those of the export before.
    #[serde(default)]
    files: BTreeSet<String>,
}

/// A folder that is ours to write in.
pub(super) struct Folder {
    root: PathBuf,
    note: Note,
    written: RefCell<BTreeSet<String>>,
}

impl Folder {
    /// Takes a folder that is empty, missing, or of an earlier export of the same.
    pub fn open(root: &Path, labels: &Labels, format: Format, models: &[&str]) -> Result<Self, LabelError> {
        let mut note = Note {
            version: VERSION,
            format: format.name().into(),
            labels: labels.store().root().to_string(),
            fingerprint: labels.job().fingerprint.to_string(),
            models: models.iter().map(|&name| name.to_owned()).collect(),
            finished: false,
            files: BTreeSet::new(),
        };
        note.files = check(root, &note)?;
        let folder = Self {
            root: root.to_path_buf(),
            note,
            written: RefCell::default(),
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
        self.written.borrow_mut().insert(name.into());
        AtomicFile::create(&self.root.join(name))
    }

    /// Removes files of the export before that this one has not, such as of a video that got another name, and notes that every
    /// file is there. What somebody else put into the folder stays.
    pub fn finish(mut self) -> Result<(), WriteError> {
        let written = self.written.take();
        for stale in self.note.files.difference(&written) {
            // The note is a file that anybody may have changed.
            let mut components = Path::new(stale).components();
            if !components.all(|component| matches!(component, Component::Normal(_))) {
                continue;
            }
            let path = self.root.join(stale);
            match fs::remove_file(&path) {
                Err(cause) if cause.kind() != ErrorKind::NotFound => {
                    return Err(WriteError {
                        path,
                        step: "removing a file of the export before",
                        cause,
                    });
                }
                _ => {}
            }
        }
        self.note.files = written;
        self.note.finished = true;
        self.write_note()
    }

    fn write_note(&self) -> Result<(), WriteError> {
        let mut text = serde_json::to_string_pretty(&self.note).expect("plain text becomes JSON");
        text.push('\n');
        write_atomic(&self.root.join(NOTE), text.as_bytes())
    }
}

/// The files of an earlier export of the same.
fn check(root: &Path, ours: &Note) -> Result<BTreeSet<String>, LabelError> {
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
        return Ok(BTreeSet::new());
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
            if of(&theirs) == of(ours) {
                Ok(theirs.files)
            } else {
                refuse(&format!(
                    "holds another export: {} of {} ({})",
                    theirs.format,
                    theirs.labels,
                    theirs.models.join(", ")
                ))
            }
        }
    }
}
