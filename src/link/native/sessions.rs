//! The sessions of one worker, as far as its channel knows of them: offers that wait for an answer, and
//! messages that wait for room.

use crate::link::error::ChannelError;
use crate::link::event::SessionEvent;
use crate::link::native::outbox::{Outbox, Outgoing};
use crate::link::native::transfer;
use crate::link::native::transport::ReceivedFds;
use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{ConnectionRecord, Keys, MAX_SESSIONS, ToWorker};
use crate::protocol::tcp_progress::TcpProgress;

/// The session half of a channel.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Offered by the worker and not answered.
    pub(super) offered: Vec<ConnectionId>,
    pub(super) outbox: Outbox,
    /// Session lists that were requested and are not complete.
    pub(super) lists: u64,
}

impl Sessions {
    pub(super) fn request_list(&mut self) {
        self.outbox.session_lists += 1;
        self.lists += 1;
    }

    /// A part of a list, or its end. Parts of an older list are dropped.
    pub(super) fn receive_list(&mut self, keys: Keys<'_>) -> Result<SessionEvent, ChannelError> {
        let is_newest = self.lists == 1;
        if keys.is_empty() {
            self.lists = self.lists.checked_sub(1).ok_or(ChannelError::NoListRequest)?;
        } else if self.lists == 0 {
            return Err(ChannelError::NoListRequest);
        }
        let keys = if is_newest { keys.iter().collect() } else { Vec::new() };
        Ok(SessionEvent::Listed { keys, complete: is_newest && self.lists == 0 })
    }

    pub(super) fn receive_offer(
        &mut self,
        record: ConnectionRecord,
        usage: Option<TcpProgress>,
        inline: &[u8],
        fds: ReceivedFds,
    ) -> Result<SessionEvent, ChannelError> {
        let id = record.id;
        if self.offered.contains(&id) {
            return Err(ChannelError::Session(id, "what was offered and is not answered"));
        }
        if self.offered.len() >= MAX_SESSIONS {
            return Err(ChannelError::TooManySessions);
        }
        let offer = transfer::open(record, usage, inline, fds)?;
        self.offered.push(id);
        Ok(match offer {
            Some(offer) => SessionEvent::Offered(Box::new(offer)),
            None => {
                self.outbox.returned.push(id);
                SessionEvent::NotMigratable(id)
            }
        })
    }

    /// This message was sent: offers that it answers are answered.
    pub(super) fn sent(&mut self, outgoing: Outgoing) {
        for id in self.outbox.sent(outgoing) {
            if let Some(position) = self.offered.iter().position(|offered| *offered == id) {
                self.offered.swap_remove(position);
            }
        }
    }

    /// The worker has not received this message and never will: it is sent again.
    pub(super) fn requeue(&mut self, message: &ToWorker<'_>) {
        self.offered.extend(self.outbox.requeue(message));
    }
}
