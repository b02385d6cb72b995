//! The spare: a worker of the next generation that is ready beside the one that serves, and takes over
//! at the moment that one crashes.
//!
//! It is started when the serving worker is stable, and never while a replacement is under way: its
//! command would be outdated. A spare that crashes is followed by another after the longest pause, and is
//! not counted as a crash of the slot: clients don't notice it.

use crate::handover::carry;
use crate::handover::pool::SpareSnapshot;
use crate::protocol::ids::{Generation, Timestamp};

/// Which worker it is, and when the next one may be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spare {
    generation: Option<Generation>,
    not_before: Option<Timestamp>,
}

carry!(struct Spare => SpareSnapshot { generation, not_before });

impl Spare {
    /// This worker is the spare from now on.
    pub(super) fn started(&mut self, generation: Generation) {
        *self = Self { generation: Some(generation), not_before: None };
    }

    /// The worker that is the spare.
    pub(super) fn worker(&self) -> Option<Generation> {
        self.generation
    }

    /// When the next one may be started, if that takes a pause.
    pub(super) fn not_before(&self) -> Option<Timestamp> {
        self.not_before
    }

    fn is(&self, generation: Generation) -> bool {
        self.generation == Some(generation)
    }

    /// A worker is ready. Whether it waits as the spare; it doesn't if the serving worker has crashed
    /// meanwhile.
    pub(super) fn waits(&mut self, generation: Generation, is_serving: bool) -> bool {
        if self.is(generation) && !is_serving {
            *self = Self::default();
        }
        self.is(generation)
    }

    /// It is no longer wanted, or serves. The next one may follow at that time.
    pub(super) fn take(&mut self, not_before: Option<Timestamp>) -> Option<Generation> {
        let generation = self.generation.take()?;
        if not_before.is_some() {
            self.not_before = not_before;
        }
        Some(generation)
    }

    /// A worker has ended. Whether it was the spare; then the next one may follow at that time.
    pub(super) fn lose(&mut self, generation: Generation, not_before: Timestamp) -> bool {
        self.is(generation) && self.take(Some(not_before)).is_some()
    }
}
