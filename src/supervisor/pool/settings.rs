//! The pool's settings.

use std::sync::Arc;
use std::time::Duration;

use crate::handover::carry;
use crate::handover::settings::PoolSettingsSnapshot;
use crate::link::interface::{Dispatch, InterfaceChoice};
use crate::link::node::settings::{NodeSettings, TicketKeys};
use crate::supervisor::autoscale::AutoscaleSettings;
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::lifecycle::LifecycleSettings;
use crate::supervisor::limits::LimitSettings;
use crate::supervisor::rollout::RolloutSettings;

/// The limit of the number of slots.
pub const MAX_WORKERS: u16 = 1024;

/// The settings of the pool.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// How many slots: as configured, or as ordered since.
    pub workers: u16,
    /// How many are configured.
    pub configured_workers: u16,
    /// The weight of each slot, in placement; 1 for those beyond.
    pub weights: Vec<f64>,
    /// The command of each worker.
    pub command: Arc<WorkerCommand>,
    /// The port that the primary listens on, as `PORT`.
    pub port: u16,
    /// What workers may speak.
    pub interface: InterfaceChoice,
    /// Who picks the worker of a client.
    pub dispatch: Dispatch,
    /// How Node workers are spoken to.
    pub node: Arc<NodeSettings>,
    /// Connections that a worker may have unacknowledged.
    pub credits: usize,
    /// How long a slot's clients wait for a successor; they don't wait for a later one.
    pub slot_wait: Duration,
    /// Whether a worker serves when it says that it is ready; else it serves as soon as it has attached.
    pub wait_ready: bool,
    /// How long each phase may take.
    pub lifecycle: LifecycleSettings,
    /// The number of the signal by which workers end that get no order.
    pub stop_signal: i32,
    /// How replacements are done.
    pub rollout: RolloutSettings,
    /// When to have more workers and when fewer, if load decides that.
    pub autoscale: Option<AutoscaleSettings>,
    /// Slots are numbered without gaps: with a gap, clients would move without need.
    pub contiguous: bool,
    /// When workers are replaced.
    pub limits: LimitSettings,
    /// A worker whose event loop has stood still for so long is aborted.
    pub watchdog_timeout: Option<Duration>,
    /// How long workers go on serving when the primary is gone.
    pub orphan_timeout: Duration,
    /// How often the pool shows that it and the frontend go on.
    pub heartbeat: Option<Duration>,
    /// A session that hasn't migrated within that is closed.
    pub migrate_timeout: Duration,
    /// Whether sessions may be protected.
    pub protect: bool,
    /// From the order to stop until connections are no longer accepted.
    pub lameduck: Duration,
}

carry!(struct PoolSettings => PoolSettingsSnapshot { workers, configured_workers, weights, command, port, interface, dispatch, node, credits, slot_wait, wait_ready, lifecycle, stop_signal, rollout, autoscale, contiguous, limits, watchdog_timeout, orphan_timeout, heartbeat, migrate_timeout, protect, lameduck });

impl PoolSettings {
    /// As they follow others: the number that was ordered stays unless another one is configured, or load
    /// decides no more. Who picks the worker stays, and with it what workers speak.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        if self.dispatch != before.dispatch {
            (self.dispatch, self.interface) = (before.dispatch, before.interface);
        }
        if !self.is_resized(before) {
            self.workers = before.workers;
        }
        self.with_ticket_keys(before.node.ticket_keys.clone())
    }

    /// With these keys of TLS session tickets.
    #[must_use]
    pub fn with_ticket_keys(mut self, ticket_keys: TicketKeys) -> Self {
        self.node = Arc::new(NodeSettings { ticket_keys, ..(*self.node).clone() });
        self
    }

    /// Whether these settings say how many slots there are to be. If not, orders count that came since.
    #[must_use]
    pub fn is_resized(&self, before: &Self) -> bool {
        self.configured_workers != before.configured_workers
            || self.autoscale.is_none() != before.autoscale.is_none()
    }
}
