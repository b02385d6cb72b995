//! The start of a native worker: its channel, and the variables that describe it.

use std::io;

use crate::link::inherit::{Inherit, WorkerFacts};
use crate::link::native::channel::Channel;

/// Makes the channel to a new worker, and what the worker inherits of it.
///
/// # Errors
///
/// If the kernel has no memory or no descriptor left.
pub(in crate::link) fn start(facts: &WorkerFacts) -> io::Result<(Channel, Inherit)> {
    let (channel, mut inherit) = Channel::create(facts.credits)?;
    describe(facts, &mut inherit);
    Ok((channel, inherit))
}

fn describe(facts: &WorkerFacts, inherit: &mut Inherit) {
    let WorkerFacts { orphan_timeout, kill_timeout, migrate_timeout, protect, .. } = facts;
    inherit.set("STICKY_LB_ORPHAN_TIMEOUT", orphan_timeout.as_millis());
    inherit.set("STICKY_LB_KILL_TIMEOUT", kill_timeout.as_millis());
    inherit.set("STICKY_LB_MIGRATE_TIMEOUT", migrate_timeout.as_millis());
    inherit.set("STICKY_LB_OFFER_PROGRESS", 1);
    inherit.set("STICKY_LB_PROTECT", u8::from(*protect));
    inherit.set("STICKY_LB_PROTECT_SEVERAL", 1);
}
