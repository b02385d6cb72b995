//! Hints for the operator, each said once: the command is no worker, nothing is protected.

use std::collections::HashSet;

use crate::link::event::WorkerNote;
use crate::link::seam::WorkerId;
use crate::supervisor::ended::EndedConnections;
use crate::supervisor::wrappers;

/// What follows the reason why no worker became ready.
const NO_WORKER: &str = ", and no worker ever attached: COMMAND has to be a worker, which takes its connections from sticky-lb \
     and doesn't listen itself (see the guide, workers-in-rust and protocol)";

/// What was found and said so far.
#[derive(Debug, Default)]
pub(super) struct Hints {
    has_attached: bool,
    protects: bool,
    is_protection_hinted: bool,
    noted: HashSet<WorkerNote>,
    other_port: Option<u16>,
}

impl Hints {
    /// A worker has attached.
    pub(super) fn attached(&mut self) {
        self.has_attached = true;
    }

    /// The primary follows one that has crashed, whose copies of protected sessions are gone: that a worker has none
    /// says nothing of its app.
    pub(super) fn crashed(&mut self) {
        self.is_protection_hinted = true;
    }

    /// The rest of the reason why no worker became ready: the command is none, or listens elsewhere.
    pub(super) fn no_worker(&self, command: &[String]) -> String {
        match (wrappers::advice(command), self.other_port) {
            (Some(advice), _) => format!(": {advice}"),
            (None, Some(port)) => format!(
                ": its program listens on port {port}, and clients come by another; start with --port {port}, or \
                 let the program listen on the port in its variable PORT"
            ),
            (None, None) if self.has_attached => String::new(),
            (None, None) => NO_WORKER.to_owned(),
        }
    }

    /// Something that the operator should know: said once, not by each worker.
    pub(super) fn noted(&mut self, worker: WorkerId, note: WorkerNote, front: u16) {
        if !self.noted.insert(note) {
            return;
        }
        let slot = worker.slot.0;
        match note {
            WorkerNote::OtherPort(port) => {
                self.other_port.get_or_insert(port);
                tracing::warn!(
                    slot,
                    port,
                    front,
                    "worker's program was refused a port: workers get clients by the primary's port alone",
                );
            }
            WorkerNote::OtherServer => tracing::warn!(
                slot,
                "worker's program was refused a server that is no TCP server on a port",
            ),
            WorkerNote::Bun => tracing::warn!(
                slot,
                "worker's program was refused its server: Bun's servers take no connections from a primary",
            ),
            WorkerNote::Malformed => {
                tracing::warn!(slot, "worker has sent a line that is no JSON: ignored");
            }
            WorkerNote::Dropped => tracing::warn!(
                slot,
                "worker doesn't read what is sent to it: further messages are dropped",
            ),
        }
    }

    /// A worker has ended; by a crash that sessions could have been protected from, or not.
    pub(super) fn died(&mut self, ended: &EndedConnections, could_protect: bool) {
        self.protects |= ended.protected > 0;
        if could_protect && ended.cut > 0 && !self.protects && !self.is_protection_hinted {
            self.is_protection_hinted = true;
            tracing::warn!(
                cut = ended.cut,
                "worker crashed and none of its connections was protected: protect is on, and only \
                 WebSockets whose handlers call Session::protect are",
            );
        }
    }
}
