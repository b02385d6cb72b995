//! Messages about protected sessions.
//!
//! Never looks into a checkpoint: its content counts when its worker is dead.

use crate::closing::Deferred;
use crate::link::error::ChannelError;
use crate::link::native::transfer::is_tcp;
use crate::link::native::transport::ReceivedFds;
use crate::link::protection::{ProtectedSession, ProtectionEvent};
use crate::protocol::checkpoint::Checkpoint;
use crate::protocol::message::{PlacedSessions, ToPrimary};

/// Whether descriptors may come with a message.
pub(super) fn may_carry_descriptors(message: &ToPrimary<'_>) -> bool {
    matches!(message, ToPrimary::Session(..) | ToPrimary::Checkpoint | ToPrimary::Protect(..))
}

/// Reads such a message and checks the descriptors that came with it.
pub(super) fn open(
    message: &ToPrimary<'_>,
    fds: ReceivedFds,
) -> Result<ProtectionEvent, ChannelError> {
    let most = if let ToPrimary::Protect(sessions) = message { sessions.len() } else { 1 };
    if fds.descriptors.len() > most {
        return Err(ChannelError::Descriptors);
    }
    match message {
        ToPrimary::Unprotect(ids) => Ok(ProtectionEvent::Unprotect(ids.iter().collect())),
        ToPrimary::Checkpoint => match fds.descriptors.into_iter().next().map(open_checkpoint) {
            None if fds.lost => Ok(ProtectionEvent::Checkpoint(None)),
            Some(Some(checkpoint)) => Ok(ProtectionEvent::Checkpoint(Some(checkpoint))),
            None | Some(None) => Err(ChannelError::NoCheckpoint),
        },
        ToPrimary::Protect(sessions) => open_sessions(*sessions, fds),
        _ => Err(ChannelError::NoSessions),
    }
}

/// The descriptors that have arrived are those of the first sessions.
fn open_sessions(
    sessions: PlacedSessions<'_>,
    fds: ReceivedFds,
) -> Result<ProtectionEvent, ChannelError> {
    let ReceivedFds { descriptors, lost } = fds;
    let mut sockets = descriptors.into_iter();
    let (mut with_socket, mut without_socket) = (Vec::with_capacity(sessions.len()), Vec::new());
    for (record, place) in sessions.iter() {
        let fault = |what| ChannelError::Session(record.id, what);
        match sockets.next() {
            None if lost => without_socket.push(record.id),
            None => return Err(fault("no socket")),
            Some(socket) if !is_tcp(&socket) => return Err(fault("a socket that is not TCP")),
            Some(socket) => {
                with_socket.push(ProtectedSession { record, socket: socket.into(), place });
            }
        }
    }
    Ok(ProtectionEvent::Protect { sessions: with_socket, without_socket })
}

/// Whatever it is, closing it may take its time.
fn open_checkpoint(descriptor: Deferred) -> Option<Deferred<Checkpoint>> {
    if !Checkpoint::is_one(&descriptor) {
        return None;
    }
    Checkpoint::open(descriptor.into_inner()).map(Deferred::from)
}
