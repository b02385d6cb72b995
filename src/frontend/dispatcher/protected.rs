//! Copies of the sockets of protected sessions, for the day on which their worker dies: then those
//! that are proven to be at rest are sessions that move, and the others are closed.
//!
//! Never reads a ledger before its worker is dead, and never trusts it. Whoever is on its way from a
//! worker is not protected for it: what is offered is forgotten, so that nobody ever has two owners.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::frontend::dispatcher::Dispatcher;
use crate::frontend::dispatcher::lines;
use crate::frontend::recovery_outcome::{End, Fate, fate};
use crate::link::native::{
    ChannelError, Content, Keep, Keeping, Parcel, PendingConnection, Recovered,
};
use crate::link::seam::{Survival, WorkerId};
use crate::protocol::checkpoint::{Entry, Ledger};
use crate::protocol::ids::ConnectionId;
use crate::protocol::message::ConnectionRecord;
use crate::protocol::tcp_progress::Usage;

/// All copies, by whose they are.
#[derive(Debug, Default)]
pub(super) struct Protected {
    workers: HashMap<WorkerId, OfWorker>,
    count: u64,
    /// It was said that there are too many.
    is_full: bool,
}

#[derive(Debug, Default)]
struct OfWorker {
    ledger: Option<Arc<Ledger>>,
    sessions: HashMap<ConnectionId, Copy>,
    /// Of survivors that it has taken, and that it hasn't been heard to write down.
    crashes: HashMap<ConnectionId, u8>,
}

#[derive(Debug)]
struct Copy {
    record: ConnectionRecord,
    socket: OwnedFd,
    /// Of its entry.
    page: u64,
    /// How many workers have died with it before it came to rest.
    crashes: u8,
}

/// A copy whose worker is dead, and what that one has written down.
struct Left {
    copy: Copy,
    ledger: Arc<Ledger>,
}

impl Protected {
    /// Descriptors of sessions; those of ledgers are counted with their workers.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    fn keep(&mut self, worker: WorkerId, keep: Keep) {
        let Keep { record, socket, page } = keep;
        let of = self.workers.entry(worker).or_default();
        let crashes = of.crashes.remove(&record.id).unwrap_or(0);
        let copy = Copy { record, socket, page, crashes };
        if of.sessions.insert(record.id, copy).is_none() {
            self.count += 1;
        }
    }

    fn has_ledger(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|of| of.ledger.is_some())
    }

    /// Another one's, or closed, or on its way.
    pub(super) fn forget(&mut self, worker: WorkerId, id: ConnectionId) {
        let Some(of) = self.workers.get_mut(&worker) else { return };
        if of.sessions.remove(&id).is_some() {
            self.count -= 1;
        }
    }

    /// A worker has taken a survivor, which may kill it, too. It may have been heard to write it down
    /// or not yet.
    fn note_taken(&mut self, worker: WorkerId, id: ConnectionId, crashes: u8) {
        let Some(of) = self.workers.get_mut(&worker) else { return };
        match of.sessions.get_mut(&id) {
            Some(copy) => copy.crashes = crashes,
            None => drop(of.crashes.insert(id, crashes)),
        }
    }

    /// All of a worker that is dead.
    fn take(&mut self, worker: WorkerId) -> Vec<Left> {
        let Some(of) = self.workers.remove(&worker) else { return Vec::new() };
        self.count -= of.sessions.len() as u64;
        let Some(ledger) = of.ledger else { return Vec::new() };
        let copies = of.sessions.into_values();
        copies.map(|copy| Left { copy, ledger: Arc::clone(&ledger) }).collect()
    }
}

impl Dispatcher {
    pub(super) fn hear_of_keeping(&mut self, worker: WorkerId, said: Keeping) {
        match said {
            Keeping::Keep(keep) if !self.was_accepted(keep.record.id) => {
                self.quarantine(worker, ChannelError::UnknownSession(keep.record.id));
            }
            said => self.note_keeping(worker, said),
        }
    }

    fn note_keeping(&mut self, worker: WorkerId, said: Keeping) {
        match said {
            Keeping::Ledger(ledger) => {
                self.protected.workers.entry(worker).or_default().ledger = ledger.map(Arc::new);
            }
            Keeping::Keep(keep) => {
                // What it said before of that one doesn't hold any more, in any case.
                self.protected.forget(worker, keep.record.id);
                let has_room = self.has_room_for_copies();
                if has_room && self.protected.has_ledger(worker) {
                    self.protected.keep(worker, *keep);
                } else {
                    self.counters.survival.not_protected += 1;
                }
            }
            Keeping::Unkeepable(id) => {
                self.protected.forget(worker, id);
                self.counters.survival.not_protected += 1;
            }
            Keeping::Forget(ids) => ids.iter().for_each(|id| self.protected.forget(worker, *id)),
        }
    }

    /// Whether one more may be protected; said when it begins to be too many, and when it ends.
    fn has_room_for_copies(&mut self) -> bool {
        let protected = self.protected.count() + self.sessions.survivors;
        let is_full = protected >= self.max_protected;
        if is_full && !self.protected.is_full && self.max_protected > 0 {
            tracing::warn!(
                protected,
                "descriptors are short for protected sessions: new ones are not, raise the limit \
                 (ulimit -n)",
            );
        }
        // Half empty, so that it isn't said for each that comes and goes.
        let is_over = protected < self.max_protected / 2;
        self.protected.is_full = is_full || self.protected.is_full && !is_over;
        !is_full
    }

    /// Sessions that a dead worker has left on their way are not those that it left at rest.
    pub(super) fn hear_last_words(&mut self, worker: WorkerId, recovered: &mut Recovered) {
        for said in std::mem::take(&mut recovered.last_words) {
            self.note_keeping(worker, said);
        }
        let Recovered { untouched, lost, offered, .. } = recovered;
        let pending = untouched.iter().chain(&*lost).map(|session| session.record.id);
        let offered = offered.iter().map(|offer| offer.record().id);
        for id in pending.chain(offered).collect::<HashSet<_>>() {
            self.protected.forget(worker, id);
        }
    }

    /// What was at rest in a worker that is dead goes on in another; the rest is closed.
    pub(super) fn revive(&mut self, worker: WorkerId) {
        let left = self.protected.take(worker);
        if left.is_empty() {
            return;
        }
        let (mut at_rest, all) = (0, left.len());
        for Left { copy, ledger } in left {
            let entry = ledger.entry(copy.page, copy.record.id);
            let fate = fate(entry.map(|entry| entry.usage), Usage::of(&copy.socket));
            match (fate, entry) {
                (Fate::Survives, Some(entry)) => {
                    at_rest += 1;
                    self.revive_one(worker, copy, ledger, entry);
                }
                // The last copy there is: closed by being dropped.
                (Fate::Ends(end), _) => self.note_end(worker, copy.record.id, end),
                (Fate::Survives, None) => self.note_end(worker, copy.record.id, End::Unverified),
            }
        }
        let (slot, generation) = (worker.slot.0, worker.generation.0);
        let closed = all - at_rest;
        tracing::info!(slot, generation, at_rest, closed, "worker died with protected sessions");
    }

    fn revive_one(&mut self, worker: WorkerId, copy: Copy, ledger: Arc<Ledger>, entry: Entry) {
        let Copy { record, socket, crashes, .. } = copy;
        // One that has been at rest in this worker has not killed it by coming.
        let crashes = if entry.version > 1 { 1 } else { crashes.saturating_add(1) };
        let (usage, content) = (entry.usage, Content::Ledger(ledger, entry));
        let parcel =
            Parcel { from: worker.slot, sender: Some(worker), content, usage, failed: Vec::new() };
        lines::session(worker, record.id, "survives");
        self.sessions.under_way += 1;
        self.sessions.survivors += 1;
        self.place_session(PendingConnection {
            record,
            socket,
            crashes,
            parcel: Some(Box::new(parcel)),
        });
    }

    /// A worker has acknowledged a survivor.
    pub(super) fn note_recovered(&mut self, worker: WorkerId, session: &PendingConnection) {
        self.counters.survival.recovered += 1;
        self.sessions.survivors -= 1;
        self.protected.note_taken(worker, session.record.id, session.crashes);
    }

    /// A survivor is closed after all.
    pub(super) fn lose_survivor(&mut self, session: &PendingConnection) {
        self.sessions.survivors -= 1;
        if let Some(sender) = session.parcel.as_ref().and_then(|parcel| parcel.sender) {
            self.note_end(sender, session.record.id, End::NoTarget);
        }
    }

    fn note_end(&mut self, worker: WorkerId, id: ConnectionId, end: End) {
        let Survival { busy, client_gone, unverified, no_target, .. } = &mut self.counters.survival;
        let (count, what) = match end {
            End::Busy => (busy, "recovery failed: busy"),
            End::ClientGone => (client_gone, "recovery failed: client gone"),
            End::Unverified => (unverified, "recovery failed: unverified"),
            End::NoTarget => (no_target, "recovery failed: no target"),
        };
        *count += 1;
        lines::session(worker, id, what);
    }
}
