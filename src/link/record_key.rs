//! The tag of a connection's record, by which the primary knows that the record is its own.
//!
//! The primary keeps nothing of an established connection. A worker that offers a session, or has one
//! protected, gives its record back: only one that was made here, for this connection, has the right tag. So
//! no worker can name a session that it never had.
//!
//! Costs some 30 ns a connection. The key is the same for all primaries of a run, and no worker sees it.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use crate::protocol::message::ConnectionRecord;

/// The key of all tags of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecordKey([u64; 2]);

impl RecordKey {
    /// One that cannot be guessed.
    #[must_use]
    pub fn random() -> Self {
        // Each state has keys of its own, by the kernel's random numbers.
        Self([0; 2].map(|_: u64| RandomState::new().build_hasher().finish()))
    }

    /// As numbers, for a successor.
    #[must_use]
    pub fn numbers(self) -> [u64; 2] {
        self.0
    }

    /// The record with its tag.
    #[must_use]
    pub fn tagged(self, record: ConnectionRecord) -> ConnectionRecord {
        ConnectionRecord { tag: self.tag(&record), ..record }
    }

    /// Whether a record is one that was tagged with this key, and unchanged.
    #[must_use]
    pub fn has_tagged(self, record: &ConnectionRecord) -> bool {
        record.tag == self.tag(record)
    }

    #[expect(deprecated, reason = "SipHash-2-4; the hashers that are not deprecated take no key")]
    fn tag(self, record: &ConnectionRecord) -> u64 {
        let mut hasher = std::hash::SipHasher::new_with_keys(self.0[0], self.0[1]);
        hasher.write(&record.untagged_bytes());
        hasher.finish()
    }
}

impl From<[u64; 2]> for RecordKey {
    fn from(numbers: [u64; 2]) -> Self {
        Self(numbers)
    }
}

impl Default for RecordKey {
    fn default() -> Self {
        Self::random()
    }
}

/// Without the key.
impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::protocol::ids::{AffinityKey, ConnectionId, Timestamp};

    fn record() -> ConnectionRecord {
        ConnectionRecord {
            id: ConnectionId(7),
            accepted_at: Timestamp(8),
            key: AffinityKey(9),
            client: "192.0.2.1:5000".parse().unwrap(),
            local: "[2001:db8::1]:443".parse().unwrap(),
            tag: 0,
        }
    }

    #[test]
    fn nothing_of_a_record_can_be_changed() {
        let key = RecordKey::random();
        let good = key.tagged(record());
        assert!(key.has_tagged(&good));
        assert!(!RecordKey::random().has_tagged(&good), "another run's");
        let other: SocketAddr = "192.0.2.1:5001".parse().unwrap();
        for changed in [
            ConnectionRecord { id: ConnectionId(8), ..good },
            ConnectionRecord { accepted_at: Timestamp(9), ..good },
            ConnectionRecord { key: AffinityKey(8), ..good },
            ConnectionRecord { client: other, ..good },
            ConnectionRecord { local: other, ..good },
            ConnectionRecord { tag: good.tag ^ 1, ..good },
        ] {
            assert!(!key.has_tagged(&changed), "{changed:?}");
        }
    }

    /// A successor of another build makes the same tags.
    #[test]
    fn a_tag_is_the_same_for_ever() {
        assert_eq!(RecordKey::from([1, 2]).tagged(record()).tag, TAG);
    }

    const TAG: u64 = 4_905_734_888_443_753_440;
}
