//! The routes of the admin listener.

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{get, post};

use crate::control::admin::answer::Rejection;
use crate::control::admin::connections::MAX_OF_ADDRESS;
use crate::control::admin::guard::{self, Guard};
use crate::control::admin::state::Admin;
use crate::control::admin::viewers::{Live, Viewers};
use crate::control::admin::{health, page, show, steer, stream};
use crate::control::answers::Control;
use crate::control::metrics::Metrics;
use crate::control::protocol::{Code, Problem};
use crate::control::settings::{AdminSettings, Token};

/// What connections are answered.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    /// Everything.
    pub(super) open: Router,
    /// Health checks, in a reserved place.
    pub(super) reserved: Router,
}

impl Routes {
    /// All routes. Spawns the task that serves viewers.
    pub(super) fn new(control: Control, settings: AdminSettings, token: Option<Token>) -> Self {
        let ready = settings.ready;
        let guard = Arc::new(Guard::new(settings, token));
        let live = Live::start(control.clone());
        let metrics = Metrics::new(control.links.clone(), control.snapshots.clone());
        let admin = Admin { control, live, viewers: Viewers::default(), metrics, ready };
        let page = Router::new()
            .route("/", get(page::page))
            .route("/guide/load-tests", get(page::load_tests))
            .layer(from_fn_with_state(Arc::clone(&guard), guard::check_origin));
        let protected = protected().layer(from_fn_with_state(guard, guard::check));
        let open = health_checks()
            .merge(page)
            .merge(protected)
            .method_not_allowed_fallback(not_allowed)
            .fallback(not_found);
        let reserved = health_checks().method_not_allowed_fallback(not_allowed).fallback(busy);
        let finished = |router: Router<Admin>| router.layer(map_response(finish));
        Self {
            open: finished(open).with_state(admin.clone()),
            reserved: finished(reserved).with_state(admin),
        }
    }
}

/// Routes for everyone.
fn health_checks() -> Router<Admin> {
    Router::new().route("/livez", get(health::livez)).route("/readyz", get(health::readyz))
}

/// Routes that require the token.
fn protected() -> Router<Admin> {
    let orders = steer::ORDERS.into_iter().fold(Router::new(), |router, name| {
        let order = post(move |admin, request| steer::order(name, admin, request));
        router.route(&format!("/api/{name}"), order)
    });
    orders
        .route("/metrics", get(show::metrics))
        .route("/api/status", get(show::status))
        .route("/api/workers", get(show::workers))
        .route("/api/slots/{slot}", get(show::slot))
        .route("/api/where", get(show::route))
        .route("/api/conns", get(show::connections))
        .route("/api/events", get(stream::events))
        .route("/api/logs", get(stream::logs))
        .route("/api/live", get(stream::live))
}

/// No response may be stored, or interpreted as another type.
async fn finish(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn not_found(uri: Uri) -> Rejection {
    let text = format!("there is no {}", uri.path());
    Rejection::new(StatusCode::NOT_FOUND, Code::BadRequest, text)
}

async fn busy() -> Rejection {
    let text = format!(
        "all connections are busy, of which one address may hold {MAX_OF_ADDRESS}: close some, or try \
         again"
    );
    Problem::new(Code::Busy, text).into()
}

async fn not_allowed(method: Method, uri: Uri) -> Rejection {
    let text = format!("{} does not accept {method}", uri.path());
    Rejection::new(StatusCode::METHOD_NOT_ALLOWED, Code::BadRequest, text)
}
