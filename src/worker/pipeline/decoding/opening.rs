//! Opening videos, once and again.

use super::super::input::{NotOpened, WithinReach};
use super::{Abandoned, Frames};
use affectmill_base::FrameIndex;
use affectmill_base::{ErrorClass, Trouble};
use affectmill_labelset::PlannedVideo;
use affectmill_media::decode::{DecodeOptions, VideoReader};
use affectmill_store::DISK_RETRY;

impl Frames<'_> {
    /// A reader on the CPU of a video at which NVDEC failed, that goes on with this frame.
    pub(super) fn on_the_cpu(
        &mut self,
        here: &WithinReach,
        video: &PlannedVideo,
        frame: FrameIndex,
    ) -> Result<VideoReader, Abandoned> {
        let mut reader = self.again(here, video, self.source.options.on_the_cpu())?;
        let passed = reader.pass(frame, |passed| self.reports.passed(passed));
        match passed.err().and_then(|error| here.interruption(&error)) {
            Some(interruption) => Err(Abandoned::ReadInterrupted(interruption)),
            // The reader reports any other error again.
            None => Ok(reader),
        }
    }

    /// Opens the video once more.
    pub(super) fn again(
        &self,
        here: &WithinReach,
        video: &PlannedVideo,
        options: DecodeOptions,
    ) -> Result<VideoReader, Abandoned> {
        self.open(here, video, options).map_err(Abandoned::from)
    }

    /// Opens the video, if it is still the one that was planned. A disk that fails is asked again a few times.
    pub(super) fn open(
        &self,
        here: &WithinReach,
        video: &PlannedVideo,
        options: DecodeOptions,
    ) -> Result<VideoReader, NotOpened> {
        let path = here.path();
        let attempt = || {
            here.still_the_same(video)
                .map_err(|(trouble, may_pass)| (NotOpened::Video(trouble), may_pass))?;
            let opened = match video.archive {
                None => VideoReader::open(path, video.kind, &options),
                Some(_) => VideoReader::open_crops(path, &video.key, &options),
            };
            opened.map_err(|error| {
                let not_opened = match here.interruption(&error) {
                    Some(interruption) => NotOpened::Interrupted(interruption),
                    None => NotOpened::Video(here.trouble(&error)),
                };
                (not_opened, error.is_transient())
            })
        };
        let opened = DISK_RETRY.run(attempt, |(_, may_pass)| *may_pass);
        let reader = opened.map_err(|(not_opened, _)| not_opened)?;
        match reader.recipe().and_then(|recipe| self.mistaken(recipe)) {
            None => Ok(reader),
            Some(cause) => Err(NotOpened::Video(Trouble {
                error: format!("{}: {cause}", here.name),
                class: ErrorClass::Unsupported,
                frame: None,
            })),
        }
    }
}
