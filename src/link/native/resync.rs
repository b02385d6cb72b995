//! A channel that another primary had before: what this one doesn't know of it, and how it comes to
//! know.
//!
//! After an upgrade everything is known. After a crash it isn't known what was sent. The worker is
//! asked something: as it settles what it reads before it reads on, everything that was sent before
//! the question is settled once it has read that. Until then nothing else is sent, and nothing counted.
//! What is heard of that time, now or later, is no breach of the protocol: an answer to somebody who
//! is dead, a refusal of what he had sent.
//!
//! # Pitfalls
//!
//! A pong doesn't say which ping it answers, and the dead primary may have sent some. So it is looked
//! whether the worker has read everything. A report says its number.

use std::time::Duration;

use rustix::io::ioctl_fionread;

use crate::handover::carry;
use crate::handover::descriptors::{Descriptors, RestoreError, WorkerPart};
use crate::handover::link::{PendingSnapshot, ResyncSnapshot, SessionReportSnapshot};
use crate::link::native::outbox::Question;
use crate::link::native::{Channel, ChannelError, LinkEvent, PARTS};
use crate::protocol::ids::{ConnectionId, SlotId, Timestamp, WorkerId};
use crate::protocol::message::{Ids, MAX_SESSIONS, MOST_TAKEN};
use crate::protocol::scoreboard::{Counter, Said, Scoreboard};

/// How long a worker may take from receiving a connection to acknowledging it, where nothing shows that
/// it has.
const A_MOMENT: Duration = Duration::from_millis(10);

/// What another primary has had to do with a channel.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// It has died, and its account with it.
    pub(super) is_lost: bool,
    /// Set as long as it isn't known what became of what it had sent.
    awaited: Option<Awaited>,
    /// The number of the report that the worker was asked for and has not ended.
    asked: Option<u64>,
    /// What has come of a report so far.
    report: Report,
    /// Nothing more is to be sent after the question.
    pub(super) finishes: bool,
}

carry!(struct Past => ResyncSnapshot { is_lost, awaited, asked, report, finishes });

/// What is known until the worker has answered.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    slot: SlotId,
    /// When it was asked.
    since: Timestamp,
    has_reported: bool,
    /// Since when it is known that it has received everything.
    read_since: Option<Timestamp>,
    /// What the worker will have acknowledged that somebody has counted, and sessions.
    counted: u64,
}

carry!(struct Awaited => PendingSnapshot { slot, since, has_reported, read_since, counted });

/// What a worker has told of its sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// It has offered them and waits for an answer.
    pub offers: Vec<ConnectionId>,
    /// It took them.
    pub taken: Vec<ConnectionId>,
}

carry!(struct Report => SessionReportSnapshot { offers, taken });

impl Past {
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    pub(super) fn awaited_since(&self) -> Option<Timestamp> {
        self.awaited.map(|awaited| awaited.since)
    }

    /// Its worker's slot, while it is awaited.
    pub(super) fn awaited_slot(&self) -> Option<SlotId> {
        self.awaited.map(|awaited| awaited.slot)
    }

    /// Whether the worker is to report, or is awaited.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some() || self.is_awaited()
    }

    /// Whether the worker is to end a report of that number.
    pub(super) fn is_asked_for(&self, number: u64) -> bool {
        self.asked == Some(number)
    }
}

impl Channel {
    /// The channel of a worker whose primary has died, of the descriptors that somebody has kept. What
    /// its worker had said is noted on the scoreboard. At most `credits` connections will be
    /// unacknowledged at a time.
    ///
    /// # Errors
    ///
    /// If one of them is missing or is not what it should be.
    pub fn adopt(
        worker: WorkerId,
        descriptors: &mut Descriptors,
        credits: usize,
    ) -> Result<Self, RestoreError> {
        let mut channel = Self::of(worker, descriptors, credits)?;
        let board = &channel.scoreboard;
        channel.hello_received = board.has_said(Said::Hello);
        channel.takes_sessions = board.has_said(Said::Sessions);
        channel.ready = board.has_said(Said::Ready);
        channel.past.is_lost = true;
        if board.has_said(Said::Served) {
            let (acknowledged, sessions) =
                (board.get(Counter::Acknowledged), board.get(Counter::SessionsSent));
            let counted = acknowledged.saturating_add(sessions);
            let (slot, since, has_reported) = (worker.slot, Timestamp::now(), false);
            let awaited = Awaited { slot, since, has_reported, read_since: None, counted };
            channel.past.awaited = Some(awaited);
        }
        channel.ask();
        Ok(channel)
    }

    /// Of the descriptors of `worker`.
    pub(super) fn of(
        worker: WorkerId,
        descriptors: &mut Descriptors,
        credits: usize,
    ) -> Result<Self, RestoreError> {
        let [socket, worker_end, page_part] = PARTS;
        let mut take = |part: WorkerPart| descriptors.require(&part.name(worker));
        let (socket, worker_end, page) = (take(socket)?, take(worker_end)?, take(page_part)?);
        let unusable = |source| RestoreError::Unusable { name: page_part.name(worker), source };
        let scoreboard = Scoreboard::adopt(&page).map_err(unusable)?;
        Ok(Self::assemble(socket, worker_end, (scoreboard, page), credits))
    }

    /// Has the worker asked what another primary has to know: for a report if it moves sessions, else
    /// whether it lives.
    pub(super) fn ask(&mut self) {
        self.outbox.question = Some(if self.takes_sessions {
            let number = Timestamp::now().0;
            self.past.asked = Some(number);
            Question::Report(number)
        } else {
            Question::Ping
        });
    }

    /// The worker hasn't received the question, or it was the wrong one.
    pub(super) fn ask_again(&mut self) {
        if let Some(awaited) = &mut self.past.awaited {
            awaited.since = Timestamp::now();
        }
        self.ask();
    }

    /// Whether it isn't known yet what the primary before has sent.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.past.is_awaited()
    }

    /// Whether the worker wants to be replaced, and has said so to a primary that has died.
    #[must_use]
    pub fn wanted_to_leave(&self) -> bool {
        self.past.is_lost && self.scoreboard.has_said(Said::Leave)
    }

    /// Goes on from where the primary before has died, once that can be known. Returns how many
    /// connections the worker has acknowledged that nobody has counted.
    pub fn go_on(&mut self) -> Option<u64> {
        let awaited = self.past.awaited?;
        let is_answered = if self.takes_sessions {
            awaited.has_reported
        } else {
            self.outbox.question.is_none() && self.is_all_read() && self.is_all_settled()
        };
        if !is_answered {
            return None;
        }
        self.settled = self.scoreboard.get(Counter::Settled);
        self.refused = self.scoreboard.get(Counter::Refused);
        self.acknowledged = self.settled.saturating_sub(self.refused);
        self.sessions_changed = true;
        self.past.awaited = None;
        Some(self.uncounted(awaited))
    }

    /// What became of what the primary before had sent, of a worker that is dead.
    pub(super) fn uncounted_of_dead(&self) -> u64 {
        self.past.awaited.map_or(0, |awaited| self.uncounted(awaited))
    }

    /// Too few by the sessions that it has refused: as clients they are taken off with the refused, and
    /// again with the sessions. Who they were is not known, and refusals are rare.
    fn uncounted(&self, awaited: Awaited) -> u64 {
        let settled = self.scoreboard.get(Counter::Settled);
        let acknowledged = settled.saturating_sub(self.scoreboard.get(Counter::Refused));
        acknowledged.saturating_sub(awaited.counted)
    }

    /// Whether the worker has received everything that was ever sent to it.
    fn is_all_read(&self) -> bool {
        ioctl_fionread(&self.worker_end).is_ok_and(|unread| unread == 0)
    }

    /// Of what it has received the last message may not be settled yet. Usually that is the question,
    /// and there is nothing to settle. A worker that was ordered to drain by the end of its channel can be
    /// asked nothing: it has a moment for that.
    fn is_all_settled(&mut self) -> bool {
        let can_be_asked = self.scoreboard.get(Counter::Drain) == 0;
        let now = Timestamp::now();
        let Some(awaited) = &mut self.past.awaited else { return true };
        let since = *awaited.read_since.get_or_insert(now);
        can_be_asked || now.since(since) >= A_MOMENT
    }

    /// Notes what is counted, for whoever has to go on from here. No system call.
    pub fn note_seen(&mut self) {
        if self.is_awaited() {
            return;
        }
        self.scoreboard.set(Counter::Acknowledged, self.acknowledged);
        if std::mem::take(&mut self.sessions_changed) {
            self.count_sessions();
        }
    }

    pub(super) fn count_sessions(&self) {
        self.scoreboard.set(Counter::SessionsSent, self.sessions_in_flight() as u64);
    }

    pub(super) fn hear_of_offers(&mut self, ids: Ids<'_>) -> Result<LinkEvent, ChannelError> {
        self.hear_report(ids, |report| &mut report.offers, MAX_SESSIONS)
    }

    pub(super) fn hear_of_taken(&mut self, ids: Ids<'_>) -> Result<LinkEvent, ChannelError> {
        self.hear_report(ids, |report| &mut report.taken, MOST_TAKEN)
    }

    fn hear_report(
        &mut self,
        ids: Ids<'_>,
        part: impl Fn(&mut Report) -> &mut Vec<ConnectionId>,
        most: usize,
    ) -> Result<LinkEvent, ChannelError> {
        if self.past.asked.is_none() && !self.past.is_lost {
            return Err(ChannelError::NoReport);
        }
        let part = part(&mut self.past.report);
        part.extend(ids.iter());
        if part.len() > most { Err(ChannelError::TooManySessions) } else { Ok(LinkEvent::Noted) }
    }

    /// The end of a report. One that somebody else has asked for is of the past.
    pub(super) fn hear_of_end(&mut self, number: u64) -> Result<LinkEvent, ChannelError> {
        let mut report = std::mem::take(&mut self.past.report);
        if !self.past.is_asked_for(number) {
            return if self.past.is_lost {
                Ok(LinkEvent::Noted)
            } else {
                Err(ChannelError::NoReport)
            };
        }
        self.past.asked = None;
        if let Some(awaited) = &mut self.past.awaited {
            awaited.has_reported = true;
        }
        // What was offered to this primary it answers as always.
        report.offers.retain(|id| !self.offered.contains(id));
        Ok(LinkEvent::Reported(report))
    }
}
