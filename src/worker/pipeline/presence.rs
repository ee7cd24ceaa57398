//! Whether the input is still there: tells a video that cannot be read from an input that went away under the run, as an unmounted
//! disk or a share that is out of reach. The latter would turn the rest of the collection into failures within a second.

use super::decoded::Abandoned;
use affectmill_base::InputFolders;
use affectmill_base::{ErrorClass, Trouble};
use affectmill_base::{Location, VideoKey};
use affectmill_labelset::{PlannedVideo, VideoOutcome, VideoStatus};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// So many videos in a row that could be read when they were planned, and not now, are hardly each at fault.
const DOZEN: usize = 12;

/// What is known of the input by what became of its videos.
pub(super) struct Presence {
    /// Of an input on a disk.
    root: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What may go away by itself.
    folders: InputFolders,
    /// One of these is gone.
    moved: bool,
    /// Videos that could not be read, since the last one that could.
    unread: BTreeSet<VideoKey>,
}

impl Presence {
    /// Of an input with these folders when the run began.
    pub fn new(root: &Location, folders: InputFolders) -> Self {
        Self {
            root: root.as_local().map(PathBuf::from),
            state: Mutex::new(State {
                folders,
                ..State::default()
            }),
        }
    }

    /// Looks at what became of a video; `Abandoned::InputGone` where the input is to blame.
    pub fn judge(
        &self,
        video: &PlannedVideo,
        decoded: Result<(), Abandoned>,
        outcome: &VideoOutcome,
    ) -> Result<(), Abandoned> {
        let trouble = match &decoded {
            Ok(()) if outcome.status == VideoStatus::Failed => outcome.trouble(),
            Ok(()) => None,
            Err(Abandoned::ReadInterrupted(interruption)) => Some(interruption.trouble.clone()),
            Err(_) => return decoded,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble.filter(|trouble| trouble.class == ErrorClass::Io) {
            None => {
                state.unread.clear();
                // What is read there is what was meant: the share was mounted again.
                if state.moved
                    && let Some(root) = &self.root
                {
                    state.folders.accept(&root.join(video.file()));
                    state.moved = state.folders.gone().is_some();
                }
                decoded
            }
            Some(trouble) => match self.gone(&mut state, video, &trouble) {
                Some(error) => Err(Abandoned::InputGone(error)),
                None => decoded,
            },
        }
    }

    fn gone(&self, state: &mut State, video: &PlannedVideo, trouble: &Trouble) -> Option<String> {
        if let Some((folder, why)) = state.folders.gone() {
            let error = format!(
                "the input `{}` went away ({why}); mount its disk or share again, or put the folder back",
                folder.display()
            );
            state.moved = true;
            return Some(error);
        }
        // What could not be read when it was planned is no news.
        if video.unreadable.is_none() {
            state.unread.insert(video.key.clone());
        }
        (state.unread.len() >= DOZEN).then(|| {
            format!(
                "{} videos in a row cannot be read that could be when they were planned, the last one: {}",
                state.unread.len(),
                trouble.error
            )
        })
    }
}
