//! Access to the admin listener: requests need the token, and must not come from a page of another
//! origin.
//!
//! A browser can be made to send requests of its user in two ways. DNS rebinding, a page whose host
//! name suddenly resolves to this machine, shows in `Host`; a page of another origin shows in
//! `Origin`. An address in `Host` cannot be rebound: such a page came from this listener.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::control::admin::answer::Rejection;
use crate::control::admin::connections::PlaceHandle;
use crate::control::protocol::Code;
use crate::control::settings::{AdminSettings, Token};
use crate::protocol::ids::Timestamp;

/// The shortest time between two log lines on wrong tokens.
const WARN_INTERVAL: Duration = Duration::from_secs(1);

/// The client.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) place: PlaceHandle,
}

/// Checks requests.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<Token>,
    hosts: Vec<String>,
    /// The time of the last log line on a wrong token, and wrong tokens since.
    warned: Mutex<(Option<Timestamp>, u64)>,
}

impl Guard {
    pub(super) fn new(settings: AdminSettings, token: Option<Token>) -> Self {
        Self { token, hosts: settings.hosts, warned: Mutex::default() }
    }

    /// Fails if the request comes from a page of another origin.
    fn check_origin(&self, request: &Request) -> Result<(), Rejection> {
        let Some(host) = host(request) else {
            return Err(Rejection::bad("request has no Host header, or several"));
        };
        if !self.is_own(&host) {
            let name = host.host();
            let text =
                format!("host {name:?} is not a name of this listener: allow it by --admin-host");
            return Err(Rejection::new(StatusCode::MISDIRECTED_REQUEST, Code::Forbidden, text));
        }
        let foreign = |origin: &HeaderValue| !is_origin_of(origin.to_str().unwrap_or(""), &host);
        if request.headers().get_all(ORIGIN).iter().any(foreign) {
            let text = "requests of pages of another origin are rejected";
            return Err(Rejection::new(StatusCode::FORBIDDEN, Code::Forbidden, text));
        }
        Ok(())
    }

    fn is_own(&self, host: &Authority) -> bool {
        let name = host.host();
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        bare.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|allowed| {
                allowed.eq_ignore_ascii_case(name) || allowed.eq_ignore_ascii_case(host.as_str())
            })
    }

    fn has_token(&self, request: &Request) -> bool {
        let Some(token) = &self.token else { return true };
        let presented = request.headers().get(AUTHORIZATION).and_then(|it| it.to_str().ok());
        let presented = presented.and_then(|it| it.split_once(' '));
        presented.is_some_and(|(scheme, presented)| {
            scheme.eq_ignore_ascii_case("bearer") && token.is(presented.trim())
        })
    }

    /// Logs a wrong token, with a limited rate.
    fn warn(&self, request: &Request) {
        // A page that is opened has none yet.
        if !request.headers().contains_key(AUTHORIZATION) {
            return;
        }
        let (now, peer) = (Timestamp::now(), request.extensions().get::<Peer>());
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.1 += 1;
        if warned.0.is_none_or(|last| now.since(last) >= WARN_INTERVAL) {
            let client = peer.map(|peer| tracing::field::display(peer.address));
            tracing::warn!(client, times = warned.1, "admin request rejected: wrong token");
            *warned = (Some(now), 0);
        }
    }
}

/// Passes requests with the token that come from no page of another origin.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(rejection) = guard.check_origin(&request) {
        return rejection.into_response();
    }
    if !guard.has_token(&request) {
        guard.warn(&request);
        let text = "token required: Authorization: Bearer TOKEN, as in --admin-token-file, or else in \
                    the file that `sticky-lb status` names";
        let rejection = Rejection::new(StatusCode::UNAUTHORIZED, Code::Forbidden, text);
        return ([(WWW_AUTHENTICATE, "Bearer")], rejection).into_response();
    }
    if guard.token.is_some()
        && let Some(peer) = request.extensions().get::<Peer>()
    {
        peer.place.prove();
    }
    next.run(request).await
}

/// Passes requests that come from no page of another origin.
pub(super) async fn check_origin(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    match guard.check_origin(&request) {
        Ok(()) => next.run(request).await,
        Err(rejection) => rejection.into_response(),
    }
}

/// The requested host, if the request names exactly one.
fn host(request: &Request) -> Option<Authority> {
    let mut all = request.headers().get_all(HOST).iter();
    let (first, second) = (all.next()?, all.next());
    let host = Authority::try_from(first.as_bytes()).ok().filter(|_| second.is_none())?;
    request.uri().authority().is_none_or(|target| *target == host).then_some(host)
}

fn is_origin_of(origin: &str, host: &Authority) -> bool {
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host.as_str()))
}
