//! The worker: counts with each client, and leaves both counts to the worker after it.
//!
//! Its handlers are what an app's would be. They do not know when they move: the socket ends, as if
//! the client had gone, and elsewhere the same handler begins with the state that was left.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{ConnectInfo, Query, State};
use axum::response::{Html, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use sticky_lb::worker::{ConnectionInfo, Drain, Migratable, READ_BUFFER_SIZE, Session, Worker};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::wire::{Place, Progress, Said, Told};

/// The interval of pushes for those who have asked for none.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// How the worker is to behave.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Migrates no session: WebSockets are closed with code 1001 when the worker drains.
    #[arg(long)]
    stay: bool,
    /// Leaves what it knew at first instead of what it has come to, as one does that doesn't wait for
    /// its last messages: a control, whose clients have to see that numbers are wrong.
    #[arg(long)]
    hasty: bool,
    /// Says that its WebSockets are to survive a kill -9, too: for a primary with --protect.
    #[arg(long)]
    protect: bool,
}

/// The state that all handlers share.
#[derive(Clone, Debug)]
struct App {
    options: Options,
    drain: Drain,
}

pub(crate) async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let worker = Worker::attach()?;
    let app = App { options, drain: worker.drain() };
    let router = Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/count", any(count))
        .route("/echo", any(echo))
        .with_state(app);
    Ok(sticky_lb::worker::axum::serve(worker, router).await?)
}

impl App {
    /// The connection's session, if it is to move.
    fn session(&self, extension: Option<Extension<Session>>) -> Option<Session> {
        extension.map(|Extension(session)| session).filter(|_| !self.options.stay)
    }

    /// Waits until a WebSocket that does not migrate is to close.
    async fn closing(&self, session: Option<&Migratable>) {
        match session {
            Some(_) => std::future::pending().await,
            None => self.drain.started().await,
        }
    }
}

async fn send_close(mut socket: WebSocket) {
    let frame = CloseFrame { code: close_code::AWAY, reason: "worker drains".into() };
    let _ = socket.send(Message::Close(Some(frame))).await;
    // Until the client has answered, so that it finds the frame before the end.
    while let Some(Ok(_)) = socket.recv().await {}
}

/// Sends back what comes.
async fn echo(
    State(app): State<App>,
    session: Option<Extension<Session>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let session = app.session(session);
    // It needs no state to go on.
    let session = session.map(|session| match app.options.protect {
        true => session.protect(Vec::new),
        false => session.on_migrate(Vec::new),
    });
    upgrade.read_buffer_size(READ_BUFFER_SIZE).on_upgrade(async move |mut socket| {
        tokio::select! {
            () = send_back(&mut socket) => {}
            () = app.closing(session.as_ref()) => send_close(socket).await,
        }
    })
}

async fn send_back(socket: &mut WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let said = matches!(message, Message::Text(_) | Message::Binary(_));
        if said && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// A client's request: `/count?push=1000`.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
struct Wanted {
    /// Milliseconds between two pushes; none without it.
    push: Option<u64>,
}

async fn count(
    State(app): State<App>,
    session: Option<Extension<Session>>,
    ConnectInfo(connection): ConnectInfo<ConnectionInfo>,
    Query(wanted): Query<Wanted>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let session = app.session(session);
    let upgrade = upgrade.read_buffer_size(READ_BUFFER_SIZE);
    let state = session.as_ref().and_then(Session::restored);
    let progress = state.map_or_else(|| Some(Progress::default()), Progress::resume);
    let (resumed, Some(progress)) = (state.is_some(), progress) else {
        session.inspect(Session::reject_state);
        return upgrade
            .on_upgrade(async |mut socket| while let Some(Ok(_)) = socket.recv().await {});
    };
    let progress = Arc::new(Mutex::new(progress));
    let session = session.map(|session| {
        let (first, progress) = (*look(&progress), Arc::clone(&progress));
        let hasty = app.options.hasty;
        let state = move || if hasty { first.encode() } else { look(&progress).encode() };
        match app.options.protect {
            true => session.protect(state),
            false => session.on_migrate(state),
        }
    });
    let counting = Counting { progress, connection, resumed };
    upgrade.on_upgrade(async move |mut socket| {
        tokio::select! {
            _ = counting.serve(&mut socket, wanted) => {}
            () = app.closing(session.as_ref()) => send_close(socket).await,
        }
    })
}

fn look(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client. What it has come to is also looked at when it moves, which is never between a
/// message and its answer, nor between a push and its count: a handler at either does not wait for
/// the next message.
struct Counting {
    progress: Arc<Mutex<Progress>>,
    connection: ConnectionInfo,
    resumed: bool,
}

/// The socket has ended, or moved.
struct Ended;

impl Counting {
    async fn serve(&self, socket: &mut WebSocket, wanted: Wanted) -> Result<(), Ended> {
        tell(socket, &self.greeting()).await?;
        let mut pushes = pushes(wanted);
        loop {
            tokio::select! {
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => self.answer(socket, text.as_bytes()).await?,
                    Some(Ok(Message::Binary(bytes))) => self.answer(socket, &bytes).await?,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(Ended),
                },
                _ = pushes.tick() => {
                    let number = look(&self.progress).pushed;
                    tell(socket, &Told::Push { number }).await?;
                    look(&self.progress).pushed = number + 1;
                }
            }
        }
    }

    fn greeting(&self) -> Told<'static> {
        let place = Place {
            pid: std::process::id(),
            slot: self.connection.slot.0,
            generation: self.connection.generation.0,
            moves: look(&self.progress).moves,
        };
        if self.resumed { Told::Resumed(place) } else { Told::Hello(place) }
    }

    async fn answer(&self, socket: &mut WebSocket, message: &[u8]) -> Result<(), Ended> {
        let Said { number, padding } = serde_json::from_slice(message).map_err(|_| Ended)?;
        let Progress { expected, pushed, .. } = *look(&self.progress);
        if number != expected {
            tell(socket, &Told::Breach { expected, number }).await?;
        }
        tell(socket, &Told::Answer { number, pushed, padding }).await?;
        look(&self.progress).expected = number + 1;
        Ok(())
    }
}

fn pushes(wanted: Wanted) -> Interval {
    let every = wanted.push.map_or(NEVER, |push| Duration::from_millis(push.max(1)));
    let mut pushes = interval(every);
    pushes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes after the first interval.
    pushes.reset();
    pushes
}

async fn tell(socket: &mut WebSocket, told: &Told<'_>) -> Result<(), Ended> {
    let text = serde_json::to_string(told).map_err(|_| Ended)?;
    socket.send(Message::Text(text.into())).await.map_err(|_| Ended)
}
