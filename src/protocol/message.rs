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
//! | `0x01` | connections | `count` (1 to 64) of 72 bytes each | `count`, in the same order |
//! | `0x02` | ping | none | none |
//! | `0x03` | session: one that moved here | one of 72 bytes, then its parcel | the socket, or socket and parcel |
//! | `0x04` | drain | one of 8 bytes | none |
//! | `0x05` | moved: these sessions are another worker's now | `count` (1 to 64) ids of 8 bytes | none |
//! | `0x06` | returned: nobody has taken these sessions | as `0x05` | none |
//! | `0x07` | move: offer these sessions | as `0x05` | none |
//! | `0x08` | census: which sessions could move? | none | none |
//! | `0x09` | close: so many clients may be sent away now | one of 8 bytes: their number (4), zero | none |
//! | `0x0a` | report: say again what the primary has to know | one of 8 bytes: the question's number | none |
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
//! | 48 | 24 | local address, the one that the client connected to |
//!
//! An address: family (1 byte: 4 or 6), one zero byte, port (2), IPv6 scope id (4, else zero),
//! then 16 bytes of IP address in network order, of which IPv4 uses the first 4.
//!
//! An order to drain: mode (1 byte: 0 ride, 1 shed, 2 migrate), reason (1 byte: 0 restart, 1 going
//! away), two zero bytes, the time until the worker is killed in milliseconds (4).
//!
//! For a worker that hasn't said `sessions`, end of file is the order to drain. Either is a barrier: no
//! connection comes after it, though sessions may return. At the end of file, if the scoreboard
//! says that nobody has ordered it, the primary is gone: the worker's clients have nobody else, and it
//! serves them for another `STICKY_LB_ORPHAN_TIMEOUT` milliseconds before it drains.
//!
//! ## To the primary
//!
//! | kind | name | records |
//! |---|---|---|
//! | `0x81` | hello: the first message of all | none |
//! | `0x82` | ready: connections may come | none |
//! | `0x83` | refuse: not taken, give them to another worker | `count` (1 to 64) ids of 8 bytes |
//! | `0x84` | pong: the answer to a ping | none |
//! | `0x85` | leave: wants to be drained, and replaced | none |
//! | `0x86` | session: wants to move | one of 72 bytes, then its parcel |
//! | `0x87` | sessions: can move them and take them; between hello and ready | none |
//! | `0x88` | counted: some sessions that could move | `count` (0 to 64) of 16 bytes: id, affinity key; with 0, that was all |
//! | `0x89` | ask: wants to send clients away | one of 8 bytes: their number (4), within so many milliseconds (4) |
//! | `0x8a` | offers: sessions that it has offered and has heard nothing of | `count` (1 to 64) ids of 8 bytes |
//! | `0x8b` | taken: sessions that it took, of the last 1,024 | as `0x8a` |
//! | `0x8c` | reported: that was all that a report asks for | one of 8 bytes: the question's number |
//! | `0x8d` | ledger: of those who may be protected | none |
//! | `0x8e` | keep: if this worker dies, this session is to go on | one of 72 bytes, then the page of its entry (8) |
//! | `0x8f` | forget: these sessions needn't be kept any more | `count` (1 to 64) ids of 8 bytes |
//!
//! Descriptors come with `0x86`, with `0x8d` (the ledger's memfd) and `0x8e` (the socket) alone.
//! Acknowledgements take no message: they are
//! a counter on the [scoreboard](crate::protocol::scoreboard), which costs neither side a system
//! call.
//!
//! # What a worker must do
//!
//! * Acknowledge a connection **before** its first read of the socket, by adding one to the
//!   scoreboard's *settled*. Until then the primary may give it to somebody else; from then on it is
//!   the worker's alone. Connections are settled in the order in which they came.
//! * Refuse those for which no descriptor arrived. The kernel delivers fewer than were sent, and
//!   sets `MSG_CTRUNC`, when the worker is at its descriptor limit. Those that did arrive are the
//!   first of the message. In this order: send the refusal, add the count to *refused*, then to
//!   *settled*.
//! * Answer a ping with a pong, from the loop that takes the connections.
//! * Receive with `MSG_CMSG_CLOEXEC`, into 64 descriptors' room, 8 + 72 + 16,384 bytes of data.
//!
//! # Sessions
//!
//! A session is a client's socket at rest between two messages and a *parcel*: bytes that one worker
//! writes and another reads, and that the primary only carries. A parcel of up to 16 KiB follows the
//! record in the message; a longer one, to 16 MiB and some, is the content of a sealed memfd, the
//! message's second descriptor, and nothing follows the record. Whoever sends a session to the
//! primary keeps a copy of both until it hears `moved` or `returned`, which 256 may wait for at a
//! time. Whoever gets one from the primary settles it as it does a connection, in the same order. One that hasn't moved within
//! `STICKY_LB_MIGRATE_TIMEOUT` milliseconds is closed instead.
//!
//! # Sessions that survive their worker
//!
//! A worker that finds `STICKY_LB_PROTECT=1` and moves sessions may have some kept. It sends its
//! [ledger](crate::protocol::checkpoint) once, then a copy of each such session's socket with the page of
//! its entry. When the worker dies, the primary compares the entry with what the kernel has counted on
//! the socket. If both agree, nothing was read or written since the entry was published: the session
//! goes to another worker, with the parcel of the entry, as a session that moves. Else it is closed.
//!
//! * What is offered is forgotten by that. A session that comes back, or comes from another worker, is
//!   kept anew, before it is settled.
//! * As the primary has a copy, closing ends nothing: whoever closes such a session ends it by
//!   `shutdown(2)`, and says `forget`.
//! * `keep` of one that is kept already replaces what was said before. What the primary has no
//!   descriptors for it doesn't keep, and says nothing.
//!
//! A worker that drains may get the order to drain again, with less time or another reason: the last
//! one counts.
//!
//! # Another primary
//!
//! The primary may be replaced behind the channel: by its successor, or, after a crash, by one that
//! knows only what the worker tells it. Workers that haven't said `sessions` get a ping and answer it as
//! always. The others get a `report`, and answer with these, in this order, each as often as it
//! takes:
//!
//! 1. `offers`, with every session that waits for `moved` or `returned`. One whose message was not sent
//!    before is not among them; none whose message was sent is missing.
//! 2. `ask`, with what is left of its wish to send clients away and of the time for it, if there is any.
//! 3. `taken`, with the sessions that it took from the primary, the last 1,024 of them. One that it gave
//!    on to another worker since, and has heard `moved` of, is not among them.
//! 4. `reported`, with the number of the question.
//!
//! A session that was offered before a report and has `returned` after it is the worker's own only if the
//! kernel's counters of its socket are what they were when it was offered
//! ([`untouched`](crate::protocol::tcp_progress)): the primary that could have told who else had it is dead.
//! If not, the worker lets go of it as if it had `moved`.

use std::time::Duration;

use crate::protocol::drain::DrainOrder;

mod error;
mod ids;
mod migration;
mod protect;
mod record;
mod resync;

pub use error::MessageError;
pub use ids::{Ids, encode_refuse};
pub use protect::{KEEP, encode_forget, encode_keep};

pub use migration::{
    Keys, encode_ask, encode_close, encode_counted, encode_drain, encode_move, encode_moved,
    encode_offer, encode_returned, encode_session,
};
pub use record::{ConnectionRecord, Records};
pub use resync::{encode_offers, encode_report, encode_reported, encode_taken};

use ids::{decode_ids, encode_ids};
use migration::{decode_counted, decode_drain, decode_session, pair};
use protect::decode_keep;
use record::{decode_record, encode_record};
use resync::decode_number;

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 1;

/// How many connections, and so descriptors, one message carries at the most. The kernel's own
/// limit is 253 (`SCM_MAX_FD`).
pub const BATCH: usize = 64;

/// Bytes of a message's header.
pub const HEADER: usize = 8;

/// Bytes of one connection's record.
pub const RECORD: usize = 72;

/// Bytes of a parcel that follow a session's record at the most; a longer one takes a memfd.
pub const PARCEL_INLINE: usize = 16 * 1024;

/// Sessions that a worker may have offered and not been answered for.
pub const MAX_SESSIONS: usize = 256;

/// Sessions that a worker remembers to have taken.
pub const MOST_TAKEN: usize = 1024;

/// Bytes of the longest message to a worker: a session.
pub const MAX_TO_WORKER: usize = HEADER + RECORD + PARCEL_INLINE;

/// Bytes of the longest message to the primary: a session.
pub const MAX_TO_PRIMARY: usize = MAX_TO_WORKER;

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
    /// A session that moved here: its connection and its parcel, empty if that is a memfd.
    Session(ConnectionRecord, &'a [u8]),
    /// Drain.
    Drain(DrainOrder),
    /// These sessions are another worker's now.
    Moved(Ids<'a>),
    /// Nobody has taken these sessions.
    Returned(Ids<'a>),
    /// Offer these sessions.
    Move(Ids<'a>),
    /// Which sessions could move?
    Census,
    /// So many clients may be sent away now.
    Close(u32),
    /// Say again what the primary has to know, and this number at the end.
    Report(u64),
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
    /// The worker wants to be drained and replaced.
    Leave,
    /// A session that wants to move: its connection and its parcel, empty if that is a memfd.
    Session(ConnectionRecord, &'a [u8]),
    /// The worker can move sessions and take them.
    Sessions,
    /// Some sessions that could move; none: that was all.
    Counted(Keys<'a>),
    /// The worker wants to send so many clients away within that time.
    Ask(u32, Duration),
    /// Sessions that it has offered and has heard nothing of.
    Offers(Ids<'a>),
    /// Sessions that it took.
    Taken(Ids<'a>),
    /// That was all that the report of this number asks for.
    Reported(u64),
    /// Where the worker writes down what is to survive it.
    Ledger,
    /// A session that is to survive the worker: its connection, and the page of its entry.
    Keep(ConnectionRecord, u64),
    /// These sessions needn't survive the worker any more.
    Forget(Ids<'a>),
}

mod kind {
    pub(super) const CONNECTIONS: u8 = 0x01;
    pub(super) const PING: u8 = 0x02;
    pub(super) const SESSION: u8 = 0x03;
    pub(super) const DRAIN: u8 = 0x04;
    pub(super) const MOVED: u8 = 0x05;
    pub(super) const RETURNED: u8 = 0x06;
    pub(super) const MOVE: u8 = 0x07;
    pub(super) const CENSUS: u8 = 0x08;
    pub(super) const CLOSE: u8 = 0x09;
    pub(super) const REPORT: u8 = 0x0a;
    pub(super) const HELLO: u8 = 0x81;
    pub(super) const READY: u8 = 0x82;
    pub(super) const REFUSE: u8 = 0x83;
    pub(super) const PONG: u8 = 0x84;
    pub(super) const LEAVE: u8 = 0x85;
    pub(super) const OFFER: u8 = 0x86;
    pub(super) const SESSIONS: u8 = 0x87;
    pub(super) const COUNTED: u8 = 0x88;
    pub(super) const ASK: u8 = 0x89;
    pub(super) const OFFERS: u8 = 0x8a;
    pub(super) const TAKEN: u8 = 0x8b;
    pub(super) const REPORTED: u8 = 0x8c;
    pub(super) const LEDGER: u8 = 0x8d;
    pub(super) const KEEP: u8 = 0x8e;
    pub(super) const FORGET: u8 = 0x8f;
}

/// A ping.
pub const PING: [u8; HEADER] = header(kind::PING, 0);
/// A hello.
pub const HELLO: [u8; HEADER] = header(kind::HELLO, 0);
/// A ready.
pub const READY: [u8; HEADER] = header(kind::READY, 0);
/// A pong.
pub const PONG: [u8; HEADER] = header(kind::PONG, 0);
/// A leave.
pub const LEAVE: [u8; HEADER] = header(kind::LEAVE, 0);
/// A sessions.
pub const SESSIONS: [u8; HEADER] = header(kind::SESSIONS, 0);
/// A ledger.
pub const LEDGER: [u8; HEADER] = header(kind::LEDGER, 0);
/// A census.
pub const CENSUS: [u8; HEADER] = header(kind::CENSUS, 0);

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
            .map(|(record, parcel)| ToWorker::Session(record, parcel)),
        kind::DRAIN => decode_drain(count, body).map(ToWorker::Drain),
        kind::MOVED => decode_ids(kind, count, body).map(ToWorker::Moved),
        kind::RETURNED => decode_ids(kind, count, body).map(ToWorker::Returned),
        kind::MOVE => decode_ids(kind, count, body).map(ToWorker::Move),
        kind::CENSUS => body_of(kind, count, body, 0).map(|_| ToWorker::Census),
        kind::CLOSE => pair(kind, count, body).map(|(count, _)| ToWorker::Close(count)),
        kind::REPORT => decode_number(kind, count, body).map(ToWorker::Report),
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
        kind::LEAVE => bare(ToPrimary::Leave),
        kind::REFUSE => decode_ids(kind, count, body).map(ToPrimary::Refuse),
        kind::OFFER => decode_session(kind, count, body)
            .map(|(record, parcel)| ToPrimary::Session(record, parcel)),
        kind::SESSIONS => bare(ToPrimary::Sessions),
        kind::COUNTED => decode_counted(count, body).map(ToPrimary::Counted),
        kind::ASK => pair(kind, count, body)
            .map(|(count, within)| ToPrimary::Ask(count, Duration::from_millis(within.into()))),
        kind::OFFERS => decode_ids(kind, count, body).map(ToPrimary::Offers),
        kind::TAKEN => decode_ids(kind, count, body).map(ToPrimary::Taken),
        kind::REPORTED => decode_number(kind, count, body).map(ToPrimary::Reported),
        kind::LEDGER => bare(ToPrimary::Ledger),
        kind::KEEP => decode_keep(count, body).map(|(record, page)| ToPrimary::Keep(record, page)),
        kind::FORGET => decode_ids(kind, count, body).map(ToPrimary::Forget),
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
