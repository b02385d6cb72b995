//! A worker that sends anything.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};

use crate::closing::Deferred;
use crate::frontend::dispatcher::fuzz::clients::Clients;
use crate::frontend::dispatcher::fuzz::descriptors::{self, Sent};
use crate::frontend::dispatcher::fuzz::worker::{End, MAX_DESCRIPTORS};
use crate::protocol::ids::{AffinityKey, ConnectionId, Timestamp};
use crate::protocol::message::{
    CHECKPOINT, ConnectionRecord, HEADER, HELLO, MAX_ACCEPTED_SESSIONS, MAX_IDS, MAX_INLINE_IMAGE,
    MAX_OPEN_OFFERS, MAX_TO_PRIMARY, PING, PONG, READY, RECORD, REPLACE_ME, SESSIONS, ToWorker,
    decode_to_worker, encode_close_request, encode_migration_failed, encode_offer, encode_protect,
    encode_refuse, encode_resync_accepted, encode_resync_done, encode_resync_offers,
    encode_session_list, encode_unprotect,
};
use crate::protocol::random::Random;
use crate::protocol::scoreboard::Counter;

/// Messages of a flood.
const FLOOD: usize = 300;

/// What it knows and has of connections.
#[derive(Default)]
struct Loot {
    records: Vec<ConnectionRecord>,
    /// Closing one that lingers means to wait for it.
    sockets: Vec<Deferred>,
    /// Numbers of questions that it was asked.
    resyncs: Vec<u64>,
}

/// The worker.
pub(super) struct Hostile {
    pub(super) end: End,
    loot: Loot,
    /// It breaks no rule by its messages, and has its sockets do what it wants.
    is_sly: bool,
    /// Its scoreboard counts what it has not done: it may have lost any client that it was sent.
    pub(super) has_lied: bool,
}

impl Hostile {
    /// It begins as it should, most times: otherwise it would be at its end at once.
    pub(super) fn new(mut end: End, random: &mut Random) -> Self {
        let is_sly = random.one_in(2);
        if is_sly || !random.one_in(8) {
            end.say(&HELLO, Vec::new());
            if is_sly || !random.one_in(4) {
                end.say(&SESSIONS, Vec::new());
            }
            end.say(&READY, Vec::new());
        }
        if is_sly {
            end.say(&CHECKPOINT, vec![checkpoint(random)]);
        }
        Self { end, loot: Loot::default(), is_sly, has_lied: false }
    }

    /// Does anything. `others` are connections that it has never had.
    pub(super) fn act(
        &mut self,
        random: &mut Random,
        clients: &mut Clients,
        others: &[(ConnectionRecord, OwnedFd)],
        sent: &Sent,
    ) {
        if self.is_sly {
            return self.act_slyly(random, clients);
        }
        match random.below(40) {
            0 => self.flood(random, others, sent),
            1 | 4 => self.lie(random),
            2 => {
                let _ =
                    shutdown(&self.end.channel, *random.pick(&[Shutdown::Read, Shutdown::Write]));
            }
            3 => self.use_a_socket(random),
            5..8 => {}
            8..22 => self.read(random.up_to(4), random, clients),
            _ => self.say(random, others, sent),
        }
    }

    fn act_slyly(&mut self, random: &mut Random, clients: &mut Clients) {
        self.end.send_waiting();
        match random.below(9) {
            0..3 => return self.read(random.up_to(4), random, clients),
            3..6 => return self.use_a_socket(random),
            _ => {}
        }
        let Loot { records, sockets, .. } = &self.loot;
        if records.is_empty() || self.end.has_waiting() {
            return;
        }
        let record = random.pick(records);
        let Some(socket) = sockets.iter().find(|socket| is_of(socket, record)) else { return };
        let socket = socket.try_clone().unwrap();
        let bytes = match random.below(4) {
            0 => encode_unprotect(&mut [0; MAX_IDS], [record.id].into_iter()).to_vec(),
            1 => encode_offer(&mut [0; MAX_TO_PRIMARY], record, b"image").to_vec(),
            _ => encode_protect(record, random.below(3)).to_vec(),
        };
        let descriptors = if random.one_in(30) { Vec::new() } else { vec![socket] };
        let is_bare = bytes.len() < HEADER + RECORD;
        self.end.say(&bytes, if is_bare { Vec::new() } else { descriptors });
    }

    /// Takes clients and sessions, as many messages, and acknowledges some of them.
    fn read(&mut self, count: usize, random: &mut Random, clients: &mut Clients) {
        for _ in 0..count {
            let Ok(Some((bytes, descriptors))) = self.end.receive() else { return };
            let records = match decode_to_worker(&bytes).unwrap() {
                ToWorker::Connections(records) => records.iter().collect(),
                ToWorker::Session(record, _) => vec![record],
                ToWorker::Ping if !random.one_in(3) => {
                    self.end.say(&PONG, Vec::new());
                    Vec::new()
                }
                ToWorker::Resync(number) => {
                    self.loot.resyncs.push(number);
                    Vec::new()
                }
                _ => Vec::new(),
            };
            for record in &records {
                clients.of(record).is_tainted = true;
            }
            if !random.one_in(3) {
                self.end.board.add(Counter::Completed, records.len() as u64);
            }
            self.loot.records.extend(records);
            self.loot.sockets.extend(descriptors.into_iter().map(Deferred::from));
        }
    }

    fn lie(&mut self, random: &mut Random) {
        const COUNTERS: [Counter; 14] = [
            Counter::Connections,
            Counter::ConnectionsTotal,
            Counter::Requests,
            Counter::RequestsTotal,
            Counter::Completed,
            Counter::Refused,
            Counter::Drain,
            Counter::Stop,
            Counter::Sessions,
            Counter::WebSockets,
            Counter::Flags,
            Counter::Acknowledged,
            Counter::SessionsSent,
            Counter::LastSession,
        ];
        const NUMBERS: [u64; 8] = [0, 1, 2, 255, 1 << 32, u64::MAX / 2, u64::MAX - 1, u64::MAX];
        // Some numbers are added up.
        let is_load = random.one_in(3);
        let counter = if is_load { Counter::Connections } else { *random.pick(&COUNTERS) };
        self.has_lied |= matches!(counter, Counter::Completed | Counter::Refused);
        if random.one_in(2) {
            self.end.board.add(counter, random.below(4));
        } else {
            let number = if random.one_in(4) { random.next() } else { *random.pick(&NUMBERS) };
            self.end.board.set(counter, number);
        }
    }

    /// Reads, writes, shuts, lingers, or closes.
    fn use_a_socket(&mut self, random: &mut Random) {
        if self.loot.sockets.is_empty() {
            return;
        }
        let number = random.up_to(self.loot.sockets.len() - 1);
        let socket = &self.loot.sockets[number];
        match random.below(6) {
            0 => drop(rustix::io::read(socket, &mut [0; 3])),
            1 => drop(rustix::io::write(socket, b"x")),
            2 => drop(shutdown(socket, *random.pick(&[Shutdown::Both, Shutdown::Write]))),
            3 | 4 => descriptors::linger(socket),
            _ => drop(self.loot.sockets.swap_remove(number)),
        }
    }

    fn flood(&mut self, random: &mut Random, others: &[(ConnectionRecord, OwnedFd)], sent: &Sent) {
        let (bytes, descriptors) = self.message(random, others, sent);
        // All that are on their way count for this user, whose other processes could send none.
        let descriptors = &descriptors[..descriptors.len().min(1)];
        for _ in 0..FLOOD {
            let copies = descriptors.iter().map(|one| one.try_clone().unwrap()).collect();
            self.end.say(&bytes, copies);
            if self.end.has_waiting() {
                return;
            }
        }
    }

    fn say(&mut self, random: &mut Random, others: &[(ConnectionRecord, OwnedFd)], sent: &Sent) {
        self.end.send_waiting();
        if self.end.has_waiting() {
            return;
        }
        let (mut bytes, mut descriptors) = self.message(random, others, sent);
        if random.one_in(4) {
            mutate(&mut bytes, &mut descriptors, random, sent);
            // The kernel lets no more go.
            descriptors.truncate(MAX_DESCRIPTORS);
        }
        self.end.say(&bytes, descriptors);
    }

    /// A message that is whole; what it says may be wrong.
    fn message(
        &self,
        random: &mut Random,
        others: &[(ConnectionRecord, OwnedFd)],
        sent: &Sent,
    ) -> (Vec<u8>, Vec<OwnedFd>) {
        let count = random.up_to(5) + 1;
        let plain = |bytes: &[u8]| (bytes.to_vec(), Vec::new());
        let mut buffer = [0; MAX_IDS];
        match random.below(24) {
            0 => plain(&HELLO),
            1 => plain(&READY),
            2 => plain(&SESSIONS),
            3 => plain(&PONG),
            4 => plain(&REPLACE_ME),
            5 => plain(&PING),
            6 => plain(encode_refuse(&mut buffer, self.ids(count, random))),
            7 => plain(encode_migration_failed(&mut buffer, self.ids(count, random))),
            8 => plain(encode_unprotect(&mut buffer, self.ids(count, random))),
            9 => {
                let accepted = self.ids(count, random).map(|id| (id, self.tag(id)));
                plain(encode_resync_accepted(&mut [0; MAX_ACCEPTED_SESSIONS], accepted))
            }
            10 => {
                let offers = self.ids(count, random).map(|id| (id, Timestamp(id.0), self.tag(id)));
                plain(encode_resync_offers(&mut [0; MAX_OPEN_OFFERS], offers))
            }
            11 => plain(&encode_resync_done(self.loot.resyncs.last().copied().unwrap_or(7))),
            12 => {
                let keys = self.ids(count - 1, random).map(|id| (id, AffinityKey(random_key(id))));
                plain(&encode_session_list(&keys.collect::<Vec<_>>()))
            }
            13 => {
                let count = u32::try_from(random.next() >> 32 >> random.below(32)).unwrap();
                let within = Duration::from_millis(random.below(1 << 32) >> random.below(30));
                plain(&encode_close_request(count, within))
            }
            14 | 15 => {
                let checkpoint = checkpoint(random);
                (CHECKPOINT.to_vec(), vec![checkpoint])
            }
            16 => {
                let bytes = (0..random.up_to(MAX_TO_PRIMARY + 90)).map(|_| random.byte());
                (bytes.collect(), self.descriptors(random, others, sent))
            }
            17..20 => {
                let (record, socket) = self.connection(random, others, sent);
                (encode_protect(&record, random.below(9)).to_vec(), vec![socket])
            }
            _ => {
                let (record, socket) = self.connection(random, others, sent);
                let mut descriptors = vec![socket];
                let mut image = vec![3; random.up_to(40)];
                if random.one_in(6) {
                    image = vec![4; MAX_INLINE_IMAGE];
                } else if random.one_in(4) {
                    image.clear();
                    descriptors.push(descriptors::sealed(random.up_to(70_000)));
                } else if random.one_in(6) {
                    image.clear();
                    descriptors.push(descriptors::any(random, sent));
                }
                let mut buffer = [0; MAX_TO_PRIMARY];
                (encode_offer(&mut buffer, &record, &image).to_vec(), descriptors)
            }
        }
    }

    fn ids(&self, count: usize, random: &mut Random) -> impl Iterator<Item = ConnectionId> + use<> {
        let own: Vec<_> = self.loot.records.iter().map(|record| record.id).collect();
        let any = |random: &mut Random| match random.below(4) {
            0 => ConnectionId(random.next()),
            1 => ConnectionId(random.below(40)),
            _ if own.is_empty() => ConnectionId(0),
            _ => *random.pick(&own),
        };
        (0..count).map(|_| any(random)).collect::<Vec<_>>().into_iter()
    }

    /// The tag of a session that it has had; of others it knows none.
    fn tag(&self, id: ConnectionId) -> u64 {
        self.loot.records.iter().find(|record| record.id == id).map_or(0, |record| record.tag)
    }

    /// A record and a socket: its own, or forged. That of another comes with the tag that it knows: none.
    fn connection(
        &self,
        random: &mut Random,
        others: &[(ConnectionRecord, OwnedFd)],
        sent: &Sent,
    ) -> (ConnectionRecord, OwnedFd) {
        let Loot { records, sockets, .. } = &self.loot;
        let own = (!records.is_empty() && !sockets.is_empty()).then(|| *random.pick(records));
        let (record, socket) = match (own, others) {
            (Some(record), _) if !random.one_in(4) => {
                let socket = sockets.iter().find(|socket| is_of(socket, &record));
                (record, socket.or_else(|| sockets.first()).map(|socket| &**socket))
            }
            (_, [_, ..]) => {
                let (record, socket) = random.pick(others);
                let tag = own.map_or_else(|| random.next(), |own| own.tag);
                (ConnectionRecord { tag, ..*record }, Some(socket))
            }
            _ => {
                let client = "127.0.0.1:1".parse().unwrap();
                let (id, key, tag) = (ConnectionId(1), AffinityKey(1), random.next());
                let accepted_at = Timestamp(1);
                (ConnectionRecord { id, accepted_at, key, client, local: client, tag }, None)
            }
        };
        let mut record = record;
        match random.below(16) {
            0 => record.id = ConnectionId(random.below(60)),
            1 => record.key = AffinityKey(random.next()),
            2 => record.client = record.local,
            3 => record.tag = random.next(),
            _ => {}
        }
        let socket = socket.filter(|_| !random.one_in(8));
        let socket = socket.map(|socket| socket.try_clone().unwrap());
        (record, socket.unwrap_or_else(|| descriptors::any(random, sent)))
    }

    fn descriptors(
        &self,
        random: &mut Random,
        others: &[(ConnectionRecord, OwnedFd)],
        sent: &Sent,
    ) -> Vec<OwnedFd> {
        let count = if random.one_in(5) { random.up_to(MAX_DESCRIPTORS) } else { random.up_to(3) };
        let one = self.connection(random, others, sent).1;
        let own = self.end.channel.as_fd();
        let copy = |random: &mut Random| match random.below(4) {
            0 => own.try_clone_to_owned().unwrap(),
            1 => descriptors::any(random, sent),
            _ => one.try_clone().unwrap(),
        };
        (0..count).map(|_| copy(random)).collect()
    }

    /// It dies. Where its counts are of nothing, whatever it was sent may be lost with it.
    pub(super) fn die(mut self, random: &mut Random, clients: &mut Clients) {
        if self.has_lied {
            self.read(usize::MAX, random, clients);
        }
    }
}

fn random_key(id: ConnectionId) -> u64 {
    id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn is_of(socket: &OwnedFd, record: &ConnectionRecord) -> bool {
    let peer = rustix::net::getpeername(socket).ok().flatten();
    peer.and_then(|peer| peer.try_into().ok()) == Some(record.client)
}

/// Entries of nonsense.
fn checkpoint(random: &mut Random) -> OwnedFd {
    let bytes: Vec<u8> = (0..random.up_to(3) * 4_096).map(|_| random.byte()).collect();
    descriptors::image(&bytes, rustix::fs::SealFlags::SHRINK)
}

fn mutate(bytes: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>, random: &mut Random, sent: &Sent) {
    match random.below(8) {
        0 => bytes.truncate(random.up_to(bytes.len())),
        1 => bytes.extend((0..random.up_to(100)).map(|_| 0)),
        2 => drop(descriptors.pop()),
        3 => descriptors.push(descriptors::any(random, sent)),
        4 => descriptors.insert(0, descriptors::any(random, sent)),
        5 if bytes.len() > HEADER => {
            let end = bytes.len().min(HEADER + RECORD) - 1;
            let place = HEADER + random.up_to(end - HEADER);
            bytes[place] = random.byte();
        }
        _ if bytes.is_empty() => {}
        _ => {
            let place = random.up_to(bytes.len().min(HEADER) - 1);
            bytes[place] = random.byte();
        }
    }
}
