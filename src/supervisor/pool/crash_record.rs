//! The record that survives a crash of the primary: workers' descriptors in the descriptor store, and the pool's
//! snapshot in the journal.
//!
//! Never fails: a descriptor or a snapshot that cannot be stored is missing after a crash, and only
//! then.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::handover::descriptors::WorkerPart;
use crate::link::seam::WorkerId;
use crate::link::{Link, snapshot as links};
use crate::protocol::ids::Timestamp;
use crate::supervisor::process::{Printed, Process};
use crate::system::journal::{self, Journal};
use crate::system::store::Store;

/// Changes within that time are written together where turns follow each other at once.
const MAX_WRITE_DELAY: Duration = Duration::from_millis(10);

/// The descriptor store and the journal, each if there is one.
#[derive(Debug)]
pub(super) struct CrashRecord {
    store: Option<Store>,
    journal: Option<Journal>,
    /// Written last.
    written: Vec<u8>,
    /// Since when the pool may differ from that.
    outdated: Option<Timestamp>,
}

impl CrashRecord {
    pub(super) fn new(store: Option<Store>, journal: Option<Journal>) -> Self {
        Self { store, journal, written: Vec::new(), outdated: None }
    }

    pub(super) fn into_parts(self) -> (Option<Store>, Option<Journal>) {
        (self.store, self.journal)
    }

    /// Stores a worker's link. To be done before its process is started: a worker whose link is lost
    /// cannot be adopted.
    pub(super) fn store_link(&self, worker: WorkerId, link: &Link) {
        for (part, descriptor) in link.descriptors() {
            self.store_part(worker, part, descriptor);
        }
    }

    /// Stores a worker's process and pipes, as soon as it is started.
    pub(super) fn store_process(&self, worker: WorkerId, process: &Process, printed: &Printed) {
        self.store_part(worker, WorkerPart::Process, process);
        self.store_part(worker, WorkerPart::Stdout, &printed.stdout);
        self.store_part(worker, WorkerPart::Stderr, &printed.stderr);
    }

    pub(super) fn store_part(&self, worker: WorkerId, part: WorkerPart, descriptor: impl AsFd) {
        if let Some(store) = &self.store {
            store.keep(&part.name(worker), descriptor);
        }
    }

    /// Removes the descriptors of a worker that is gone. Its process comes last: the keeper reaps its
    /// zombie with that.
    pub(super) fn remove_worker(&self, worker: WorkerId) {
        let Some(store) = &self.store else { return };
        let others = [WorkerPart::Stdout, WorkerPart::Stderr, WorkerPart::Process];
        for part in links::parts().chain(others) {
            store.remove(&part.name(worker));
        }
    }

    /// Stores the journal, if it is a new one.
    pub(super) fn store_journal(&self) {
        if let (Some(store), Some(journal)) = (&self.store, &self.journal) {
            store.keep(journal::NAME, journal);
        }
    }

    /// The pool may differ from its last snapshot.
    pub(super) fn mark_outdated(&mut self) {
        self.outdated.get_or_insert_with(Timestamp::now);
    }

    /// Whether a snapshot is to be written at the end of this turn. Where the next turn begins at
    /// once, it can wait a moment.
    pub(super) fn is_due(&self, is_busy: bool) -> bool {
        let due = |since| !is_busy || Timestamp::now().since(since) >= MAX_WRITE_DELAY;
        self.journal.is_some() && self.outdated.is_some_and(due)
    }

    /// Writes a snapshot.
    pub(super) fn write(&mut self, snapshot: impl FnOnce() -> Vec<u8>) {
        self.outdated = None;
        let Some(journal) = &mut self.journal else { return };
        let bytes = snapshot();
        if bytes == self.written {
            return;
        }
        match journal.write(&bytes) {
            Ok(()) => self.written = bytes,
            Err(error) => {
                tracing::warn!(%error, "journal not written: a crash now loses the latest changes");
            }
        }
    }
}
