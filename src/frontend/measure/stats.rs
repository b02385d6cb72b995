//! Counters and measures of the frontend, over all slots and for each. Knows nothing of connections but
//! how long they took.
//!
//! # Pitfalls
//!
//! The primary looks at acknowledgements in each turn of its loop, and within a millisecond while
//! some are expected. So a hand-off's time is up to that much longer than the hand-off, and more
//! where the primary has to wait for a processor.

use std::net::IpAddr;
use std::time::Duration;

use crate::frontend::measure::rate::Rate;
use crate::frontend::measure::times::{Bucket, RecentTimes, Times};
use crate::frontend::measure::top_clients::TopClientCounter;
use crate::frontend::query::FallbackReason;
use crate::handover::carry;
use crate::handover::frontend::{FrontendSlotStatsSnapshot, FrontendStatsSnapshot};
use crate::protocol::ids::{AffinityKey, SlotId, Timestamp};

/// Counters and measures.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub accepts: Rate,
    /// Who makes the most of them.
    pub top_client: TopClientCounter,
    /// From accept to acknowledgement, since the start.
    pub times: Times,
    /// All of those times together.
    pub total_time: Duration,
    /// The same, lately.
    pub recent: RecentTimes,
    fallback: [u64; FallbackReason::ALL.len()],
    slots: Vec<SlotTally>,
}

carry!(struct Stats => FrontendStatsSnapshot { accepts, top_client, times, total_time, recent, fallback, slots });

/// Counters and measures of a slot, over all of its workers so far.
#[derive(Clone, Debug, Default)]
pub struct SlotTally {
    /// Connections acknowledged.
    pub handed_off: u64,
    /// The same, in the last second.
    pub handoffs: Rate,
    /// From accept to acknowledgement, lately.
    pub recent: RecentTimes,
    /// Times one of its workers didn't acknowledge in time.
    pub stalls: u64,
    /// Connections that its workers refused.
    pub refused: u64,
    /// Sessions that its workers took from others.
    pub sessions: u64,
}

carry!(struct SlotTally => FrontendSlotStatsSnapshot { handed_off, handoffs, recent, stalls, refused, sessions });

impl Stats {
    /// So many slots there are at least: room is made here, and nowhere else.
    pub fn grow(&mut self, count: u16) {
        let count = self.slots.len().max(usize::from(count));
        self.slots.resize_with(count, SlotTally::default);
    }

    /// A slot's own, if there is such a slot.
    #[must_use]
    pub fn slot(&self, slot: SlotId) -> Option<&SlotTally> {
        self.slots.get(slot.index())
    }

    /// A connection has come.
    pub fn accepted(&mut self, key: AffinityKey, client: IpAddr, now: Timestamp) {
        self.accepts.count(1, now);
        self.top_client.count(key, client, now);
    }

    /// A connection went elsewhere than to the first slot of its ranking.
    pub fn fallbacks(&mut self, reason: FallbackReason) {
        self.fallback[reason as usize] += 1;
    }

    /// A slot's worker has taken a connection over that came so long ago.
    pub fn acknowledged(&mut self, slot: SlotId, time: Duration, now: Timestamp) {
        let bucket = Bucket::of(time);
        self.times.record(bucket);
        self.total_time = self.total_time.saturating_add(time);
        self.recent.record(bucket, now);
        if let Some(slot) = self.slots.get_mut(slot.index()) {
            slot.handed_off += 1;
            slot.handoffs.count(1, now);
            slot.recent.record(bucket, now);
        }
    }

    /// A slot's worker hasn't acknowledged in time.
    pub fn stalled(&mut self, slot: SlotId) {
        if let Some(slot) = self.slots.get_mut(slot.index()) {
            slot.stalls += 1;
        }
    }

    /// A slot's worker has refused some.
    pub fn refused(&mut self, slot: SlotId, count: u64) {
        if let Some(slot) = self.slots.get_mut(slot.index()) {
            slot.refused += count;
        }
    }

    /// A slot's worker has taken a session.
    pub fn took_session(&mut self, slot: SlotId) {
        if let Some(slot) = self.slots.get_mut(slot.index()) {
            slot.sessions += 1;
        }
    }

    /// Connections that went elsewhere, by reason.
    pub fn fallback(&self) -> impl Iterator<Item = (FallbackReason, u64)> {
        FallbackReason::ALL.into_iter().map(|reason| (reason, self.fallback[reason as usize]))
    }

    /// Connections that went elsewhere, for whatever reason.
    #[must_use]
    pub fn all_fallbacks(&self) -> u64 {
        self.fallback.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_count() {
        let mut stats = Stats::default();
        for (times, reason) in (1..).zip(FallbackReason::ALL) {
            (0..times).for_each(|_| stats.fallbacks(reason));
        }
        let expected: Vec<_> = FallbackReason::ALL.into_iter().zip(1..).collect();
        assert_eq!(stats.fallback().collect::<Vec<_>>(), expected);
        assert_eq!(stats.all_fallbacks(), 28);
    }

    #[test]
    fn a_slot_that_is_not_there_counts_in_the_whole_only() {
        let (mut stats, now) = (Stats::default(), Timestamp(0));
        stats.grow(2);
        stats.grow(1);
        for slot in [1, 1, 2] {
            stats.acknowledged(SlotId(slot), Duration::from_millis(1), now);
            stats.stalled(SlotId(slot));
            stats.refused(SlotId(slot), 3);
        }
        let of = |slot| {
            stats.slot(SlotId(slot)).map(|slot| (slot.handed_off, slot.stalls, slot.refused))
        };
        assert_eq!([of(0), of(1), of(2)], [Some((0, 0, 0)), Some((2, 2, 6)), None]);
        assert_eq!(stats.times.buckets().map(|(_, count)| count).sum::<u64>(), 3);
        assert_eq!(stats.total_time, Duration::from_millis(3));
    }
}
