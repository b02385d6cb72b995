//! The primary's end to one worker, one folder a dialect.
//!
//! Never decides where a connection goes.
//!
//! | file | what it is |
//! |---|---|
//! | [`native`] | the dialect of [`crate::protocol`] |
//! | [`node`] | the dialect of Node's cluster |
//! | [`listen`] | workers that accept their clients themselves: `sd_notify` alone |
//! | `undecided` | native and node, until the worker has written to one of them |
//! | [`dialect`] | the interface that a dialect implements, and its [`Capabilities`] |
//! | [`in_flight`] | connections on their way: credits, order, take-back; common to all dialects |
//! | [`connection`], [`protection`], [`recovered`] | connections and sessions that the primary owns |
//! | [`image_budget`] | room for images of recovered sessions |
//! | [`record_key`] | which records are the primary's own |
//! | [`event`], [`error`] | a worker's messages, and its breaches |
//! | [`interface`] | the names of the dialects |
//! | [`inherit`], [`stats`], [`stats_source`] | what the supervisor hands over to a worker, and knows of its load |
//! | [`seam`] | commands from the supervisor to the frontend, and events back |
//! | [`programs`] | messages of workers' programs, and commands that answer them |
//!
//! A dialect is one folder, one line in [`Link`] and one in `each!`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::handover::descriptors::{Descriptors, RestoreError, WorkerPart};
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::{ConnectionId, Timestamp, WorkerId};

pub mod connection;
pub mod dialect;
pub mod error;
pub mod event;
pub mod evidence;
pub mod image_budget;
pub mod in_flight;
pub mod inherit;
pub mod interface;
pub mod listen;
pub mod native;
pub mod node;
pub mod programs;
pub mod protection;
pub mod record_key;
pub mod recovered;
pub mod seam;
pub mod snapshot;
pub mod stats;
pub mod stats_source;
#[cfg(test)]
mod tests;
pub mod undecided;

pub use dialect::Capabilities;

use connection::PendingConnection;
use dialect::Dialect;
use error::ChannelError;
use event::LinkEvent;
use in_flight::InFlight;
use inherit::{AdoptedFacts, Inherit, WorkerFacts};
use interface::{Interface, InterfaceChoice};
use node::ports::SharedSocket;
use programs::RequestCounts;
use recovered::Recovered;
use undecided::Undecided;

/// The primary's end to one worker.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the native one is on the hot path")]
pub enum Link {
    /// A worker that speaks [`crate::protocol`].
    Native(native::Channel),
    /// A worker that speaks as those of Node's cluster do.
    Node(Box<node::Channel>),
    /// A worker that accepts its clients itself, on a listening socket that it was started with.
    Listen(listen::Channel),
    /// A worker that has said nothing yet.
    Undecided(Box<Undecided>),
}

/// Calls the dialect.
macro_rules! each {
    ($link:expr, $dialect:ident => $call:expr) => {
        match $link {
            Link::Native($dialect) => $call,
            Link::Node($dialect) => $call,
            Link::Listen($dialect) => $call,
            Link::Undecided($dialect) => $call,
        }
    };
}

/// How a slot's worker gets its clients.
#[derive(Debug)]
pub enum Delivery {
    /// The primary accepts them and hands them over through the link.
    HandOff,
    /// The kernel sends them to a listening socket of the worker's own.
    Listener(GroupMember),
}

/// A copy of a listening socket of the group that all workers' sockets are in.
#[derive(Debug)]
pub struct GroupMember {
    /// The socket.
    pub socket: OwnedFd,
}

impl GroupMember {
    /// Its name among the descriptors of a worker that are kept for a successor.
    pub const PART: WorkerPart = WorkerPart::Link("member");

    /// The one of a worker, among what was left.
    #[must_use]
    pub fn take(worker: WorkerId, left: &mut Descriptors) -> Option<Self> {
        left.take(&Self::PART.name(worker)).map(|socket| Self { socket })
    }

    /// Another copy.
    ///
    /// # Errors
    ///
    /// If the kernel has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }
}

/// What the frontend needs of a worker that was started or adopted.
#[derive(Debug)]
pub struct Attached {
    /// The primary's end to it.
    pub link: Link,
    /// How it gets its clients.
    pub delivery: Delivery,
}

impl From<Link> for Attached {
    /// Its connections are handed over.
    fn from(link: Link) -> Self {
        Self { link, delivery: Delivery::HandOff }
    }
}

impl Attached {
    /// A copy of its listening socket; none if it has none or there is no descriptor left.
    #[must_use]
    pub fn copy_of_member(&self) -> Option<GroupMember> {
        match &self.delivery {
            Delivery::HandOff => None,
            Delivery::Listener(member) => member.try_clone().ok(),
        }
    }

    /// With a listening socket of the worker's own, if it has one.
    #[must_use]
    pub fn new(link: Link, member: Option<GroupMember>) -> Self {
        Self { link, delivery: member.map_or(Delivery::HandOff, Delivery::Listener) }
    }
}

impl From<native::Channel> for Link {
    fn from(channel: native::Channel) -> Self {
        Self::Native(channel)
    }
}

impl From<node::Channel> for Link {
    fn from(channel: node::Channel) -> Self {
        Self::Node(Box::new(channel))
    }
}

impl Link {
    /// Makes a link for a new native worker, and what the worker inherits of it. At most `credits`
    /// connections will be unacknowledged at a time.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory or no descriptor left.
    pub fn native(credits: usize) -> io::Result<(Self, Inherit)> {
        native::Channel::create(credits).map(|(channel, inherit)| (channel.into(), inherit))
    }

    /// Makes the link to a worker that is about to start, and all that the worker inherits of it.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory or no descriptor left.
    pub fn start(facts: &WorkerFacts) -> io::Result<(Self, Inherit)> {
        match facts.interface {
            InterfaceChoice::Only(Interface::Native) => {
                native::start(facts).map(|(channel, inherit)| (channel.into(), inherit))
            }
            InterfaceChoice::Only(Interface::Node) => {
                let mut inherit = Inherit::default();
                Ok((node::start(facts, None, &mut inherit)?.into(), inherit))
            }
            InterfaceChoice::Only(Interface::Listen) => {
                listen::start(facts).map(|(channel, inherit)| (Self::Listen(channel), inherit))
            }
            InterfaceChoice::Auto => {
                let (native, mut inherit) = native::start(facts)?;
                let node = node::start(facts, Some(native.page()), &mut inherit)?;
                Ok((Self::undecided(native, node)?, inherit))
            }
        }
    }

    fn undecided(native: native::Channel, node: node::Channel) -> io::Result<Self> {
        Ok(Self::Undecided(Box::new(Undecided::new(native, node)?)))
    }

    /// The link of a worker whose primary has died, from the descriptors that were kept.
    ///
    /// # Errors
    ///
    /// If one of them is missing or is not what it should be.
    pub fn adopt(
        facts: &AdoptedFacts,
        worker: WorkerId,
        descriptors: &mut Descriptors,
    ) -> Result<Self, RestoreError> {
        let has = |part: WorkerPart| descriptors.contains(&part.name(worker));
        if has(listen::PARTS[0]) {
            let waits_for_word = facts.node.wait_ready;
            return listen::adopt(worker, descriptors, waits_for_word).map(Self::Listen);
        }
        let (has_native, has_node) = (has(native::PARTS[0]), has(node::PARTS[0]));
        if !has_node {
            return native::Channel::adopt(worker, descriptors, facts.credits).map(Self::Native);
        }
        let page = snapshot::copy_of_page(worker, descriptors)?;
        let node = Arc::clone(&facts.node);
        let node = node::snapshot::adopt(worker, descriptors, facts.credits, facts.port, node)?;
        if !has_native || node.is_online() {
            return Ok(node.into());
        }
        descriptors.insert(native::PAGE.name(worker), page);
        let native = native::Channel::adopt(worker, descriptors, facts.credits)?;
        if native.is_attached() {
            return Ok(native.into());
        }
        Self::undecided(native, node).map_err(|source| snapshot::unusable(worker, source))
    }

    /// What the worker speaks, if that is known.
    #[must_use]
    pub fn interface(&self) -> Option<Interface> {
        match self {
            Self::Native(_) => Some(Interface::Native),
            Self::Node(_) => Some(Interface::Node),
            Self::Listen(_) => Some(Interface::Listen),
            Self::Undecided(_) => None,
        }
    }

    /// Goes on with the channel that the worker has written to.
    fn decide(&mut self) -> Option<Interface> {
        let Self::Undecided(both) = self else { return None };
        let spoken = both.spoken()?;
        let (native, node) = both.take()?;
        *self = match spoken {
            Interface::Node => node.into(),
            _ => native.into(),
        };
        Some(spoken)
    }

    /// What its dialect and its worker can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        each!(self, it => it.capabilities())
    }

    /// The descriptor to watch for the worker's messages.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        each!(self, it => it.as_fd())
    }

    /// What has to be kept for it to survive this process.
    #[must_use]
    pub fn descriptors(&self) -> Vec<(WorkerPart, BorrowedFd<'_>)> {
        each!(self, it => it.descriptors())
    }

    /// Connections on their way.
    #[must_use]
    pub fn in_flight(&self) -> &InFlight {
        each!(self, it => it.in_flight())
    }

    /// Whether the worker has said that it has attached.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        each!(self, it => it.is_attached())
    }

    /// Whether the worker has said that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        each!(self, it => it.is_ready())
    }

    /// Connections that the worker has, as far as its dialect tells, and those on their way to it.
    #[must_use]
    pub fn load(&self) -> u64 {
        let established = each!(self, it => it.established());
        established.saturating_add(self.in_flight().len() as u64)
    }

    /// How long the oldest connection has been on its way, or the question been open that everything waits
    /// for.
    #[must_use]
    pub fn waiting(&self, now: Timestamp) -> Option<Duration> {
        each!(self, it => it.waits_since()).map(|since| now.since(since))
    }

    /// Sends from the front of `queue` what the credits allow, and returns how many went. The rest stays in
    /// the queue.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end or the kernel failed; nothing more is taken from the queue.
    pub fn send_from(
        &mut self,
        queue: &mut VecDeque<PendingConnection>,
        now: Timestamp,
    ) -> Result<usize, ChannelError> {
        each!(self, it => it.send_from(queue, now))
    }

    /// Reads one message of the worker.
    ///
    /// # Errors
    ///
    /// If the worker breaks the protocol or has closed its end. Its connections are kept for
    /// [`Link::recover`].
    pub fn receive(&mut self) -> Result<LinkEvent, ChannelError> {
        if let Some(interface) = self.decide() {
            return Ok(LinkEvent::Speaks(interface));
        }
        each!(self, it => it.receive())
    }

    /// Gives what the worker has acknowledged to `acknowledged`, to be closed here, and returns how many there
    /// were; `None` where it has refused some, and its messages have to be read first.
    ///
    /// # Errors
    ///
    /// If it completed more than it was sent.
    pub fn complete(
        &mut self,
        acknowledged: impl FnMut(PendingConnection),
    ) -> Result<Option<usize>, ChannelError> {
        each!(self, it => it.complete(acknowledged))
    }

    /// The error of a worker that counts a refusal which no message tells of.
    #[must_use]
    pub fn missing_refusal(&self) -> ChannelError {
        each!(self, it => it.missing_refusal())
    }

    /// Takes back the messages that the worker hasn't received: no worker has their connections. See
    /// [`Dialect::take_back`].
    pub fn take_back(&mut self) -> Vec<PendingConnection> {
        each!(self, it => it.take_back())
    }

    /// Takes back everything that the worker, which must be dead, did not acknowledge, and what it had
    /// offered.
    #[must_use]
    pub fn recover(self) -> Recovered {
        each!(self, it => it.recover())
    }

    /// Orders the worker to drain; no connection follows. Of two orders the last one counts.
    pub fn drain(&mut self, order: DrainOrder) {
        each!(self, it => it.drain(order));
    }

    /// Asks whether the worker's loop is alive, if its dialect can.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end or the kernel failed.
    pub fn ping(&mut self) -> Result<(), ChannelError> {
        each!(self, it => it.ping())
    }

    /// Whether messages wait for room.
    #[must_use]
    pub fn has_outgoing(&self) -> bool {
        each!(self, it => it.has_outgoing())
    }

    /// Sends the messages that wait, as far as there is room.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end or the kernel failed.
    pub fn send_outgoing(&mut self) -> Result<(), ChannelError> {
        each!(self, it => it.send_outgoing())
    }

    /// Whether the worker migrates sessions and takes those of others.
    #[must_use]
    pub fn takes_sessions(&self) -> bool {
        self.capabilities().sessions
    }

    /// Tells a draining worker to close its servers and the connections that are idle, if its dialect can.
    pub fn disconnect(&mut self) {
        each!(self, it => it.disconnect());
    }

    /// A session of the worker is another worker's now.
    pub fn send_moved(&mut self, id: ConnectionId) {
        each!(self, it => it.send_moved(id));
    }

    /// No worker has taken a session of the worker.
    pub fn send_returned(&mut self, id: ConnectionId) {
        each!(self, it => it.send_returned(id));
    }

    /// Orders the worker to offer a session.
    pub fn request_offer(&mut self, id: ConnectionId) {
        each!(self, it => it.request_offer(id));
    }

    /// Asks which sessions could migrate.
    pub fn request_session_list(&mut self) {
        each!(self, it => it.request_session_list());
    }

    /// Allows the worker to close so many clients.
    pub fn grant_closes(&mut self, count: u32) {
        each!(self, it => it.grant_closes(count));
    }

    /// Whether it isn't known yet what the primary before has sent.
    #[must_use]
    pub fn is_resyncing(&self) -> bool {
        each!(self, it => it.is_resyncing())
    }

    /// When a session was last sent to it, by this primary or one before; 0 if none was.
    #[must_use]
    pub fn last_session(&self) -> Timestamp {
        each!(self, it => it.last_session())
    }

    /// Whether the worker has asked a primary that has died to be replaced.
    #[must_use]
    pub fn asked_for_replacement(&self) -> bool {
        each!(self, it => it.asked_for_replacement())
    }

    /// Goes on from where the primary before has died, once that can be known. Returns how many connections
    /// the worker has acknowledged and that are not counted.
    pub fn complete_resync(&mut self) -> Option<u64> {
        each!(self, it => it.complete_resync())
    }

    /// Sessions that [`Link::take_back`] has found, which another primary had sent.
    pub fn take_found(&mut self) -> Vec<PendingConnection> {
        each!(self, it => it.take_found())
    }

    /// Answers a [`LinkEvent::Listen`]: with the socket, or the reason why there is none. To be called before
    /// anything else is received.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end or the kernel failed.
    pub fn opened(&mut self, socket: Result<SharedSocket, Errno>) -> Result<(), ChannelError> {
        match self {
            Self::Node(node) => node.opened(socket),
            _ => Ok(()),
        }
    }

    /// Its worker accepts its clients itself, by this listening socket, if its dialect passes such a one later than at the
    /// start.
    pub fn listen_itself(&mut self, member: &GroupMember) {
        if let Self::Node(node) = self
            && let Ok(copy) = member.try_clone()
        {
            node.listen_itself(Arc::new(copy.socket.into()));
        }
    }

    /// The names of the shared sockets that its program has open.
    #[must_use]
    pub fn shared_ports(&self) -> Vec<String> {
        match self {
            Self::Node(node) => node.shared_ports(),
            _ => Vec::new(),
        }
    }

    /// When [`Link::probe`] is to be called, if its program may have to be probed.
    #[must_use]
    pub fn next_probe(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Node(node) => node.next_probe(now),
            _ => None,
        }
    }

    /// Looks whether its program has taken a connection of the primary's own, and sends the next one if it is due.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end or the kernel failed.
    pub fn probe(&mut self, now: Timestamp) -> Result<Option<LinkEvent>, ChannelError> {
        match self {
            Self::Node(node) => node.probe(now),
            _ => Ok(None),
        }
    }

    /// Whether its worker is ready but for a connection that shows it: one that accepts its clients itself.
    #[must_use]
    pub fn awaits_probe(&self) -> bool {
        match self {
            Self::Listen(listen) => listen.awaits_probe(),
            _ => false,
        }
    }

    /// Notes that its worker has accepted a connection of the primary's own; whether that is news.
    pub fn note_attached(&mut self) -> bool {
        match self {
            Self::Listen(listen) => listen.note_attached(),
            _ => false,
        }
    }

    /// Notes how many of its sessions are protected. No system call.
    pub fn note_protected(&self, count: u64) {
        each!(self, it => it.note_protected(count));
    }

    /// Notes what is counted, for a primary that has to go on from here. No system call.
    pub fn publish_counts(&mut self) {
        each!(self, it => it.publish_counts());
    }

    /// Sends the worker's program a message, a line with its end; false if too many wait already.
    pub fn tell(&mut self, line: &Arc<[u8]>) -> bool {
        each!(self, it => it.tell(line))
    }

    /// Notes what the worker's program has said of its requests. No system call.
    pub fn note_requests(&self, noted: &RequestCounts) {
        each!(self, it => it.note_requests(noted));
    }
}
