//! The test suite: the real program on real input. One binary, so that the big libraries are linked once.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::too_many_lines,
    reason = "tests tell a story, and say what they skip"
)]

mod analysis;
mod attribution;
mod bad_input;
mod cluster;
mod common;
mod corpus;
mod crops;
mod earlier;
mod ensembles;
mod evaluate;
mod faces;
mod fuzz;
mod gone;
mod gpu;
mod inputs;
mod kills;
mod limits;
mod names;
pub use affectmill_testing::nats;
mod numbers;
mod planning;
mod readme;
mod record;
mod render;
mod report;
mod retry;
mod run;
mod s3;
mod scale;
mod scripts;
mod shares;
mod signals;
mod sites;
mod spans;
mod state;
mod streams;
mod strikes;
mod train;
mod watch;
mod whole;
