//! Whether the models give numbers.
//!
//! One face for which a model gives NaN or an infinity costs that face its labels. A model that does so for most faces is
//! broken, or its arithmetic too narrow, and the run ends before it has labelled a collection with nothing.

use super::PipelineError;
use affectmill_base::VideoKey;
use affectmill_labelset::rows::is_finite;

/// Fewer faces tell too little of a model.
const FACES: u64 = 1_000;
/// A single video may be at fault itself.
const VIDEOS: u64 = 2;

/// What a worker has seen of its models since it began.
pub(super) struct Soundness {
    /// Name of each model, and the faces for which it gave no numbers.
    models: Vec<(String, u64)>,
    faces: u64,
    videos: u64,
    last: Option<VideoKey>,
}

impl Soundness {
    pub(super) fn new<'a>(models: impl Iterator<Item = &'a str>) -> Self {
        Self {
            models: models.map(|name| (name.to_owned(), 0)).collect(),
            faces: 0,
            videos: 0,
            last: None,
        }
    }

    /// Takes a face's outputs into account, model by model; the name of the first that gave no numbers for it.
    pub(super) fn face(&mut self, video: &VideoKey, outputs: &[&[f32]]) -> Option<&str> {
        if self.last.as_ref() != Some(video) {
            self.last = Some(video.clone());
            self.videos += 1;
        }
        self.faces += 1;
        let mut first = None;
        for ((name, broken), outputs) in self.models.iter_mut().zip(outputs) {
            if !is_finite(outputs) {
                *broken += 1;
                first.get_or_insert(&**name);
            }
        }
        first
    }

    /// Refuses a model that gave no numbers for more than half of the faces, once there are enough to tell.
    pub(super) fn check(&self) -> Result<(), PipelineError> {
        let broken = |(_, broken): &&(String, u64)| 2 * broken > self.faces;
        match self.models.iter().find(broken) {
            Some((model, broken)) if self.faces >= FACES && self.videos >= VIDEOS => {
                Err(PipelineError::NotFinite {
                    model: model.clone(),
                    broken: *broken,
                    faces: self.faces,
                })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After so many good and bad faces of so many videos.
    fn after(good: u64, bad: u64, videos: u64) -> bool {
        let mut soundness = Soundness::new(["a", "b"].into_iter());
        for n in 0..good + bad {
            let video = VideoKey::new(format!("{}.mp4", n % videos)).unwrap();
            let said = [1.0, if n < bad { f32::NAN } else { 2.0 }];
            let first = soundness.face(&video, &[&[0.0], &said]).map(String::from);
            assert_eq!(first.as_deref(), (n < bad).then_some("b"));
        }
        match soundness.check() {
            Err(PipelineError::NotFinite { model, broken, faces }) => {
                assert_eq!((&*model, broken, faces), ("b", bad, good + bad));
                false
            }
            Err(other) => panic!("{other}"),
            Ok(()) => true,
        }
    }

    #[test]
    fn most_of_many_faces_of_several_videos_end_a_run() {
        assert!(after(0, 999, 2), "too few to tell");
        assert!(!after(0, 1_000, 2));
        assert!(after(0, 5_000, 1), "the video may be at fault");
        assert!(after(500, 500, 3), "half");
        assert!(!after(499, 501, 3));
    }
}
