//! The decode thread's end of the channel: frames go to the labelling side, and while that is behind, the decoder is known to
//! wait, and to blame for nothing.

use super::Item;
use crate::heartbeat::Reports;
use affectmill_base::VideoKey;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

/// Where decoded frames go.
pub(super) struct Outlet<'a> {
    pub sender: &'a SyncSender<Item>,
    pub reports: &'a Reports,
}

impl Outlet<'_> {
    /// Hands a frame of this video over; returns how long that kept the decoder waiting, `None` where nobody takes it any more.
    pub fn hand(&self, item: Item, video: &VideoKey) -> Option<Duration> {
        let item = match self.sender.try_send(item) {
            Ok(()) => return Some(Duration::ZERO),
            Err(TrySendError::Disconnected(_)) => return None,
            Err(TrySendError::Full(item)) => item,
        };
        let waiting = Instant::now();
        self.reports.decoder_waits();
        self.sender.send(item).ok()?;
        self.reports.decodes(video);
        Some(waiting.elapsed())
    }
}
