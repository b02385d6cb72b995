//! The pipes that workers print to, and the lines that are not complete, for a successor.
//!
//! After a crash the pipes and the last lines come from the keeper or systemd. Lost are lines that were read and
//! not written yet, and the beginnings of incomplete ones.

use std::os::fd::OwnedFd;

use crate::handover::carry;
use crate::handover::output::PipeSnapshot;
use crate::link::seam::WorkerId;
use crate::supervisor::output::lines::Stream;

/// An [`Output`](super::Output) that has stopped.
#[derive(Debug, Default)]
pub struct OutputHandover {
    /// All pipes that were not read to their end.
    pub pipes: Vec<PipeHandover>,
    /// The number of lines that were dropped so far.
    pub dropped: u64,
    /// The memory with the last lines.
    pub lines: Option<OwnedFd>,
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
