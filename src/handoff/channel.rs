//! The primary's end of the channel to one worker: what was sent, what is acknowledged, and how
//! to get back what is not.
//!
//! Never waits and never decides where a connection goes; it says what happened.
//!
//! # Promises
//!
//! * A connection given to [`Channel::send_from`] stays in the sender's queue or is kept here until
//!   the worker has acknowledged it. There is no third place.
//! * The primary's copy is closed as soon as the acknowledgement is read: a copy kept longer would
//!   withhold the FIN from the client.
//!
//! # Pitfalls
//!
//! The primary keeps the worker's end open too, to take back messages that a stalled or dead
//! worker never received: what is read there is read exactly once, by the worker or by us. So the
//! channel does not end when the worker dies; the supervisor, who watches the process, says so.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::handoff::message::{
    BATCH, ConnectionId, ConnectionRecord, Ids, MAX_TO_PRIMARY, MAX_TO_WORKER, MessageError, PING,
    Timestamp, ToPrimary, ToWorker, decode_to_primary, decode_to_worker, encode_connections,
};
use crate::handoff::scm_rights::{self, Received, Sent};
use crate::handoff::scoreboard::{Counter, Scoreboard};
use crate::handoff::untouched::is_untouched;

/// An accepted connection that no worker owns yet. Dropping it closes it.
#[derive(Debug)]
pub struct PendingConnection {
    /// What travels with it.
    pub record: ConnectionRecord,
    /// The client's socket, non-blocking, unread.
    pub socket: OwnedFd,
    /// How many workers have died on it.
    pub deaths: u8,
}

/// The primary's side of one worker's channel.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    worker_end: OwnedFd,
    scoreboard: Scoreboard,
    unacknowledged: VecDeque<Unacknowledged>,
    credits: usize,
    greeted: bool,
}

#[derive(Debug)]
struct Unacknowledged {
    connection: PendingConnection,
    sent_at: Timestamp,
}

impl Unacknowledged {
    fn has(&self, id: ConnectionId) -> bool {
        self.connection.record.id == id
    }
}

/// What a new worker inherits.
#[derive(Debug)]
pub struct WorkerEnd {
    /// Its end of the channel.
    pub channel: OwnedFd,
    /// Its scoreboard.
    pub scoreboard: OwnedFd,
}

/// What a worker said.
#[derive(Debug)]
pub enum Notice {
    /// Nothing more for now.
    Nothing,
    /// It has attached.
    Hello,
    /// It takes connections.
    Ready,
    /// It owns so many more.
    Acknowledged(usize),
    /// It did not take these; they are the primary's again.
    Refused(Vec<PendingConnection>),
    /// Its loop is alive.
    Pong,
    /// It wants to be drained and replaced.
    Leave,
}

/// What a worker may not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// Bytes that are no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A message that no kind could be so long.
    #[error("message is longer than {MAX_TO_PRIMARY} bytes")]
    Long,
    /// A message with descriptors.
    #[error("message carries descriptors, expected none")]
    Descriptors,
    /// Something before the hello.
    #[error("first message is not a hello")]
    NoHello,
    /// An answer for a connection that it doesn't hold.
    #[error("answer for connection {}, which is not waiting for one", .0.0)]
    UnknownConnection(ConnectionId),
    /// It ended the channel without being asked.
    #[error("channel was closed by the worker")]
    Closed,
    /// The kernel failed.
    #[error("channel failed")]
    Io(#[source] std::io::Error),
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// What is left when a worker is gone.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Nobody has touched these: they can go to another worker.
    pub untouched: Vec<PendingConnection>,
    /// So many more were acknowledged before the end.
    pub acknowledged: usize,
    /// So many were used without an acknowledgement, or ended by their clients; closed.
    pub lost: usize,
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
        let channel = Self {
            socket,
            worker_end: far.try_clone()?,
            scoreboard,
            unacknowledged: VecDeque::with_capacity(credits),
            credits,
            greeted: false,
        };
        Ok((channel, WorkerEnd { channel: far, scoreboard: page }))
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
        established.saturating_add(self.unacknowledged.len() as u64)
    }

    /// How many are on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.unacknowledged.len()
    }

    /// How long the oldest one has been on its way.
    #[must_use]
    pub fn waiting(&self, now: Timestamp) -> Option<Duration> {
        self.unacknowledged.front().map(|oldest| now.since(oldest.sent_at))
    }

    /// Sends from the front of `queue` what the credits allow, [`BATCH`] to a message, and returns
    /// how many went. What doesn't go stays in the queue.
    ///
    /// # Errors
    ///
    /// If the worker has closed the channel or the kernel failed; nothing is taken from the queue.
    pub fn send_from(
        &mut self,
        queue: &mut VecDeque<PendingConnection>,
        now: Timestamp,
    ) -> Result<usize, ChannelError> {
        let mut sent = 0;
        loop {
            let room = self.credits.saturating_sub(self.unacknowledged.len());
            let count = queue.len().min(room).min(BATCH);
            if count == 0 || !self.send_message(queue, count)? {
                return Ok(sent);
            }
            let gone = queue.drain(..count);
            self.unacknowledged
                .extend(gone.map(|connection| Unacknowledged { connection, sent_at: now }));
            sent += count;
        }
    }

    fn send_message(
        &self,
        queue: &VecDeque<PendingConnection>,
        count: usize,
    ) -> Result<bool, ChannelError> {
        let mut bytes = [0; MAX_TO_WORKER];
        let message = encode_connections(&mut bytes, queue.iter().take(count).map(|c| &c.record));
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
    pub fn ping(&self) -> Result<(), ChannelError> {
        match scm_rights::send(&self.socket, &PING, &[])? {
            Sent::Queued | Sent::Full => Ok(()),
            Sent::Closed => Err(ChannelError::Closed),
        }
    }

    /// Ends what goes to the worker: it reads the rest, then end of file, and begins to drain. Its
    /// answers still come.
    pub fn finish(&self) {
        // Fails only if the worker has ended the channel already.
        let _ = shutdown(&self.socket, Shutdown::Write);
    }

    /// Reads one message of the worker's.
    ///
    /// # Errors
    ///
    /// If the worker breaks the protocol or closed the channel. Its connections are kept for
    /// [`Channel::recover`].
    pub fn receive(&mut self) -> Result<Notice, ChannelError> {
        let mut bytes = [0; MAX_TO_PRIMARY];
        let length = match scm_rights::receive_without_descriptors(&self.socket, &mut bytes)? {
            Received::Empty => return Ok(Notice::Nothing),
            Received::Closed => return Err(ChannelError::Closed),
            Received::Message { descriptors_lost: true, .. } => {
                return Err(ChannelError::Descriptors);
            }
            Received::Message { cut: true, .. } => return Err(ChannelError::Long),
            Received::Message { length, .. } => length,
        };
        let message = decode_to_primary(&bytes[..length])?;
        if self.greeted == matches!(message, ToPrimary::Hello) {
            return Err(ChannelError::NoHello);
        }
        self.take(message)
    }

    fn take(&mut self, message: ToPrimary<'_>) -> Result<Notice, ChannelError> {
        Ok(match message {
            ToPrimary::Hello => {
                self.greeted = true;
                Notice::Hello
            }
            ToPrimary::Ready => Notice::Ready,
            ToPrimary::Acknowledge(ids) => Notice::Acknowledged(self.acknowledge(ids)?),
            ToPrimary::Refuse(ids) => Notice::Refused(self.refuse(ids)?),
            ToPrimary::Pong => Notice::Pong,
            ToPrimary::Leave => Notice::Leave,
        })
    }

    fn acknowledge(&mut self, ids: Ids<'_>) -> Result<usize, ChannelError> {
        let mut count = 0;
        for id in ids.iter() {
            drop(self.release(id)?);
            count += 1;
        }
        Ok(count)
    }

    fn refuse(&mut self, ids: Ids<'_>) -> Result<Vec<PendingConnection>, ChannelError> {
        let known = |id: ConnectionId| self.unacknowledged.iter().any(|one| one.has(id));
        if let Some(unknown) = ids.iter().find(|id| !known(*id)) {
            return Err(ChannelError::UnknownConnection(unknown));
        }
        // An id that stands there twice is released once.
        Ok(ids.iter().filter_map(|id| self.release(id).ok()).collect())
    }

    /// Takes out one that is on its way. Workers answer in order, so it is nearly always the first.
    fn release(&mut self, id: ConnectionId) -> Result<PendingConnection, ChannelError> {
        let position = self.unacknowledged.iter().position(|one| one.has(id));
        position
            .and_then(|position| self.unacknowledged.remove(position))
            .map(|one| one.connection)
            .ok_or(ChannelError::UnknownConnection(id))
    }

    /// Takes back the messages that the worker hasn't received: their connections are proven to be
    /// nobody's. Those that it has received, and not acknowledged, stay on their way.
    pub fn take_back(&mut self) -> Vec<PendingConnection> {
        let mut taken = Vec::new();
        let mut bytes = [0; MAX_TO_WORKER];
        while let Ok(Received::Message { length, .. }) =
            scm_rights::receive_without_descriptors(&self.worker_end, &mut bytes)
        {
            if let Ok(ToWorker::Connections(records)) = decode_to_worker(&bytes[..length]) {
                taken.extend(records.iter().filter_map(|record| self.release(record.id).ok()));
            }
        }
        taken
    }

    /// Takes back everything that the worker, who must be dead, did not acknowledge.
    #[must_use]
    pub fn recover(mut self) -> Recovered {
        let mut untouched = self.take_back();
        let mut acknowledged = 0;
        // What it said before it died counts.
        loop {
            match self.receive() {
                Ok(Notice::Nothing) | Err(_) => break,
                Ok(Notice::Refused(connections)) => untouched.extend(connections),
                Ok(Notice::Acknowledged(count)) => acknowledged += count,
                Ok(_) => {}
            }
        }
        let mut lost = 0;
        for Unacknowledged { connection, .. } in self.unacknowledged {
            if is_untouched(&connection.socket).unwrap_or(false) {
                untouched.push(connection);
            } else {
                lost += 1;
            }
        }
        Recovered { untouched, acknowledged, lost }
    }
}
