//! Connections that the primary owns: clients that it has accepted, and sessions on their way from one
//! worker to another.
//!
//! Never looks into the bytes that a session travels with.

use std::io;
use std::sync::Arc;

use crate::closing::{ClientSocket, Deferred};
use crate::link::evidence::Evidence;
use crate::link::image_budget::{ImageBudget, ImageShare};
use crate::protocol::checkpoint::{Checkpoint, Entry};
use crate::protocol::ids::{SlotId, WorkerId};
use crate::protocol::message::{ConnectionRecord, MAX_INLINE_IMAGE};
use crate::protocol::sealed::seal;
use crate::protocol::tcp_progress::TcpProgress;

/// An accepted connection that no worker owns yet. Dropping it closes it, without waiting.
#[derive(Debug)]
pub struct PendingConnection {
    /// What travels with it.
    pub record: ConnectionRecord,
    /// The client's socket, non-blocking; unread, or read to the end of a message.
    pub socket: ClientSocket,
    /// How many workers have died on it.
    pub crashes: u8,
    /// What makes it a session; a client that has just come has none.
    pub transfer: Option<Box<SessionTransfer>>,
}

impl PendingConnection {
    /// Whether no worker has used its socket since the primary has it, as its evidence shows.
    #[must_use]
    pub fn is_untouched(&self, evidence: &Evidence) -> bool {
        let Some(transfer) = &self.transfer else { return evidence.is_unused };
        transfer
            .usage
            .is_some_and(|usage| matches!(evidence.progress, Ok(Some(now)) if now == usage))
    }
}

/// What makes a connection a session that migrates.
#[derive(Debug)]
pub struct SessionTransfer {
    /// The slot that it comes from.
    pub from: SlotId,
    /// The worker that offers it and waits for the answer; none for one that another primary has sent on and
    /// that was found on its way.
    pub sender: Option<WorkerId>,
    /// The bytes for the next worker.
    pub content: Content,
    /// How far the socket had been used when the primary got it, as its sender says; none if that says nothing.
    pub usage: Option<TcpProgress>,
    /// Slots whose workers should have taken it and refused, stalled or died.
    pub failed: Vec<SlotId>,
    /// Room for its image, if it has survived its worker and is on its way.
    pub room: Option<ImageShare>,
}

/// The bytes that one worker writes and another reads.
#[derive(Debug)]
pub enum Content {
    /// Few enough for the message.
    Inline(Vec<u8>),
    /// A sealed memfd.
    Memory(Deferred),
    /// An entry in the checkpoint of a worker that died: the session has survived it.
    Checkpoint(Arc<Deferred<Checkpoint>>, Entry),
}

impl Content {
    /// Reads an entry of a checkpoint: inline if it is short enough, else in memory of its own.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or the kernel has no memory or no descriptor left.
    pub fn from_checkpoint(checkpoint: &Checkpoint, entry: &Entry) -> io::Result<Self> {
        let bytes = checkpoint.image(entry)?;
        let short = bytes.len() <= MAX_INLINE_IMAGE;
        Ok(if short { Self::Inline(bytes) } else { Self::Memory(seal(&bytes)?.into()) })
    }
}

impl SessionTransfer {
    /// Whether its image can be copied now; it has its room from then on. Only that of a session that has
    /// survived its worker is.
    pub fn take_room(&mut self, budget: &ImageBudget) -> bool {
        let Content::Checkpoint(_, entry) = &self.content else { return true };
        if self.room.is_none() {
            self.room = budget.take(entry.length());
        }
        self.room.is_some()
    }

    /// Whether its session has survived its worker.
    #[must_use]
    pub fn has_survived_worker(&self) -> bool {
        matches!(self.content, Content::Checkpoint(..))
    }
}

/// A session that a worker offers.
#[derive(Debug)]
pub struct Offer {
    record: ConnectionRecord,
    socket: ClientSocket,
    content: Content,
    usage: Option<TcpProgress>,
}

impl Offer {
    /// Of a session whose socket had been used so far when it was offered, if its sender says so.
    #[must_use]
    pub fn new(
        record: ConnectionRecord,
        socket: ClientSocket,
        content: Content,
        usage: Option<TcpProgress>,
    ) -> Self {
        Self { record, socket, content, usage }
    }

    /// What travels with the connection.
    #[must_use]
    pub fn record(&self) -> &ConnectionRecord {
        &self.record
    }

    /// On its way from `sender`.
    #[must_use]
    pub fn depart(self, sender: WorkerId) -> PendingConnection {
        self.on_its_way(sender.slot, Some(sender))
    }

    /// On its way to a worker of that slot, from a worker that is not known.
    #[must_use]
    pub fn found(self, on_its_way_to: SlotId) -> PendingConnection {
        self.on_its_way(on_its_way_to, None)
    }

    fn on_its_way(self, from: SlotId, sender: Option<WorkerId>) -> PendingConnection {
        let Self { record, socket, content, usage } = self;
        let transfer =
            SessionTransfer { from, sender, content, usage, failed: Vec::new(), room: None };
        PendingConnection { record, socket, crashes: 0, transfer: Some(Box::new(transfer)) }
    }
}
