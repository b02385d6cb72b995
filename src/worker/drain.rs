//! The end of a worker, seen from its handlers: when it begins, and when all is done.
//!
//! Never closes a connection itself: it tells those who can.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::protocol::message::REPLACE_ME;
use crate::protocol::scm_rights::{self, Sent};
use crate::protocol::scoreboard::Counter;
use crate::worker::error::ChannelError;
use crate::worker::shared::{Own, Shared};

/// How long a connection that came just before the drain may take to send its first bytes.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(1);

/// How long connections that are kept alive may take to be used once more. Their answer then tells the
/// client to make a new one; closed without that, the next request of a busy client would meet the
/// end of the connection (RFC 9112, 9.5 and 9.6).
const LINGER: Duration = Duration::from_millis(500);

/// Tells a worker's handlers of its end. Cheap to clone.
///
/// 1. The primary orders the end, and no new connection comes: draining has [started](Self::started).
/// 2. [Sessions](crate::worker::Session) migrate to other workers if the order says so and they can;
///    the other WebSockets are closed in their turn. HTTP answers its last request.
/// 3. Draining is [quiesced](Self::quiesced) when each open connection was read from, or a second has
///    passed: a connection that came just before may only then be told to go. One that is kept alive
///    has half a second to be used once more, and its answer says `Connection: close`.
/// 4. When the last connection is closed, draining is [completed](Self::completed), and the process
///    can end.
#[derive(Clone, Debug)]
pub struct Drain {
    shared: Arc<Shared>,
}

impl Drain {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// A drain that never starts, for an app that runs without a [`Worker`](crate::worker::Worker).
    ///
    /// # Errors
    ///
    /// If the kernel has no memory or no descriptor left.
    pub fn standalone() -> io::Result<Self> {
        Ok(Self { shared: Shared::new(Own::standalone()?) })
    }

    /// Waits until the worker is to end. The handler of a WebSocket that can't migrate may wait for
    /// this beside its socket, and send a close frame with code 1001 ("going away", RFC 6455, 7.4.1).
    pub async fn started(&self) {
        self.shared.started.cancelled().await;
    }

    /// Whether the worker is to end.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.shared.is_draining()
    }

    /// Whether connections are to be closed now: the worker is to end, and migration is over. From
    /// then on an answer should say that it is its connection's last.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.shared.closing.is_cancelled()
    }

    /// Whether a health check should say that new clients are welcome. They are not once this worker
    /// drains, and not once the whole is to stop, though connections come for as long as `lameduck`
    /// says, so that load balancers have time to notice.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.has_started() && self.shared.own.scoreboard.get(Counter::Stop) == 0
    }

    /// Waits until the worker is to end, migration is over, and each open connection was read from:
    /// half a second at least and a second at most. A server's graceful shutdown should wait for
    /// this: told to shut down earlier, hyper closes a connection that it hasn't read from without an
    /// answer.
    pub async fn quiesced(&self) {
        self.started().await;
        self.shared.closing.cancelled().await;
        let used = self.shared.wait_for_zero(&self.shared.fresh);
        let quiesced = async { tokio::join!(used, tokio::time::sleep(LINGER)) };
        tokio::select! {
            // If it takes longer, some client sends nothing. It gets no more time.
            _ = tokio::time::timeout(FIRST_BYTES_TIMEOUT, quiesced) => {}
            () = self.shared.wait_for_zero(&self.shared.open) => {}
        }
        // Idle connections are read first, so that a request that has come is answered.
        tokio::task::yield_now().await;
    }

    pub(crate) fn note_awaited(&self) {
        self.shared.note_awaited();
    }

    /// Waits until the worker is to end and its last connection is closed, WebSockets included. A
    /// worker whose primary is gone waits for `kill_timeout` at most.
    pub async fn completed(&self) {
        self.note_awaited();
        self.started().await;
        tokio::select! {
            () = self.shared.wait_for_zero(&self.shared.open) => {}
            () = self.expired() => {}
        }
    }

    /// Waits until the primary is gone and the time is over that the worker has without it: it must
    /// end now, whatever is open.
    pub async fn expired(&self) {
        self.shared.expired.cancelled().await;
    }

    /// Asks the primary to replace this worker: a successor is started, and when it serves, this one
    /// drains. An app may do so when its memory runs full, say. Asking again changes nothing.
    ///
    /// # Errors
    ///
    /// If there is no primary, or none any more, or it reads so slowly that the channel is full.
    pub fn request_replacement(&self) -> Result<(), ChannelError> {
        let channel = self.shared.own.channel.as_ref().ok_or(ChannelError::NoPrimary)?;
        match scm_rights::send(channel, &REPLACE_ME, &[])
            .map_err(|errno| ChannelError::Io(errno.into()))?
        {
            Sent::Queued => Ok(()),
            Sent::Full => Err(ChannelError::Full),
            Sent::Closed => Err(ChannelError::NoPrimary),
        }
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }
}
