//! The worker itself: says hello, says ready, and yields the connections that the primary sends.
//!
//! Never yields a connection before it is acknowledged, and so never reads from one that could be
//! given to somebody else.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Sleep;

use crate::handoff::kernel;
use crate::handoff::message::{
    BATCH, ConnectionRecord, HELLO, LEAVE, MAX_IDS, MAX_TO_WORKER, MessageError, PONG, READY,
    Records, ToWorker, decode_to_worker, encode_refuse,
};
use crate::handoff::scm_rights::{self, Received, Sent};
use crate::handoff::scoreboard::Counter;
use crate::worker::attach::{AttachError, Inheritance};
use crate::worker::connection::Connection;
use crate::worker::drain::{Drain, Own, Shared};
use crate::worker::orphan::print_nowhere;

/// A process that serves connections under a primary.
///
/// It answers SIGTERM and SIGINT by asking the primary to be drained, so that a signal to the whole
/// process group, as service managers send it, cuts nobody.
///
/// # Examples
///
/// ```no_run
/// use sticky_lb::worker::Worker;
/// use tokio::io::AsyncWriteExt;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let mut worker = Worker::attach()?;
/// let drain = worker.drain();
/// worker.ready()?;
/// while let Some(mut connection) = worker.accept().await? {
///     tokio::spawn(async move { connection.write_all(b"hello\n").await });
/// }
/// drain.finished().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Worker {
    channel: AsyncFd<OwnedFd>,
    shared: Arc<Shared>,
    /// Answers that the channel had no room for. While there are any, nothing is settled.
    answers: VecDeque<Vec<u8>>,
    /// To be counted as settled, and of those the refused ones.
    settled: u64,
    refused: u64,
    /// Not yet yielded.
    arrived: VecDeque<Connection>,
    /// Room for a message; taken out while one is read.
    message: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    signals: [Signal; 2],
    /// The primary is gone: when to drain.
    orphaned: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

/// Why no more connections come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The primary speaks another language.
    #[error("cannot understand the primary")]
    Message(#[from] MessageError),
    /// The channel failed.
    #[error("channel to the primary failed")]
    Channel(#[source] io::Error),
}

impl Worker {
    /// Attaches to the primary that started this process. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the process wasn't started by a primary, or has attached before.
    pub fn attach() -> Result<Self, AttachError> {
        let Inheritance { channel, scoreboard, slot, generation, orphan, move_timeout } =
            Inheritance::from_environment()?;
        let watch = |kind| signal(kind).map_err(AttachError::Channel);
        let own = channel.try_clone().map_err(AttachError::Channel)?;
        let own = Own { channel: Some(own), scoreboard, slot, generation, orphan, move_timeout };
        let mut worker = Self {
            channel: kernel::watch(channel, Interest::READABLE | Interest::WRITABLE)
                .map_err(AttachError::Channel)?,
            shared: Shared::new(own),
            answers: VecDeque::new(),
            settled: 0,
            refused: 0,
            arrived: VecDeque::with_capacity(BATCH),
            message: vec![0; MAX_TO_WORKER],
            descriptors: Vec::with_capacity(BATCH),
            signals: [watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?],
            orphaned: None,
            ended: false,
        };
        worker.answer(&HELLO).map_err(AttachError::Channel)?;
        Ok(worker)
    }

    /// Tells the primary that connections may come.
    ///
    /// # Errors
    ///
    /// If the channel has failed.
    pub fn ready(&mut self) -> Result<(), AcceptError> {
        self.answer(&READY).map_err(AcceptError::Channel)
    }

    /// Asks the primary to drain this worker and to start another in its place.
    ///
    /// # Errors
    ///
    /// If the channel has failed.
    pub fn leave(&mut self) -> Result<(), AcceptError> {
        self.answer(&LEAVE).map_err(AcceptError::Channel)
    }

    /// Waits for the next connection; `None` when the worker is to end. May be dropped and called
    /// again without losing one.
    ///
    /// # Errors
    ///
    /// If the channel has failed.
    pub async fn accept(&mut self) -> Result<Option<Connection>, AcceptError> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// The end of this worker, for its handlers.
    #[must_use]
    pub fn drain(&self) -> Drain {
        Drain::new(&self.shared)
    }

    /// The slot that this worker fills.
    #[must_use]
    pub fn slot(&self) -> u16 {
        self.shared.own.slot.0
    }

    /// The generation of this worker in its slot.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.shared.own.generation.0
    }

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Connection>, AcceptError>> {
        loop {
            while self.signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
                if self.orphaned.is_some() {
                    self.end_orphaned();
                } else {
                    self.leave()?;
                }
            }
            ready!(self.poll_answers(cx)).map_err(AcceptError::Channel)?;
            self.settle();
            if let Some(connection) = self.arrived.pop_front() {
                connection.accepted();
                return Poll::Ready(Ok(Some(connection)));
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            if let Some(grace) = &mut self.orphaned {
                ready!(grace.as_mut().poll(cx));
                self.end_orphaned();
                continue;
            }
            let mut ready =
                ready!(self.channel.poll_read_ready(cx)).map_err(AcceptError::Channel)?;
            let channel = ready.get_inner();
            let received = scm_rights::receive(channel, &mut self.message, &mut self.descriptors);
            match received.map_err(|errno| AcceptError::Channel(errno.into()))? {
                Received::Empty => ready.clear_ready(),
                Received::Closed if self.shared.own.scoreboard.get(Counter::Drain) > 0 => {
                    self.end()
                }
                Received::Closed => self.be_orphaned(),
                Received::Message { length, .. } => {
                    let message = std::mem::take(&mut self.message);
                    let taken = self.take(&message[..length]);
                    self.message = message;
                    taken?;
                }
            }
        }
    }

    /// No more connections come: the worker drains.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        self.shared.begin_drain();
    }

    /// Nobody has ordered the end: the primary has died. Who is connected has nobody else.
    fn be_orphaned(&mut self) {
        print_nowhere();
        let grace = self.shared.own.orphan.grace;
        tracing::warn!(?grace, "primary is gone, worker goes on for a while");
        self.orphaned = Some(Box::pin(tokio::time::sleep(grace)));
    }

    fn end_orphaned(&mut self) {
        self.ended = true;
        self.shared.begin_orphaned_drain();
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), AcceptError> {
        match decode_to_worker(bytes)? {
            ToWorker::Connections(records) => self.take_connections(records),
            ToWorker::Ping => self.answer(&PONG),
            _ => Ok(()),
        }
        .map_err(AcceptError::Channel)
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
        self.settled += records.len() as u64;
        self.refused += refused.len() as u64;
        if refused.is_empty() {
            return Ok(());
        }
        let mut buffer = [0; MAX_IDS];
        self.answer(encode_refuse(&mut buffer, refused.into_iter()))
    }

    /// Acknowledges what has arrived; refusals have been sent before.
    fn settle(&mut self) {
        if self.refused > 0 {
            self.shared.own.scoreboard.add(Counter::Refused, std::mem::take(&mut self.refused));
        }
        if self.settled > 0 {
            self.shared.own.scoreboard.add(Counter::Settled, std::mem::take(&mut self.settled));
        }
    }

    /// Sends now, or as soon as there is room, in order.
    fn answer(&mut self, message: &[u8]) -> io::Result<()> {
        let sent = self.answers.is_empty() && self.try_send(message)?;
        if !sent {
            self.answers.push_back(message.to_vec());
        }
        Ok(())
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
    fn try_send(&self, message: &[u8]) -> io::Result<bool> {
        Ok(scm_rights::send(self.channel.get_ref(), message, &[])? != Sent::Full)
    }
}

fn open(socket: OwnedFd, record: &ConnectionRecord, shared: &Arc<Shared>) -> Option<Connection> {
    let stream = TcpStream::from_std(StdTcpStream::from(socket)).ok()?;
    Some(Connection::new(stream, record, shared))
}

impl Stream for Worker {
    type Item = Result<Connection, AcceptError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_accept(cx).map(Result::transpose)
    }
}
