//! Whatever workers do with sessions, and whenever they die: each session that somebody held on to
//! has one owner in the end, and one only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use sticky_lb::internals::link::seam::SlotCommand;
use sticky_lb::internals::sessions::close_requests::PaceSettings;
use sticky_lb::protocol::message::ConnectionRecord;

use super::common::TIMEOUT;
use super::common::fake_worker::{FakeWorker, FromPrimary};
use super::common::keeper::Keeper;
use super::{ORDER, Running, are_connected, client, ends, facts, frontend, order, worker};

const SLOTS: u16 = 3;
const CLIENTS: u16 = 3;

/// A worker's own account of its sessions. Those that are kept survive it, the others die with it.
struct Account {
    mover: FakeWorker,
    /// Its own.
    own: BTreeMap<u64, (ConnectionRecord, OwnedFd)>,
    /// Offered, and not answered.
    away: BTreeMap<u64, (ConnectionRecord, OwnedFd)>,
    /// Received, and not settled.
    arrived: VecDeque<(ConnectionRecord, OwnedFd)>,
    /// Where it writes down what is to survive it, and who is there.
    keeper: Option<Keeper>,
    kept: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Offer(usize),
    OfferAll(usize),
    Hear(usize),
    Settle(usize),
    /// Has the next arrival kept, which it has not settled.
    KeepArrived(usize),
    /// Has one of its own kept.
    Keep(usize),
    Forget(usize),
    Refuse(usize),
    /// It drains, and another has its slot.
    Replace(usize),
    Die(usize),
}

struct Play {
    frontend: Running,
    workers: Vec<Account>,
    generations: [u32; SLOTS as usize],
    clients: BTreeMap<u64, TcpStream>,
    /// Died with their owners.
    dead: BTreeSet<u64>,
    /// Offered by whoever has died since, who may have died with the answer that they are its own.
    doubtful: BTreeSet<u64>,
    /// Answers that they are, which were heard.
    returned: u64,
    offers: u64,
}

impl Account {
    fn new(mover: FakeWorker) -> Self {
        Self {
            mover,
            own: BTreeMap::new(),
            away: BTreeMap::new(),
            arrived: VecDeque::new(),
            keeper: None,
            kept: BTreeSet::new(),
        }
    }

    fn keep(&mut self, arrived: bool) {
        let mut own = self.own.values().filter(|(record, _)| !self.kept.contains(&record.id.0));
        let session = if arrived { self.arrived.front() } else { own.next() };
        let Some((record, socket)) = session else { return };
        let keeper = self.keeper.get_or_insert_with(|| Keeper::introduce(&self.mover));
        keeper.keep(&self.mover, record, socket);
        self.kept.insert(record.id.0);
    }

    fn forget(&mut self) {
        let kept = self.own.values().find(|(record, _)| self.kept.contains(&record.id.0));
        if let (Some((record, _)), Some(keeper)) = (kept, &self.keeper) {
            keeper.forget(&self.mover, record);
            self.kept.remove(&record.id.0);
        }
    }

    fn offer(&mut self) -> bool {
        let Some((id, (record, socket))) = self.own.pop_first() else { return false };
        self.mover.offer(&record, &socket, &id.to_le_bytes());
        self.away.insert(id, (record, socket));
        self.kept.remove(&id);
        true
    }

    /// One message, and how many sessions have returned by it.
    fn receive(&mut self) -> Option<u64> {
        let heard = self.mover.receive_within(Duration::ZERO)?;
        match heard {
            FromPrimary::Session(record, socket, image) => {
                assert_eq!(image, record.id.0.to_le_bytes());
                self.arrived.push_back((record, socket));
            }
            FromPrimary::Moved(ids) => {
                ids.iter().for_each(|id| assert!(self.away.remove(id).is_some(), "{id} moved"));
            }
            FromPrimary::Returned(ids) => {
                for id in &ids {
                    let back = self.away.remove(id);
                    self.own.insert(*id, back.unwrap_or_else(|| panic!("{id} returned")));
                }
                return Some(ids.len() as u64);
            }
            FromPrimary::Drain(_) => {}
            other => panic!("{other:?}"),
        }
        Some(0)
    }

    fn settle(&mut self) -> Option<u64> {
        let (record, socket) = self.arrived.pop_front()?;
        self.mover.settle(1);
        let id = record.id.0;
        assert!(self.own.insert(id, (record, socket)).is_none(), "{id} is here already");
        Some(id)
    }
}

impl Play {
    async fn new() -> Self {
        let pace = PaceSettings::default();
        let mut frontend = frontend(SLOTS, Duration::from_secs(60), pace).await;
        let (mut workers, mut clients) = (Vec::new(), BTreeMap::new());
        for slot in 0..SLOTS {
            let mut mover = FakeWorker::serve(&mut frontend, worker(slot, 0), true).await;
            let mut own = BTreeMap::new();
            for n in 0..CLIENTS {
                let (stream, record, socket) = client(&frontend, &mut mover, n).await;
                own.insert(record.id.0, (record, socket));
                clients.insert(record.id.0, stream);
            }
            workers.push(Account { own, ..Account::new(mover) });
        }
        let generations = [0; SLOTS as usize];
        Self {
            frontend,
            workers,
            generations,
            clients,
            dead: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            returned: 0,
            offers: 0,
        }
    }

    async fn play(&mut self, step: &Step) {
        let count = self.workers.len();
        match step {
            Step::Offer(who) => self.offers += u64::from(self.workers[who % count].offer()),
            Step::OfferAll(who) => {
                while self.workers[who % count].offer() {
                    self.offers += 1;
                }
            }
            Step::Hear(who) => self.receive(who % count),
            Step::Settle(who) => {
                if let Some(id) = self.workers[who % count].settle() {
                    self.belongs_to_one(id, who % count);
                }
            }
            Step::Refuse(who) => {
                let account = &mut self.workers[who % count];
                if let Some((record, _)) = account.arrived.pop_front() {
                    // Kept and refused: that it forgets it is not said in time, and must not matter.
                    account.kept.remove(&record.id.0);
                    account.mover.refuse(record.id);
                }
            }
            Step::KeepArrived(who) => self.workers[who % count].keep(true),
            Step::Keep(who) => self.workers[who % count].keep(false),
            Step::Forget(who) => self.workers[who % count].forget(),
            Step::Replace(who) => self.replace(who % count).await,
            Step::Die(who) => self.die(who % count).await,
        }
    }

    fn receive(&mut self, who: usize) {
        while let Some(returned) = self.workers[who].receive() {
            self.returned += returned;
        }
    }

    /// As soon as one has acknowledged it, no other may have it; the one that has offered it may
    /// not have heard yet.
    fn belongs_to_one(&self, id: u64, who: usize) {
        let owners = self.workers.iter().enumerate().filter(|(_, one)| one.own.contains_key(&id));
        assert!(owners.map(|(other, _)| other).eq([who]), "{id} has several owners");
    }

    async fn succeed(&mut self, slot: u16) {
        let generation = &mut self.generations[usize::from(slot)];
        *generation += 1;
        let successor = worker(slot, *generation);
        self.workers
            .push(Account::new(FakeWorker::serve(&mut self.frontend, successor, true).await));
    }

    async fn replace(&mut self, who: usize) {
        let id = self.workers[who].mover.id;
        if self.generations[id.slot.index()] == id.generation.0 && self.workers.len() < 8 {
            self.succeed(id.slot.0).await;
            order(&self.frontend, SlotCommand::Drain(id, ORDER)).await;
        }
    }

    async fn die(&mut self, who: usize) {
        self.receive(who);
        let Account { mover, own, away, kept, .. } = self.workers.swap_remove(who);
        let id = mover.id;
        self.dead.extend(own.into_keys().filter(|id| !kept.contains(id)));
        self.doubtful.extend(away.into_keys());
        drop(mover);
        order(&self.frontend, SlotCommand::Gone(id)).await;
        if self.generations[id.slot.index()] == id.generation.0 {
            self.succeed(id.slot.0).await;
        }
    }

    /// Everybody takes what comes, until nothing is on its way.
    async fn come_to_rest(&mut self) {
        let start = SystemTime::now();
        loop {
            for who in 0..self.workers.len() {
                self.receive(who);
                while self.workers[who].settle().is_some() {}
            }
            let waits = self.workers.iter().any(|account| !account.away.is_empty());
            let facts = facts(&self.frontend).await;
            let under_way =
                facts.sessions_waiting > 0 || facts.slots.iter().any(|s| s.in_flight > 0);
            if !waits && !under_way {
                break;
            }
            assert!(start.elapsed().unwrap() < TIMEOUT, "something stays on its way");
            tokio::task::yield_now().await;
        }
    }

    async fn end(mut self) {
        self.come_to_rest().await;
        let mut owners = BTreeMap::<u64, OwnedFd>::new();
        for (id, (_, socket)) in self.workers.into_iter().flat_map(|account| account.own) {
            assert!(owners.insert(id, socket).is_none(), "{id} has two owners");
        }
        let (moved, returned, lost) = ends(&self.frontend).await;
        assert_eq!(lost, 0, "two crashes at the most, and somebody always lives");
        assert!(moved + returned <= self.offers);
        let mut missing = BTreeSet::new();
        for (id, mut client) in self.clients {
            match owners.remove(&id) {
                Some(socket) => are_connected(&mut client, socket),
                None if self.dead.contains(&id) => {}
                None => assert!(missing.insert(id), "twice"),
            }
        }
        // Each of these was answered for, to somebody who has died with the answer.
        assert!(missing.is_subset(&self.doubtful), "nobody has {missing:?}");
        assert!(missing.len() as u64 <= returned - self.returned, "nobody has {missing:?}");
        assert!(owners.is_empty());
        self.frontend.end().await.unwrap();
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = || 0..8_usize;
    let step = prop_oneof![
        4 => who().prop_map(Step::Offer),
        2 => who().prop_map(Step::OfferAll),
        6 => who().prop_map(Step::Hear),
        6 => who().prop_map(Step::Settle),
        3 => who().prop_map(Step::KeepArrived),
        6 => who().prop_map(Step::Keep),
        1 => who().prop_map(Step::Forget),
        2 => who().prop_map(Step::Refuse),
        2 => who().prop_map(Step::Replace),
    ];
    let calm = move || prop::collection::vec(step.clone(), 0..25);
    let die = move || who().prop_map(Step::Die);
    (calm(), die(), calm(), prop::option::of(die()), calm()).prop_map(
        |(before, first, between, second, after)| {
            let second = second.into_iter().collect();
            [before, vec![first], between, second, after].concat()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_session_has_one_owner(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut play = Play::new().await;
            for step in &steps {
                play.play(step).await;
            }
            play.end().await;
        });
    }
}
