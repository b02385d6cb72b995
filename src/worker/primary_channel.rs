//! The worker's end of the channel: takes the primary's messages, acknowledges connections, answers.
//!
//! Never yields a connection before it is acknowledged, and so never reads from one that another
//! worker may be given.

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::time::{Duration, sleep};

use crate::kernel;
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::{
    BATCH, CHECKPOINT, ConnectionRecord, MAX_IDS, MAX_IMAGE, MAX_PROTECT, MAX_TO_WORKER, PONG,
    Records, ToWorker, decode_to_worker, encode_protect_several, encode_refuse,
    encode_session_list, encode_unprotect,
};
use crate::protocol::peer::is_of;
use crate::protocol::scm_rights::{self, Received, Sent};
use crate::protocol::scoreboard::Counter;
use crate::worker::connection::Connection;
use crate::worker::ending::begin_drain;
use crate::worker::error::ChannelError;
use crate::worker::session::checkpoint::{Protect, SentFlag, Update};
use crate::worker::session::closing::close_unserved;
use crate::worker::session::image::SessionImage;
use crate::worker::session::inner::Inner;
use crate::worker::session::migration::migrate_some;
use crate::worker::session::registry::{OfferOutcome, Sessions};
use crate::worker::session::resync::resync;
use crate::worker::session_sender::SessionSender;

/// Bytes of messages that the primary hasn't read, with which sessions wait to be protected again: fewer than those
/// of a message that protects [`BATCH`].
const MAX_UNREAD: u64 = 4_096;

/// How long to wait until the primary may have read them.
const READ_WAIT: Duration = Duration::from_millis(1);

/// The channel and what is on its way through it.
#[derive(Debug)]
pub(crate) struct PrimaryChannel {
    channel: AsyncFd<OwnedFd>,
    sessions: Arc<Sessions>,
    /// Answers that the channel had no room for. While there are any, nothing is acknowledged.
    answers: VecDeque<Answer>,
    /// Protected sessions that another primary doesn't know of yet: it is told when there is nothing else to
    /// do, as new connections come first.
    unsent: Vec<Arc<Inner>>,
    /// Connections to be acknowledged, and of those the refused ones.
    completed: u64,
    refused: u64,
    /// Not yet yielded.
    arrived: VecDeque<Connection>,
    /// An order that came after those.
    order: Option<DrainOrder>,
    /// Room for a message; taken out while one is read.
    message: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// A warning was logged that a session has the socket of another client.
    has_warned: bool,
}

/// A message to the primary.
#[derive(Debug)]
struct Answer {
    message: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// Set when it is sent.
    sent: Vec<SentFlag>,
}

impl Answer {
    fn new(message: &[u8]) -> Self {
        Self { message: message.to_vec(), descriptors: Vec::new(), sent: Vec::new() }
    }

    /// No more than [`BATCH`].
    fn protect(sessions: Vec<Protect>) -> Self {
        let placed = sessions.iter().map(|session| (&session.record, session.place));
        let mut answer = Self::new(encode_protect_several(&mut [0; MAX_PROTECT], placed));
        for Protect { socket, sent, .. } in sessions {
            answer.descriptors.push(socket);
            answer.sent.push(sent);
        }
        answer
    }
}

/// What a look at the channel has brought.
#[derive(Clone, Copy, Debug)]
enum Read {
    Something,
    /// Nothing comes any more.
    Closed,
}

/// An event on the channel.
#[derive(Debug)]
pub(crate) enum ChannelEvent {
    /// A connection, the worker's own now.
    Connection(Box<Connection>),
    /// An order to drain.
    Drain(DrainOrder),
    /// Nothing more ever.
    Closed,
}

impl PrimaryChannel {
    pub(crate) fn new(channel: OwnedFd, sessions: &Arc<Sessions>) -> io::Result<Self> {
        Ok(Self {
            channel: kernel::watch(channel, Interest::READABLE | Interest::WRITABLE)?,
            sessions: Arc::clone(sessions),
            answers: VecDeque::new(),
            unsent: Vec::new(),
            completed: 0,
            refused: 0,
            arrived: VecDeque::with_capacity(BATCH),
            order: None,
            message: vec![0; MAX_TO_WORKER],
            descriptors: Vec::with_capacity(BATCH),
            has_warned: false,
        })
    }

    /// Another way to the primary, for sessions.
    pub(crate) fn sender(&self) -> io::Result<SessionSender> {
        SessionSender::new(self.channel.get_ref().try_clone()?)
    }

    /// Sends now, or as soon as there is room, in order.
    pub(crate) fn answer(&mut self, message: &[u8]) -> io::Result<()> {
        self.send(Answer::new(message))
    }

    fn send(&mut self, answer: Answer) -> io::Result<()> {
        let sent = self.answers.is_empty() && self.try_send(&answer)?;
        if !sent {
            self.answers.push_back(answer);
        }
        Ok(())
    }

    /// Passes on what there is to tell of checkpoints.
    fn take_updates(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(checkpoints) = self.sessions.shared.checkpoints.clone() else { return Ok(()) };
        let mut protect = Vec::new();
        loop {
            let update = checkpoints.poll_update(cx);
            let update = match update {
                Poll::Ready(Update::Protect(session)) if protect.len() < self.protect_at_once() => {
                    protect.push(session);
                    continue;
                }
                update => update,
            };
            // In order.
            if !protect.is_empty() {
                self.send(Answer::protect(std::mem::take(&mut protect)))?;
            }
            match update {
                Poll::Pending => return Ok(()),
                Poll::Ready(Update::Protect(session)) => protect.push(session),
                Poll::Ready(Update::File(file)) => {
                    self.send(Answer { descriptors: vec![file], ..Answer::new(&CHECKPOINT) })?;
                }
                Poll::Ready(Update::Unprotect(id)) => {
                    self.answer(encode_unprotect(&mut [0; MAX_IDS], [id].into_iter()))?;
                }
            }
        }
    }

    /// How many sessions a message may protect.
    fn protect_at_once(&self) -> usize {
        if self.sessions.shared.own.allowed.protect_several { BATCH } else { 1 }
    }

    /// The next event.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ChannelEvent, ChannelError>> {
        loop {
            // Before anything is acknowledged: a session that has arrived may be protected.
            self.take_updates(cx).map_err(ChannelError::Io)?;
            ready!(self.poll_answers(cx)).map_err(ChannelError::Io)?;
            self.acknowledge();
            if let Some(connection) = self.arrived.pop_front() {
                connection.accepted();
                return Poll::Ready(Ok(ChannelEvent::Connection(Box::new(connection))));
            }
            if let Some(order) = self.order.take() {
                return Poll::Ready(Ok(ChannelEvent::Drain(order)));
            }
            match self.poll_read(cx)? {
                Poll::Ready(Read::Something) => {}
                Poll::Ready(Read::Closed) => {
                    self.sessions.give_up_offers();
                    return Poll::Ready(Ok(ChannelEvent::Closed));
                }
                Poll::Pending if self.unsent.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    ready!(self.poll_unsent(cx)).map_err(ChannelError::Io)?;
                    // Handlers go first.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Takes what has come: all of it, so that sessions are protected and acknowledged together, but no more
    /// connections than fit into a message and those of one more, and nothing after an order.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Read, ChannelError>> {
        let mut has_read = false;
        while self.arrived.len() < BATCH && self.order.is_none() {
            let Poll::Ready(ready) = self.channel.poll_read_ready(cx) else { break };
            let mut ready = ready.map_err(ChannelError::Io)?;
            let channel = ready.get_inner();
            let received = scm_rights::receive(channel, &mut self.message, &mut self.descriptors);
            match received.map_err(|errno| ChannelError::Io(errno.into()))? {
                Received::Empty => {
                    ready.clear_ready();
                    continue;
                }
                // It is closed the next time, too.
                Received::Closed if has_read => break,
                Received::Closed => return Poll::Ready(Ok(Read::Closed)),
                Received::Message { length, .. } => {
                    has_read = true;
                    let message = std::mem::take(&mut self.message);
                    let taken = self.take(&message[..length]);
                    self.message = message;
                    // Those of a message that should have none would be taken for the next one's.
                    self.descriptors.clear();
                    self.order = taken?;
                }
            }
        }
        if has_read { Poll::Ready(Ok(Read::Something)) } else { Poll::Pending }
    }

    /// Has another primary protect some more of the sessions that it doesn't know, once it has read the ones before:
    /// the kernel limits how many descriptors are on their way for all processes of a user.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if kernel::unacknowledged(self.channel.get_ref())? >= MAX_UNREAD {
            let waker = cx.waker().clone();
            tokio::spawn(async move {
                sleep(READ_WAIT).await;
                waker.wake();
            });
            return Poll::Pending;
        }
        loop {
            let mut ready = ready!(self.channel.poll_write_ready(cx))?;
            let left = self.unsent.len().saturating_sub(self.protect_at_once());
            let some =
                self.unsent[left..].iter().filter_map(|session| session.handle.protect_again());
            let some: Vec<_> = some.collect();
            // Not kept if there is no room: they may end until then.
            if some.is_empty() || self.try_send(&Answer::protect(some))? {
                self.unsent.truncate(left);
                return Poll::Ready(Ok(()));
            }
            ready.clear_ready();
        }
    }

    /// Goes on when no connection is accepted any more: offers are still to be answered, and turns to
    /// close WebSockets to be granted.
    pub(crate) async fn wait_for_exit(mut self) {
        loop {
            match std::future::poll_fn(|cx| self.poll_next(cx)).await {
                Ok(ChannelEvent::Drain(order)) => begin_drain(&self.sessions, order),
                // The primary sends none to a worker that drains; no accept loop would serve it here.
                Ok(ChannelEvent::Connection(connection)) => {
                    let sessions = Arc::clone(&self.sessions);
                    tokio::spawn(async move {
                        let is_websocket = connection.is_websocket();
                        if let Some((stream, guard)) = connection.split() {
                            close_unserved(&sessions, stream, guard, is_websocket).await;
                        }
                    });
                }
                Ok(ChannelEvent::Closed) => return,
                Err(error) => {
                    return tracing::error!(%error, "cannot understand the primary any more");
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Option<DrainOrder>, ChannelError> {
        let sessions = &self.sessions;
        match decode_to_worker(bytes)? {
            ToWorker::Connections(records) => self.take_connections(records),
            ToWorker::Session(record, image) => self.take_session(&record, image),
            ToWorker::Ping => self.answer(&PONG),
            ToWorker::Drain(order) => return Ok(Some(order)),
            ToWorker::Moved(ids) => {
                ids.iter().for_each(|id| sessions.resolve(id, OfferOutcome::Migrated));
                Ok(())
            }
            ToWorker::Returned(ids) => {
                ids.iter().for_each(|id| sessions.resolve(id, OfferOutcome::Returned));
                Ok(())
            }
            ToWorker::Move(ids) => {
                migrate_some(&self.sessions, ids.iter());
                Ok(())
            }
            ToWorker::CloseGrant(count) => {
                // Far below what a semaphore can hold, since no more are granted than were asked for.
                sessions.granted.add_permits(count.min(1 << 20) as usize);
                Ok(())
            }
            ToWorker::ListSessions => self.answer_list_sessions(),
            ToWorker::Resync(number) => {
                match sessions.protect_again() {
                    Ok(unsent) => self.unsent = unsent,
                    Err(error) => tracing::warn!(%error, "sessions are not protected any more"),
                }
                let messages = resync(&self.sessions, number);
                messages.iter().try_for_each(|message| self.answer(message))
            }
        }
        .map_err(ChannelError::Io)?;
        Ok(None)
    }

    /// Descriptors that did not arrive, or that the runtime has no room for, are refused.
    fn take_connections(&mut self, records: Records<'_>) -> io::Result<()> {
        let mut refused = Vec::new();
        let mut descriptors = self.descriptors.drain(..);
        for record in records.iter() {
            let opened =
                descriptors.next().and_then(|socket| open(socket, &record, None, &self.sessions));
            match opened {
                Some(connection) => self.arrived.push_back(connection),
                None => refused.push(record.id),
            }
        }
        drop(descriptors);
        self.note(records.len() as u64, &refused)
    }

    /// One that cannot be read, or is open here, is refused, too: another worker may be able to. So is one whose
    /// socket is that of another client than its record says: no handler is told a wrong address.
    fn take_session(&mut self, record: &ConnectionRecord, inline: &[u8]) -> io::Result<()> {
        let mut descriptors = self.descriptors.drain(..);
        let (socket, memory) = (descriptors.next(), descriptors.next());
        drop(descriptors);
        let image = match memory {
            Some(memory) => read_all(memory).and_then(|bytes| SessionImage::decode(&bytes)),
            None => SessionImage::decode(inline),
        };
        // A session that is open here has not migrated: its place is not another's.
        let is_open = self.sessions.find(record.id).is_some_and(|open| !open.has_migrated());
        let is_foreign =
            socket.as_ref().is_some_and(|socket| is_of(socket, record.client) == Some(false));
        if is_foreign && !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!(
                connection = record.id.0,
                client = %record.client,
                "session refused, another worker offers it with the socket of another client",
            );
        }
        let is_taken = !is_open && !is_foreign;
        let opened = socket.zip(image).filter(|_| is_taken).and_then(|(socket, image)| {
            let pause = Timestamp::now().since(image.left_at);
            tracing::debug!(connection = record.id.0, ?pause, "session arrived");
            open(socket, record, Some(image), &self.sessions)
        });
        let refused = if opened.is_none() { &[record.id][..] } else { &[] };
        if opened.is_some() {
            self.sessions.note_accepted(record);
        }
        self.arrived.extend(opened);
        self.note(1, refused)
    }

    fn note(&mut self, completed: u64, refused: &[ConnectionId]) -> io::Result<()> {
        self.completed += completed;
        self.refused += refused.len() as u64;
        if refused.is_empty() {
            return Ok(());
        }
        let mut buffer = [0; MAX_IDS];
        self.answer(encode_refuse(&mut buffer, refused.iter().copied()))
    }

    fn answer_list_sessions(&mut self) -> io::Result<()> {
        let all = self.sessions.list();
        all.chunks(BATCH).try_for_each(|some| self.answer(&encode_session_list(some)))?;
        self.answer(&encode_session_list(&[]))
    }

    /// Acknowledges what has arrived; refusals have been sent before.
    fn acknowledge(&mut self) {
        let scoreboard = &self.sessions.shared.own.scoreboard;
        if self.refused > 0 {
            scoreboard.add(Counter::Refused, std::mem::take(&mut self.refused));
        }
        if self.completed > 0 {
            scoreboard.add(Counter::Completed, std::mem::take(&mut self.completed));
        }
    }

    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(answer) = self.answers.front() {
            let mut ready = ready!(self.channel.poll_write_ready(cx))?;
            if self.try_send(answer)? {
                self.answers.pop_front();
            } else {
                ready.clear_ready();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether it is sent, or never can be: without a primary, no other worker gets the connections.
    fn try_send(&self, answer: &Answer) -> io::Result<bool> {
        let Answer { message, descriptors, sent: flags } = answer;
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let sent = scm_rights::send(self.channel.get_ref(), message, &descriptors)?;
        if sent == Sent::Full {
            return Ok(false);
        }
        flags.iter().for_each(|flag| flag.store(true, Ordering::Release));
        Ok(true)
    }
}

impl Drop for PrimaryChannel {
    /// The primary's answers are not received any more.
    fn drop(&mut self) {
        self.sessions.give_up_offers();
    }
}

fn open(
    socket: OwnedFd,
    record: &ConnectionRecord,
    image: Option<SessionImage>,
    sessions: &Arc<Sessions>,
) -> Option<Connection> {
    let stream = StdTcpStream::from(socket);
    if image.is_some() {
        // Another worker has had it, and may have changed that: a read that waits would stop all of this one.
        stream.set_nonblocking(true).ok()?;
    }
    let stream = TcpStream::from_std(stream).ok()?;
    Some(Connection::new(stream, record, image, sessions))
}

/// All of an image's memory. Its file position is shared with other processes, and is not used.
fn read_all(memory: OwnedFd) -> Option<Vec<u8>> {
    let memory = File::from(memory);
    let length = memory.metadata().ok()?.len();
    if length > MAX_IMAGE {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    memory.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}
