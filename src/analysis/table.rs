//! A table as a terminal shows it, and as files hold it.

use affectmill_base::escaped;
use polars::prelude::*;
use std::borrow::Cow;
use std::path::Path;

/// How a table is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns, for people.
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// An array of objects.
    Json,
    /// Parquet.
    Parquet,
}

impl Format {
    /// The format that a file's name asks for; a table when it asks for none.
    pub fn of_name(path: &Path) -> Self {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("csv") => Self::Csv,
            Some("json") => Self::Json,
            Some("parquet") => Self::Parquet,
            _ => Self::Table,
        }
    }
}

/// What a spreadsheet takes for the beginning of a formula, or passes over before one.
pub const FORMULA: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\n'];

/// How text is written into CSV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cells {
    /// Text that a spreadsheet would take for a formula gets a `'` before it. Numbers stay numbers.
    #[default]
    Harmless,
    /// As it is.
    Raw,
}

/// Adds a table as CSV; returns how many cells got a `'`.
///
/// # Errors
/// Polars' own.
pub fn csv(table: &DataFrame, cells: Cells, header: bool, bytes: &mut Vec<u8>) -> PolarsResult<u64> {
    let mut changed = 0;
    let mut table = map_text(table, |text| {
        if text.starts_with(FORMULA) && cells == Cells::Harmless {
            changed += 1;
            Cow::Owned(format!("'{text}"))
        } else {
            Cow::Borrowed(text)
        }
    })?;
    CsvWriter::new(bytes).include_header(header).finish(&mut table)?;
    Ok(changed)
}

/// What to say of cells that got a `'`.
pub fn quoted_cells(cells: u64) -> Option<String> {
    (cells > 0).then(|| {
        format!(
            "{} a ' before them, because spreadsheets take text that begins with = + - @ for a formula; --raw writes it as it is",
            match cells {
                1 => "1 cell has".into(),
                cells => format!("{cells} cells have"),
            }
        )
    })
}

/// A table whose text is changed.
///
/// # Errors
/// Polars' own.
pub fn map_text(table: &DataFrame, mut change: impl FnMut(&str) -> Cow<'_, str>) -> PolarsResult<DataFrame> {
    let column = |column: &Column| match column.dtype() {
        DataType::String | DataType::Categorical(..) | DataType::Enum(..) => {
            let texts = column.cast(&DataType::String)?;
            let texts: StringChunked = texts.str()?.iter().map(|text| text.map(&mut change)).collect();
            Ok(texts.with_name(column.name().clone()).into_column())
        }
        _ => Ok(column.clone()),
    };
    let columns = table.columns().iter().map(column).collect::<PolarsResult<_>>()?;
    DataFrame::new(table.height(), columns)
}

/// The bytes of a table in a format; a table for people is wrapped at `width`, and cells of CSV are as `cells` says. Returns also
/// how many of them got a `'`.
///
/// # Errors
/// Polars' own.
pub fn encode(
    table: &DataFrame,
    format: Format,
    cells: Cells,
    width: Option<usize>,
) -> PolarsResult<(Vec<u8>, u64)> {
    let mut table = table.clone();
    let (mut bytes, mut changed) = (Vec::new(), 0);
    match format {
        Format::Table => bytes = text(&table, width)?.into_bytes(),
        Format::Csv => changed = csv(&table, cells, true, &mut bytes)?,
        Format::Json => {
            let writer = JsonWriter::new(&mut bytes);
            writer.with_json_format(JsonFormat::Json).finish(&mut table)?;
            bytes.push(b'\n');
        }
        Format::Parquet => {
            ParquetWriter::new(&mut bytes).finish(&mut table)?;
        }
    }
    Ok((bytes, changed))
}

/// Aligned columns under their names. What is wider than `width` goes on below, each time behind the first column.
pub fn text(table: &DataFrame, width: Option<usize>) -> PolarsResult<String> {
    let columns: Vec<Vec<String>> = table.columns().iter().map(cells).collect::<PolarsResult<_>>()?;
    let Some((first, others)) = columns.split_first() else {
        return Ok(String::new());
    };
    let mut blocks: Vec<Vec<&[String]>> = Vec::new();
    let mut used = 0;
    for column in others {
        let wide = span(column) + GAP.len();
        if blocks.is_empty() || width.is_some_and(|width| used + wide > width) {
            blocks.push(vec![first]);
            used = span(first);
        }
        used += wide;
        blocks.last_mut().into_iter().for_each(|block| block.push(column));
    }
    let blocks: Vec<String> = blocks.iter().map(|block| lines(block)).collect();
    Ok(blocks.join("\n"))
}

const GAP: &str = "  ";

/// Characters that a column takes.
fn span(column: &[String]) -> usize {
    let widest = column.iter().map(|cell| console::measure_text_width(cell)).max();
    widest.unwrap_or(0)
}

fn lines(columns: &[&[String]]) -> String {
    let rows = columns.first().map_or(0, |column| column.len());
    let mut text = String::new();
    for row in 0..rows {
        let cells = columns.iter().enumerate().map(|(n, column)| {
            // Text is in the first column; numbers line up on the right.
            let side = if n == 0 {
                console::Alignment::Left
            } else {
                console::Alignment::Right
            };
            console::pad_str(&column[row], span(column), side, None).into_owned()
        });
        text += cells.collect::<Vec<_>>().join(GAP).trim_end();
        text.push('\n');
    }
    text
}

/// A column's name and its values.
fn cells(column: &Column) -> PolarsResult<Vec<String>> {
    let values: Vec<Option<String>> = match column.dtype() {
        DataType::Float32 | DataType::Float64 => {
            let floats = column.cast(&DataType::Float64)?;
            let floats = floats.f64()?.iter();
            floats
                .map(|value| value.map(|value| format!("{value:.3}")))
                .collect()
        }
        _ => {
            let texts = column.cast(&DataType::String)?;
            let shown = |value: &str| escaped(value).into_owned();
            texts.str()?.iter().map(|value| value.map(shown)).collect()
        }
    };
    let values = values.into_iter().map(|value| value.unwrap_or("-".into()));
    Ok(std::iter::once(column.name().to_string()).chain(values).collect())
}
