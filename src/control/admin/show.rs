//! `GET /api/…`: the last line of the control socket's answer, or the items of an answer with items.
//! And `GET /metrics`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::control::admin::answer::Rejection;
use crate::control::admin::state::Admin;
use crate::control::answers::Control;
use crate::control::protocol::{self, Problem, Request};

/// Capacity of an answer's channel of items.
const MAX_ITEMS: usize = 16;

pub(super) type Shown = Result<Json<Value>, Rejection>;

pub(super) async fn status(State(admin): State<Admin>) -> Shown {
    show(&admin, Request::Status {}).await
}

pub(super) async fn workers(State(admin): State<Admin>) -> Shown {
    show(&admin, Request::Workers {}).await
}

pub(super) async fn slot(
    State(admin): State<Admin>,
    path: Result<Path<String>, PathRejection>,
) -> Shown {
    let Path(slot) = path.map_err(|error| Rejection::bad(error.body_text()))?;
    let slot = slot.parse().map_err(|_| Rejection::bad(format!("{slot:?} is not a slot")))?;
    show(&admin, Request::Describe { slot }).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteQuery {
    address: Option<String>,
    key: Option<String>,
}

pub(super) async fn route(State(admin): State<Admin>, uri: Uri) -> Shown {
    let RouteQuery { address, key } = query(&uri)?;
    let parse = |text: String| {
        protocol::address(&text).ok_or_else(|| Rejection::bad(format!("{text:?} is no address")))
    };
    let address = address.map(parse).transpose()?;
    show(&admin, Request::Where { address, key }).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectionsQuery {
    slot: Option<u16>,
    address: Option<ipnet::IpNet>,
    limit: Option<usize>,
}

pub(super) async fn connections(State(admin): State<Admin>, uri: Uri) -> Shown {
    let ConnectionsQuery { slot, address, limit } = query(&uri)?;
    show(&admin, Request::Conns { slot, address, limit }).await
}

/// `GET /metrics`: the primary's, then those of workers' programs.
pub(super) async fn metrics(State(admin): State<Admin>) -> Result<impl IntoResponse, Rejection> {
    let programs = admin.control.links.bus.metrics();
    let (text, programs) = tokio::join!(admin.metrics.text(), programs);
    let text = text.map_err(Problem::from)?;
    let text =
        if programs.is_empty() { text } else { [&text, programs.as_bytes()].concat().into() };
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

async fn show(admin: &Admin, request: Request) -> Shown {
    Ok(Json(carry_out(&admin.control, request, drop).await?))
}

/// The items of an answer that ends.
pub(super) async fn items(admin: &Admin, request: Request) -> Shown {
    let mut items = Vec::new();
    carry_out(&admin.control, request, |item| items.push(item)).await?;
    Ok(Json(Value::Array(items)))
}

/// The last line of the answer. `each` gets the items before it.
pub(super) async fn carry_out(
    control: &Control,
    request: Request,
    mut each: impl FnMut(Value),
) -> Result<Value, Problem> {
    let (items, mut received) = mpsc::channel(MAX_ITEMS);
    let answer = async move { control.answer(request, &items).await };
    let read = async {
        while let Some(item) = received.recv().await {
            each(item);
        }
    };
    tokio::join!(answer, read).0
}

/// The query of the address.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Rejection> {
    let parsed = Query::try_from_uri(uri);
    parsed.map(|Query(query)| query).map_err(|error| Rejection::bad(error.body_text()))
}
