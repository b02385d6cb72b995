//! A WebSocket echo on tokio-tungstenite: the least that a worker needs.
//!
//! ```text
//! cargo build --release --examples
//! cargo run --release -- --workers 4 --port 3000 -- ./target/release/examples/echo_worker
//! ```

use std::error::Error;

use futures_util::{SinkExt, StreamExt};
use sticky_lb::worker::{READ_BUFFER_SIZE, Session, SessionStream, Worker};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::Error as WebSocketError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    Ok(Worker::attach()?.serve(echo).await?)
}

async fn echo(stream: SessionStream, session: Session) -> Result<(), WebSocketError> {
    // It remembers nothing, so it can migrate with an empty state, and survive a crash with one.
    session.protect(Vec::new);
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_SIZE);
    // Boxed, so that the handshake's own buffers are gone after it.
    let mut socket = Box::pin(accept_async_with_config(stream, Some(config))).await?;
    while let Some(message) = socket.next().await.transpose()? {
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
