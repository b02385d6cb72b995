//! The primary's status as a report.

use std::time::Duration;

use crate::control::links::Links;
use crate::control::report::{Rollout, Status, TopClient};
use crate::frontend::placement::Placement;
use crate::frontend::query::FrontendFacts;
use crate::protocol::ids::Timestamp;
use crate::supervisor::pool::status::{PoolStatus, RolloutStatus};
use crate::system::keeper::main_pid;

/// The report.
pub(super) fn status(links: &Links, pool: &PoolStatus, frontend: &FrontendFacts) -> Status {
    let (facts, counters) = (&links.facts, &frontend.counters);
    let notes = links.notes.borrow().clone();
    let workers = || pool.slots.iter().flat_map(|slot| &slot.workers);
    Status {
        name: facts.name.clone(),
        configuration: notes.configuration.map(|path| path.display().to_string()),
        command: Some(notes.command),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: main_pid(),
        primary_pid: std::process::id(),
        uptime_s: Timestamp::now().since(facts.started).as_secs_f64(),
        upgrades: facts.replacements.upgrades,
        recoveries: facts.replacements.recoveries,
        failed_upgrades: facts.replacements.failed_upgrades,
        upgrade_failed: facts.replacements.upgrade_failed.clone(),
        listening: vec![facts.address.to_string()],
        admin: facts.admin.map(|address| address.to_string()),
        admin_token_file: facts.admin_token_file.as_ref().map(|it| it.display().to_string()),
        control: notes.control.map(|path| path.display().to_string()),
        not_renewed: notes.not_renewed,
        placement: placement_name(facts.placement).to_owned(),
        serving: pool.serving,
        workers: pool.of,
        autoscale: pool.autoscale,
        accepting: frontend.accepting,
        stopping: pool.stopping,
        connections: workers().map(|worker| worker.connections).sum(),
        websockets: workers().map(|worker| worker.websockets).sum(),
        sessions: workers().map(|worker| worker.sessions).sum(),
        requests: workers().map(|worker| worker.requests).sum(),
        waiting: frontend.waiting,
        accepts_per_second: frontend.accepts_per_second,
        handoff_p50_ms: frontend.recent.p50.map(millis),
        handoff_p99_ms: frontend.recent.p99.map(millis),
        accepted: counters.accepted,
        acknowledged: counters.acknowledged,
        redispatched: counters.redispatched,
        fallbacks: counters.fallbacks,
        stalls: counters.stalls,
        refused: counters.refused,
        lost: counters.lost,
        sessions_migrated: counters.moved,
        migrations_failed: counters.returned,
        sessions_lost: counters.sessions_lost,
        sessions_protected: frontend.sessions_protected,
        sessions_recovered: counters.survival.recovered,
        session_recovery_failures: counters
            .survival
            .recovery_failures()
            .iter()
            .map(|(_, count)| count)
            .sum(),
        clients_closed: counters.closed,
        rebalance_pending: frontend.rebalance_pending,
        accept_errors: counters.accept_errors,
        crashes: pool.crashes.iter().map(|(_, count)| count).sum(),
        connections_finished: pool.ended.finished,
        connections_migrated: pool.ended.migrated,
        connections_closed: pool.ended.closed,
        connections_protected: pool.ended.protected,
        connections_cut: pool.ended.cut,
        top_client: frontend.top_client.map(|top_client| TopClient {
            address: top_client.address.to_string(),
            share: top_client.share,
        }),
        dominant_client: None,
        heavy_connections: None,
        rollout: pool.rollout.as_ref().map(rollout),
        last_rollout: None,
        log_levels: links.log.levels().to_string(),
        dropped_lines: links.output.dropped(),
    }
}

/// A rolling restart in progress.
pub(in crate::control) fn rollout(status: &RolloutStatus) -> Rollout {
    let under_way = status.under_way.iter();
    Rollout {
        number: status.number,
        trigger: status.trigger.clone(),
        replaced: status.replaced,
        of: status.of,
        under_way: under_way.map(|(slot, waits_for)| (slot.0, (*waits_for).to_owned())).collect(),
        ..Rollout::default()
    }
}

/// A placement's name in settings.
pub(in crate::control) fn placement_name(placement: Placement) -> &'static str {
    match placement {
        Placement::Rendezvous => "rendezvous",
        Placement::Kernel => "kernel",
        Placement::Modulo => "modulo",
        Placement::LeastConnections => "least-connections",
        Placement::RoundRobin => "round-robin",
        Placement::Random => "random",
    }
}

/// A duration in milliseconds.
pub(in crate::control) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
