//! What becomes of connections.

use crate::control::metrics::{count, counts, flag, gauge};
use crate::frontend::query::FrontendFacts;
use crate::link::seam::{Counters, Survival};

/// Errors of accept that mean something is wrong here, and are there before they come.
const ERRORS: [&str; 4] = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"];

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(super) fn record(facts: &FrontendFacts) {
    let counters = &facts.counters;
    count(
        "sticky_lb_accepted_connections_total",
        "Connections taken from the backlog.",
        counters.accepted,
    );
    count(
        "sticky_lb_acknowledged_connections_total",
        "Connections that workers took over.",
        counters.acknowledged,
    );
    count(
        "sticky_lb_redispatched_connections_total",
        "Connections taken back from one worker and given to another.",
        counters.redispatched,
    );
    count(
        "sticky_lb_lost_connections_total",
        "Connections that ended before a worker had taken them over.",
        counters.lost,
    );
    sessions(counters);
    survival(&counters.survival, facts.sessions_protected as f64);
    counts(
        "sticky_lb_fallback_connections_total",
        "Connections that went elsewhere than to the first slot of their ranking, by reason.",
        "reason",
        facts.fallback.iter().map(|(reason, number)| (reason.name(), *number)),
    );
    counts(
        "sticky_lb_accept_errors_total",
        "Errors of accept, by the kernel's name for them.",
        "errno",
        accept_errors(&facts.accept_errors),
    );
    gauge(
        "sticky_lb_waiting_connections",
        "Connections accepted that no worker has taken over yet.",
        facts.waiting as f64,
    );
    gauge(
        "sticky_lb_rebalance_pending",
        "Sessions that a rebalance has still to move.",
        facts.rebalance_pending as f64,
    );
    gauge(
        "sticky_lb_accepting",
        "Whether connections are taken from the backlog.",
        flag(facts.accepting),
    );
    gauge(
        "sticky_lb_top_client_ratio",
        "Share of recent connections of the client that had most.",
        facts.top_client.map_or(0.0, |top_client| top_client.share),
    );
}

/// What becomes of protected sessions.
fn survival(survival: &Survival, protected: f64) {
    gauge(
        "sticky_lb_sessions_protected",
        "Crash-safe sessions of which there is a copy.",
        protected,
    );
    count(
        "sticky_lb_sessions_not_protected_total",
        "Crash-safe sessions for which there was no descriptor.",
        survival.not_protected,
    );
    count(
        "sticky_lb_sessions_recovered_total",
        "Crash-safe sessions that went on in another worker when theirs had died.",
        survival.recovered,
    );
    counts(
        "sticky_lb_session_recovery_failures_total",
        "Crash-safe sessions that were closed when their worker had died.",
        "reason",
        survival.recovery_failures(),
    );
}

/// What moves, and who is made to.
fn sessions(counters: &Counters) {
    count(
        "sticky_lb_sessions_migrated_total",
        "Sessions that moved to another worker.",
        counters.moved,
    );
    count(
        "sticky_lb_migrations_failed_total",
        "Sessions that nobody took, so that they stayed where they were.",
        counters.returned,
    );
    count(
        "sticky_lb_sessions_lost_total",
        "Sessions that nobody took and whose worker was gone.",
        counters.sessions_lost,
    );
    count(
        "sticky_lb_clients_closed_total",
        "Clients that workers were allowed to send away.",
        counters.shed,
    );
}

fn accept_errors(found: &[(&'static str, u64)]) -> Vec<(&'static str, u64)> {
    let missing = ERRORS.into_iter().filter(|name| found.iter().all(|(it, _)| it != name));
    found.iter().copied().chain(missing.map(|name| (name, 0))).collect()
}
