//! Messages about protected sessions.
//!
//! Never looks into a checkpoint: its content counts when its worker is dead.

use crate::closing::Deferred;
use crate::link::error::ChannelError;
use crate::link::native::transfer::is_tcp;
use crate::link::native::transport::ReceivedFds;
use crate::link::protection::{ProtectedSession, ProtectionEvent};
use crate::protocol::checkpoint::Checkpoint;
use crate::protocol::message::ToPrimary;

/// Whether descriptors may come with a message.
pub(super) fn may_carry_descriptors(message: &ToPrimary<'_>) -> bool {
    matches!(message, ToPrimary::Session(..) | ToPrimary::Checkpoint | ToPrimary::Protect(..))
}

/// Reads such a message and checks the descriptor that came with it.
pub(super) fn open(
    message: &ToPrimary<'_>,
    fds: ReceivedFds,
) -> Result<ProtectionEvent, ChannelError> {
    let ReceivedFds { descriptors, lost } = fds;
    if descriptors.len() > 1 {
        return Err(ChannelError::Descriptors);
    }
    let descriptor = descriptors.into_iter().next();
    match message {
        ToPrimary::Unprotect(ids) => Ok(ProtectionEvent::Unprotect(ids.iter().collect())),
        ToPrimary::Checkpoint => match descriptor.map(open_checkpoint) {
            None if lost => Ok(ProtectionEvent::Checkpoint(None)),
            Some(Some(checkpoint)) => Ok(ProtectionEvent::Checkpoint(Some(checkpoint))),
            None | Some(None) => Err(ChannelError::NoCheckpoint),
        },
        ToPrimary::Protect(record, place) => {
            let fault = |what| ChannelError::Session(record.id, what);
            match descriptor {
                None if lost => Ok(ProtectionEvent::NotProtectable(record.id)),
                None => Err(fault("no socket")),
                Some(socket) if !is_tcp(&socket) => Err(fault("a socket that is not TCP")),
                Some(socket) => Ok(ProtectionEvent::Protect(Box::new(ProtectedSession {
                    record: *record,
                    socket: socket.into(),
                    place: *place,
                }))),
            }
        }
        _ => Err(ChannelError::NoSessions),
    }
}

/// Whatever it is, closing it may take its time.
fn open_checkpoint(descriptor: Deferred) -> Option<Deferred<Checkpoint>> {
    if !Checkpoint::is_one(&descriptor) {
        return None;
    }
    Checkpoint::open(descriptor.into_inner()).map(Deferred::from)
}
