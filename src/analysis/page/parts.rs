//! The rows of a part, a row group at a time.

use super::PageError;
use affectmill_base::ShardId;
use affectmill_labelset::rows::{LabelColumns, LabelReader, ReadError};
use affectmill_labelset::{LabelSet, paths};
use std::borrow::Cow;
use std::fs::File;

/// Those of some rows for which a model gave numbers, by one of its columns.
pub fn with_numbers<'a>(rows: &'a [usize], column: &[f32]) -> Cow<'a, [usize]> {
    if !rows.iter().any(|&row| column[row].is_nan()) {
        rows.into()
    } else {
        rows.iter()
            .copied()
            .filter(|&row| !column[row].is_nan())
            .collect()
    }
}

/// Shows all rows of a shard's part, in order. A part that does not lie on a disk is brought to scratch space for as long.
pub fn each(
    set: &LabelSet,
    shard: &ShardId,
    rows: u64,
    see: &mut dyn FnMut(&LabelColumns),
) -> Result<(), PageError> {
    let key = paths::part(shard);
    let (at_hand, _copy) = set.store().at_hand(std::slice::from_ref(&key))?;
    let failed = |source: ReadError| PageError::Part {
        part: set.store().path(&key).to_string(),
        source,
    };
    if rows == 0 {
        return Ok(());
    }
    for path in &at_hand {
        let part = File::open(path).map_err(|error| failed(error.into()))?;
        for columns in LabelReader::open(part, set.job(), 0..rows).map_err(failed)? {
            see(&columns.map_err(failed)?);
        }
    }
    Ok(())
}
