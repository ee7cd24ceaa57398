//! The shape of a label set: where its files lie, their columns, their records. No I/O.

pub mod paths;
mod records;
pub mod schema;

pub use records::{
    CommitRecord, JobRecord, Manifest, ManifestPart, ModelRecord, PartInfo, Plan, PlannedVideo, Quarantined,
    RECORD_VERSION, ShardPlan, SourceKind, StageSeconds, VideoOutcome, VideoStatus,
};
