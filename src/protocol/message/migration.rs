//! Messages that migrate sessions, drain workers and close clients.

use std::time::Duration;

use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::protocol::ids::{AffinityKey, ConnectionId};
use crate::protocol::message::{
    BATCH, ConnectionRecord, HEADER, MAX_IDS, MAX_INLINE_IMAGE, MAX_TO_PRIMARY, MAX_TO_WORKER,
    MessageError, PROGRESS, RECORD, body_of, decode_record, encode_ids, encode_record, header,
    kind, u64_at,
};
use crate::protocol::tcp_progress::TcpProgress;

/// Bytes of a session's id and key.
const KEY: usize = 16;

/// Bytes of the longest message of ids and keys.
const MAX_SESSION_LIST: usize = HEADER + BATCH * KEY;

/// The sessions of one message, with their affinity keys.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a>(&'a [u8]);

impl<'a> Keys<'a> {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub fn iter(self) -> impl Iterator<Item = (ConnectionId, AffinityKey)> + 'a {
        let pairs = self.0.chunks_exact(KEY);
        pairs.map(|pair| (ConnectionId(u64_at(pair, 0)), AffinityKey(u64_at(pair, 8))))
    }
}

/// Writes a session that migrates to a worker, and returns its bytes. An image longer than
/// [`MAX_INLINE_IMAGE`] is left out: it travels as a memfd.
pub fn encode_session<'a>(
    buffer: &'a mut [u8; MAX_TO_WORKER],
    record: &ConnectionRecord,
    image: &[u8],
) -> &'a [u8] {
    encode_parcel(buffer, kind::SESSION, record, &[], image)
}

/// Writes an offer of a session, as [`encode_session`].
pub fn encode_offer<'a>(
    buffer: &'a mut [u8; MAX_TO_PRIMARY],
    record: &ConnectionRecord,
    image: &[u8],
) -> &'a [u8] {
    encode_parcel(buffer, kind::OFFER, record, &[], image)
}

/// Writes an offer of a session whose socket has been used so far, as [`encode_session`].
pub fn encode_offer_with_progress<'a>(
    buffer: &'a mut [u8; MAX_TO_PRIMARY],
    record: &ConnectionRecord,
    progress: TcpProgress,
    image: &[u8],
) -> &'a [u8] {
    let (read, written) = progress.counts();
    let progress = [read.to_le_bytes(), written.to_le_bytes()];
    encode_parcel(buffer, kind::OFFER_WITH_PROGRESS, record, progress.as_flattened(), image)
}

fn encode_parcel<'a>(
    buffer: &'a mut [u8],
    kind: u8,
    record: &ConnectionRecord,
    progress: &[u8],
    image: &[u8],
) -> &'a [u8] {
    let image = if image.len() > MAX_INLINE_IMAGE { &[] } else { image };
    let image_at = HEADER + RECORD + progress.len();
    let end = image_at + image.len();
    buffer[..HEADER].copy_from_slice(&header(kind, 1));
    encode_record(&mut buffer[HEADER..HEADER + RECORD], record);
    buffer[HEADER + RECORD..image_at].copy_from_slice(progress);
    buffer[image_at..end].copy_from_slice(image);
    &buffer[..end]
}

pub(super) fn decode_session(
    kind: u8,
    count: u16,
    body: &[u8],
) -> Result<(ConnectionRecord, &[u8]), MessageError> {
    let length = HEADER + body.len();
    match body.split_at_checked(RECORD) {
        Some((record, image)) if count == 1 && image.len() <= MAX_INLINE_IMAGE => {
            Ok((decode_record(record)?, image))
        }
        _ => Err(MessageError::Length { kind, count, length }),
    }
}

pub(super) fn decode_offer_with_progress(
    kind: u8,
    count: u16,
    body: &[u8],
) -> Result<(ConnectionRecord, TcpProgress, &[u8]), MessageError> {
    let length = HEADER + body.len();
    let after_record = body.split_at_checked(RECORD);
    let parts =
        after_record.and_then(|(record, rest)| Some((record, rest.split_at_checked(PROGRESS)?)));
    match parts {
        Some((record, (progress, image))) if count == 1 && image.len() <= MAX_INLINE_IMAGE => {
            let progress = TcpProgress::new(u64_at(progress, 0), u64_at(progress, 8));
            Ok((decode_record(record)?, progress, image))
        }
        _ => Err(MessageError::Length { kind, count, length }),
    }
}

/// An order to drain. A time beyond 49 days counts as 49 days.
#[must_use]
pub fn encode_drain(order: DrainOrder) -> [u8; HEADER + 8] {
    let mode = match order.mode {
        DrainMode::Wait => 0,
        DrainMode::Close => 1,
        DrainMode::Migrate => 2,
    };
    let reason = match order.reason {
        DrainReason::Restart => 0,
        DrainReason::GoingAway => 1,
    };
    pair_of(kind::DRAIN, u32::from_le_bytes([mode, reason, 0, 0]), millis(order.window))
}

pub(super) fn decode_drain(count: u16, body: &[u8]) -> Result<DrainOrder, MessageError> {
    let (words, window) = pair(kind::DRAIN, count, body)?;
    let [mode, reason, _, _] = words.to_le_bytes();
    let unknown = MessageError::Drain(mode, reason);
    let mode = match mode {
        0 => DrainMode::Wait,
        1 => DrainMode::Close,
        2 => DrainMode::Migrate,
        _ => return Err(unknown),
    };
    let reason = match reason {
        0 => DrainReason::Restart,
        1 => DrainReason::GoingAway,
        _ => return Err(unknown),
    };
    Ok(DrainOrder { mode, reason, window: Duration::from_millis(window.into()) })
}

/// Writes which sessions have moved. Ids beyond [`BATCH`] are left out, here and below.
pub fn encode_moved(buffer: &mut [u8; MAX_IDS], ids: impl Iterator<Item = ConnectionId>) -> &[u8] {
    encode_ids(buffer, kind::MOVED, ids)
}

/// Writes which sessions no worker has taken.
pub fn encode_returned(
    buffer: &mut [u8; MAX_IDS],
    ids: impl Iterator<Item = ConnectionId>,
) -> &[u8] {
    encode_ids(buffer, kind::RETURNED, ids)
}

/// Writes which sessions are to be offered.
pub fn encode_move(buffer: &mut [u8; MAX_IDS], ids: impl Iterator<Item = ConnectionId>) -> &[u8] {
    encode_ids(buffer, kind::MOVE, ids)
}

/// Sessions that could migrate, [`BATCH`] at the most; without any, the end of the list.
#[must_use]
pub fn encode_session_list(sessions: &[(ConnectionId, AffinityKey)]) -> Vec<u8> {
    let sessions = &sessions[..sessions.len().min(BATCH)];
    let mut bytes = Vec::with_capacity(MAX_SESSION_LIST);
    bytes.extend(header(kind::SESSION_LIST, u16::try_from(sessions.len()).unwrap_or(0)));
    for (id, key) in sessions {
        bytes.extend(id.0.to_le_bytes());
        bytes.extend(key.0.to_le_bytes());
    }
    bytes
}

pub(super) fn decode_session_list(count: u16, body: &[u8]) -> Result<Keys<'_>, MessageError> {
    match count {
        0 => body_of(kind::SESSION_LIST, count, body, 0).map(Keys),
        _ => body_of(kind::SESSION_LIST, count, body, KEY).map(Keys),
    }
}

/// A request to close `count` clients within that time.
#[must_use]
pub fn encode_close_request(count: u32, within: Duration) -> [u8; HEADER + 8] {
    pair_of(kind::CLOSE_REQUEST, count, millis(within))
}

/// A grant to close `count` clients now.
#[must_use]
pub fn encode_close_grant(count: u32) -> [u8; HEADER + 8] {
    pair_of(kind::CLOSE_GRANT, count, 0)
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn pair_of(kind: u8, first: u32, second: u32) -> [u8; HEADER + 8] {
    let mut bytes = [0; HEADER + 8];
    bytes[..HEADER].copy_from_slice(&header(kind, 1));
    bytes[HEADER..HEADER + 4].copy_from_slice(&first.to_le_bytes());
    bytes[HEADER + 4..].copy_from_slice(&second.to_le_bytes());
    bytes
}

/// Two numbers, the only record of their message.
pub(super) fn pair(kind: u8, count: u16, body: &[u8]) -> Result<(u32, u32), MessageError> {
    let both = match body_of(kind, count, body, 8) {
        Ok(_) if count == 1 => u64_at(body, 0),
        Ok(_) => return Err(MessageError::Length { kind, count, length: HEADER + body.len() }),
        Err(error) => return Err(error),
    };
    let [a, b, c, d, e, f, g, h] = both.to_le_bytes();
    Ok((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::ids::Timestamp;
    use crate::protocol::message::{ToPrimary, ToWorker, decode_to_primary, decode_to_worker};

    fn record() -> ConnectionRecord {
        ConnectionRecord {
            id: ConnectionId(7),
            accepted_at: Timestamp(8),
            key: AffinityKey(9),
            client: "10.1.2.3:258".parse().unwrap(),
            local: "[2001:db8::1]:80".parse().unwrap(),
            tag: 7,
        }
    }

    proptest! {
        #[test]
        fn a_session_survives_the_wire_both_ways(
            image in prop::collection::vec(any::<u8>(), 0..=MAX_INLINE_IMAGE),
        ) {
            let mut buffer = [0xff; MAX_TO_WORKER];
            let bytes = encode_session(&mut buffer, &record(), &image);
            let ToWorker::Session(got, same) = decode_to_worker(bytes).unwrap() else {
                panic!("not a session")
            };
            prop_assert_eq!((got, same), (record(), &image[..]));
            let mut buffer = [0xff; MAX_TO_PRIMARY];
            let bytes = encode_offer(&mut buffer, &record(), &image);
            let ToPrimary::Session(got, None, same) = decode_to_primary(bytes).unwrap() else {
                panic!("not a session")
            };
            prop_assert_eq!((got, same), (record(), &image[..]));
            let progress = TcpProgress::new(image.len() as u64, 7);
            let bytes = encode_offer_with_progress(&mut buffer, &record(), progress, &image);
            let ToPrimary::Session(got, said, same) = decode_to_primary(bytes).unwrap() else {
                panic!("not a session")
            };
            prop_assert_eq!((got, said, same), (record(), Some(progress), &image[..]));
            let cut = &bytes[..HEADER + RECORD + PROGRESS - 1];
            let is_too_short = matches!(decode_to_primary(cut), Err(MessageError::Length { .. }));
            prop_assert!(is_too_short);
        }

        #[test]
        fn what_was_counted_survives_the_wire(
            sent in prop::collection::vec(any::<(u64, u64)>(), 0..=BATCH),
        ) {
            let sent: Vec<_> =
                sent.into_iter().map(|(id, key)| (ConnectionId(id), AffinityKey(key))).collect();
            let bytes = encode_session_list(&sent);
            let ToPrimary::SessionList(got) = decode_to_primary(&bytes).unwrap() else {
                panic!("nothing counted")
            };
            prop_assert_eq!(got.is_empty(), sent.is_empty());
            prop_assert_eq!(got.iter().collect::<Vec<_>>(), sent);
        }

        #[test]
        fn wishes_and_permissions_survive_the_wire(count in any::<u32>(), within in any::<u32>()) {
            let within = Duration::from_millis(within.into());
            let bytes = encode_close_request(count, within);
            let asked = decode_to_primary(&bytes).unwrap();
            prop_assert!(matches!(asked, ToPrimary::CloseRequest(c, w) if (c, w) == (count, within)));
            let bytes = encode_close_grant(count);
            let granted = decode_to_worker(&bytes).unwrap();
            prop_assert!(matches!(granted, ToWorker::CloseGrant(c) if c == count));
        }
    }

    #[test]
    fn an_order_to_drain_stands_where_the_documentation_says() {
        let window = Duration::from_millis(0x0102);
        let order = DrainOrder { mode: DrainMode::Close, reason: DrainReason::GoingAway, window };
        let bytes = encode_drain(order);
        assert_eq!(&bytes, b"SL\x01\x04\x01\0\0\0\x01\x01\0\0\x02\x01\0\0");
        let ToWorker::Drain(got) = decode_to_worker(&bytes).unwrap() else { panic!("no order") };
        assert_eq!(got, order);
        for (place, unknown) in [(8, 3), (9, 2)] {
            let mut bytes = bytes;
            bytes[place] = unknown;
            assert!(matches!(decode_to_worker(&bytes), Err(MessageError::Drain(..))));
        }
    }

    #[test]
    fn a_image_that_is_too_long_is_left_out() {
        let mut buffer = [0; MAX_TO_WORKER];
        let bytes = encode_session(&mut buffer, &record(), &[1; MAX_INLINE_IMAGE + 1]);
        assert_eq!(bytes.len(), HEADER + RECORD);
    }

    #[test]
    fn a_session_without_its_record_is_none() {
        for (count, body) in [(1, 79), (0, 80), (2, 160)] {
            let bytes = [&header(kind::OFFER, count)[..], &vec![0; body]].concat();
            assert!(matches!(decode_to_primary(&bytes), Err(MessageError::Length { .. })));
        }
    }
}
