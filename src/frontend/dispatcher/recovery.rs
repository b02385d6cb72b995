//! What the primary before has left open when it died: what it had sent, what its workers had offered.
//!
//! Each adopted worker is asked, and answers. When all have, or are gone, each open offer has its
//! verdict, and whoever was accepted and is with nobody is counted as lost. Until then no session
//! goes anywhere: whose it is may not be known.

use crate::frontend::dispatcher::Dispatcher;
use crate::frontend::dispatcher::lines::TakenBack;
use crate::frontend::reports::{Reports, Verdict};
use crate::link::native::{PendingConnection, Report};
use crate::link::seam::{Counters, WorkerId};

/// What is still open.
#[derive(Debug, Default)]
pub(in crate::frontend) struct Recovery {
    pub(in crate::frontend) reports: Reports,
    /// Sessions that are the primary's meanwhile. Bounded by the descriptors that may be held.
    pub(in crate::frontend) held: Vec<PendingConnection>,
}

impl Dispatcher {
    /// A worker was attached that another primary has had.
    pub(super) fn await_answer(&mut self, worker: WorkerId) {
        self.recovery.get_or_insert_default().reports.await_from(worker);
        self.watch_time();
    }

    /// A worker has reported. From one whose account was carried over nothing new is to be learnt.
    pub(super) fn reported(&mut self, worker: WorkerId, report: Report) {
        if let Some(recovery) = &mut self.recovery
            && recovery.reports.awaited().contains(&worker)
        {
            recovery.reports.heard(worker, report);
        }
    }

    /// A worker that is awaited has said something.
    pub(super) fn go_on_with(&mut self, worker: WorkerId) {
        let Some(uncounted) = self.slots.go_on(worker) else { return };
        self.count_acknowledged(uncounted);
        self.touched.push(worker.slot);
        if let Some(recovery) = &mut self.recovery {
            recovery.reports.complete(worker);
        }
    }

    /// A worker is gone, or not heard any more.
    pub(super) fn expect_nothing_of(&mut self, worker: WorkerId) {
        if let Some(recovery) = &mut self.recovery {
            recovery.reports.forget(worker);
        }
    }

    /// Looks whether somebody has answered who is awaited, and what was found that was on its way to
    /// somebody who stalls.
    pub(super) fn look_after_awaited(&mut self) {
        let Some(recovery) = &self.recovery else { return };
        for worker in recovery.reports.awaited().to_vec() {
            let channel = self.slots.heard(worker);
            let found = channel.map(|channel| channel.take_found()).unwrap_or_default();
            self.take_found(found);
            self.go_on_with(worker);
        }
        self.watch_time();
    }

    /// What a worker hasn't received of what another primary had sent, and that is not heard any more:
    /// later it could not be told whose sessions are among that.
    pub(super) fn free_awaited(&mut self, worker: WorkerId) {
        let Some(channel) = self.slots.heard(worker).filter(|it| it.is_awaited()) else { return };
        let (freed, found) = (channel.take_back(), channel.take_found());
        self.take_found(found);
        self.place_again(worker.slot, TakenBack::Stalled, freed);
    }

    /// Sessions that another primary had sent and that nobody has received. As long as nothing is
    /// decided they wait; later they are nobody's to give, since their senders may have them again.
    pub(super) fn take_found(&mut self, sessions: Vec<PendingConnection>) {
        self.sessions.under_way += sessions.len() as u64;
        match &mut self.recovery {
            Some(recovery) => recovery.held.extend(sessions),
            None => sessions.into_iter().for_each(|session| self.lose_session(session)),
        }
    }

    /// Settles what is open, when everybody has spoken. That the supervisor has accept also says
    /// that all workers are attached that are left.
    pub(super) fn finish_recovery(&mut self) {
        let is_over = |recovery: &mut Recovery| recovery.reports.awaited().is_empty();
        if !self.accepting {
            return;
        }
        let Some(Recovery { reports, held }) = self.recovery.take_if(is_over) else { return };
        for (worker, id, verdict) in reports.verdicts() {
            let Some(channel) = self.slots.heard(worker) else { continue };
            match verdict {
                Verdict::Moved => {
                    channel.tell_moved(id);
                    self.counters.moved += 1;
                    self.touched.push(worker.slot);
                }
                Verdict::Returned => {
                    channel.tell_returned(id);
                    self.note_returned(worker, id);
                }
            }
        }
        for session in held {
            let has_sender = session.parcel.as_ref().is_some_and(|parcel| parcel.sender.is_some());
            if !has_sender && reports.is_offered(session.record.id) {
                // Its sender has a copy of all of it, and has just got it back.
                self.sessions.under_way -= 1;
            } else {
                self.place_session(session);
            }
        }
        self.count_lost();
    }

    /// No more than can be: a worker may write what it likes.
    fn count_acknowledged(&mut self, uncounted: u64) {
        self.counters.acknowledged += uncounted.min(self.unaccounted());
    }

    pub(super) fn note_uncounted(&mut self, uncounted: u64) {
        if self.recovery.is_some() {
            self.count_acknowledged(uncounted);
        }
    }

    /// Clients that were accepted and are with nobody.
    fn unaccounted(&self) -> u64 {
        let Counters { accepted, acknowledged, lost, .. } = self.counters;
        let held = self.slots.clients() + self.unroutable.len() as u64;
        accepted.saturating_sub(acknowledged + lost + held)
    }

    fn count_lost(&mut self) {
        let connections = self.unaccounted();
        self.counters.lost += connections;
        if connections > 0 {
            tracing::warn!(
                connections,
                "primary before died with connections that it had accepted and not handed over",
            );
        }
    }
}
