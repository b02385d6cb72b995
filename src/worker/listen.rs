//! A worker without a primary, for development: it accepts on a listener of its own.
//!
//! Never used where there is a primary.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, ToSocketAddrs, lookup_host};
use tokio::time::Sleep;

use crate::protocol::ids::{AffinityKey, ConnectionId, Timestamp};
use crate::protocol::message::ConnectionRecord;
use crate::worker::connection::Connection;
use crate::worker::session::registry::Sessions;

/// How long to wait after a failure, such as too many open files, before the next try.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// Accepts connections as a primary would.
#[derive(Debug)]
pub(crate) struct OwnListener {
    listener: TcpListener,
    next_id: u64,
    retry: Option<Pin<Box<Sleep>>>,
}

impl OwnListener {
    /// Binds, and prints the address. An error names the addresses that were tried.
    pub(crate) async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let addresses: Vec<SocketAddr> = lookup_host(address).await?.collect();
        let listener = TcpListener::bind(&addresses[..]).await.map_err(|error| {
            let tried: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            io::Error::new(error.kind(), format!("{}: {error}", tried.join(", ")))
        })?;
        let address = listener.local_addr()?;
        // If standard error is closed, nothing is lost.
        let _ = writeln!(
            io::stderr(),
            "listening on {address} without a sticky-lb primary, Ctrl-C stops",
        );
        Ok(Self { listener, next_id: 1, retry: None })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection. A failure is logged and tried again.
    pub(crate) fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        sessions: &Arc<Sessions>,
    ) -> Poll<Connection> {
        loop {
            if let Some(retry) = &mut self.retry {
                ready!(retry.as_mut().poll(cx));
                self.retry = None;
            }
            let accepted = ready!(self.listener.poll_accept(cx));
            match accepted.and_then(|(stream, client)| self.connection(stream, client, sessions)) {
                Ok(connection) => return Poll::Ready(connection),
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    self.retry = Some(Box::pin(tokio::time::sleep(RETRY_DELAY)));
                }
            }
        }
    }

    fn connection(
        &mut self,
        stream: TcpStream,
        client: SocketAddr,
        sessions: &Arc<Sessions>,
    ) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let mut hasher = DefaultHasher::new();
        client.ip().hash(&mut hasher);
        let (key, accepted_at) = (AffinityKey(hasher.finish()), Timestamp::now());
        let local = stream.local_addr()?;
        let record = ConnectionRecord { id, accepted_at, key, client, local, tag: 0 };
        Ok(Connection::new(stream, &record, None, sessions))
    }
}
