//! Weight files of other programs: PyTorch's zip format, its legacy format, Lightning checkpoints, safetensors.
//!
//! Flows in: a file, read whole into memory. Flows out: the names of the tensors of its state dict and, on demand, their
//! values as `f32`. Every tensor is a view (offset, shape, strides) of a range of the file's own bytes, so nothing larger
//! than the file is ever allocated for it. Names stay unchanged; `import.rs` maps them.

use super::ModelError;
use super::dtype::Dtype;
use super::state::{Array, Header};
use crate::pickle;
use crate::pickle::{Id, Node, Tree};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// The tensor that identifies the state dict of such a model.
pub(super) const LANDMARK: &str = "body.conv1.weight";

const SAVE_AGAIN: &str = "save it again with `torch.save(model.state_dict(), path)` and import that";
const DAMAGED: &str = "the file may be damaged: fetch or save it again";

/// `torch.save` before 1.6 begins with the pickled number 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// A view of part of the file; offset and strides in elements.
struct View {
    dtype: Dtype,
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
    storage: Range<usize>,
}

/// An opened weight file.
pub(super) struct Checkpoint {
    path: PathBuf,
    bytes: Vec<u8>,
    tensors: BTreeMap<String, View>,
    /// Format of the file, for messages.
    pub format: String,
    /// Metadata, where the format has any.
    pub metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a file of any known format, detected by its first bytes.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        Self::open_by(path, LANDMARK)
    }

    /// As [`open`](Self::open); the state dict has a tensor whose name ends in `landmark`.
    pub(super) fn open_by(path: &Path, landmark: &str) -> Result<Self, ModelError> {
        let bytes = fs::read(path).map_err(ModelError::io("read the checkpoint", path))?;
        let (tensors, format, metadata) = match bytes.as_slice() {
            [b'P', b'K', 3, 4, ..] => open_zip(path, &bytes, landmark)?,
            start if start.starts_with(LEGACY_MAGIC) => open_legacy(path, &bytes, landmark)?,
            [_, _, _, _, _, _, _, _, b'{', ..] => open_safetensors(path, &bytes)?,
            _ => {
                let cause = format!(
                    "its {} bytes are neither a PyTorch checkpoint nor safetensors",
                    bytes.len()
                );
                return Err(ModelError::file(path, cause, SAVE_AGAIN));
            }
        };
        Ok(Self {
            path: path.to_path_buf(),
            bytes,
            tensors,
            format,
            metadata,
        })
    }

    /// Names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape and element type of a tensor.
    pub(super) fn shape(&self, name: &str) -> Option<(&[usize], Dtype)> {
        self.tensors
            .get(name)
            .map(|view| (view.shape.as_slice(), view.dtype))
    }

    /// The values of a tensor in row-major order, for any strides.
    pub(super) fn read(&self, name: &str) -> Result<Array, ModelError> {
        let bad = |cause: &str| ModelError::file(&self.path, format!("tensor `{name}` {cause}"), DAMAGED);
        let view = self.tensors.get(name).ok_or_else(|| bad("is missing"))?;
        let stored = &self.bytes[view.storage.clone()];
        let elements = view
            .shape
            .iter()
            .try_fold(1_usize, |product, &n| product.checked_mul(n));
        // A stride of zero repeats elements; only then could there be more than the file has bytes.
        let elements = elements.filter(|&count| count <= self.bytes.len());
        let elements = elements.ok_or_else(|| bad("has more elements than the file has bytes"))?;
        let mut data = Vec::with_capacity(elements);
        for index in 0..elements {
            let (mut rest, mut at) = (index, Some(view.offset));
            for (&n, &stride) in view.shape.iter().zip(&view.strides).rev() {
                at = (rest % n)
                    .checked_mul(stride)
                    .and_then(|step| at?.checked_add(step));
                rest /= n;
            }
            let value = at.and_then(|at| view.dtype.read(stored, at));
            data.push(value.ok_or_else(|| bad("reaches outside of its storage"))?);
        }
        Ok(Array {
            shape: view.shape.clone(),
            data,
        })
    }
}

type Opened = (BTreeMap<String, View>, String, BTreeMap<String, String>);

fn open_safetensors(path: &Path, bytes: &[u8]) -> Result<Opened, ModelError> {
    let header = Header::parse(path, bytes, bytes.len() as u64)?;
    let views = header.tensors.into_iter().map(|(name, stored)| {
        let mut stride = 1_usize;
        let mut strides: Vec<usize> = Vec::with_capacity(stored.shape.len());
        for &n in stored.shape.iter().rev() {
            strides.push(stride);
            stride = stride.saturating_mul(n);
        }
        strides.reverse();
        let view = View {
            dtype: stored.dtype,
            shape: stored.shape,
            strides,
            offset: 0,
            storage: stored.range,
        };
        (name, view)
    });
    Ok((views.collect(), "safetensors".to_owned(), header.metadata))
}

/// The zip format of PyTorch 1.6 and later: `<root>/data.pkl` and one uncompressed entry `<root>/data/<key>` a storage.
fn open_zip(path: &Path, bytes: &[u8], landmark: &str) -> Result<Opened, ModelError> {
    let bad = |cause: String| ModelError::file(path, cause, DAMAGED);
    let unreadable =
        |entry: &str, cause: &dyn std::fmt::Display| bad(format!("zip entry `{entry}`: {cause}"));
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|cause| bad(format!("no whole zip archive: {cause}")))?;
    let names: Vec<String> = archive.file_names().map(str::to_owned).collect();
    let root = names.iter().find_map(|name| name.strip_suffix("data.pkl"));
    let root = root.filter(|root| root.is_empty() || root.find('/') == Some(root.len() - 1));
    let Some(root) = root else {
        let cause = "a zip archive without `data.pkl`: no PyTorch checkpoint";
        return Err(ModelError::file(path, cause, SAVE_AGAIN));
    };
    if names.iter().any(|name| {
        name.strip_prefix(root)
            .is_some_and(|name| name.starts_with("code/"))
    }) {
        let cause = "a TorchScript archive: its weights lie in compiled code";
        return Err(ModelError::file(path, cause, SAVE_AGAIN));
    }
    // Reading an entry to its end checks its CRC-32.
    let mut text = Vec::new();
    let pickled = format!("{root}data.pkl");
    archive
        .by_name(&pickled)
        .map_err(|cause| unreadable(&pickled, &cause))?
        .read_to_end(&mut text)
        .map_err(|cause| unreadable(&pickled, &cause))?;
    let order = format!("{root}byteorder");
    if names.contains(&order) {
        let mut word = String::new();
        archive
            .by_name(&order)
            .map_err(|cause| unreadable(&order, &cause))?
            .read_to_string(&mut word)
            .map_err(|cause| unreadable(&order, &cause))?;
        if word.trim() != "little" {
            return Err(ModelError::file(
                path,
                format!("stored in `{}` byte order", word.trim()),
                SAVE_AGAIN,
            ));
        }
    }
    let tree = parse(path, &text, "data.pkl")?;
    let found = state_dict(path, &tree, landmark)?;
    let mut ranges = HashMap::new();
    for storage in found.tensors.iter().map(|(_, tensor)| &tensor.storage) {
        if ranges.contains_key(&storage.key) {
            continue;
        }
        let name = format!("{root}data/{}", storage.key);
        let mut entry = archive
            .by_name(&name)
            .map_err(|cause| unreadable(&name, &cause))?;
        io::copy(&mut entry, &mut io::sink()).map_err(|cause| unreadable(&name, &cause))?;
        let range = usize::try_from(entry.data_start()).ok().and_then(|start| {
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            (end <= bytes.len()).then_some(start..end)
        });
        let range = range.ok_or_else(|| unreadable(&name, &"is cut off"))?;
        ranges.insert(storage.key.clone(), range);
    }
    let format = format!("PyTorch checkpoint{}", found.place());
    let views = found.views(|key| ranges.get(key).cloned());
    Ok((views.map_err(bad)?, format, BTreeMap::new()))
}

/// The format before PyTorch 1.6: pickles of a magic number, a version, the machine, the object and the storages' keys,
/// then for each key its number of elements (64 bits) and its bytes.
fn open_legacy(path: &Path, bytes: &[u8], landmark: &str) -> Result<Opened, ModelError> {
    let bad = |cause: String| ModelError::file(path, cause, DAMAGED);
    let mut at = LEGACY_MAGIC.len();
    let mut next = |what| {
        let tree = parse(path, &bytes[at..], what)?;
        at += tree.length;
        Ok(tree)
    };
    next("protocol version")?;
    next("system info")?;
    let tree = next("object")?;
    let keys = next("storage keys")?;
    let found = state_dict(path, &tree, landmark)?;
    let sizes: HashMap<&str, usize> = tree
        .storages()
        .map(|storage| (&*storage.key, storage.dtype.size()))
        .collect();
    let Node::List(list) = keys.node(keys.root) else {
        return Err(bad(format!("byte {at}: no list of storage keys")));
    };
    let mut ranges = HashMap::new();
    for key in list.iter().filter_map(|&id| keys.text(id)) {
        let range = bytes.get(at..).and_then(<[u8]>::first_chunk).and_then(|count| {
            let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
            let start = at + 8;
            let end = start.checked_add(count.checked_mul(*sizes.get(key)?)?)?;
            (end <= bytes.len()).then_some(start..end)
        });
        let range = range.ok_or_else(|| bad(format!("byte {at}: storage `{key}` is cut off")))?;
        at = range.end;
        ranges.insert(key, range);
    }
    let format = format!("PyTorch checkpoint of the format before 1.6{}", found.place());
    let views = found.views(|key| ranges.get(key).cloned());
    Ok((views.map_err(bad)?, format, BTreeMap::new()))
}

fn parse(path: &Path, bytes: &[u8], what: &str) -> Result<Tree, ModelError> {
    pickle::parse(bytes).map_err(|error| {
        let cause = format!("{what}, byte {}: {}", error.at, error.cause);
        ModelError::file(path, cause, SAVE_AGAIN)
    })
}

/// A state dict found in a pickle.
struct Found<'a> {
    /// Keys that lead to it from the top.
    keys: Vec<&'a str>,
    // Borrowed, because a pickle may use one long key a million times.
    tensors: Vec<(&'a str, &'a pickle::Tensor)>,
}

impl Found<'_> {
    fn place(&self) -> String {
        match self.keys.as_slice() {
            [] => String::new(),
            keys => format!(", `{}`", keys.join(".")),
        }
    }

    fn views(self, storage: impl Fn(&str) -> Option<Range<usize>>) -> Result<BTreeMap<String, View>, String> {
        let mut views = BTreeMap::new();
        for (name, tensor) in self.tensors {
            let range = storage(&tensor.storage.key);
            let range =
                range.ok_or_else(|| format!("storage `{}` of `{name}` is missing", tensor.storage.key))?;
            let view = View {
                dtype: tensor.storage.dtype,
                shape: tensor.shape.clone(),
                strides: tensor.strides.clone(),
                offset: tensor.offset,
                storage: range,
            };
            views.insert(name.to_owned(), view);
        }
        Ok(views)
    }
}

/// Finds the dict with a `landmark` tensor, breadth first from the top. Among several, the usual names of weights decide.
fn state_dict<'a>(path: &Path, tree: &'a Tree, landmark: &str) -> Result<Found<'a>, ModelError> {
    const USUAL: [&str; 5] = ["state_dict", "model_state_dict", "model", "net", "student"];
    const DEEPEST: usize = 8;
    let mut found: Vec<Found> = Vec::new();
    let mut seen = HashSet::from([tree.root]);
    let mut queue = VecDeque::from([(tree.root, Vec::new())]);
    while let Some((id, keys)) = queue.pop_front() {
        let children: Vec<(&str, Id)> = match tree.node(id) {
            Node::Dict(items) => items
                .iter()
                .filter_map(|&(key, value)| Some((tree.text(key)?, value)))
                .collect(),
            Node::List(items) | Node::Tuple(items) => items.iter().map(|&item| ("[]", item)).collect(),
            _ => continue,
        };
        let tensor = |&(name, id): &(_, Id)| match tree.node(id) {
            Node::Tensor(tensor) => Some((name, tensor)),
            _ => None,
        };
        let tensors: Vec<_> = children.iter().filter_map(tensor).collect();
        if tensors.iter().any(|(name, _)| prefix(name, landmark).is_some()) {
            let keys = keys.clone();
            found.push(Found { keys, tensors });
        }
        for (name, child) in children {
            let container = matches!(tree.node(child), Node::Dict(_) | Node::List(_) | Node::Tuple(_));
            if container && keys.len() < DEEPEST && seen.insert(child) {
                queue.push_back((child, [keys.as_slice(), &[name]].concat()));
            }
        }
    }
    let rank = |found: &Found| match found.keys.as_slice() {
        [] => Some(0),
        [only] => USUAL.iter().position(|usual| usual == only).map(|rank| rank + 1),
        _ => None,
    };
    let best = (0..found.len()).min_by_key(|&i| rank(&found[i]).unwrap_or(usize::MAX));
    match best {
        Some(best) if found.len() == 1 || rank(&found[best]).is_some() => Ok(found.swap_remove(best)),
        Some(_) => {
            let places: Vec<String> = found.iter().map(|found| found.keys.join(".")).collect();
            let cause = format!("holds several models: {}", places.join(", "));
            Err(ModelError::file(
                path,
                cause,
                "save the state dict of the one you mean and import that",
            ))
        }
        None => {
            let cause = format!(
                "holds no dict of tensors with a name that ends in `{landmark}`{}",
                top(tree)
            );
            Err(ModelError::file(path, cause, SAVE_AGAIN))
        }
    }
}

/// The first keys at the top of a pickle, for errors.
fn top(tree: &Tree) -> String {
    match tree.node(tree.root) {
        Node::Dict(items) => {
            let keys: Vec<&str> = items
                .iter()
                .filter_map(|&(key, _)| tree.text(key))
                .take(8)
                .collect();
            format!("; its top holds {}", keys.join(", "))
        }
        _ => "; it is no dict, perhaps a whole pickled model".to_owned(),
    }
}

/// The part before `suffix` in a dotted name: nothing, or components with their last dot.
pub(super) fn prefix<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let prefix = name.strip_suffix(suffix)?;
    (prefix.is_empty() || prefix.ends_with('.')).then_some(prefix)
}
