//! The admin listener: HTTP/1.1 for browsers, Prometheus and health checks.
//!
//! | request | answer | token | `Host` |
//! |---|---|---|---|
//! | `GET /` | the dashboard, which asks for the token | – | checked |
//! | `GET /livez` | 200 if accept loop and supervisor answer, else 503 | – | – |
//! | `GET /readyz` | 200 if enough slots serve and the primary is not stopping, else 503 | – | – |
//! | `GET /metrics` | metrics in the text format of Prometheus | ✓ | checked |
//! | `GET /api/…` | answers of the control socket as JSON: see `show` and `stream` | ✓ | checked |
//! | `POST /api/…` | an order, as JSON: see `steer` | ✓ | checked |
//!
//! Health checks come by address and without a token, so they answer yes or no. `guard` rejects
//! requests of other web pages to everything else. Only POST changes anything.
//!
//! Runs on the thread of the control socket. Connections are bounded in number, requests in size and
//! time; a client that doesn't read is disconnected.

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

use crate::control::admin::guard::Peer;
use crate::control::answers::Control;
use crate::control::settings::AdminSettings;

mod answer;
mod guard;
mod health;
mod page;
mod routes;
mod show;
mod state;
mod steer;
mod stream;
mod viewers;

/// The largest number of connections; further ones wait in the backlog.
pub const MAX_CONNECTIONS: usize = 256;
/// Time for a request's head, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a client to acknowledge sent data.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// An admin listener that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The address is in use.
    #[error(
        "admin address {0} is in use: stop the program that listens there, or choose another --admin"
    )]
    InUse(SocketAddr),
    /// The kernel refuses the address.
    #[error("cannot listen on admin address {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// A bound listener, not served yet.
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

impl AdminListener {
    /// Binds it.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
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

    /// Adopts the listener of the previous primary.
    ///
    /// # Errors
    ///
    /// If the descriptor is no such socket.
    pub fn adopt(listener: OwnedFd, settings: &AdminSettings) -> io::Result<Self> {
        let listener = TcpListener::from(listener);
        let address = listener.local_addr()?;
        Ok(Self { listener, address, settings: settings.clone() })
    }

    /// Its address with the actual port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until this is dropped.
    ///
    /// # Errors
    ///
    /// If the runtime refuses the socket.
    pub async fn serve(self, control: Control) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let router = routes::router(control, self.settings);
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        // Fails only if the semaphore is closed, which never happens.
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            match listener.accept().await {
                Ok((client, peer)) => {
                    tokio::spawn(serve_client(client, Peer(peer), router.clone(), permit));
                }
                Err(error) => {
                    // Most likely out of descriptors: clients wait in the backlog.
                    tracing::warn!(%error, "admin listener cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        Ok(())
    }
}

/// Serves one connection to its end.
async fn serve_client(client: TcpStream, peer: Peer, router: Router, _room: OwnedSemaphorePermit) {
    let millis = u32::try_from(WRITE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(&client, millis) {
        tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT: a client that does not read is disconnected late");
    }
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(client), service);
    if let Err(error) = served.await {
        // Errors of clients are of little interest.
        tracing::debug!(%error, "admin connection ended with an error");
    }
}
