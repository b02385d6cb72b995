//! Copies of the sockets of protected sessions. When their worker dies, those that are proven to be at
//! rest become sessions that migrate, and the others are closed.
//!
//! Never reads a checkpoint before its worker is dead, and never trusts it. A session that its worker
//! offers is protected no more: it never has two owners.

use std::collections::HashMap;
use std::sync::Arc;

use crate::closing::{ClientSocket, Deferred};
use crate::link::connection::{Content, PendingConnection, SessionTransfer};
use crate::link::evidence::Evidence;
use crate::link::protection::ProtectedSession;
use crate::link::seam::WorkerId;
use crate::protocol::checkpoint::Checkpoint;
use crate::protocol::ids::ConnectionId;
use crate::protocol::message::ConnectionRecord;
use crate::sessions::recovery_outcome::{RecoveryFailure, RecoveryOutcome, recovery_outcome};

/// All copies, by worker.
#[derive(Debug)]
pub(super) struct Protected {
    max: u64,
    workers: HashMap<WorkerId, ProtectedByWorker>,
    count: u64,
    /// A warning was logged that the limit is reached.
    is_full: bool,
}

#[derive(Debug, Default)]
struct ProtectedByWorker {
    checkpoint: Option<Arc<Deferred<Checkpoint>>>,
    sessions: HashMap<ConnectionId, ProtectedCopy>,
    /// Crashes of recovered sessions that the worker has taken and not protected yet.
    crashes: HashMap<ConnectionId, u8>,
    /// How many its page says.
    noted: usize,
}

/// A copy of a protected session's socket.
#[derive(Debug)]
pub(super) struct ProtectedCopy {
    pub(super) record: ConnectionRecord,
    pub(super) socket: ClientSocket,
    /// The place of its entry.
    pub(super) place: u64,
    /// How many workers have died with it before it came to rest.
    pub(super) crashes: u8,
}

impl Protected {
    /// At most so many copies.
    pub(super) fn new(max: u64) -> Self {
        Self { max, workers: HashMap::new(), count: 0, is_full: false }
    }

    /// Descriptors of sessions; those of checkpoints are counted with their workers.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn set_checkpoint(
        &mut self,
        worker: WorkerId,
        checkpoint: Option<Deferred<Checkpoint>>,
    ) {
        self.workers.entry(worker).or_default().checkpoint = checkpoint.map(Arc::new);
    }

    /// Protects a session if there is room and its worker has a checkpoint, and says whether it does.
    /// `in_progress` counts recovered sessions that are on their way. An older copy is dropped in any
    /// case.
    pub(super) fn protect(
        &mut self,
        worker: WorkerId,
        keep: ProtectedSession,
        in_progress: u64,
    ) -> bool {
        self.unprotect(worker, keep.record.id);
        let has_room = self.has_room(in_progress);
        let has_checkpoint =
            self.workers.get(&worker).is_some_and(|sessions| sessions.checkpoint.is_some());
        if has_room && has_checkpoint {
            self.insert(worker, keep);
        }
        has_room && has_checkpoint
    }

    fn insert(&mut self, worker: WorkerId, keep: ProtectedSession) {
        let ProtectedSession { record, socket, place } = keep;
        let by_worker = self.workers.entry(worker).or_default();
        let crashes = by_worker.crashes.remove(&record.id).unwrap_or(0);
        let copy = ProtectedCopy { record, socket, place, crashes };
        if by_worker.sessions.insert(record.id, copy).is_none() {
            self.count += 1;
        }
    }

    /// Whether one more may be protected. Logs once when the limit is reached, and again only after half
    /// of them are gone.
    fn has_room(&mut self, in_progress: u64) -> bool {
        let protected = self.count + in_progress;
        let is_full = protected >= self.max;
        if is_full && !self.is_full && self.max > 0 {
            tracing::warn!(
                protected,
                "descriptors are short for protected sessions: new ones are not, raise the limit \
                 (ulimit -n)",
            );
        }
        let is_over = protected < self.max / 2;
        self.is_full = is_full || self.is_full && !is_over;
        !is_full
    }

    /// How many sessions of a worker are protected, if that was another number before.
    pub(super) fn changed(&mut self, worker: WorkerId) -> Option<u64> {
        let by_worker = self.workers.get_mut(&worker)?;
        let count = by_worker.sessions.len();
        (std::mem::replace(&mut by_worker.noted, count) != count).then_some(count as u64)
    }

    /// Drops the copy of a session that is another worker's, or closed, or on its way.
    pub(super) fn unprotect(&mut self, worker: WorkerId, id: ConnectionId) {
        let Some(by_worker) = self.workers.get_mut(&worker) else { return };
        if by_worker.sessions.remove(&id).is_some() {
            self.count -= 1;
        }
    }

    /// Notes that a worker has taken a recovered session, which may crash it, too. The worker may have
    /// protected it by now or not yet.
    pub(super) fn taken(&mut self, worker: WorkerId, id: ConnectionId, crashes: u8) {
        let Some(by_worker) = self.workers.get_mut(&worker) else { return };
        match by_worker.sessions.get_mut(&id) {
            Some(copy) => copy.crashes = crashes,
            None => drop(by_worker.crashes.insert(id, crashes)),
        }
    }

    /// Takes out the checkpoint of a dead worker, and all copies.
    pub(super) fn take(
        &mut self,
        worker: WorkerId,
    ) -> Option<(Arc<Deferred<Checkpoint>>, Vec<ProtectedCopy>)> {
        let by_worker = self.workers.remove(&worker)?;
        self.count -= by_worker.sessions.len() as u64;
        Some((by_worker.checkpoint?, by_worker.sessions.into_values().collect()))
    }
}

/// A session of a dead worker that was at rest, or why it ends.
pub(super) type Recovery = (ConnectionId, Result<PendingConnection, RecoveryFailure>);

/// The outcome for some protected sessions of a dead worker, by the answers about their sockets. `bytes` are left of
/// those that all images of the worker may have.
pub(super) fn recover(
    worker: WorkerId,
    checkpoint: &Arc<Deferred<Checkpoint>>,
    copies: Vec<ProtectedCopy>,
    answers: impl Iterator<Item = Option<Evidence>>,
    bytes: &mut u64,
) -> Vec<Recovery> {
    let answers = answers.map(|answer| answer.unwrap_or_else(Evidence::none));
    let recover = |(copy, evidence): (ProtectedCopy, Evidence)| {
        (copy.record.id, copy.recover(worker, evidence, checkpoint, bytes))
    };
    copies.into_iter().zip(answers).map(recover).collect()
}

impl ProtectedCopy {
    /// Without a result, the last copy of the socket is closed by being dropped. `bytes` are left of those
    /// that all images of the worker may have.
    fn recover(
        self,
        worker: WorkerId,
        evidence: Evidence,
        checkpoint: &Arc<Deferred<Checkpoint>>,
        bytes: &mut u64,
    ) -> Result<PendingConnection, RecoveryFailure> {
        let Self { record, socket, place, crashes } = self;
        // Its worker may have protected any socket.
        if evidence.is_of_client == Some(false) {
            return Err(RecoveryFailure::Unverified);
        }
        let entry = checkpoint.entry(place, record.id);
        let outcome = recovery_outcome(entry.map(|entry| entry.usage), evidence.progress);
        if let RecoveryOutcome::Failed(failure) = outcome {
            return Err(failure);
        }
        let left = entry.and_then(|entry| bytes.checked_sub(entry.length()));
        let (Some(entry), Some(left)) = (entry, left) else {
            return Err(RecoveryFailure::Unverified);
        };
        *bytes = left;
        // One that has been at rest in this worker has not crashed it by coming.
        let crashes = if entry.version > 1 { 1 } else { crashes.saturating_add(1) };
        let transfer = SessionTransfer {
            from: worker.slot,
            sender: Some(worker),
            usage: Some(entry.usage),
            content: Content::Checkpoint(Arc::clone(checkpoint), entry),
            failed: Vec::new(),
            room: None,
        };
        Ok(PendingConnection { record, socket, crashes, transfer: Some(Box::new(transfer)) })
    }
}
