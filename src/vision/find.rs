//! Faces of frame after frame: detected in batches, carried between detections, followed.
//!
//! Flows in: frames in order, of one video after the other. Flows out: the same frames in the same order, each with its faces.
//!
//! The detector looks at the first and last frame of every scene and at one in `detect_every` between them. Where every
//! face of one such frame has its counterpart in the next, and each frame between looks, in the boxes on the straight way,
//! like one of the two, the boxes on the way stand; elsewhere the detector looks at every frame. So a face that comes, goes or
//! jumps is seen exactly; what can be missed is a face that comes and goes between two looks.
//!
//! What is found in a frame depends on its video alone, never on the frames of other videos in the same batch.

use super::follow::{Tracker, interpolate, match_boxes};
use super::gpu::{CropError, GpuCropper};
use super::patch_similarity::PatchSimilarity;
use super::prepare::Preparer;
use affectmill_base::TrackerState;
use affectmill_base::{Face, FrameIndex, Micros, Rect, Size};
use affectmill_media::decode::Picture;
use affectmill_nn::{DETECTOR_BATCH, DETECTOR_GRID, Detection, Detector, ModelError, Pictures};
use affectmill_spec::Faces;

/// Bytes of pictures that are held back for a batch that is not full.
const HELD_BYTES: usize = 256 << 20;
/// Least likeness of a carried box to the face it is carried from or to.
const ALIKE: f32 = 0.6;

/// A frame on its way.
pub struct SampledFrame {
    /// Index of the video within the shard.
    pub video: usize,
    /// Frame.
    pub frame: FrameIndex,
    /// Its time.
    pub timestamp: Option<Micros>,
    /// `None`: damaged.
    pub picture: Option<Picture>,
    /// A scene cut lies between it and the frame before.
    pub cut: bool,
}

/// A frame and its faces, the largest first.
pub struct FrameFaces {
    /// The frame.
    pub seen: SampledFrame,
    /// Its faces; none when it is damaged.
    pub faces: Vec<Face>,
}

/// Called before the detector looks at a batch, with the video and the frame of its oldest picture.
pub type Looking<'a> = &'a dyn Fn(usize, FrameIndex);

/// Finds and follows faces.
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
    /// A scene, and perhaps a video, begins here.
    begins: bool,
    /// Faces have their tracks.
    followed: bool,
    /// The faces of the key before that these are counterparts of, when those between are carried.
    carried: Option<Vec<usize>>,
}

enum State {
    /// To be detected.
    Key,
    /// Detected.
    Known(Vec<Face>),
    /// Carried, or damaged.
    Other(Vec<Face>),
}

impl Finder {
    /// Takes the detector and the settings of `[faces]`.
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

    /// Forgets all frames: another shard begins.
    pub fn clear(&mut self) {
        self.window.clear();
        self.tracker = Tracker::default();
    }

    /// The frame at which all that is known of the frames before it is told and little is held back, and that little; `None`
    /// where there is none now.
    pub fn resume_point(&self) -> Option<(FrameIndex, TrackerState)> {
        let first = self.window.first().filter(|held| held.followed)?;
        Some((first.seen.frame, self.tracker.resume_point(first.faces())))
    }

    /// Goes on at a resume point, whose frame this is.
    pub fn resume(&mut self, following: &TrackerState, seen: SampledFrame) {
        let (tracker, faces) = Tracker::resume(following);
        self.tracker = tracker;
        self.window = vec![BufferedFrame {
            state: State::Known(faces),
            begins: true,
            seen,
            followed: true,
            carried: None,
        }];
    }

    /// Takes a frame, returns those whose faces are now known.
    ///
    /// # Errors
    /// [`ModelError`] when the detector fails.
    pub fn push(&mut self, seen: SampledFrame, looking: Looking<'_>) -> Result<Vec<FrameFaces>, ModelError> {
        let mut found = Vec::new();
        let before = self.window.iter().rposition(|held| held.seen.picture.is_some());
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
            found = self.end_scene(looking)?;
        }
        let due =
            |key: &BufferedFrame| seen.frame.0 - key.seen.frame.0 >= u64::from(self.settings.detect_every);
        let key =
            seen.picture.is_some() && (begins || self.last_key().is_none_or(|at| due(&self.window[at])));
        self.window.push(BufferedFrame {
            state: if key { State::Key } else { State::Other(Vec::new()) },
            begins,
            seen,
            followed: false,
            carried: None,
        });
        if self.waiting() >= DETECTOR_BATCH || self.is_heavy() {
            found.extend(self.advance(looking)?);
        }
        Ok(found)
    }

    /// Returns all frames that were held back.
    ///
    /// # Errors
    /// [`ModelError`] when the detector fails.
    pub fn finish(&mut self, looking: Looking<'_>) -> Result<Vec<FrameFaces>, ModelError> {
        let mut found = self.end_scene(looking)?;
        found.extend(self.advance(looking)?);
        found.extend(self.window.drain(..).map(|held| held.found(&self.settings)));
        Ok(found)
    }

    /// The last frame of a scene is looked at, so that those before it can be carried.
    fn end_scene(&mut self, looking: Looking<'_>) -> Result<Vec<FrameFaces>, ModelError> {
        let pictured = |held: &&mut BufferedFrame| held.seen.picture.is_some();
        if let Some(last) = self.window.iter_mut().rev().find(pictured)
            && matches!(last.state, State::Other(_))
        {
            last.state = State::Key;
        }
        if self.waiting() >= DETECTOR_BATCH {
            self.advance(looking)
        } else {
            Ok(Vec::new())
        }
    }

    fn last_key(&self) -> Option<usize> {
        self.window.iter().rposition(BufferedFrame::is_key)
    }

    fn waiting(&self) -> usize {
        let waits = |held: &&BufferedFrame| matches!(held.state, State::Key);
        self.window.iter().filter(waits).count()
    }

    /// The frames up to the last key take more memory than they should, and can go.
    fn is_heavy(&self) -> bool {
        let pictures = self.window.iter().filter_map(|held| held.seen.picture.as_ref());
        pictures.map(Picture::bytes).sum::<usize>() > HELD_BYTES
            && self.window.iter().filter(|held| held.is_key()).count() > 1
    }

    /// Settles every frame up to the last key, and returns them save that key, where the next stretch begins.
    fn advance(&mut self, looking: Looking<'_>) -> Result<Vec<FrameFaces>, ModelError> {
        let Some(last) = self.last_key() else {
            return Ok(Vec::new());
        };
        self.detect(looking)?;
        self.verify_propagation()?;
        self.detect(looking)?;
        for at in 0..=last {
            self.follow(at);
        }
        let settled = self.window.drain(..last);
        Ok(settled.map(|held| held.found(&self.settings)).collect())
    }

    /// Looks at every key that waits, those of one size together.
    fn detect(&mut self, looking: Looking<'_>) -> Result<(), ModelError> {
        let waits = |held: &BufferedFrame| matches!(held.state, State::Key);
        let mut waiting: Vec<usize> = (0..self.window.len())
            .filter(|&at| waits(&self.window[at]))
            .collect();
        while let Some(&first) = waiting.first() {
            let (size, place) = (self.input_size(first), self.on_gpu(first));
            let same = |at: &usize| self.input_size(*at) == size && self.on_gpu(*at) == place;
            let batch: Vec<usize> = waiting
                .iter()
                .copied()
                .filter(same)
                .take(DETECTOR_BATCH)
                .collect();
            waiting.retain(|at| !batch.contains(at));
            let oldest = &self.window[first].seen;
            looking(oldest.video, oldest.frame);
            let (width, height) = (size.width as usize, size.height as usize);
            let one = 3 * width * height;
            self.input.resize(batch.len() * one, 0.0);
            let mut on_gpu = Vec::new();
            for (&at, input) in batch.iter().zip(self.input.chunks_exact_mut(one)) {
                let Some(picture) = &self.window[at].seen.picture else {
                    continue;
                };
                match picture.surface() {
                    Some(surface) => {
                        let shrunk = self.gpu.shrink(picture, surface, size);
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
                let held = &mut self.window[at];
                let Some(picture) = &held.seen.picture else {
                    continue;
                };
                let min_face = self.settings.min_face as f32;
                let faces = detections
                    .iter()
                    .filter_map(|detection| face(detection, size, picture, min_face));
                held.state = State::Known(faces.collect());
            }
        }
        Ok(())
    }

    fn on_gpu(&self, at: usize) -> bool {
        let picture = self.window[at].seen.picture.as_ref();
        picture.is_some_and(|picture| picture.surface().is_some())
    }

    /// What the detector sees of a frame: no larger than `detect_size`, pixels made square, sides stretched to the
    /// network's grid as the published code does.
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

    /// Decides for each stretch between two keys of a scene whether its frames are carried; those of the others become
    /// keys.
    fn verify_propagation(&mut self) -> Result<(), ModelError> {
        let keys: Vec<usize> = (0..self.window.len())
            .filter(|&at| self.window[at].is_key())
            .collect();
        for pair in keys.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            let inner = |held: &BufferedFrame| held.seen.picture.is_some();
            if self.window[b].begins || !self.window[a + 1..b].iter().any(inner) {
                continue;
            }
            match self.carried(a, b)? {
                Some(pairs) => self.window[b].carried = Some(pairs),
                None => {
                    for held in &mut self.window[a + 1..b] {
                        if held.seen.picture.is_some() {
                            held.state = State::Key;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The counterparts of `b`'s faces among those of `a`, when the frames between show them on the straight way.
    fn carried(&self, a: usize, b: usize) -> Result<Option<Vec<usize>>, ModelError> {
        let (first, last) = (self.window[a].faces(), self.window[b].faces());
        let Some(pairs) = match_boxes(first, last) else {
            return Ok(None);
        };
        let look = |at: usize, rect: Rect| match &self.window[at].seen.picture {
            Some(picture) => PatchSimilarity::of(picture, rect.within(picture.size())),
            None => Ok(PatchSimilarity::default()),
        };
        for (to, &from) in last.iter().zip(&pairs) {
            let from = &first[from];
            let (start, end) = (look(a, from.rect)?, look(b, to.rect)?);
            for at in a + 1..b {
                if self.window[at].seen.picture.is_none() {
                    continue;
                }
                let way = look(at, interpolate(from, to, self.share(a, at, b)).rect)?;
                if way.with(&start).max(way.with(&end)) < ALIKE {
                    return Ok(None);
                }
            }
        }
        Ok(Some(pairs))
    }

    /// How far frame `at` lies between `a` and `b`.
    fn share(&self, a: usize, at: usize, b: usize) -> f32 {
        let frame = |at: usize| self.window[at].seen.frame.0;
        (frame(at) - frame(a)) as f32 / (frame(b) - frame(a)) as f32
    }

    /// Gives the faces of a key their tracks, and the frames since the key before their faces.
    fn follow(&mut self, at: usize) {
        if !self.window[at].is_key() || self.window[at].followed {
            return;
        }
        let video = |at: usize| self.window[at].seen.video;
        let before = self.window[..at].iter().rposition(BufferedFrame::is_key);
        if self.window[at].begins {
            match before {
                Some(before) if video(before) == video(at) => self.tracker.cut(),
                _ => self.tracker = Tracker::default(),
            }
        }
        let carried = self.window[at].carried.take();
        let mut faces = self.window[at].faces().to_vec();
        let frame = self.window[at].seen.frame.0;
        if let (Some(pairs), Some(before)) = (carried, before) {
            let first = self.window[before].faces().to_vec();
            for (face, &from) in faces.iter_mut().zip(&pairs) {
                face.track = first[from].track;
            }
            self.tracker.carry(frame, &faces);
            for inner in before + 1..at {
                let share = self.share(before, inner, at);
                let held = &mut self.window[inner];
                if let Some(picture) = &held.seen.picture {
                    let size = picture.size();
                    let on_way = faces.iter().zip(&pairs).map(|(to, &from)| {
                        let face = interpolate(&first[from], to, share);
                        Face {
                            rect: face.rect.within(size),
                            ..face
                        }
                    });
                    held.state = State::Other(on_way.collect());
                }
            }
        } else {
            self.tracker.step(frame, &mut faces);
        }
        self.window[at].state = State::Known(faces);
        self.window[at].followed = true;
    }
}

impl BufferedFrame {
    fn is_key(&self) -> bool {
        matches!(self.state, State::Key | State::Known(_))
    }

    fn faces(&self) -> &[Face] {
        match &self.state {
            State::Key => &[],
            State::Known(faces) | State::Other(faces) => faces,
        }
    }

    /// The largest faces first, as many as are wanted.
    fn found(self, settings: &Faces) -> FrameFaces {
        let mut faces = match self.state {
            State::Key => Vec::new(),
            State::Known(faces) | State::Other(faces) => faces,
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
    // Points that fall on one another align nothing.
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
