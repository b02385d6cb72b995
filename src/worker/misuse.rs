//! Mistakes in the use of this library that the compiler can't see: each is reported once.
//!
//! Never changes what happens.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Mutex;

use crate::worker::lock::lock;

/// Routes that are named at most, once for each reason, as they may be paths that clients made up.
const MAX_ROUTES: usize = 8;

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Misuse {
    AcceptBeforeReady,
    NeverAccepted,
    DroppedEarly,
    NotAwaited,
    ServedBare,
    MigrationNotEnabled,
    DeclaredTwice,
    BareLeftOpen,
}

impl Misuse {
    fn hint(self) -> &'static str {
        match self {
            Self::AcceptBeforeReady => {
                "Worker::accept is called before Worker::ready: no connection comes until then"
            }
            Self::NeverAccepted => {
                "Worker::ready was called, but Worker::accept is not: connections wait"
            }
            Self::DroppedEarly => {
                "Worker was dropped before Worker::accept returned None: connections that come are lost"
            }
            Self::NotAwaited => {
                "worker ends with connections open: await Drain::completed after the accept loop"
            }
            Self::ServedBare => {
                "migration is enabled, but a connection is served without Connection::into_session: \
                 it can't migrate"
            }
            Self::MigrationNotEnabled => {
                "a session declares that it can migrate, but Worker::enable_migration was not called: \
                 it can't"
            }
            Self::DeclaredTwice => {
                "a session declares in two ways how it migrates: the first one counts"
            }
            Self::BareLeftOpen => {
                "connections taken by Connection::into_parts are still open at the end of the drain, \
                 they will be cut: close them at Drain::started, or don't take them apart"
            }
        }
    }
}

/// The reason why a WebSocket's handler keeps it from migrating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HandlerFault {
    Undeclared,
    Failed,
    SendsBeside,
    NeverReceives,
    NotReceiving,
}

impl HandlerFault {
    /// What the handler does, and what would help.
    fn text(self) -> &'static str {
        match self {
            Self::Undeclared => "does not declare how it migrates, its clients are closed",
            Self::Failed => {
                "made no state, too much of it, or left too late, its clients are closed"
            }
            Self::SendsBeside => {
                "sends in one task while another receives, and answers may be between the two, its \
                 clients are closed: take a Migratable::pending_write for each answer, or use \
                 Session::migrating"
            }
            Self::NeverReceives => {
                "never receives, so nothing tells when it is at rest, its clients are closed: receive \
                 beside sending, or use Session::migrating"
            }
            Self::NotReceiving => {
                "did not come to wait for the next message in time, its clients are closed"
            }
        }
    }
}

/// The mistakes that were reported.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    misuses: Mutex<BTreeSet<Misuse>>,
    faults: Mutex<BTreeSet<(HandlerFault, String)>>,
    obstacles: Mutex<BTreeSet<(String, &'static str)>>,
}

impl Reported {
    /// Reports a mistake; where the app has no log, to standard error.
    pub(crate) fn misuse(&self, misuse: Misuse) {
        if !lock(&self.misuses).insert(misuse) {
            return;
        }
        let hint = misuse.hint();
        if tracing::dispatcher::has_been_set() {
            tracing::warn!(hint, "worker library is misused");
        } else {
            // If standard error is closed, nothing is lost.
            let _ = writeln!(std::io::stderr(), "sticky-lb: {hint}");
        }
    }

    /// Reports that a WebSocket is closed as it can't migrate, whatever its handler declares.
    pub(crate) fn obstacle(&self, route: Option<String>, reason: &'static str) {
        let route = route.unwrap_or_else(|| "unknown".to_owned());
        let mut obstacles = lock(&self.obstacles);
        if obstacles.len() == MAX_ROUTES || !obstacles.insert((route.clone(), reason)) {
            return;
        }
        drop(obstacles);
        if tracing::dispatcher::has_been_set() {
            tracing::warn!(route, reason, "WebSocket can't migrate, its clients are closed");
        } else {
            let text = "can't migrate, its clients are closed";
            let _ = writeln!(std::io::stderr(), "sticky-lb: WebSocket of {route} {text}: {reason}");
        }
    }

    /// Reports that a WebSocket is closed as its handler keeps it from migrating.
    pub(crate) fn fault(&self, fault: HandlerFault, route: Option<String>) {
        let route = route.unwrap_or_else(|| "unknown".to_owned());
        let mut faults = lock(&self.faults);
        if faults.len() == MAX_ROUTES || !faults.insert((fault, route.clone())) {
            return;
        }
        drop(faults);
        let text = fault.text();
        if tracing::dispatcher::has_been_set() {
            tracing::warn!(route, handler = text, "WebSocket can't migrate");
        } else {
            let _ = writeln!(std::io::stderr(), "sticky-lb: WebSocket handler of {route} {text}");
        }
    }
}
