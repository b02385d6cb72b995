//! What is left to a successor of what workers print: the pipes, and the lines that were begun.
//!
//! After a crash the pipes come from whoever kept them, and what was in memory is lost: lines that were
//! read and not written yet, and the beginnings of those that were begun.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::link::seam::WorkerId;
use crate::supervisor::output::reader::Command;
use crate::supervisor::output::{Output, OutputError, OutputSettings, Stream};

/// What is left of an [`Output`].
#[derive(Debug, Default)]
pub struct OutputEstate {
    /// All pipes that were not read to their end.
    pub pipes: Vec<TakenPipe>,
    /// Lines that have not arrived somewhere so far.
    pub dropped: u64,
}

/// A pipe that workers print to, and what was read from it.
#[derive(Debug)]
pub struct TakenPipe {
    /// What was read from it.
    pub state: PipeState,
    /// Its read end.
    pub descriptor: OwnedFd,
}

/// How far a pipe was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeState {
    /// Who prints.
    pub worker: WorkerId,
    /// Its process.
    pub pid: i32,
    /// Where to.
    pub stream: Stream,
    /// The beginning of a line of which the end is still to come.
    pub begun: Vec<u8>,
    /// The process has ended: somebody else holds the pipe open.
    pub gone: bool,
}

impl Output {
    /// Goes on in the place of another one: its pipes, its lines that were begun, its count.
    ///
    /// # Errors
    ///
    /// As [`Output::start`]. The estate is as it was then: a worker whose pipe is closed could not
    /// print any more.
    pub fn resume(
        settings: OutputSettings,
        estate: &mut OutputEstate,
    ) -> Result<Self, OutputError> {
        let output = Self::start(settings)?;
        let OutputEstate { pipes, dropped } = std::mem::take(estate);
        output.count_dropped(dropped);
        pipes.into_iter().for_each(|pipe| output.go_on(pipe));
        Ok(output)
    }

    /// Takes what a worker prints from now on, behind what was read from its pipe before.
    pub fn go_on(&self, pipe: TakenPipe) {
        self.shared.send_surely(Command::GoOn(pipe));
    }

    /// Reads nothing more, writes what was read, and ends. After 2 s it gives up writing, as
    /// [`Output::finish`] does. All that workers have printed since waits in the pipes, and they print
    /// on as long as there is room.
    pub async fn hand_over(self) -> OutputEstate {
        let (reply, pipes) = oneshot::channel();
        self.shared.send_surely(Command::HandOver(reply));
        // There is nobody to answer only if the kernel has refused to wait for pipes at all.
        let pipes = pipes.await.unwrap_or_default();
        self.shared.ended().await;
        OutputEstate { pipes, dropped: self.dropped() }
    }
}
