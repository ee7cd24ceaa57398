//! Rows gathered into columns.

use super::Row;
use super::numbers::Numbers;
use crate::schema::{FIXED_COLUMNS, LabelSchema, landmark_item};
use affectmill_base::{EXPRESSIONS, Face, RowStatus};
use arrow::array::{
    ArrayRef, DictionaryArray, FixedSizeListBuilder, Float32Array, Float32Builder, Int32Array, Int64Array,
    RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use arrow::error::ArrowError;
use std::sync::Arc;

/// The rows of one batch.
pub(super) struct Columns {
    /// Different videos, in order.
    videos: Vec<String>,
    /// Index into `videos`.
    video: Vec<i32>,
    frame: Vec<i64>,
    timestamp: Vec<Option<i64>>,
    /// Index into [`RowStatus::ALL`].
    status: Vec<i32>,
    face: Vec<Option<i32>>,
    track: Vec<Option<i32>>,
    /// `box_x box_y box_w box_h face_score`.
    place: [Vec<Option<f32>>; 5],
    landmarks: FixedSizeListBuilder<Float32Builder>,
    /// The models' `float32` columns, in schema order.
    floats: Vec<Vec<Option<f32>>>,
    /// The models' `expression` columns, in schema order: index into [`EXPRESSIONS`].
    classes: Vec<Vec<Option<i32>>>,
}

impl Columns {
    pub(super) fn new(schema: &LabelSchema) -> Self {
        let of_models = schema.of_models();
        let floats = of_models
            .iter()
            .filter(|field| *field.data_type() == DataType::Float32)
            .count();
        Self {
            videos: Vec::new(),
            video: Vec::new(),
            frame: Vec::new(),
            timestamp: Vec::new(),
            status: Vec::new(),
            face: Vec::new(),
            track: Vec::new(),
            place: Default::default(),
            landmarks: FixedSizeListBuilder::new(Float32Builder::new(), 10).with_field(landmark_item()),
            floats: vec![Vec::new(); floats],
            classes: vec![Vec::new(); of_models.len() - floats],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.frame.len()
    }

    /// Adds a row; `numbers` is empty when there is no face.
    pub(super) fn push(&mut self, row: &Row<'_>, frame: i64, face: Option<&Face>, numbers: &Numbers) {
        if self.videos.last().is_none_or(|last| last != row.video.as_str()) {
            self.videos.push(row.video.as_str().into());
        }
        self.video.push(self.videos.len() as i32 - 1);
        self.frame.push(frame);
        self.timestamp.push(row.timestamp.map(|at| at.0));
        self.status.push(row.content.status() as i32);
        self.face.push(face.map(|face| face.index));
        self.track.push(face.and_then(|face| face.track));
        let place = face.map_or([None; 5], |Face { rect, score, .. }| {
            [Some(rect.x), Some(rect.y), Some(rect.w), Some(rect.h), *score]
        });
        for (column, number) in self.place.iter_mut().zip(place) {
            column.push(number);
        }
        let landmarks = face.and_then(|face| face.landmarks);
        match landmarks {
            Some(points) => self.landmarks.values().append_slice(&points),
            None => self.landmarks.values().append_nulls(10),
        }
        self.landmarks.append(landmarks.is_some());
        for (at, column) in self.floats.iter_mut().enumerate() {
            column.push(numbers.floats.get(at).copied().flatten());
        }
        for (at, column) in self.classes.iter_mut().enumerate() {
            column.push(numbers.classes.get(at).copied().flatten());
        }
    }

    /// The rows as a batch; empties the columns.
    pub(super) fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let videos = StringArray::from(std::mem::take(&mut self.videos));
        let statuses = StringArray::from_iter_values(RowStatus::ALL.map(RowStatus::as_str));
        let classes = Arc::new(StringArray::from_iter_values(EXPRESSIONS));
        let mut columns: Vec<ArrayRef> = vec![
            dictionary(take(&mut self.video), Arc::new(videos))?,
            Arc::new(Int64Array::from(take(&mut self.frame))),
            Arc::new(Int64Array::from(take(&mut self.timestamp))),
            dictionary(take(&mut self.status), Arc::new(statuses))?,
            Arc::new(Int32Array::from(take(&mut self.face))),
            Arc::new(Int32Array::from(take(&mut self.track))),
        ];
        for column in &mut self.place {
            columns.push(Arc::new(Float32Array::from(take(column))));
        }
        columns.push(Arc::new(self.landmarks.finish()));
        let (mut floats, mut names) = (self.floats.iter_mut(), self.classes.iter_mut());
        for field in &schema.fields()[FIXED_COLUMNS..] {
            let column: Option<ArrayRef> = if *field.data_type() == DataType::Float32 {
                floats
                    .next()
                    .map(|column| Arc::new(Float32Array::from(take(column))) as ArrayRef)
            } else {
                names
                    .next()
                    .map(|column| dictionary(take(column), classes.clone()))
                    .transpose()?
            };
            columns.extend(column);
        }
        RecordBatch::try_new(schema.clone(), columns)
    }
}

/// Leaves an empty column of the same capacity.
fn take<T>(column: &mut Vec<T>) -> Vec<T> {
    let capacity = column.capacity();
    std::mem::replace(column, Vec::with_capacity(capacity))
}

fn dictionary<K>(keys: Vec<K>, values: Arc<StringArray>) -> Result<ArrayRef, ArrowError>
where
    Int32Array: From<Vec<K>>,
{
    let array = DictionaryArray::<Int32Type>::try_new(Int32Array::from(keys), values)?;
    Ok(Arc::new(array))
}
