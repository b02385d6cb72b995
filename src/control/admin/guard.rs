//! Who may come in: whoever has the token, and no web page of somebody else.
//!
//! A browser can be made to ask in the name of its user: by a page whose host name suddenly means
//! this machine (DNS rebinding), which its `Host` gives away, and by a page of another origin, which
//! its `Origin` does. An address in `Host` is never rebound: a page must have come from here then.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::control::admin::Peer;
use crate::control::admin::answer::Rejection;
use crate::control::protocol::Code;
use crate::control::settings::{AdminSettings, Token};
use crate::protocol::ids::Timestamp;

/// A line of the log for wrong tokens comes no more often.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// What requests have to bear.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<Token>,
    hosts: Vec<String>,
    /// When it was last logged that a token was wrong, and how often it was since.
    warned: Mutex<(Option<Timestamp>, u64)>,
}

impl Guard {
    pub(super) fn new(settings: AdminSettings) -> Self {
        Self { token: settings.token, hosts: settings.hosts, warned: Mutex::default() }
    }

    /// Whether it comes from a page of this listener, or from no page.
    fn check_origin(&self, request: &Request) -> Result<(), Rejection> {
        let Some(host) = host(request) else {
            return Err(Rejection::bad("request has no Host, or several"));
        };
        if !self.is_own(&host) {
            let name = host.host();
            let text = format!("host {name:?} is not this listener's: allow it by --admin-host");
            return Err(Rejection::new(StatusCode::MISDIRECTED_REQUEST, Code::Forbidden, text));
        }
        let foreign = |origin: &HeaderValue| !is_origin_of(origin.to_str().unwrap_or(""), &host);
        if request.headers().get_all(ORIGIN).iter().any(foreign) {
            let text = "pages of another origin may not ask";
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

    /// Whoever tries many doesn't fill the log.
    fn warn(&self, request: &Request) {
        let (now, peer) = (Timestamp::now(), request.extensions().get::<Peer>());
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.1 += 1;
        if warned.0.is_none_or(|last| now.since(last) >= WARN_EVERY) {
            let client = peer.map(|peer| tracing::field::display(peer.0));
            tracing::warn!(client, times = warned.1, "admin request without the right token");
            *warned = (Some(now), 0);
        }
    }
}

/// Lets in whoever has the token and is no page of another origin.
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
        let text = "token needed: Authorization: Bearer TOKEN, as in --admin-token-file";
        let rejection = Rejection::new(StatusCode::UNAUTHORIZED, Code::Forbidden, text);
        return ([(WWW_AUTHENTICATE, "Bearer")], rejection).into_response();
    }
    next.run(request).await
}

/// Lets in whoever is no page of another origin.
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

/// The host that is asked, if it is said once and the same everywhere.
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
