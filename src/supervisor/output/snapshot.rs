//! What is left to a successor of what workers print: the pipes, and the lines that were begun.
//!
//! After a crash the pipes come from whoever kept them, and what was in memory is lost: lines that were
//! read and not written yet, and the beginnings of those that were begun.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::link::seam::WorkerId;
use crate::supervisor::output::lines::Stream;

/// What is left of an `Output`.
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
