//! Slots, crashes of workers, rolling restarts.

use crate::control::metrics::{counts, flag, gauge};
use crate::supervisor::pool::status::PoolStatus;

pub(super) fn record(pool: &PoolStatus) {
    gauge("sticky_lb_slots", "Slots configured.", pool.of.into());
    gauge("sticky_lb_serving_slots", "Slots with a serving worker.", pool.serving.into());
    gauge("sticky_lb_stopping", "Whether the primary is stopping: 1 or 0.", flag(pool.stopping));
    gauge(
        "sticky_lb_rollout_in_progress",
        "Whether a rolling restart is in progress: 1 or 0.",
        flag(pool.rollout.is_some()),
    );
    counts(
        "sticky_lb_rollouts_total",
        "Rolling restarts, by result.",
        "result",
        pool.rollouts.iter().copied(),
    );
    counts(
        "sticky_lb_worker_crashes_total",
        "Workers that exited without an order, by reason.",
        "reason",
        pool.crashes.iter().copied(),
    );
    counts(
        "sticky_lb_worker_end_connections_total",
        "Connections open in workers at the end of those, by how they ended.",
        "result",
        pool.ended.by_result(),
    );
    counts(
        "sticky_lb_worker_replacements_total",
        "Workers replaced outside of rolling restarts, by reason.",
        "reason",
        pool.replacements.iter().copied(),
    );
}
