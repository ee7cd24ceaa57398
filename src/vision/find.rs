//! Faces of successive frames: detected in batches, propagated between detections, tracked.
//!
//! In: frames in order, one video after the other. Out: the same frames in the same order, each with its faces.
//!
//! The detector runs on the first and last frame of every scene and on one in `detect_every` between them: the detection frames.
//! Boxes are interpolated between two detection frames when every face of one matches a face of the other, and each frame between
//! resembles one of the two inside the interpolated boxes. Otherwise the detector runs on every frame between. So a face that
//! appears, disappears or jumps is detected exactly; only one that appears and disappears between two detections can be missed.
//!
//! The faces of a frame depend only on its video, never on frames of other videos in the same batch.

use super::gpu::{CropError, GpuCropper};
use super::patch_similarity::PatchSimilarity;
use super::prepare::Preparer;
use super::track::{Tracker, interpolate, match_boxes};
use affectmill_base::TrackerState;
use affectmill_base::{Face, FrameIndex, Micros, Rect, Size};
use affectmill_media::decode::Picture;
use affectmill_nn::{DETECTOR_BATCH, DETECTOR_GRID, Detection, Detector, ModelError, Pictures};
use affectmill_spec::Faces;

/// Bytes of pictures that are buffered back for a batch that is not full.
const BUFFER_BYTES: usize = 256 << 20;
/// Minimum similarity of an interpolated box to one of the two detected faces.
const MIN_SIMILARITY: f32 = 0.6;

/// A sampled frame, before detection.
pub struct SampledFrame {
    /// Index of the video within the shard.
    pub video: usize,
    /// Frame index.
    pub frame: FrameIndex,
    /// Presentation time.
    pub timestamp: Option<Micros>,
    /// The picture; `None` when it is damaged.
    pub picture: Option<Picture>,
    /// Whether a scene cut precedes it.
    pub cut: bool,
}

/// A frame and its faces, the largest first.
pub struct FrameFaces {
    /// The frame.
    pub seen: SampledFrame,
    /// Its faces; none when it is damaged.
    pub faces: Vec<Face>,
}

/// Called before the detector runs on a batch, with the video and the frame of its oldest picture.
pub type OnDetect<'a> = &'a dyn Fn(usize, FrameIndex);

/// Detects and tracks faces.
pub struct Finder {
    detector: Detector,
    settings: Faces,
    preparer: Preparer,
    input: Vec<f32>,
    gpu: GpuCropper,
    tracker: Tracker,
    window: Vec<BufferedFrame>,
}

struct BufferedFrame {
    seen: SampledFrame,
    state: State,
    /// Whether a scene starts here, perhaps a video.
    begins: bool,
    /// Whether its faces have track ids.
    tracked: bool,
    /// The matching faces of the detection frame before, by face of this one, when boxes between are interpolated.
    matches: Option<Vec<usize>>,
}

enum State {
    /// Awaits the detector.
    Pending,
    /// Detected.
    Detected(Vec<Face>),
    /// Interpolated, or damaged.
    Other(Vec<Face>),
}

impl Finder {
    /// A finder with the settings of `[faces]`.
    pub fn new(detector: Detector, settings: Faces) -> Self {
        Self {
            detector,
            settings,
            preparer: Preparer::new(),
            input: Vec::new(),
            gpu: GpuCropper::default(),
            tracker: Tracker::default(),
            window: Vec::new(),
        }
    }

    /// Drops all frames, for another shard.
    pub fn clear(&mut self) {
        self.window.clear();
        self.tracker = Tracker::default();
    }

    /// The frame from which tracking can resume, with all earlier frames returned, and the tracker's state there; `None` when
    /// there is none now.
    pub fn resume_point(&self) -> Option<(FrameIndex, TrackerState)> {
        let first = self.window.first().filter(|buffered| buffered.tracked)?;
        Some((first.seen.frame, self.tracker.resume_point(first.faces())))
    }

    /// Resumes at a resume point, whose frame is `seen`.
    pub fn resume(&mut self, state: &TrackerState, seen: SampledFrame) {
        let (tracker, faces) = Tracker::resume(state);
        self.tracker = tracker;
        self.window = vec![BufferedFrame {
            state: State::Detected(faces),
            begins: true,
            seen,
            tracked: true,
            matches: None,
        }];
    }

    /// Adds a frame; returns the frames whose faces are complete.
    ///
    /// # Errors
    /// [`ModelError`] when the detector fails.
    pub fn push(
        &mut self,
        seen: SampledFrame,
        on_detect: OnDetect<'_>,
    ) -> Result<Vec<FrameFaces>, ModelError> {
        let mut faces = Vec::new();
        let before = self
            .window
            .iter()
            .rposition(|buffered| buffered.seen.picture.is_some());
        let begins = match (&seen.picture, before.map(|at| &self.window[at].seen)) {
            (Some(_), None) => true,
            (Some(picture), Some(last)) => {
                seen.cut
                    || seen.video != last.video
                    || last
                        .picture
                        .as_ref()
                        .is_none_or(|last| last.size() != picture.size())
            }
            (None, _) => false,
        };
        if begins && before.is_some() {
            faces = self.end_scene(on_detect)?;
        }
        let due = |earlier: &BufferedFrame| {
            seen.frame.0 - earlier.seen.frame.0 >= u64::from(self.settings.detect_every)
        };
        let is_detection = seen.picture.is_some()
            && (begins || self.last_detection().is_none_or(|at| due(&self.window[at])));
        self.window.push(BufferedFrame {
            state: if is_detection {
                State::Pending
            } else {
                State::Other(Vec::new())
            },
            begins,
            seen,
            tracked: false,
            matches: None,
        });
        if self.pending() >= DETECTOR_BATCH || self.is_heavy() {
            faces.extend(self.advance(on_detect)?);
        }
        Ok(faces)
    }

    /// Returns all buffered frames.
    ///
    /// # Errors
    /// [`ModelError`] when the detector fails.
    pub fn finish(&mut self, on_detect: OnDetect<'_>) -> Result<Vec<FrameFaces>, ModelError> {
        let mut faces = self.end_scene(on_detect)?;
        faces.extend(self.advance(on_detect)?);
        faces.extend(
            self.window
                .drain(..)
                .map(|buffered| buffered.into_faces(&self.settings)),
        );
        Ok(faces)
    }

    /// The last frame of a scene is looked at, so that those before it can be matches.
    fn end_scene(&mut self, on_detect: OnDetect<'_>) -> Result<Vec<FrameFaces>, ModelError> {
        let pictured = |buffered: &&mut BufferedFrame| buffered.seen.picture.is_some();
        if let Some(last) = self.window.iter_mut().rev().find(pictured)
            && matches!(last.state, State::Other(_))
        {
            last.state = State::Pending;
        }
        if self.pending() >= DETECTOR_BATCH {
            self.advance(on_detect)
        } else {
            Ok(Vec::new())
        }
    }

    fn last_detection(&self) -> Option<usize> {
        self.window.iter().rposition(BufferedFrame::is_detection)
    }

    fn pending(&self) -> usize {
        let is_pending = |buffered: &&BufferedFrame| matches!(buffered.state, State::Pending);
        self.window.iter().filter(is_pending).count()
    }

    /// Whether the frames up to the last detection frame exceed the memory limit and can be processed.
    fn is_heavy(&self) -> bool {
        let pictures = self
            .window
            .iter()
            .filter_map(|buffered| buffered.seen.picture.as_ref());
        pictures.map(Picture::bytes).sum::<usize>() > BUFFER_BYTES
            && self
                .window
                .iter()
                .filter(|buffered| buffered.is_detection())
                .count()
                > 1
    }

    /// Completes every frame up to the last detection frame, and returns them except that one, where the next interval starts.
    fn advance(&mut self, on_detect: OnDetect<'_>) -> Result<Vec<FrameFaces>, ModelError> {
        let Some(last) = self.last_detection() else {
            return Ok(Vec::new());
        };
        self.detect(on_detect)?;
        self.verify_propagation()?;
        self.detect(on_detect)?;
        for at in 0..=last {
            self.track(at);
        }
        let complete = self.window.drain(..last);
        Ok(complete
            .map(|buffered| buffered.into_faces(&self.settings))
            .collect())
    }

    /// Detects faces in every pending frame, in batches of one size.
    fn detect(&mut self, on_detect: OnDetect<'_>) -> Result<(), ModelError> {
        let is_pending = |buffered: &BufferedFrame| matches!(buffered.state, State::Pending);
        let mut pending: Vec<usize> = (0..self.window.len())
            .filter(|&at| is_pending(&self.window[at]))
            .collect();
        while let Some(&first) = pending.first() {
            let (size, place) = (self.input_size(first), self.on_gpu(first));
            let same = |at: &usize| self.input_size(*at) == size && self.on_gpu(*at) == place;
            let batch: Vec<usize> = pending
                .iter()
                .copied()
                .filter(same)
                .take(DETECTOR_BATCH)
                .collect();
            pending.retain(|at| !batch.contains(at));
            let oldest = &self.window[first].seen;
            on_detect(oldest.video, oldest.frame);
            let (width, height) = (size.width as usize, size.height as usize);
            let one = 3 * width * height;
            self.input.resize(batch.len() * one, 0.0);
            let mut on_gpu = Vec::new();
            for (&at, input) in batch.iter().zip(self.input.chunks_exact_mut(one)) {
                let Some(picture) = &self.window[at].seen.picture else {
                    continue;
                };
                match picture.gpu_picture() {
                    Some(gpu_picture) => {
                        let shrunk = self.gpu.shrink(picture, gpu_picture, size);
                        on_gpu.push(shrunk.map_err(CropError::of_model)?);
                    }
                    None => {
                        let shrunk = self.preparer.shrink(picture, size, input);
                        shrunk.map_err(|error| CropError::from(error).of_model())?;
                    }
                }
            }
            let pictures = if on_gpu.is_empty() {
                Pictures::Host(&self.input)
            } else {
                Pictures::Gpu(on_gpu)
            };
            let detections = self
                .detector
                .detect(&pictures, width, height, self.settings.min_score)?;
            for (at, detections) in batch.into_iter().zip(detections) {
                let buffered = &mut self.window[at];
                let Some(picture) = &buffered.seen.picture else {
                    continue;
                };
                let min_face = self.settings.min_face as f32;
                let faces = detections
                    .iter()
                    .filter_map(|detection| face(detection, size, picture, min_face));
                buffered.state = State::Detected(faces.collect());
            }
        }
        Ok(())
    }

    fn on_gpu(&self, at: usize) -> bool {
        let picture = self.window[at].seen.picture.as_ref();
        picture.is_some_and(|picture| picture.gpu_picture().is_some())
    }

    /// Size of the detector's input for a frame: at most `detect_size`, with square pixels, sides rounded up to the network's grid
    /// as in the published code.
    fn input_size(&self, at: usize) -> Size {
        let picture = self.window[at].seen.picture.as_ref();
        let (size, aspect) = picture.map_or((Size { width: 1, height: 1 }, 1.0), |picture| {
            (picture.size(), picture.pixel_aspect())
        });
        let (width, height) = (f64::from(size.width) * aspect, f64::from(size.height));
        let scale = (f64::from(self.settings.detect_size) / width.max(height)).min(1.0);
        let grid = DETECTOR_GRID as u32;
        let side = |length: f64| ((length * scale).round().max(1.0) as u32).next_multiple_of(grid);
        Size {
            width: side(width),
            height: side(height),
        }
    }

    /// Decides for each stretch between two detections of a scene whether its frames are matches; those of the others become
    /// detections.
    fn verify_propagation(&mut self) -> Result<(), ModelError> {
        let detections: Vec<usize> = (0..self.window.len())
            .filter(|&at| self.window[at].is_detection())
            .collect();
        for pair in detections.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            let inner = |buffered: &BufferedFrame| buffered.seen.picture.is_some();
            if self.window[b].begins || !self.window[a + 1..b].iter().any(inner) {
                continue;
            }
            match self.matches(a, b)? {
                Some(pairs) => self.window[b].matches = Some(pairs),
                None => {
                    for buffered in &mut self.window[a + 1..b] {
                        if buffered.seen.picture.is_some() {
                            buffered.state = State::Pending;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The faces of `a` that match `b`'s, when each frame between resembles them inside the interpolated boxes.
    fn matches(&self, a: usize, b: usize) -> Result<Option<Vec<usize>>, ModelError> {
        let (first, last) = (self.window[a].faces(), self.window[b].faces());
        let Some(pairs) = match_boxes(first, last) else {
            return Ok(None);
        };
        let patch = |at: usize, rect: Rect| match &self.window[at].seen.picture {
            Some(picture) => PatchSimilarity::of(picture, rect.within(picture.size())),
            None => Ok(PatchSimilarity::default()),
        };
        for (to, &from) in last.iter().zip(&pairs) {
            let from = &first[from];
            let (start, end) = (patch(a, from.rect)?, patch(b, to.rect)?);
            for at in a + 1..b {
                if self.window[at].seen.picture.is_none() {
                    continue;
                }
                let between = patch(at, interpolate(from, to, self.share(a, at, b)).rect)?;
                if between.with(&start).max(between.with(&end)) < MIN_SIMILARITY {
                    return Ok(None);
                }
            }
        }
        Ok(Some(pairs))
    }

    /// Position of frame `at` between `a` and `b`, 0 to 1.
    fn share(&self, a: usize, at: usize, b: usize) -> f32 {
        let frame = |at: usize| self.window[at].seen.frame.0;
        (frame(at) - frame(a)) as f32 / (frame(b) - frame(a)) as f32
    }

    /// Assigns tracks to the faces of a detection frame, and interpolates the faces of the frames since the previous one.
    fn track(&mut self, at: usize) {
        if !self.window[at].is_detection() || self.window[at].tracked {
            return;
        }
        let video = |at: usize| self.window[at].seen.video;
        let before = self.window[..at].iter().rposition(BufferedFrame::is_detection);
        if self.window[at].begins {
            match before {
                Some(before) if video(before) == video(at) => self.tracker.cut(),
                _ => self.tracker = Tracker::default(),
            }
        }
        let matches = self.window[at].matches.take();
        let mut faces = self.window[at].faces().to_vec();
        let frame = self.window[at].seen.frame.0;
        if let (Some(pairs), Some(before)) = (matches, before) {
            let first = self.window[before].faces().to_vec();
            for (face, &from) in faces.iter_mut().zip(&pairs) {
                face.track = first[from].track;
            }
            self.tracker.update(frame, &faces);
            for inner in before + 1..at {
                let share = self.share(before, inner, at);
                let buffered = &mut self.window[inner];
                if let Some(picture) = &buffered.seen.picture {
                    let size = picture.size();
                    let interpolated = faces.iter().zip(&pairs).map(|(to, &from)| {
                        let face = interpolate(&first[from], to, share);
                        Face {
                            rect: face.rect.within(size),
                            ..face
                        }
                    });
                    buffered.state = State::Other(interpolated.collect());
                }
            }
        } else {
            self.tracker.step(frame, &mut faces);
        }
        self.window[at].state = State::Detected(faces);
        self.window[at].tracked = true;
    }
}

impl BufferedFrame {
    fn is_detection(&self) -> bool {
        matches!(self.state, State::Pending | State::Detected(_))
    }

    fn faces(&self) -> &[Face] {
        match &self.state {
            State::Pending => &[],
            State::Detected(faces) | State::Other(faces) => faces,
        }
    }

    /// The largest faces, at most as many as the settings allow.
    fn into_faces(self, settings: &Faces) -> FrameFaces {
        let mut faces = match self.state {
            State::Pending => Vec::new(),
            State::Detected(faces) | State::Other(faces) => faces,
        };
        faces.sort_by(|a, b| {
            let area = |face: &Face| face.rect.w * face.rect.h;
            let place = |face: &Face| (face.rect.x, face.rect.y);
            area(b)
                .total_cmp(&area(a))
                .then(place(a).0.total_cmp(&place(b).0))
                .then(place(a).1.total_cmp(&place(b).1))
        });
        faces.truncate(settings.max_faces.map_or(usize::MAX, |most| most as usize));
        for (index, face) in faces.iter_mut().enumerate() {
            face.index = index as i32;
        }
        FrameFaces {
            seen: self.seen,
            faces,
        }
    }
}

/// A detection in pixels of the displayed picture; `None` when it is smaller than `min_face`.
fn face(detection: &Detection, input: Size, picture: &Picture, min_face: f32) -> Option<Face> {
    let size = picture.size();
    let across = size.width as f32 / input.width as f32;
    let down = size.height as f32 / input.height as f32;
    let [left, top, right, bottom] = detection.corners;
    let rect = Rect {
        x: left * across,
        y: top * down,
        w: (right - left) * across,
        h: (bottom - top) * down,
    };
    let rect = rect.within(size);
    let mut landmarks = detection.landmarks;
    for point in landmarks.as_chunks_mut::<2>().0 {
        point[0] *= across;
        point[1] *= down;
    }
    // Landmarks that all coincide define no alignment.
    let [x, y] = [landmarks[0], landmarks[1]];
    let apart = landmarks.as_chunks::<2>().0.iter().any(|point| *point != [x, y]);
    let large = rect.w > 0.0 && rect.h > 0.0 && rect.w.min(rect.h) >= min_face;
    (large && apart).then_some(Face {
        index: 0,
        track: None,
        rect,
        score: Some(detection.score),
        landmarks: Some(landmarks),
    })
}
