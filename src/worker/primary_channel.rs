//! The worker's end of the channel: takes what the primary sends, acknowledges it, and answers.
//!
//! Never yields a connection before it is acknowledged, and so never reads from one that could be
//! given to somebody else.

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

use crate::kernel;
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::{
    BATCH, CHECKPOINT, ConnectionRecord, MAX_IDS, MAX_IMAGE, MAX_TO_WORKER, PONG, Records,
    ToWorker, decode_to_worker, encode_protect, encode_refuse, encode_session_list,
    encode_unprotect,
};
use crate::protocol::scm_rights::{self, Received, Sent};
use crate::protocol::scoreboard::Counter;
use crate::worker::accept::AcceptError;
use crate::worker::connection::Connection;
use crate::worker::drain::Shared;
use crate::worker::session::checkpoint::{Note, Told};
use crate::worker::session::closing::send_away_unserved;
use crate::worker::session::image::Parcel;
use crate::worker::session::migration::move_some;
use crate::worker::session::registry::Verdict;
use crate::worker::session::report::report;
use crate::worker::session_sender::Outlet;

/// The channel and what is on its way through it.
#[derive(Debug)]
pub(crate) struct Link {
    channel: AsyncFd<OwnedFd>,
    shared: Arc<Shared>,
    /// Answers that the channel had no room for. While there are any, nothing is settled.
    answers: VecDeque<Answer>,
    /// To be counted as settled, and of those the refused ones.
    settled: u64,
    refused: u64,
    /// Not yet yielded.
    arrived: VecDeque<Connection>,
    /// Room for a message; taken out while one is read.
    message: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// What is said to the primary.
#[derive(Debug)]
struct Answer {
    message: Vec<u8>,
    descriptor: Option<OwnedFd>,
    /// To be told when it is sent.
    told: Option<Told>,
}

/// What the primary has sent.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A connection, the worker's own now.
    Connection(Box<Connection>),
    /// An order to drain.
    Drain(DrainOrder),
    /// Nothing more ever.
    Closed,
}

impl Link {
    pub(crate) fn new(channel: OwnedFd, shared: &Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            channel: kernel::watch(channel, Interest::READABLE | Interest::WRITABLE)?,
            shared: Arc::clone(shared),
            answers: VecDeque::new(),
            settled: 0,
            refused: 0,
            arrived: VecDeque::with_capacity(BATCH),
            message: vec![0; MAX_TO_WORKER],
            descriptors: Vec::with_capacity(BATCH),
        })
    }

    /// Another way to the primary, for sessions.
    pub(crate) fn outlet(&self) -> io::Result<Outlet> {
        Outlet::new(self.channel.get_ref().try_clone()?)
    }

    /// Sends now, or as soon as there is room, in order.
    pub(crate) fn answer(&mut self, message: &[u8]) -> io::Result<()> {
        self.give(Answer { message: message.to_vec(), descriptor: None, told: None })
    }

    fn give(&mut self, answer: Answer) -> io::Result<()> {
        let sent = self.answers.is_empty() && self.try_send(&answer)?;
        if !sent {
            self.answers.push_back(answer);
        }
        Ok(())
    }

    /// What there is to say of the ledger.
    fn take_notes(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(ledger) = self.shared.sessions.ledger.clone() else { return Ok(()) };
        while let Poll::Ready(note) = ledger.poll_note(cx) {
            self.give(match note {
                Note::Ledger(ledger) => {
                    Answer { message: CHECKPOINT.to_vec(), descriptor: Some(ledger), told: None }
                }
                Note::Keep { record, page, socket, told } => {
                    let message = encode_protect(&record, page).to_vec();
                    Answer { message, descriptor: Some(socket), told: Some(told) }
                }
                Note::Forget(id) => {
                    let mut buffer = [0; MAX_IDS];
                    let message = encode_unprotect(&mut buffer, [id].into_iter()).to_vec();
                    Answer { message, descriptor: None, told: None }
                }
            })?;
        }
        Ok(())
    }

    /// What comes next.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, AcceptError>> {
        loop {
            // Before anything is settled: what has arrived may be protected.
            self.take_notes(cx).map_err(AcceptError::Channel)?;
            ready!(self.poll_answers(cx)).map_err(AcceptError::Channel)?;
            self.settle();
            if let Some(connection) = self.arrived.pop_front() {
                connection.accepted();
                return Poll::Ready(Ok(Heard::Connection(Box::new(connection))));
            }
            let mut ready =
                ready!(self.channel.poll_read_ready(cx)).map_err(AcceptError::Channel)?;
            let channel = ready.get_inner();
            let received = scm_rights::receive(channel, &mut self.message, &mut self.descriptors);
            match received.map_err(|errno| AcceptError::Channel(errno.into()))? {
                Received::Empty => ready.clear_ready(),
                Received::Closed => {
                    self.shared.sessions.give_up_offers();
                    return Poll::Ready(Ok(Heard::Closed));
                }
                Received::Message { length, .. } => {
                    let message = std::mem::take(&mut self.message);
                    let taken = self.take(&message[..length]);
                    self.message = message;
                    if let Some(order) = taken? {
                        return Poll::Ready(Ok(Heard::Drain(order)));
                    }
                }
            }
        }
    }

    /// Goes on when no connection is accepted any more: sessions that were offered are still on their
    /// way, and turns to send clients away are still to come.
    pub(crate) async fn wait_for_exit(mut self) {
        loop {
            match std::future::poll_fn(|cx| self.poll_next(cx)).await {
                Ok(Heard::Drain(order)) => self.shared.begin_drain(order),
                // The primary sends none to a worker that drains. Nobody would serve it here.
                Ok(Heard::Connection(connection)) => {
                    let shared = Arc::clone(&self.shared);
                    tokio::spawn(async move { send_away_unserved(&shared, *connection).await });
                }
                Ok(Heard::Closed) => return,
                Err(error) => {
                    return tracing::error!(%error, "primary is not understood any more");
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Option<DrainOrder>, AcceptError> {
        let sessions = &self.shared.sessions;
        match decode_to_worker(bytes)? {
            ToWorker::Connections(records) => self.take_connections(records),
            ToWorker::Session(record, parcel) => self.take_session(&record, parcel),
            ToWorker::Ping => self.answer(&PONG),
            ToWorker::Drain(order) => return Ok(Some(order)),
            ToWorker::Moved(ids) => {
                ids.iter().for_each(|id| sessions.judge(id, Verdict::Moved));
                Ok(())
            }
            ToWorker::Returned(ids) => {
                ids.iter().for_each(|id| sessions.judge(id, Verdict::Returned));
                Ok(())
            }
            ToWorker::Move(ids) => {
                move_some(&self.shared, ids.iter());
                Ok(())
            }
            ToWorker::CloseGrant(count) => {
                // Far below what a semaphore can hold, since no more are granted than were asked for.
                sessions.granted.add_permits(count.min(1 << 20) as usize);
                Ok(())
            }
            ToWorker::ListSessions => self.answer_census(),
            ToWorker::Resync(number) => {
                if let Err(error) = sessions.keep_again() {
                    tracing::warn!(%error, "sessions are not protected any more");
                }
                let messages = report(&self.shared, number);
                messages.iter().try_for_each(|message| self.answer(message))
            }
        }
        .map_err(AcceptError::Channel)?;
        Ok(None)
    }

    /// Descriptors that did not arrive, or that the runtime has no room for, are refused.
    fn take_connections(&mut self, records: Records<'_>) -> io::Result<()> {
        let mut refused = Vec::new();
        let mut descriptors = self.descriptors.drain(..);
        for record in records.iter() {
            let opened = descriptors.next().and_then(|socket| open(socket, &record, &self.shared));
            match opened {
                Some(connection) => self.arrived.push_back(connection),
                None => refused.push(record.id),
            }
        }
        drop(descriptors);
        self.note(records.len() as u64, &refused)
    }

    /// One that cannot be read is refused, too: another worker may be able to.
    fn take_session(&mut self, record: &ConnectionRecord, inline: &[u8]) -> io::Result<()> {
        let mut descriptors = self.descriptors.drain(..);
        let (socket, memory) = (descriptors.next(), descriptors.next());
        drop(descriptors);
        let parcel = match memory {
            Some(memory) => read_all(memory).and_then(|bytes| Parcel::decode(&bytes)),
            None => Parcel::decode(inline),
        };
        let opened = socket.zip(parcel).and_then(|(socket, parcel)| {
            let pause = Timestamp::now().since(parcel.left_at);
            tracing::debug!(connection = record.id.0, ?pause, "session arrived");
            Some(open(socket, record, &self.shared)?.moved(parcel))
        });
        let refused = if opened.is_none() { &[record.id][..] } else { &[] };
        if opened.is_some() {
            self.shared.sessions.note_taken(record.id);
        }
        self.arrived.extend(opened);
        self.note(1, refused)
    }

    fn note(&mut self, settled: u64, refused: &[ConnectionId]) -> io::Result<()> {
        self.settled += settled;
        self.refused += refused.len() as u64;
        if refused.is_empty() {
            return Ok(());
        }
        let mut buffer = [0; MAX_IDS];
        self.answer(encode_refuse(&mut buffer, refused.iter().copied()))
    }

    fn answer_census(&mut self) -> io::Result<()> {
        let all = self.shared.sessions.census();
        all.chunks(BATCH).try_for_each(|some| self.answer(&encode_session_list(some)))?;
        self.answer(&encode_session_list(&[]))
    }

    /// Acknowledges what has arrived; refusals have been sent before.
    fn settle(&mut self) {
        if self.refused > 0 {
            self.shared.own.scoreboard.add(Counter::Refused, std::mem::take(&mut self.refused));
        }
        if self.settled > 0 {
            self.shared.own.scoreboard.add(Counter::Completed, std::mem::take(&mut self.settled));
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

    /// Whether it went, or never will: without a primary, nobody else claims the connections.
    fn try_send(&self, answer: &Answer) -> io::Result<bool> {
        let Answer { message, descriptor, told } = answer;
        let descriptors = descriptor.as_ref().map(AsFd::as_fd);
        let sent = scm_rights::send(self.channel.get_ref(), message, descriptors.as_slice())?;
        if sent == Sent::Full {
            return Ok(false);
        }
        told.iter().for_each(|told| told.store(true, Ordering::Release));
        Ok(true)
    }
}

impl Drop for Link {
    /// Nobody hears the primary any more: those who wait for its word need not.
    fn drop(&mut self) {
        self.shared.sessions.give_up_offers();
    }
}

fn open(socket: OwnedFd, record: &ConnectionRecord, shared: &Arc<Shared>) -> Option<Connection> {
    let stream = TcpStream::from_std(StdTcpStream::from(socket)).ok()?;
    Some(Connection::new(stream, record, shared))
}

/// The whole of a parcel's memory. Its position is shared with others, and is not used.
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
