//! `POST /api/ORDER`: a request of the control socket that changes something. The body is a JSON object
//! with its keys; the answer is `{"done": …}` or `{"error": {"code": …, "message": …}}`.
//!
//! The body must have the type `application/json`: a page of another origin cannot send that without
//! permission by CORS, which is never given.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::control::admin::answer::Rejection;
use crate::control::admin::guard::Peer;
use crate::control::admin::show::{Shown, carry_out};
use crate::control::admin::state::Admin;
use crate::control::answers::Control;
use crate::control::protocol::{Code, Problem, Request};

/// The largest body in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The orders: requests that change something.
pub(super) const ORDERS: [&str; 10] = [
    "reload",
    "scale",
    "drain",
    "undrain",
    "restart",
    "kill",
    "signal",
    "stop",
    "log-level",
    "rebalance",
];

pub(super) async fn order(
    name: &'static str,
    State(admin): State<Admin>,
    request: axum::extract::Request,
) -> Shown {
    check_type(&request)?;
    let peer = request.extensions().get::<Peer>().map(|peer| tracing::field::display(peer.address));
    tracing::info!(client = peer, order = name, "order by admin listener");
    let mut keys = read(request.into_body()).await?;
    // `"wait": false` gets the first item.
    let waits = name != "reload" || keys.remove("wait") != Some(Value::Bool(false));
    let request = parse(name, keys)?;
    let done = match request {
        // On the control socket, the end of the connection is the answer.
        Request::Stop { now } => {
            admin.control.links.pool.stop(now).await;
            Ok(json!({}))
        }
        request if waits => carry_out(&admin.control, request, drop).await,
        request => start(&admin.control, request).await,
    };
    Ok(Json(json!({ "done": done? })))
}

fn check_type(request: &axum::extract::Request) -> Result<(), Rejection> {
    let found = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = found.and_then(|value| value.split(';').next()).unwrap_or_default();
    if essence.trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let text = "expected Content-Type: application/json";
    Err(Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::BadRequest, text))
}

async fn read(body: Body) -> Result<Map<String, Value>, Rejection> {
    let late = |_| {
        let text = "body took too long";
        Rejection::new(StatusCode::REQUEST_TIMEOUT, Code::BadRequest, text)
    };
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_long());
    }
    let bytes = timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await.map_err(late)?;
    let bytes = bytes.map_err(|_| too_long())?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Rejection::bad(format!("body is not a JSON object: {error}")))
}

fn too_long() -> Rejection {
    let text = format!("body is longer than {MAX_BODY_BYTES} bytes, or broken");
    Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, Code::BadRequest, text)
}

fn parse(name: &str, mut keys: Map<String, Value>) -> Result<Request, Rejection> {
    if keys.insert("request".to_owned(), name.into()).is_some() {
        return Err(Rejection::bad("\"request\" belongs to the path, not to the body"));
    }
    serde_json::from_value(Value::Object(keys))
        .map_err(|error| Rejection::bad(format!("{name}: {error}")))
}

/// The first item of the answer. The order continues.
async fn start(control: &Control, request: Request) -> Result<Value, Problem> {
    let (items, mut received) = mpsc::channel(1);
    tokio::select! {
        Some(first) = received.recv() => Ok(first),
        done = control.answer(request, &items) => done,
    }
}
