//! Waits for a primary that may take long; Ctrl-C ends the waiting alone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use crate::cli::failure::Failure;
use crate::cli::successor::last_process;
use crate::control::client::{ClientError, Conversation, Deadline};
use crate::control::protocol::{Line, Request};

/// How long a line may take once it has begun.
const LINE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the keeper may take to end when the primary has.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A conversation, and Ctrl-C meanwhile.
#[derive(Debug)]
pub(super) struct Waiting {
    conversation: Conversation,
    interrupts: SignalFd,
    /// The process that ends last, the primary's or its keeper's, if it is known here.
    last: Option<OwnedFd>,
    /// The text for Ctrl-C.
    goes_on: &'static str,
}

impl Waiting {
    /// Sends a request, which the primary has to take until the deadline.
    ///
    /// # Errors
    ///
    /// If no primary answers there.
    pub(super) fn begin(
        path: &Path,
        request: &Request,
        deadline: Deadline,
        goes_on: &'static str,
    ) -> Result<Self, Failure> {
        let interrupts = interrupts().map_err(|error| Failure::Wait(error.into()))?;
        let conversation = Conversation::begin(path, request, deadline)?;
        let last = last_process(&conversation);
        Ok(Self { conversation, interrupts, last, goes_on })
    }

    /// The next line of the answer.
    ///
    /// # Errors
    ///
    /// If the primary has gone or isn't understood, and on Ctrl-C.
    pub(super) fn next_line(&mut self) -> Result<Line, Failure> {
        if !self.conversation.has_read_ahead() {
            self.wait(self.conversation.as_fd())?;
        }
        self.conversation.set_deadline(Some(Deadline::after(LINE_TIMEOUT)));
        Ok(self.conversation.next_line()?)
    }

    /// Waits for the answer of a request that has no items.
    ///
    /// # Errors
    ///
    /// As [`Self::next_line`], and if the primary refuses.
    pub(super) fn finish(&mut self) -> Result<Value, Failure> {
        loop {
            match self.next_line()? {
                Line::Item(_) => {}
                Line::Done(done) => return Ok(done),
                Line::Error(problem) => return Err(ClientError::Problem(problem).into()),
            }
        }
    }

    /// Waits until the primary has ended and its descriptors are closed.
    ///
    /// # Errors
    ///
    /// If it refuses, and on Ctrl-C.
    pub(super) fn until_the_end(&mut self) -> Result<(), Failure> {
        loop {
            match self.next_line() {
                Ok(Line::Error(problem)) => return Err(ClientError::Problem(problem).into()),
                Ok(_) => {}
                // An ending process closes its sockets in any order.
                Err(Failure::Client(ClientError::Ended | ClientError::Lost(_))) => break,
                Err(error) => return Err(error),
            }
        }
        let Some(last) = &self.last else { return Ok(()) };
        let limit = Timespec::try_from(END_TIMEOUT).ok();
        let mut polled =
            [PollFd::new(last, PollFlags::IN), PollFd::new(&self.interrupts, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut polled, limit.as_ref()));
        match (ready.map_err(|error| Failure::Wait(error.into()))?, polled[1].revents().is_empty())
        {
            (0, _) => Err(Failure::KeeperStays),
            (_, false) => Err(Failure::Interrupted(self.goes_on.to_owned())),
            (_, true) => Ok(()),
        }
    }

    fn wait(&self, descriptor: BorrowedFd<'_>) -> Result<(), Failure> {
        let interrupts = PollFd::new(&self.interrupts, PollFlags::IN);
        if comes_first(descriptor, interrupts).map_err(Failure::Wait)? {
            return Err(Failure::Interrupted(self.goes_on.to_owned()));
        }
        Ok(())
    }
}

/// Waits until there is something to read. Returns `true` if `other` came first.
///
/// # Errors
///
/// The kernel's.
pub(super) fn comes_first(descriptor: BorrowedFd<'_>, other: PollFd<'_>) -> io::Result<bool> {
    let mut polled = [PollFd::new(&descriptor, PollFlags::IN), other];
    rustix::io::retry_on_intr(|| poll(&mut polled, None))?;
    Ok(!polled[1].revents().is_empty())
}

/// A spinner on a terminal, nothing elsewhere.
pub(super) fn spinner(message: String) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// Ctrl-C as something to read.
fn interrupts() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)
}
