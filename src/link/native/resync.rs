//! A channel that another primary had before: what this primary doesn't know of it yet.
//!
//! After an upgrade everything is known. After a crash it isn't known what was sent. The worker is asked a
//! question: as it completes what it receives before it receives more, everything that was sent before the
//! question is completed once the worker has received that. Until then nothing else is sent, and nothing
//! counted. Replies meant for the previous primary are accepted, now and later.
//!
//! # Pitfalls
//!
//! A pong doesn't say which ping it answers, and the dead primary may have sent some. So the channel is
//! checked for unread bytes. A report carries its number.

use std::time::Duration;

use crate::handover::carry;
use crate::handover::link::PendingSnapshot;
use crate::link::connection::PendingConnection;
use crate::link::error::ChannelError;
use crate::link::event::{ResyncReport, SessionEvent};
use crate::link::native::outbox::Question;
use crate::protocol::ids::{ConnectionId, SlotId, Timestamp};
use crate::protocol::message::{AcceptedSessions, MAX_ACCEPTED, MAX_SESSIONS, OpenOffers};
use crate::protocol::scoreboard::{Counter, Scoreboard, SharedFlag};

/// How long a worker may take from receiving a connection to acknowledging it, where nothing shows that
/// it has.
const ACK_DELAY: Duration = Duration::from_millis(10);

/// What another primary has had to do with a channel.
#[derive(Debug, Default)]
pub(super) struct Resync {
    /// It has died, and its account with it.
    pub(super) is_lost: bool,
    /// Set as long as it isn't known what happened to everything that it had sent.
    pub(super) pending: Option<Pending>,
    /// The number of the report that the worker was asked for and has not completed.
    pub(super) asked: Option<u64>,
    /// The part of a report that has come.
    pub(super) report: ResyncReport,
    /// Nothing more is to be sent after the question.
    pub(super) finishes: bool,
    /// Sessions that it had sent, taken back.
    pub(super) found: Vec<PendingConnection>,
}

/// What is known until the worker has answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) slot: SlotId,
    /// When it was asked.
    pub(super) since: Timestamp,
    pub(super) has_reported: bool,
    /// Since when it is known that it has received everything.
    pub(super) received_since: Option<Timestamp>,
    /// Connections that it has acknowledged and that are counted, and sessions on their way to it.
    pub(super) counted: u64,
}

carry!(struct Pending => PendingSnapshot { slot, since, has_reported, received_since, counted });

impl Resync {
    /// After the crash of the primary that had the channel of a worker of `slot`.
    pub(super) fn after_crash(slot: SlotId, board: &Scoreboard) -> Self {
        let pending = board.has_flag(SharedFlag::Served).then(|| {
            let acknowledged = board.get(Counter::Acknowledged);
            let counted = acknowledged.saturating_add(board.get(Counter::SessionsSent));
            let (since, has_reported) = (Timestamp::now(), false);
            Pending { slot, since, has_reported, received_since: None, counted }
        });
        Self { is_lost: true, pending, ..Self::default() }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    pub(super) fn pending_since(&self) -> Option<Timestamp> {
        self.pending.map(|pending| pending.since)
    }

    /// Its worker's slot, while it is pending.
    pub(super) fn pending_slot(&self) -> Option<SlotId> {
        self.pending.map(|pending| pending.slot)
    }

    /// Whether the worker is to report, or is pending.
    #[cfg(feature = "cli")]
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some() || self.is_pending()
    }

    /// Whether the worker is to complete a report of that number.
    pub(super) fn is_asked_for(&self, number: u64) -> bool {
        self.asked == Some(number)
    }

    /// The question for a worker: a report from one that migrates sessions, else a ping.
    pub(super) fn question(&mut self, takes_sessions: bool) -> Question {
        if !takes_sessions {
            return Question::Ping;
        }
        let number = Timestamp::now().0;
        self.asked = Some(number);
        Question::Resync(number)
    }

    /// The question is asked again: time counts from now.
    pub(super) fn restart(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.since = Timestamp::now();
        }
    }

    /// Whether a worker that has received everything has completed it, too. Usually the last message is the
    /// question, and there is nothing to complete. A worker that was ordered to drain by the end of its
    /// channel can be asked nothing: it has a moment for that.
    pub(super) fn is_all_completed(&mut self, board: &Scoreboard) -> bool {
        let can_be_asked = board.get(Counter::Drain) == 0;
        let now = Timestamp::now();
        let Some(pending) = &mut self.pending else { return true };
        let since = *pending.received_since.get_or_insert(now);
        can_be_asked || now.since(since) >= ACK_DELAY
    }

    /// How many the worker has acknowledged that are not counted. Too few by the sessions that it has
    /// refused: they are subtracted as refused clients, and again as sessions. Which ones they were is not
    /// known, and refusals are rare.
    pub(super) fn uncounted(&self, board: &Scoreboard) -> u64 {
        let Some(pending) = self.pending else { return 0 };
        let completed = board.get(Counter::Completed);
        let acknowledged = completed.saturating_sub(board.get(Counter::Refused));
        acknowledged.saturating_sub(pending.counted)
    }

    pub(super) fn receive_offers(
        &mut self,
        offers: OpenOffers<'_>,
    ) -> Result<SessionEvent, ChannelError> {
        self.receive_part(offers.iter(), |report| &mut report.offers, MAX_SESSIONS)
    }

    pub(super) fn receive_taken(
        &mut self,
        sessions: AcceptedSessions<'_>,
    ) -> Result<SessionEvent, ChannelError> {
        self.receive_part(sessions.iter(), |report| &mut report.taken, MAX_ACCEPTED)
    }

    fn receive_part<T>(
        &mut self,
        more: impl Iterator<Item = T>,
        part: impl Fn(&mut ResyncReport) -> &mut Vec<T>,
        limit: usize,
    ) -> Result<SessionEvent, ChannelError> {
        if self.asked.is_none() && !self.is_lost {
            return Err(ChannelError::NoResync);
        }
        let part = part(&mut self.report);
        part.extend(more);
        if part.len() > limit {
            return Err(ChannelError::TooManySessions);
        }
        Ok(SessionEvent::Ignored)
    }

    /// The end of a report. One that another primary has asked for is dropped. What was `offered` to this
    /// primary it answers as always.
    pub(super) fn receive_end(
        &mut self,
        number: u64,
        offered: &[ConnectionId],
    ) -> Result<SessionEvent, ChannelError> {
        let mut report = std::mem::take(&mut self.report);
        if !self.is_asked_for(number) {
            return if self.is_lost {
                Ok(SessionEvent::Ignored)
            } else {
                Err(ChannelError::NoResync)
            };
        }
        self.asked = None;
        if let Some(pending) = &mut self.pending {
            pending.has_reported = true;
        }
        report.offers.retain(|(id, ..)| !offered.contains(id));
        Ok(SessionEvent::Resynced(report))
    }
}
