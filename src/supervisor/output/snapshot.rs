//! The pipes that workers print to, and the lines that are not complete, for a successor.
//!
//! After a crash the pipes come from the keeper or systemd, and the memory is lost: lines that were read
//! and not written yet, and the beginnings of incomplete ones.

use std::os::fd::OwnedFd;

use tokio::sync::oneshot;

use crate::handover::carry;
use crate::handover::output::PipeSnapshot;
use crate::link::seam::WorkerId;
use crate::supervisor::output::reader::Command;
use crate::supervisor::output::{Output, OutputError, OutputSettings, Stream};

/// An [`Output`] that has stopped.
#[derive(Debug, Default)]
pub struct OutputHandover {
    /// All pipes that were not read to their end.
    pub pipes: Vec<PipeHandover>,
    /// The number of lines that were dropped so far.
    pub dropped: u64,
}

/// A pipe that workers print to.
#[derive(Debug)]
pub struct PipeHandover {
    /// How far it was read.
    pub state: PipeState,
    /// Its read end.
    pub descriptor: OwnedFd,
}

/// How far a pipe was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipeState {
    /// The worker that prints.
    pub worker: WorkerId,
    /// Its process.
    pub pid: i32,
    /// Standard output or standard error.
    pub stream: Stream,
    /// A line whose end is still to come.
    pub begun: Vec<u8>,
    /// The worker has ended: another process holds the pipe open.
    pub gone: bool,
}

carry!(struct PipeState => PipeSnapshot { worker, pid, stream, begun, gone });

impl Output {
    /// Resumes another one: its pipes, its incomplete lines, its count.
    ///
    /// # Errors
    ///
    /// As [`Output::start`]. `before` is as it was then: a worker whose pipe is closed could not print any
    /// more.
    pub fn resume(
        settings: OutputSettings,
        before: &mut OutputHandover,
    ) -> Result<Self, OutputError> {
        let output = Self::start(settings)?;
        let OutputHandover { pipes, dropped } = std::mem::take(before);
        output.count_dropped(dropped);
        pipes.into_iter().for_each(|pipe| output.go_on(pipe));
        Ok(output)
    }

    /// Reads a worker's pipe from where it was left.
    pub fn go_on(&self, pipe: PipeHandover) {
        self.shared.send_surely(Command::GoOn(pipe));
    }

    /// Stops reading, writes everything that was read, and ends. After 2 s it gives up writing, as
    /// [`Output::finish`] does. Later output of workers waits in the pipes, as long as there is room.
    pub async fn hand_over(self) -> OutputHandover {
        let (reply, pipes) = oneshot::channel();
        self.shared.send_surely(Command::HandOver(reply));
        // There is no answer only if the kernel has refused to wait for pipes at all.
        let pipes = pipes.await.unwrap_or_default();
        self.shared.ended().await;
        OutputHandover { pipes, dropped: self.dropped() }
    }
}
