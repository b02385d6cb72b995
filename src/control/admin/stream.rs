//! Streams of Server-Sent Events.
//!
//! Each message is `event: KIND` and `data:` with JSON. Viewers are bounded in number. A viewer that
//! doesn't keep up is disconnected; browsers reconnect.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::control::admin::answer::Rejection;
use crate::control::admin::show::{items, query};
use crate::control::admin::state::Admin;
use crate::control::admin::viewers::message;
use crate::control::protocol::Request;

/// Time for a viewer to take a message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between comments that keep an idle connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Start of each stream: the milliseconds after which a browser reconnects.
const START: &[u8] = b"retry: 2000\n\n";
/// Capacity of a stream's channel of items.
const MAX_ITEMS: usize = 16;

/// `GET /api/live`: `report::Live` immediately, then every second.
pub(super) async fn live(State(admin): State<Admin>) -> Result<Response, Rejection> {
    let permit = admin.viewers.enter()?;
    let (sent, mut snapshots) = admin.live.join(&admin.control.history);
    let first = message("live", &admin.control.live_until(sent).await?);
    let (viewer, response) = stream();
    tokio::spawn(async move {
        let _permit = permit;
        let mut next = first;
        while is_taken(&viewer, next).await {
            match snapshots.recv().await {
                Ok(message) => next = message,
                // The viewer lags too far behind, or the primary ends.
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

/// `GET /api/events`: an array of past events, or a stream that continues with new ones.
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

/// `GET /api/logs`: an array of past lines, or a stream that continues with new ones.
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
        let (items, received) = mpsc::channel(MAX_ITEMS);
        tokio::select! {
            // Ends when the viewer has disconnected.
            () = forward(received, &viewer) => {}
            Err(problem) = admin.control.answer(request, &items) => {
                is_taken(&viewer, message("problem", &problem)).await;
            }
        }
    });
    Ok(response)
}

async fn forward(mut received: mpsc::Receiver<Value>, viewer: &mpsc::Sender<Bytes>) {
    loop {
        let next = match timeout(KEEP_ALIVE, received.recv()).await {
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
    matches!(timeout(WRITE_TIMEOUT, viewer.send(message)).await, Ok(Ok(())))
}

/// A response, and the sender of its messages.
fn stream() -> (mpsc::Sender<Bytes>, Response) {
    let (viewer, messages) = mpsc::channel(1);
    let messages = Messages { started: false, messages };
    let response = ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(messages));
    (viewer, response.into_response())
}

/// The messages to one viewer.
struct Messages {
    started: bool,
    messages: mpsc::Receiver<Bytes>,
}

impl futures_core::Stream for Messages {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !std::mem::replace(&mut self.started, true) {
            return Poll::Ready(Some(Ok(Bytes::from_static(START))));
        }
        self.messages.poll_recv(context).map(|message| message.map(Ok))
    }
}
