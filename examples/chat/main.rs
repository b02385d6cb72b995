//! A chat with rooms: one worker serves all members of a room, so that its memory is the room.
//!
//! ```text
//! cargo build --release --examples
//! cargo run --release -- --workers 4 --port 3000 -- ./target/release/examples/chat
//! ```
//!
//! Then open <http://localhost:3000/>. Members of a room have to share a worker for now: those from
//! one address do.

use std::error::Error;

use axum::Router;
use axum::extract::{Query, State, WebSocketUpgrade};
use axum::response::{Html, Response};
use axum::routing::{any, get};
use sticky_lb::worker::Session;

use crate::rooms::{Member, Rooms};

mod history;
mod rooms;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/ws", any(join))
        .with_state(Rooms::default());
    // Under sticky-lb as its worker, else by itself.
    Ok(sticky_lb::worker::axum::serve_or_listen("127.0.0.1:3000", app).await?)
}

async fn join(
    State(rooms): State<Rooms>,
    Query(member): Query<Member>,
    session: Option<Session>,
    upgrade: WebSocketUpgrade,
) -> Response {
    rooms.admit(upgrade, member, session)
}
