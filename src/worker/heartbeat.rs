//! Reports to the coordinator, with progress sent as often as it is worth and only when there is some.

use crate::domain::{FrameIndex, VideoKey};
use crate::queue::{FromWorker, write_message};
use std::fs::File;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Progress is sent at most this often.
const INTERVAL: Duration = Duration::from_millis(200);

/// The way back to the coordinator, shared by the pipeline's threads.
pub struct Reports {
    state: Mutex<State>,
}

struct State {
    output: File,
    sent: Option<Instant>,
    frame: Option<FrameIndex>,
    frames: u64,
    rows: u64,
}

impl Reports {
    /// Reports written to this pipe.
    pub fn new(output: File) -> Self {
        Self {
            state: Mutex::new(State {
                output,
                sent: None,
                frame: None,
                frames: 0,
                rows: 0,
            }),
        }
    }

    /// Sends a report at once. A broken pipe means that the coordinator is gone; the reading thread ends the process.
    pub fn send(&self, report: &FromWorker) {
        if let Ok(mut state) = self.state.lock() {
            let _ = write_message(&mut state.output, report);
        }
    }

    /// A new shard: its counts begin at zero.
    pub fn begin_shard(&self) {
        if let Ok(mut state) = self.state.lock() {
            (state.frame, state.frames, state.rows) = (None, 0, 0);
        }
    }

    /// The video is about to be opened.
    pub fn opened(&self, video: &VideoKey) {
        if let Ok(mut state) = self.state.lock() {
            state.frame = None;
            let _ = write_message(&mut state.output, &FromWorker::Opened { video: video.clone() });
        }
    }

    /// One more frame was decoded.
    pub fn decoded(&self, frame: FrameIndex) {
        self.progress(|state| {
            state.frame = Some(frame);
            state.frames += 1;
        });
    }

    /// So many more rows were labelled.
    pub fn labelled(&self, rows: u64) {
        self.progress(|state| state.rows += rows);
    }

    fn progress(&self, change: impl FnOnce(&mut State)) {
        let Ok(mut state) = self.state.lock() else { return };
        change(&mut state);
        if state.sent.is_none_or(|sent| sent.elapsed() >= INTERVAL) {
            state.sent = Some(Instant::now());
            let report = FromWorker::Progress {
                frame: state.frame,
                frames: state.frames,
                rows: state.rows,
            };
            let _ = write_message(&mut state.output, &report);
        }
    }
}
