//! The test suite: the real program on real input. One binary, so that the big libraries are linked once.

mod attribution;
mod bad_input;
mod cluster;
mod common;
#[path = "../corpus/mod.rs"]
mod corpus;
mod crops;
mod earlier;
mod ensembles;
mod evaluate;
mod faces;
mod gone;
mod gpu;
mod kills;
mod limits;
#[path = "../nats/mod.rs"]
mod nats;
mod planning;
mod readme;
mod render;
mod report;
mod retry;
mod run;
mod s3;
mod scripts;
mod shares;
mod signals;
mod spans;
mod streams;
mod strikes;
mod train;
mod watch;
