//! What the frontend is asked, answered between two turns. Never changes where connections go, but
//! by bringing back who went elsewhere.

use crate::frontend::dispatcher::Dispatcher;
use crate::frontend::inquiry::{Client, FrontendFacts, Inquiry, SlotFacts, Whereabouts};
use crate::frontend::measure::tally::SlotTally;
use crate::frontend::placement::Slots;
use crate::frontend::router::Explanation;
use crate::handoff::ids::SlotId;
use crate::handoff::slots::Counters;

impl Dispatcher {
    pub(super) fn answer_all(&mut self) {
        self.inquiries.quiet();
        while let Some(inquiry) = self.inquiries.next_inquiry() {
            // Whoever has asked may not wait any more.
            match inquiry {
                Inquiry::Facts(reply) => drop(reply.send(self.facts())),
                Inquiry::Whereabouts(client, reply) => drop(reply.send(self.whereabouts(client))),
                Inquiry::Forget(reply) => drop(reply.send(self.router.forget_all(self.now))),
                Inquiry::Rebalance(reply) => self.begin_rebalance(reply),
            }
        }
    }

    /// What another primary has counted that has died is all that is left of what it has measured.
    pub(super) fn counters(&self) -> Counters {
        Counters {
            accept_errors: self.counters.accept_errors + self.acceptor.errors().total(),
            spilled: self.counters.spilled + self.tally.all_spills(),
            ..self.counters
        }
    }

    fn facts(&self) -> FrontendFacts {
        let Counters { accepted, acknowledged, lost, .. } = self.counters;
        let (tally, now) = (&self.tally, self.now);
        FrontendFacts {
            counters: self.counters(),
            spills: tally.spills().collect(),
            accept_errors: self.acceptor.errors().by_name().collect(),
            accepts_per_second: tally.accepts.per_second(now),
            recent: tally.recent.quantiles(now),
            handoff_times: tally.times.buckets().collect(),
            handoff_total: tally.total_time,
            heaviest: tally.heaviest.heaviest(now),
            waiting: accepted.saturating_sub(acknowledged + lost),
            sessions_waiting: self.sessions.under_way,
            rebalance_pending: self.rebalance.pending(),
            accepting: self.accepting && !self.acceptor.is_closed(),
            slots: self.slots.ids().map(|slot| self.slot_facts(slot)).collect(),
        }
    }

    fn slot_facts(&self, slot: SlotId) -> SlotFacts {
        let (queued, in_flight) = self.slots.held_for(slot);
        let tally = self.tally.slot(slot);
        let count = |count: fn(&SlotTally) -> u64| tally.map_or(0, count);
        SlotFacts {
            slot,
            availability: self.slots.availability(slot),
            load: self.slots.load(slot),
            queued: queued as u64,
            in_flight: in_flight as u64,
            handed_off: count(|tally| tally.handed_off),
            handoffs_per_second: tally.map_or(0.0, |tally| tally.handoffs.per_second(self.now)),
            recent: tally.map(|tally| tally.recent.quantiles(self.now)).unwrap_or_default(),
            stalls: count(|tally| tally.stalls),
            refused: count(|tally| tally.refused),
            sessions_taken: count(|tally| tally.sessions),
        }
    }

    fn whereabouts(&self, client: Client) -> Whereabouts {
        let (key, counts, digest) = match client {
            Client::Key(key) => (key, None, None),
            Client::Address(address) => (
                self.affinity.key(address),
                Some(self.affinity.counts(address)),
                Some(self.affinity.digest(address)),
            ),
        };
        let Explanation { ranking, remembered, goes_to, why } =
            self.router.explain(key, &self.slots, self.now);
        let placement = self.router.placement();
        Whereabouts { counts, digest, key, placement, ranking, remembered, goes_to, why }
    }
}
