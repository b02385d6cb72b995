//! A WebSocket echo on tokio-tungstenite: the least that a worker needs.
//!
//! ```text
//! cargo build --release --examples
//! cargo run --release -- --workers 4 --port 3000 -- ./target/release/examples/echo_worker
//! ```

use std::error::Error;

use futures_util::{SinkExt, StreamExt};
use sticky_lb::worker::{Connection, Drain, Worker};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Error as WebSocketError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut worker = Worker::attach()?;
    let drain = worker.drain();
    worker.ready()?;
    while let Some(connection) = worker.accept().await? {
        tokio::spawn(echo(connection, drain.clone()));
    }
    // No more come; those that are there say goodbye.
    drain.finished().await;
    Ok(())
}

async fn echo(connection: Connection, drain: Drain) -> Result<(), WebSocketError> {
    let mut socket = accept_async(connection).await?;
    loop {
        tokio::select! {
            message = socket.next() => match message.transpose()? {
                Some(message) if message.is_text() || message.is_binary() => {
                    socket.send(message).await?;
                }
                Some(_) => {}
                None => return Ok(()),
            },
            () = drain.begun() => {
                let reason = "worker drains".into();
                socket.close(Some(CloseFrame { code: CloseCode::Away, reason })).await?;
                // Until the client has answered the close frame.
                while socket.next().await.transpose()?.is_some() {}
                return Ok(());
            }
        }
    }
}
