//! Reports to the coordinator, with progress sent as often as it is worth and only when there is some.

use affectmill_base::{FrameIndex, VideoKey};
use affectmill_queue::{AtWork, FromWorker, WaitsFor, write_message};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Progress is sent this often.
const INTERVAL: Duration = Duration::from_millis(200);

/// The way back to the coordinator, shared by the pipeline's threads.
pub struct Reports {
    state: Arc<Mutex<State>>,
}

struct State {
    output: File,
    /// There is unsent progress.
    changed: bool,
    frame: Option<FrameIndex>,
    frames: u64,
    rows: u64,
    at_work: AtWork,
    /// The `at_work` of the last report.
    sent: AtWork,
}

impl State {
    /// A broken pipe means that the coordinator is gone; the reading thread ends the process.
    fn send(&mut self, report: &FromWorker) {
        let _ = write_message(&mut self.output, report);
    }

    fn send_progress(&mut self) {
        self.changed = false;
        self.sent = self.at_work.clone();
        self.send(&FromWorker::Progress {
            frame: self.frame,
            frames: self.frames,
            rows: self.rows,
            at_work: self.at_work.clone(),
        });
    }

    fn send_if_changed(&mut self) {
        if self.changed || self.at_work != self.sent {
            self.send_progress();
        }
    }
}

impl Reports {
    /// Reports written to this pipe. A thread of its own sends progress, so that the last frame before a hang is reported too.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn new(output: File) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State {
            output,
            changed: false,
            frame: None,
            frames: 0,
            rows: 0,
            at_work: AtWork::default(),
            sent: AtWork::default(),
        }));
        let sent = Arc::downgrade(&state);
        thread::Builder::new().name("reports".into()).spawn(move || {
            while let Some(state) = sent.upgrade() {
                if let Ok(mut state) = state.lock() {
                    state.send_if_changed();
                }
                drop(state);
                thread::sleep(INTERVAL);
            }
        })?;
        Ok(Self { state })
    }

    /// Sends a report at once; it says more than the progress that was not sent yet.
    pub fn send(&self, report: &FromWorker) {
        self.change(|state| {
            state.changed = false;
            state.send(report);
        });
    }

    /// A new shard: its counts begin at zero.
    pub fn begin_shard(&self) {
        self.change(|state| (state.changed, state.frame, state.frames, state.rows) = (false, None, 0, 0));
    }

    /// Until the next shard, no video is at fault.
    pub fn end_shard(&self) {
        self.change(|state| {
            state.at_work = AtWork::default();
            state.send_if_changed();
        });
    }

    /// The video is about to be opened.
    pub fn opened(&self, video: &VideoKey) {
        self.change(|state| {
            state.at_work.decoding = Some(video.clone());
            state.send_if_changed();
            state.frame = None;
            state.send(&FromWorker::Opened { video: video.clone() });
        });
    }

    /// The decoder goes to work on the video.
    pub fn decodes(&self, video: &VideoKey) {
        self.change(|state| {
            state.at_work.decoding = Some(video.clone());
            if state.sent.decoding != state.at_work.decoding {
                state.send_progress();
            }
        });
    }

    /// The decoder waits.
    pub fn decoder_waits(&self) {
        self.change(|state| state.at_work.decoding = None);
    }

    /// The detector or a model goes to work on a batch whose oldest row is this one.
    pub fn labels(&self, video: &VideoKey, frame: FrameIndex) {
        self.change(|state| {
            let is_sent = matches!(&state.sent.labelling, Some((sent, _)) if sent == video);
            state.at_work.labelling = Some((video.clone(), frame));
            if !is_sent {
                state.send_progress();
            }
        });
    }

    /// One of many looks at a batch is done.
    pub fn view_done(&self) {
        self.change(|state| state.changed = true);
    }

    /// Detector and models wait.
    pub fn models_wait(&self) {
        self.change(|state| state.at_work.labelling = None);
    }

    /// A store keeps the worker waiting: for `what`, or because of the trouble that it had last.
    pub fn waiting(&self, what: &str, trouble: Option<&str>) {
        self.send(&FromWorker::Waiting {
            on: trouble.map_or(WaitsFor::Transfer, |_| WaitsFor::Recovery),
            reason: trouble.unwrap_or(what).into(),
        });
    }

    /// Reports that a store keeps the worker waiting, for [`Access::on_wait`](affectmill_store::Access::on_wait).
    pub fn store_waits(self: &Arc<Self>) -> impl Fn(Option<&str>) + Send + Sync + 'static {
        let reports = self.clone();
        move |trouble| reports.waiting("waiting for the store", trouble)
    }

    /// Sends a warning to the run's log.
    pub fn warn(&self, message: String) {
        self.send(&FromWorker::Warning { message });
    }

    /// One more frame was decoded.
    pub fn decoded(&self, frame: FrameIndex) {
        self.change(|state| {
            (state.changed, state.frame) = (true, Some(frame));
            state.frames += 1;
        });
    }

    /// A frame before the resume point was decoded again.
    pub fn passed(&self, frame: FrameIndex) {
        self.change(|state| (state.changed, state.frame) = (true, Some(frame)));
    }

    /// Labelling resumes at this frame of a video; `frames` were decoded before, `again` of them a second time.
    pub fn resumed(&self, video: &VideoKey, frame: FrameIndex, frames: u64, again: u64) {
        self.send(&FromWorker::Resumed {
            video: video.clone(),
            frame,
            again,
        });
        self.change(|state| {
            state.changed = true;
            state.frames += frames;
        });
    }

    /// So many more rows were labelled.
    pub fn labelled(&self, rows: u64) {
        self.change(|state| {
            state.changed = true;
            state.rows += rows;
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Ok(mut state) = self.state.lock() {
            change(&mut state);
        }
    }
}
