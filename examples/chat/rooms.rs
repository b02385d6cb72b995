//! Chat rooms inside one worker: whoever joins a room hears what is said in it.
//!
//! Keeps no history: who reconnects hears what is said from then on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use serde_json::json;
use sticky_lb::worker::Drain;
use sticky_lb::worker::attach::{GENERATION, SLOT};
use tokio::sync::broadcast;

/// Lines that a slow member may lag behind before it misses some.
const LAG: usize = 256;
/// Characters of a name or a room.
const LONGEST_NAME: usize = 64;
/// Characters of a message. A longer one is cut and not refused: its author sees what became of it.
const LONGEST_TEXT: usize = 4_096;
/// Bytes of a message, far more than those characters need. Who sends more is disconnected.
const LARGEST_MESSAGE: usize = 64 * 1_024;

/// All rooms of this worker. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rooms {
    rooms: Arc<Mutex<HashMap<String, broadcast::Sender<Utf8Bytes>>>>,
}

/// Who joins what: `/ws?room=lobby&name=somebody`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Member {
    room: String,
    name: String,
}

impl Rooms {
    /// Answers a request for a WebSocket, and serves it until it closes or the worker is to end.
    pub(crate) fn admit(self, upgrade: WebSocketUpgrade, member: Member, drain: Drain) -> Response {
        let member = Member {
            room: cut(or(&member.room, "lobby"), LONGEST_NAME).to_owned(),
            name: cut(or(&member.name, "somebody"), LONGEST_NAME).to_owned(),
        };
        upgrade
            .max_message_size(LARGEST_MESSAGE)
            .max_frame_size(LARGEST_MESSAGE)
            .on_upgrade(|socket| self.serve(socket, member, drain))
    }

    async fn serve(self, mut socket: WebSocket, member: Member, drain: Drain) {
        let (room, mut heard) = self.join(&member.room);
        let welcome = member.welcome(room.receiver_count());
        let _ = room.send(member.line("joined", "", room.receiver_count()));
        // Its own "joined" waits in `heard`, so the newcomer has the welcome before it.
        if socket.send(Message::Text(welcome)).await.is_ok() {
            member.talk(&mut socket, &room, &mut heard, drain).await;
        }
        drop(heard);
        let _ = room.send(member.line("left", "", room.receiver_count()));
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

impl Member {
    /// Until the socket closes or the worker is to end.
    async fn talk(
        &self,
        socket: &mut WebSocket,
        room: &broadcast::Sender<Utf8Bytes>,
        heard: &mut broadcast::Receiver<Utf8Bytes>,
        drain: Drain,
    ) {
        loop {
            let outcome = tokio::select! {
                said = socket.recv() => match said {
                    Some(Ok(Message::Text(text))) => {
                        let text = cut(&text, LONGEST_TEXT);
                        let _ = room.send(self.line("said", text, room.receiver_count()));
                        Ok(())
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => Ok(()),
                },
                line = heard.recv() => match line {
                    Ok(line) => socket.send(Message::Text(line)).await,
                    Err(broadcast::error::RecvError::Lagged(_)) => Ok(()),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = drain.begun() => {
                    let frame = CloseFrame { code: close_code::AWAY, reason: "worker drains".into() };
                    let _ = socket.send(Message::Close(Some(frame))).await;
                    return;
                }
            };
            if outcome.is_err() {
                return;
            }
        }
    }

    /// Who serves it, and what it is called after what it asked for was cut.
    fn welcome(&self, members: usize) -> Utf8Bytes {
        let number = |variable| std::env::var(variable).ok()?.parse::<u32>().ok();
        let (slot, generation) = (number(SLOT), number(GENERATION));
        json!({"event": "welcome", "worker": std::process::id(), "slot": slot,
            "generation": generation, "name": self.name, "room": self.room, "members": members})
        .to_string()
        .into()
    }

    fn line(&self, event: &str, text: &str, members: usize) -> Utf8Bytes {
        let name = &self.name;
        json!({"event": event, "name": name, "text": text, "members": members}).to_string().into()
    }
}

fn or<'a>(text: &'a str, usual: &'a str) -> &'a str {
    if text.trim().is_empty() { usual } else { text.trim() }
}

/// By characters, so that none is split.
fn cut(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}
