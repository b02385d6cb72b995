//! The admin listener: HTTP/1.1 for browsers, Prometheus and health checks.
//!
//! | request | answer | token | `Host` |
//! |---|---|---|---|
//! | `GET /` | the dashboard, which asks for the token itself | – | checked |
//! | `GET /livez` | 200 if the accept loop and the supervisor turn, else 503 | – | – |
//! | `GET /readyz` | 200 if enough slots serve and nothing ends, else 503 | – | – |
//! | `GET /metrics` | everything that is counted, in Prometheus' text format | ✓ | checked |
//! | `GET /api/…` | what the control socket answers, as JSON: see `show` and `stream` | ✓ | checked |
//! | `POST /api/…` | an order, as JSON: see `steer` | ✓ | checked |
//!
//! Health checks are asked by address and from machines that know no token: they tell nothing but
//! whether. For all else `guard` keeps out web pages of others. Only POST changes anything.
//!
//! Runs on the thread of the control socket. Connections are bounded in number, requests in size and
//! time; whoever doesn't read is cut off.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::control::answers::Control;
use crate::control::settings::AdminSettings;

mod answer;
mod guard;
mod health;
mod page;
mod routes;
mod show;
mod steer;
mod stream;

/// Connections at a time; those beyond wait in the backlog.
pub const CONNECTIONS: usize = 256;
/// How long a request's head may take, and how long a connection may be idle.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a client may leave what it was sent.
const UNREAD_TIME: Duration = Duration::from_secs(10);

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Another listens there.
    #[error("admin address {0} is in use: stop what listens there, or choose another --admin")]
    InUse(SocketAddr),
    /// The kernel refuses it.
    #[error("cannot listen on admin address {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Bound, and not served yet.
#[derive(Debug)]
pub struct AdminListener {
    listener: TcpListener,
    address: SocketAddr,
    settings: AdminSettings,
}

impl AsFd for AdminListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
struct Peer(SocketAddr);

impl AdminListener {
    /// Binds it.
    ///
    /// # Errors
    ///
    /// If the address cannot be had.
    pub fn bind(settings: &AdminSettings) -> Result<Self, AdminError> {
        let bound = TcpListener::bind(settings.address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address, settings: settings.clone() })
        });
        bound.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => AdminError::InUse(settings.address),
            _ => AdminError::Bind { address: settings.address, source },
        })
    }

    /// One that a primary before this one has bound.
    ///
    /// # Errors
    ///
    /// If it is no such socket.
    pub fn adopt(listener: OwnedFd, settings: &AdminSettings) -> io::Result<Self> {
        let listener = TcpListener::from(listener);
        let address = listener.local_addr()?;
        Ok(Self { listener, address, settings: settings.clone() })
    }

    /// Where it listens; the port is the real one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until this is dropped.
    ///
    /// # Errors
    ///
    /// If the runtime cannot have the socket.
    pub async fn serve(self, control: Control) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let router = routes::router(control, self.settings);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        // Fails only when it is closed, which nobody does.
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            match listener.accept().await {
                Ok((client, peer)) => {
                    tokio::spawn(attend(client, Peer(peer), router.clone(), permit));
                }
                Err(error) => {
                    // Out of descriptors, most likely: clients wait in the backlog.
                    tracing::warn!(%error, "admin listener cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        Ok(())
    }
}

/// One connection, to its end.
async fn attend(client: TcpStream, peer: Peer, router: Router, _room: OwnedSemaphorePermit) {
    let millis = u32::try_from(UNREAD_TIME.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(&client, millis) {
        tracing::debug!(%error, "a client that doesn't read is cut off late");
    }
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(client), service);
    if let Err(error) = served.await {
        // What clients do wrong is no more than this worth.
        tracing::debug!(%error, "admin connection ended with an error");
    }
}
