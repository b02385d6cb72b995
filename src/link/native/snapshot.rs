//! A channel and the connections on it, written down for the successor that this program becomes, and
//! read again: exactly as they are.

use std::os::fd::OwnedFd;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::handover::descriptors::{Descriptors, TakeOverError};
use crate::link::in_flight::{Counts, InFlight};
use crate::link::native::outbox::Outbox;
use crate::link::native::resync::Past;
use crate::link::native::{Channel, Content, Parcel, PendingConnection};
use crate::protocol::ids::{ConnectionId, SlotId, Timestamp, WorkerId};
use crate::protocol::message::ConnectionRecord;
use crate::protocol::tcp_progress::Usage;

/// A channel without its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChannelDocument {
    counts: Counts,
    credits: usize,
    hello_received: bool,
    ready: bool,
    takes_sessions: bool,
    pings: u64,
    censuses: u64,
    offered: Vec<ConnectionId>,
    outbox: Outbox,
    past: Past,
    unsettled: Vec<UnsettledDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
struct UnsettledDocument {
    id: ConnectionId,
    sent_at: Timestamp,
    connection: Option<ConnectionDocument>,
}

/// A connection without its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConnectionDocument {
    record: ConnectionRecord,
    crashes: u8,
    parcel: Option<ParcelDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ParcelDocument {
    from: SlotId,
    sender: Option<WorkerId>,
    /// As base64; nothing where it is a file.
    inline: Option<String>,
    usage: Usage,
    failed: Vec<SlotId>,
}

impl Channel {
    /// Writes it down; its descriptors go to `descriptors`.
    pub fn pack(self, worker: WorkerId, descriptors: &mut Descriptors) -> ChannelDocument {
        let mut add = |name: String, descriptor: OwnedFd| descriptors.insert(name, descriptor);
        let names = self.descriptors().map(|(part, _)| part.name(worker));
        for (name, descriptor) in names.into_iter().zip([self.socket, self.worker_end, self.page]) {
            add(name, descriptor);
        }
        let (counts, credits) = (self.in_flight.counts(), self.in_flight.credits());
        let unsettled = self.in_flight.into_entries().enumerate();
        let unsettled = unsettled.map(|(number, (id, sent_at, connection))| {
            let name = unsettled_name(worker, number);
            let connection = connection.map(|it| it.pack(&name, descriptors));
            UnsettledDocument { id, sent_at, connection }
        });
        ChannelDocument {
            counts,
            credits,
            hello_received: self.hello_received,
            ready: self.ready,
            takes_sessions: self.takes_sessions,
            pings: self.pings,
            censuses: self.censuses,
            offered: self.offered,
            outbox: self.outbox,
            past: self.past,
            unsettled: unsettled.collect(),
        }
    }

    /// Reads it. Its worker is asked what this primary may have to know of it beyond that, unless it is
    /// asked already.
    ///
    /// # Errors
    ///
    /// If a descriptor is missing, or what is written is no channel.
    pub fn unpack(
        document: ChannelDocument,
        worker: WorkerId,
        descriptors: &mut Descriptors,
    ) -> Result<Self, TakeOverError> {
        let unsettled = document.unsettled.into_iter().enumerate().map(|(number, one)| {
            let name = unsettled_name(worker, number);
            let connection = one.connection.map(|it| it.unpack(&name, descriptors)).transpose()?;
            Ok((one.id, one.sent_at, connection))
        });
        let unsettled = unsettled.collect::<Result<Vec<_>, TakeOverError>>()?;
        let mut channel = Self::of(worker, descriptors, document.credits)?;
        channel.in_flight = InFlight::restore(document.credits, document.counts, unsettled);
        channel.hello_received = document.hello_received;
        channel.ready = document.ready;
        channel.takes_sessions = document.takes_sessions;
        channel.pings = document.pings;
        channel.censuses = document.censuses;
        channel.offered = document.offered;
        channel.outbox = document.outbox;
        channel.past = document.past;
        if !channel.past.is_asked() {
            channel.ask();
        }
        Ok(channel)
    }
}

impl PendingConnection {
    /// Writes it down; its descriptors go to `descriptors`, under this name.
    pub fn pack(self, name: &str, descriptors: &mut Descriptors) -> ConnectionDocument {
        descriptors.insert(name, self.socket);
        let parcel = self.parcel.map(|parcel| {
            let Parcel { from, sender, content, usage, failed } = *parcel;
            let content = match content {
                // Whoever gets it knows nothing of the ledger. Without memory for it, nobody takes it.
                Content::Ledger(ledger, entry) => Content::of_ledger(&ledger, &entry)
                    .unwrap_or_else(|_| Content::Inline(Vec::new())),
                other => other,
            };
            let inline = match content {
                Content::Ledger(..) => None,
                Content::Inline(bytes) => Some(BASE64.encode(&bytes)),
                Content::Memory(memory) => {
                    descriptors.insert(parcel_name(name), memory);
                    None
                }
            };
            ParcelDocument { from, sender, inline, usage, failed }
        });
        ConnectionDocument { record: self.record, crashes: self.crashes, parcel }
    }
}

impl ConnectionDocument {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// If a descriptor is missing, or what is written is no connection.
    pub fn unpack(
        self,
        name: &str,
        descriptors: &mut Descriptors,
    ) -> Result<PendingConnection, TakeOverError> {
        let socket = descriptors.require(name)?;
        let parcel = self.parcel.map(|parcel| {
            let content = match parcel.inline {
                None => Content::Memory(descriptors.require(&parcel_name(name))?),
                Some(text) => Content::Inline(
                    BASE64
                        .decode(text.as_bytes())
                        .map_err(|_| TakeOverError::Malformed("a session's parcel"))?,
                ),
            };
            let ParcelDocument { from, sender, usage, failed, .. } = parcel;
            Ok(Box::new(Parcel { from, sender, content, usage, failed }))
        });
        let parcel = parcel.transpose()?;
        Ok(PendingConnection { record: self.record, socket, crashes: self.crashes, parcel })
    }
}

fn unsettled_name(worker: WorkerId, number: usize) -> String {
    format!("unsettled.{}.{}.{number}", worker.slot, worker.generation)
}

fn parcel_name(name: &str) -> String {
    format!("parcel-of-{name}")
}
