//! Chat rooms inside one worker: each member gets what is said in its room.
//!
//! When the worker is replaced, its members migrate to the next one with their sockets open: each takes
//! along how far it has read, and the last lines. A new connection gets what is said from then on.
//!
//! Members are not protected: the lines are the room's and not any one member's. If the worker is
//! killed, no other process may know the last ones, and no member's own state could prove them; so
//! members come back as new ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use serde_json::json;
use sticky_lb::worker::{Migrating, Migration, READ_BUFFER_SIZE, Session};
use tokio::sync::watch;

use super::history::{Cursor, History, Line, Origin};

/// Characters of a name or a room.
const LONGEST_NAME: usize = 64;
/// Characters of a message. A longer one is cut and not refused: its author sees what became of it.
const LONGEST_TEXT: usize = 4_096;
/// Bytes of a message, far more than those characters need. Who sends more is disconnected.
const LARGEST_MESSAGE: usize = 64 * 1_024;

/// The version of a member's state.
const VERSION: u32 = 2;

/// Variables of the environment of each worker.
const SLOT: &str = "STICKY_LB_SLOT";
const GENERATION: &str = "STICKY_LB_GENERATION";

/// All rooms of this worker. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rooms {
    rooms: Arc<Mutex<HashMap<String, Arc<Room>>>>,
}

#[derive(Debug, Default)]
struct Room {
    history: Mutex<History>,
    /// Told when something was said.
    heard: watch::Sender<()>,
}

/// A member and its room: `/ws?room=lobby&name=somebody`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Member {
    room: String,
    name: String,
}

/// A member's place in its room.
struct Seat<'a> {
    room: &'a Room,
    heard: &'a mut watch::Receiver<()>,
    cursor: &'a mut Cursor,
    /// How many members it was told of.
    members: usize,
}

/// A member's state, as it migrates from one worker to the next.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
struct MemberState {
    version: u32,
    cursor: Cursor,
    lines: Vec<Line>,
}

impl Rooms {
    /// Answers a request for a WebSocket, and serves it until it closes or moves to another worker.
    /// Without a session it stays where it is.
    pub(crate) fn admit(
        self,
        upgrade: WebSocketUpgrade,
        member: Member,
        session: Option<Session>,
    ) -> Response {
        let member = Member {
            room: cut(or(&member.room, "lobby"), LONGEST_NAME).to_owned(),
            name: cut(or(&member.name, "somebody"), LONGEST_NAME).to_owned(),
        };
        upgrade
            .read_buffer_size(READ_BUFFER_SIZE)
            .max_message_size(LARGEST_MESSAGE)
            .max_frame_size(LARGEST_MESSAGE)
            // It has them by reference, as a future that is given something by value keeps room for it twice.
            .on_upgrade(|mut socket| async move { self.serve(&mut socket, &member, session).await })
    }

    async fn serve(&self, socket: &mut WebSocket, member: &Member, session: Option<Session>) {
        let state = match session.as_ref().and_then(Session::restored).map(MemberState::decode) {
            // Another version's: the client comes back as a new one.
            Some(None) => return session.iter().for_each(Session::reject_state),
            Some(Some(state)) => Some(state),
            None => None,
        };
        // Without a session it stays where it is.
        let mut migrating = session.map(Session::migrating);
        let resumes = state.is_some();
        let room = self.enter(&member.room);
        let mut heard = room.heard.subscribe();
        let mut cursor = room.seat(state);
        let members = room.members();
        let greeting = member.greeting(if resumes { "resumed" } else { "welcome" }, members);
        if !resumes {
            room.say(member.line("joined", ""));
        }
        // Its own "joined" is still to be read, so the newcomer has the welcome before it.
        if socket.send(Message::Text(greeting)).await.is_ok() {
            let mut seat = Seat { room: &room, heard: &mut heard, cursor: &mut cursor, members };
            member.talk(socket, &mut seat, migrating.as_mut()).await;
        }
        drop(heard);
        if !migrating.is_some_and(|migrating| migrating.has_migrated()) {
            room.say(member.line("left", ""));
        }
        drop(room);
        self.tidy(&member.room);
    }

    fn enter(&self, name: &str) -> Arc<Room> {
        Arc::clone(lock(&self.rooms).entry(name.to_owned()).or_default())
    }

    /// Removes an empty room.
    fn tidy(&self, name: &str) {
        let mut rooms = lock(&self.rooms);
        if rooms.get(name).is_some_and(|room| room.members() == 0) {
            rooms.remove(name);
        }
    }
}

impl Room {
    fn members(&self) -> usize {
        self.heard.receiver_count()
    }

    fn say(&self, text: String) {
        lock(&self.history).say(origin(), text);
        self.heard.send_replace(());
    }

    /// The place where a member reads on that has just come, or has migrated with other lines.
    fn seat(&self, state: Option<MemberState>) -> Cursor {
        let mut history = lock(&self.history);
        let Some(MemberState { cursor, lines, .. }) = state else { return history.end() };
        history.learn(lines);
        self.heard.send_replace(());
        cursor
    }

    fn next(&self, cursor: &mut Cursor) -> Option<Line> {
        lock(&self.history).next(cursor).cloned()
    }
}

impl MemberState {
    fn encode(cursor: &Cursor, room: &Room) -> Vec<u8> {
        let lines = lock(&room.history).lines();
        let state = Self { version: VERSION, cursor: cursor.clone(), lines };
        serde_json::to_vec(&state).unwrap_or_default()
    }

    fn decode(state: &[u8]) -> Option<Self> {
        serde_json::from_slice(state).ok().filter(|it: &Self| it.version == VERSION)
    }
}

impl Member {
    /// Until the socket closes or moves.
    async fn talk(
        &self,
        socket: &mut WebSocket,
        seat: &mut Seat<'_>,
        mut migrating: Option<&mut Migrating>,
    ) {
        let room = seat.room;
        loop {
            while let Some(line) = room.next(seat.cursor) {
                if socket.send(Message::text(line.text.as_ref())).await.is_err() {
                    return;
                }
                seat.cursor.pass(&line);
            }
            let members = room.members();
            if members != seat.members {
                seat.members = members;
                let text = json!({"event": "members", "members": members}).to_string();
                if socket.send(Message::text(text)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                said = socket.recv() => match said {
                    Some(Ok(Message::Text(text))) => {
                        room.say(self.line("said", cut(&text, LONGEST_TEXT)));
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
                // The room lives as long as its members.
                _ = seat.heard.changed() => {}
                migration = migration(migrating.as_deref_mut()) => {
                    return migration.migrate_with(MemberState::encode(seat.cursor, room)).await;
                }
            }
        }
    }

    /// Tells its worker, and its name and room, which may have been cut.
    fn greeting(&self, event: &str, members: usize) -> Utf8Bytes {
        let (slot, generation) = (number(SLOT), number(GENERATION));
        json!({"event": event, "worker": std::process::id(), "slot": slot,
            "generation": generation, "name": self.name, "room": self.room, "members": members})
        .to_string()
        .into()
    }

    fn line(&self, event: &str, text: &str) -> String {
        json!({"event": event, "name": self.name, "text": text}).to_string()
    }
}

/// Waits until the session is to migrate; for ever without one.
async fn migration(migrating: Option<&mut Migrating>) -> Migration {
    match migrating {
        Some(migrating) => migrating.await,
        None => std::future::pending().await,
    }
}

/// What names this worker, as no other.
fn origin() -> Origin {
    Origin(number(SLOT).unwrap_or(0), number(GENERATION).unwrap_or(0), std::process::id())
}

fn number(variable: &str) -> Option<u32> {
    std::env::var(variable).ok()?.parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn or<'a>(text: &'a str, usual: &'a str) -> &'a str {
    if text.trim().is_empty() { usual } else { text.trim() }
}

/// By characters, so that none is split.
fn cut(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}
