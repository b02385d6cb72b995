//! What a primary that died has started without writing it down: it died in between.

use crate::protocol::ids::{Generation, Timestamp};
use crate::supervisor::lifecycle::Phase;
use crate::supervisor::slot_life::{DesiredState, SlotLife};

impl SlotLife {
    /// Takes a worker that nobody remembers for one that was just started. False if the slot has no
    /// place for it, so that it is to end.
    pub fn adopt(&mut self, generation: Generation, now: Timestamp) -> bool {
        self.skip(generation);
        let fills = matches!(self.aim, DesiredState::Filled | DesiredState::FilledAt(_));
        if !fills || self.is_starting() || self.phase(generation).is_some() {
            return false;
        }
        self.aim = DesiredState::Filled;
        let deadline = now + self.settings.listen_timeout;
        self.workers.push((generation, Phase::Spawning { deadline }));
        true
    }

    /// No worker is to have this generation, nor one before it.
    pub fn skip(&mut self, generation: Generation) {
        self.next_generation = self.next_generation.max(generation.0.saturating_add(1));
    }
}
