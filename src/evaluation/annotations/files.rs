//! Which files of a folder hold annotations, and to which of a challenge's sets they belong.
//!
//! A file of one person (ABAW2 to ABAW8: `VA_Set/Train_Set/video.txt`) belongs to the set that the nearest folder names. A file
//! of many videos (the multi-task challenges: `training_set_annotations.txt`, `validation_set_annotations.txt`, in the test set's
//! place `MTL_Challenge_test_set_release.txt`) may name it itself.

use super::{AnnotationError, Columns};
use affectmill_base::Task;
use affectmill_base::nfc;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// No header is longer; more of a file without line breaks is not read.
const MAX_HEADER: u64 = 1 << 16;
/// Characters of a first line that are shown.
const SHOWN: usize = 40;
/// Names that a message lists.
const MOST_NAMES: usize = 3;
/// Words of a folder's name beside that of its set.
const FILLERS: [&str; 6] = ["annotation", "annotations", "data", "labels", "split", "videos"];

/// One of the sets into which a challenge splits its videos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Set {
    /// To learn from.
    Train,
    /// To compare models on.
    Validation,
    /// To rank submissions on.
    Test,
}

impl Set {
    /// The set's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        match word {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validation" => Some(Self::Validation),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }

    /// The set that the name of a file of many videos tells; none where it tells several.
    pub(super) fn of_file(name: &str) -> Option<Self> {
        let sets: BTreeSet<Self> = words(name)
            .iter()
            .filter_map(|word| Self::of_word(word))
            .collect();
        sets.first().copied().filter(|_| sets.len() == 1)
    }

    /// The set that a folder's name tells: `Train_Set`, `training_videos`, `TestSet`, `val2`; not `Val_Kilmer`, `test_subject`.
    pub(super) fn of_folder(name: &str) -> Option<Self> {
        let words = words(name);
        let (first, rest) = words.split_first()?;
        let sure = matches!(&**first, "train" | "training" | "valid" | "validation")
            && rest.iter().all(|word| Self::of_word(word).is_none());
        let alone = rest.iter().all(|word| FILLERS.contains(&&**word));
        Self::of_word(first).filter(|_| sure || alone)
    }
}

/// The words of a name, without digits and `set` at their ends.
fn words(name: &str) -> Vec<String> {
    let words = name.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
    let bare = |word: String| -> String {
        let word = word.trim_end_matches(|c: char| c.is_ascii_digit());
        word.strip_suffix("set").unwrap_or(word).into()
    };
    words.map(bare).filter(|word| !word.is_empty()).collect()
}

/// Which files of a folder are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Those of the train set.
    Train,
    /// Those of the validation set.
    #[default]
    Validation,
    /// Those of the test set.
    Test,
    /// All but those of the test set.
    All,
}

impl Split {
    fn holds(self, set: Option<Set>) -> bool {
        match self {
            Self::Train => set == Some(Set::Train),
            Self::Validation => set == Some(Set::Validation),
            Self::Test => set == Some(Set::Test),
            Self::All => set != Some(Set::Test),
        }
    }
}

impl Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "the train set",
            Self::Validation => "the validation set",
            Self::Test => "the test set",
            Self::All => "a train or validation set, or of none",
        })
    }
}

/// A text that is no annotations.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PassedOver {
    /// The file, relative to the folder that was read.
    pub file: PathBuf,
    /// Why.
    pub why: String,
}

impl Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.file.display(), self.why)
    }
}

impl PassedOver {
    /// The first of some, and how many more there are; nothing where there is none.
    pub fn list(files: &[Self]) -> Option<String> {
        let shown: Vec<String> = files.iter().take(MOST_NAMES).map(Self::to_string).collect();
        let more = match files.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!shown.is_empty()).then(|| format!("{}{more}", shown.join(", ")))
    }
}

/// Numbers of files that were not read, by the name of their set.
pub type LeftOut = BTreeMap<&'static str, usize>;

/// What an error says of the files that are there instead.
pub(super) fn instead(left_out: &LeftOut, passed_over: &[PassedOver]) -> String {
    let sets = left_out.iter();
    let sets = sets.map(|(set, files)| format!("; --split {set} has {files}"));
    let names = PassedOver::list(passed_over).map(|names| format!("; passed over {names}"));
    sets.chain(names).collect()
}

/// A file of annotations.
pub(super) struct Annotated {
    pub path: PathBuf,
    pub set: Option<Set>,
    /// The person's name, where the file is of one.
    pub name: String,
    pub columns: Columns,
    pub unknown_units: Vec<String>,
}

/// The files to read, in order.
pub(super) struct Found {
    pub files: Vec<Annotated>,
    pub split: Split,
    pub left_out: LeftOut,
    pub passed_over: Vec<PassedOver>,
}

/// Finds the files of `split` in a folder with its subfolders, or takes the single file.
pub(super) fn find(root: &Path, split: Split) -> Result<Found, AnnotationError> {
    let mut found = Found {
        files: Vec::new(),
        split,
        left_out: LeftOut::new(),
        passed_over: Vec::new(),
    };
    for entry in WalkDir::new(root).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|error| AnnotationError::Read {
            path: error.path().unwrap_or(root).into(),
            cause: error.into(),
        })?;
        let (path, alone) = (entry.path(), entry.depth() == 0);
        let ending = path.extension().and_then(|ending| ending.to_str());
        let is_text = alone || ending.is_some_and(|ending| ending.eq_ignore_ascii_case("txt"));
        if !entry.file_type().is_file() || !is_text {
            continue;
        }
        let header = match header(path).map_err(|cause| AnnotationError::Read {
            path: path.into(),
            cause,
        })? {
            Ok(header) => header,
            Err(why) => {
                found.pass_over(root, path, why.into());
                continue;
            }
        };
        match Columns::of(&header) {
            Some((columns, unknown_units)) => found.files.push(Annotated {
                set: set_of(root, path, &columns),
                path: path.into(),
                name: stem(path),
                columns,
                unknown_units,
            }),
            None if alone => {
                return Err(AnnotationError::Header {
                    path: path.into(),
                    header,
                });
            }
            None => {
                let start: String = header.trim().chars().take(SHOWN).collect();
                found.pass_over(root, path, format!("`{start}` heads no annotations"));
            }
        }
    }
    found.choose(root);
    Ok(found)
}

impl Found {
    fn pass_over(&mut self, root: &Path, path: &Path, why: String) {
        let file = path.strip_prefix(root).ok().filter(|file| *file != Path::new(""));
        let file = file.unwrap_or(path).into();
        self.passed_over.push(PassedOver { file, why });
    }

    /// Keeps the files of the split: all, where no name tells a set. Persons whose files have one name are told apart by
    /// their folders.
    fn choose(&mut self, root: &Path) {
        if self.files.iter().all(|file| file.set.is_none()) {
            self.split = Split::All;
        }
        let (chosen, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.files)
            .into_iter()
            .partition(|file| self.split.holds(file.set));
        self.files = chosen;
        for file in &others {
            // A file that no name puts into a set is read with all.
            *self
                .left_out
                .entry(file.set.map_or("all", Set::name))
                .or_default() += 1;
        }
        let mut met: BTreeSet<(String, Task)> = BTreeSet::new();
        let mut twice: BTreeSet<String> = BTreeSet::new();
        for file in self
            .files
            .iter()
            .filter(|file| file.columns != Columns::MultiTask)
        {
            for task in file.columns.tasks() {
                if !met.insert((file.name.clone(), *task)) {
                    twice.insert(file.name.clone());
                }
            }
        }
        for file in self.files.iter_mut().filter(|file| twice.contains(&file.name)) {
            let mut folders = folders(root, &file.path);
            folders.drain(
                ..folders
                    .iter()
                    .rposition(|name| Set::of_folder(name).is_some())
                    .map_or(0, |set| set + 1),
            );
            folders.push(std::mem::take(&mut file.name));
            file.name = folders.join("/");
        }
    }
}

/// The first line of a file, or why it has none.
fn header(path: &Path) -> io::Result<Result<String, &'static str>> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?)
        .take(MAX_HEADER)
        .read_until(b'\n', &mut line)?;
    if line.starts_with(&[0xff, 0xfe]) || line.starts_with(&[0xfe, 0xff]) {
        return Ok(Err("UTF-16; save it as UTF-8"));
    }
    Ok(String::from_utf8(line)
        .map(|line| line.trim_end_matches(['\n', '\r']).into())
        .map_err(|_| "no UTF-8 text"))
}

fn set_of(root: &Path, path: &Path, columns: &Columns) -> Option<Set> {
    let own = (*columns == Columns::MultiTask)
        .then(|| Set::of_file(&stem(path)))
        .flatten();
    // The folder that was named counts too.
    let base = if root.is_dir() {
        root
    } else {
        root.parent().unwrap_or(root)
    };
    let folders = folders(base.parent().unwrap_or(base), path);
    own.or_else(|| folders.iter().rev().find_map(|name| Set::of_folder(name)))
}

/// Names of the folders below `base` in which a file lies, in NFC.
fn folders(base: &Path, file: &Path) -> Vec<String> {
    let inner = file.parent().and_then(|folder| folder.strip_prefix(base).ok());
    let names = inner.into_iter().flat_map(Path::components);
    names
        .map(|name| nfc(&name.as_os_str().to_string_lossy()).into_owned())
        .collect()
}

/// A file's name without its ending, in NFC.
fn stem(path: &Path) -> String {
    nfc(&path.file_stem().unwrap_or_default().to_string_lossy()).into_owned()
}
