//! Tells another primary of this worker's sessions, as messages.
//!
//! Decides nothing: the primary does, when all workers have answered.

use std::sync::atomic::Ordering;

use crate::protocol::message::{
    BATCH, MAX_ACCEPTED_SESSIONS, MAX_OPEN_OFFERS, encode_close_request, encode_resync_accepted,
    encode_resync_done, encode_resync_offers,
};
use crate::worker::session::registry::Sessions;

/// The answer to the request of that number, in the order in which it is to be sent.
pub(crate) fn resync(sessions: &Sessions, number: u64) -> Vec<Vec<u8>> {
    let offers = sessions.report_offers();
    let offers = offers
        .chunks(BATCH)
        .map(|some| encode_resync_offers(&mut [0; MAX_OPEN_OFFERS], some.iter().copied()).to_vec());
    let mut messages: Vec<_> = offers.collect();
    messages.extend(outstanding_request(sessions));
    let accepted = sessions.accepted();
    messages.extend(accepted.chunks(BATCH).map(|some| {
        encode_resync_accepted(&mut [0; MAX_ACCEPTED_SESSIONS], some.iter().copied()).to_vec()
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
