//! Tells another primary of this worker's sessions, as messages.
//!
//! Decides nothing: the primary does, when all workers have answered.

use std::sync::atomic::Ordering;

use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{
    BATCH, MAX_IDS, encode_close_request, encode_resync_accepted, encode_resync_done,
    encode_resync_offers,
};
use crate::worker::session::registry::Sessions;

/// The answer to the request of that number, in the order in which it is to be sent.
pub(crate) fn resync(sessions: &Sessions, number: u64) -> Vec<Vec<u8>> {
    let mut messages = some_at_a_time(&sessions.report_offers(), |buffer, ids| {
        encode_resync_offers(buffer, ids.iter().copied()).to_vec()
    });
    messages.extend(outstanding_request(sessions));
    messages.extend(some_at_a_time(&sessions.accepted(), |buffer, ids| {
        encode_resync_accepted(buffer, ids.iter().copied()).to_vec()
    }));
    messages.push(encode_resync_done(number).to_vec());
    messages
}

/// The turns that the primary before was asked for, and hasn't granted.
fn outstanding_request(sessions: &Sessions) -> Option<Vec<u8>> {
    let granted = u32::try_from(sessions.granted.available_permits()).unwrap_or(u32::MAX);
    let left = sessions.asked.load(Ordering::Relaxed).saturating_sub(granted);
    let draining = (*sessions.draining.borrow()).filter(|draining| draining.has_primary)?;
    (left > 0).then(|| encode_close_request(left, draining.left()).to_vec())
}

fn some_at_a_time(
    ids: &[ConnectionId],
    encode: impl Fn(&mut [u8; MAX_IDS], &[ConnectionId]) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    let mut buffer = [0; MAX_IDS];
    ids.chunks(BATCH).map(|some| encode(&mut buffer, some)).collect()
}
