//! The primary's end to one worker, and the connections that are on their way, as plain data.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::handover::carry;
use crate::handover::pool::DrainOrderSnapshot;
use crate::handover::settings::NodeSettingsSnapshot;
use crate::protocol::ids::{AffinityKey, ConnectionId, SlotId, Timestamp, WorkerId};
use crate::protocol::message::ConnectionRecord;

/// A link without its descriptors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LinkSnapshot {
    /// Of the native dialect.
    Native(Box<ChannelSnapshot>),
    /// Of Node's.
    Node(Box<NodeChannelSnapshot>),
    /// Of a worker that accepts its clients itself: all else that is known of it is in its scoreboard.
    Listen { waits_for_word: bool },
    /// Of a worker that has said nothing yet.
    Undecided(Box<ChannelSnapshot>, Box<NodeChannelSnapshot>),
}

/// A link of Node's dialect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeChannelSnapshot {
    pub in_flight: NodeInFlightSnapshot,
    /// The beginning of a line, in base64.
    pub begun: String,
    /// Lines that wait for room, in base64.
    pub outgoing: String,
    pub settings: NodeSettingsSnapshot,
    pub port: u16,
    pub seq: u64,
}

/// Connections on their way to a Node worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeInFlightSnapshot {
    pub counts: CountsSnapshot,
    pub credits: usize,
    pub connections: Vec<InFlightSnapshot>,
    pub completed: u64,
    pub acknowledged: usize,
    /// The connection, none for a ping or a shared socket; the number of its message, or of the query that a shared
    /// socket is for; whether it is done.
    pub handed: Vec<(Option<ConnectionId>, Option<u64>, bool)>,
}

/// A link of the native dialect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelSnapshot {
    pub counts: CountsSnapshot,
    pub credits: usize,
    pub handshake: HandshakeSnapshot,
    pub pings: u64,
    pub lists: u64,
    pub offered: Vec<ConnectionId>,
    pub outbox: OutboxSnapshot,
    pub resync: ResyncSnapshot,
    pub in_flight: Vec<InFlightSnapshot>,
}

/// The connections of a worker since its start, by its own count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountsSnapshot {
    pub completed: u64,
    pub refused: u64,
    pub acknowledged: u64,
}

/// The messages that a worker sends once, as far as they have come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandshakeSnapshot {
    pub hello_received: bool,
    pub ready: bool,
    pub takes_sessions: bool,
}

/// Messages that wait for room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutboxSnapshot {
    pub question: Option<QuestionSnapshot>,
    pub moved: Vec<ConnectionId>,
    pub returned: Vec<ConnectionId>,
    pub drain: Option<DrainOrderSnapshot>,
    pub session_lists: u32,
    pub moves: Vec<ConnectionId>,
    pub close_grants: u32,
}

/// The question to a worker that had another primary before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum QuestionSnapshot {
    Ping,
    Resync(u64),
}

/// The open questions about a worker that had another primary before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResyncSnapshot {
    pub is_lost: bool,
    pub pending: Option<PendingSnapshot>,
    pub asked: Option<u64>,
    pub report: SessionReportSnapshot,
    pub finishes: bool,
}

/// The facts until the worker has answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingSnapshot {
    pub slot: SlotId,
    pub since: Timestamp,
    pub has_reported: bool,
    pub received_since: Option<Timestamp>,
    pub counted: u64,
}

/// A worker's report of its sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionReportSnapshot {
    pub offers: Vec<(ConnectionId, Timestamp, u64)>,
    pub taken: Vec<(ConnectionId, u64)>,
}

/// A connection that was sent and not acknowledged; none if it was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InFlightSnapshot {
    pub id: ConnectionId,
    pub sent_at: Timestamp,
    pub connection: Option<ConnectionSnapshot>,
}

/// A connection without its descriptors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionSnapshot {
    pub record: RecordSnapshot,
    pub crashes: u8,
    pub session: Option<SessionSnapshot>,
}

/// The record that travels with a connection's descriptor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordSnapshot {
    pub id: ConnectionId,
    pub accepted_at: Timestamp,
    pub key: AffinityKey,
    pub client: SocketAddr,
    pub local: SocketAddr,
    pub tag: u64,
}

/// The state of a session that migrates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionSnapshot {
    pub from: SlotId,
    pub sender: Option<WorkerId>,
    /// In base64; none if it is in memory of its own.
    pub inline: Option<String>,
    /// Bytes read from its socket, and bytes written.
    pub progress: (u64, u64),
    pub failed: Vec<SlotId>,
}

carry!(struct ConnectionRecord => RecordSnapshot { id, accepted_at, key, client, local, tag });
