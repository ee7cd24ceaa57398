//! The shape of a label set: where its files lie, their columns, their records. No I/O.

mod calibration;
mod device;
mod input;
mod outcome;
pub mod paths;
mod records;
pub mod schema;
mod schemas;
mod spans;
mod strikes;

pub use calibration::{CALIBRATION_VERSION, CalibrationRecord, TunedOn, TunedTemperature, TunedThreshold};
pub use device::{DeviceClass, DeviceRecord, ShardDevice};
pub use input::{InputRecord, Passed, PassedOver, Unseen, UnseenPlace};
pub use outcome::{ErrorClass, Trouble, VideoOutcome, VideoStatus};
pub use records::{
    CommitRecord, InputPlace, JobRecord, Manifest, ManifestPart, PartInfo, Plan, PlannedVideo, Quarantined,
    RECORD_VERSION, Retired, ShardPlan, SourceKind, StageSeconds,
};
pub use schema::{LabelSchema, landmark_item, videos_schema};
pub use schemas::{schema_text, schemas};
pub use spans::{Following, Foothold, Seam, SeamFace, SeamTrack, SpanRecord};
pub use strikes::{Strikes, StrikesRecord};

/// Re-exported beside the records that hold it; it is made in `spec`, where the fingerprint is.
pub use crate::spec::ModelRecord;
