//! Messages about protected sessions.

use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{
    ConnectionRecord, HEADER, MAX_IDS, MessageError, RECORD, decode_record, encode_ids,
    encode_record, header, kind, u64_at,
};

/// Bytes of a message that protects a session.
pub const PROTECT: usize = HEADER + RECORD + 8;

/// Writes a request to protect a session whose entry is at `place` in the checkpoint.
#[must_use]
pub fn encode_protect(record: &ConnectionRecord, place: u64) -> [u8; PROTECT] {
    let mut bytes = [0; PROTECT];
    bytes[..HEADER].copy_from_slice(&header(kind::PROTECT, 1));
    encode_record(&mut bytes[HEADER..HEADER + RECORD], record);
    bytes[HEADER + RECORD..].copy_from_slice(&place.to_le_bytes());
    bytes
}

pub(super) fn decode_protect(
    count: u16,
    body: &[u8],
) -> Result<(ConnectionRecord, u64), MessageError> {
    if count != 1 || body.len() != RECORD + 8 {
        let length = HEADER + body.len();
        return Err(MessageError::Length { kind: kind::PROTECT, count, length });
    }
    Ok((decode_record(&body[..RECORD])?, u64_at(body, RECORD)))
}

/// Writes which sessions are protected no more. Ids beyond
/// [`BATCH`](crate::protocol::message::BATCH) are left out.
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

    #[test]
    fn what_is_to_be_kept_and_forgotten_survives_the_wire() {
        let record = ConnectionRecord {
            id: ConnectionId(7),
            accepted_at: Timestamp(8),
            key: AffinityKey(9),
            client: "10.1.2.3:258".parse().unwrap(),
            local: "[2001:db8::1]:80".parse().unwrap(),
            tag: 7,
        };
        let bytes = encode_protect(&record, 0x0102);
        assert_eq!(bytes[..8], *b"SL\x01\x8e\x01\0\0\0");
        assert_eq!(bytes[88..], *b"\x02\x01\0\0\0\0\0\0");
        let ToPrimary::Protect(got, place) = decode_to_primary(&bytes).unwrap() else { panic!() };
        assert_eq!((got, place), (record, 0x0102));
        for end in HEADER..PROTECT {
            assert!(decode_to_primary(&bytes[..end]).is_err());
        }
        let mut buffer = [0; MAX_IDS];
        let forget = encode_unprotect(&mut buffer, [ConnectionId(7), ConnectionId(8)].into_iter());
        let ToPrimary::Unprotect(ids) = decode_to_primary(forget).unwrap() else { panic!() };
        assert_eq!(ids.iter().collect::<Vec<_>>(), [ConnectionId(7), ConnectionId(8)]);
        assert!(matches!(decode_to_primary(&CHECKPOINT), Ok(ToPrimary::Checkpoint)));
    }
}
