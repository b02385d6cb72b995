//! New connections: taken from the backlog, keyed, and limited by the descriptors that may be held.

use std::io;

use crate::closing::ClientSocket;
use crate::frontend::acceptor::{AcceptErrors, Acceptor, Arrival, Look};
use crate::frontend::keys::ClientKeys;
use crate::frontend::listener::Listener;
use crate::frontend::poller::Poller;
use crate::link::record_key::RecordKey;
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::ConnectionRecord;

/// Takes connections from the backlog.
#[derive(Debug)]
pub(super) struct Arrivals {
    acceptor: Acceptor,
    keys: ClientKeys,
    record_key: RecordKey,
    /// A warning was logged that the limit of descriptors is reached.
    is_full: bool,
}

impl Arrivals {
    /// From a listener, unless it is closed; `errors` were counted before.
    ///
    /// # Errors
    ///
    /// If the kernel won't watch it.
    pub(super) fn new(
        listener: Option<Listener>,
        errors: AcceptErrors,
        keys: ClientKeys,
        record_key: RecordKey,
        poller: &Poller,
    ) -> io::Result<Self> {
        let acceptor = Acceptor::new(listener, errors, poller)?;
        Ok(Self { acceptor, keys, record_key, is_full: false })
    }

    /// The listener and the errors, for a successor.
    pub(super) fn into_parts(self) -> (Option<Listener>, AcceptErrors) {
        self.acceptor.into_parts()
    }

    /// The acceptor.
    pub(super) fn acceptor(&mut self) -> &mut Acceptor {
        &mut self.acceptor
    }

    /// Errors of accept so far.
    pub(super) fn errors(&self) -> &AcceptErrors {
        self.acceptor.errors()
    }

    /// Whether the listener is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.acceptor.is_closed()
    }

    /// When the acceptor looks again, if it is paused.
    pub(super) fn paused_until(&self) -> Option<Timestamp> {
        self.acceptor.paused_until()
    }

    /// How clients are keyed.
    pub(super) fn keys(&self) -> &ClientKeys {
        &self.keys
    }

    /// Whether no more may be accepted while so many descriptors are held; logged when that begins and
    /// ends.
    pub(super) fn check_full(&mut self, has_room: bool, max_held: u64) -> bool {
        let is_full = !has_room;
        match (self.is_full, is_full) {
            (false, true) => tracing::warn!(
                held = max_held,
                "descriptors are short for what waits for workers, clients wait in the backlog",
            ),
            (true, false) => tracing::info!("accepting again"),
            _ => {}
        }
        self.is_full = is_full;
        is_full
    }

    /// Looks into the backlog. A connection gets this id.
    ///
    /// # Errors
    ///
    /// If the listener has failed.
    pub(super) fn look(&mut self, id: ConnectionId, now: Timestamp) -> io::Result<Taken> {
        Ok(match self.acceptor.look(now)? {
            Look::Empty => Taken::Empty,
            Look::Paused => Taken::Paused,
            Look::Arrival(Arrival { socket, client, local }) => {
                let key = self.keys.key(client.ip());
                let record = ConnectionRecord { id, accepted_at: now, key, client, local, tag: 0 };
                Taken::Client(self.record_key.tagged(record), socket.into())
            }
        })
    }
}

/// The result of a look into the backlog.
#[derive(Debug)]
pub(super) enum Taken {
    /// A client's connection.
    Client(ConnectionRecord, ClientSocket),
    /// The backlog is empty.
    Empty,
    /// The acceptor pauses.
    Paused,
}
