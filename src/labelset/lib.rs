//! A label set: where its files lie, their columns, their records; who writes and who reads them. Readers begin at [`LabelSet`].

mod calibration;
mod checkpoints;
pub mod commit;
mod device;
pub mod events;
mod input;
mod label_set;
mod outcome;
pub mod paths;
pub mod plan;
mod records;
mod reference;
pub mod rows;
pub mod schema;
mod schemas;
mod strikes;
#[cfg(test)]
mod tests;

pub use calibration::{CALIBRATION_VERSION, CalibrationRecord, TunedOn, TunedTemperature, TunedThreshold};
pub use checkpoints::{CheckpointRecord, ResumePoint};
pub use device::{DeviceClass, DeviceRecord, ShardDevice};
pub use input::{InputRecord, Passed, PassedOver, Unseen, UnseenPlace};
pub use label_set::{LabelSet, LabelSetError};
pub use outcome::{VideoOutcome, VideoStatus};
pub use records::{
    CommitRecord, InputPlace, JobRecord, Manifest, ManifestPart, PartInfo, Plan, PlannedVideo, Quarantined,
    RECORD_VERSION, Retired, ShardPlan, StageSeconds,
};
pub use schema::{LabelSchema, landmark_item, videos_schema};
pub use schemas::schema_files;
pub use strikes::{Strikes, StrikesRecord};
