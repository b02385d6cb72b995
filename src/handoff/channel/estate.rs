//! What a primary leaves of a channel to its successor.

use std::os::fd::{AsFd, BorrowedFd};

use crate::handoff::channel::Channel;
use crate::handoff::estate::WorkerPart;

impl Channel {
    /// What has to be kept for it to survive this process.
    #[must_use]
    pub fn descriptors(&self) -> [(WorkerPart, BorrowedFd<'_>); 3] {
        [
            (WorkerPart::Channel, self.socket.as_fd()),
            (WorkerPart::WorkerEnd, self.worker_end.as_fd()),
            (WorkerPart::Scoreboard, self.page.as_fd()),
        ]
    }

    /// Whether the worker has said that it has attached.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Whether the worker has said that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }
}
