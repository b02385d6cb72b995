//! Whatever workers do, whenever they die, and whenever one primary follows another: each client and each
//! session has one owner in the end, and one only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use sticky_lb::protocol::message::ConnectionRecord;

use super::common::TIMEOUT;
use super::common::fake_worker::{FakeWorker, FromPrimary};
use super::{Harness, ORDER, are_connected, worker};

const SLOTS: u16 = 3;

type Socket = (ConnectionRecord, OwnedFd);

/// A worker's own account.
struct Account {
    mover: FakeWorker,
    /// Its own.
    own: BTreeMap<u64, Socket>,
    /// Offered, and not answered.
    away: BTreeMap<u64, Socket>,
    /// Received, and not settled; sessions and clients.
    arrived: VecDeque<(Socket, bool)>,
    /// Sessions that it took, and has not heard that they went on.
    taken: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Connect(u16),
    Offer(usize),
    Hear(usize),
    Settle(usize),
    Refuse(usize),
    /// It drains, and another has its slot.
    Replace(usize),
    Die(usize),
    HandOver,
    Crash,
}

struct Play {
    stage: Harness,
    workers: Vec<Account>,
    generations: [u32; SLOTS as usize],
    clients: Vec<TcpStream>,
    /// With whom they died, or may have.
    dead: BTreeSet<u64>,
    /// Clients that somebody who died had received and not settled, when their primary was dead.
    lost: BTreeSet<u64>,
    /// Received from a primary that is dead.
    old: BTreeSet<u64>,
    /// So many sessions were refused that a primary had sent which is dead: they count as clients lost.
    refused: u64,
    /// So many waited in primaries when they died, at the most.
    waited: u64,
}

impl Account {
    fn new(mover: FakeWorker) -> Self {
        let (own, away, arrived) = Default::default();
        Self { mover, own, away, arrived, taken: BTreeSet::new() }
    }

    fn offer(&mut self) {
        if let Some((id, (record, socket))) = self.own.pop_first() {
            self.mover.offer(&record, &socket, &id.to_le_bytes());
            self.away.insert(id, (record, socket));
        }
    }

    /// One message.
    fn receive(&mut self) -> bool {
        let Some(heard) = self.mover.receive_within(Duration::ZERO) else { return false };
        match heard {
            FromPrimary::Client(record, socket) => {
                self.arrived.push_back(((record, socket), false))
            }
            FromPrimary::Session(record, socket, image) => {
                assert_eq!(image, record.id.0.to_le_bytes());
                assert!(!self.away.contains_key(&record.id.0), "it is told before that it moved");
                self.arrived.push_back(((record, socket), true));
            }
            FromPrimary::Moved(ids) => {
                for id in ids {
                    assert!(self.away.remove(&id).is_some(), "{id} moved");
                    self.taken.remove(&id);
                }
            }
            FromPrimary::Returned(ids) => {
                for id in ids {
                    let back = self.away.remove(&id);
                    self.own.insert(id, back.unwrap_or_else(|| panic!("{id} returned")));
                }
            }
            FromPrimary::Drain(_) => {}
            FromPrimary::Resync(number) => {
                // It settles what it reads before it reads on.
                while self.settle() {}
                let [offers, taken] =
                    [self.away.keys().copied().collect(), self.taken.iter().copied().collect()]
                        .map(|ids: Vec<_>| ids);
                self.mover.report(number, &offers, &taken);
            }
            other => panic!("{other:?}"),
        }
        true
    }

    fn settle(&mut self) -> bool {
        let Some(((record, socket), is_session)) = self.arrived.pop_front() else { return false };
        self.mover.settle(1);
        let id = record.id.0;
        assert!(self.own.insert(id, (record, socket)).is_none(), "{id} is here already");
        if is_session {
            self.taken.insert(id);
        }
        true
    }
}

impl Play {
    async fn new() -> Self {
        let mut stage = Harness::new(SLOTS, Duration::from_secs(60)).await;
        let mut workers = Vec::new();
        for slot in 0..SLOTS {
            workers.push(Account::new(stage.start_worker(worker(slot, 0), true).await));
        }
        let generations = [0; SLOTS as usize];
        let (clients, dead, lost, old) = Default::default();
        Self { stage, workers, generations, clients, dead, lost, old, refused: 0, waited: 0 }
    }

    async fn play(&mut self, step: &Step) {
        let count = self.workers.len();
        match step {
            Step::Connect(slot) => {
                let number = u16::try_from(self.clients.len()).unwrap() % 8;
                self.clients.push(self.stage.connect(slot % SLOTS, number).await);
                let come = self.clients.len() as u64;
                self.stage.counts("it has come", |it| it.accepted == come).await;
            }
            Step::Offer(who) => self.workers[who % count].offer(),
            Step::Hear(who) => while self.workers[who % count].receive() {},
            Step::Settle(who) => drop(self.workers[who % count].settle()),
            Step::Refuse(who) => {
                let account = &mut self.workers[who % count];
                if let Some(((record, _), is_session)) = account.arrived.pop_front() {
                    account.mover.refuse(record.id);
                    if self.old.contains(&record.id.0) {
                        if is_session {
                            self.refused += 1;
                        } else {
                            self.lost.insert(record.id.0);
                        }
                    }
                }
            }
            Step::Replace(who) => self.replace(who % count).await,
            Step::Die(who) => self.die(who % count).await,
            Step::HandOver => self.stage.hand_over().await,
            Step::Crash => self.crash().await,
        }
    }

    async fn crash(&mut self) {
        // So that what was refused has been read.
        self.stage.count().await;
        let facts = self.stage.facts().await;
        let in_flight: u64 = facts.slots.iter().map(|slot| slot.in_flight).sum();
        self.waited += (facts.waiting + facts.sessions_waiting).saturating_sub(in_flight);
        let arrived = self.workers.iter().flat_map(|account| &account.arrived);
        self.old.extend(arrived.map(|((record, _), _)| record.id.0));
        let found: Vec<_> = self.workers.iter().map(|account| account.mover.id).collect();
        self.stage.crash(&found).await;
        // Commands and queries are answered before a turn sends its messages, each in a turn of its own:
        // now workers have been asked, so that one that dies next has settled what it had received.
        self.stage.count().await;
        self.stage.facts().await;
    }

    async fn succeed(&mut self, slot: u16) {
        let generation = &mut self.generations[usize::from(slot)];
        *generation += 1;
        let successor = worker(slot, *generation);
        self.workers.push(Account::new(self.stage.start_worker(successor, true).await));
    }

    async fn replace(&mut self, who: usize) {
        let id = self.workers[who].mover.id;
        if self.generations[id.slot.index()] == id.generation.0 && self.workers.len() < 8 {
            self.succeed(id.slot.0).await;
            let order = sticky_lb::internals::link::seam::SlotCommand::Drain(id, ORDER);
            self.stage.order(order).await;
        }
    }

    async fn die(&mut self, who: usize) {
        while self.workers[who].receive() {}
        let Account { mover, own, away, arrived, .. } = self.workers.swap_remove(who);
        let id = mover.id;
        // What it offered may have been with a primary that is dead, or have been its own again.
        self.dead.extend(own.into_keys().chain(away.into_keys()));
        for ((record, _), is_session) in arrived {
            if is_session {
                // Whoever offered it may be dead, too.
                self.dead.insert(record.id.0);
            } else if self.old.contains(&record.id.0) {
                self.lost.insert(record.id.0);
            }
        }
        drop(mover);
        self.stage.gone(id).await;
        if self.generations[id.slot.index()] == id.generation.0 {
            self.succeed(id.slot.0).await;
        }
    }

    /// Everybody takes what comes, until nothing is on its way.
    async fn come_to_rest(&mut self) {
        let start = SystemTime::now();
        loop {
            for account in &mut self.workers {
                while account.receive() {}
                while account.settle() {}
            }
            let waits = self.workers.iter().any(|account| !account.away.is_empty());
            let facts = self.stage.facts().await;
            let under_way = facts.sessions_waiting > 0 || facts.waiting > 0;
            if !waits && !under_way {
                return;
            }
            assert!(start.elapsed().unwrap() < TIMEOUT, "something stays on its way: {facts:?}");
            tokio::task::yield_now().await;
        }
    }

    async fn end(mut self) {
        self.come_to_rest().await;
        let mut owners = BTreeMap::<u64, Socket>::new();
        for (id, socket) in self.workers.into_iter().flat_map(|account| account.own) {
            assert!(owners.insert(id, socket).is_none(), "{id} has two owners");
        }
        let counters = self.stage.count().await;
        let all = self.clients.len() as u64;
        let (mut lost, mut waited) = (0, 0);
        for (id, mut client) in (1..).zip(self.clients) {
            match owners.remove(&id) {
                Some((_, socket)) => are_connected(&mut client, socket),
                None if self.dead.contains(&id) => {}
                None => {
                    lost += 1;
                    waited += u64::from(!self.lost.contains(&id));
                }
            }
        }
        assert!(owners.is_empty());
        assert!(waited <= self.waited, "{waited} are with nobody");
        assert_eq!((counters.accepted, counters.acknowledged + counters.lost), (all, all));
        assert!((lost..=lost + self.refused).contains(&counters.lost), "{lost} are: {counters:?}");
        self.stage.end().await;
    }
}

fn steps(crashes: bool) -> impl Strategy<Value = Vec<Step>> {
    let who = || 0..8_usize;
    let step = prop_oneof![
        6 => (0..SLOTS).prop_map(Step::Connect),
        6 => who().prop_map(Step::Offer),
        6 => who().prop_map(Step::Hear),
        6 => who().prop_map(Step::Settle),
        2 => who().prop_map(Step::Refuse),
        2 => who().prop_map(Step::Replace),
        1 => who().prop_map(Step::Die),
        2 => Just(Step::HandOver),
        2 => Just(if crashes { Step::Crash } else { Step::HandOver }),
    ];
    prop::collection::vec(step, 5..110)
}

fn walk(steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut play = Play::new().await;
        for step in steps {
            play.play(step).await;
        }
        play.end().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn everybody_has_one_owner_through_upgrades(steps in steps(false)) {
        walk(&steps);
    }

    #[test]
    fn everybody_has_one_owner_through_crashes(steps in steps(true)) {
        walk(&steps);
    }
}
