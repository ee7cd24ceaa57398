//! Tests of the room as a whole.

mod crops;
mod preprocess;
