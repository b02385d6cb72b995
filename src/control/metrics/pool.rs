//! How many slots serve, what workers died of, and how rolling restarts ended.

use crate::control::metrics::{counts, flag, gauge};
use crate::supervisor::pool::status::PoolStatus;

pub(super) fn record(pool: &PoolStatus) {
    gauge("sticky_lb_slots", "Slots that are to be there.", pool.of.into());
    gauge("sticky_lb_serving_slots", "Slots in which a worker serves.", pool.serving.into());
    gauge("sticky_lb_stopping", "Whether everything is to end.", flag(pool.stopping));
    gauge(
        "sticky_lb_rollout_in_progress",
        "Whether a rolling restart is under way.",
        flag(pool.rollout.is_some()),
    );
    counts(
        "sticky_lb_rollouts_total",
        "Rolling restarts that have ended, by result.",
        "result",
        pool.rollouts.iter().copied(),
    );
    counts(
        "sticky_lb_worker_crashes_total",
        "Workers that ended without being told to, by reason.",
        "reason",
        pool.crashes.iter().copied(),
    );
    counts(
        "sticky_lb_worker_replacements_total",
        "Workers of single slots that were replaced, by reason.",
        "reason",
        pool.replacements.iter().copied(),
    );
}
