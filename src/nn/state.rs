//! A model's weights in memory, and as safetensors on disk.
//!
//! Flows in: a safetensors file (`F64`, `F32`, `F16` or `BF16`), read into memory without mapping it. Flows out: the
//! same as `F32`, sorted by name, so that equal weights are equal bytes; written beside the target, synced, then
//! renamed, so that a half-written file never carries the target's name.
//!
//! Metadata: `affectmill.kind` (`student`, …), `affectmill.architecture` ([`super::architecture`]), for weights nobody
//! trained `affectmill.untrained` (`seed N`), and where it is known the crop recipe the model was trained on,
//! `affectmill.crop` (`arcface112`, …).

use super::dtype::Dtype;
use super::{ModelError, WeightFile, architecture, layout};
use affectmill_base::ModelKind;
use safetensors::tensor::Metadata;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub(super) const KIND: &str = "affectmill.kind";
pub(super) const ARCHITECTURE_KEY: &str = "affectmill.architecture";
pub(super) const UNTRAINED: &str = "affectmill.untrained";
pub(super) const CROP: &str = "affectmill.crop";

/// The format's own limit, in bytes.
const LARGEST_HEADER: u64 = 100_000_000;

const NOT_SAFETENSORS: &str =
    "give a whole safetensors file; for a PyTorch checkpoint run `affectmill import-weights` first";

/// A tensor in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// As many elements as the shape says.
    pub data: Vec<f32>,
}

/// Named tensors and what is known about them. The canonical names are those of `layout.rs`.
#[derive(Clone, Debug, PartialEq)]
pub struct StateDict {
    /// Where the weights came from; named in errors.
    pub origin: PathBuf,
    /// Tensors by canonical name.
    pub tensors: BTreeMap<String, Array>,
    /// Metadata as it stands in the file.
    pub metadata: BTreeMap<String, String>,
}

impl StateDict {
    /// An empty dictionary marked as `kind`.
    pub(super) fn new(origin: &Path, kind: ModelKind) -> Self {
        let marks = [(KIND, kind.name()), (ARCHITECTURE_KEY, architecture(kind))];
        Self {
            origin: origin.to_path_buf(),
            tensors: BTreeMap::new(),
            metadata: marks
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        }
    }

    /// Reads the tensors of a `kind` out of a safetensors file with canonical names; others are left where they are.
    ///
    /// # Errors
    /// [`ModelError::Io`]; as [`of`](Self::of).
    pub fn read(path: &Path, kind: ModelKind) -> Result<Self, ModelError> {
        Self::of(&WeightFile::read(path)?, kind)
    }

    /// As [`read`](Self::read), of a file that was read.
    ///
    /// # Errors
    /// [`ModelError::File`] when it is not safetensors or is marked as another model; [`ModelError::Mismatch`] naming
    /// every tensor that is missing or wrong.
    pub fn of(file: &WeightFile, kind: ModelKind) -> Result<Self, ModelError> {
        Self::with(file, kind, |_| false)
    }

    /// As [`read`](Self::read); of the other tensors those that `also` wants by their names are read too.
    ///
    /// # Errors
    /// As [`read`](Self::read); a wanted tensor that is no floating point is read as empty.
    pub fn read_with(path: &Path, kind: ModelKind, also: impl Fn(&str) -> bool) -> Result<Self, ModelError> {
        Self::with(&WeightFile::read(path)?, kind, also)
    }

    fn with(file: &WeightFile, kind: ModelKind, also: impl Fn(&str) -> bool) -> Result<Self, ModelError> {
        let header = Header::of(file)?;
        header.check(file.path(), kind)?;
        let own = layout::layout(kind).into_iter().map(|(name, _)| name);
        let more = header.tensors.keys().filter(|name| also(name)).cloned();
        let names: Vec<String> = own.chain(more).collect();
        Ok(Self::taken(file, header, names))
    }

    /// Reads every tensor of a safetensors file of any kind.
    pub(super) fn all(file: &WeightFile) -> Result<Self, ModelError> {
        let header = Header::of(file)?;
        let names = header.tensors.keys().cloned().collect();
        Ok(Self::taken(file, header, names))
    }

    /// Tensors that the header has.
    fn taken(file: &WeightFile, header: Header, names: Vec<String>) -> Self {
        let mut state = Self {
            origin: file.path().to_path_buf(),
            tensors: BTreeMap::new(),
            metadata: header.metadata,
        };
        for name in names {
            let entry = &header.tensors[&name];
            let stored = &file.bytes()[entry.range.clone()];
            let elements = (0..stored.len() / entry.dtype.size()).map_while(|i| entry.dtype.read(stored, i));
            let array = Array {
                shape: entry.shape.clone(),
                data: elements.collect(),
            };
            state.tensors.insert(name, array);
        }
        state
    }

    /// Writes a safetensors file, replacing what was there in one step; missing folders are made.
    ///
    /// # Errors
    /// [`ModelError::Io`]; the target is then as it was.
    pub fn write(&self, path: &Path) -> Result<(), ModelError> {
        let failed = || ModelError::io("write the weights", path);
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder).map_err(failed())?;
        let mut file = tempfile::Builder::new()
            .prefix(".weights-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(failed())?;
        self.serialize(&mut BufWriter::new(&mut file)).map_err(failed())?;
        file.as_file().sync_all().map_err(failed())?;
        file.persist(path).map_err(|refused| failed()(refused.error))?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed())
    }

    fn serialize(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut start = 0;
        let mut entries = BTreeMap::new();
        for (name, array) in &self.tensors {
            let end = start + 4 * array.data.len();
            let entry = Entry {
                dtype: "F32",
                shape: &array.shape,
                data_offsets: [start, end],
            };
            entries.insert(name.as_str(), entry);
            start = end;
        }
        let mut header = serde_json::to_vec(&Document {
            metadata: &self.metadata,
            entries,
        })?;
        // The data starts at a multiple of 8, as readers that map the file expect.
        header.resize(header.len().next_multiple_of(8), b' ');
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for array in self.tensors.values() {
            for value in &array.data {
                out.write_all(&value.to_le_bytes())?;
            }
        }
        out.flush()
    }

    /// The problems that keep these tensors from being a `kind`; empty when there are none.
    pub(super) fn problems(&self, kind: ModelKind) -> Vec<String> {
        let find = |name: &str| {
            let array = self.tensors.get(name)?;
            Some((array.shape.as_slice(), String::new(), true))
        };
        let mut problems = layout::problems(kind, find);
        for (name, array) in &self.tensors {
            if array.data.len() != array.shape.iter().product::<usize>() {
                problems.push(format!(
                    "`{name}` holds {} elements, not {:?}",
                    array.data.len(),
                    array.shape
                ));
            }
            if let Some(at) = array.data.iter().position(|value| !value.is_finite()) {
                problems.push(format!("`{name}` holds {} at element {at}", array.data[at]));
            }
            if name.ends_with(".running_var") && array.data.iter().any(|&value| value < 0.0) {
                problems.push(format!("`{name}` holds a negative variance"));
            }
        }
        problems
    }
}

// A safetensors header, in the order it is written: metadata first, tensors by name.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "__metadata__")]
    metadata: &'a BTreeMap<String, String>,
    #[serde(flatten)]
    entries: BTreeMap<&'a str, Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    dtype: &'static str,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

/// What the head of a safetensors file says.
pub(super) struct Header {
    pub tensors: BTreeMap<String, Stored>,
    pub metadata: BTreeMap<String, String>,
}

/// Where a tensor lies in a safetensors file.
pub(super) struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Bytes from the start of the file.
    pub range: Range<usize>,
}

impl Header {
    /// The header of a file that was read.
    pub(super) fn of(file: &WeightFile) -> Result<Self, ModelError> {
        Self::parse(file.path(), file.bytes(), file.bytes().len() as u64)
    }

    /// Number of bytes of the header, read from the file's first eight.
    pub(super) fn length(path: &Path, first: &[u8], file_len: u64) -> Result<usize, ModelError> {
        let length = first.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let end = length
            .and_then(|length| length.checked_add(8))
            .filter(|&end| end <= file_len.min(LARGEST_HEADER));
        end.and_then(|end| usize::try_from(end).ok()).ok_or_else(|| {
            let cause = format!("no safetensors header within its {file_len} bytes");
            ModelError::file(path, cause, NOT_SAFETENSORS)
        })
    }

    /// Parses the header at the start of `bytes`, which contain at least the header of a file of `file_len` bytes.
    /// Every range it gives lies within the file.
    pub(super) fn parse(path: &Path, bytes: &[u8], file_len: u64) -> Result<Self, ModelError> {
        let bad = |cause: String| ModelError::file(path, cause, NOT_SAFETENSORS);
        let start = Self::length(path, bytes, file_len)?;
        let text = bytes
            .get(8..start)
            .ok_or_else(|| bad("the header is cut off".to_owned()))?;
        let parsed: Metadata = serde_json::from_slice(text)
            .map_err(|error| bad(format!("no safetensors header at byte 8: {error}")))?;
        let expected = (start as u64).saturating_add(parsed.data_len() as u64);
        if expected != file_len {
            return Err(bad(format!(
                "{file_len} bytes long where its header says {expected}"
            )));
        }
        let tensors = parsed.tensors().into_iter().map(|(name, info)| {
            let stored = Stored {
                dtype: info.dtype.into(),
                shape: info.shape.clone(),
                range: start + info.data_offsets.0..start + info.data_offsets.1,
            };
            (name, stored)
        });
        Ok(Self {
            tensors: tensors.collect(),
            metadata: parsed
                .metadata()
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
        })
    }

    /// Refuses a file that is marked as something else than a `kind`, or lacks one of its tensors.
    pub(super) fn check(&self, path: &Path, kind: ModelKind) -> Result<(), ModelError> {
        for (key, expected) in [(ARCHITECTURE_KEY, architecture(kind)), (KIND, kind.name())] {
            if let Some(found) = self.metadata.get(key).filter(|found| *found != expected) {
                let cause = format!("is marked {key} = `{found}` where `{expected}` is expected");
                let remedy =
                    "name the kind it is, or run `affectmill import-weights --kind …` to keep one head";
                return Err(ModelError::file(path, cause, remedy));
            }
        }
        let find = |name: &str| {
            let stored = self.tensors.get(name)?;
            Some((
                stored.shape.as_slice(),
                stored.dtype.to_string(),
                stored.dtype.is_float(),
            ))
        };
        match layout::problems(kind, find) {
            problems if problems.is_empty() => Ok(()),
            problems => Err(ModelError::Mismatch {
                path: path.to_path_buf(),
                kind: kind.name(),
                problems,
            }),
        }
    }
}
