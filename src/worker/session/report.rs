//! What another primary has to know of this worker's sessions, as messages.
//!
//! Decides nothing: the primary does, when all workers have reported.

use std::sync::atomic::Ordering;

use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{
    BATCH, MAX_IDS, encode_close_request, encode_resync_accepted, encode_resync_done,
    encode_resync_offers,
};
use crate::worker::drain::Shared;

/// The answer to the report of that number, in the order in which it is to be sent.
pub(crate) fn report(shared: &Shared, number: u64) -> Vec<Vec<u8>> {
    let sessions = &shared.sessions;
    let mut messages = some_at_a_time(&sessions.report_offers(), |buffer, ids| {
        encode_resync_offers(buffer, ids.iter().copied()).to_vec()
    });
    messages.extend(outstanding_wish(shared));
    messages.extend(some_at_a_time(&sessions.taken(), |buffer, ids| {
        encode_resync_accepted(buffer, ids.iter().copied()).to_vec()
    }));
    messages.push(encode_resync_done(number).to_vec());
    messages
}

/// What the primary before was asked for, and may have died with.
fn outstanding_wish(shared: &Shared) -> Option<Vec<u8>> {
    let sessions = &shared.sessions;
    let granted = u32::try_from(sessions.granted.available_permits()).unwrap_or(u32::MAX);
    let left = sessions.asked.load(Ordering::Relaxed).saturating_sub(granted);
    let draining = (*sessions.draining.borrow()).filter(|draining| !draining.alone)?;
    (left > 0).then(|| encode_close_request(left, draining.left()).to_vec())
}

fn some_at_a_time(
    ids: &[ConnectionId],
    encode: impl Fn(&mut [u8; MAX_IDS], &[ConnectionId]) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    let mut buffer = [0; MAX_IDS];
    ids.chunks(BATCH).map(|some| encode(&mut buffer, some)).collect()
}
