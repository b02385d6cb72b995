//! The facts about a connection, and its span in the log.
//!
//! Holds data and decides nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tracing::Span;

use crate::protocol::ids::{AffinityKey, ConnectionId, Generation, SlotId, Timestamp};
use crate::protocol::message::ConnectionRecord;

/// The facts about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Names it in the primary's logs and in the worker's.
    pub id: ConnectionId,
    /// The client.
    pub client: SocketAddr,
    /// The address that the primary listens on, with an unspecified IP address if that is everywhere; without
    /// a primary, the one that the client connected to. See
    /// [`Connection::local_addr`](crate::worker::Connection::local_addr), too.
    pub local: SocketAddr,
    /// The same number for the same client.
    pub key: AffinityKey,
    /// When the primary accepted it.
    pub accepted_at: Timestamp,
    /// The slot that serves it.
    pub slot: SlotId,
    /// The generation of that slot's worker.
    pub generation: Generation,
    /// The primary's: goes back to it with the record.
    tag: u64,
}

impl ConnectionInfo {
    pub(crate) fn new(record: &ConnectionRecord, slot: SlotId, generation: Generation) -> Self {
        let ConnectionRecord { id, accepted_at, key, client, local, tag } = *record;
        Self { id, client, local, key, accepted_at, slot, generation, tag }
    }

    /// That of a connection that no worker has accepted.
    pub(crate) fn from_stream(stream: &TcpStream) -> Self {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            id: ConnectionId(0),
            client: stream.peer_addr().unwrap_or(unknown),
            local: stream.local_addr().unwrap_or(unknown),
            key: AffinityKey(0),
            accepted_at: Timestamp::now(),
            slot: SlotId(0),
            generation: Generation(0),
            tag: 0,
        }
    }

    pub(crate) fn record(&self) -> ConnectionRecord {
        let Self { id, accepted_at, key, client, local, tag, .. } = *self;
        ConnectionRecord { id, accepted_at, key, client, local, tag }
    }

    /// How long ago the primary accepted it.
    #[must_use]
    pub fn age(&self) -> Duration {
        Timestamp::now().since(self.accepted_at)
    }

    /// A span for what is logged about this connection, with the fields `connection`, `client`,
    /// `slot`, `generation` and `pid`. It has no parent, and does nothing where level debug is off.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use sticky_lb::worker::Connection;
    /// # async fn serve(connection: Connection) {}
    /// # fn run(connection: Connection) {
    /// use tracing::Instrument;
    ///
    /// let span = connection.info().span();
    /// tokio::spawn(serve(connection).instrument(span));
    /// # }
    /// ```
    #[must_use]
    pub fn span(&self) -> Span {
        tracing::debug_span!(
            parent: None,
            "connection",
            connection = self.id.0,
            client = %self.client,
            slot = self.slot.0,
            generation = self.generation.0,
            pid = std::process::id(),
        )
    }
}
