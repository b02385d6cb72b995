//! How a slot's workers end: they drain, or are killed.

use std::time::Duration;

use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::protocol::ids::{Generation, Timestamp};
use crate::supervisor::lifecycle::{Action, KillReason, LifecycleSettings, Phase};
use crate::supervisor::slot_life::phases::{EndTimes, Phases};

/// The order for workers that are replaced, drained or removed: their clients come back to others.
pub(super) fn while_others_go_on(settings: &LifecycleSettings) -> DrainOrder {
    let LifecycleSettings { drain: mode, drain_timeout: window, .. } = *settings;
    DrainOrder { mode, reason: DrainReason::Restart, window }
}

/// The order when everything ends: sessions have nowhere to migrate to.
pub(super) fn when_everything_ends(settings: &LifecycleSettings) -> DrainOrder {
    let mode = match settings.drain {
        DrainMode::Wait => DrainMode::Wait,
        DrainMode::Close | DrainMode::Migrate => DrainMode::Close,
    };
    let window = settings.kill_timeout;
    DrainOrder { mode, reason: DrainReason::GoingAway, window }
}

/// A worker drains.
pub(super) fn drain(
    phases: &mut Phases,
    settings: &LifecycleSettings,
    generation: Generation,
    order: DrainOrder,
    now: Timestamp,
) -> Vec<Action> {
    let order = order_for(phases, settings, generation, order);
    let (since, told, action) = match phases.get(generation) {
        Some(Phase::Serving { since } | Phase::Standby { since }) => {
            (Some(since), Some(order), Action::Drain(generation, order))
        }
        Some(Phase::Spare { .. }) => (None, Some(order), Action::Drain(generation, order)),
        Some(Phase::Spawning { .. }) => (None, None, Action::Terminate(generation)),
        Some(Phase::Draining { .. }) => {
            return shorten_deadline_to(phases, settings, generation, order, now);
        }
        None | Some(Phase::Killed { .. } | Phase::Aborted { .. }) => return Vec::new(),
    };
    phases.set(generation, Phase::Draining { since, deadline: now + order.window, told });
    if told.is_some() {
        let at = now + time_before_signal(settings, order);
        phases.set_end_times(generation, Some(EndTimes::until(at, now)));
    }
    let mut actions = vec![action];
    actions.extend(bound_draining(phases, settings, now));
    actions
}

/// The oldest of too many generations that drain has little time left.
fn bound_draining(
    phases: &mut Phases,
    settings: &LifecycleSettings,
    now: Timestamp,
) -> Vec<Action> {
    let draining = phases.draining();
    let surplus = draining.len().saturating_sub(usize::from(settings.max_draining));
    draining
        .into_iter()
        .take(surplus)
        .flat_map(|worker| shorten_deadline(phases, settings, worker, now))
        .collect()
}

/// A worker that drains has `kill_timeout` left at most.
pub(super) fn shorten_deadline(
    phases: &mut Phases,
    settings: &LifecycleSettings,
    generation: Generation,
    now: Timestamp,
) -> Vec<Action> {
    let window = settings.kill_timeout;
    let order = DrainOrder { window, ..while_others_go_on(settings) };
    shorten_deadline_to(phases, settings, generation, order, now)
}

/// A worker that ends by a signal has no session that could migrate: its clients are waited for, and not for as
/// long.
fn order_for(
    phases: &Phases,
    settings: &LifecycleSettings,
    generation: Generation,
    order: DrainOrder,
) -> DrainOrder {
    if !phases.ends_by_signal(generation) {
        return order;
    }
    DrainOrder { window: order.window.min(settings.signal_drain_timeout), ..order }
}

/// How much of the time that a worker has is left to it after its signal.
fn time_after_signal(settings: &LifecycleSettings, window: Duration) -> Duration {
    settings.kill_timeout.min(window / 2)
}

/// How long it waits for its clients before.
fn time_before_signal(settings: &LifecycleSettings, order: DrainOrder) -> Duration {
    if settings.signal_at_once && order.reason == DrainReason::GoingAway {
        return Duration::ZERO;
    }
    order.window - time_after_signal(settings, order.window)
}

/// A draining worker's last client has gone, or its signal is due.
pub(super) fn signal(phases: &mut Phases, generation: Generation) -> Vec<Action> {
    if phases.end_times(generation).is_none() {
        return Vec::new();
    }
    phases.set_end_times(generation, None);
    vec![Action::Stop(generation)]
}

/// A worker that drains never has more time than before. Only the end of everything changes how its
/// clients go.
fn shorten_deadline_to(
    phases: &mut Phases,
    settings: &LifecycleSettings,
    generation: Generation,
    order: DrainOrder,
    now: Timestamp,
) -> Vec<Action> {
    let Some(Phase::Draining { since, deadline: before, told }) = phases.get(generation) else {
        return Vec::new();
    };
    let deadline = before.min(now + order.window);
    let window = deadline.since(now);
    let again = told.map(|told| match order.reason {
        DrainReason::Restart => DrainOrder { window, ..told },
        DrainReason::GoingAway => DrainOrder { window, ..order },
    });
    let reason = |order: Option<DrainOrder>| order.map(|order| order.reason);
    if deadline == before && reason(again) == reason(told) {
        return Vec::new();
    }
    phases.set(generation, Phase::Draining { since, deadline, told: again });
    if let Some(times) = phases.end_times(generation) {
        let before = time_before_signal(settings, DrainOrder { window, ..order });
        let signal_at = times.signal_at.min(now + before);
        let sooner = EndTimes::until(signal_at, now).disconnect_at;
        let disconnect_at = times.disconnect_at.and_then(|at| Some(at.min(sooner?)));
        phases.set_end_times(generation, Some(EndTimes { disconnect_at, signal_at }));
    }
    again.map(|order| Action::ShortenDeadline(generation, order)).into_iter().collect()
}

/// A worker is killed.
pub(super) fn kill(phases: &mut Phases, generation: Generation, reason: KillReason) -> Vec<Action> {
    let since = match phases.get(generation) {
        None | Some(Phase::Killed { .. }) => return Vec::new(),
        Some(Phase::Spawning { .. } | Phase::Aborted { .. } | Phase::Spare { .. }) => None,
        Some(Phase::Serving { since } | Phase::Standby { since }) => Some(since),
        Some(Phase::Draining { since, .. }) => since,
    };
    phases.set(generation, Phase::Killed { since });
    vec![Action::Kill(generation, reason)]
}
