//! The route of a session that a worker offers: to its slot's next worker, to another slot, or back.
//!
//! Never does I/O: a function of the session's history and of the targets, which note where its client
//! is now.

use crate::protocol::ids::{AffinityKey, SlotId};
use crate::sessions::host::{MigrationTargets, Sender, TargetState};

/// After so many workers that refused it, stalled or died, a session goes back.
const MAX_ATTEMPTS: usize = 3;

/// One that has nobody to go back to is closed after so many: a worker that refuses it now refuses it again,
/// within a millisecond.
const MAX_ATTEMPTS_ALONE: usize = 16;

/// So many workers may die with a session.
const MAX_CRASHES: u8 = 3;

/// A session's history so far.
#[derive(Clone, Copy, Debug)]
pub struct RouteRequest<'a> {
    /// Its client's key.
    pub key: AffinityKey,
    /// The slot that it comes from.
    pub from: SlotId,
    /// The worker that offers it.
    pub sender: Sender,
    /// Slots whose workers should have taken it and refused, stalled or died.
    pub failed: &'a [SlotId],
    /// How many of those died.
    pub crashes: u8,
}

/// Where a session goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteDecision {
    /// To this slot's worker, or its successor that is expected.
    To(SlotId),
    /// Back to its sender.
    Return,
    /// Nowhere yet: a worker may take it later.
    Wait,
    /// Nowhere: no worker is left that could take it, or too many have refused it or died with it.
    Close,
}

/// Decides where a session goes.
pub fn decide(request: &RouteRequest<'_>, targets: &mut impl MigrationTargets) -> RouteDecision {
    let may_fail = request.failed.len() < MAX_ATTEMPTS;
    if request.sender == Sender::Dead {
        if request.crashes >= MAX_CRASHES {
            return RouteDecision::Close;
        }
        // The sessions of a worker come back all at once. They wait outside the queue for its
        // successor, which leaves room in it for new clients.
        if may_fail
            && matches!(targets.state(request.from), TargetState::Awaited | TargetState::Full)
        {
            return RouteDecision::Wait;
        }
    }
    let target = may_fail.then(|| target(request, targets)).flatten();
    match (target, request.sender) {
        (Some(slot), _) => RouteDecision::To(slot),
        (None, Sender::Serving | Sender::Leaving) => RouteDecision::Return,
        (None, Sender::Gone | Sender::Dead) => without_sender(request, targets),
    }
}

fn target(request: &RouteRequest<'_>, targets: &mut impl MigrationTargets) -> Option<SlotId> {
    let RouteRequest { key, from, sender, failed, .. } = *request;
    if sender == Sender::Serving {
        // It stays, unless its client belongs to another slot.
        let ideal = targets.ideal(key).filter(|ideal| *ideal != from);
        return ideal.filter(|ideal| !failed.contains(ideal) && targets.is_open(*ideal));
    }
    if !failed.contains(&from) && targets.is_open(from) {
        targets.stay(key, from);
        return Some(from);
    }
    targets.choose(key, failed)
}

/// The route of a session that has no sender to go back to.
fn without_sender(
    request: &RouteRequest<'_>,
    targets: &mut impl MigrationTargets,
) -> RouteDecision {
    if request.crashes >= MAX_CRASHES || request.failed.len() >= MAX_ATTEMPTS_ALONE {
        return RouteDecision::Close;
    }
    if targets.state(request.from) == TargetState::Awaited {
        return RouteDecision::To(request.from);
    }
    match targets.choose(request.key, &[]) {
        Some(slot) => RouteDecision::To(slot),
        None if targets.is_any_expected() => RouteDecision::Wait,
        None => RouteDecision::Close,
    }
}
