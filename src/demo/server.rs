//! Runs the demo as a worker, or by itself for comparison.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::net::TcpListener;

use crate::demo::app::router;
use crate::worker::{Drain, Worker, axum};

/// Serves until the primary says to end; with `listen`, that address itself, until killed.
///
/// # Errors
///
/// If there is no primary, or the address cannot be had.
pub fn run(address: Option<SocketAddr>) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Some(address) = address else {
            let worker = Worker::attach()?;
            let router = router(worker.drain());
            return Ok(axum::serve(worker, router).await?);
        };
        let listener = shared_listener(address)?;
        Ok(::axum::serve(listener, router(Drain::detached()?).into_make_service()).await?)
    })
}

/// A listener that several processes may have at one address (`SO_REUSEPORT`). Its connections
/// have no delay, as those of the primary's listener.
fn shared_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, 4096)?;
    TcpListener::from_std(socket.into())
}
