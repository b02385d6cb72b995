//! Messages about protected sessions.
//!
//! Never looks into a checkpoint: its content counts when its worker is dead.

use crate::link::error::ChannelError;
use crate::link::native::transfer::is_tcp;
use crate::link::native::transport::ReceivedFds;
use crate::link::protection::{Keep, Keeping};
use crate::protocol::checkpoint::Ledger;
use crate::protocol::message::ToPrimary;

/// Whether descriptors may come with a message.
pub(super) fn may_carry_descriptors(message: &ToPrimary<'_>) -> bool {
    matches!(message, ToPrimary::Session(..) | ToPrimary::Ledger | ToPrimary::Keep(..))
}

/// Reads such a message and checks the descriptor that came with it.
pub(super) fn open(message: &ToPrimary<'_>, fds: ReceivedFds) -> Result<Keeping, ChannelError> {
    let ReceivedFds { descriptors, lost } = fds;
    if descriptors.len() > 1 {
        return Err(ChannelError::Descriptors);
    }
    let descriptor = descriptors.into_iter().next();
    match message {
        ToPrimary::Forget(ids) => Ok(Keeping::Forget(ids.iter().collect())),
        ToPrimary::Ledger => match descriptor.map(Ledger::open) {
            None if lost => Ok(Keeping::Ledger(None)),
            Some(Some(ledger)) => Ok(Keeping::Ledger(Some(ledger))),
            None | Some(None) => Err(ChannelError::NoLedger),
        },
        ToPrimary::Keep(record, page) => {
            let fault = |what| ChannelError::Session(record.id, what);
            match descriptor {
                None if lost => Ok(Keeping::Unkeepable(record.id)),
                None => Err(fault("no socket")),
                Some(socket) if !is_tcp(&socket) => Err(fault("a socket that is not TCP")),
                Some(socket) => {
                    Ok(Keeping::Keep(Box::new(Keep { record: *record, socket, page: *page })))
                }
            }
        }
        _ => Err(ChannelError::NoSessions),
    }
}
