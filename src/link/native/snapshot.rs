//! A channel and the connections on it as plain data, for the successor that this program becomes:
//! exactly as they are.

use data_encoding::BASE64;

use crate::handover::Carry;
use crate::handover::descriptors::{Descriptors, RestoreError, WorkerPart};
use crate::handover::link::{
    ChannelSnapshot, ConnectionSnapshot, InFlightSnapshot, SessionSnapshot,
};
use crate::link::native::{Channel, Content, Parcel, PendingConnection, Unsettled};
use crate::protocol::ids::WorkerId;
use crate::protocol::tcp_progress::Usage;

/// The descriptors of a link of this dialect: the primary's end, the worker's end and the scoreboard's
/// memory.
pub const PARTS: [WorkerPart; 3] =
    [WorkerPart::Link("channel"), WorkerPart::Link("worker-end"), WorkerPart::Link("scoreboard")];

/// The workers that have a link of this dialect among these descriptors, perhaps an incomplete one.
#[must_use]
pub fn workers(descriptors: &Descriptors) -> Vec<WorkerId> {
    descriptors.workers_with(PARTS[0])
}

impl Channel {
    /// As plain data; its descriptors go to `descriptors`.
    pub fn into_snapshot(self, worker: WorkerId, descriptors: &mut Descriptors) -> ChannelSnapshot {
        for (part, descriptor) in PARTS.into_iter().zip([self.socket, self.worker_end, self.page]) {
            descriptors.insert(part.name(worker), descriptor);
        }
        let in_flight = self.unsettled.into_iter().enumerate().map(|(number, one)| {
            let name = in_flight_name(worker, number);
            let connection = one.connection.map(|it| it.into_snapshot(&name, descriptors));
            InFlightSnapshot { id: one.id, sent_at: one.sent_at, connection }
        });
        ChannelSnapshot {
            in_flight: in_flight.collect(),
            settled: self.settled,
            refused: self.refused,
            acknowledged: self.acknowledged,
            credits: self.credits,
            hello_received: self.hello_received,
            ready: self.ready,
            takes_sessions: self.takes_sessions,
            pings: self.pings,
            censuses: self.censuses,
            offered: self.offered,
            outbox: self.outbox.snapshot(),
            resync: self.past.snapshot(),
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
    ) -> Result<Self, RestoreError> {
        let in_flight = snapshot.in_flight.into_iter().enumerate().map(|(number, one)| {
            let name = in_flight_name(worker, number);
            let restore = |it| PendingConnection::restore(it, &name, descriptors);
            let connection = one.connection.map(restore).transpose()?;
            Ok(Unsettled { id: one.id, sent_at: one.sent_at, connection })
        });
        let in_flight = in_flight.collect::<Result<Vec<_>, RestoreError>>()?;
        let mut channel = Self::of(worker, descriptors, snapshot.credits)?;
        channel.unsettled.extend(in_flight);
        channel.settled = snapshot.settled;
        channel.refused = snapshot.refused;
        channel.acknowledged = snapshot.acknowledged;
        channel.hello_received = snapshot.hello_received;
        channel.ready = snapshot.ready;
        channel.takes_sessions = snapshot.takes_sessions;
        channel.pings = snapshot.pings;
        channel.censuses = snapshot.censuses;
        channel.offered = snapshot.offered;
        channel.outbox = Carry::restore(snapshot.outbox);
        channel.past = Carry::restore(snapshot.resync);
        channel.sessions_changed = true;
        if !channel.past.is_asked() {
            channel.ask();
        }
        Ok(channel)
    }
}

impl PendingConnection {
    /// As plain data; its descriptors go to `descriptors`, under this name.
    pub fn into_snapshot(self, name: &str, descriptors: &mut Descriptors) -> ConnectionSnapshot {
        descriptors.insert(name, self.socket);
        let session = self.parcel.map(|parcel| session_snapshot(*parcel, name, descriptors));
        ConnectionSnapshot { record: self.record.snapshot(), crashes: self.crashes, session }
    }

    /// As it was.
    ///
    /// # Errors
    ///
    /// If a descriptor is missing, or the snapshot is malformed.
    pub fn restore(
        snapshot: ConnectionSnapshot,
        name: &str,
        descriptors: &mut Descriptors,
    ) -> Result<Self, RestoreError> {
        let socket = descriptors.require(name)?;
        let session = snapshot.session.map(|session| restored_session(session, name, descriptors));
        let (record, crashes) = (Carry::restore(snapshot.record), snapshot.crashes);
        Ok(Self { record, socket, crashes, parcel: session.transpose()?.map(Box::new) })
    }
}

fn session_snapshot(parcel: Parcel, name: &str, descriptors: &mut Descriptors) -> SessionSnapshot {
    let Parcel { from, sender, content, usage, failed } = parcel;
    let content = match content {
        // Its receiver doesn't know the checkpoint. Without memory for a copy, nobody takes it.
        Content::Ledger(ledger, entry) => {
            Content::of_ledger(&ledger, &entry).unwrap_or_else(|_| Content::Inline(Vec::new()))
        }
        other => other,
    };
    let inline = match content {
        Content::Ledger(..) => None,
        Content::Inline(bytes) => Some(BASE64.encode(&bytes)),
        Content::Memory(memory) => {
            descriptors.insert(session_name(name), memory);
            None
        }
    };
    SessionSnapshot { from, sender, inline, progress: usage.counts(), failed }
}

fn restored_session(
    snapshot: SessionSnapshot,
    name: &str,
    descriptors: &mut Descriptors,
) -> Result<Parcel, RestoreError> {
    let SessionSnapshot { from, sender, inline, progress: (consumed, written), failed } = snapshot;
    let content = match inline {
        None => Content::Memory(descriptors.require(&session_name(name))?),
        Some(text) => {
            let bytes = BASE64.decode(text.as_bytes());
            Content::Inline(bytes.map_err(|_| RestoreError::Malformed("a session"))?)
        }
    };
    Ok(Parcel { from, sender, content, usage: Usage::new(consumed, written), failed })
}

fn in_flight_name(worker: WorkerId, number: usize) -> String {
    format!("in-flight.{}.{}.{number}", worker.slot, worker.generation)
}

fn session_name(connection: &str) -> String {
    format!("session-of-{connection}")
}
