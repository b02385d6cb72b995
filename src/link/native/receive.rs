//! What a worker says on its channel, one message at a time.
//!
//! Decides only whether it may say that; what comes of it is the caller's.

use crate::link::event::{LinkEvent, SessionEvent};
use crate::link::native::transfer::Luggage;
use crate::link::native::{Channel, ChannelError, PendingConnection};
use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{Ids, MAX_TO_PRIMARY, ToPrimary, decode_to_primary};
use crate::protocol::scm_rights::{self, Received};
use crate::protocol::scoreboard::Said;

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
                LinkEvent::Attached
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
                LinkEvent::ReplaceMe
            }
            ToPrimary::Ledger | ToPrimary::Keep(..) | ToPrimary::Forget(_) => {
                let said = self.take_of_ledger(message, luggage)?;
                SessionEvent::Protection(said).into()
            }
            _ => self.take_of_session(message, luggage)?.into(),
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
