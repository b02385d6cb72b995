//! Messages that are nothing but ids.

use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{HEADER, MAX_IDS, MessageError, body_of, header, kind};

/// Writes a refusal and returns its bytes. Ids beyond [`BATCH`](super::BATCH) are left out.
pub fn encode_refuse(buffer: &mut [u8; MAX_IDS], ids: impl Iterator<Item = ConnectionId>) -> &[u8] {
    encode_ids(buffer, kind::REFUSE, ids)
}

/// Writes that these sessions have failed in their new worker. Ids beyond [`BATCH`](super::BATCH) are left
/// out.
pub fn encode_migration_failed(
    buffer: &mut [u8; MAX_IDS],
    ids: impl Iterator<Item = ConnectionId>,
) -> &[u8] {
    encode_ids(buffer, kind::MIGRATION_FAILED, ids)
}

pub(super) fn encode_ids(
    buffer: &mut [u8; MAX_IDS],
    kind: u8,
    ids: impl Iterator<Item = ConnectionId>,
) -> &[u8] {
    let mut count: u16 = 0;
    let (head, body) = buffer.split_at_mut(HEADER);
    for (bytes, id) in body.chunks_exact_mut(8).zip(ids) {
        bytes.copy_from_slice(&id.0.to_le_bytes());
        count += 1;
    }
    head.copy_from_slice(&header(kind, count));
    &buffer[..HEADER + usize::from(count) * 8]
}

pub(super) fn decode_ids(kind: u8, count: u16, body: &[u8]) -> Result<Ids<'_>, MessageError> {
    body_of(kind, count, body, 8).map(Ids)
}

/// The ids of one message.
#[derive(Clone, Copy, Debug)]
pub struct Ids<'a>(&'a [u8]);

impl<'a> Ids<'a> {
    /// In order.
    pub fn iter(self) -> impl Iterator<Item = ConnectionId> + 'a {
        self.0.as_chunks::<8>().0.iter().map(|bytes| ConnectionId(u64::from_le_bytes(*bytes)))
    }
}
