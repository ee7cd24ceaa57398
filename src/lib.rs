//! Labels faces in very large video collections: videos in, one trustworthy row per frame and face out.
//!
//! # The way of the data
//!
//! ```text
//!  discover ─► plan ─► queue ─► worker [ decode ─► faces ─► infer ─► rows ] ─► commit ─► finish
//!  list files   shards   leases          one process per device                create-only   manifest, _SUCCESS
//! ```
//!
//! The [`coordinator`] owns run state and never touches a frame. A [`worker`] is one process on one device: it
//! leases a shard, runs the pipeline, commits, acknowledges; native hangs and crashes stay inside it. The
//! [`queue`] only hints who works on what. The [`commit`] is the truth: records are created create-only, so
//! whatever is killed whenever, running again ends in the same bytes.
//!
//! # The layers, each importing only what stands below it
//!
//! * [`cli`], then [`coordinator`], [`worker`], [`report`] and [`train`];
//! * rooms that never import one another: [`discover`], [`plan`], [`commit`], [`queue`], [`stages`];
//! * foundations: [`model`] (libtorch is named there, and by [`train`]), [`store`], [`dataset`], [`spec`], [`events`],
//!   [`runtime`], [`domain`].
//!
//! # Glossary
//!
//! * **key**: a video's path relative to the input root.
//! * **shard**: consecutive videos in key order, labelled and committed together; one Parquet part.
//! * **lease**: the right, and duty, to label one shard.
//! * **strike**: a worker crashed or hung with the video in hand, or its disk broke off; after three it is given up.
//! * **attempt**: a video that left no row may be planned again (`affectmill retry`); its latest attempt counts.
//! * **fingerprint**: hash of everything that can change a label; an output accepts one.

pub mod cli;
pub mod commit;
pub mod coordinator;
pub mod dataset;
pub mod discover;
pub mod domain;
pub mod events;
pub mod model;
pub mod plan;
pub mod queue;
pub mod report;
pub mod runtime;
pub mod spec;
pub mod stages;
pub mod store;
pub mod train;
pub mod worker;
