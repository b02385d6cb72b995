//! A channel and the connections on it as plain data, for the successor that this program becomes:
//! exactly as they are.

use data_encoding::BASE64;

use crate::handover::Carry;
use crate::handover::descriptors::{Descriptors, RestoreError};
use crate::handover::link::{
    ChannelSnapshot, ConnectionSnapshot, InFlightSnapshot, ResyncSnapshot, SessionSnapshot,
};
use crate::link::connection::{Content, PendingConnection, SessionTransfer};
use crate::link::in_flight::{EntryParts, InFlight};
use crate::link::native::Channel;
use crate::link::native::resync::Resync;
use crate::link::native::sessions::Sessions;
use crate::link::native::transport::Transport;
use crate::protocol::ids::WorkerId;
use crate::protocol::tcp_progress::TcpProgress;

/// As plain data; its descriptors go to `descriptors`.
pub fn into_snapshot(
    channel: Channel,
    worker: WorkerId,
    descriptors: &mut Descriptors,
) -> ChannelSnapshot {
    let Channel { transport, in_flight, handshake, pings, sessions, resync } = channel;
    for (part, descriptor) in transport.into_descriptors() {
        descriptors.insert(part.name(worker), descriptor);
    }
    let (counts, credits) = (in_flight.counts(), in_flight.credits());
    let Resync { is_lost, pending, asked, report, finishes, .. } = resync;
    let (pending, report) = (pending.snapshot(), report.snapshot());
    ChannelSnapshot {
        in_flight: in_flight_snapshot(in_flight, worker, descriptors),
        counts: counts.snapshot(),
        credits,
        handshake: handshake.snapshot(),
        pings,
        lists: sessions.lists,
        offered: sessions.offered,
        outbox: sessions.outbox.snapshot(),
        resync: ResyncSnapshot { is_lost, pending, asked, report, finishes },
    }
}

/// As it was. The worker is asked what this primary may have to know beyond that, unless it was
/// asked before.
///
/// # Errors
///
/// If a descriptor is missing or unusable, or the snapshot is malformed.
pub fn restore(
    snapshot: ChannelSnapshot,
    worker: WorkerId,
    descriptors: &mut Descriptors,
) -> Result<Channel, RestoreError> {
    let entries = restore_in_flight(snapshot.in_flight, worker, descriptors)?;
    let counts = Carry::restore(snapshot.counts);
    let in_flight = InFlight::restore(snapshot.credits, counts, entries);
    let mut channel = Channel::new(Transport::take_over(worker, descriptors)?, in_flight);
    channel.handshake = Carry::restore(snapshot.handshake);
    channel.note_no_copies();
    channel.pings = snapshot.pings;
    channel.sessions = Sessions {
        offered: snapshot.offered,
        outbox: Carry::restore(snapshot.outbox),
        lists: snapshot.lists,
    };
    let ResyncSnapshot { is_lost, pending, asked, report, finishes } = snapshot.resync;
    let (pending, report) = (Carry::restore(pending), Carry::restore(report));
    channel.resync = Resync { is_lost, pending, asked, report, finishes, ..Resync::default() };
    if !channel.resync.is_asked() {
        channel.ask();
    }
    Ok(channel)
}

/// Connections on their way to a worker as plain data; their descriptors go to `descriptors`.
pub fn in_flight_snapshot(
    in_flight: InFlight,
    worker: WorkerId,
    descriptors: &mut Descriptors,
) -> Vec<InFlightSnapshot> {
    let entries = in_flight.into_entries().enumerate();
    let entries = entries.map(|(number, (id, sent_at, connection))| {
        let name = in_flight_name(worker, number);
        let connection = connection.map(|it| connection_snapshot(it, &name, descriptors));
        InFlightSnapshot { id, sent_at, connection }
    });
    entries.collect()
}

/// As they were.
///
/// # Errors
///
/// If a descriptor is missing, or the snapshot is malformed.
pub fn restore_in_flight(
    snapshot: Vec<InFlightSnapshot>,
    worker: WorkerId,
    descriptors: &mut Descriptors,
) -> Result<Vec<EntryParts>, RestoreError> {
    let entries = snapshot.into_iter().enumerate().map(|(number, one)| {
        let name = in_flight_name(worker, number);
        let restore = |it| restore_connection(it, &name, descriptors);
        Ok((one.id, one.sent_at, one.connection.map(restore).transpose()?))
    });
    entries.collect()
}

/// As plain data; its descriptors go to `descriptors`, under this name.
pub fn connection_snapshot(
    connection: PendingConnection,
    name: &str,
    descriptors: &mut Descriptors,
) -> ConnectionSnapshot {
    let PendingConnection { record, socket, crashes, transfer } = connection;
    descriptors.insert(name, socket);
    let session = transfer.map(|transfer| session_snapshot(*transfer, name, descriptors));
    ConnectionSnapshot { record: record.snapshot(), crashes, session }
}

/// As it was.
///
/// # Errors
///
/// If a descriptor is missing, or the snapshot is malformed.
pub fn restore_connection(
    snapshot: ConnectionSnapshot,
    name: &str,
    descriptors: &mut Descriptors,
) -> Result<PendingConnection, RestoreError> {
    let socket = descriptors.require(name)?.into();
    let session = snapshot.session.map(|session| restored_session(session, name, descriptors));
    let (record, crashes) = (Carry::restore(snapshot.record), snapshot.crashes);
    Ok(PendingConnection { record, socket, crashes, transfer: session.transpose()?.map(Box::new) })
}

fn session_snapshot(
    transfer: SessionTransfer,
    name: &str,
    descriptors: &mut Descriptors,
) -> SessionSnapshot {
    let SessionTransfer { from, sender, content, usage, failed, .. } = transfer;
    let content = match content {
        // Its receiver doesn't know the checkpoint. Without memory for a copy, no worker takes it.
        Content::Checkpoint(checkpoint, entry) => Content::from_checkpoint(&checkpoint, &entry)
            .unwrap_or_else(|_| Content::Inline(Vec::new())),
        other => other,
    };
    let inline = match content {
        Content::Checkpoint(..) => None,
        Content::Inline(bytes) => Some(BASE64.encode(&bytes)),
        Content::Memory(memory) => {
            descriptors.insert(session_name(name), memory.into_inner());
            None
        }
    };
    let progress = usage.unwrap_or(UNKNOWN).counts();
    SessionSnapshot { from, sender, inline, progress, failed }
}

fn restored_session(
    snapshot: SessionSnapshot,
    name: &str,
    descriptors: &mut Descriptors,
) -> Result<SessionTransfer, RestoreError> {
    let SessionSnapshot { from, sender, inline, progress: (consumed, written), failed } = snapshot;
    let content = match inline {
        None => Content::Memory(descriptors.require(&session_name(name))?.into()),
        Some(text) => {
            let bytes = BASE64.decode(text.as_bytes());
            Content::Inline(bytes.map_err(|_| RestoreError::Malformed("a session"))?)
        }
    };
    let usage = Some(TcpProgress::new(consumed, written)).filter(|usage| *usage != UNKNOWN);
    Ok(SessionTransfer { from, sender, content, usage, failed, room: None })
}

/// As a snapshot says that it isn't known how far a socket has been used: no socket is used so far.
const UNKNOWN: TcpProgress = TcpProgress::new(u64::MAX, u64::MAX);

fn in_flight_name(worker: WorkerId, number: usize) -> String {
    format!("in-flight.{}.{}.{number}", worker.slot, worker.generation)
}

fn session_name(connection: &str) -> String {
    format!("session-of-{connection}")
}
