//! Messages by which a worker reports its sessions to a primary that follows another.
//!
//! Each session is named by its id and the tag of its record. Ids are small numbers in a row: one who names the
//! tag as well has had the session.

use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::{BATCH, HEADER, MessageError, body_of, header, kind, u64_at};

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

/// Bytes of an offer's id, time and tag.
const OFFER: usize = 24;

/// Bytes of an accepted session's id and tag.
const ACCEPTED: usize = 16;

/// Bytes of the longest message of open offers.
pub const MAX_OPEN_OFFERS: usize = HEADER + BATCH * OFFER;

/// Bytes of the longest message of accepted sessions.
pub const MAX_ACCEPTED_SESSIONS: usize = HEADER + BATCH * ACCEPTED;

/// The open offers of one message: which session, when it was offered, and its tag.
#[derive(Clone, Copy, Debug)]
pub struct OpenOffers<'a>(&'a [u8]);

impl<'a> OpenOffers<'a> {
    /// In order.
    pub fn iter(self) -> impl Iterator<Item = (ConnectionId, Timestamp, u64)> + 'a {
        self.0.chunks_exact(OFFER).map(|offer| {
            (ConnectionId(u64_at(offer, 0)), Timestamp(u64_at(offer, 8)), u64_at(offer, 16))
        })
    }
}

/// The accepted sessions of one message: which session, and its tag.
#[derive(Clone, Copy, Debug)]
pub struct AcceptedSessions<'a>(&'a [u8]);

impl<'a> AcceptedSessions<'a> {
    /// In order.
    pub fn iter(self) -> impl Iterator<Item = (ConnectionId, u64)> + 'a {
        let sessions = self.0.chunks_exact(ACCEPTED);
        sessions.map(|session| (ConnectionId(u64_at(session, 0)), u64_at(session, 8)))
    }
}

/// Writes which offers are not answered, when they were made, and the sessions' tags. Those beyond
/// [`BATCH`] are left out, as sessions are below.
pub fn encode_resync_offers(
    buffer: &mut [u8; MAX_OPEN_OFFERS],
    offers: impl Iterator<Item = (ConnectionId, Timestamp, u64)>,
) -> &[u8] {
    let mut count: u16 = 0;
    let (head, body) = buffer.split_at_mut(HEADER);
    for (bytes, (id, at, tag)) in body.chunks_exact_mut(OFFER).zip(offers) {
        bytes[..8].copy_from_slice(&id.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&at.0.to_le_bytes());
        bytes[16..].copy_from_slice(&tag.to_le_bytes());
        count += 1;
    }
    head.copy_from_slice(&header(kind::RESYNC_OFFERS, count));
    &buffer[..HEADER + usize::from(count) * OFFER]
}

pub(super) fn decode_open_offers(count: u16, body: &[u8]) -> Result<OpenOffers<'_>, MessageError> {
    body_of(kind::RESYNC_OFFERS, count, body, OFFER).map(OpenOffers)
}

/// Writes which sessions were accepted, and their tags.
pub fn encode_resync_accepted(
    buffer: &mut [u8; MAX_ACCEPTED_SESSIONS],
    sessions: impl Iterator<Item = (ConnectionId, u64)>,
) -> &[u8] {
    let mut count: u16 = 0;
    let (head, body) = buffer.split_at_mut(HEADER);
    for (bytes, (id, tag)) in body.chunks_exact_mut(ACCEPTED).zip(sessions) {
        bytes[..8].copy_from_slice(&id.0.to_le_bytes());
        bytes[8..].copy_from_slice(&tag.to_le_bytes());
        count += 1;
    }
    head.copy_from_slice(&header(kind::RESYNC_ACCEPTED, count));
    &buffer[..HEADER + usize::from(count) * ACCEPTED]
}

pub(super) fn decode_accepted(
    count: u16,
    body: &[u8],
) -> Result<AcceptedSessions<'_>, MessageError> {
    body_of(kind::RESYNC_ACCEPTED, count, body, ACCEPTED).map(AcceptedSessions)
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
            number: u64, sessions in prop::collection::vec(any::<(u64, u64, u64)>(), 1..=BATCH),
        ) {
            let asked = encode_resync(number);
            let asked = decode_to_worker(&asked).unwrap();
            prop_assert!(matches!(asked, ToWorker::Resync(got) if got == number));
            let done = encode_resync_done(number);
            let done = decode_to_primary(&done).unwrap();
            prop_assert!(matches!(done, ToPrimary::ResyncDone(got) if got == number));
            let sent = || sessions.iter().copied();
            let offers = || sent().map(|(id, at, tag)| (ConnectionId(id), Timestamp(at), tag));
            let accepted = || sent().map(|(id, _, tag)| (ConnectionId(id), tag));
            let mut buffer = [0xff; MAX_OPEN_OFFERS];
            let ToPrimary::ResyncOffers(got) =
                decode_to_primary(encode_resync_offers(&mut buffer, offers())).unwrap() else { panic!() };
            prop_assert!(got.iter().eq(offers()));
            let mut buffer = [0xff; MAX_ACCEPTED_SESSIONS];
            let ToPrimary::ResyncAccepted(got) =
                decode_to_primary(encode_resync_accepted(&mut buffer, accepted())).unwrap() else { panic!() };
            prop_assert!(got.iter().eq(accepted()));
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

    #[test]
    fn a_session_stands_where_the_documentation_says() {
        let offers = [(ConnectionId(1), Timestamp(2), 3)].into_iter();
        assert_eq!(
            encode_resync_offers(&mut [0xff; MAX_OPEN_OFFERS], offers),
            b"SL\x01\x8a\x01\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0",
        );
        let accepted = [(ConnectionId(1), 3)].into_iter();
        assert_eq!(
            encode_resync_accepted(&mut [0xff; MAX_ACCEPTED_SESSIONS], accepted),
            b"SL\x01\x8b\x01\0\0\0\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0",
        );
        for (kind, count, length) in [
            (kind::RESYNC_OFFERS, 0, 0),
            (kind::RESYNC_OFFERS, 1, 16),
            (kind::RESYNC_ACCEPTED, 0, 0),
            (kind::RESYNC_ACCEPTED, 1, 8),
        ] {
            let bytes = [&header(kind, count)[..], &vec![0; length]].concat();
            assert!(matches!(decode_to_primary(&bytes), Err(MessageError::Length { .. })));
        }
    }
}
