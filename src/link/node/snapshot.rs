//! A Node worker's channel as plain data, for the successor that this program becomes: exactly as it is.

use std::sync::Arc;

use data_encoding::BASE64;

use crate::handover::Carry;
use crate::handover::descriptors::{Descriptors, RestoreError};
use crate::handover::link::{NodeChannelSnapshot, NodeInFlightSnapshot};
use crate::link::in_flight::InFlight;
use crate::link::native::PAGE;
use crate::link::native::snapshot::{in_flight_snapshot, restore_in_flight};
use crate::link::node::channel::{Channel, Facts};
use crate::link::node::handed::Handed;
use crate::link::node::memo::Memo;
use crate::link::node::settings::NodeSettings;
use crate::link::node::transport::{MEMO, SOCKET, Transport, WORKER_END};
use crate::protocol::ids::WorkerId;
use crate::protocol::scoreboard::{Counter, Scoreboard};

/// As plain data; its descriptors go to `descriptors`.
pub fn into_snapshot(
    mut channel: Channel,
    worker: WorkerId,
    descriptors: &mut Descriptors,
) -> NodeChannelSnapshot {
    channel.refuse_unsent();
    let Channel { transport, in_flight, handed, memo, page, settings, port, seq, .. } = channel;
    let (socket, worker_end, begun, outgoing) = transport.into_parts();
    for (part, descriptor) in
        [(SOCKET, socket), (WORKER_END, worker_end), (MEMO, memo.into_descriptor()), (PAGE, page)]
    {
        descriptors.insert(part.name(worker), descriptor);
    }
    let (counts, credits) = (in_flight.counts().snapshot(), in_flight.credits());
    let (completed, acknowledged, handed) = handed.into_parts();
    NodeChannelSnapshot {
        in_flight: NodeInFlightSnapshot {
            counts,
            credits,
            connections: in_flight_snapshot(in_flight, worker, descriptors),
            completed,
            acknowledged,
            handed,
        },
        begun: BASE64.encode(&begun),
        outgoing: BASE64.encode(&outgoing),
        settings: settings.as_ref().snapshot(),
        port,
        seq,
    }
}

/// As it was.
///
/// # Errors
///
/// If a descriptor is missing or unusable, or the snapshot is malformed.
pub fn restore(
    snapshot: NodeChannelSnapshot,
    worker: WorkerId,
    descriptors: &mut Descriptors,
) -> Result<Channel, RestoreError> {
    let NodeChannelSnapshot { in_flight, begun, outgoing, settings, port, seq } = snapshot;
    let NodeInFlightSnapshot { counts, credits, connections, completed, acknowledged, handed } =
        in_flight;
    let facts = Facts { settings: Arc::new(Carry::restore(settings)), port, credits };
    let mut channel = take_over(worker, descriptors, facts)?;
    let entries = restore_in_flight(connections, worker, descriptors)?;
    channel.in_flight = InFlight::restore(credits, Carry::restore(counts), entries);
    channel.handed = Handed::restore(completed, acknowledged, handed);
    channel.seq = channel.seq.max(seq);
    let bytes = |text: String| {
        let bytes = BASE64.decode(text.as_bytes());
        bytes.map_err(|_| RestoreError::Malformed("a channel"))
    };
    channel.transport.restore(bytes(begun)?, bytes(outgoing)?);
    // A primary before that one had crashed in the middle of a line.
    if channel.known.is_told_half && !channel.transport.has_outgoing() {
        channel.mute();
    }
    Ok(channel)
}

/// The channel of a worker whose primary has died, from the descriptors that were kept.
///
/// # Errors
///
/// If one of them is missing or is not what it should be.
pub(in crate::link) fn adopt(
    worker: WorkerId,
    descriptors: &mut Descriptors,
    credits: usize,
    port: u16,
    settings: Arc<NodeSettings>,
) -> Result<Channel, RestoreError> {
    let mut channel = take_over(worker, descriptors, Facts { settings, port, credits })?;
    match channel.known.beginning.bytes() {
        Some(begun) => channel.transport.restore(begun, Vec::new()),
        None => channel.transport.skip_line(),
    }
    if channel.known.is_told_half {
        channel.mute();
    }
    // One that was not ready was sent nothing.
    channel.handed_before =
        channel.known.is_ready.then(|| channel.board.get(Counter::SessionsSent));
    Ok(channel)
}

fn take_over(
    worker: WorkerId,
    descriptors: &mut Descriptors,
    facts: Facts,
) -> Result<Channel, RestoreError> {
    let transport = Transport::take_over(worker, descriptors)?;
    let memo = Memo::open(descriptors.require(&MEMO.name(worker))?);
    let page = descriptors.require(&PAGE.name(worker))?;
    let unusable = |source| RestoreError::Unusable { name: PAGE.name(worker), source };
    let board = Scoreboard::adopt(&page).map_err(unusable)?;
    Ok(Channel::new(transport, memo, (board, page), facts))
}
