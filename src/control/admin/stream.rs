//! Server-Sent Events: what happens, to whoever looks on.
//!
//! Each message is `event: KIND` and `data:` with JSON. Viewers are bounded in number; one that
//! doesn't keep up loses its connection, and comes again by itself if it is a browser.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio::time::{MissedTickBehavior, timeout};

use crate::control::admin::answer::Rejection;
use crate::control::admin::routes::Admin;
use crate::control::admin::show::{items, query};
use crate::control::answers::Control;
use crate::control::history::History;
use crate::control::protocol::{Code, Problem, Request};

/// Viewers at a time, of whatever; those beyond are told so.
const VIEWERS: usize = 64;
/// Snapshots that a viewer may be behind.
const BEHIND: usize = 4;
/// How long a viewer may leave a message.
const SLOW: Duration = Duration::from_secs(10);
/// Where nothing happens, a word that the connection still stands.
const STILL_HERE: Duration = Duration::from_secs(15);
/// What each stream begins with: after how many milliseconds a browser comes again.
const BEGIN: &[u8] = b"retry: 2000\n\n";
/// Items that may wait for a viewer; whoever makes them waits beyond that.
const ITEMS: usize = 16;

/// Room for viewers.
#[derive(Clone, Debug)]
pub(super) struct Viewers(Arc<Semaphore>);

impl Default for Viewers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(VIEWERS)))
    }
}

impl Viewers {
    fn enter(&self) -> Result<OwnedSemaphorePermit, Rejection> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            let text = format!("{VIEWERS} viewers look on already: close some, or try again");
            Problem::new(Code::Busy, text).into()
        })
    }
}

/// Makes a snapshot each second while somebody looks on: one for all.
#[derive(Debug)]
pub(super) struct Live {
    /// The number of the last event that was sent, or that was there when the first viewer came.
    /// Locked while something is sent or somebody comes, so that each viewer gets each event once.
    sent: Mutex<Option<u64>>,
    news: broadcast::Sender<Bytes>,
    /// Somebody has come.
    joined: Notify,
}

impl Live {
    pub(super) fn start(control: Control) -> Arc<Self> {
        let (sent, joined) = (Mutex::default(), Notify::new());
        let live = Arc::new(Self { sent, news: broadcast::Sender::new(BEHIND), joined });
        tokio::spawn(Arc::clone(&live).run(control));
        live
    }

    async fn run(self: Arc<Self>, control: Control) {
        let mut each_second = tokio::time::interval(Duration::from_secs(1));
        each_second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            if self.news.receiver_count() == 0 {
                // Nobody wakes up for nobody.
                self.joined.notified().await;
            }
            each_second.tick().await;
            let before = *self.lock();
            let mut seen = before;
            // Pool and frontend have ended, and so will this.
            let Ok(live) = control.live_since(&mut seen).await else { return };
            let message = message("live", &live);
            let mut sent = self.lock();
            // All viewers may have gone meanwhile, and a new one may have come.
            if *sent == before {
                *sent = seen;
                let _ = self.news.send(message);
            }
        }
    }

    /// Up to which event the new viewer is to be told first, and what comes then.
    fn join(&self, history: &History) -> (Option<u64>, broadcast::Receiver<Bytes>) {
        let mut sent = self.lock();
        if self.news.receiver_count() == 0 {
            *sent = history.newest();
            self.joined.notify_one();
        }
        (*sent, self.news.subscribe())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `GET /api/live`: `report::Live` at once, and then each second.
pub(super) async fn live(State(admin): State<Admin>) -> Result<Response, Rejection> {
    let permit = admin.viewers.enter()?;
    let (sent, mut news) = admin.live.join(&admin.control.history);
    let first = message("live", &admin.control.live_until(sent).await?);
    let (viewer, response) = stream();
    tokio::spawn(async move {
        let _permit = permit;
        let mut next = first;
        while is_taken(&viewer, next).await {
            match news.recv().await {
                Ok(message) => next = message,
                // Too far behind, or the end.
                Err(_) => return,
            }
        }
    });
    Ok(response)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Events {
    #[serde(default)]
    follow: bool,
    last: Option<usize>,
}

/// `GET /api/events`: an array of those that there are, or a stream that goes on.
pub(super) async fn events(State(admin): State<Admin>, uri: Uri) -> Result<Response, Rejection> {
    let Events { follow, last } = query(&uri)?;
    let request = Request::Events { follow, last: last.unwrap_or(50) };
    items_or_stream(admin, request, follow).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Logs {
    #[serde(default)]
    follow: bool,
    slot: Option<u16>,
    #[serde(default)]
    err: bool,
    lines: Option<usize>,
}

/// `GET /api/logs`: an array of lines that there are, or a stream that goes on.
pub(super) async fn logs(State(admin): State<Admin>, uri: Uri) -> Result<Response, Rejection> {
    let Logs { follow, slot, err, lines } = query(&uri)?;
    let request = Request::Logs { follow, slot, err, lines: lines.unwrap_or(15) };
    items_or_stream(admin, request, follow).await
}

async fn items_or_stream(
    admin: Admin,
    request: Request,
    follow: bool,
) -> Result<Response, Rejection> {
    if !follow {
        return Ok(items(&admin, request).await?.into_response());
    }
    let permit = admin.viewers.enter()?;
    let (viewer, response) = stream();
    tokio::spawn(async move {
        let _permit = permit;
        let (items, made) = mpsc::channel(ITEMS);
        tokio::select! {
            // Ends when the viewer has gone.
            () = pass_on(made, &viewer) => {}
            Err(problem) = admin.control.answer(request, &items) => {
                is_taken(&viewer, message("problem", &problem)).await;
            }
        }
    });
    Ok(response)
}

async fn pass_on(mut made: mpsc::Receiver<Value>, viewer: &mpsc::Sender<Bytes>) {
    loop {
        let next = match timeout(STILL_HERE, made.recv()).await {
            Ok(Some(item)) => message("item", &item),
            Ok(None) => return,
            Err(_) => Bytes::from_static(b":\n\n"),
        };
        if !is_taken(viewer, next).await {
            return;
        }
    }
}

/// Whether the viewer keeps up.
async fn is_taken(viewer: &mpsc::Sender<Bytes>, message: Bytes) -> bool {
    matches!(timeout(SLOW, viewer.send(message)).await, Ok(Ok(())))
}

fn message(kind: &str, data: &impl Serialize) -> Bytes {
    // Fails for nothing that is sent here. JSON has no line ends outside of strings, and none in
    // them that aren't escaped.
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {kind}\ndata: {data}\n\n"))
}

/// An answer, and what its messages go into.
fn stream() -> (mpsc::Sender<Bytes>, Response) {
    let (viewer, messages) = mpsc::channel(1);
    let messages = Messages { begun: false, messages };
    let response = ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(messages));
    (viewer, response.into_response())
}

/// The messages to one viewer.
struct Messages {
    begun: bool,
    messages: mpsc::Receiver<Bytes>,
}

impl futures_core::Stream for Messages {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !std::mem::replace(&mut self.begun, true) {
            return Poll::Ready(Some(Ok(Bytes::from_static(BEGIN))));
        }
        self.messages.poll_recv(context).map(|message| message.map(Ok))
    }
}
