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
//! Runs on the thread of the control socket. Connections are bounded in number, in all and from each
//! address, requests in size and time; a client that doesn't read is disconnected. However many
//! connections are held, there is a place for a health check: see `connections`.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_user_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::TcpStream;

use crate::control::admin::connections::{BusyBody, Connections, Place, PlaceKind};
use crate::control::admin::guard::Peer;
use crate::control::admin::routes::Routes;
use crate::control::answers::Control;
use crate::control::settings::{AdminSettings, Token};

mod answer;
mod connections;
mod guard;
mod health;
mod page;
mod routes;
mod show;
mod state;
mod steer;
mod stream;
mod viewers;

pub use connections::MAX_CONNECTIONS;

/// Time for a request's head, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the head of a health check in a reserved place.
const RESERVED_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
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
    /// The port is for privileged processes.
    #[error(
        "cannot listen on admin address {0}: its port is privileged: run as root or with \
         CAP_NET_BIND_SERVICE, or choose another --admin"
    )]
    Privileged(SocketAddr),
    /// The address is another machine's.
    #[error(
        "cannot listen on admin address {0}: no network interface of this machine has this address: \
         choose another --admin"
    )]
    NotOwn(SocketAddr),
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

impl AdminError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            io::ErrorKind::PermissionDenied => Self::Privileged(address),
            io::ErrorKind::AddrNotAvailable => Self::NotOwn(address),
            _ => Self::Bind { address, source },
        }
    }
}

/// A bound listener, not served yet.
#[derive(Debug)]
pub struct AdminListener {
    listener: TcpListener,
    address: SocketAddr,
    settings: AdminSettings,
    token: Option<Token>,
}

impl AsFd for AdminListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl AdminListener {
    /// Binds it. Requests must bear the token, if there is one.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub fn bind(settings: &AdminSettings, token: Option<Token>) -> Result<Self, AdminError> {
        let bound = TcpListener::bind(settings.address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address, settings: settings.clone(), token })
        });
        bound.map_err(|source| AdminError::new(settings.address, source))
    }

    /// Fails if [`Self::bind`] would, whatever listens there now: that may be the primary itself. Accepts
    /// nobody.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub fn check(settings: &AdminSettings) -> Result<(), AdminError> {
        let address = settings.address;
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let bound = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).and_then(
            |socket| {
                set_socket_reuseaddr(&socket, true)?;
                bind(&socket, &address)
            },
        );
        match bound {
            Ok(()) | Err(Errno::ADDRINUSE) => Ok(()),
            Err(errno) => Err(AdminError::new(address, errno.into())),
        }
    }

    /// Adopts the listener of the previous primary.
    ///
    /// # Errors
    ///
    /// If the descriptor is no such socket.
    pub fn adopt(
        listener: OwnedFd,
        settings: &AdminSettings,
        token: Option<Token>,
    ) -> io::Result<Self> {
        let listener = TcpListener::from(listener);
        let address = listener.local_addr()?;
        Ok(Self { listener, address, settings: settings.clone(), token })
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
    pub async fn serve(self, control: Control) -> io::Result<Infallible> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let routes = Routes::new(control, self.settings, self.token);
        let connections = Connections::default();
        loop {
            match listener.accept().await {
                Ok((client, peer)) => {
                    // Without a place it is closed.
                    if let Some(place) = connections.admit(peer) {
                        tokio::spawn(serve_client(client, peer, routes.clone(), place));
                    }
                }
                Err(error) => {
                    // Most likely out of descriptors: clients wait in the backlog.
                    tracing::warn!(%error, "admin listener cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Serves one connection to its end, or until its place is taken.
async fn serve_client(client: TcpStream, address: SocketAddr, routes: Routes, mut place: Place) {
    let millis = u32::try_from(WRITE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(&client, millis) {
        tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT: a client that does not read is disconnected late");
    }
    let is_reserved = place.kind == PlaceKind::Reserved;
    let (router, head_timeout) = match place.kind {
        PlaceKind::Open => (routes.open, HEAD_TIMEOUT),
        PlaceKind::Reserved => (routes.reserved, RESERVED_HEAD_TIMEOUT),
    };
    let peer = Peer { address, place: place.handle.clone() };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .keep_alive(!is_reserved)
        .serve_connection(TokioIo::new(client), service(router, peer));
    tokio::select! {
        // Errors of clients are of little interest.
        result = served => if let Err(error) = result {
            tracing::debug!(%error, "admin connection ended with an error");
        },
        _ = &mut place.taken => tracing::debug!(%address, "idle admin connection closed: its place is another's"),
    }
}

/// The requests of one connection.
fn service(
    router: Router,
    peer: Peer,
) -> impl Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send> {
    let router = TowerToHyperService::new(router);
    service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        let busy = peer.place.begin();
        request.extensions_mut().insert(peer.clone());
        let answered = router.call(request);
        async move { Ok(answered.await?.map(|body| Body::new(BusyBody::new(body, busy)))) }
    })
}
