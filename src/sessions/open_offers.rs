//! Outcomes of sessions that were offered to a primary which has died before it answered.
//!
//! Pure: workers' reports go in; an outcome for each open offer comes out when every worker has reported, is
//! gone, or has let its time pass. A session has migrated if another worker has taken it: that one has
//! it, or has passed it on. It has taken it only if it names the tag of its record, as the offer does: ids can be
//! guessed. If no other worker has taken it, it is still its sender's, and the sender has to prove
//! that it is unused: a worker that took it may be dead, and have used it before.
//!
//! A worker that is silent when the time is over, as one that is stopped, may have taken a session, but only if
//! one was sent to it since the session was offered. Then the session is left to it: no session ever has
//! two owners. It is asked no more, and its own offers are decided when it reports after all.
//!
//! # Pitfalls
//!
//! A session may come back to where it was, so that two workers have taken it. A worker that knows that a
//! session has migrated on doesn't name it any more; one that offers it and has no answer yet still does,
//! and counts for the others, not for itself. Two workers that both took it and both offer it can't be
//! told apart: then neither keeps it.

use std::collections::HashMap;

use crate::handover::carry;
use crate::handover::frontend::OpenOffersSnapshot;
use crate::link::event::ResyncReport;
use crate::link::seam::WorkerId;
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::ConnectionRecord;

/// The outcome of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferOutcome {
    /// Another worker has it, or had.
    Migrated,
    /// No other worker has taken it.
    Returned,
}

/// Workers that have not answered, and the reports of the others.
#[derive(Clone, Debug, Default)]
pub struct OpenOffers {
    pending: Vec<WorkerId>,
    /// Of those that have not answered, the ones whose time is over.
    silent: Vec<WorkerId>,
    /// Without the offers that are decided.
    reports: Vec<(WorkerId, ResyncReport)>,
}

carry!(struct OpenOffers => OpenOffersSnapshot { pending, silent, reports });

impl OpenOffers {
    /// Nothing is decided before this worker has reported or is gone.
    pub fn expect(&mut self, worker: WorkerId) {
        self.pending.push(worker);
    }

    /// Takes a worker's report.
    pub fn report(&mut self, worker: WorkerId, report: ResyncReport) {
        self.reports.retain(|(other, _)| *other != worker);
        self.reports.push((worker, report));
    }

    /// A worker has answered in full.
    pub fn complete(&mut self, worker: WorkerId) {
        self.pending.retain(|other| *other != worker);
        self.silent.retain(|other| *other != worker);
    }

    /// The time is over for those that have not answered.
    pub fn expire(&mut self) {
        self.silent.append(&mut self.pending);
    }

    /// A worker is dead or quarantined: its offers need no answer, and the sessions that it took are
    /// nowhere.
    pub fn forget(&mut self, worker: WorkerId) {
        self.complete(worker);
        self.reports.retain(|(other, _)| *other != worker);
    }

    /// Workers that have not answered and still have time.
    #[must_use]
    pub fn pending(&self) -> &[WorkerId] {
        &self.pending
    }

    /// Workers that have not answered in time.
    #[must_use]
    pub fn silent(&self) -> &[WorkerId] {
        &self.silent
    }

    /// Whether this worker has not answered.
    #[must_use]
    pub fn expects(&self, worker: WorkerId) -> bool {
        self.pending.contains(&worker) || self.silent.contains(&worker)
    }

    /// Whether a worker offers the session of that record, and nothing is decided.
    #[must_use]
    pub fn is_offered(&self, record: &ConnectionRecord) -> bool {
        let is_it = |(id, _, tag): &(_, _, _)| (*id, *tag) == (record.id, record.tag);
        self.reports.iter().any(|(_, report)| report.offers.iter().any(is_it))
    }

    /// The outcomes are answered: of these offers, none is decided again.
    pub fn answered(&mut self) {
        self.reports.iter_mut().for_each(|(_, report)| report.offers.clear());
    }

    /// An outcome for each offer that has none yet; none at all as long as a worker is pending. `may_have`
    /// says whether a silent worker may have the session that this worker offered at that time.
    #[must_use]
    pub fn outcomes(
        &self,
        may_have: impl Fn(WorkerId, ConnectionId, Timestamp) -> bool,
    ) -> Vec<(WorkerId, ConnectionId, OfferOutcome)> {
        if !self.pending.is_empty() {
            return Vec::new();
        }
        let mut takers = HashMap::<(ConnectionId, u64), Vec<WorkerId>>::new();
        for (worker, report) in &self.reports {
            report.taken.iter().for_each(|taken| takers.entry(*taken).or_default().push(*worker));
        }
        let offers = self
            .reports
            .iter()
            .flat_map(|(worker, report)| report.offers.iter().map(move |offer| (*worker, *offer)));
        let outcome = |(worker, (id, at, tag))| {
            let others =
                takers.get(&(id, tag)).is_some_and(|it| it.iter().any(|taker| *taker != worker));
            let may_be_elsewhere = others || may_have(worker, id, at);
            let outcome =
                if may_be_elsewhere { OfferOutcome::Migrated } else { OfferOutcome::Returned };
            (worker, id, outcome)
        };
        offers.map(outcome).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::ids::{AffinityKey, Generation, SlotId};

    fn worker(slot: u16) -> WorkerId {
        WorkerId { slot: SlotId(slot), generation: Generation(0) }
    }

    /// No silent worker.
    fn nobody(_: WorkerId, _: ConnectionId, _: Timestamp) -> bool {
        false
    }

    fn tag(id: u64) -> u64 {
        id ^ 0xabcd
    }

    fn report(offers: &[u64], taken: &[u64]) -> ResyncReport {
        let offers = offers.iter().map(|id| (ConnectionId(*id), Timestamp(*id), tag(*id)));
        let taken = taken.iter().map(|id| (ConnectionId(*id), tag(*id)));
        ResyncReport { offers: offers.collect(), taken: taken.collect() }
    }

    fn record(id: u64, tag: u64) -> ConnectionRecord {
        let any = "192.0.2.1:5000".parse().unwrap();
        let (accepted_at, key) = (Timestamp(0), AffinityKey(0));
        ConnectionRecord { id: ConnectionId(id), accepted_at, key, client: any, local: any, tag }
    }

    /// The outcomes when workers from 0 on have reported this.
    fn decided(all: &[(&[u64], &[u64])]) -> Vec<(u16, u64, OfferOutcome)> {
        let mut open_offers = OpenOffers::default();
        let workers = || (0..).map(worker).zip(all);
        workers().for_each(|(worker, _)| open_offers.expect(worker));
        for (worker, (offers, taken)) in workers() {
            assert_eq!(open_offers.outcomes(nobody), [], "{worker:?} has not reported");
            open_offers.report(worker, report(offers, taken));
            open_offers.complete(worker);
        }
        let plain =
            |(worker, id, outcome): (WorkerId, ConnectionId, _)| (worker.slot.0, id.0, outcome);
        open_offers.outcomes(nobody).into_iter().map(plain).collect()
    }

    #[test]
    fn an_offer_has_migrated_if_another_worker_took_it() {
        use OfferOutcome::{Migrated, Returned};
        type Case<'a> = (&'a [(&'a [u64], &'a [u64])], &'a [(u16, u64, OfferOutcome)]);
        let cases: [Case<'_>; 8] = [
            (&[], &[]),
            (&[(&[], &[1, 2])], &[]),
            (&[(&[1, 2], &[])], &[(0, 1, Returned), (0, 2, Returned)]),
            (&[(&[1, 2], &[]), (&[], &[2])], &[(0, 1, Returned), (0, 2, Migrated)]),
            // It came here and is offered on: that it was taken here says nothing of where it is.
            (&[(&[1], &[1])], &[(0, 1, Returned)]),
            (&[(&[1], &[1]), (&[], &[1])], &[(0, 1, Migrated)]),
            // Offered on by the worker that took it, before the first one has its answer.
            (&[(&[1], &[]), (&[1], &[1])], &[(0, 1, Migrated), (1, 1, Returned)]),
            // There and back again, or the other way round.
            (&[(&[1], &[1]), (&[1], &[1])], &[(0, 1, Migrated), (1, 1, Migrated)]),
        ];
        for (all, expected) in cases {
            assert_eq!(decided(all), expected, "{all:?}");
        }
    }

    #[test]
    fn who_names_another_tag_never_had_the_session() {
        use OfferOutcome::{Migrated, Returned};
        let mut open_offers = OpenOffers::default();
        open_offers.report(worker(0), report(&[1, 2], &[]));
        let guessed = |id| [0, 1, tag(3 - id)].map(|tag| (ConnectionId(id), tag));
        let taken = [1, 2].into_iter().flat_map(guessed).collect();
        open_offers.report(worker(1), ResyncReport { offers: Vec::new(), taken });
        let outcomes = |open_offers: &OpenOffers| {
            open_offers
                .outcomes(nobody)
                .into_iter()
                .map(|(_, _, outcome)| outcome)
                .collect::<Vec<_>>()
        };
        assert_eq!(outcomes(&open_offers), [Returned, Returned]);
        open_offers.report(worker(2), report(&[], &[2]));
        assert_eq!(outcomes(&open_offers), [Returned, Migrated]);
        assert!(open_offers.is_offered(&record(1, tag(1))));
        assert!(!open_offers.is_offered(&record(1, tag(2))));
    }

    #[test]
    fn who_is_gone_is_not_waited_for_and_has_taken_nothing() {
        let mut open_offers = OpenOffers::default();
        (0..3).map(worker).for_each(|worker| open_offers.expect(worker));
        open_offers.report(worker(0), report(&[1, 2], &[]));
        open_offers.complete(worker(0));
        open_offers.report(worker(1), report(&[3], &[1]));
        open_offers.complete(worker(1));
        assert_eq!(open_offers.pending(), [worker(2)]);
        assert!(open_offers.is_offered(&record(3, tag(3))));
        open_offers.forget(worker(2));
        assert_eq!(open_offers.outcomes(nobody).len(), 3);
        open_offers.forget(worker(1));
        assert!(!open_offers.is_offered(&record(3, tag(3))));
        let returned = |id| (worker(0), ConnectionId(id), OfferOutcome::Returned);
        assert_eq!(open_offers.outcomes(nobody), [returned(1), returned(2)]);
    }

    #[test]
    fn who_is_silent_may_have_what_was_offered_before_a_session_was_last_sent_to_it() {
        let mut open_offers = OpenOffers::default();
        (0..3).map(worker).for_each(|worker| open_offers.expect(worker));
        open_offers.report(worker(0), report(&[1, 5, 6, 9], &[]));
        open_offers.complete(worker(0));
        open_offers.report(worker(1), report(&[], &[9]));
        open_offers.complete(worker(1));
        assert_eq!(open_offers.outcomes(nobody), [], "one has time to answer");
        open_offers.expire();
        assert_eq!((open_offers.pending(), open_offers.silent()), (&[][..], &[worker(2)][..]));
        use OfferOutcome::{Migrated, Returned};
        let decided = |open_offers: &OpenOffers, last| {
            let outcomes = open_offers.outcomes(|_, _, at| at <= Timestamp(last)).into_iter();
            outcomes.map(|(_, id, outcome)| (id.0, outcome)).collect::<Vec<_>>()
        };
        let expected = [(1, Migrated), (5, Migrated), (6, Returned), (9, Migrated)];
        assert_eq!(decided(&open_offers, 5), expected);
        open_offers.answered();
        assert_eq!(decided(&open_offers, 5), []);
        // It reports after all: its own offers are decided then.
        assert!(open_offers.expects(worker(2)));
        open_offers.report(worker(2), report(&[7, 9], &[1]));
        open_offers.complete(worker(2));
        assert!(!open_offers.expects(worker(2)));
        assert_eq!(decided(&open_offers, 0), [(7, Returned), (9, Migrated)]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Offers with their tags, and sessions that it took.
        ResyncReport(BTreeMap<u64, u64>, BTreeSet<(u64, u64)>),
        Forget,
    }

    fn steps() -> impl Strategy<Value = Vec<(u16, Step)>> {
        let (ids, tags) = (|| 0..12_u64, || 0..2_u64);
        let offers = prop::collection::btree_map(ids(), tags(), 0..6);
        let taken = prop::collection::btree_set((ids(), tags()), 0..9);
        let step = prop_oneof![
            4 => (offers, taken).prop_map(|(offers, taken)| Step::ResyncReport(offers, taken)),
            1 => Just(Step::Forget),
        ];
        prop::collection::vec((0..5_u16, step), 0..20)
    }

    proptest! {
        #[test]
        fn every_open_offer_has_one_outcome_and_not_before_all_have_spoken(steps in steps()) {
            let mut open_offers = OpenOffers::default();
            (0..5).map(worker).for_each(|worker| open_offers.expect(worker));
            let mut silent: BTreeSet<u16> = (0..5).collect();
            let mut told = BTreeMap::new();
            for (slot, step) in steps {
                silent.remove(&slot);
                match step {
                    Step::ResyncReport(offers, taken) => {
                        let report = ResyncReport {
                            offers: offers
                                .iter()
                                .map(|(id, tag)| (ConnectionId(*id), Timestamp(*id), *tag))
                                .collect(),
                            taken: taken.iter().map(|(id, tag)| (ConnectionId(*id), *tag)).collect(),
                        };
                        open_offers.report(worker(slot), report);
                        open_offers.complete(worker(slot));
                        told.insert(slot, (offers, taken));
                    }
                    Step::Forget => {
                        open_offers.forget(worker(slot));
                        told.remove(&slot);
                    }
                }
                let mut outcomes = BTreeMap::new();
                for (who, id, outcome) in open_offers.outcomes(nobody) {
                    prop_assert!(outcomes.insert((who.slot.0, id.0), outcome).is_none());
                }
                if !silent.is_empty() {
                    prop_assert!(outcomes.is_empty());
                    continue;
                }
                for (slot, (offers, _)) in &told {
                    for (id, tag) in offers {
                        let has = |taken: &BTreeSet<_>| taken.contains(&(*id, *tag));
                        let taken = told.iter().any(|(o, (_, taken))| o != slot && has(taken));
                        let expected = if taken { OfferOutcome::Migrated } else { OfferOutcome::Returned };
                        prop_assert_eq!(outcomes.remove(&(*slot, *id)), Some(expected));
                    }
                }
                prop_assert!(outcomes.is_empty());
            }
        }
    }
}
