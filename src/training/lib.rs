//! Training: a job, faces and labels in; weights out.
//!
//! ```text
//!  tar shards, folders, annotations ─► corpus ─► split ─► loader ─► Trainable ─► losses ─► optimise ─► state
//!                                                                     └─ held-out faces ─► score ─┘
//! ```
//!
//! One process on one device. Its numbers depend on the job, the data and the class of device alone: the order of the faces
//! comes from the seed, and a training that is killed and goes on from its checkpoint ends in the weights of one that was not.
//! It says what happens through [`Event`]s and prints nothing.

mod archives;
mod corpus;
mod error;
mod event;
mod labels;
mod loader;
mod losses;
mod optimise;
mod score;
mod split;
mod state;
#[cfg(test)]
mod tests;
mod trainer;

pub use error::TrainError;
pub use event::{Epoch, Event, Side, Step};
pub use trainer::{Ended, run};
