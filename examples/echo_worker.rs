//! A WebSocket echo on tokio-tungstenite: the least that a worker needs.
//!
//! ```text
//! cargo build --release --examples
//! cargo run --release -- --workers 4 --port 3000 -- ./target/release/examples/echo_worker
//! ```

use std::error::Error;

use futures_util::{SinkExt, StreamExt};
use sticky_lb::worker::{Session, SessionStream, Worker};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Error as WebSocketError;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    Ok(Worker::attach()?.serve(echo).await?)
}

async fn echo(stream: SessionStream, session: Session) -> Result<(), WebSocketError> {
    // It remembers nothing, so it can migrate with an empty state, and survive a crash with one.
    session.protect(Vec::new);
    let mut socket = accept_async(stream).await?;
    while let Some(message) = socket.next().await.transpose()? {
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
