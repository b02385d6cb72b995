//! What the frontend is asked, answered between two turns.

use crate::frontend::dispatcher::Dispatcher;
use crate::frontend::inquiry::{FrontendFacts, Inquiry, Quantiles, SlotFacts};
use crate::frontend::placement::Slots;
use crate::handoff::slots::Counters;

impl Dispatcher {
    pub(super) fn answer_all(&mut self) {
        self.inquiries.quiet();
        while let Some(inquiry) = self.inquiries.next_inquiry() {
            // Whoever has asked may not wait any more.
            match inquiry {
                Inquiry::Facts(reply) => drop(reply.send(self.facts())),
                Inquiry::Whereabouts(_, reply) => drop(reply),
                Inquiry::Forget(reply) => drop(reply),
            }
        }
    }

    pub(super) fn counters(&self) -> Counters {
        Counters { accept_errors: self.acceptor.errors(), ..self.counters }
    }

    fn facts(&self) -> FrontendFacts {
        let Counters { accepted, acknowledged, lost, .. } = self.counters;
        let slots = self.slots.ids().map(|slot| SlotFacts {
            slot,
            availability: self.slots.availability(slot),
            load: self.slots.load(slot),
            queued: 0,
            in_flight: 0,
            handed_off: 0,
            handoffs_per_second: 0.0,
            recent: Quantiles::default(),
            stalls: 0,
            refused: 0,
        });
        FrontendFacts {
            counters: self.counters(),
            waiting: accepted.saturating_sub(acknowledged + lost),
            accepting: self.accepting && !self.acceptor.is_closed(),
            slots: slots.collect(),
            ..FrontendFacts::default()
        }
    }
}
