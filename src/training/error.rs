//! Why a training cannot begin or go on.

use affectmill_base::WriteError;
use affectmill_evaluation::annotations::AnnotationError;
use affectmill_nn::ModelError;
use std::path::PathBuf;

/// An error of a training. What was checkpointed stays, and training goes on from there once the cause is gone.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A file or folder with faces cannot be used.
    #[error("`{}`: {cause}", path.display())]
    Data {
        /// File or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        cause: String,
    },
    /// There is nothing to learn from, or nothing to hold out.
    #[error("{0}")]
    Corpus(String),
    /// A video would be trained on and held out at once.
    #[error("a leak between training and validation: {0}")]
    Leak(String),
    /// The annotations cannot be read.
    #[error(transparent)]
    Annotations(#[from] AnnotationError),
    /// The output holds another training.
    #[error("`{}` {cause}", path.display())]
    Output {
        /// The folder or a file in it.
        path: PathBuf,
        /// What it holds and what to do.
        cause: String,
    },
    /// The loss is no number any more.
    #[error(
        "the loss is {loss} at epoch {epoch}, step {step}, of {faces}; {checkpoint}; \
         lower `optimiser.lr`, or look at these faces and their labels"
    )]
    NotFinite {
        /// What it is.
        loss: f64,
        /// Epoch, from 1.
        epoch: u64,
        /// Step of the whole training, from 1.
        step: u64,
        /// Whose: a batch with its first faces, or those that are held out.
        faces: String,
        /// What is kept.
        checkpoint: String,
    },
    /// Weights or device.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// libtorch refused an operation.
    #[error("libtorch, {doing}: {cause}; if memory ran out, raise `train.accumulate`")]
    Torch {
        /// What was being computed.
        doing: &'static str,
        /// libtorch's own words.
        cause: tch::TchError,
    },
    /// A result cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl TrainError {
    /// Whether the job, its data or its output are wrong, and not the machine.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Data { .. }
                | Self::Corpus(_)
                | Self::Leak(_)
                | Self::Annotations(_)
                | Self::Output { .. }
                | Self::Model(
                    ModelError::File { .. } | ModelError::Mismatch { .. } | ModelError::Device { .. }
                )
                | Self::Model(ModelError::NoBf16 | ModelError::Io { .. })
        )
    }

    pub(super) fn torch(doing: &'static str) -> impl FnOnce(tch::TchError) -> Self {
        move |cause| Self::Torch { doing, cause }
    }

    pub(super) fn data(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |error| Self::Data {
            cause: format!("cannot be read: {error}"),
            path,
        }
    }
}
