//! The words everything else is written in: identities, time, geometry, light and label names.
//!
//! Depends on `std` and `serde` only; holds no behaviour that could fail at run time except the checks in the
//! constructors.

mod face;
mod geometry;
mod ids;
mod labels;
mod location;
mod outputs;
mod shown;
mod time;
mod tone;

pub use face::Face;
pub use geometry::{Orientation, Rect, Size};
pub use ids::{BadHex, BadKey, Fingerprint, RelativePath, ShardId, VideoKey, checksum, checksums, hex};
pub use labels::{ACTION_UNITS, Crop, EXPRESSIONS, ModelKind, Precision, RowStatus, Task, VALENCE_AROUSAL};
pub use location::Location;
pub use outputs::{BadOutputs, NamedOutputs, NetworkKind};
pub use shown::{escaped, visible};
pub use time::{FrameIndex, Micros, TimeBase};
pub use tone::{TONE_MAPPING, Table, Tone};
