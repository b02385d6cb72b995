//! A WebSocket echo on tokio-tungstenite: the least that a worker needs.
//!
//! ```text
//! cargo build --release --examples
//! cargo run --release -- --workers 4 --port 3000 -- ./target/release/examples/echo_worker
//! ```

use std::error::Error;

use futures_util::{SinkExt, StreamExt};
use sticky_lb::worker::{Connection, Worker};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Error as WebSocketError;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut worker = Worker::attach()?;
    let drain = worker.drain();
    worker.enable_migration()?;
    worker.ready()?;
    while let Some(connection) = worker.accept().await? {
        tokio::spawn(echo(connection));
    }
    // No more come; those that are there move to the next worker, or are sent away.
    drain.finished().await;
    Ok(())
}

async fn echo(connection: Connection) -> Result<(), WebSocketError> {
    let (stream, session) = connection.into_session();
    // It remembers nothing, so that it can move with nothing, and survive with nothing.
    session.protect(Vec::new);
    let mut socket = accept_async(stream).await?;
    while let Some(message) = socket.next().await.transpose()? {
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
