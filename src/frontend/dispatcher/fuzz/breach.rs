//! Breaches: each breaks one rule, and has the words that the primary ends its worker with.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::SealFlags;
use rustix::net::{Shutdown, getpeername, shutdown};

use crate::frontend::dispatcher::fuzz::descriptors;
use crate::frontend::dispatcher::fuzz::honest::{Held, Honest};
use crate::frontend::dispatcher::fuzz::worker::Message;
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::{
    CHECKPOINT, ConnectionRecord, HELLO, MAX_IDS, MAX_OPEN_OFFERS, MAX_TO_PRIMARY, PING, PONG,
    SESSIONS, encode_migration_failed, encode_offer, encode_protect, encode_refuse,
    encode_resync_done, encode_resync_offers, encode_session_list,
};
use crate::protocol::random::Random;
use crate::protocol::scoreboard::Counter;

/// How many there are.
const COUNT: u64 = 29;

impl Honest {
    /// Breaks a rule: none if it has nothing that it takes, or if it is not sure to be noticed. Returns what
    /// the error says.
    pub(super) fn break_rule(
        &mut self,
        random: &mut Random,
        gets_clients: bool,
    ) -> Option<&'static str> {
        if self.end.has_waiting() {
            return None;
        }
        let unix = || OwnedFd::from(UnixStream::pair().unwrap().0);
        let number = random.below(COUNT);
        let plain = |bytes: &[u8]| (bytes.to_vec(), Vec::new());
        let ((bytes, descriptors), error) = match number {
            0 => (plain(&HELLO[..random.up_to(6) + 1]), "shorter than its header"),
            1 => (plain(b"XL\x01\x84\0\0\0\0"), "expected \"SL\""),
            2 => (plain(b"SL\x02\x84\0\0\0\0"), "speaks version 2"),
            3 => (plain(&PING), "unknown kind 0x02"),
            4 => (plain(b"SL\x01\x92\0\0\0\0"), "unknown kind 0x92"),
            5 => (plain(b"SL\x01\x84\x01\0\0\0"), "says 1 records"),
            6 => (plain(&[0; MAX_TO_PRIMARY + 1]), "longer than"),
            7 => ((PONG.to_vec(), vec![unix()]), "carries descriptors"),
            8 => (plain(&HELLO), "or came again"),
            // Unless it is asked just now, which it is when it stalls.
            9 if gets_clients => (plain(&PONG), "pong without a ping"),
            10 => {
                let nobody = [ConnectionId(u64::MAX)].into_iter();
                (plain(encode_refuse(&mut [0; MAX_IDS], nobody)), "refusal of connection")
            }
            11 => (plain(&SESSIONS), "said once, before ready"),
            12 => {
                shutdown(&self.end.channel, Shutdown::Write).unwrap();
                return Some("closed by the worker");
            }
            13 if gets_clients => {
                // More than it can have been sent.
                self.end.board.add(Counter::Completed, 1_000);
                return Some("scoreboard counts");
            }
            14 if gets_clients => {
                self.end.board.increment(Counter::Refused);
                self.end.board.increment(Counter::Completed);
                return Some("scoreboard counts");
            }
            9 | 13 | 14 => return None,
            _ if !self.takes_sessions => return None,
            15 => (plain(&encode_session_list(&[])), "list that was not requested"),
            16 => (plain(&encode_resync_done(7)), "resynchronisation that was not"),
            17 => {
                let offers = [(ConnectionId(1), Timestamp(1), 1)].into_iter();
                let bytes = encode_resync_offers(&mut [0; MAX_OPEN_OFFERS], offers).to_vec();
                ((bytes, Vec::new()), "resynchronisation that was not")
            }
            18 => (plain(&CHECKPOINT), "checkpoint is not memory"),
            19 => ((CHECKPOINT.to_vec(), vec![unix()]), "checkpoint is not memory"),
            20 => {
                let ids = [ConnectionId(u64::MAX)].into_iter();
                (plain(encode_migration_failed(&mut [0; MAX_IDS], ids)), "of no connection")
            }
            _ => self.break_with_session(number, random)?,
        };
        self.end.say(&bytes, descriptors);
        Some(error)
    }

    fn break_with_session(
        &self,
        number: u64,
        random: &mut Random,
    ) -> Option<(Message, &'static str)> {
        let all: Vec<&Held> = self.own.values().collect();
        if all.is_empty() {
            return None;
        }
        let held = *random.pick(&all);
        let record = &held.record;
        let socket = || held.socket.as_fd().try_clone_to_owned().unwrap();
        // A client that has gone is nobody's mistake.
        let mut look = [PollFd::new(&held.socket, PollFlags::empty())];
        poll(&mut look, Some(&Timespec::default())).unwrap();
        let is_shut = look[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
        let is_there = getpeername(&held.socket).is_ok() && !is_shut;
        let offer = |record: &ConnectionRecord, image: &[u8], descriptors| {
            (encode_offer(&mut [0; MAX_TO_PRIMARY], record, image).to_vec(), descriptors)
        };
        Some(match number {
            21 => (offer(record, b"x", Vec::new()), "carries no socket"),
            22 => (
                offer(record, b"", vec![socket(), socket(), socket()]),
                "more than a socket and an image",
            ),
            23 => {
                let pipe = rustix::pipe::pipe().unwrap().0;
                (offer(record, b"x", vec![pipe]), "a socket that is not TCP")
            }
            24 if is_there => {
                let image = descriptors::sealed(9);
                (offer(record, b"x", vec![socket(), image]), "two images")
            }
            25 if is_there => {
                let seals = SealFlags::SHRINK | SealFlags::GROW;
                let image = descriptors::image(b"x", seals);
                (offer(record, b"", vec![socket(), image]), "an image that is not sealed")
            }
            26 if is_there => {
                let mut bytes = offer(record, b"", vec![]).0;
                // Then how far its socket has been used follows, and nothing does.
                bytes[3] = 0x91;
                ((bytes, vec![socket()]), "says 1 records and is 88 bytes long")
            }
            27 if is_there => {
                let forged = ConnectionRecord { tag: record.tag ^ 1, ..*record };
                (offer(&forged, b"x", vec![socket()]), "of no connection that was accepted")
            }
            28 if is_there => {
                let another = ConnectionId(record.id.0 ^ 1);
                let forged = ConnectionRecord { id: another, ..*record };
                let bytes = encode_protect(&forged, 0).to_vec();
                ((bytes, vec![socket()]), "of no connection that was accepted")
            }
            _ => return None,
        })
    }
}
