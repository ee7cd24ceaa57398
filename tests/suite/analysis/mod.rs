//! Questions to label sets, exports of them, and both over very many rows: the real program on rows whose every value is known.

mod export;
mod labels;
mod query;
mod scale;
