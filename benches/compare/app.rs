//! The worker behind every front but Node's. This is the one place that says
//! which program that is; all rows must serve the same.
//!
//! A stand-in until the product has its demo worker. To switch: let `command`
//! run `fronts::product()` with `demo-worker --listen ADDR`, let `router`
//! return the product's, and delete the rest but `runtime`, with `Mode::App`.

use std::io;
use std::net::SocketAddr;
use std::process::Command;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};

use crate::Result;

/// The command of one worker that listens itself, with SO_REUSEPORT.
pub(crate) fn command(address: SocketAddr) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["app", "--listen", &address.to_string()]);
    Ok(command)
}

/// What the workers of the bare front serve.
pub(crate) fn router() -> Result<Router> {
    Ok(Router::new()
        .route("/", get(hello))
        .route("/echo", get(upgrade)))
}

/// What the workers of the bare front run on: the same as `command`'s.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// The stand-in's `demo-worker --listen`.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    runtime()?.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        // What a listener has set, its connections have, too.
        socket.set_nodelay(true)?;
        socket
            .bind(address)
            .map_err(|error| format!("failed to bind {address}: {error}"))?;
        axum::serve(socket.listen(1024)?, router()?).await?;
        Ok(())
    })
}

async fn hello() -> Response {
    let pid = std::process::id();
    let headers = [("X-Worker-ID", pid.to_string())];
    (headers, format!("Hello from worker {pid}\n")).into_response()
}

async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(echo)
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let answered = match message {
            Message::Text(_) | Message::Binary(_) => socket.send(message).await,
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Close(_) => return,
        };
        if answered.is_err() {
            return;
        }
    }
}
