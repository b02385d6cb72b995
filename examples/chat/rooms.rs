//! Chat rooms inside one worker: whoever joins a room hears what is said in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use serde_json::json;
use sticky_lb::worker::Drain;
use tokio::sync::broadcast;

/// Lines that a slow member may lag behind before it misses some.
const LAG: usize = 256;

/// All rooms of this worker. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rooms {
    rooms: Arc<Mutex<HashMap<String, broadcast::Sender<Utf8Bytes>>>>,
}

/// Who joins what: `/ws?room=lobby&name=somebody`.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct Member {
    #[serde(default = "lobby")]
    room: String,
    #[serde(default = "somebody")]
    name: String,
}

fn lobby() -> String {
    "lobby".to_owned()
}

fn somebody() -> String {
    "somebody".to_owned()
}

impl Rooms {
    /// Serves one member's WebSocket until it closes or the worker is to end.
    pub(crate) async fn serve(self, mut socket: WebSocket, member: Member, drain: Drain) {
        let (room, mut heard) = self.join(&member.room);
        let _ = room.send(line("joined", &member.name, "", room.receiver_count()));
        loop {
            let outcome = tokio::select! {
                said = socket.recv() => match said {
                    Some(Ok(Message::Text(text))) => {
                        let _ = room.send(line("said", &member.name, &text, room.receiver_count()));
                        Ok(())
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                    Some(Ok(_)) => Ok(()),
                },
                line = heard.recv() => match line {
                    Ok(line) => socket.send(Message::Text(line)).await,
                    Err(broadcast::error::RecvError::Lagged(_)) => Ok(()),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                () = drain.begun() => {
                    let frame = CloseFrame { code: close_code::AWAY, reason: "worker drains".into() };
                    let _ = socket.send(Message::Close(Some(frame))).await;
                    break;
                }
            };
            if outcome.is_err() {
                break;
            }
        }
        drop(heard);
        let _ = room.send(line("left", &member.name, "", room.receiver_count()));
        self.tidy(&member.room);
    }

    fn join(&self, name: &str) -> (broadcast::Sender<Utf8Bytes>, broadcast::Receiver<Utf8Bytes>) {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let room = rooms.entry(name.to_owned()).or_insert_with(|| broadcast::channel(LAG).0);
        (room.clone(), room.subscribe())
    }

    /// Forgets a room that nobody is in.
    fn tidy(&self, name: &str) {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if rooms.get(name).is_some_and(|room| room.receiver_count() == 0) {
            rooms.remove(name);
        }
    }
}

fn line(event: &str, name: &str, text: &str, members: usize) -> Utf8Bytes {
    json!({"event": event, "name": name, "text": text, "members": members}).to_string().into()
}
