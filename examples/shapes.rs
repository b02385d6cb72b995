//! Five shapes of WebSocket handlers that migrate, a route each: echo, push, two tasks, room, requests.
//!
//! ```text
//! cargo run --release -- --workers 2 --port 3000 -- ./target/release/examples/shapes
//! ```
//!
//! The guide's chapter on migration explains them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use futures_util::{SinkExt, StreamExt};
use sticky_lb::worker::{self, PendingWrite, READ_BUFFER_SIZE, ServeError, Session};
use tokio::sync::{broadcast, mpsc};

/// What members of each room are sent.
type Rooms = Mutex<HashMap<String, broadcast::Sender<String>>>;

#[tokio::main]
async fn main() -> Result<(), ServeError> {
    let app = Router::new()
        .route("/echo", any(echo))
        .route("/push", any(push))
        .route("/tasks", any(two_tasks))
        .route("/room/{name}", any(room))
        .route("/requests", any(requests));
    worker::axum::serve_or_listen("127.0.0.1:3000", app).await
}

/// A number that is the whole state.
fn number(session: &Session) -> Arc<AtomicU64> {
    let state = session.restored().and_then(|state| state.try_into().ok());
    Arc::new(AtomicU64::new(state.map_or(0, u64::from_le_bytes)))
}

fn bytes(number: &AtomicU64) -> Vec<u8> {
    number.load(Ordering::Relaxed).to_le_bytes().to_vec()
}

/// Answers each message before it receives the next one.
async fn echo(session: Session, upgrade: WebSocketUpgrade) -> Response {
    let count = number(&session);
    let state = Arc::clone(&count);
    session.on_migrate(move || bytes(&state));
    upgrade.read_buffer_size(READ_BUFFER_SIZE).on_upgrade(async move |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            let Message::Text(text) = message else { continue };
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            if socket.send(format!("{number} {text}").into()).await.is_err() {
                return;
            }
        }
    })
}

/// Only sends, and receives all the same: that tells when it is at rest, and when the client has gone.
async fn push(session: Session, upgrade: WebSocketUpgrade) -> Response {
    let sent = number(&session);
    let state = Arc::clone(&sent);
    session.on_migrate(move || bytes(&state));
    upgrade.read_buffer_size(READ_BUFFER_SIZE).on_upgrade(async move |mut socket| {
        let mut turns = tokio::time::interval(Duration::from_millis(5));
        loop {
            tokio::select! {
                message = socket.recv() => match message {
                    Some(Ok(_)) => {}
                    _ => return,
                },
                _ = turns.tick() => {
                    let number = sent.load(Ordering::Relaxed) + 1;
                    if socket.send(number.to_string().into()).await.is_err() {
                        return;
                    }
                    sent.store(number, Ordering::Relaxed);
                }
            }
        }
    })
}

/// One task receives, another sends. What lies between the two is pending, so that it isn't lost.
async fn two_tasks(session: Session, upgrade: WebSocketUpgrade) -> Response {
    let count = number(&session);
    let state = Arc::clone(&count);
    let session = session.on_migrate(move || bytes(&state));
    upgrade.read_buffer_size(READ_BUFFER_SIZE).on_upgrade(async move |socket| {
        let (mut sink, mut stream) = socket.split();
        let (answers, mut queue) = mpsc::channel::<(String, PendingWrite)>(64);
        let sender = tokio::spawn(async move {
            while let Some((answer, pending)) = queue.recv().await {
                if sink.send(answer.into()).await.is_err() {
                    return;
                }
                drop(pending);
            }
        });
        while let Some(Ok(message)) = stream.next().await {
            let Message::Text(text) = message else { continue };
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            if answers.send((format!("{number} {text}"), session.pending_write())).await.is_err() {
                break;
            }
        }
        drop(answers);
        let _ = sender.await;
    })
}

/// What is said in a room goes to all of its members. A member that migrates is sent what was said
/// before it leaves.
async fn room(session: Session, Path(name): Path<String>, upgrade: WebSocketUpgrade) -> Response {
    static ROOMS: LazyLock<Rooms> = LazyLock::new(Rooms::default);
    let said = {
        let mut rooms = ROOMS.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.entry(name).or_insert_with(|| broadcast::channel(1024).0).clone()
    };
    let mut heard = said.subscribe();
    let mut migrating = session.migrating();
    upgrade.read_buffer_size(READ_BUFFER_SIZE).on_upgrade(async move |mut socket| {
        loop {
            tokio::select! {
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => drop(said.send(text.to_string())),
                    Some(Ok(_)) => {}
                    _ => return,
                },
                Ok(text) = heard.recv() => {
                    if socket.send(text.into()).await.is_err() {
                        return;
                    }
                }
                migration = &mut migrating => {
                    while let Ok(text) = heard.try_recv() {
                        if socket.send(text.into()).await.is_err() {
                            return;
                        }
                    }
                    return migration.migrate_with(Vec::new()).await;
                }
            }
        }
    })
}

/// Requests are worked on beside each other, and answered in any order.
async fn requests(session: Session, upgrade: WebSocketUpgrade) -> Response {
    let session = session.on_migrate(Vec::new);
    upgrade.read_buffer_size(READ_BUFFER_SIZE).on_upgrade(async move |mut socket| {
        let (answers, mut queue) = mpsc::channel::<(String, PendingWrite)>(64);
        loop {
            tokio::select! {
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => {
                        let (answers, pending) = (answers.clone(), session.pending_write());
                        tokio::spawn(async move {
                            tokio::time::sleep(Duration::from_millis(text.len() as u64 % 7)).await;
                            let _ = answers.send((format!("done {text}"), pending)).await;
                        });
                    }
                    Some(Ok(_)) => {}
                    _ => return,
                },
                Some((answer, pending)) = queue.recv() => {
                    if socket.send(answer.into()).await.is_err() {
                        return;
                    }
                    drop(pending);
                }
            }
        }
    })
}
