//! Hints for the operator, each said once: the command is no worker, nothing is protected.

use crate::supervisor::ended::EndedConnections;

/// What follows the reason why no worker became ready.
const NO_WORKER: &str = ", and no worker ever attached: COMMAND has to be a worker, which takes its connections from sticky-lb \
     and doesn't listen itself (see the guide, workers-in-rust and protocol)";

/// What was found and said so far.
#[derive(Debug, Default)]
pub(super) struct Hints {
    has_attached: bool,
    protects: bool,
    is_protection_hinted: bool,
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

    /// The rest of the reason why no worker became ready, if it is that the command is none.
    pub(super) fn no_worker(&self) -> &'static str {
        if self.has_attached { "" } else { NO_WORKER }
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
