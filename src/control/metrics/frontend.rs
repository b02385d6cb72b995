//! Connections and sessions.

use crate::control::metrics::{count, counts, flag, gauge};
use crate::frontend::query::FrontendFacts;
use crate::link::seam::{Counters, Survival};

/// Errors of accept whose series exist from the start: they mean a problem of this machine.
const ERRORS: [&str; 4] = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"];

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(super) fn record(facts: &FrontendFacts) {
    let counters = &facts.counters;
    count("sticky_lb_accepted_connections_total", "Connections accepted.", counters.accepted);
    count(
        "sticky_lb_acknowledged_connections_total",
        "Connections acknowledged by workers.",
        counters.acknowledged,
    );
    count(
        "sticky_lb_redispatched_connections_total",
        "Connections taken back from one worker and sent to another.",
        counters.redispatched,
    );
    count(
        "sticky_lb_lost_connections_total",
        "Connections that ended before a worker had acknowledged them.",
        counters.lost,
    );
    sessions(counters);
    survival(&counters.survival, facts.sessions_protected as f64);
    counts(
        "sticky_lb_fallback_connections_total",
        "Connections placed on another slot than the first of their ranking, by reason.",
        "reason",
        facts.fallback.iter().map(|(reason, number)| (reason.name(), *number)),
    );
    counts(
        "sticky_lb_accept_errors_total",
        "Errors of accept, by errno name.",
        "errno",
        accept_errors(&facts.accept_errors),
    );
    gauge(
        "sticky_lb_waiting_connections",
        "Connections accepted and not yet acknowledged by a worker.",
        facts.waiting as f64,
    );
    gauge(
        "sticky_lb_rebalance_pending",
        "Sessions that a rebalance has yet to migrate.",
        facts.rebalance_pending as f64,
    );
    gauge(
        "sticky_lb_accepting",
        "Whether connections are accepted: 1 or 0.",
        flag(facts.accepting),
    );
    gauge(
        "sticky_lb_top_client_ratio",
        "Share of recent connections of the client with the most, 0 to 1.",
        facts.top_client.map_or(0.0, |top_client| top_client.share),
    );
}

/// Protected sessions.
fn survival(survival: &Survival, protected: f64) {
    gauge("sticky_lb_sessions_protected", "Protected sessions now.", protected);
    count(
        "sticky_lb_sessions_not_protected_total",
        "Sessions not protected for lack of descriptors.",
        survival.not_protected,
    );
    count(
        "sticky_lb_sessions_recovered_total",
        "Protected sessions that another worker continued after a crash of theirs.",
        survival.recovered,
    );
    counts(
        "sticky_lb_session_recovery_failures_total",
        "Protected sessions closed after a crash of their worker, by reason.",
        "reason",
        survival.recovery_failures(),
    );
}

/// Migration, and closed clients.
fn sessions(counters: &Counters) {
    count(
        "sticky_lb_sessions_migrated_total",
        "Sessions migrated to another worker.",
        counters.moved,
    );
    count(
        "sticky_lb_migrations_failed_total",
        "Migrations that no worker accepted, the session stayed with its worker; or whose new handler closed the session at once.",
        counters.returned,
    );
    count(
        "sticky_lb_sessions_lost_total",
        "Sessions that no worker accepted after their own worker had ended.",
        counters.sessions_lost,
    );
    count("sticky_lb_clients_closed_total", "Clients closed by draining workers.", counters.closed);
}

fn accept_errors(found: &[(&'static str, u64)]) -> Vec<(&'static str, u64)> {
    let missing = ERRORS.into_iter().filter(|name| found.iter().all(|(it, _)| it != name));
    found.iter().copied().chain(missing.map(|name| (name, 0))).collect()
}
