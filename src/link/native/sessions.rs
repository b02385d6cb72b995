//! Sessions on the channel: what its worker offers, takes and is told.

use std::os::fd::AsFd;

use crate::link::event::SessionEvent;
use crate::link::native::outbox::{Note, Question};
use crate::link::native::transfer::{self, Content, Luggage};
use crate::link::native::{Channel, ChannelError, PendingConnection};
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{
    ConnectionRecord, Keys, MAX_IDS, MAX_SESSIONS, ToPrimary, ToWorker, encode_session,
};
use crate::protocol::scm_rights::{self, Sent};
use crate::protocol::scoreboard::{Counter, Said};

impl Channel {
    /// Whether the worker moves sessions and takes them.
    #[must_use]
    pub fn takes_sessions(&self) -> bool {
        self.takes_sessions
    }

    /// Whether the worker has been sent this one and not settled it.
    #[must_use]
    pub fn is_on_its_way(&self, id: ConnectionId) -> bool {
        self.in_flight.contains(id)
    }

    /// Orders the worker, which takes sessions, to drain. Of two orders the last one counts.
    pub fn order_drain(&mut self, order: DrainOrder) {
        self.scoreboard.increment(Counter::Drain);
        self.outbox.drain = Some(order);
    }

    /// A session of the worker's is another's now.
    pub fn tell_moved(&mut self, id: ConnectionId) {
        self.outbox.moved.push(id);
    }

    /// Nobody has taken a session of the worker's.
    pub fn tell_returned(&mut self, id: ConnectionId) {
        self.outbox.returned.push(id);
    }

    /// Orders the worker to offer a session.
    pub fn order_move(&mut self, id: ConnectionId) {
        self.outbox.moves.push(id);
    }

    /// Asks which sessions could move.
    pub fn take_census(&mut self) {
        self.outbox.censuses += 1;
        self.censuses += 1;
    }

    /// Allows the worker to send so many clients away.
    pub fn allow_closes(&mut self, count: u32) {
        self.outbox.closes = self.outbox.closes.saturating_add(count);
    }

    /// Whether the worker is still to be told something for which there was no room.
    #[must_use]
    pub fn has_notes(&self) -> bool {
        self.next_note().is_some()
    }

    /// One whose past isn't known yet is told nothing, but asked.
    fn next_note(&self) -> Option<Note> {
        let may_be_told = |note: &Note| matches!(note, Note::Question(_)) || !self.is_awaited();
        self.outbox.next().filter(may_be_told)
    }

    /// Tells the worker what it is to be told, as far as there is room.
    ///
    /// # Errors
    ///
    /// If the worker has closed the channel or the kernel failed.
    pub fn send_notes(&mut self) -> Result<(), ChannelError> {
        let mut buffer = [0; MAX_IDS];
        while let Some(note) = self.next_note() {
            let message = self.outbox.encode(note, &mut buffer);
            match scm_rights::send(&self.socket, message, &[])? {
                Sent::Queued => self.told(note),
                Sent::Full => return Ok(()),
                // The primary before has ended it: that was its order to drain.
                Sent::Closed if self.is_finished(note) => self.outbox.question = None,
                Sent::Closed => return Err(ChannelError::Closed),
            }
        }
        Ok(())
    }

    fn is_finished(&self, note: Note) -> bool {
        note == Note::Question(Question::Ping) && self.scoreboard.get(Counter::Drain) > 0
    }

    fn told(&mut self, note: Note) {
        if let Note::Question(question) = note {
            self.pings += u64::from(question == Question::Ping);
            if self.past.finishes {
                self.end_sending();
            }
        }
        for id in self.outbox.sent(note) {
            if let Some(position) = self.offered.iter().position(|offered| *offered == id) {
                self.offered.swap_remove(position);
            }
        }
    }

    pub(super) fn untell(&mut self, message: &ToWorker<'_>) {
        match message {
            ToWorker::Ping => {
                self.pings = self.pings.saturating_sub(1);
                if self.is_awaited() && !self.takes_sessions {
                    self.ask_again();
                }
            }
            ToWorker::Report(number) if self.past.is_asked_for(*number) => self.ask_again(),
            _ => self.offered.extend(self.outbox.take_back(message)),
        }
    }

    pub(super) fn send_session(
        &mut self,
        session: &PendingConnection,
        content: &Content,
    ) -> Result<bool, ChannelError> {
        let socket = session.socket.as_fd();
        let sent = match content {
            Content::Inline(bytes) => {
                let message = encode_session(&mut self.buffer, &session.record, bytes);
                scm_rights::send(&self.socket, message, &[socket])?
            }
            Content::Memory(memory) => {
                let message = encode_session(&mut self.buffer, &session.record, &[]);
                scm_rights::send(&self.socket, message, &[socket, memory.as_fd()])?
            }
            // Without memory or a descriptor for it now, it is tried again.
            Content::Ledger(ledger, entry) => match Content::of_ledger(ledger, entry) {
                Ok(content) => return self.send_session(session, &content),
                Err(_) => return Ok(false),
            },
        };
        match sent {
            Sent::Queued => Ok(true),
            Sent::Full => Ok(false),
            Sent::Closed => Err(ChannelError::Closed),
        }
    }

    /// What only a worker may say that takes sessions.
    pub(super) fn take_of_session(
        &mut self,
        message: ToPrimary<'_>,
        luggage: Luggage,
    ) -> Result<SessionEvent, ChannelError> {
        if let ToPrimary::Sessions = message {
            if (self.ready || self.takes_sessions) && !self.past.is_lost {
                return Err(ChannelError::NoSessions);
            }
            self.take_them();
            return Ok(SessionEvent::Enabled);
        }
        if !self.takes_sessions {
            if !self.past.is_lost {
                return Err(ChannelError::NoSessions);
            }
            // It has said so to somebody who died before he could note it.
            self.take_them();
            self.ask_again();
        }
        match message {
            ToPrimary::Session(record, inline) => self.take_offer(record, inline, luggage),
            ToPrimary::Ask(count, within) => Ok(SessionEvent::CloseRequest(count, within)),
            ToPrimary::Counted(keys) => self.take_counted(keys),
            ToPrimary::Offers(ids) => self.hear_of_offers(ids),
            ToPrimary::Taken(ids) => self.hear_of_taken(ids),
            ToPrimary::Reported(number) => self.hear_of_end(number),
            _ => Err(ChannelError::NoSessions),
        }
    }

    fn take_them(&mut self) {
        self.scoreboard.note_said(Said::Sessions);
        self.takes_sessions = true;
    }

    /// A primary that has died may have asked, too.
    fn take_counted(&mut self, keys: Keys<'_>) -> Result<SessionEvent, ChannelError> {
        if self.is_awaited() {
            return Ok(SessionEvent::Ignored);
        }
        let newest = self.censuses == 1;
        if keys.is_empty() {
            self.censuses = self.censuses.checked_sub(1).ok_or(ChannelError::NoCensus)?;
        } else if self.censuses == 0 {
            return Err(ChannelError::NoCensus);
        }
        // What answers an older question comes too late.
        let keys = if newest { keys.iter().collect() } else { Vec::new() };
        Ok(SessionEvent::Listed { keys, complete: newest && self.censuses == 0 })
    }

    fn take_offer(
        &mut self,
        record: ConnectionRecord,
        inline: &[u8],
        luggage: Luggage,
    ) -> Result<SessionEvent, ChannelError> {
        let id = record.id;
        if self.offered.contains(&id) {
            return Err(ChannelError::Session(id, "what was offered and is not answered"));
        }
        if self.offered.len() >= MAX_SESSIONS {
            return Err(ChannelError::TooManySessions);
        }
        let offer = transfer::open(record, inline, luggage)?;
        self.offered.push(id);
        match offer {
            Some(offer) => Ok(SessionEvent::Offered(Box::new(offer))),
            None => {
                self.tell_returned(id);
                Ok(SessionEvent::NotMigratable(id))
            }
        }
    }
}
