//! The primary's end of the channel to one worker: what was sent, what is acknowledged, and how
//! to get back what is not.
//!
//! Never waits and never decides where a connection goes; it says what happened.
//!
//! # Promises
//!
//! * A connection given to [`Channel::send_from`] stays in the sender's queue or is kept here until
//!   the worker has acknowledged it. There is no third place.
//! * A session that the worker has offered is its own again when it hears `returned`, and no more
//!   its own when it hears `moved`; one of the two it hears.
//! * The primary's copy is closed as soon as the acknowledgement is seen: a copy kept longer would
//!   withhold the FIN from the client.
//! * What another primary has sent before, and died, is the worker's, or is found in the channel
//!   unread, or was lost with both. Until it is known which, nothing is sent.
//!
//! # Pitfalls
//!
//! The primary keeps the worker's end open too, to take back messages that a stalled or dead
//! worker never received: what is read there is read exactly once, by the worker or by us. So the
//! channel does not end when the worker dies; the supervisor, who watches the process, says so.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::handover::descriptors::WorkerPart;
use crate::link::native::outbox::Outbox;
use crate::link::native::resync::Past;
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::{BATCH, ConnectionRecord, MAX_TO_WORKER, PING, encode_connections};
use crate::protocol::scm_rights::{self, Sent};
use crate::protocol::scoreboard::{Counter, Said, Scoreboard};
use crate::protocol::tcp_progress::{is_untouched, is_untouched_since};

mod error;
mod outbox;
mod protect;
mod receive;
mod recovery;
mod resync;
mod sessions;
mod snapshot;
mod transfer;

pub use error::ChannelError;
pub use protect::{Keep, Keeping};
pub use receive::LinkEvent;
pub use recovery::Recovered;
pub use resync::Report;
pub use snapshot::{PARTS, workers};
pub use transfer::{Content, Offer, Parcel};

/// An accepted connection that no worker owns yet. Dropping it closes it.
#[derive(Debug)]
pub struct PendingConnection {
    /// What travels with it.
    pub record: ConnectionRecord,
    /// The client's socket, non-blocking; unread, or read to the end of a message.
    pub socket: OwnedFd,
    /// How many workers have died on it.
    pub crashes: u8,
    /// What makes it a session that moves; a client that has just come has none.
    pub parcel: Option<Box<Parcel>>,
}

impl PendingConnection {
    /// Whether no worker has used its socket since the primary has it.
    fn is_untouched(&self) -> bool {
        let untouched = match &self.parcel {
            None => is_untouched(&self.socket),
            Some(parcel) => is_untouched_since(&self.socket, parcel.usage),
        };
        untouched.unwrap_or(false)
    }
}

/// The primary's side of one worker's channel.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    worker_end: OwnedFd,
    scoreboard: Scoreboard,
    /// The memory that it is.
    page: OwnedFd,
    /// In the order in which the worker gets them, and settles them.
    unsettled: VecDeque<Unsettled>,
    /// How many it has settled so far, by its own count, and of those refused.
    settled: u64,
    refused: u64,
    /// How many connections it has acknowledged.
    acknowledged: u64,
    credits: usize,
    hello_received: bool,
    /// Pings without a pong.
    pings: u64,
    /// Censuses without an end.
    censuses: u64,
    ready: bool,
    takes_sessions: bool,
    /// Sessions that it has offered and was not answered for.
    offered: Vec<ConnectionId>,
    outbox: Outbox,
    past: Past,
    /// Sessions that another primary had sent, taken back.
    found: Vec<PendingConnection>,
    /// Fewer sessions are on their way than is noted for a successor.
    sessions_changed: bool,
    /// For a message to the worker; made once.
    buffer: Box<[u8; MAX_TO_WORKER]>,
}

#[derive(Debug)]
struct Unsettled {
    id: ConnectionId,
    sent_at: Timestamp,
    /// None when it was refused, and is still to be counted as settled.
    connection: Option<PendingConnection>,
}

/// What a new worker inherits.
#[derive(Debug)]
pub struct WorkerEnd {
    /// Its end of the channel.
    pub channel: OwnedFd,
    /// Its scoreboard.
    pub scoreboard: OwnedFd,
}

impl Channel {
    /// Makes a channel and what the worker inherits of it. At most `credits` connections will be
    /// unacknowledged at a time.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory or no descriptor left.
    pub fn create(credits: usize) -> std::io::Result<(Self, WorkerEnd)> {
        let kind = SocketType::SEQPACKET;
        let (socket, far) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let (scoreboard, page) = Scoreboard::create()?;
        let end = WorkerEnd { channel: far.try_clone()?, scoreboard: page.try_clone()? };
        Ok((Self::assemble(socket, far, (scoreboard, page), credits), end))
    }

    /// Of its descriptors, with nothing said yet.
    fn assemble(
        socket: OwnedFd,
        worker_end: OwnedFd,
        (scoreboard, page): (Scoreboard, OwnedFd),
        credits: usize,
    ) -> Self {
        Self {
            socket,
            worker_end,
            scoreboard,
            page,
            unsettled: VecDeque::with_capacity(credits),
            settled: 0,
            refused: 0,
            acknowledged: 0,
            credits,
            hello_received: false,
            pings: 0,
            censuses: 0,
            ready: false,
            takes_sessions: false,
            offered: Vec::new(),
            outbox: Outbox::default(),
            past: Past::default(),
            found: Vec::new(),
            sessions_changed: false,
            buffer: Box::new([0; MAX_TO_WORKER]),
        }
    }

    /// Everything that must stay open for a successor.
    #[must_use]
    pub fn descriptors(&self) -> [(WorkerPart, BorrowedFd<'_>); 3] {
        let [socket, worker_end, scoreboard] = PARTS;
        [
            (socket, self.socket.as_fd()),
            (worker_end, self.worker_end.as_fd()),
            (scoreboard, self.page.as_fd()),
        ]
    }

    /// The memory of the worker's scoreboard.
    #[must_use]
    pub fn page(&self) -> BorrowedFd<'_> {
        self.page.as_fd()
    }

    /// Whether the worker has said that it has attached.
    #[must_use]
    pub fn is_hello_received(&self) -> bool {
        self.hello_received
    }

    /// Whether the worker has said that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The descriptor to watch for the worker's messages.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Connections that the worker has established, by its own count, and those on their way to it.
    #[must_use]
    pub fn load(&self) -> u64 {
        let established = self.scoreboard.get(Counter::Connections);
        established.saturating_add(self.unsettled.len() as u64)
    }

    /// How many are on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.unsettled.len()
    }

    /// How many of those are sessions.
    #[must_use]
    pub fn sessions_in_flight(&self) -> usize {
        let connections = self.unsettled.iter().filter_map(|one| one.connection.as_ref());
        connections.filter(|one| one.parcel.is_some()).count()
    }

    /// How many of those are clients, without those that it has refused and not settled.
    #[must_use]
    pub fn clients_in_flight(&self) -> usize {
        let connections = self.unsettled.iter().filter_map(|one| one.connection.as_ref());
        connections.filter(|one| one.parcel.is_none()).count()
    }

    /// How many the worker has refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// How long the oldest one has been on its way, or the question been open on which everything
    /// waits.
    #[must_use]
    pub fn waiting(&self, now: Timestamp) -> Option<Duration> {
        let oldest = self.unsettled.front().map(|oldest| oldest.sent_at);
        oldest.or_else(|| self.past.awaited_since()).map(|since| now.since(since))
    }

    /// Sends from the front of `queue` what the credits allow, [`BATCH`] to a message and sessions
    /// one by one, and returns how many went. What doesn't go stays in the queue.
    ///
    /// # Errors
    ///
    /// If the worker has closed the channel or the kernel failed; nothing is taken from the queue.
    pub fn send_from(
        &mut self,
        queue: &mut VecDeque<PendingConnection>,
        now: Timestamp,
    ) -> Result<usize, ChannelError> {
        if self.past.is_awaited() {
            return Ok(0);
        }
        let mut sent = 0;
        loop {
            let room = self.credits.saturating_sub(self.unsettled.len());
            let most = queue.len().min(room).min(BATCH);
            let plain = queue.iter().take(most).take_while(|one| one.parcel.is_none()).count();
            let count = if plain == 0 { most.min(1) } else { plain };
            if count == 0 {
                return Ok(sent);
            }
            if self.settled == 0 && self.unsettled.is_empty() {
                self.scoreboard.note_said(Said::Served);
            }
            if !self.send_message(queue, count)? {
                return Ok(sent);
            }
            let gone = queue.drain(..count);
            self.unsettled.extend(gone.map(|connection| Unsettled {
                id: connection.record.id,
                sent_at: now,
                connection: Some(connection),
            }));
            if plain == 0 {
                self.count_sessions();
            }
            sent += count;
        }
    }

    /// The last ones that went, the first of them first.
    pub fn last_sent(&self, count: usize) -> impl Iterator<Item = &PendingConnection> {
        let last = self.unsettled.iter().skip(self.unsettled.len().saturating_sub(count));
        last.filter_map(|one| one.connection.as_ref())
    }

    fn send_message(
        &mut self,
        queue: &VecDeque<PendingConnection>,
        count: usize,
    ) -> Result<bool, ChannelError> {
        if let Some(session) = queue.front()
            && let Some(parcel) = &session.parcel
        {
            return self.send_session(session, &parcel.content);
        }
        let message =
            encode_connections(&mut self.buffer, queue.iter().take(count).map(|c| &c.record));
        let mut descriptors = [self.socket.as_fd(); BATCH];
        for (place, connection) in descriptors.iter_mut().zip(queue) {
            *place = connection.socket.as_fd();
        }
        match scm_rights::send(&self.socket, message, &descriptors[..count])? {
            Sent::Queued => Ok(true),
            Sent::Full => Ok(false),
            Sent::Closed => Err(ChannelError::Closed),
        }
    }

    /// Asks whether the worker's loop is alive. A full channel is no error: then there is enough
    /// in it that the worker will answer.
    ///
    /// # Errors
    ///
    /// If the worker has closed the channel or the kernel failed.
    pub fn ping(&mut self) -> Result<(), ChannelError> {
        match scm_rights::send(&self.socket, &PING, &[])? {
            Sent::Queued => {
                self.pings += 1;
                Ok(())
            }
            Sent::Full => Ok(()),
            Sent::Closed => Err(ChannelError::Closed),
        }
    }

    /// Ends what goes to the worker: it reads the rest, then end of file, and begins to drain. Its
    /// answers still come.
    pub fn finish(&mut self) {
        self.scoreboard.increment(Counter::Drain);
        if self.outbox.question.is_some() {
            // That comes before.
            self.past.finishes = true;
            return;
        }
        self.end_sending();
    }

    fn end_sending(&self) {
        // Fails only if the worker has ended the channel already.
        let _ = shutdown(&self.socket, Shutdown::Write);
    }

    /// Gives what the worker has acknowledged to `acknowledged`, to be closed here, and returns how
    /// many there were; `None` where it has refused some, and its messages have to be
    /// read first.
    ///
    /// # Errors
    ///
    /// If it settled more than it was sent.
    pub fn settle(
        &mut self,
        acknowledged: impl FnMut(PendingConnection),
    ) -> Result<Option<usize>, ChannelError> {
        if self.past.is_awaited() {
            return Ok(Some(0));
        }
        // In this order: a refusal is counted before it is settled.
        let settled = self.scoreboard.get(Counter::Settled);
        let refused = self.scoreboard.get(Counter::Refused);
        let more = settled.wrapping_sub(self.settled);
        if more == 0 {
            return Ok(Some(0));
        }
        let breach = ChannelError::Scoreboard { settled, refused };
        let count = usize::try_from(more).ok().filter(|more| *more <= self.unsettled.len());
        let Some(count) = count else { return Err(breach) };
        if refused > self.refused {
            return Ok(None);
        }
        self.settled = settled;
        let sessions = &mut self.sessions_changed;
        let gone = self.unsettled.drain(..count).filter_map(|one| one.connection);
        let gone = gone.inspect(|one| *sessions |= one.parcel.is_some());
        let count = gone.map(acknowledged).count();
        self.acknowledged += count as u64;
        Ok(Some(count))
    }

    /// Says what is wrong with a scoreboard that counts a refusal of which no message tells.
    #[must_use]
    pub fn refusal_is_missing(&self) -> ChannelError {
        ChannelError::Scoreboard {
            settled: self.scoreboard.get(Counter::Settled),
            refused: self.scoreboard.get(Counter::Refused),
        }
    }
}

impl Unsettled {
    fn is_waiting(&self, id: ConnectionId) -> bool {
        self.id == id && self.connection.is_some()
    }
}
