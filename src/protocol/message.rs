//! The wire format between the primary and one worker: every byte of it.
//!
//! Never does I/O and never allocates: it turns values into bytes and back.
//!
//! # The channel
//!
//! A worker finds in `STICKY_LB_CHANNEL` the number of an inherited descriptor: its end of an
//! `AF_UNIX` `SOCK_SEQPACKET` socket pair. One `sendmsg` is one message; boundaries are kept. All
//! numbers are little-endian. Every message opens with a header of 8 bytes:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 2 | `"SL"` |
//! | 2 | 1 | version of the protocol: 1 |
//! | 3 | 1 | kind of the message, below |
//! | 4 | 2 | count of the records that follow, 0 where a kind has none |
//! | 6 | 2 | zero |
//!
//! ## To the worker
//!
//! | kind | name | records | descriptors |
//! |---|---|---|---|
//! | `0x01` | connections | `count` (1 to 64) of 80 bytes each | `count`, in the same order |
//! | `0x02` | ping | none | none |
//! | `0x03` | session: one that migrates here | one of 80 bytes, then its image | the socket, or socket and image |
//! | `0x04` | drain | one of 8 bytes | none |
//! | `0x05` | moved: these sessions are another worker's now | `count` (1 to 64) ids of 8 bytes | none |
//! | `0x06` | returned: no worker has taken these sessions | as `0x05` | none |
//! | `0x07` | move: offer these sessions | as `0x05` | none |
//! | `0x08` | list-sessions: which sessions could migrate? | none | none |
//! | `0x09` | close-grant: so many clients may be closed now | one of 8 bytes: their number (4), zero | none |
//! | `0x0a` | resync: report the sessions to a primary that follows another | one of 8 bytes: the question's number | none |
//!
//! Only `0x01` and `0x02` go to a worker that hasn't said `sessions`.
//!
//! A connection's record:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | id, unique as long as the primary lives |
//! | 8 | 8 | time of accept: `CLOCK_MONOTONIC` in nanoseconds |
//! | 16 | 8 | affinity key: the same number for the same client |
//! | 24 | 24 | client address |
//! | 48 | 24 | address that the primary listens on; if that is everywhere (`::` or `0.0.0.0`), getsockname(2) says which one the client connected to |
//! | 72 | 8 | tag: the primary knows its record by it. A record that goes back to it goes unchanged |
//!
//! An address: family (1 byte: 4 or 6), one zero byte, port (2), IPv6 scope id (4, else zero),
//! then 16 bytes of IP address in network order, of which IPv4 uses the first 4.
//!
//! An order to drain: mode (1 byte: 0 wait, 1 close, 2 migrate), reason (1 byte: 0 restart, 1 going
//! away), two zero bytes, the time until the worker is killed in milliseconds (4).
//!
//! For a worker that hasn't said `sessions`, end of file is the order to drain. Either is a barrier: no
//! connection comes after it, though sessions may return. At the end of file, if the scoreboard
//! counts no order to drain, the primary is gone: no other process has the worker's clients, and it
//! serves them for another `STICKY_LB_ORPHAN_TIMEOUT` milliseconds before it drains.
//!
//! ## To the primary
//!
//! | kind | name | records |
//! |---|---|---|
//! | `0x81` | hello: the first message of all | none |
//! | `0x82` | ready: connections may come | none |
//! | `0x83` | refuse: not taken, for another worker | `count` (1 to 64) ids of 8 bytes |
//! | `0x84` | pong: the answer to a ping | none |
//! | `0x85` | replace-me: asks to be drained and replaced | none |
//! | `0x86` | session: an offer to migrate it | one of 80 bytes, then its image |
//! | `0x87` | sessions: can migrate them and take them; between hello and ready | none |
//! | `0x88` | session-list: sessions that could migrate | `count` (0 to 64) of 16 bytes: id, affinity key; 0 ends the list |
//! | `0x89` | close-request: asks to close clients | one of 8 bytes: their number (4), within so many milliseconds (4) |
//! | `0x8a` | resync-offers: sessions that it has offered and that are not answered | `count` (1 to 64) of 24 bytes: id; when it was offered: `CLOCK_MONOTONIC` in nanoseconds, before it was sent; tag of its record |
//! | `0x8b` | resync-accepted: sessions that it took, of the last 1,024 | `count` (1 to 64) of 16 bytes: id, tag of its record |
//! | `0x8c` | resync-done: the end of the answer | one of 8 bytes: the question's number |
//! | `0x8d` | checkpoint: the memory of protected sessions | none |
//! | `0x8e` | protect: if this worker dies, these sessions are to go on | `count` (1 to 64) of 88 bytes: a connection's 80, then the place of its entry (8) |
//! | `0x8f` | unprotect: these sessions are protected no more | `count` (1 to 64) ids of 8 bytes |
//! | `0x90` | migration-failed: its handlers have closed these sessions, which it had just taken | as `0x8f` |
//! | `0x91` | session: as `0x86`, with how far its socket had been used when it was offered | one of 80 bytes; bytes read (8), bytes written and what the handshake counts (8); then its image |
//!
//! Descriptors come with `0x86` and `0x91`, with `0x8d` (the checkpoint's memfd) and `0x8e` (the sockets) alone.
//! Acknowledgements take no message: they are
//! a counter on the [scoreboard](crate::protocol::scoreboard), which costs neither side a system
//! call.
//!
//! # What a worker must do
//!
//! * Acknowledge a connection **before** its first read of the socket, by adding one to the
//!   scoreboard's *completed*. Until then the primary may give it to another worker; from then on it is
//!   the worker's alone. Connections are completed in the order in which they came.
//! * Refuse those for which no descriptor arrived. The kernel delivers fewer than were sent, and
//!   sets `MSG_CTRUNC`, when the worker is at its descriptor limit. Those that did arrive are the
//!   first of the message. In this order: send the refusal, add the count to *refused*, then to
//!   *completed*.
//! * Answer a ping with a pong, from the loop that takes the connections.
//! * Receive with `MSG_CMSG_CLOEXEC`, into 64 descriptors' room, 8 + 80 + 16,384 bytes of data.
//!
//! # Sessions
//!
//! A session is a client's socket at rest between two messages and an *image*: bytes that one worker
//! writes and another reads, and that the primary only carries. An image of up to 16 KiB follows the
//! record in the message; a longer one, to 16 MiB and some, is the content of a sealed memfd, the
//! message's second descriptor, and nothing follows the record. A worker that offers a session keeps a copy
//! of both until it receives `moved` or `returned`; 256 offers may wait for an answer at a time. A worker that
//! receives one from the primary completes it as it does a connection, in the same order; one whose socket isn't
//! that of the client in its record it closes, and sends `migration-failed`. One that hasn't
//! migrated within `STICKY_LB_MIGRATE_TIMEOUT` milliseconds is closed instead.
//!
//! A worker that finds `STICKY_LB_OFFER_PROGRESS=1` may offer by `0x91`: if the next worker dies before it has
//! completed the session, the primary compares the numbers with the
//! [kernel's counters](crate::protocol::tcp_progress), and gives an untouched session to another worker. One that
//! was offered by `0x86` is closed then.
//!
//! # Protected sessions
//!
//! A worker that finds `STICKY_LB_PROTECT=1` and migrates sessions may have some protected. It sends its
//! [checkpoint](crate::protocol::checkpoint) once, then a copy of each such session's socket with the place of
//! its entry. When the worker dies, the primary compares the entry with the kernel's counters of the
//! socket. If both agree, nothing was read or written since the entry was published: the session
//! goes to another worker, with the image of the entry, as a session that migrates. Else it is closed.
//!
//! * An offer ends the protection. A session that returns, or comes from another worker, is
//!   protected again before it is completed.
//! * As the primary has a copy, closing ends nothing: a worker that closes such a session ends it by
//!   `shutdown(2)`, and sends `unprotect`.
//! * Only a worker that finds `STICKY_LB_PROTECT_SEVERAL=1` may protect more than one by a message.
//! * `protect` of a protected session replaces the earlier one. A session for which the primary has no
//!   descriptors is not protected, without an answer.
//!
//! A worker that drains may get the order to drain again, with less time or another reason: the last
//! one counts.
//!
//! # Another primary
//!
//! The primary may be replaced behind the channel: by its successor, or, after a crash, by one that
//! knows only what the worker reports. Workers that haven't said `sessions` get a ping and answer it as
//! always. The others get a `resync`, and answer with these, in this order, each as often as it
//! takes:
//!
//! 1. `resync-offers`, with every session that waits for `moved` or `returned`. One whose message was not sent
//!    before is not among them; none whose message was sent is missing.
//! 2. `close-request`, with the rest of its last one and of the time for it, if there is any.
//! 3. `resync-accepted`, with the sessions that it took from the primary, the last 1,024 of them. One that it
//!    gave to another worker since, and has received `moved` for, is not among them.
//! 4. `resync-done`, with the number of the question.
//!
//! A session is accepted only if both its id and its tag are those of the offer: nobody takes a session that it
//! never had.
//!
//! A session that was offered before a resync and has `returned` after it is the worker's own only if the
//! kernel's counters of its socket are what they were when it was offered
//! ([`untouched`](crate::protocol::tcp_progress)): the primary that could have told which other worker had it is
//! dead. If not, the worker lets go of it as if it had `moved`.

use std::time::Duration;

use crate::protocol::drain::DrainOrder;
use crate::protocol::tcp_progress::TcpProgress;

mod error;
mod ids;
mod migration;
mod protect;
mod record;
mod resync;

pub use error::MessageError;
pub use ids::{Ids, encode_migration_failed, encode_refuse};
pub use protect::{
    MAX_PROTECT, PROTECT, PlacedSessions, encode_protect, encode_protect_several, encode_unprotect,
};

pub use migration::{
    Keys, encode_close_grant, encode_close_request, encode_drain, encode_move, encode_moved,
    encode_offer, encode_offer_with_progress, encode_returned, encode_session, encode_session_list,
};
pub use record::{ConnectionRecord, Records};
pub use resync::{
    AcceptedSessions, MAX_ACCEPTED_SESSIONS, MAX_OPEN_OFFERS, OpenOffers, encode_resync,
    encode_resync_accepted, encode_resync_done, encode_resync_offers,
};

use ids::{decode_ids, encode_ids};
use migration::{
    decode_drain, decode_offer_with_progress, decode_session, decode_session_list, pair,
};
use protect::decode_protect;
use record::{decode_record, encode_record};
use resync::{decode_accepted, decode_number, decode_open_offers};

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 1;

/// How many connections, and so descriptors, one message carries at the most. The kernel's own
/// limit is 253 (`SCM_MAX_FD`).
pub const BATCH: usize = 64;

/// Bytes of a message's header.
pub const HEADER: usize = 8;

/// Bytes of one connection's record.
pub const RECORD: usize = 80;

/// Bytes of an image that follow a session's record at the most; a longer one takes a memfd.
pub const MAX_INLINE_IMAGE: usize = 16 * 1024;

/// Bytes that a session travels with at the most: a state of 16 MiB, and the rest of its image beside it.
pub const MAX_IMAGE: u64 = 17 << 20;

/// Offers of a worker that may wait for an answer at a time.
pub const MAX_SESSIONS: usize = 256;

/// Sessions that a worker remembers to have accepted.
pub const MAX_ACCEPTED: usize = 1024;

/// Bytes of the longest message to a worker: a session.
pub const MAX_TO_WORKER: usize = HEADER + RECORD + MAX_INLINE_IMAGE;

/// Bytes of the longest message to the primary: a session, and how far its socket has been used.
pub const MAX_TO_PRIMARY: usize = MAX_TO_WORKER + PROGRESS;

/// Bytes that say how far a socket has been used.
const PROGRESS: usize = 16;

/// Bytes of the longest message of ids.
pub const MAX_IDS: usize = HEADER + BATCH * 8;

const MAGIC: [u8; 2] = *b"SL";

/// A message to the worker.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ToWorker<'a> {
    /// Connections, as many descriptors beside them.
    Connections(Records<'a>),
    /// Is the worker's loop alive?
    Ping,
    /// A session that migrates here: its connection and its image, empty if that is a memfd.
    Session(ConnectionRecord, &'a [u8]),
    /// Drain.
    Drain(DrainOrder),
    /// These sessions are another worker's now.
    Moved(Ids<'a>),
    /// No worker has taken these sessions.
    Returned(Ids<'a>),
    /// Offer these sessions.
    Move(Ids<'a>),
    /// Which sessions could migrate?
    ListSessions,
    /// So many clients may be closed now.
    CloseGrant(u32),
    /// Report the sessions, and this number at the end.
    Resync(u64),
}

/// A message to the primary.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ToPrimary<'a> {
    /// The worker has attached.
    Hello,
    /// Connections may come.
    Ready,
    /// The worker did not take these.
    Refuse(Ids<'a>),
    /// The loop is alive.
    Pong,
    /// The worker asks to be drained and replaced.
    ReplaceMe,
    /// An offer to migrate a session: its connection, how far its socket has been used, if the worker says so,
    /// and its image, empty if that is a memfd.
    Session(ConnectionRecord, Option<TcpProgress>, &'a [u8]),
    /// The worker can migrate sessions and take them.
    Sessions,
    /// Sessions that could migrate; none ends the list.
    SessionList(Keys<'a>),
    /// The worker asks to close so many clients within that time.
    CloseRequest(u32, Duration),
    /// Sessions that it has offered and that are not answered.
    ResyncOffers(OpenOffers<'a>),
    /// Sessions that it took.
    ResyncAccepted(AcceptedSessions<'a>),
    /// The end of the answer to the resync of this number.
    ResyncDone(u64),
    /// The memory of the worker's protected sessions.
    Checkpoint,
    /// Protect these sessions: as many descriptors beside them.
    Protect(PlacedSessions<'a>),
    /// Protect these sessions no more.
    Unprotect(Ids<'a>),
    /// The worker's handlers have closed these sessions, which it had just taken.
    MigrationFailed(Ids<'a>),
}

mod kind {
    pub(super) const CONNECTIONS: u8 = 0x01;
    pub(super) const PING: u8 = 0x02;
    pub(super) const SESSION: u8 = 0x03;
    pub(super) const DRAIN: u8 = 0x04;
    pub(super) const MOVED: u8 = 0x05;
    pub(super) const RETURNED: u8 = 0x06;
    pub(super) const MOVE: u8 = 0x07;
    pub(super) const LIST_SESSIONS: u8 = 0x08;
    pub(super) const CLOSE_GRANT: u8 = 0x09;
    pub(super) const RESYNC: u8 = 0x0a;
    pub(super) const HELLO: u8 = 0x81;
    pub(super) const READY: u8 = 0x82;
    pub(super) const REFUSE: u8 = 0x83;
    pub(super) const PONG: u8 = 0x84;
    pub(super) const REPLACE_ME: u8 = 0x85;
    pub(super) const OFFER: u8 = 0x86;
    pub(super) const SESSIONS: u8 = 0x87;
    pub(super) const SESSION_LIST: u8 = 0x88;
    pub(super) const CLOSE_REQUEST: u8 = 0x89;
    pub(super) const RESYNC_OFFERS: u8 = 0x8a;
    pub(super) const RESYNC_ACCEPTED: u8 = 0x8b;
    pub(super) const RESYNC_DONE: u8 = 0x8c;
    pub(super) const CHECKPOINT: u8 = 0x8d;
    pub(super) const PROTECT: u8 = 0x8e;
    pub(super) const UNPROTECT: u8 = 0x8f;
    pub(super) const MIGRATION_FAILED: u8 = 0x90;
    pub(super) const OFFER_WITH_PROGRESS: u8 = 0x91;
}

/// A ping.
pub const PING: [u8; HEADER] = header(kind::PING, 0);
/// A hello.
pub const HELLO: [u8; HEADER] = header(kind::HELLO, 0);
/// A ready.
pub const READY: [u8; HEADER] = header(kind::READY, 0);
/// A pong.
pub const PONG: [u8; HEADER] = header(kind::PONG, 0);
/// A request to be replaced.
pub const REPLACE_ME: [u8; HEADER] = header(kind::REPLACE_ME, 0);
/// The worker can migrate sessions.
pub const SESSIONS: [u8; HEADER] = header(kind::SESSIONS, 0);
/// The checkpoint's message.
pub const CHECKPOINT: [u8; HEADER] = header(kind::CHECKPOINT, 0);
/// A request for the session list.
pub const LIST_SESSIONS: [u8; HEADER] = header(kind::LIST_SESSIONS, 0);

#[expect(clippy::cast_possible_truncation, reason = "the low and the high byte are what is meant")]
const fn header(kind: u8, count: u16) -> [u8; HEADER] {
    [MAGIC[0], MAGIC[1], VERSION, kind, count as u8, (count >> 8) as u8, 0, 0]
}

/// Writes a message of connections and returns its bytes. Records beyond [`BATCH`] are left out.
pub fn encode_connections<'a>(
    buffer: &mut [u8; MAX_TO_WORKER],
    records: impl Iterator<Item = &'a ConnectionRecord>,
) -> &[u8] {
    let mut count: u16 = 0;
    let (head, body) = buffer.split_at_mut(HEADER);
    for (bytes, record) in body.chunks_exact_mut(RECORD).take(BATCH).zip(records) {
        encode_record(bytes, record);
        count += 1;
    }
    head.copy_from_slice(&header(kind::CONNECTIONS, count));
    &buffer[..HEADER + usize::from(count) * RECORD]
}

/// Reads a message to the worker.
///
/// # Errors
///
/// If the bytes are not exactly one such message of this version.
pub fn decode_to_worker(bytes: &[u8]) -> Result<ToWorker<'_>, MessageError> {
    let (kind, count, body) = split(bytes)?;
    match kind {
        kind::CONNECTIONS => {
            let records = body_of(kind, count, body, RECORD)?;
            for record in records.chunks_exact(RECORD) {
                decode_record(record)?;
            }
            Ok(ToWorker::Connections(Records(records)))
        }
        kind::PING => body_of(kind, count, body, 0).map(|_| ToWorker::Ping),
        kind::SESSION => decode_session(kind, count, body)
            .map(|(record, image)| ToWorker::Session(record, image)),
        kind::DRAIN => decode_drain(count, body).map(ToWorker::Drain),
        kind::MOVED => decode_ids(kind, count, body).map(ToWorker::Moved),
        kind::RETURNED => decode_ids(kind, count, body).map(ToWorker::Returned),
        kind::MOVE => decode_ids(kind, count, body).map(ToWorker::Move),
        kind::LIST_SESSIONS => body_of(kind, count, body, 0).map(|_| ToWorker::ListSessions),
        kind::CLOSE_GRANT => pair(kind, count, body).map(|(count, _)| ToWorker::CloseGrant(count)),
        kind::RESYNC => decode_number(kind, count, body).map(ToWorker::Resync),
        unknown => Err(MessageError::Kind(unknown)),
    }
}

/// Reads a message to the primary.
///
/// # Errors
///
/// If the bytes are not exactly one such message of this version.
pub fn decode_to_primary(bytes: &[u8]) -> Result<ToPrimary<'_>, MessageError> {
    let (kind, count, body) = split(bytes)?;
    let bare = |message| body_of(kind, count, body, 0).map(|_| message);
    match kind {
        kind::HELLO => bare(ToPrimary::Hello),
        kind::READY => bare(ToPrimary::Ready),
        kind::PONG => bare(ToPrimary::Pong),
        kind::REPLACE_ME => bare(ToPrimary::ReplaceMe),
        kind::REFUSE => decode_ids(kind, count, body).map(ToPrimary::Refuse),
        kind::OFFER => decode_session(kind, count, body)
            .map(|(record, image)| ToPrimary::Session(record, None, image)),
        kind::OFFER_WITH_PROGRESS => decode_offer_with_progress(kind, count, body)
            .map(|(record, progress, image)| ToPrimary::Session(record, Some(progress), image)),
        kind::SESSIONS => bare(ToPrimary::Sessions),
        kind::SESSION_LIST => decode_session_list(count, body).map(ToPrimary::SessionList),
        kind::CLOSE_REQUEST => pair(kind, count, body).map(|(count, within)| {
            ToPrimary::CloseRequest(count, Duration::from_millis(within.into()))
        }),
        kind::RESYNC_OFFERS => decode_open_offers(count, body).map(ToPrimary::ResyncOffers),
        kind::RESYNC_ACCEPTED => decode_accepted(count, body).map(ToPrimary::ResyncAccepted),
        kind::RESYNC_DONE => decode_number(kind, count, body).map(ToPrimary::ResyncDone),
        kind::CHECKPOINT => bare(ToPrimary::Checkpoint),
        kind::PROTECT => decode_protect(count, body).map(ToPrimary::Protect),
        kind::UNPROTECT => decode_ids(kind, count, body).map(ToPrimary::Unprotect),
        kind::MIGRATION_FAILED => decode_ids(kind, count, body).map(ToPrimary::MigrationFailed),
        unknown => Err(MessageError::Kind(unknown)),
    }
}

fn split(bytes: &[u8]) -> Result<(u8, u16, &[u8]), MessageError> {
    let Some((&[m0, m1, version, kind, c0, c1, _, _], body)) = bytes.split_first_chunk::<HEADER>()
    else {
        return Err(MessageError::Short(bytes.len()));
    };
    if [m0, m1] != MAGIC {
        return Err(MessageError::Magic(m0, m1));
    }
    if version != VERSION {
        return Err(MessageError::Version(version));
    }
    Ok((kind, u16::from_le_bytes([c0, c1]), body))
}

/// The body, if it is `count` records of `size` bytes; a `size` of 0 means that there are none.
fn body_of(kind: u8, count: u16, body: &[u8], size: usize) -> Result<&[u8], MessageError> {
    let counted = usize::from(count);
    let right_count = if size == 0 { counted == 0 } else { (1..=BATCH).contains(&counted) };
    if right_count && body.len() == counted * size {
        return Ok(body);
    }
    Err(MessageError::Length { kind, count, length: HEADER + body.len() })
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests;
