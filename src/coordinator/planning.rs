//! Plans new videos: their headers are read, and what is known is written as a plan now and then, so that a planning that is
//! stopped or killed is gone on with where it was.

use super::probe::Probing;
use super::{RunError, Signal, Signals, Sink, blocking};
use affectmill_base::InputFolders;
use affectmill_base::Location;
use affectmill_labelset::PlannedVideo;
use affectmill_labelset::plan::{PlanError, Planner};
use affectmill_spec::Job;
use std::time::Duration;
use tokio::time::timeout;

/// How long a planning that was told to stop waits for its last plan to be stored.
const FAREWELL: Duration = Duration::from_secs(10);

/// How a planning ended.
pub enum Planned {
    /// All is planned.
    Whole(Box<Planner>),
    /// A signal ended it.
    Stopped {
        /// Which.
        signal: Signal,
        /// Videos of all plans that were written by then.
        videos: usize,
    },
}

/// Plans videos, each for its attempt. Where a signal comes before that is done, what was probed in order by then is planned.
pub async fn plan(
    mut planner: Planner,
    mut new: Vec<(u32, PlannedVideo)>,
    (root, folders): (Location, InputFolders),
    job: &Job,
    signals: &mut Signals,
    sink: Sink<'_>,
) -> Result<Planned, RunError> {
    if new.is_empty() {
        let append = blocking(move || planner.append(new, true).map(|_| planner));
        return Ok(Planned::Whole(Box::new(append.await??)));
    }
    new.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.key.cmp(&y.key)));
    let (attempts, videos): (Vec<u32>, Vec<PlannedVideo>) = new.into_iter().unzip();
    let mut attempts = attempts.into_iter();
    let mut probing = Probing::start(videos, root.clone(), job).await?;
    let mut waiting = Vec::new();
    loop {
        let (piece, mut met) = match signals.unless(probing.piece(sink)).await {
            Ok(piece) => (piece?, None),
            Err(signal) => (probing.ready(), Some(signal)),
        };
        // Of an input that went away, every header is unreadable, and would stay so in the plan.
        still_there(&folders)?;
        let (whole, videos) = (probing.is_done(), planner.videos());
        let piece = piece.into_iter().zip(attempts.by_ref());
        waiting.extend(piece.map(|(video, attempt)| (attempt, video)));
        // One forbidden video is that video's failure; where all are, the run would only fail them one by one.
        if videos == 0 && probing.is_forbidden() {
            match met {
                Some(signal) => return Ok(Planned::Stopped { signal, videos }),
                None if whole => {
                    return Err(forbidden(
                        &root,
                        waiting.into_iter().map(|(_, video)| video).collect(),
                    ));
                }
                None => continue,
            }
        }
        let append = blocking(move || {
            let left = planner.append(waiting, whole)?;
            Ok::<_, PlanError>((planner, left))
        });
        tokio::pin!(append);
        let appended = match met {
            None => signals.unless(&mut append).await,
            Some(signal) => Err(signal),
        };
        let appended = match appended {
            Ok(done) => done,
            Err(signal) => {
                met = Some(signal);
                // A store that keeps us waiting, or a second signal, ends the wait.
                match signals.unless(timeout(FAREWELL, append)).await {
                    Ok(Ok(done)) => done,
                    Ok(Err(_)) | Err(_) => return Ok(Planned::Stopped { signal, videos }),
                }
            }
        };
        (planner, waiting) = appended??;
        match met {
            Some(signal) => {
                let videos = planner.videos();
                return Ok(Planned::Stopped { signal, videos });
            }
            None if whole => return Ok(Planned::Whole(Box::new(planner))),
            None => {}
        }
    }
}

/// Nothing of the input may be read.
pub fn forbidden(root: &Location, videos: Vec<PlannedVideo>) -> RunError {
    let mut causes = videos.into_iter().filter_map(|video| video.unreadable);
    RunError::Forbidden {
        input: root.to_string(),
        cause: causes.next().unwrap_or_default(),
    }
}

fn still_there(folders: &InputFolders) -> Result<(), RunError> {
    folders.gone().map_or(Ok(()), |(folder, why)| {
        let error = format!(
            "the input `{}` went away while it was planned ({why}); mount its disk or share again",
            folder.display()
        );
        Err(RunError::InputGone { error })
    })
}
