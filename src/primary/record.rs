//! What is written down of the primary itself while it runs, for a successor after a crash.

use crate::primary::snapshot::PrimaryDocument;
use crate::system::journal::Journal;

/// The document, and where it is written.
#[derive(Debug)]
pub(super) struct Record {
    document: PrimaryDocument,
    journal: Journal,
}

impl Record {
    pub(super) fn new(document: PrimaryDocument, journal: Journal) -> Self {
        let mut record = Self { document, journal };
        record.write();
        record
    }

    pub(super) fn document(&self) -> &PrimaryDocument {
        &self.document
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(super) fn into_parts(self) -> (PrimaryDocument, Journal) {
        (self.document, self.journal)
    }

    /// Something is different now.
    pub(super) fn note(&mut self, change: impl FnOnce(&mut PrimaryDocument)) {
        let before = self.document.clone();
        change(&mut self.document);
        if self.document != before {
            self.write();
        }
    }

    fn write(&mut self) {
        let bytes = serde_json::to_vec(&self.document).unwrap_or_default();
        if let Err(error) = self.journal.write(&bytes) {
            tracing::warn!(%error, "journal cannot be written: a crash now would lose the latest");
        }
    }
}
