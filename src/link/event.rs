//! Events of a link: what a worker has said, in the same words for every dialect.

use std::time::Duration;

use crate::handover::carry;
use crate::handover::link::SessionReportSnapshot;
use crate::link::connection::{Offer, PendingConnection};
use crate::link::interface::Interface;
use crate::link::node::ports::PortRequest;
use crate::link::protection::ProtectionEvent;
use crate::protocol::ids::{AffinityKey, ConnectionId, Timestamp};

/// One message of a worker.
#[derive(Debug)]
pub enum LinkEvent {
    /// There is no message now.
    Nothing,
    /// The worker has attached.
    Attached,
    /// The worker takes connections.
    Ready,
    /// The worker has acknowledged so many connections: [`Link::complete`](crate::link::Link::complete) gives them.
    Acknowledged(u64),
    /// The worker did not take these connections; they are the primary's again.
    Refused(Vec<PendingConnection>),
    /// The worker's loop is alive.
    Pong,
    /// The worker asks to be drained and replaced.
    ReplaceMe,
    /// A message about sessions.
    Session(SessionEvent),
    /// The worker has ended its channel and goes on with the connections that it has.
    Left,
    /// It is known now what the worker speaks. The descriptor to watch is another one since.
    Speaks(Interface),
    /// Something that the operator should know.
    Note(WorkerNote),
    /// A message of the worker's program, as it was sent.
    App(Vec<u8>),
    /// The worker's program asks for an address beside the front's port, and waits for [`Link::opened`].
    ///
    /// [`Link::opened`]: crate::link::Link::opened
    Listen(Box<PortRequest>),
    /// The worker's program has closed the shared socket of this name.
    StoppedListening(String),
}

/// Something about a worker's program that the operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkerNote {
    /// It listens on another TCP port than the front's, and not on that.
    OtherPort(u16),
    /// It listens on the front's port.
    FrontPort,
    /// It opens a server on a descriptor of the primary's, or on no address, which was refused.
    OtherServer,
    /// It was refused an address that its user may not have.
    NotAllowed,
    /// It was refused an address, since too many are open.
    TooManyPorts,
    /// It runs on Bun, whose servers take no connections from a primary.
    Bun,
    /// It listens on the front's port by another socket than it was given, and so takes clients of other slots.
    OwnListener,
    /// It has sent a line that is no JSON.
    Malformed,
    /// It has ignored so many messages that further ones were dropped.
    Dropped,
}

/// The sessions of a worker, as it has reported them to a primary that follows another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResyncReport {
    /// It has offered these at these times and waits for an answer; the last number is the tag of the record.
    pub offers: Vec<(ConnectionId, Timestamp, u64)>,
    /// It has taken these, by their tags.
    pub taken: Vec<(ConnectionId, u64)>,
}

carry!(struct ResyncReport => SessionReportSnapshot { offers, taken });

/// A message about sessions: migration, protection, closes, resynchronisation.
#[derive(Debug)]
pub enum SessionEvent {
    /// The worker migrates sessions and takes those of others.
    Enabled,
    /// The worker offers a session and waits for the answer.
    Offered(Box<Offer>),
    /// The worker has offered a session that cannot migrate. It was answered: the session is returned.
    NotMigratable(ConnectionId),
    /// Sessions of the worker that could migrate.
    Listed {
        /// Ids and affinity keys.
        keys: Vec<(ConnectionId, AffinityKey)>,
        /// The list is complete.
        complete: bool,
    },
    /// The worker asks to close so many clients within that time.
    CloseRequest(u32, Duration),
    /// These sessions, which the worker had just taken, have no handler there that goes on with them.
    Failed(Vec<ConnectionId>),
    /// A message about protected sessions.
    Protection(ProtectionEvent),
    /// The worker has answered a resynchronisation in full.
    Resynced(ResyncReport),
    /// A message without an effect of its own: a part of a longer answer, an answer that comes too late,
    /// or something that the worker has said before.
    Ignored,
}

impl From<SessionEvent> for LinkEvent {
    fn from(event: SessionEvent) -> Self {
        Self::Session(event)
    }
}
