//! Vocabulary types of every room (identities, time, geometry, tone mapping, label names) and small services: atomic files,
//! checksums, processes, signals, escaping of untrusted text.
//!
//! It does not depend on jobs, label sets or networks.

mod atomic;
mod face;
mod folder;
mod geometry;
mod host;
mod ids;
mod input;
mod io_error;
mod labels;
mod location;
mod mounts;
mod oom;
mod outputs;
mod process;
mod program;
mod retry;
mod sample;
mod sha256;
mod shown;
mod signals;
mod source;
mod statistics;
mod text;
mod time;
mod tone;
mod tracker_state;
mod trouble;

pub use atomic::{AtomicFile, WriteError, write_atomic};
pub use face::Face;
pub use folder::{InputFolders, is_lacking, sync_folder};
pub use geometry::{Orientation, Rect, Size};
pub use host::hostname;
pub use ids::{BadHex, BadKey, Fingerprint, RelativePath, ShardId, VideoKey, checksum, checksums, hex};
pub use input::{IMAGENET_MEAN, IMAGENET_STD, INPUT_LEN, INPUT_SIZE};
pub use io_error::{is_transient, remedy};
pub use labels::{ACTION_UNITS, Crop, EXPRESSIONS, ModelKind, Precision, RowStatus, Task, VALENCE_AROUSAL};
pub use location::{BadBucket, Location};
pub use oom::{OomCounter, OomRecord};
pub use outputs::{BadOutputs, NamedOutputs, NetworkKind};
pub use process::ProcessIdentity;
pub use program::{name_this_process, this_program};
pub use retry::{Retry, RetryPolicy};
pub use sample::SampleName;
pub use sha256::{Sha256File, sha256_file, sha256_hex};
pub use shown::{escaped, visible};
pub use signals::outlive;
pub use source::{SeekAnchor, SourceKind};
pub use statistics::{argmax, median};
pub use text::{AmbiguousName, NameIndex, nfc};
pub use time::{FrameIndex, Micros, TimeBase};
pub use tone::{TONE_MAPPING, Table, Tone};
pub use tracker_state::{ResumeFace, ResumeTrack, TrackerState};
pub use trouble::{ErrorClass, Trouble};
