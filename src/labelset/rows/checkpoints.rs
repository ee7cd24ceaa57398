//! The rows of a checkpoint, read back to be written once more: into the part that its video ends up in.

use super::reader::{FixedRow, RowReader};
use super::{Content, Row};
use crate::LabelSchema;
use crate::schema::FIXED_COLUMNS;
use affectmill_base::SampleName;
use affectmill_base::{Face, RowStatus, VideoKey};
use affectmill_spec::Values;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type};
use std::fs::File;
use std::io::{BufReader, Read};

/// The schema of checkpoints: raw outputs, whatever the job keeps of them.
pub fn span_schema(schema: &LabelSchema) -> LabelSchema {
    LabelSchema::new(schema.models(), Values::Logits, schema.fingerprint())
}

/// Shows every row of a checkpoint, in order, each with the JPEG of its crop; without crops, with nothing.
///
/// # Errors
/// In words, when the files are not what was written, or what `show` says.
pub fn replay(
    schema: &LabelSchema,
    video: &VideoKey,
    rows: File,
    crops: Option<File>,
    mut show: impl FnMut(&Row<'_>, &[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let reader = RowReader::open_whole(rows).map_err(|error| error.to_string())?;
    if reader.schema().fields() != schema.arrow().fields() {
        return Err("its columns are not those of this job".into());
    }
    let mut archive = crops.map(|crops| tar::Archive::new(BufReader::new(crops)));
    let mut members = match &mut archive {
        Some(archive) => Some(archive.entries().map_err(|error| error.to_string())?),
        None => None,
    };
    let mut jpeg = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| error.to_string())?;
        let fixed = batch.fixed().map_err(|error| error.to_string())?;
        let outputs = batch.arrow().columns()[FIXED_COLUMNS..].iter();
        let outputs: Vec<_> = outputs
            .filter(|column| *column.data_type() == DataType::Float32)
            .map(|column| column.as_primitive::<Float32Type>())
            .collect();
        let mut values = vec![0.0; outputs.len()];
        for at in 0..batch.rows() {
            let row = fixed.row(at).map_err(|error| error.to_string())?;
            let FixedRow {
                frame,
                timestamp,
                status,
                face,
            } = row;
            let mut models: Vec<&[f32]> = Vec::with_capacity(schema.models().len());
            let content = match (status, &face) {
                (RowStatus::Ok | RowStatus::NotFinite, Some(face)) => {
                    // A number that is not there was none.
                    values.iter_mut().zip(&outputs).for_each(|(value, column)| {
                        *value = if column.is_valid(at) {
                            column.value(at)
                        } else {
                            f32::NAN
                        };
                    });
                    let mut rest = values.as_slice();
                    for model in schema.models() {
                        let (own, after) = rest.split_at(model.output_count().min(rest.len()));
                        models.push(own);
                        rest = after;
                    }
                    if let Some(members) = &mut members {
                        next_jpeg(members, (video, frame.0, face), &mut jpeg)?;
                    }
                    Content::Face {
                        face,
                        outputs: &models,
                    }
                }
                (RowStatus::NoFace, _) => Content::NoFace,
                _ => Content::DecodeError,
            };
            let row = Row {
                video,
                frame,
                timestamp,
                content,
            };
            show(&row, &jpeg)?;
        }
    }
    Ok(())
}

/// The next picture among the members, which must be this face's.
fn next_jpeg(
    members: &mut tar::Entries<'_, BufReader<File>>,
    (video, frame, face): (&VideoKey, u64, &Face),
    jpeg: &mut Vec<u8>,
) -> Result<(), String> {
    let wanted = SampleName {
        video: video.as_str(),
        frame,
        face: face.index,
        ending: "jpg",
    };
    for member in members {
        let mut member = member.map_err(|error| error.to_string())?;
        let path = member.path_bytes().into_owned();
        let name = std::str::from_utf8(&path).ok().and_then(SampleName::parse);
        if name.is_some_and(|name| name.ending != "jpg") {
            continue;
        }
        if name != Some(wanted) {
            break;
        }
        jpeg.clear();
        return member
            .read_to_end(jpeg)
            .map(|_| ())
            .map_err(|error| error.to_string());
    }
    Err(format!("its crops lack `{wanted}`"))
}
