//! Answers from a label set: questions, summary, report page, exports.

pub mod export;
pub mod labels;
pub mod page;
pub mod query;
pub mod summary;
pub mod table;
