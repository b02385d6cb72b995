//! `POST /api/ORDER`: a request of the control socket that changes something. Its keys are the body,
//! a JSON object; the answer is `{"done": …}` or `{"error": {"code": …, "message": …}}`.
//!
//! The body has to be called `application/json`: no page can send that elsewhere without being
//! allowed to, which nobody is.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::control::admin::Peer;
use crate::control::admin::answer::Rejection;
use crate::control::admin::routes::Admin;
use crate::control::admin::show::{Shown, carry_out};
use crate::control::answers::Control;
use crate::control::protocol::{Code, Problem, Request};

/// Bytes that a body may have.
const LONGEST_BODY: usize = 64 * 1024;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What may be ordered: requests that change something.
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
    let peer = request.extensions().get::<Peer>().map(|peer| tracing::field::display(peer.0));
    tracing::info!(client = peer, order = name, "ordered over the admin listener");
    let mut keys = read(request.into_body()).await?;
    // Whoever doesn't wait is told how it begins.
    let waits = name != "reload" || keys.remove("wait") != Some(Value::Bool(false));
    let request = parse(name, keys)?;
    let done = match request {
        // The control socket answers by its end.
        Request::Stop { now } => {
            admin.control.links.pool.stop(now).await;
            Ok(json!({}))
        }
        request if waits => carry_out(&admin.control, request, drop).await,
        request => begin(&admin.control, request).await,
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
    if body.size_hint().lower() > LONGEST_BODY as u64 {
        return Err(too_long());
    }
    let bytes = timeout(BODY_TIME, to_bytes(body, LONGEST_BODY)).await.map_err(late)?;
    let bytes = bytes.map_err(|_| too_long())?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Rejection::bad(format!("body is no JSON object: {error}")))
}

fn too_long() -> Rejection {
    let text = format!("body is longer than {LONGEST_BODY} bytes, or broken");
    Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, Code::BadRequest, text)
}

fn parse(name: &str, mut keys: Map<String, Value>) -> Result<Request, Rejection> {
    if keys.insert("request".to_owned(), name.into()).is_some() {
        return Err(Rejection::bad("\"request\" is said by the path"));
    }
    serde_json::from_value(Value::Object(keys))
        .map_err(|error| Rejection::bad(format!("{name}: {error}")))
}

/// The first that is said of it. What was begun goes on.
async fn begin(control: &Control, request: Request) -> Result<Value, Problem> {
    let (items, mut made) = mpsc::channel(1);
    tokio::select! {
        Some(first) = made.recv() => Ok(first),
        done = control.answer(request, &items) => done,
    }
}
