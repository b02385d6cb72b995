//! What the frontend is asked, answered between two turns. Never changes where connections go, but
//! by bringing back who went elsewhere.

use crate::frontend::dispatcher::Dispatcher;
use crate::frontend::measure::stats::SlotTally;
use crate::frontend::placement::Slots;
use crate::frontend::query::{Client, FrontendFacts, Query, RouteExplanation, SlotFacts};
use crate::frontend::router::Explanation;
use crate::link::seam::Counters;
use crate::protocol::ids::SlotId;

impl Dispatcher {
    pub(super) fn answer_all(&mut self) {
        self.queries.quiet();
        while let Some(query) = self.queries.next_inquiry() {
            // Whoever has asked may not wait any more.
            match query {
                Query::Facts(reply) => drop(reply.send(self.facts())),
                Query::RouteExplanation(client, reply) => {
                    drop(reply.send(self.whereabouts(client)))
                }
                Query::Forget(reply) => drop(reply.send(self.router.forget_all(self.now))),
                Query::Rebalance(reply) => self.begin_rebalance(reply),
            }
        }
    }

    /// What another primary has counted that has died is all that is left of what it has measured.
    pub(super) fn counters(&self) -> Counters {
        Counters {
            accept_errors: self.counters.accept_errors + self.acceptor.errors().total(),
            fallbacks: self.counters.fallbacks + self.stats.all_fallbacks(),
            ..self.counters
        }
    }

    fn facts(&self) -> FrontendFacts {
        let Counters { accepted, acknowledged, lost, .. } = self.counters;
        let (stats, now) = (&self.stats, self.now);
        FrontendFacts {
            counters: self.counters(),
            fallback: stats.fallback().collect(),
            accept_errors: self.acceptor.errors().by_name().collect(),
            accepts_per_second: stats.accepts.per_second(now),
            recent: stats.recent.quantiles(now),
            handoff_times: stats.times.buckets().collect(),
            handoff_total: stats.total_time,
            top_client: stats.top_client.top_client(now),
            waiting: accepted.saturating_sub(acknowledged + lost),
            sessions_waiting: self.sessions.under_way,
            sessions_protected: self.protected.count(),
            rebalance_pending: self.rebalance.pending(),
            accepting: self.accepting && !self.acceptor.is_closed(),
            slots: self.slots.ids().map(|slot| self.slot_facts(slot)).collect(),
        }
    }

    fn slot_facts(&self, slot: SlotId) -> SlotFacts {
        let (queued, in_flight) = self.slots.held_for(slot);
        let stats = self.stats.slot(slot);
        let count = |count: fn(&SlotTally) -> u64| stats.map_or(0, count);
        SlotFacts {
            slot,
            availability: self.slots.availability(slot),
            load: self.slots.load(slot),
            queued: queued as u64,
            in_flight: in_flight as u64,
            handed_off: count(|stats| stats.handed_off),
            handoffs_per_second: stats.map_or(0.0, |stats| stats.handoffs.per_second(self.now)),
            recent: stats.map(|stats| stats.recent.quantiles(self.now)).unwrap_or_default(),
            stalls: count(|stats| stats.stalls),
            refused: count(|stats| stats.refused),
            sessions_taken: count(|stats| stats.sessions),
        }
    }

    fn whereabouts(&self, client: Client) -> RouteExplanation {
        let (key, counts, digest) = match client {
            Client::Key(key) => (key, None, None),
            Client::Address(address) => (
                self.affinity.key(address),
                Some(self.affinity.counts(address)),
                Some(self.affinity.digest(address)),
            ),
        };
        let Explanation { ranking, remembered, target, why } =
            self.router.explain(key, &self.slots, self.now);
        let placement = self.router.placement();
        RouteExplanation { counts, digest, key, placement, ranking, remembered, target, why }
    }
}
