//! Reports to the coordinator, with progress sent as often as it is worth and only when there is some.

use crate::domain::{FrameIndex, VideoKey};
use crate::queue::{FromWorker, write_message};
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
}

impl State {
    /// A broken pipe means that the coordinator is gone; the reading thread ends the process.
    fn send(&mut self, report: &FromWorker) {
        let _ = write_message(&mut self.output, report);
    }

    fn tell_news(&mut self) {
        if std::mem::take(&mut self.news) {
            self.send(&FromWorker::Progress {
                frame: self.frame,
                frames: self.frames,
                rows: self.rows,
            });
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
        if let Ok(mut state) = self.state.lock() {
            state.news = false;
            state.send(report);
        }
    }

    /// A new shard: its counts begin at zero.
    pub fn begin_shard(&self) {
        if let Ok(mut state) = self.state.lock() {
            (state.news, state.frame, state.frames, state.rows) = (false, None, 0, 0);
        }
    }

    /// The video is about to be opened.
    pub fn opened(&self, video: &VideoKey) {
        if let Ok(mut state) = self.state.lock() {
            state.tell_news();
            state.frame = None;
            state.send(&FromWorker::Opened { video: video.clone() });
        }
    }

    /// A store keeps the worker waiting.
    pub fn waiting(&self, reason: &str) {
        self.send(&FromWorker::Waiting {
            reason: reason.into(),
        });
    }

    /// Tells whoever watches the run.
    pub fn warn(&self, message: String) {
        self.send(&FromWorker::Warning { message });
    }

    /// One more frame was decoded.
    pub fn decoded(&self, frame: FrameIndex) {
        self.progress(|state| {
            state.frame = Some(frame);
            state.frames += 1;
        });
    }

    /// A frame was decoded again, on the way to where labelling goes on.
    pub fn passed(&self, frame: FrameIndex) {
        self.progress(|state| state.frame = Some(frame));
    }

    /// Labelling goes on at this frame of a video, of which so many were decoded before; `again` of them now again.
    pub fn resumed(&self, video: &VideoKey, frame: FrameIndex, frames: u64, again: u64) {
        self.send(&FromWorker::Resumed {
            video: video.clone(),
            frame,
            again,
        });
        self.progress(|state| state.frames += frames);
    }

    /// So many more rows were labelled.
    pub fn labelled(&self, rows: u64) {
        self.progress(|state| state.rows += rows);
    }

    fn progress(&self, change: impl FnOnce(&mut State)) {
        if let Ok(mut state) = self.state.lock() {
            change(&mut state);
            state.news = true;
        }
    }
}
