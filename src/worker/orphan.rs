//! A worker whose primary is gone: it serves on for a while, then drains, then ends.
//!
//! Never outlives its time, so that no primary's end leaves processes behind.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};

/// How long an orphan lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OrphanTimes {
    /// How long it serves on.
    pub(crate) serve: Duration,
    /// How long it drains at most.
    pub(crate) drain: Duration,
}

/// Discards output from now on, if the primary was its reader: printing without a reader is an error
/// that most programs don't survive.
pub(crate) fn discard_output() {
    let Ok(nowhere) = open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return;
    };
    // If it fails, output stays as broken as it is.
    if has_no_reader(std::io::stdout()) {
        let _ = rustix::stdio::dup2_stdout(&nowhere);
    }
    if has_no_reader(std::io::stderr()) {
        let _ = rustix::stdio::dup2_stderr(&nowhere);
    }
}

/// A pipe without a reader is in error, see poll(2).
fn has_no_reader(stream: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&stream, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&at_once)).is_ok() && polled[0].revents().contains(PollFlags::ERR)
}
