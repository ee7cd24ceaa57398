//! Errors of weights, devices and tensors.

use std::path::{Path, PathBuf};

/// An error of weights, devices or tensors. None is worth an immediate retry; an
/// [`ModelError::Io`] may be transient.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// An I/O error of a file.
    #[error("{}: cannot {doing}: {cause}; check the path, its permissions and the space left", path.display())]
    Io {
        /// The failed operation, as an infinitive.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// An invalid file.
    #[error("{}: {cause}; {remedy}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the position where one is known.
        cause: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// The tensors of a file are not those of the requested model.
    #[error("{}: does not fit a {kind}: {}; give that model's file, or another kind", path.display(), shorten(problems))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Name of the requested kind.
        kind: &'static str,
        /// Every tensor that is missing or wrong, by name, with expected and found shape.
        problems: Vec<String>,
    },
    /// A device that cannot be used.
    #[error(
        "device `{device}`: {cause}; use `cpu`, or `cuda:N` with N from 0 to one less than the number of GPUs"
    )]
    Device {
        /// The device as it was named.
        device: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A CPU that cannot compute in bf16.
    #[error(
        "precision `bf16` needs a CPU with AVX-512 (BW, VL, DQ) or a GPU, and this CPU has none; set precision = \"fp32\", \
         which makes another dataset"
    )]
    NoBf16,
    /// A GPU is out of memory.
    #[error(
        "{device} has no memory even for half a batch of {batch} faces ({}); set a smaller run.batch, run fewer workers on it, \
         or close what else uses it",
        gist(.cause)
    )]
    GpuMemory {
        /// The GPU.
        device: String,
        /// Faces of a whole batch.
        batch: usize,
        /// libtorch's error.
        cause: tch::TchError,
    },
    /// fp16 is not supported: on a CPU, and for training.
    #[error(
        "precision `fp16` needs a GPU, and is for labelling alone; set precision = \"fp32\", or \"bf16\" where the device has \
         it, which makes another dataset"
    )]
    NoFp16,
    /// A batch used against its contract.
    #[error("batch: {0}")]
    Batch(String),
    /// A libtorch operation failed.
    #[error("libtorch, {doing}: {cause}; if memory ran out, use a smaller batch")]
    Torch {
        /// What was being computed.
        doing: &'static str,
        /// libtorch's error.
        cause: tch::TchError,
    },
}

impl ModelError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Io { doing, path, cause }
    }

    pub(super) fn file(path: &Path, cause: impl Into<String>, remedy: &'static str) -> Self {
        Self::File {
            path: path.to_path_buf(),
            cause: cause.into(),
            remedy,
        }
    }

    pub(super) fn torch(doing: &'static str) -> impl FnOnce(tch::TchError) -> Self {
        move |cause| Self::Torch { doing, cause }
    }
}

/// The first ten problems and how many more there are.
fn shorten(problems: &[String]) -> String {
    let mut text = problems.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
    if problems.len() > 10 {
        text.push_str(&format!(" and {} more", problems.len() - 10));
    }
    text
}

/// The line of a libtorch error with the cause, without the stack trace.
pub(super) fn gist(cause: &tch::TchError) -> String {
    let (tch::TchError::Torch(text) | tch::TchError::Shape(text)) = cause else {
        return cause.to_string();
    };
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines().find(|line| line.contains("Error: "));
    let line = error.or_else(|| lines().next()).unwrap_or_default();
    line.trim_start_matches("RuntimeError: ").to_owned()
}

/// Whether a GPU is out of memory. libtorch reports this only as text: from its allocator, from cuDNN when no algorithm fits, and
/// from the libraries below.
pub(super) fn tells_of_memory(error: &tch::TchError) -> bool {
    const SIGNS: [&str; 4] = [
        "out of memory",
        "unable to find an engine",
        "STATUS_ALLOC_FAILED",
        "ALLOCATION_FAILED",
    ];
    let words = error.to_string();
    SIGNS.iter().any(|sign| words.contains(sign))
}
