//! The start of a Node worker: its channel, and the variables that Node looks for.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::link::inherit::{Inherit, WorkerFacts};
use crate::link::node::channel::{Channel, Facts};
use crate::link::node::memo::{Known, Memo};
use crate::link::node::transport::Transport;
use crate::protocol::ids::WorkerId;
use crate::protocol::scoreboard::Scoreboard;

/// Makes the channel to a new worker, on the scoreboard that there is or a new one. Adds what the worker inherits of
/// it.
///
/// # Errors
///
/// If the kernel has no memory or no descriptor left.
pub(in crate::link) fn start(
    facts: &WorkerFacts,
    page: Option<BorrowedFd<'_>>,
    inherit: &mut Inherit,
) -> io::Result<Channel> {
    let (transport, end) = Transport::create()?;
    inherit.add("node-channel", "NODE_CHANNEL_FD", end);
    inherit.set("NODE_CHANNEL_SERIALIZATION_MODE", "json");
    inherit.set("NODE_UNIQUE_ID", unique_id(facts.worker));
    let page = match page {
        Some(page) => (Scoreboard::open(page)?, page.try_clone_to_owned()?),
        None => Scoreboard::create()?,
    };
    let of_channel =
        Facts { settings: Arc::clone(&facts.node), port: facts.port, credits: facts.credits };
    let memo = Memo::create()?;
    memo.write(&Known { rights: facts.rights, ..Known::default() });
    Ok(Channel::new(transport, memo, page, of_channel))
}

/// `cluster.worker.id`: from 1 in slots' first workers, and never the same for two that live together.
#[must_use]
pub fn unique_id(worker: WorkerId) -> u64 {
    1 + u64::from(worker.slot.0) + u64::from(worker.generation.0) * 1024
}
