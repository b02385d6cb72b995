//! The workers' output as plain data.

use serde::{Deserialize, Serialize};

use crate::protocol::ids::WorkerId;

/// The pipes that are read, and the number of lines that were dropped.
#[derive(Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputSnapshot {
    pub pipes: Vec<PipeSnapshot>,
    pub dropped: u64,
}

/// How far a pipe was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipeSnapshot {
    pub worker: WorkerId,
    pub pid: i32,
    pub stream: StreamSnapshot,
    /// A line whose end is still to come.
    pub begun: Vec<u8>,
    pub gone: bool,
}

/// Standard output or standard error.
#[derive(Copy, Eq, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StreamSnapshot {
    Out,
    Err,
}
