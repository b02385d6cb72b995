//! Messages about protected sessions.

use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{
    BATCH, ConnectionRecord, HEADER, MAX_IDS, MessageError, RECORD, body_of, decode_record,
    encode_ids, encode_record, header, kind, u64_at,
};

/// Bytes of one session in a message that protects some: its record, and the place of its entry.
const PLACED: usize = RECORD + 8;

/// Bytes of a message that protects one session.
pub const PROTECT: usize = HEADER + PLACED;

/// Bytes of the longest message that protects sessions.
pub const MAX_PROTECT: usize = HEADER + BATCH * PLACED;

/// Writes a request to protect a session whose entry is at `place` in the checkpoint.
#[must_use]
pub fn encode_protect(record: &ConnectionRecord, place: u64) -> [u8; PROTECT] {
    let mut bytes = [0; PROTECT];
    bytes[..HEADER].copy_from_slice(&header(kind::PROTECT, 1));
    encode_placed(&mut bytes[HEADER..], record, place);
    bytes
}

/// Writes a request to protect several, each with the place of its entry. Those beyond
/// [`BATCH`] are left out.
pub fn encode_protect_several<'a>(
    buffer: &mut [u8; MAX_PROTECT],
    sessions: impl Iterator<Item = (&'a ConnectionRecord, u64)>,
) -> &[u8] {
    let mut count: u16 = 0;
    let (head, body) = buffer.split_at_mut(HEADER);
    for (bytes, (record, place)) in body.chunks_exact_mut(PLACED).zip(sessions) {
        encode_placed(bytes, record, place);
        count += 1;
    }
    head.copy_from_slice(&header(kind::PROTECT, count));
    &buffer[..HEADER + usize::from(count) * PLACED]
}

fn encode_placed(bytes: &mut [u8], record: &ConnectionRecord, place: u64) {
    encode_record(&mut bytes[..RECORD], record);
    bytes[RECORD..].copy_from_slice(&place.to_le_bytes());
}

pub(super) fn decode_protect(count: u16, body: &[u8]) -> Result<PlacedSessions<'_>, MessageError> {
    let sessions = body_of(kind::PROTECT, count, body, PLACED)?;
    for placed in sessions.chunks_exact(PLACED) {
        decode_record(&placed[..RECORD])?;
    }
    Ok(PlacedSessions(sessions))
}

/// The sessions of a message that protects them; checked when the message was read.
#[derive(Clone, Copy, Debug)]
pub struct PlacedSessions<'a>(&'a [u8]);

impl<'a> PlacedSessions<'a> {
    /// How many there are, 1 to [`BATCH`].
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(self) -> usize {
        self.0.len() / PLACED
    }

    /// Each with the place of its entry, in the order of their descriptors.
    pub fn iter(self) -> impl Iterator<Item = (ConnectionRecord, u64)> + 'a {
        self.0.chunks_exact(PLACED).filter_map(|placed| {
            Some((decode_record(&placed[..RECORD]).ok()?, u64_at(placed, RECORD)))
        })
    }
}

/// Writes which sessions are protected no more. Ids beyond
/// [`BATCH`] are left out.
pub fn encode_unprotect(
    buffer: &mut [u8; MAX_IDS],
    ids: impl Iterator<Item = ConnectionId>,
) -> &[u8] {
    encode_ids(buffer, kind::UNPROTECT, ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::{AffinityKey, Timestamp};
    use crate::protocol::message::{CHECKPOINT, ToPrimary, decode_to_primary};

    fn record(id: u64) -> ConnectionRecord {
        ConnectionRecord {
            id: ConnectionId(id),
            accepted_at: Timestamp(8),
            key: AffinityKey(9),
            client: "10.1.2.3:258".parse().unwrap(),
            local: "[2001:db8::1]:80".parse().unwrap(),
            tag: 7,
        }
    }

    fn decode(bytes: &[u8]) -> Vec<(ConnectionRecord, u64)> {
        let ToPrimary::Protect(sessions) = decode_to_primary(bytes).unwrap() else { panic!() };
        let all: Vec<_> = sessions.iter().collect();
        assert_eq!(all.len(), sessions.len());
        all
    }

    #[test]
    fn what_is_to_be_kept_and_forgotten_survives_the_wire() {
        let record = record(7);
        let bytes = encode_protect(&record, 0x0102);
        assert_eq!(bytes[..8], *b"SL\x01\x8e\x01\0\0\0");
        assert_eq!(bytes[88..], *b"\x02\x01\0\0\0\0\0\0");
        assert_eq!(decode(&bytes), [(record, 0x0102)]);
        for end in HEADER..PROTECT {
            assert!(decode_to_primary(&bytes[..end]).is_err());
        }
        let mut buffer = [0; MAX_IDS];
        let forget = encode_unprotect(&mut buffer, [ConnectionId(7), ConnectionId(8)].into_iter());
        let ToPrimary::Unprotect(ids) = decode_to_primary(forget).unwrap() else { panic!() };
        assert_eq!(ids.iter().collect::<Vec<_>>(), [ConnectionId(7), ConnectionId(8)]);
        assert!(matches!(decode_to_primary(&CHECKPOINT), Ok(ToPrimary::Checkpoint)));
    }

    #[test]
    fn several_fit_into_a_message_and_one_is_the_same_as_alone() {
        let all: Vec<_> = (0..80).map(|id| (record(id), id << 12)).collect();
        let mut buffer = [0; MAX_PROTECT];
        let one = encode_protect_several(&mut buffer, [(&all[1].0, all[1].1)].into_iter());
        assert_eq!(one, encode_protect(&all[1].0, all[1].1));
        let placed = all.iter().map(|(record, place)| (record, *place));
        let bytes = encode_protect_several(&mut buffer, placed);
        assert_eq!(bytes.len(), MAX_PROTECT);
        assert_eq!(decode(bytes), all[..BATCH]);
        assert!(decode_to_primary(&bytes[..MAX_PROTECT - 1]).is_err());
    }
}
