//! What a session travels with, and whether what a worker offers is one.
//!
//! Never looks into a parcel.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use crate::link::native::{ChannelError, PendingConnection};
use crate::protocol::checkpoint::{Entry, Ledger};
use crate::protocol::ids::{SlotId, WorkerId};
use crate::protocol::message::{ConnectionRecord, PARCEL_INLINE};
use crate::protocol::sealed::seal;
use crate::protocol::tcp_progress::Usage;

/// Bytes of the longest parcel: a state of 16 MiB, and what else the workers put beside it.
const LONGEST: u64 = 17 << 20;

/// What makes a connection a session that moves.
#[derive(Debug)]
pub struct Parcel {
    /// Where it comes from.
    pub from: SlotId,
    /// Who offers it, and waits to hear what became of it; nobody of one that another primary has sent
    /// on and that was found on its way.
    pub sender: Option<WorkerId>,
    /// What the next worker is to have.
    pub content: Content,
    /// How far the socket had been used when the primary got it.
    pub usage: Usage,
    /// Slots whose workers should have taken it and refused, stalled or died.
    pub failed: Vec<SlotId>,
}

/// The bytes that one worker writes and another reads.
#[derive(Debug)]
pub enum Content {
    /// Few enough for the message.
    Inline(Vec<u8>),
    /// A sealed memfd.
    Memory(OwnedFd),
    /// What the ledger of a worker that died says: the session has recovered it.
    Ledger(Arc<Ledger>, Entry),
}

impl Content {
    /// As it was written down, few enough for the message or in memory of its own.
    pub(super) fn of_ledger(ledger: &Ledger, entry: &Entry) -> io::Result<Self> {
        let bytes = ledger.parcel(entry)?;
        let short = bytes.len() <= PARCEL_INLINE;
        Ok(if short { Self::Inline(bytes) } else { Self::Memory(seal(&bytes)?) })
    }
}

impl Parcel {
    /// Whether its session has recovered its worker.
    #[must_use]
    pub fn is_survivor(&self) -> bool {
        matches!(self.content, Content::Ledger(..))
    }
}

/// A session that a worker offers.
#[derive(Debug)]
pub struct Offer {
    record: ConnectionRecord,
    socket: OwnedFd,
    content: Content,
    usage: Usage,
}

impl Offer {
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

    /// Without anybody to go back to.
    pub(super) fn found(self, on_its_way_to: SlotId) -> PendingConnection {
        self.on_its_way(on_its_way_to, None)
    }

    fn on_its_way(self, from: SlotId, sender: Option<WorkerId>) -> PendingConnection {
        let Self { record, socket, content, usage } = self;
        let parcel = Parcel { from, sender, content, usage, failed: Vec::new() };
        PendingConnection { record, socket, crashes: 0, parcel: Some(Box::new(parcel)) }
    }
}

/// The descriptors of a message.
#[derive(Debug, Default)]
pub(super) struct Luggage {
    pub(super) descriptors: Vec<OwnedFd>,
    /// Not all of them arrived.
    pub(super) lost: bool,
}

/// Looks at what a worker offers. Nothing if it cannot move now: not all has arrived, it is too
/// long, or its client is gone.
pub(super) fn open(
    record: ConnectionRecord,
    inline: &[u8],
    luggage: Luggage,
) -> Result<Option<Offer>, ChannelError> {
    let fault = |what| ChannelError::Session(record.id, what);
    let Luggage { descriptors, lost } = luggage;
    if descriptors.len() > 2 {
        return Err(fault("more than a socket and a parcel"));
    }
    if lost {
        return Ok(None);
    }
    let mut descriptors = descriptors.into_iter();
    let Some(socket) = descriptors.next() else { return Err(fault("no socket")) };
    if !is_tcp(&socket) {
        return Err(fault("a socket that is not TCP"));
    }
    let content = match descriptors.next() {
        None => Content::Inline(inline.to_vec()),
        Some(_) if !inline.is_empty() => return Err(fault("two parcels")),
        Some(memory) if !is_sealed(&memory) => return Err(fault("a parcel that is not sealed")),
        Some(memory) if !is_short(&memory) => return Ok(None),
        Some(memory) => Content::Memory(memory),
    };
    let usage = Usage::of(&socket).ok().flatten();
    Ok(usage.map(|usage| Offer { record, socket, content, usage }))
}

pub(super) fn is_tcp(socket: &OwnedFd) -> bool {
    let internet = [AddressFamily::INET, AddressFamily::INET6];
    sockopt::socket_type(socket) == Ok(SocketType::STREAM)
        && sockopt::socket_domain(socket).is_ok_and(|domain| internet.contains(&domain))
        && sockopt::socket_protocol(socket) == Ok(Some(ipproto::TCP))
}

/// So that its reader can rely on what it has seen of it.
fn is_sealed(memory: &OwnedFd) -> bool {
    let needed = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_get_seals(memory).is_ok_and(|seals| seals.contains(needed))
}

fn is_short(memory: &OwnedFd) -> bool {
    let size = fstat(memory).map(|stat| u64::try_from(stat.st_size));
    matches!(size, Ok(Ok(size)) if size <= LONGEST)
}
