//! The worker itself: says hello, says ready, and yields the connections that the primary sends.
//!
//! Never ends by itself: the primary says when, or its end does, or a signal.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::protocol::message::{HELLO, MessageError, READY, REPLACE_ME, SESSIONS};
use crate::protocol::scoreboard::Counter;
use crate::worker::attach::{AttachError, Inheritance};
use crate::worker::connection::Connection;
use crate::worker::drain::{Drain, Own, Shared};
use crate::worker::orphan::print_nowhere;
use crate::worker::primary_channel::{Heard, Link};

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
    /// Until no more connections come.
    link: Option<Link>,
    shared: Arc<Shared>,
    /// Sessions that nobody has taken.
    returned: mpsc::Receiver<Connection>,
    /// Ends when no more connections come.
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    signals: [Signal; 2],
    /// The primary is gone: when to drain.
    orphaned: Option<Pin<Box<Sleep>>>,
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
        let inherited = Inheritance::from_environment()?;
        let Inheritance { channel, scoreboard, slot, generation, .. } = inherited;
        let Inheritance { orphan, migrate_timeout, protect, .. } = inherited;
        let watch = |kind| signal(kind).map_err(AttachError::Channel);
        let own = Own {
            channel: Some(channel.try_clone().map_err(AttachError::Channel)?),
            scoreboard,
            slot,
            generation,
            orphan,
            migrate_timeout,
            protect,
        };
        let (shared, returned) = Shared::new(own);
        let mut link = Link::new(channel, &shared).map_err(AttachError::Channel)?;
        link.answer(&HELLO).map_err(AttachError::Channel)?;
        Ok(Self {
            link: Some(link),
            over: Box::pin(shared.sessions.over.clone().cancelled_owned()),
            shared,
            returned,
            signals: [watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?],
            orphaned: None,
        })
    }

    /// Tells the primary that this worker can move sessions and take them, see
    /// [`worker::session`](crate::worker::session). To be called before [`Worker::ready`]; from then
    /// on each connection has to be served by [`Connection::into_session`]. The servers of this
    /// library do both by themselves.
    ///
    /// # Errors
    ///
    /// If the channel has failed, or the kernel has no descriptor left.
    pub fn enable_migration(&mut self) -> Result<(), AcceptError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let outlet = link.outlet().map_err(AcceptError::Channel)?;
        if self.shared.sessions.outlet.set(outlet).is_ok() {
            link.answer(&SESSIONS).map_err(AcceptError::Channel)?;
        }
        Ok(())
    }

    /// Tells the primary that connections may come.
    ///
    /// # Errors
    ///
    /// If the channel has failed.
    pub fn ready(&mut self) -> Result<(), AcceptError> {
        self.say(&READY)
    }

    /// Asks the primary to drain this worker and to start another in its place.
    ///
    /// # Errors
    ///
    /// If the channel has failed.
    pub fn leave(&mut self) -> Result<(), AcceptError> {
        self.say(&REPLACE_ME)
    }

    fn say(&mut self, message: &[u8]) -> Result<(), AcceptError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.answer(message).map_err(AcceptError::Channel)
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
            // A closed queue says nothing: the accept loop is the only one that ends it.
            if let Poll::Ready(Some(connection)) = self.returned.poll_recv(cx) {
                return Poll::Ready(Ok(Some(connection)));
            }
            if self.shared.sessions.over.is_cancelled() || self.over.as_mut().poll(cx).is_ready() {
                self.wait_for_exit();
                return Poll::Ready(Ok(None));
            }
            if let Some(grace) = &mut self.orphaned {
                ready!(grace.as_mut().poll(cx));
                self.end_orphaned();
                return Poll::Ready(Ok(None));
            }
            let Some(link) = &mut self.link else { return Poll::Ready(Ok(None)) };
            match ready!(link.poll_next(cx))? {
                Heard::Connection(connection) => return Poll::Ready(Ok(Some(*connection))),
                Heard::Drain(order) => self.shared.begin_drain(order),
                Heard::Closed if self.shared.own.scoreboard.get(Counter::Drain) > 0 => self.end(),
                Heard::Closed => self.be_orphaned(),
            }
        }
    }

    /// No more connections come: the worker drains.
    pub(crate) fn end(&mut self) {
        self.link = None;
        self.shared.begin_plain_drain();
    }

    /// No more connections come, but the primary still has something to say.
    fn wait_for_exit(&mut self) {
        self.returned.close();
        if let Some(link) = self.link.take() {
            tokio::spawn(link.wait_for_exit());
        }
    }

    /// Nobody has ordered the end: the primary has died. Who is connected has nobody else.
    fn be_orphaned(&mut self) {
        print_nowhere();
        let grace = self.shared.own.orphan.grace;
        tracing::warn!(?grace, "primary is gone, worker goes on for a while");
        self.orphaned = Some(Box::pin(tokio::time::sleep(grace)));
    }

    fn end_orphaned(&mut self) {
        self.link = None;
        self.shared.begin_orphaned_drain();
    }
}

impl Stream for Worker {
    type Item = Result<Connection, AcceptError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_accept(cx).map(Result::transpose)
    }
}
