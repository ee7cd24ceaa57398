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
    /// There is progress that was not told yet.
    news: bool,
    frame: Option<FrameIndex>,
    frames: u64,
    rows: u64,
    at_work: AtWork,
    /// What was told of it last.
    told: AtWork,
}

impl State {
    /// A broken pipe means that the coordinator is gone; the reading thread ends the process.
    fn send(&mut self, report: &FromWorker) {
        let _ = write_message(&mut self.output, report);
    }

    fn tell(&mut self) {
        self.news = false;
        self.told = self.at_work.clone();
        self.send(&FromWorker::Progress {
            frame: self.frame,
            frames: self.frames,
            rows: self.rows,
            at_work: self.at_work.clone(),
        });
    }

    fn tell_news(&mut self) {
        if self.news || self.at_work != self.told {
            self.tell();
        }
    }
}

impl Reports {
    /// Reports written to this pipe. A thread of its own tells progress, so that the last frame before a hang is told too.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn new(output: File) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State {
            output,
            news: false,
            frame: None,
            frames: 0,
            rows: 0,
            at_work: AtWork::default(),
            told: AtWork::default(),
        }));
        let told = Arc::downgrade(&state);
        thread::Builder::new().name("reports".into()).spawn(move || {
            while let Some(state) = told.upgrade() {
                if let Ok(mut state) = state.lock() {
                    state.tell_news();
                }
                drop(state);
                thread::sleep(INTERVAL);
            }
        })?;
        Ok(Self { state })
    }

    /// Sends a report at once; it says more than the progress that was not told yet.
    pub fn send(&self, report: &FromWorker) {
        self.change(|state| {
            state.news = false;
            state.send(report);
        });
    }

    /// A new shard: its counts begin at zero.
    pub fn begin_shard(&self) {
        self.change(|state| (state.news, state.frame, state.frames, state.rows) = (false, None, 0, 0));
    }

    /// What comes now is no video's doing.
    pub fn end_shard(&self) {
        self.change(|state| {
            state.at_work = AtWork::default();
            state.tell_news();
        });
    }

    /// The video is about to be opened.
    pub fn opened(&self, video: &VideoKey) {
        self.change(|state| {
            state.at_work.decoding = Some(video.clone());
            state.tell_news();
            state.frame = None;
            state.send(&FromWorker::Opened { video: video.clone() });
        });
    }

    /// The decoder goes to work on the video.
    pub fn decodes(&self, video: &VideoKey) {
        self.change(|state| {
            state.at_work.decoding = Some(video.clone());
            if state.told.decoding != state.at_work.decoding {
                state.tell();
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
            let is_told = matches!(&state.told.labelling, Some((told, _)) if told == video);
            state.at_work.labelling = Some((video.clone(), frame));
            if !is_told {
                state.tell();
            }
        });
    }

    /// One of many looks at a batch is done.
    pub fn view_done(&self) {
        self.change(|state| state.news = true);
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

    /// Tells whoever watches the run.
    pub fn warn(&self, message: String) {
        self.send(&FromWorker::Warning { message });
    }

    /// One more frame was decoded.
    pub fn decoded(&self, frame: FrameIndex) {
        self.change(|state| {
            (state.news, state.frame) = (true, Some(frame));
            state.frames += 1;
        });
    }

    /// A frame was decoded again, on the way to where labelling goes on.
    pub fn passed(&self, frame: FrameIndex) {
        self.change(|state| (state.news, state.frame) = (true, Some(frame)));
    }

    /// Labelling goes on at this frame of a video, of which so many were decoded before; `again` of them now again.
    pub fn resumed(&self, video: &VideoKey, frame: FrameIndex, frames: u64, again: u64) {
        self.send(&FromWorker::Resumed {
            video: video.clone(),
            frame,
            again,
        });
        self.change(|state| {
            state.news = true;
            state.frames += frames;
        });
    }

    /// So many more rows were labelled.
    pub fn labelled(&self, rows: u64) {
        self.change(|state| {
            state.news = true;
            state.rows += rows;
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Ok(mut state) = self.state.lock() {
            change(&mut state);
        }
    }
}
