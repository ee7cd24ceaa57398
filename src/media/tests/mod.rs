//! Tests of the room as a whole.

mod decode;
mod images;
