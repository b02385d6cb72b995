//! What the pool runs on, as the configuration has it.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::frontend::placement::Placement;
use crate::supervisor::pool::PoolSettings;

/// What the pool of this primary runs on, beside its configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolOf {
    pub(super) port: u16,
    pub(super) heartbeat: Option<Duration>,
}

impl PoolOf {
    pub(super) fn settings(self, config: &Config) -> PoolSettings {
        PoolSettings {
            workers: config.workers,
            weights: config.router.weights.clone(),
            command: Arc::new(config.command.clone()),
            port: self.port,
            credits: config.credits,
            slot_wait: config.slots.slot_wait,
            wait_ready: config.wait_ready,
            lifecycle: config.lifecycle.clone(),
            rollout: config.rollout,
            autoscale: config.autoscale,
            dense: config.router.placement == Placement::Modulo,
            limits: config.limits,
            stall_timeout: config.stall_timeout,
            orphan_grace: config.orphan_grace,
            move_timeout: config.move_timeout,
            lameduck: config.lameduck,
            heartbeat: self.heartbeat,
        }
    }
}
