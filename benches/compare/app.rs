//! The worker behind every front but Node's: the product's demo. This is the
//! one place that says so; all rows must serve the same.

use std::io;
use std::net::SocketAddr;
use std::process::Command;

use axum::Router;
use sticky_lb::worker::Drain;
use tokio::runtime::{Builder, Runtime};

use crate::{Result, fronts};

/// The command of one worker that listens itself, with SO_REUSEPORT.
pub(crate) fn command(address: SocketAddr) -> Command {
    let mut command = Command::new(fronts::product());
    command.args(["demo-worker", "--listen", &address.to_string()]);
    command
}

/// What the workers of the bare front serve.
pub(crate) fn router() -> Result<Router> {
    Ok(sticky_lb::internals::demo::app::router(Drain::standalone()?))
}

/// What the workers of the bare front run on: the same as `command`'s.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
