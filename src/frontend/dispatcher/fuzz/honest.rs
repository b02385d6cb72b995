//! A worker that keeps the rules, whatever it is asked, and does at random what it may.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::ftruncate;
use rustix::io::Errno;

use crate::frontend::dispatcher::fuzz::clients::{Clients, Owner};
use crate::frontend::dispatcher::fuzz::descriptors::{self, Identity, identity};
use crate::frontend::dispatcher::fuzz::worker::End;
use crate::kernel::{PAGE, SharedMemory};
use crate::protocol::checkpoint::{self, EntryWriter, Extent, UNIT, copy_into};
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::{
    BATCH, CHECKPOINT, ConnectionRecord, HELLO, MAX_ACCEPTED_SESSIONS, MAX_IDS, MAX_INLINE_IMAGE,
    MAX_OPEN_OFFERS, MAX_TO_PRIMARY, PONG, READY, REPLACE_ME, SESSIONS, ToWorker, decode_to_worker,
    encode_close_request, encode_migration_failed, encode_offer, encode_offer_with_progress,
    encode_protect, encode_refuse, encode_resync_accepted, encode_resync_done,
    encode_resync_offers, encode_session_list, encode_unprotect,
};
use crate::protocol::peer::is_of;
use crate::protocol::random::Random;
use crate::protocol::scoreboard::Counter;
use crate::protocol::tcp_progress::TcpProgress;

/// Pages of a checkpoint.
const PAGES: usize = 64;

/// What it has of a client.
pub(super) struct Held {
    pub(super) record: ConnectionRecord,
    pub(super) socket: OwnedFd,
    /// The page of its entry and the image there, if it is protected.
    page: Option<(u64, Vec<u8>)>,
    /// When it was offered last.
    offered_at: Timestamp,
}

/// The worker.
pub(super) struct Honest {
    pub(super) end: End,
    pub(super) takes_sessions: bool,
    /// It has no more to do once all that it has offered is answered.
    pub(super) is_draining: bool,
    /// Clients that are its own.
    pub(super) own: BTreeMap<u64, Held>,
    /// Sessions that it has offered, and copies of them.
    pub(super) offered: BTreeMap<u64, Held>,
    /// Sessions that it took, and their tags: far fewer than it may remember.
    accepted: Vec<(ConnectionId, u64)>,
    /// Those that came back are not offered again when it drains.
    returned: Vec<u64>,
    /// Refusals that are not counted.
    refused: u64,
    pings: u32,
    lists: u32,
    checkpoint: Option<(SharedMemory, OwnedFd)>,
    /// Another primary has not been told what is protected.
    is_unprotected: bool,
    next_page: u64,
}

impl Honest {
    /// Says what a worker says at first.
    pub(super) fn new(mut end: End, takes_sessions: bool) -> Self {
        end.say(&HELLO, Vec::new());
        if takes_sessions {
            end.say(&SESSIONS, Vec::new());
        }
        end.say(&READY, Vec::new());
        Self {
            end,
            takes_sessions,
            is_draining: false,
            own: BTreeMap::new(),
            offered: BTreeMap::new(),
            accepted: Vec::new(),
            returned: Vec::new(),
            refused: 0,
            pings: 0,
            lists: 0,
            checkpoint: None,
            is_unprotected: false,
            next_page: 0,
        }
    }

    /// Reads everything that has come, takes all clients but one in `refuses`, and answers.
    pub(super) fn read(&mut self, random: &mut Random, clients: &mut Clients, refuses: u64) {
        self.end.send_waiting();
        self.count_refused();
        while !self.end.has_waiting()
            && let Ok(Some((bytes, descriptors))) = self.end.receive()
        {
            let is_refused = refuses > 0 && random.one_in(refuses);
            self.understand(&bytes, descriptors, clients, is_refused);
        }
        self.end.board.set(Counter::Connections, self.own.len() as u64);
        self.is_draining |= self.end.board.get(Counter::Drain) > 0;
        for _ in 0..std::mem::take(&mut self.pings) {
            self.end.say(&PONG, Vec::new());
        }
        for _ in 0..std::mem::take(&mut self.lists) {
            self.list();
        }
    }

    fn understand(
        &mut self,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
        clients: &mut Clients,
        is_refused: bool,
    ) {
        match decode_to_worker(bytes).unwrap() {
            ToWorker::Connections(records) => {
                assert_eq!(records.len(), descriptors.len());
                let all: Vec<_> = records.iter().zip(descriptors).collect();
                self.take(all, None, clients, is_refused);
            }
            ToWorker::Session(record, inline) => {
                let mut descriptors = descriptors.into_iter();
                let socket = descriptors.next().unwrap();
                let image = descriptors.next().map_or_else(|| inline.to_vec(), read_all);
                self.take(vec![(record, socket)], Some(&image), clients, is_refused);
            }
            ToWorker::Ping => self.pings += 1,
            ToWorker::Drain(_) => self.is_draining = true,
            ToWorker::Moved(ids) => ids.iter().for_each(|id| self.moved(id, clients)),
            ToWorker::Returned(ids) => ids.iter().for_each(|id| self.came_back(id, clients)),
            ToWorker::Move(ids) => {
                for id in ids.iter().filter(|id| self.own.contains_key(&id.0)).collect::<Vec<_>>() {
                    self.offer(id.0, vec![5; 40], false, clients);
                }
            }
            ToWorker::ListSessions => self.lists += 1,
            ToWorker::CloseGrant(count) => assert!(count > 0),
            ToWorker::Resync(number) => self.report(number),
        }
    }

    fn take(
        &mut self,
        all: Vec<(ConnectionRecord, OwnedFd)>,
        image: Option<&[u8]>,
        clients: &mut Clients,
        is_refused: bool,
    ) {
        let count = all.len() as u64;
        // A hostile worker may give away twice what it has: one that is here has not migrated. Or another socket.
        let is_here = |id: &u64| self.own.contains_key(id) || self.offered.contains_key(id);
        let is_foreign = |(record, socket): &(ConnectionRecord, OwnedFd)| {
            is_of(socket, record.client) == Some(false)
        };
        let is_refused = is_refused || image.is_some() && all.iter().any(is_foreign);
        if is_refused || all.iter().any(|(record, _)| is_here(&record.id.0)) {
            let ids = all.iter().map(|(record, _)| record.id);
            self.end.say(encode_refuse(&mut [0; MAX_IDS], ids), Vec::new());
            self.refused += count;
            return self.count_refused();
        }
        for (record, socket) in all {
            clients.arrive(self.end.id, &record, &socket, image);
            if image.is_some() {
                self.accepted.push((record.id, record.tag));
            }
            let held = Held { record, socket, page: None, offered_at: Timestamp(0) };
            self.own.insert(record.id.0, held);
        }
        self.end.board.add(Counter::Completed, count);
    }

    /// A refusal is sent before it is counted.
    fn count_refused(&mut self) {
        if !self.end.has_waiting() {
            let count = std::mem::take(&mut self.refused);
            self.end.board.add(Counter::Refused, count);
            self.end.board.add(Counter::Completed, count);
        }
    }

    fn moved(&mut self, id: ConnectionId, clients: &mut Clients) {
        let held = self.offered.remove(&id.0).unwrap_or_else(|| panic!("{id:?} was not offered"));
        let client = clients.of(&held.record);
        let is_elsewhere = match &client.session {
            Some((_, sender)) => *sender != self.end.id,
            None => client.owner != Owner::Worker(self.end.id) && client.owner != Owner::Primary,
        };
        assert!(client.is_tainted || is_elsewhere, "{id:?} has moved nowhere");
    }

    fn came_back(&mut self, id: ConnectionId, clients: &mut Clients) {
        let held = self.offered.remove(&id.0).unwrap_or_else(|| panic!("{id:?} was not offered"));
        let client = clients.of(&held.record);
        let is_here = client.session.as_ref().is_some_and(|(_, sender)| *sender == self.end.id);
        assert!(
            client.is_tainted || is_here && client.owner == Owner::Primary,
            "{id:?} is elsewhere"
        );
        client.session = None;
        client.owner = Owner::Worker(self.end.id);
        self.returned.push(id.0);
        self.own.insert(id.0, held);
    }

    /// Something that it may do.
    pub(super) fn act(&mut self, random: &mut Random, clients: &mut Clients) {
        if self.end.has_waiting() {
            return;
        }
        if self.is_draining {
            return self.offer_all(random, clients);
        }
        match random.below(12) {
            0 | 1 => self.end.say(&REPLACE_ME, Vec::new()),
            _ if !self.takes_sessions => {}
            2 => {
                let within = Duration::from_millis(random.below(40));
                let count = u32::try_from(random.below(9)).unwrap();
                self.end.say(&encode_close_request(count, within), Vec::new());
            }
            3 if !self.accepted.is_empty() => {
                let (id, _) = *random.pick(&self.accepted);
                let bytes = encode_migration_failed(&mut [0; MAX_IDS], [id].into_iter()).to_vec();
                self.end.say(&bytes, Vec::new());
            }
            4 => self.unprotect(random),
            5..9 => self.protect(random),
            _ => {
                if let Some(id) = self.any(random) {
                    let image = random_bytes(random);
                    let is_sealed = random.one_in(4);
                    self.offer(id, image, is_sealed, clients);
                }
            }
        }
    }

    fn any(&self, random: &mut Random) -> Option<u64> {
        let ids: Vec<_> = self.own.keys().copied().collect();
        (!ids.is_empty()).then(|| *random.pick(&ids))
    }

    fn offer_all(&mut self, random: &mut Random, clients: &mut Clients) {
        if !self.takes_sessions {
            return;
        }
        for id in
            self.own.keys().copied().filter(|id| !self.returned.contains(id)).collect::<Vec<_>>()
        {
            self.offer(id, random_bytes(random), random.one_in(9), clients);
        }
    }

    /// Whether it has nothing to wait for.
    pub(super) fn is_done(&self) -> bool {
        let rest = self.own.keys().any(|id| !self.returned.contains(id));
        let can_offer = self.takes_sessions && rest;
        self.is_draining && self.offered.is_empty() && !can_offer && !self.end.has_waiting()
    }

    /// All that it waits for, and what it has counted.
    pub(super) fn open(&self) -> impl Debug + use<> {
        let offered: Vec<_> = self.offered.keys().copied().collect();
        let counts = (self.end.board.get(Counter::Completed), self.end.board.get(Counter::Refused));
        (self.end.id, self.is_draining, self.end.has_waiting(), offered, counts)
    }

    fn offer(&mut self, id: u64, image: Vec<u8>, is_sealed: bool, clients: &mut Clients) {
        let Some(mut held) = self.own.remove(&id) else { return };
        held.page = None;
        held.offered_at = Timestamp::now();
        let mut descriptors = vec![held.socket.try_clone().unwrap()];
        let inline: &[u8] = if is_sealed || image.len() > MAX_INLINE_IMAGE {
            descriptors.push(descriptors::image(&image, descriptors::all_seals()));
            &[]
        } else {
            &image
        };
        let mut buffer = [0; MAX_TO_PRIMARY];
        let progress =
            TcpProgress::of(&held.socket).ok().flatten().filter(|_| !id.is_multiple_of(4));
        let message = match progress {
            Some(progress) => {
                encode_offer_with_progress(&mut buffer, &held.record, progress, inline)
            }
            None => encode_offer(&mut buffer, &held.record, inline),
        };
        self.end.say(message, descriptors);
        let client = clients.of(&held.record);
        client.owner = Owner::Primary;
        client.session = Some((image, self.end.id));
        self.offered.insert(id, held);
    }

    fn protect(&mut self, random: &mut Random) {
        let Some(id) = self.any(random) else { return };
        let held = self.own.get_mut(&id).unwrap();
        // Its client may be gone.
        let Ok(Some(usage)) = TcpProgress::of(&held.socket) else { return };
        let page = held.page.as_ref().map_or(self.next_page, |(page, _)| *page);
        if page == PAGES as u64 {
            return;
        }
        // Once it is there, the primary is told.
        let has_checkpoint = self.checkpoint.is_some();
        let (memory, file) = self.checkpoint.get_or_insert_with(|| {
            let file = checkpoint::create().unwrap();
            ftruncate(&file, (PAGES * PAGE) as u64).unwrap();
            (SharedMemory::map(file.as_fd(), 0, PAGES * PAGE).unwrap(), file)
        });
        self.next_page = self.next_page.max(page + 1);
        let image = random_bytes(random);
        let image = image[..image.len().min(1_000)].to_vec();
        publish(memory, page, id, usage, &image);
        if !has_checkpoint {
            self.end.say(&CHECKPOINT, vec![file.try_clone().unwrap()]);
        }
        let socket = held.socket.try_clone().unwrap();
        self.end.say(&encode_protect(&held.record, place(page)), vec![socket]);
        held.page = Some((page, image));
    }

    fn unprotect(&mut self, random: &mut Random) {
        let Some(id) = self.any(random) else { return };
        self.own.get_mut(&id).unwrap().page = None;
        let ids = [ConnectionId(id)].into_iter();
        self.end.say(encode_unprotect(&mut [0; MAX_IDS], ids), Vec::new());
    }

    fn list(&mut self) {
        let all: Vec<_> = self.own.values().map(|held| (held.record.id, held.record.key)).collect();
        for some in all.chunks(BATCH) {
            self.end.say(&encode_session_list(some), Vec::new());
        }
        self.end.say(&encode_session_list(&[]), Vec::new());
    }

    /// Another primary asks.
    fn report(&mut self, number: u64) {
        self.is_unprotected = false;
        if let Some((_, file)) = &self.checkpoint {
            self.end.say(&CHECKPOINT, vec![file.try_clone().unwrap()]);
        }
        for held in self.own.values() {
            if let Some((page, _)) = &held.page {
                let socket = held.socket.try_clone().unwrap();
                self.end.say(&encode_protect(&held.record, place(*page)), vec![socket]);
            }
        }
        let offer = |held: &Held| (held.record.id, held.offered_at, held.record.tag);
        let offers: Vec<_> = self.offered.values().map(offer).collect();
        for some in offers.chunks(BATCH) {
            let mut buffer = [0; MAX_OPEN_OFFERS];
            let some = some.iter().copied();
            self.end.say(encode_resync_offers(&mut buffer, some), Vec::new());
        }
        let accepted = self.accepted.clone();
        for some in accepted.chunks(BATCH) {
            let mut buffer = [0; MAX_ACCEPTED_SESSIONS];
            let some = some.iter().copied();
            self.end.say(encode_resync_accepted(&mut buffer, some), Vec::new());
        }
        self.end.say(&encode_resync_done(number), Vec::new());
    }

    /// There is another primary, which knows nothing of what is protected.
    pub(super) fn upgraded(&mut self) {
        self.is_unprotected = true;
    }

    /// It dies. Protected sessions go on, its other clients end with it.
    pub(super) fn die(self, clients: &mut Clients) {
        // What it has still to say is lost with it.
        let is_unheard = self.is_unprotected || self.end.has_waiting();
        for held in self.offered.values() {
            let client = clients.of(&held.record);
            let is_mine = client.session.as_ref().is_some_and(|(_, by)| *by == self.end.id);
            client.may_be_gone |= is_mine;
        }
        for held in self.own.into_values() {
            let client = clients.of(&held.record);
            match held.page {
                Some((_, image)) => {
                    client.owner = Owner::Primary;
                    client.session = Some((image, self.end.id));
                    // It knows of those that it has heard of since.
                    client.may_be_gone = is_unheard;
                }
                None => client.owner = Owner::Nobody,
            }
        }
    }

    /// Whatever becomes of those that it has was done by itself.
    pub(super) fn taint(&self, clients: &mut Clients) {
        for held in self.own.values().chain(self.offered.values()) {
            clients.of(&held.record).is_tainted = true;
        }
    }

    /// The descriptors of clients that are open for it, the primary's copies of protected ones included.
    pub(super) fn count_descriptors(&self, held: &mut HashMap<Identity, usize>) {
        for one in self.own.values() {
            let copies = if one.page.is_some() { 2 } else { 1 };
            *held.entry(identity(&one.socket)).or_default() += copies;
        }
        for one in self.offered.values() {
            *held.entry(identity(&one.socket)).or_default() += 1;
        }
        if let Some((_, file)) = &self.checkpoint {
            *held.entry(identity(file)).or_default() += 2;
        }
    }

    /// Reads from a client what it has sent.
    pub(super) fn read_from(&self, client: SocketAddr, expected: &[u8]) {
        let held = self.own.values().find(|held| held.record.client == client);
        let held = held.unwrap_or_else(|| panic!("{client} is not with {:?}", self.end.id));
        let mut bytes = vec![0; expected.len() + 1];
        let read = match rustix::io::read(&held.socket, &mut bytes) {
            Err(Errno::AGAIN) => 0,
            read => read.unwrap(),
        };
        assert_eq!(bytes[..read], *expected, "{client} has sent something else");
    }
}

/// The place of the entry that has this page.
fn place(page: u64) -> u64 {
    page * (PAGE / UNIT) as u64
}

/// Not for the first time: it has been at rest.
fn publish(memory: &SharedMemory, page: u64, id: u64, usage: TcpProgress, image: &[u8]) {
    const CELLS: usize = PAGE / 8;
    let start = usize::try_from(page).unwrap() * CELLS;
    let writer = EntryWriter::new(&memory.cells()[start..start + CELLS], place(page));
    writer.begin(ConnectionId(id), Extent { offset: 0, length: 0 });
    for _ in 0..2 {
        let (cells, offset) = writer.room(1_024 * writer.free_state(), 1_024);
        copy_into(cells, image);
        writer.publish(usage, Extent { offset, length: image.len() as u64 });
    }
}

fn random_bytes(random: &mut Random) -> Vec<u8> {
    (0..random.length()).map(|_| random.byte()).collect()
}

fn read_all(memory: OwnedFd) -> Vec<u8> {
    let file = File::from(memory);
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}
