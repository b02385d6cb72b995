//! The demo's routes, the ones that every clustering tutorial has: who serves me, am I well, a WebSocket
//! echo, a chat, and something heavy.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{any, get};
use serde_json::json;
use tokio::time::Instant;

use crate::demo::rooms::{Member, Rooms};
use crate::worker::{Drain, READ_BUFFER_SIZE, Session};

const PAGE: &str = include_str!("../../examples/chat/page.html");

/// The state that all routes share.
#[derive(Clone, Debug)]
struct App {
    worker: Arc<Identity>,
    drain: Drain,
    rooms: Rooms,
}

#[derive(Debug)]
struct Identity {
    pid: u32,
    slot: String,
    started: Instant,
    headers: [(HeaderName, HeaderValue); 2],
}

/// The demo's routes. Its WebSockets migrate from worker to worker.
pub fn router(drain: Drain) -> Router {
    let app = App { worker: Arc::new(Identity::own()), drain, rooms: Rooms::default() };
    Router::new()
        .route("/", get(hello))
        .route("/health", get(health))
        .route("/heavy", get(heavy))
        .route("/echo", any(echo))
        .route("/ws", any(chat))
        .layer(from_fn_with_state(app.clone(), name_worker))
        .with_state(app)
}

impl Identity {
    fn own() -> Self {
        let pid = std::process::id();
        let slot = std::env::var("STICKY_LB_SLOT").unwrap_or_else(|_| "none".to_owned());
        let in_header = |text: &str| {
            HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        };
        let headers = [
            (HeaderName::from_static("x-worker-id"), in_header(&pid.to_string())),
            (HeaderName::from_static("x-worker-slot"), in_header(&slot)),
        ];
        Self { pid, slot, started: Instant::now(), headers }
    }
}

async fn name_worker(
    State(app): State<App>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().extend(app.worker.headers.iter().cloned());
    response
}

async fn hello(State(app): State<App>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/html")) {
        return Html(PAGE).into_response();
    }
    format!("Hello from worker {}\n", app.worker.pid).into_response()
}

async fn health(State(app): State<App>) -> impl IntoResponse {
    let (code, status) = match (app.drain.is_ready(), app.drain.has_started()) {
        (true, _) => (StatusCode::OK, "healthy"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let health = Json(json!({
        "status": status,
        "worker": app.worker.pid,
        "slot": app.worker.slot.parse::<u16>().ok(),
        "uptime": app.worker.started.elapsed().as_secs_f64(),
        "memory": {"rss": resident_bytes()},
        "connections": app.drain.connections(),
    }));
    (code, health)
}

/// From `/proc/self/statm`, whose second number counts pages.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[derive(Debug, serde::Deserialize)]
struct Heavy {
    #[serde(default = "Heavy::usual")]
    ms: u64,
}

impl Heavy {
    const LONGEST: u64 = 10_000;

    fn usual() -> u64 {
        100
    }
}

async fn heavy(State(app): State<App>, Query(heavy): Query<Heavy>) -> Response {
    let time = Duration::from_millis(heavy.ms.min(Heavy::LONGEST));
    // On a thread of its own: the worker's loop goes on serving.
    let burnt = tokio::task::spawn_blocking(move || burn(time)).await;
    let Ok((rounds, duration)) = burnt else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let duration = duration.as_secs_f64() * 1_000.0;
    Json(json!({"worker": app.worker.pid, "duration": duration, "rounds": rounds})).into_response()
}

fn burn(time: Duration) -> (u64, Duration) {
    let start = Instant::now();
    let mut rounds: u64 = 0;
    while start.elapsed() < time {
        rounds = std::hint::black_box(rounds + 1);
    }
    (rounds, start.elapsed())
}

async fn echo(session: Option<Session>, upgrade: WebSocketUpgrade) -> Response {
    // It remembers nothing, so it can migrate with an empty state, and survive a crash with one.
    session.map(|session| session.protect(Vec::new));
    // By reference, as a future that is given something by value keeps room for it twice.
    let upgrade = upgrade.read_buffer_size(READ_BUFFER_SIZE);
    upgrade.on_upgrade(|mut socket| async move { serve_echo(&mut socket).await })
}

async fn serve_echo(socket: &mut WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let answer = matches!(message, Message::Text(_) | Message::Binary(_));
        if answer && socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn chat(
    State(app): State<App>,
    Query(member): Query<Member>,
    session: Option<Session>,
    upgrade: WebSocketUpgrade,
) -> Response {
    app.rooms.admit(upgrade, member, session)
}
