//! What a worker says on its channel, one message at a time.
//!
//! Decides only whether it may say that; what comes of it is the caller's.

use std::time::Duration;

use crate::link::native::resync::Report;
use crate::link::native::transfer::{Luggage, Offer};
use crate::link::native::{Channel, ChannelError, Keeping, PendingConnection};
use crate::protocol::ids::{AffinityKey, ConnectionId};
use crate::protocol::message::{Ids, MAX_TO_PRIMARY, ToPrimary, decode_to_primary};
use crate::protocol::scm_rights::{self, Received};
use crate::protocol::scoreboard::Said;

/// What a worker said.
#[derive(Debug)]
pub enum LinkEvent {
    /// Nothing more for now.
    Nothing,
    /// It has attached.
    Hello,
    /// It takes connections.
    Ready,
    /// It did not take these; they are the primary's again.
    Refused(Vec<PendingConnection>),
    /// Its loop is alive.
    Pong,
    /// It wants to be drained and replaced.
    Leave,
    /// It moves sessions and takes them.
    Sessions,
    /// It offers a session; it waits to hear what became of it.
    Offered(Box<Offer>),
    /// It has offered a session that cannot move, and is told so.
    Unmovable(ConnectionId),
    /// These sessions of it could move; with `all`, no more come.
    Counted {
        /// Ids and affinity keys.
        keys: Vec<(ConnectionId, AffinityKey)>,
        /// That was all.
        all: bool,
    },
    /// It wants to send so many clients away within that time.
    Ask(u32, Duration),
    /// Something of sessions that are to survive it.
    Keeping(Keeping),
    /// It has told what it was asked to report.
    Reported(Report),
    /// Something that leads to nothing: a part of more, or of no consequence any more.
    Noted,
}

impl Channel {
    /// Reads one message of the worker's.
    ///
    /// # Errors
    ///
    /// If the worker breaks the protocol or closed the channel. Its connections are kept for
    /// [`Channel::recover`].
    pub fn receive(&mut self) -> Result<LinkEvent, ChannelError> {
        let mut bytes = [0; MAX_TO_PRIMARY];
        let mut luggage = Luggage::default();
        let length = match scm_rights::receive(&self.socket, &mut bytes, &mut luggage.descriptors)?
        {
            Received::Empty => return Ok(LinkEvent::Nothing),
            Received::Closed => return Err(ChannelError::Closed),
            Received::Message { cut: true, .. } => return Err(ChannelError::Long),
            Received::Message { length, descriptors_lost, .. } => {
                luggage.lost = descriptors_lost;
                length
            }
        };
        let message = decode_to_primary(&bytes[..length])?;
        let carries_none = luggage.descriptors.is_empty() && !luggage.lost;
        if !carries_none && !message.may_carry() {
            return Err(ChannelError::Descriptors);
        }
        if self.hello_received == matches!(message, ToPrimary::Hello) && !self.past.is_lost {
            return Err(ChannelError::NoHello);
        }
        self.hello_received = true;
        self.take(message, luggage)
    }

    fn take(
        &mut self,
        message: ToPrimary<'_>,
        luggage: Luggage,
    ) -> Result<LinkEvent, ChannelError> {
        Ok(match message {
            ToPrimary::Hello => {
                self.scoreboard.note_said(Said::Hello);
                LinkEvent::Hello
            }
            ToPrimary::Ready => {
                self.scoreboard.note_said(Said::Ready);
                self.ready = true;
                LinkEvent::Ready
            }
            ToPrimary::Refuse(ids) => LinkEvent::Refused(self.refuse(ids)?),
            ToPrimary::Pong => {
                let pings = self.pings.checked_sub(1);
                self.pings =
                    pings.or_else(|| self.past.is_lost.then_some(0)).ok_or(ChannelError::NoPing)?;
                LinkEvent::Pong
            }
            ToPrimary::Leave => {
                self.scoreboard.note_said(Said::Leave);
                LinkEvent::Leave
            }
            ToPrimary::Ledger | ToPrimary::Keep(..) | ToPrimary::Forget(_) => {
                return self.take_of_ledger(message, luggage).map(LinkEvent::Keeping);
            }
            _ => return self.take_of_session(message, luggage),
        })
    }

    /// Their places stay until the worker has counted them as settled. Of one that a primary has sent
    /// which is dead nothing is left to give to somebody else.
    fn refuse(&mut self, ids: Ids<'_>) -> Result<Vec<PendingConnection>, ChannelError> {
        if let Some(unknown) = ids.iter().find(|id| !self.in_flight.contains(*id))
            && !self.past.is_lost
        {
            return Err(ChannelError::UnknownConnection(unknown));
        }
        // An id that stands there twice is released once.
        Ok(ids.iter().filter_map(|id| self.in_flight.refuse(id)).collect())
    }
}
