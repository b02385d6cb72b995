//! What is kept for a successor after a crash: descriptors of workers at whoever keeps them, and the
//! pool itself, written down in the journal.
//!
//! Never fails: what is not kept is missing after a crash, and only then.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::handover::descriptors::WorkerPart;
use crate::handover::encode;
use crate::link::seam::WorkerId;
use crate::link::{Link, native};
use crate::protocol::ids::Timestamp;
use crate::supervisor::pool::Pool;
use crate::supervisor::process::{Printed, Process};
use crate::system::journal;

/// Where one turn follows the other, so many of them are written down together.
const TOGETHER: Duration = Duration::from_millis(10);

/// What was written down last.
#[derive(Debug, Default)]
pub(super) struct Written {
    bytes: Vec<u8>,
    /// Since when something may be different.
    outdated: Option<Timestamp>,
}

impl Written {
    /// Something may be different now.
    pub(super) fn outdate(&mut self) {
        self.outdated.get_or_insert_with(Timestamp::now);
    }
}

impl Pool {
    /// Before its process is started: a worker whose channel is lost is of no use.
    pub(super) fn keep_channel(&self, worker: WorkerId, channel: &Link) {
        for (part, descriptor) in channel.descriptors() {
            self.keep(worker, part, descriptor);
        }
    }

    /// As soon as it is started.
    pub(super) fn keep_process(&self, worker: WorkerId, process: &Process, printed: &Printed) {
        self.keep(worker, WorkerPart::Process, process);
        self.keep(worker, WorkerPart::Stdout, &printed.stdout);
        self.keep(worker, WorkerPart::Stderr, &printed.stderr);
    }

    pub(super) fn keep(&self, worker: WorkerId, part: WorkerPart, descriptor: impl AsFd) {
        if let Some(store) = &self.links.store {
            store.keep(&part.name(worker), descriptor);
        }
    }

    /// When it is gone. The process comes last: with that its zombie may be buried, too.
    pub(super) fn keep_no_longer(&self, worker: WorkerId) {
        let Some(store) = &self.links.store else { return };
        let others = [WorkerPart::Stdout, WorkerPart::Stderr, WorkerPart::Process];
        for part in native::PARTS.into_iter().chain(others) {
            store.remove(&part.name(worker));
        }
    }

    /// A journal that nobody has a copy of yet.
    pub(super) fn keep_journal(&self) {
        if let (Some(store), Some(journal)) = (&self.links.store, &self.links.journal) {
            store.keep(journal::NAME, journal);
        }
    }

    /// At the end of each turn: writes down what is different. Where more is to be done at once, that
    /// is waited for a moment.
    pub(super) fn write_journal(&mut self) {
        let Some(since) = self.written.outdated else { return };
        let links = &self.links;
        let is_busy =
            !(links.events.is_empty() && links.orders.is_empty() && self.ended.1.is_empty());
        if !is_busy || Timestamp::now().since(since) >= TOGETHER {
            self.write_journal_now();
        }
    }

    pub(super) fn write_journal_now(&mut self) {
        self.written.outdated = None;
        if self.links.journal.is_none() {
            return;
        }
        let bytes = encode(&self.snapshot()).unwrap_or_default();
        self.write_to_journal(bytes);
    }

    pub(super) fn write_to_journal(&mut self, bytes: Vec<u8>) {
        let Some(journal) = &mut self.links.journal else { return };
        if bytes == self.written.bytes {
            return;
        }
        match journal.write(&bytes) {
            Ok(()) => self.written.bytes = bytes,
            Err(error) => {
                tracing::warn!(%error, "journal cannot be written: a crash now would lose the latest");
            }
        }
    }
}
