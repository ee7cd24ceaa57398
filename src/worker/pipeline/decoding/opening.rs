//! Opening videos, once and again.

use super::super::input::{NotOpened, WithinReach};
use super::{Abandoned, Frames};
use crate::dataset::{ErrorClass, PlannedVideo, Trouble};
use crate::domain::{Crop, FrameIndex};
use crate::stages::decode::{DecodeOptions, VideoReader};
use std::thread;
use std::time::Duration;

/// How long a disk that fails while a video is opened is left in peace before it is asked again.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

impl Frames<'_> {
    /// A reader on the CPU of a video at which NVDEC failed, that goes on with this frame.
    pub(super) fn on_the_cpu(
        &mut self,
        here: &WithinReach,
        video: &PlannedVideo,
        frame: FrameIndex,
    ) -> Result<VideoReader, Abandoned> {
        let mut reader = self.again(here, video, self.source.options.on_the_cpu())?;
        match reader.pass(frame, |passed| self.reports.passed(passed)) {
            Err(error) if error.broke_off().is_some() => Err(Abandoned::BrokeOff(here.trouble(&error))),
            // Whatever else it is, the reader says it again.
            Ok(()) | Err(_) => Ok(reader),
        }
    }

    /// Opens the video once more.
    pub(super) fn again(
        &self,
        here: &WithinReach,
        video: &PlannedVideo,
        options: DecodeOptions,
    ) -> Result<VideoReader, Abandoned> {
        self.open(here, video, options)
            .map_err(|not_opened| match not_opened {
                NotOpened::Store(error) => Abandoned::Store(error),
                NotOpened::Video { trouble, .. } => Abandoned::BrokeOff(trouble),
            })
    }

    /// Opens the video, if it is still the one that was planned. A disk that fails is asked again a few times.
    pub(super) fn open(
        &self,
        here: &WithinReach,
        video: &PlannedVideo,
        options: DecodeOptions,
    ) -> Result<VideoReader, NotOpened> {
        let path = here.path();
        let mut pauses = PAUSES.into_iter();
        let reader = loop {
            let (not_opened, may_pass) = match here.still_the_same(video) {
                Ok(()) => {
                    let opened = match video.archive {
                        None => VideoReader::open(path, video.kind, &options),
                        Some(_) => VideoReader::open_crops(path, &video.key, &options),
                    };
                    match opened {
                        Ok(reader) => break reader,
                        Err(error) => (
                            NotOpened::Video {
                                trouble: here.trouble(&error),
                                passing: error.broke_off().is_some(),
                            },
                            error.may_pass(),
                        ),
                    }
                }
                Err((trouble, may_pass)) => (
                    NotOpened::Video {
                        trouble,
                        passing: false,
                    },
                    may_pass,
                ),
            };
            match pauses.next() {
                Some(pause) if may_pass => thread::sleep(pause),
                _ => return Err(not_opened),
            }
        };
        match reader.recipe().and_then(|recipe| self.mistaken(recipe)) {
            None => Ok(reader),
            Some(cause) => Err(NotOpened::Video {
                trouble: Trouble {
                    error: format!("{}: {cause}", here.name),
                    class: ErrorClass::Unsupported,
                    frame: None,
                },
                passing: false,
            }),
        }
    }

    /// Why crops by this recipe are not for the models, if they are not.
    fn mistaken(&self, recipe: &str) -> Option<String> {
        let is_recipe = Crop::ALL.iter().any(|crop| crop.name() == recipe);
        let mut stated = self.source.trained_on.iter().zip(&self.source.job.models);
        let (other, model) = stated.find_map(|(stated, model)| {
            let other = stated
                .as_deref()
                .filter(|stated| is_recipe && *stated != recipe)?;
            Some((other, &model.name))
        })?;
        Some(format!(
            "its faces were cropped by `{recipe}`, and model `{model}` was trained on faces cropped by `{other}`; keep crops of \
             that recipe, or take the faces over from the labels ([faces] mode = \"from_labels\")"
        ))
    }
}
