//! The worker itself: says hello, says ready, and yields the connections that the primary sends.
//!
//! Never ends by itself: the primary, its end or a signal ends it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::net::ToSocketAddrs;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::Instrument;

use crate::protocol::ids::{Generation, SlotId};
use crate::protocol::message::{HELLO, READY, REPLACE_ME, SESSIONS};
use crate::protocol::scoreboard::Counter;
use crate::worker::attach::Inheritance;
use crate::worker::connection::Connection;
use crate::worker::drain::Drain;
use crate::worker::ending;
use crate::worker::error::{AttachError, ChannelError, ServeError};
use crate::worker::handler_result::{HandlerResult, Logged};
#[cfg(feature = "hyper")]
use crate::worker::http_limits::HttpLimits;
use crate::worker::listen::OwnListener;
use crate::worker::misuse::Misuse;
use crate::worker::orphan::discard_output;
use crate::worker::primary_channel::{ChannelEvent, PrimaryChannel};
use crate::worker::session::api::Session;
use crate::worker::session::registry::{Returned, Sessions};
#[cfg(feature = "hyper")]
use crate::worker::session::slow_clients;
use crate::worker::session::stream::SessionStream;
use crate::worker::shared::{Own, Shared};

/// A worker that is ready and hasn't called accept after this time is reported.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that are yielded one after the other, before their handlers have a turn: where thousands come at
/// once, the first ones would else be answered with the last.
const MAX_STREAK: usize = 16;

/// A process that serves connections under a primary.
///
/// It answers SIGTERM and SIGINT by asking the primary to be drained, so that a signal to the whole
/// process group, as service managers send it, cuts no connection.
///
/// # Examples
///
/// The long way, for servers that accept themselves. [`Worker::serve`] does all of it.
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
/// drain.completed().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Worker {
    source: Source,
    stage: Stage,
    sessions: Arc<Sessions>,
    /// Sessions that no other worker has taken.
    returned: mpsc::Receiver<Returned>,
    /// Ends when no more connections come.
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    signals: [Signal; 2],
    #[cfg(feature = "hyper")]
    http_limits: HttpLimits,
    /// The address that the primary listens on, as the last connection says.
    local: Option<SocketAddr>,
    /// Connections that were yielded one after the other.
    streak: usize,
}

/// The source of connections.
#[derive(Debug)]
enum Source {
    Primary(Box<PrimaryChannel>),
    /// The primary is gone: no connections come, and the worker drains after this time.
    Orphan(Pin<Box<Sleep>>),
    /// There is no primary.
    Own(OwnListener),
    Ended,
}

/// How far the app has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Attached,
    Ready,
    Accepting,
}

impl Worker {
    /// Attaches to the primary that started this process. It must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the process wasn't started by a primary, or has attached before; the first worker is
    /// unharmed then.
    pub fn attach() -> Result<Self, AttachError> {
        let Inheritance { channel, scoreboard, slot, generation, orphan, migrate_timeout, allowed } =
            Inheritance::take()?;
        let own = Own {
            channel: Some(channel.try_clone().map_err(AttachError::Channel)?),
            scoreboard,
            slot,
            generation,
            orphan,
            migrate_timeout,
            allowed,
        };
        let (sessions, returned) = Sessions::new(Shared::new(own));
        let mut channel = PrimaryChannel::new(channel, &sessions).map_err(AttachError::Channel)?;
        channel.answer(&HELLO).map_err(AttachError::Channel)?;
        Self::new(Source::Primary(Box::new(channel)), sessions, returned)
            .map_err(AttachError::Channel)
    }

    /// Attaches to the primary; without one the worker listens on this address, and prints it. All
    /// servers of this library serve such a worker, too. See [`serve_or_listen`](crate::worker::serve_or_listen).
    ///
    /// # Errors
    ///
    /// If the process can't attach, or there is no primary and the address can't be had.
    pub async fn attach_or_listen(address: impl ToSocketAddrs) -> Result<Self, ServeError> {
        match Self::attach() {
            Err(AttachError::NoPrimary) => {}
            attached => return Ok(attached?),
        }
        let own = Own::standalone().map_err(ServeError::Listen)?;
        let (sessions, returned) = Sessions::new(Shared::new(own));
        let listener = OwnListener::bind(address).await.map_err(ServeError::Listen)?;
        Self::new(Source::Own(listener), sessions, returned).map_err(ServeError::Listen)
    }

    fn new(
        source: Source,
        sessions: Arc<Sessions>,
        returned: mpsc::Receiver<Returned>,
    ) -> io::Result<Self> {
        Ok(Self {
            source,
            stage: Stage::Attached,
            closing: Box::pin(sessions.shared.closing.clone().cancelled_owned()),
            sessions,
            returned,
            signals: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
            #[cfg(feature = "hyper")]
            http_limits: HttpLimits::new(),
            local: None,
            streak: 0,
        })
    }

    /// Serves each connection with this handler, in a task of its own, and returns when the last one
    /// is closed. Says ready, accepts, migrates sessions, drains.
    ///
    /// HTTP/1.1 connections and WebSockets migrate; see [`Session`].
    ///
    /// # Errors
    ///
    /// If the channel to the primary fails.
    pub async fn serve<H, F>(mut self, mut handler: H) -> Result<(), ChannelError>
    where
        H: FnMut(SessionStream, Session) -> F,
        F: Future<Output: HandlerResult> + Send + 'static,
    {
        let drain = self.drain();
        self.enable_migration()?;
        self.ready()?;
        while let Some(connection) = self.accept().await? {
            let span = connection.span().clone();
            let (stream, session) = connection.into_session();
            tokio::spawn(Logged::new(handler(stream, session)).instrument(span));
        }
        drain.completed().await;
        Ok(())
    }

    /// Tells the primary that sessions can migrate from and to this worker; see [`Session`]. From
    /// then on each connection should be served by [`Connection::into_session`]. The servers of this
    /// library do both.
    ///
    /// # Errors
    ///
    /// If [`Worker::ready`] was called before, the channel has failed, or the kernel has no
    /// descriptor left.
    pub fn enable_migration(&mut self) -> Result<(), ChannelError> {
        if self.stage != Stage::Attached {
            return Err(ChannelError::AlreadyReady);
        }
        let Source::Primary(channel) = &mut self.source else { return Ok(()) };
        let sender = channel.sender().map_err(ChannelError::Io)?;
        if self.sessions.sender.set(sender).is_ok() {
            self.sessions.shared.is_migration_enabled.store(true, Ordering::Relaxed);
            channel.answer(&SESSIONS).map_err(ChannelError::Io)?;
        }
        Ok(())
    }

    /// Tells the primary that connections may come.
    ///
    /// # Errors
    ///
    /// If the channel has failed.
    pub fn ready(&mut self) -> Result<(), ChannelError> {
        if let Source::Primary(channel) = &mut self.source {
            channel.answer(&READY).map_err(ChannelError::Io)?;
        }
        if self.stage == Stage::Attached {
            self.stage = Stage::Ready;
            tokio::spawn(report_if_never_accepted(Arc::clone(&self.sessions.shared)));
        }
        Ok(())
    }

    /// Waits for the next connection; `None` when the worker is to end. It may be dropped and called
    /// again without losing a connection.
    ///
    /// # Errors
    ///
    /// If the channel has failed.
    pub async fn accept(&mut self) -> Result<Option<Connection>, ChannelError> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// The end of this worker, for its handlers.
    #[must_use]
    pub fn drain(&self) -> Drain {
        Drain::new(&self.sessions.shared)
    }

    /// Sets the limits for slow clients, before `worker::axum` or `worker::hyper` serves this worker.
    /// Plain handlers have none.
    #[cfg(feature = "hyper")]
    pub fn set_http_limits(&mut self, limits: HttpLimits) {
        self.http_limits = limits;
    }

    /// Its limits hold from now on; returns them.
    #[cfg(feature = "hyper")]
    pub(crate) fn watch_http(&self) -> HttpLimits {
        slow_clients::watch(&self.sessions, self.http_limits);
        self.http_limits
    }

    /// The slot that this worker fills; 0 without a primary.
    #[must_use]
    pub fn slot(&self) -> SlotId {
        self.sessions.shared.own.slot
    }

    /// The generation of this worker in its slot; 0 without a primary.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.sessions.shared.own.generation
    }

    /// The address that clients connect to: that of the worker's own listener, or of the
    /// primary's, whose IP address is unspecified if it listens everywhere.
    ///
    /// # Errors
    ///
    /// If the primary listens and no connection has come yet.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        if let Source::Own(listener) = &self.source {
            return listener.local_addr();
        }
        let unknown = "the primary listens, and no connection has come yet";
        self.local.ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, unknown))
    }

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Connection>, ChannelError>> {
        self.note_accepting();
        if self.streak == MAX_STREAK {
            self.streak = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Poll::Ready(accepted) = self.poll_source(cx) else {
            self.streak = 0;
            return Poll::Pending;
        };
        match &accepted {
            Ok(Some(connection)) => {
                self.local = Some(connection.info().local);
                self.streak += 1;
            }
            Ok(None) => {}
            Err(_) => self.source = Source::Ended,
        }
        Poll::Ready(accepted)
    }

    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Connection>, ChannelError>> {
        loop {
            while self.signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
                self.handle_signal()?;
            }
            // A closed queue says nothing: the accept loop is the only one that ends it.
            if let Poll::Ready(Some(returned)) = self.returned.poll_recv(cx) {
                let connection = Connection::returned(returned, &self.sessions);
                return Poll::Ready(Ok(Some(connection)));
            }
            if self.sessions.shared.closing.is_cancelled()
                || self.closing.as_mut().poll(cx).is_ready()
            {
                self.wait_for_exit();
                return Poll::Ready(Ok(None));
            }
            let event = match &mut self.source {
                Source::Primary(channel) => ready!(channel.poll_next(cx))?,
                Source::Own(listener) => {
                    let connection = ready!(listener.poll_accept(cx, &self.sessions));
                    connection.accepted();
                    return Poll::Ready(Ok(Some(connection)));
                }
                Source::Orphan(grace) => {
                    ready!(grace.as_mut().poll(cx));
                    self.drain_orphaned();
                    return Poll::Ready(Ok(None));
                }
                Source::Ended => return Poll::Ready(Ok(None)),
            };
            match event {
                ChannelEvent::Connection(connection) => return Poll::Ready(Ok(Some(*connection))),
                ChannelEvent::Drain(order) => ending::begin_drain(&self.sessions, order),
                ChannelEvent::Closed
                    if self.sessions.shared.own.scoreboard.get(Counter::Drain) > 0 =>
                {
                    self.source = Source::Ended;
                    ending::begin_unled_drain(&self.sessions);
                }
                ChannelEvent::Closed => self.become_orphan(),
            }
        }
    }

    fn note_accepting(&mut self) {
        match self.stage {
            Stage::Attached => self.sessions.shared.reported.misuse(Misuse::AcceptBeforeReady),
            Stage::Ready => {
                self.stage = Stage::Accepting;
                self.sessions.shared.is_accepting.store(true, Ordering::Relaxed);
            }
            Stage::Accepting => {}
        }
    }

    fn handle_signal(&mut self) -> Result<(), ChannelError> {
        match &mut self.source {
            Source::Primary(channel) => channel.answer(&REPLACE_ME).map_err(ChannelError::Io)?,
            Source::Orphan(_) => self.drain_orphaned(),
            Source::Own(_) => {
                self.source = Source::Ended;
                ending::begin_standalone_drain(&self.sessions);
            }
            Source::Ended => {}
        }
        Ok(())
    }

    /// No more connections come: the worker drains.
    #[cfg(feature = "axum")]
    pub(crate) fn end(&mut self) {
        self.source = Source::Ended;
        ending::begin_plain_drain(&self.sessions);
    }

    /// No more connections come, but the primary still sends messages.
    fn wait_for_exit(&mut self) {
        self.returned.close();
        if let Source::Primary(channel) = std::mem::replace(&mut self.source, Source::Ended) {
            tokio::spawn((*channel).wait_for_exit());
        }
    }

    /// The primary is gone without an order to drain: it has died. Clients that are connected have no
    /// other worker.
    fn become_orphan(&mut self) {
        discard_output();
        let grace = self.sessions.shared.own.orphan.serve;
        tracing::warn!(?grace, "primary is gone, worker serves on for a while");
        self.source = Source::Orphan(Box::pin(tokio::time::sleep(grace)));
    }

    fn drain_orphaned(&mut self) {
        self.source = Source::Ended;
        ending::begin_orphaned_drain(&self.sessions);
    }
}

async fn report_if_never_accepted(shared: Arc<Shared>) {
    tokio::time::sleep(ACCEPT_TIMEOUT).await;
    if !shared.is_accepting.load(Ordering::Relaxed) {
        shared.reported.misuse(Misuse::NeverAccepted);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.sessions.shared.note_left();
        if self.stage == Stage::Attached || std::thread::panicking() {
            return;
        }
        match self.source {
            Source::Primary(_) | Source::Own(_) => {
                self.sessions.shared.reported.misuse(Misuse::DroppedEarly);
            }
            Source::Ended if self.sessions.shared.is_left_open() => {
                self.sessions.shared.reported.misuse(Misuse::NotAwaited);
            }
            Source::Ended | Source::Orphan(_) => {}
        }
    }
}

impl Stream for Worker {
    type Item = Result<Connection, ChannelError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_accept(cx).map(Result::transpose)
    }
}
