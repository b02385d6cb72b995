//! The journal of the primary itself, for a successor after a crash.

use crate::handover::encode;
use crate::handover::primary::PrimarySnapshot;
use crate::system::journal::Journal;

/// A snapshot of the primary, and the journal that it is written to.
#[derive(Debug)]
pub(super) struct PrimaryJournal {
    snapshot: PrimarySnapshot,
    journal: Journal,
}

impl PrimaryJournal {
    pub(super) fn new(snapshot: PrimarySnapshot, journal: Journal) -> Self {
        let mut journal = Self { snapshot, journal };
        journal.write();
        journal
    }

    pub(super) fn snapshot(&self) -> &PrimarySnapshot {
        &self.snapshot
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(super) fn into_parts(self) -> (PrimarySnapshot, Journal) {
        (self.snapshot, self.journal)
    }

    /// Changes the snapshot, and writes it if it is different.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut PrimarySnapshot)) {
        let before = self.snapshot.clone();
        change(&mut self.snapshot);
        if self.snapshot != before {
            self.write();
        }
    }

    fn write(&mut self) {
        let bytes = encode(&self.snapshot).unwrap_or_default();
        if let Err(error) = self.journal.write(&bytes) {
            tracing::warn!(%error, "journal not written: a crash now would lose the last changes");
        }
    }
}
