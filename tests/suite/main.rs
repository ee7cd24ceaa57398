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
mod inputs;
mod kills;
mod limits;
mod names;
#[path = "../nats/mod.rs"]
mod nats;
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
