//! Messages by which a worker reports its sessions to a primary that follows another.

use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::{
    BATCH, HEADER, MAX_IDS, MessageError, body_of, encode_ids, header, kind, u64_at,
};

/// A request to report, with its number.
#[must_use]
pub fn encode_resync(number: u64) -> [u8; HEADER + 8] {
    numbered(kind::RESYNC, number)
}

/// The end of the answer to the request of that number.
#[must_use]
pub fn encode_resync_done(number: u64) -> [u8; HEADER + 8] {
    numbered(kind::RESYNC_DONE, number)
}

/// Bytes of an offer's id and time.
const OFFER: usize = 16;

/// Bytes of the longest message of open offers.
pub const MAX_OPEN_OFFERS: usize = HEADER + BATCH * OFFER;

/// The open offers of one message: which session, and when it was offered.
#[derive(Clone, Copy, Debug)]
pub struct OpenOffers<'a>(&'a [u8]);

impl<'a> OpenOffers<'a> {
    /// In order.
    pub fn iter(self) -> impl Iterator<Item = (ConnectionId, Timestamp)> + 'a {
        let offers = self.0.chunks_exact(OFFER);
        offers.map(|offer| (ConnectionId(u64_at(offer, 0)), Timestamp(u64_at(offer, 8))))
    }
}

/// Writes which offers are not answered, and when they were made. Those beyond
/// [`BATCH`] are left out, as ids are below.
pub fn encode_resync_offers(
    buffer: &mut [u8; MAX_OPEN_OFFERS],
    offers: impl Iterator<Item = (ConnectionId, Timestamp)>,
) -> &[u8] {
    let mut count: u16 = 0;
    let (head, body) = buffer.split_at_mut(HEADER);
    for (bytes, (id, at)) in body.chunks_exact_mut(OFFER).zip(offers) {
        bytes[..8].copy_from_slice(&id.0.to_le_bytes());
        bytes[8..].copy_from_slice(&at.0.to_le_bytes());
        count += 1;
    }
    head.copy_from_slice(&header(kind::RESYNC_OFFERS, count));
    &buffer[..HEADER + usize::from(count) * OFFER]
}

pub(super) fn decode_open_offers(count: u16, body: &[u8]) -> Result<OpenOffers<'_>, MessageError> {
    body_of(kind::RESYNC_OFFERS, count, body, OFFER).map(OpenOffers)
}

/// Writes which sessions were accepted.
pub fn encode_resync_accepted(
    buffer: &mut [u8; MAX_IDS],
    ids: impl Iterator<Item = ConnectionId>,
) -> &[u8] {
    encode_ids(buffer, kind::RESYNC_ACCEPTED, ids)
}

fn numbered(kind: u8, number: u64) -> [u8; HEADER + 8] {
    let mut bytes = [0; HEADER + 8];
    bytes[..HEADER].copy_from_slice(&header(kind, 1));
    bytes[HEADER..].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// The only record of its message.
pub(super) fn decode_number(kind: u8, count: u16, body: &[u8]) -> Result<u64, MessageError> {
    match body_of(kind, count, body, 8) {
        Ok(_) if count == 1 => Ok(u64_at(body, 0)),
        Ok(_) => Err(MessageError::Length { kind, count, length: HEADER + body.len() }),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::message::{ToPrimary, ToWorker, decode_to_primary, decode_to_worker};

    proptest! {
        #[test]
        fn a_report_survives_the_wire(
            number: u64, ids in prop::collection::vec(any::<u64>(), 1..=BATCH),
        ) {
            let asked = encode_resync(number);
            let asked = decode_to_worker(&asked).unwrap();
            prop_assert!(matches!(asked, ToWorker::Resync(got) if got == number));
            let done = encode_resync_done(number);
            let done = decode_to_primary(&done).unwrap();
            prop_assert!(matches!(done, ToPrimary::ResyncDone(got) if got == number));
            let sent = || ids.iter().copied().map(ConnectionId);
            let offers = || sent().map(|id| (id, Timestamp(id.0.wrapping_mul(3))));
            let mut buffer = [0xff; MAX_OPEN_OFFERS];
            let ToPrimary::ResyncOffers(got) =
                decode_to_primary(encode_resync_offers(&mut buffer, offers())).unwrap() else { panic!() };
            prop_assert!(got.iter().eq(offers()));
            let mut buffer = [0xff; MAX_IDS];
            let ToPrimary::ResyncAccepted(got) =
                decode_to_primary(encode_resync_accepted(&mut buffer, sent())).unwrap() else { panic!() };
            prop_assert!(got.iter().eq(sent()));
        }
    }

    #[test]
    fn a_question_stands_where_the_documentation_says() {
        assert_eq!(&encode_resync(0x0102), b"SL\x01\x0a\x01\0\0\0\x02\x01\0\0\0\0\0\0");
        assert_eq!(&encode_resync_done(1), b"SL\x01\x8c\x01\0\0\0\x01\0\0\0\0\0\0\0");
        for (count, length) in [(0, 0), (0, 8), (2, 16), (1, 7)] {
            let bytes = [&header(kind::RESYNC, count)[..], &vec![0; length]].concat();
            assert!(matches!(decode_to_worker(&bytes), Err(MessageError::Length { .. })));
        }
    }
}
