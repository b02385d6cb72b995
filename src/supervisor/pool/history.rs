//! The pool's history: counts, the last failure, and the summary of the end.

use crate::protocol::ids::SlotId;
use crate::supervisor::pool::links::Summary;
use crate::supervisor::pool::stats::{Crash, Stats};

/// The pool's history.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) stats: Stats,
    pub(super) summary: Summary,
    /// The slot of the last crash, and the reason.
    pub(super) last_failure: Option<(SlotId, String)>,
}

impl History {
    /// A worker has crashed.
    pub(super) fn crashed(&mut self, slot: SlotId, crash: Crash, reason: &str) {
        self.stats.crashed(slot, crash, reason);
        self.last_failure = Some((slot, reason.to_owned()));
    }

    /// Why a slot's replacement has failed.
    pub(super) fn why_replacement_failed(&self, slot: SlotId) -> String {
        match &self.last_failure {
            Some((failed, reason)) if *failed == slot => reason.clone(),
            _ => "was ended before it was stable".to_owned(),
        }
    }
}
