//! Runs the demo as a worker, or by itself for comparison. What it logs goes to standard error, from
//! the level on that `STICKY_LB_LOG` says.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::net::TcpListener;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::demo::app::router;
use crate::worker::{Drain, Worker, axum};

/// Levels of the log, for all parts and for single ones: `info,sticky_lb::worker=debug`. Without it,
/// warnings and errors.
pub const LOG: &str = "STICKY_LB_LOG";

/// Serves until the primary says to end; with `listen`, that address itself, until killed.
///
/// # Errors
///
/// If there is no primary, or the address cannot be had.
pub fn run(address: Option<SocketAddr>) -> Result<(), Box<dyn Error>> {
    start_log();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Some(address) = address else {
            let worker = Worker::attach()?;
            let router = router(worker.drain());
            return Ok(axum::serve(worker, router).await?);
        };
        let listener = shared_listener(address)?;
        Ok(::axum::serve(listener, router(Drain::standalone()?).into_make_service()).await?)
    })
}

fn start_log() {
    let text = std::env::var(LOG).unwrap_or_default();
    let levels = text.parse::<Targets>().ok().filter(|_| !text.is_empty());
    let usual = || Targets::new().with_default(LevelFilter::WARN);
    let misspelt = levels.is_none() && !text.is_empty();
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .with_filter(levels.unwrap_or_else(usual));
    // Fails only where there is a log already.
    let _ = tracing_subscriber::registry().with(lines).try_init();
    if misspelt {
        // No reason for a worker not to come up.
        tracing::warn!(
            variable = LOG,
            value = text,
            "level of the log is not understood, expected one such as debug",
        );
    }
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
