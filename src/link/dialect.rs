//! The interface of a link: what the primary can do with a worker, whatever the worker speaks.
//!
//! A dialect implements [`Dialect`]. The methods with a default are for workers that can do more: the
//! defaults are what a dialect does that can't, and its [`Capabilities`] say so.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::handover::descriptors::WorkerPart;
use crate::link::connection::PendingConnection;
use crate::link::error::ChannelError;
use crate::link::event::{LinkEvent, SessionEvent};
use crate::link::in_flight::InFlight;
use crate::link::programs::RequestCounts;
use crate::link::recovered::Recovered;
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::{ConnectionId, Timestamp};

/// What a dialect can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// So many connections go in one message.
    pub batch: usize,
    /// It answers pings.
    pub ping: bool,
    /// Its worker migrates sessions and takes those of others.
    pub sessions: bool,
    /// It acknowledges each connection.
    pub acknowledges: bool,
    /// Its worker closes WebSockets with a close frame when it drains.
    pub close_frames: bool,
    /// Where the number of its connections comes from.
    pub load: LoadSource,
}

impl Capabilities {
    /// The least: connections are handed over one by one and acknowledged.
    pub const HAND_OFF: Self = Self {
        batch: 1,
        ping: false,
        sessions: false,
        acknowledges: true,
        close_frames: false,
        load: LoadSource::InFlight,
    };
}

/// Where the number of a worker's connections comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadSource {
    /// The worker counts those that it has, and the primary those on their way.
    Worker,
    /// The kernel says now and then how many its process has, and the primary counts those on their way.
    Kernel,
    /// Only those on their way are known.
    InFlight,
}

/// One end of a connection to a worker.
pub trait Dialect: Sized {
    /// The descriptor to watch for the worker's messages.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// Connections on their way.
    fn in_flight(&self) -> &InFlight;

    /// Connections on their way.
    fn in_flight_mut(&mut self) -> &mut InFlight;

    /// Sends the first `count` connections of `queue` as one message; false if there is no room. A session is
    /// sent alone.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end or the kernel failed; nothing was sent.
    fn send(
        &mut self,
        queue: &VecDeque<PendingConnection>,
        count: usize,
    ) -> Result<bool, ChannelError>;

    /// Reads one message of the worker.
    ///
    /// # Errors
    ///
    /// If the worker breaks the protocol or has closed its end. Its connections are kept for
    /// [`Dialect::recover`].
    fn receive(&mut self) -> Result<LinkEvent, ChannelError>;

    /// Gives what the worker has acknowledged to `acknowledged`, to be closed here, and returns how many there
    /// were; `None` where it has refused some, and its messages have to be read first.
    ///
    /// # Errors
    ///
    /// If it completed more than it was sent.
    fn complete(
        &mut self,
        acknowledged: impl FnMut(PendingConnection),
    ) -> Result<Option<usize>, ChannelError>;

    /// Takes back the messages that the worker hasn't received: no worker has their connections. Those that
    /// it has received and not acknowledged stay on their way. Other messages are sent again. From a link that
    /// was adopted and is not resynchronised yet, connections that the primary before has sent come back, too;
    /// sessions among them through [`Dialect::take_found`].
    fn take_back(&mut self) -> Vec<PendingConnection>;

    /// Orders the worker to drain; no connection follows. Of two orders the last one counts.
    fn drain(&mut self, order: DrainOrder);

    /// What it can do.
    fn capabilities(&self) -> Capabilities {
        Capabilities::HAND_OFF
    }

    /// What has to be kept for it to survive this process.
    fn descriptors(&self) -> Vec<(WorkerPart, BorrowedFd<'_>)> {
        Vec::new()
    }

    /// Whether the worker has said that it has attached, as far as that is known after a crash of the primary.
    fn is_attached(&self) -> bool {
        false
    }

    /// Whether the worker has said that it is ready, as far as that is known after a crash of the primary.
    fn is_ready(&self) -> bool {
        false
    }

    /// Sends from the front of `queue` what the credits allow, and returns how many went. The rest stays in
    /// the queue.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end or the kernel failed; nothing more is taken from the queue.
    fn send_from(
        &mut self,
        queue: &mut VecDeque<PendingConnection>,
        now: Timestamp,
    ) -> Result<usize, ChannelError> {
        if self.is_resyncing() {
            return Ok(0);
        }
        let batch = self.capabilities().batch;
        let mut sent = 0;
        loop {
            let most = queue.len().min(self.in_flight().room()).min(batch);
            let clients = queue.iter().take(most).take_while(|one| one.transfer.is_none()).count();
            let count = if clients == 0 { most.min(1) } else { clients };
            if count == 0 || !self.send(queue, count)? {
                return Ok(sent);
            }
            self.in_flight_mut().sent(queue.drain(..count), now);
            sent += count;
        }
    }

    /// Takes back everything that the worker, which must be dead, did not acknowledge, and what it had
    /// offered.
    fn recover(mut self) -> Recovered {
        let mut recovered = Recovered { untouched: self.take_back(), ..Recovered::default() };
        // Messages that it sent before it died count.
        loop {
            match self.receive() {
                Ok(LinkEvent::Nothing | LinkEvent::Left) | Err(_) => break,
                Ok(LinkEvent::Refused(connections)) => recovered.untouched.extend(connections),
                Ok(LinkEvent::Session(SessionEvent::Offered(offer))) => {
                    recovered.offered.push(*offer);
                }
                Ok(LinkEvent::Session(SessionEvent::Protection(said))) => {
                    recovered.last_words.push(said);
                }
                Ok(_) => {}
            }
        }
        recovered.found = self.take_found();
        recovered.uncounted = self.uncounted();
        // It may have died between a refusal and its count: then there is nothing to wait for.
        let _ = self.complete(|connection| recovered.acknowledged.push(connection));
        recovered.in_flight.extend(self.in_flight_mut().drain());
        recovered
    }

    /// The error of a worker that counts a refusal which no message tells of.
    fn missing_refusal(&self) -> ChannelError {
        ChannelError::Closed
    }

    /// Connections that the worker has, by its own count.
    fn established(&self) -> u64 {
        0
    }

    /// Since when the oldest connection has been on its way, or the question been open that everything waits
    /// for.
    fn waits_since(&self) -> Option<Timestamp> {
        self.in_flight().oldest()
    }

    /// Asks whether the worker's loop is alive. A full channel is no error: the worker will answer what is in
    /// it.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end or the kernel failed.
    fn ping(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }

    /// Whether messages wait for room.
    fn has_outgoing(&self) -> bool {
        false
    }

    /// Sends the messages that wait, as far as there is room.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end or the kernel failed.
    fn send_outgoing(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }

    /// Tells a draining worker to close its servers and the connections that are idle.
    fn disconnect(&mut self) {}

    /// A session of the worker is another worker's now.
    fn send_moved(&mut self, _id: ConnectionId) {}

    /// No worker has taken a session of the worker.
    fn send_returned(&mut self, _id: ConnectionId) {}

    /// Orders the worker to offer a session.
    fn request_offer(&mut self, _id: ConnectionId) {}

    /// Asks which sessions could migrate.
    fn request_session_list(&mut self) {}

    /// Allows the worker to close so many clients.
    fn grant_closes(&mut self, _count: u32) {}

    /// Whether it isn't known yet what the primary before has sent.
    fn is_resyncing(&self) -> bool {
        false
    }

    /// When a session was last sent to it, by this primary or one before; 0 if none was.
    fn last_session(&self) -> Timestamp {
        Timestamp(0)
    }

    /// Whether the worker has asked a primary that has died to be replaced.
    fn asked_for_replacement(&self) -> bool {
        false
    }

    /// Goes on from where the primary before has died, once that can be known. Returns how many connections
    /// the worker has acknowledged and that are not counted.
    fn complete_resync(&mut self) -> Option<u64> {
        None
    }

    /// Connections that the worker has acknowledged, and that the primary before has died without counting.
    fn uncounted(&self) -> u64 {
        0
    }

    /// Sessions that [`Dialect::take_back`] has found, which another primary had sent: it is not known which
    /// worker has offered them.
    fn take_found(&mut self) -> Vec<PendingConnection> {
        Vec::new()
    }

    /// Notes how many of its sessions are protected. No system call.
    fn note_protected(&self, _count: u64) {}

    /// Notes what is counted, for a primary that has to go on from here. No system call.
    fn publish_counts(&mut self) {}

    /// Sends the worker's program a message, a line with its end; false if too many wait already. Nothing to a
    /// worker whose programs get none.
    fn tell(&mut self, _line: &Arc<[u8]>) -> bool {
        true
    }

    /// Notes what the worker's program has said of its requests. No system call.
    fn note_requests(&self, _noted: &RequestCounts) {}
}
