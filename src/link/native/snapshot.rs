//! A channel and the connections on it, written down for the successor that this program becomes, and
//! read again: exactly as they are.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::handover::descriptors::{Descriptors, TakeOverError};
use crate::link::connection::{Content, PendingConnection, SessionTransfer};
use crate::link::event::ResyncReport;
use crate::link::in_flight::{Counts, InFlight};
use crate::link::native::Channel;
use crate::link::native::handshake::HandshakeFlags;
use crate::link::native::outbox::Outbox;
use crate::link::native::resync::{Pending, Resync};
use crate::link::native::sessions::Sessions;
use crate::link::native::transport::Transport;
use crate::protocol::ids::{ConnectionId, SlotId, Timestamp, WorkerId};
use crate::protocol::message::ConnectionRecord;
use crate::protocol::tcp_progress::TcpProgress;

/// A channel without its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChannelDocument {
    counts: Counts,
    credits: usize,
    handshake: HandshakeFlags,
    pings: u64,
    session_lists: u64,
    offered: Vec<ConnectionId>,
    outbox: Outbox,
    resync: ResyncDocument,
    unsettled: Vec<UnsettledDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ResyncDocument {
    is_lost: bool,
    pending: Option<Pending>,
    asked: Option<u64>,
    report: ResyncReport,
    finishes: bool,
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
    transfer: Option<ParcelDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ParcelDocument {
    from: SlotId,
    sender: Option<WorkerId>,
    /// As base64; nothing where it is a file.
    inline: Option<String>,
    usage: TcpProgress,
    failed: Vec<SlotId>,
}

impl ChannelDocument {
    /// Writes a channel down; its descriptors go to `descriptors`.
    pub fn pack(channel: Channel, worker: WorkerId, descriptors: &mut Descriptors) -> Self {
        let Channel { transport, in_flight, handshake, pings, sessions, resync } = channel;
        for (part, descriptor) in transport.into_descriptors() {
            descriptors.insert(part.name(worker), descriptor);
        }
        let (counts, credits) = (in_flight.counts(), in_flight.credits());
        let unsettled = in_flight.into_entries().enumerate();
        let unsettled = unsettled.map(|(number, (id, sent_at, connection))| {
            let name = unsettled_name(worker, number);
            let connection = connection.map(|it| ConnectionDocument::pack(it, &name, descriptors));
            UnsettledDocument { id, sent_at, connection }
        });
        let Resync { is_lost, pending, asked, report, finishes, .. } = resync;
        Self {
            counts,
            credits,
            handshake,
            pings,
            session_lists: sessions.lists,
            offered: sessions.offered,
            outbox: sessions.outbox,
            resync: ResyncDocument { is_lost, pending, asked, report, finishes },
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
        self,
        worker: WorkerId,
        descriptors: &mut Descriptors,
    ) -> Result<Channel, TakeOverError> {
        let unsettled = self.unsettled.into_iter().enumerate().map(|(number, one)| {
            let name = unsettled_name(worker, number);
            let connection = one.connection.map(|it| it.unpack(&name, descriptors)).transpose()?;
            Ok((one.id, one.sent_at, connection))
        });
        let unsettled = unsettled.collect::<Result<Vec<_>, TakeOverError>>()?;
        let in_flight = InFlight::restore(self.credits, self.counts, unsettled);
        let mut channel = Channel::new(Transport::take_over(worker, descriptors)?, in_flight);
        channel.handshake = self.handshake;
        channel.pings = self.pings;
        let (offered, outbox, lists) = (self.offered, self.outbox, self.session_lists);
        channel.sessions = Sessions { offered, outbox, lists };
        let ResyncDocument { is_lost, pending, asked, report, finishes } = self.resync;
        channel.resync = Resync { is_lost, pending, asked, report, finishes, ..Resync::default() };
        if !channel.resync.is_asked() {
            channel.ask();
        }
        Ok(channel)
    }
}

impl ConnectionDocument {
    /// Writes it down; its descriptors go to `descriptors`, under this name.
    pub fn pack(connection: PendingConnection, name: &str, descriptors: &mut Descriptors) -> Self {
        let PendingConnection { record, socket, crashes, transfer } = connection;
        descriptors.insert(name, socket);
        let transfer = transfer.map(|transfer| {
            let SessionTransfer { from, sender, content, usage, failed } = *transfer;
            let content = match content {
                // Whoever gets it knows nothing of the checkpoint. Without memory for it, nobody takes it.
                Content::Checkpoint(checkpoint, entry) => {
                    Content::from_checkpoint(&checkpoint, &entry)
                        .unwrap_or_else(|_| Content::Inline(Vec::new()))
                }
                other => other,
            };
            let inline = match content {
                Content::Checkpoint(..) => None,
                Content::Inline(bytes) => Some(BASE64.encode(&bytes)),
                Content::Memory(memory) => {
                    descriptors.insert(parcel_name(name), memory);
                    None
                }
            };
            ParcelDocument { from, sender, inline, usage, failed }
        });
        Self { record, crashes, transfer }
    }

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
        let transfer = self.transfer.map(|transfer| {
            let content = match transfer.inline {
                None => Content::Memory(descriptors.require(&parcel_name(name))?),
                Some(text) => Content::Inline(
                    BASE64
                        .decode(text.as_bytes())
                        .map_err(|_| TakeOverError::Malformed("a session's transfer"))?,
                ),
            };
            let ParcelDocument { from, sender, usage, failed, .. } = transfer;
            Ok(Box::new(SessionTransfer { from, sender, content, usage, failed }))
        });
        let transfer = transfer.transpose()?;
        Ok(PendingConnection { record: self.record, socket, crashes: self.crashes, transfer })
    }
}

fn unsettled_name(worker: WorkerId, number: usize) -> String {
    format!("unsettled.{}.{}.{number}", worker.slot, worker.generation)
}

fn parcel_name(name: &str) -> String {
    format!("transfer-of-{name}")
}
