//! The start of a native worker: its channel, its scoreboard, and the variables that
//! name them.

use std::io;

use crate::handover::descriptors::WorkerPart;
use crate::link::inherit::{Inherit, WorkerFacts};
use crate::link::native::{Channel, NativeStats};

/// The variable that names the number of the channel.
pub(super) const CHANNEL: &str = "STICKY_LB_CHANNEL";
/// The variable that names the number of the scoreboard.
pub(super) const SCOREBOARD: &str = "STICKY_LB_SCOREBOARD";

/// Makes the channel to a new worker, what the worker inherits of it, and where its counts come from.
///
/// # Errors
///
/// If the kernel has no memory or no descriptor left.
pub fn start(facts: &WorkerFacts) -> io::Result<(Channel, Inherit, NativeStats)> {
    let (channel, mut inherit) = Channel::create(facts.credits)?;
    describe(facts, &mut inherit);
    let stats = stats(&channel)?;
    Ok((channel, inherit, stats))
}

/// Where the counts of the worker at the other end of `channel` come from.
///
/// # Errors
///
/// If its scoreboard cannot be mapped.
pub fn stats(channel: &Channel) -> io::Result<NativeStats> {
    let mut parts = channel.descriptors().into_iter();
    let page = parts.find(|(part, _)| *part == WorkerPart::Scoreboard);
    let (_, page) = page.ok_or(io::ErrorKind::NotFound)?;
    NativeStats::open(page)
}

fn describe(facts: &WorkerFacts, inherit: &mut Inherit) {
    let WorkerFacts { worker, orphan_timeout, kill_timeout, migrate_timeout, protect, .. } = *facts;
    inherit.set("STICKY_LB_SLOT", worker.slot);
    inherit.set("STICKY_LB_GENERATION", worker.generation);
    inherit.set("STICKY_LB_ORPHAN_TIMEOUT", orphan_timeout.as_millis());
    inherit.set("STICKY_LB_KILL_TIMEOUT", kill_timeout.as_millis());
    inherit.set("STICKY_LB_MIGRATE_TIMEOUT", migrate_timeout.as_millis());
    inherit.set("STICKY_LB_CRASH_SAFE", u8::from(protect));
}
