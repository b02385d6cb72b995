//! Where clients went that are not, or not only by rule, at the first slot of their ranking: a
//! bounded table whose entries expire.
//!
//! Never larger than its capacity: the entry used longest ago makes room.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use crate::protocol::ids::{AffinityKey, SlotId, Timestamp};

/// Remembers a client's slot from its last connection on, for a time.
#[derive(Debug)]
pub struct Memory {
    entries: LruCache<AffinityKey, Entry>,
    lifetime: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: SlotId,
    last_used: Timestamp,
}

impl Memory {
    /// Holds up to `capacity` clients, each until `lifetime` after its last connection.
    #[must_use]
    pub fn new(capacity: NonZeroUsize, lifetime: Duration) -> Self {
        Self { entries: LruCache::new(capacity), lifetime }
    }

    /// Where the client went, if it is remembered. Its lifetime starts again.
    pub fn recall(&mut self, key: AffinityKey, now: Timestamp) -> Option<SlotId> {
        // The usual case, and the reason why an empty table costs nothing.
        if self.entries.is_empty() {
            return None;
        }
        let entry = self.entries.get_mut(&key)?;
        if entry.remaining(self.lifetime, now).is_none() {
            self.entries.pop(&key);
            return None;
        }
        entry.last_used = now;
        Some(entry.slot)
    }

    /// Where the client went, and how long it is remembered without coming back. Changes nothing.
    #[must_use]
    pub fn peek(&self, key: AffinityKey, now: Timestamp) -> Option<(SlotId, Duration)> {
        let entry = self.entries.peek(&key)?;
        Some((entry.slot, entry.remaining(self.lifetime, now)?))
    }

    /// Notes where the client goes.
    pub fn remember(&mut self, key: AffinityKey, slot: SlotId, now: Timestamp) {
        self.entries.put(key, Entry { slot, last_used: now });
    }

    /// Drops what is noted of the client.
    pub fn forget(&mut self, key: AffinityKey) {
        self.entries.pop(&key);
    }

    /// Drops everything, and says how many clients were still remembered.
    pub fn clear(&mut self, now: Timestamp) -> u64 {
        let entries = self.entries.iter().map(|(_, entry)| entry);
        let remembered = entries.filter(|entry| entry.remaining(self.lifetime, now).is_some());
        let count = remembered.count() as u64;
        self.entries.clear();
        count
    }
}

/// A client that is remembered: its key, its slot, and when it was used last.
pub type Remembered = (AffinityKey, SlotId, Timestamp);

impl Memory {
    /// All clients that are still remembered, the one away longest first.
    #[must_use]
    pub fn remembered(&self, now: Timestamp) -> Vec<Remembered> {
        let entries = self.entries.iter().rev();
        let known = entries.filter(|(_, it)| it.remaining(self.lifetime, now).is_some());
        known.map(|(key, entry)| (*key, entry.slot, entry.last_used)).collect()
    }

    /// Remembers them as before, the last ones if there are too many.
    pub fn resume(&mut self, remembered: &[Remembered]) {
        for (key, slot, last_used) in remembered {
            self.remember(*key, *slot, *last_used);
        }
    }
}

impl Entry {
    /// Until it expires; nothing if it has.
    fn remaining(&self, lifetime: Duration, now: Timestamp) -> Option<Duration> {
        lifetime.checked_sub(now.since(self.last_used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn memory(capacity: usize) -> Memory {
        Memory::new(NonZeroUsize::new(capacity).unwrap(), 10 * SECOND)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn an_entry_lives_from_its_last_use() {
        let (mut memory, key) = (memory(4), AffinityKey(7));
        memory.remember(key, SlotId(3), at(0));
        assert_eq!(memory.recall(key, at(9)), Some(SlotId(3)));
        assert_eq!(memory.recall(key, at(19)), Some(SlotId(3)));
        assert_eq!(memory.recall(key, at(30)), None);
        assert_eq!(memory.recall(key, at(30)), None);
    }

    #[test]
    fn a_look_prolongs_nothing() {
        let (mut memory, key) = (memory(2), AffinityKey(1));
        assert_eq!(memory.peek(key, at(0)), None);
        memory.remember(key, SlotId(3), at(0));
        memory.remember(AffinityKey(2), SlotId(2), at(1));
        assert_eq!(memory.peek(key, at(4)), Some((SlotId(3), 6 * SECOND)));
        assert_eq!(memory.peek(key, at(10)), Some((SlotId(3), Duration::ZERO)));
        assert_eq!(memory.peek(key, at(11)), None);
        memory.remember(AffinityKey(3), SlotId(3), at(5));
        assert_eq!(memory.peek(key, at(5)), None, "it is still the one away longest");
    }

    #[test]
    fn an_expired_client_is_not_counted_when_all_are_forgotten() {
        let mut memory = memory(4);
        memory.remember(AffinityKey(1), SlotId(1), at(0));
        memory.remember(AffinityKey(2), SlotId(2), at(5));
        memory.remember(AffinityKey(3), SlotId(3), at(6));
        assert_eq!(memory.clear(at(12)), 2);
        assert_eq!(memory.recall(AffinityKey(2), at(12)), None);
        assert_eq!(memory.clear(at(12)), 0);
    }

    #[test]
    fn what_is_remembered_can_be_carried_over() {
        let mut before = memory(3);
        before.remember(AffinityKey(0), SlotId(0), at(0));
        before.remember(AffinityKey(1), SlotId(1), at(3));
        before.remember(AffinityKey(2), SlotId(2), at(4));
        before.recall(AffinityKey(1), at(6));
        let remembered = before.remembered(at(12));
        let expected = [(AffinityKey(2), SlotId(2), at(4)), (AffinityKey(1), SlotId(1), at(6))];
        assert_eq!(remembered, expected, "the first has expired");
        let mut after = memory(1);
        after.resume(&remembered);
        assert_eq!(after.recall(AffinityKey(1), at(12)), Some(SlotId(1)), "the last one stays");
        assert_eq!(after.recall(AffinityKey(2), at(12)), None);
    }

    #[test]
    fn a_full_table_forgets_the_client_that_was_away_longest() {
        let mut memory = memory(2);
        memory.remember(AffinityKey(1), SlotId(1), at(0));
        memory.remember(AffinityKey(2), SlotId(2), at(1));
        assert_eq!(memory.recall(AffinityKey(1), at(2)), Some(SlotId(1)));
        memory.remember(AffinityKey(3), SlotId(3), at(3));
        assert_eq!(memory.recall(AffinityKey(2), at(3)), None);
        assert_eq!(memory.recall(AffinityKey(1), at(3)), Some(SlotId(1)));
    }
}
