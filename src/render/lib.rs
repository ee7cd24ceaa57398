//! `affectmill render`: labels drawn into their video, and a contact sheet of it.
//!
//! Flows in: a [`Task`], that is one video and where its rows lie. Flows out: an H.264 file with the source's sound, frames
//! at the source's times, and a PNG. Labels are matched to frames by their presentation index, and a frame whose time is
//! not its label's ends it: that is another video. Runs in a process of its own, since the video's bytes meet FFmpeg here.

mod apart;
mod canvas;
mod find;
mod labels;
mod overlay;
mod sheet;

pub use apart::{ApartError, have_drawn, serve};
pub use find::{FindError, Found, find};
pub use labels::left_out;

use affectmill_base::SourceKind;
use affectmill_base::{Micros, Size, VideoKey};
use affectmill_base::{WriteError, write_atomic};
use affectmill_labelset::JobRecord;
use affectmill_media::decode::{DecodeError, DecodeOptions, DecodedFrame, Picture, VideoReader};
use affectmill_media::encode::{EncodeError, Format, VideoWriter};
use affectmill_vision::{PrepareError, Preparer};
use canvas::Canvas;
use labels::{FrameLabels, LabelReader};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Time of a frame without one: as if there were 25 a second.
const USUAL: i64 = 40_000;
/// Pixels of the shorter side below which figures beside a face would cover the picture.
const SMALLEST: u32 = 288;
/// Frames from one word of progress to the next.
const TELL_EVERY: u64 = 25;

/// What is to be drawn.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    /// The job that the labels were made by.
    pub job: JobRecord,
    /// The video's key.
    pub key: VideoKey,
    /// Where it lies.
    pub video: PathBuf,
    /// File or folder of images.
    pub kind: SourceKind,
    /// Frames that it gave when it was labelled.
    pub frames: u64,
    /// Its duration in µs; 0 when unknown.
    pub duration_us: u64,
    /// Its part.
    pub part: PathBuf,
    /// Its first row there.
    pub first_row: u64,
    /// How many it has.
    pub rows: u64,
    /// The model to show, where it has the task.
    pub model: Option<String>,
    /// The video to write.
    pub film: Option<PathBuf>,
    /// The contact sheet to write, and its number of frames.
    pub sheet: Option<(PathBuf, u64)>,
}

/// Why nothing came out.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The video.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// What is written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A picture cannot be brought to its size.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The sheet.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The sheet cannot be encoded.
    #[error("the contact sheet cannot be encoded: {0}; ask for fewer frames")]
    Png(#[from] png::EncodingError),
    /// The rows cannot be read.
    #[error("{}: cannot be read as labels: {cause}; compare it with its checksum in _affectmill/commits", .part.display())]
    Part {
        /// The part.
        part: PathBuf,
        /// Why.
        cause: String,
    },
    /// The labels are another video's.
    #[error("{}: is not the video that was labelled as `{key}`: {cause}; name that one", .video.display())]
    Other {
        /// The video.
        video: PathBuf,
        /// The key.
        key: VideoKey,
        /// Where they differ.
        cause: String,
    },
}

/// Draws; returns the number of frames. `told` hears of every so many, and says whether to go on.
///
/// # Errors
/// [`RenderError`]: the video or its rows cannot be read, do not belong together, or nothing can be written.
pub fn draw(task: &Task, told: &mut dyn FnMut(u64) -> bool) -> Result<u64, RenderError> {
    let input = &task.job.job.input;
    let options = DecodeOptions {
        threads: 0,
        image_base: input.image_base,
        image_fps: input.image_fps,
        max_pixels: input.max_pixels,
        max_frames: input.max_frames,
        nvdec: None,
    };
    let mut reader = VideoReader::open(&task.video, task.kind, &options)?;
    let mut labels = LabelReader::new(
        &task.job,
        task.part.clone(),
        task.first_row,
        task.rows,
        task.model.as_deref(),
    );
    let note = note(&labels);
    let mut film: Option<Film> = None;
    let mut sheet = task
        .sheet
        .as_ref()
        .map(|(path, count)| Sheet::new(path, sheet::chosen(task.frames, *count)));
    let mut preparer = Preparer::new();
    let (mut current, mut coming) = (FrameLabels::default(), labels.next()?);
    let (mut frames, mut last) = (0, None);
    while let Some(frame) = reader.next()? {
        if coming
            .as_ref()
            .is_some_and(|labels| labels.frame as u64 == frame.index.0)
        {
            current = coming.take().unwrap_or_default();
            same_time(task, &current, &frame)?;
            coming = labels.next()?;
        }
        let at = frame
            .timestamp
            .unwrap_or(Micros(last.map_or(0, |Micros(last)| last + USUAL)));
        last = Some(at);
        if let Some(path) = &task.film {
            if film.is_none()
                && let Some(picture) = &frame.picture
            {
                film = Some(Film::begin(path, task, picture)?);
            }
            if let Some(film) = &mut film {
                film.add(&mut preparer, frame.picture.as_ref(), &current, &note, at)?;
            }
        }
        if let (Some(sheet), Some(picture)) = (&mut sheet, &frame.picture) {
            sheet.offer(frame.index.0, picture, &current, at)?;
        }
        frames += 1;
        if frames % TELL_EVERY == 0 && !told(frames) {
            return Ok(frames);
        }
    }
    if let Some(left) = coming {
        return Err(other(
            task,
            format!(
                "it has {frames} frames, and there is a label of frame {}",
                left.frame
            ),
        ));
    }
    if task.film.is_some() && film.is_none() {
        return Err(other(task, "not one of its frames could be decoded whole".into()));
    }
    film.map_or(Ok(()), Film::end)?;
    sheet.map_or(Ok(()), |sheet| sheet.end())?;
    Ok(frames)
}

/// Whose labels are shown; the frame says when they mean nothing.
fn note(labels: &LabelReader) -> String {
    let name = |(name, untrained): (&str, bool)| {
        if untrained {
            format!("{name} (UNTRAINED)")
        } else {
            name.to_owned()
        }
    };
    labels
        .speakers()
        .into_iter()
        .map(name)
        .collect::<Vec<_>>()
        .join(", ")
}

fn other(task: &Task, cause: String) -> RenderError {
    RenderError::Other {
        video: task.video.clone(),
        key: task.key.clone(),
        cause,
    }
}

fn same_time(task: &Task, labels: &FrameLabels, frame: &DecodedFrame) -> Result<(), RenderError> {
    let (label, own) = (labels.timestamp_us, frame.timestamp.map(|time| time.0));
    let say = |time: Option<i64>| time.map_or("no time".into(), |time| format!("{:.6} s", time as f64 / 1e6));
    if label == own {
        return Ok(());
    }
    Err(other(
        task,
        format!(
            "frame {} is at {}, its label at {}",
            frame.index,
            say(own),
            say(label)
        ),
    ))
}

/// The labels on a picture that is `to` instead of `from` pixels large.
fn scaled(labels: &FrameLabels, from: Size, to: Size) -> FrameLabels {
    let (across, down) = (
        to.width as f32 / from.width as f32,
        to.height as f32 / from.height as f32,
    );
    let mut labels = labels.clone();
    for face in &mut labels.faces {
        let rect = &mut face.rect;
        (rect.x, rect.w) = (rect.x * across, rect.w * across);
        (rect.y, rect.h) = (rect.y * down, rect.h * down);
    }
    labels
}

/// Brings a picture to the canvas' size and draws its labels on it.
fn paint(
    canvas: &mut Canvas,
    planes: &mut Vec<f32>,
    preparer: &mut Preparer,
    picture: &Picture,
    labels: &FrameLabels,
    note: &str,
) -> Result<(), RenderError> {
    let size = canvas.size();
    planes.resize(size.width as usize * size.height as usize * 3, 0.0);
    preparer.shrink(picture, size, planes)?;
    canvas.fill(planes);
    overlay::draw(canvas, &scaled(labels, picture.size(), size), note);
    Ok(())
}

/// The size that labels can be read at: a multiple of a small picture's own.
fn enlarged(size: Size) -> Size {
    let (shorter, longer) = (size.width.min(size.height).max(1), size.width.max(size.height));
    let times = SMALLEST
        .div_ceil(shorter)
        .min(4 * SMALLEST / longer.max(1))
        .max(1);
    Size {
        width: size.width * times,
        height: size.height * times,
    }
}

/// The video under way.
struct Film {
    writer: VideoWriter,
    canvas: Canvas,
    planes: Vec<f32>,
}

impl Film {
    fn begin(path: &Path, task: &Task, picture: &Picture) -> Result<Self, RenderError> {
        let rate = match task.duration_us {
            0 => 1e6 / USUAL as f64,
            duration => (task.frames as f64 * 1e6 / duration as f64).clamp(1.0, 240.0),
        };
        let size = enlarged(picture.size());
        let format = Format {
            size,
            pixel_aspect: picture.pixel_aspect(),
            rate,
        };
        let sound = (task.kind == SourceKind::File).then_some(task.video.as_path());
        Ok(Self {
            writer: VideoWriter::create(path, &format, sound)?,
            canvas: Canvas::new(size),
            planes: Vec::new(),
        })
    }

    /// A frame that could not be decoded whole shows the one before.
    fn add(
        &mut self,
        preparer: &mut Preparer,
        picture: Option<&Picture>,
        labels: &FrameLabels,
        note: &str,
        at: Micros,
    ) -> Result<(), RenderError> {
        if let Some(picture) = picture {
            paint(
                &mut self.canvas,
                &mut self.planes,
                preparer,
                picture,
                labels,
                note,
            )?;
        }
        Ok(self.writer.write(self.canvas.rgb(), at)?)
    }

    fn end(self) -> Result<(), RenderError> {
        Ok(self.writer.finish()?)
    }
}

/// The contact sheet under way.
struct Sheet<'a> {
    path: &'a Path,
    /// Frames still to come, the next one last.
    wanted: Vec<u64>,
    tiles: Vec<Canvas>,
    preparer: Preparer,
    planes: Vec<f32>,
}

impl<'a> Sheet<'a> {
    fn new(path: &'a Path, mut wanted: Vec<u64>) -> Self {
        wanted.reverse();
        Self {
            path,
            wanted,
            tiles: Vec::new(),
            preparer: Preparer::new(),
            planes: Vec::new(),
        }
    }

    /// Takes the frame if it is the next one wanted, or the first after it that could be decoded.
    fn offer(
        &mut self,
        frame: u64,
        picture: &Picture,
        labels: &FrameLabels,
        at: Micros,
    ) -> Result<(), RenderError> {
        if self.wanted.last().is_none_or(|wanted| frame < *wanted) {
            return Ok(());
        }
        while self.wanted.last().is_some_and(|wanted| *wanted <= frame) {
            self.wanted.pop();
        }
        let first = self.tiles.first().map(Canvas::size);
        let mut canvas =
            Canvas::new(first.unwrap_or_else(|| sheet::tile(picture.size(), picture.pixel_aspect())));
        let note = format!("{:.2} s", at.0 as f64 / 1e6);
        paint(
            &mut canvas,
            &mut self.planes,
            &mut self.preparer,
            picture,
            labels,
            &note,
        )?;
        self.tiles.push(canvas);
        Ok(())
    }

    fn end(&self) -> Result<(), RenderError> {
        Ok(write_atomic(self.path, &sheet::png(&self.tiles)?)?)
    }
}
