//! Workers that send anything, in slot 2: whole messages and broken ones, in any order, with descriptors that
//! belong to them or not, and with any count on their scoreboard. In the slots beside it serve workers that keep
//! the rules, and one that keeps all but one.
//!
//! The dispatcher never panics, never waits and keeps nothing; no client and no session of another worker is
//! lost, or is anybody's but one worker's; who breaks a rule is ended with an error that says which, and
//! nobody else is.
//!
//! A failure prints its seed; `scripts/prove-fuzz` runs it at length.

mod breach;
mod clients;
mod descriptors;
mod honest;
mod hostile;
mod worker;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::time::Duration;

use allocation_counter::measure;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::frontend::affinity::{Affinity, DigestKind, Prefixes};
use crate::frontend::listener::{Listener, ListenerSettings};
use crate::frontend::placement::Placement;
use crate::frontend::query::queries;
use crate::frontend::router::RouterSettings;
use crate::frontend::slot_table::{AckTimeout, SlotSettings};
use crate::handover::descriptors::Descriptors;
use crate::handover::{decode, encode};
use crate::link::seam::{CommandSender, Counters, SlotEvent, seam};
use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::protocol::ids::Generation;
use crate::protocol::message::ConnectionRecord;
use crate::protocol::random::{self, Random};

use clients::{Clients, Owner};
use descriptors::{Identity, Sent, identity};
use honest::Honest;
use hostile::Hostile;
use worker::End;

/// Slots; the last one is that of the hostile worker.
const SLOTS: u16 = 3;
const HOSTILE: SlotId = SlotId(SLOTS - 1);

/// Turns of a scenario, before everything has to come to its end.
const ROUNDS: usize = 80;

/// How long a turn may wait for something else than a processor, and how long it may compute.
const MAX_TURN: Duration = Duration::from_secs(4);
const MAX_TURN_CPU: Duration = Duration::from_millis(500);

/// How long anything may take that has to come.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that a dispatcher may have beyond those that it begins with, whatever its workers send: as many
/// offers as may wait for an answer, each as long as it may be, and as much again.
const MAX_BYTES: i64 = 8 << 20;

/// The same when everything has come to its end.
const MAX_BYTES_LEFT: i64 = 1 << 20;

#[test]
fn a_primary_survives_any_worker_and_the_others_keep_what_is_theirs() {
    let (time, first) = (random::time(), random::seed());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (start, mut seed, mut total) = (Timestamp::now(), first, Totals::default());
    while Timestamp::now().since(start) < time {
        println!("dispatcher: STICKY_LB_FUZZ_SEED={seed}");
        total.add(Scenario::new(seed, &runtime).run());
        seed += 1;
    }
    let count = seed - first;
    println!("{count} scenarios from seed {first} on: {total:?}");
    assert!(total.clients > count, "hardly a client comes");
    assert!(total.sessions > count, "hardly a session migrates");
    assert!(total.violations > count, "hardly a worker is ended");
}

/// What has happened, so that it shows that something does.
#[derive(Debug, Default)]
struct Totals {
    clients: u64,
    sessions: u64,
    recovered: u64,
    violations: u64,
    breaches: u64,
    turns: u64,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.clients += other.clients;
        self.sessions += other.sessions;
        self.recovered += other.recovered;
        self.violations += other.violations;
        self.breaches += other.breaches;
        self.turns += other.turns;
    }
}

/// A worker that has broken a rule, and what the error is to say.
struct Broken {
    worker: Honest,
    error: &'static str,
}

/// A dispatcher, its supervisor, its workers and its clients.
struct Scenario<'a> {
    random: Random,
    runtime: &'a Runtime,
    dispatcher: Dispatcher,
    commander: CommandSender,
    events: mpsc::Receiver<SlotEvent>,
    serving: BTreeMap<SlotId, WorkerId>,
    workers: Vec<Honest>,
    broken: Vec<Broken>,
    /// The last one is to serve, the others drain.
    hostile: Vec<Hostile>,
    /// Workers that have broken a rule and are ended: nothing more is heard of them.
    ended: HashSet<WorkerId>,
    clients: Clients,
    /// There may be commands that are not carried out.
    is_ordered: bool,
    generations: u32,
    plan: Plan,
    sent: Sent,
    /// Bytes that the dispatcher has more than at its beginning.
    bytes: i64,
    total: Totals,
}

/// What may happen in a scenario.
#[derive(Clone, Copy)]
struct Plan {
    placement: Placement,
    load_bound: Option<f64>,
    ack_timeout: Duration,
    /// Workers stall soon.
    is_hasty: bool,
    /// Nobody but the hostile worker gives a reason for a client to be elsewhere than at home.
    is_calm: bool,
}

impl Plan {
    fn new(random: &mut Random) -> Self {
        let is_calm = random.one_in(2);
        let placements = [
            Placement::Rendezvous,
            Placement::Modulo,
            Placement::LeastConnections,
            Placement::RoundRobin,
            Placement::Random,
        ];
        let all = if is_calm { &placements[..2] } else { &placements[..] };
        let is_hasty = !is_calm && random.one_in(3);
        Self {
            placement: *random.pick(all),
            load_bound: (!is_calm && random.one_in(2)).then_some(1.25),
            ack_timeout: if is_hasty { Duration::from_millis(20) } else { TIMEOUT * 2 },
            is_hasty,
            is_calm,
        }
    }
}

fn dispatcher(
    before: FrontendHandover,
    plan: Plan,
) -> (Dispatcher, CommandSender, mpsc::Receiver<SlotEvent>) {
    let (commander, events, orders) = seam().unwrap();
    let affinity = Affinity::new(DigestKind::Md5, b"", Prefixes { v4: 32, v6: 64 });
    let router = Router::new(&RouterSettings {
        placement: plan.placement,
        weights: vec![1.0; usize::from(SLOTS)],
        load_bound: plan.load_bound,
        memory_capacity: NonZeroUsize::new(100).unwrap(),
        memory_lifetime: Duration::from_secs(3_600),
    });
    // Nobody is given up whose successor is slow to start.
    let slot_wait = 2 * TIMEOUT;
    let ack_timeout = AckTimeout::same(plan.ack_timeout);
    let slots = SlotSettings { ack_timeout, slot_wait, queue: 256 };
    let pace = PaceSettings { close_rate: 1_000.0, rebalance_rate: 1_000.0 };
    let settings = DispatcherSettings { max_held: 2_000, max_protected: 500, pace };
    let (_, queries) = queries().unwrap();
    let slots = SlotTable::new(slots);
    let made = Dispatcher::new(before, affinity, router, slots, settings, orders, queries);
    (made.unwrap(), commander, events)
}

impl<'a> Scenario<'a> {
    fn new(seed: u64, runtime: &'a Runtime) -> Self {
        let mut random = Random::new(seed);
        let host = Some("127.0.0.1".to_owned());
        let listener = Listener::bind(&ListenerSettings { host, port: 0, backlog: 1024 }).unwrap();
        let clients = Clients::new(listener.local());
        let plan = Plan::new(&mut random);
        let (dispatcher, commander, events) = dispatcher(listener.into(), plan);
        let mut scenario = Self {
            random,
            runtime,
            dispatcher,
            commander,
            events,
            serving: BTreeMap::new(),
            workers: Vec::new(),
            broken: Vec::new(),
            hostile: Vec::new(),
            ended: HashSet::new(),
            clients,
            is_ordered: false,
            generations: 0,
            plan,
            sent: Sent::default(),
            bytes: 0,
            total: Totals::default(),
        };
        scenario.order(all_slots());
        for slot in 0..HOSTILE.0 {
            scenario.start_worker(SlotId(slot), true);
        }
        scenario.start_hostile();
        scenario.wait_until("both serve", |it| {
            (0..HOSTILE.0).all(|slot| it.serving.contains_key(&SlotId(slot)))
        });
        scenario.order(SlotCommand::Accept);
        scenario.turn(Duration::ZERO);
        scenario.bytes = 0;
        scenario
    }

    fn run(mut self) -> Totals {
        for _ in 0..ROUNDS {
            self.supervise();
            let clients = self.connect();
            self.misbehave();
            self.turn(Duration::ZERO);
            self.read();
            self.check_home(&clients);
            self.act();
            self.turn(Duration::ZERO);
        }
        self.finish();
        self.total
    }

    fn order(&mut self, command: SlotCommand) {
        self.is_ordered = true;
        let (runtime, commander) = (self.runtime, &self.commander);
        let memory = measure(|| runtime.block_on(commander.send(command)).unwrap());
        self.bytes += memory.bytes_current;
    }

    fn next_id(&mut self, slot: SlotId) -> WorkerId {
        self.generations += 1;
        WorkerId { slot, generation: Generation(self.generations) }
    }

    fn attach(&mut self, slot: SlotId) -> End {
        let id = self.next_id(slot);
        let is_short = slot == HOSTILE || !self.plan.is_calm;
        let credits = if is_short { *self.random.pick(&[1, 3, 16, 256]) } else { 256 };
        let mut made = None;
        let memory = measure(|| made = Some(End::new(id, credits, &self.sent)));
        self.bytes += memory.bytes_current;
        let (end, link) = made.unwrap();
        self.order(SlotCommand::Attach(id, Box::new(link.into())));
        end
    }

    fn start_worker(&mut self, slot: SlotId, takes_sessions: bool) -> WorkerId {
        let end = self.attach(slot);
        let id = end.id;
        self.workers.push(Honest::new(end, takes_sessions));
        id
    }

    fn start_hostile(&mut self) {
        let end = self.attach(HOSTILE);
        self.hostile.push(Hostile::new(end, &mut self.random));
    }

    /// One turn of the dispatcher: nothing in it waits, computes for long, or takes much memory. Then the
    /// supervisor hears of it.
    fn turn(&mut self, timeout: Duration) {
        self.taint_what_liars_have();
        let (wall, cpu, queued) = (Timestamp::now(), cpu_time(), time_in_run_queue());
        let mut ready = Vec::new();
        let mut result = Ok(());
        let memory = measure(|| result = self.dispatcher.step(Some(timeout), &mut ready));
        result.unwrap();
        let (wall, cpu) = (Timestamp::now().since(wall), cpu_time().saturating_sub(cpu));
        let queued = time_in_run_queue().saturating_sub(queued);
        let waits = wall.saturating_sub(cpu + queued);
        self.total.turns += 1;
        self.bytes += memory.bytes_current;
        let most = i64::try_from(memory.bytes_max).unwrap();
        assert!(most < MAX_BYTES, "a turn takes {most} bytes");
        assert!(waits < MAX_TURN + timeout, "a turn waits for {waits:?}");
        assert!(cpu < MAX_TURN_CPU, "a turn computes for {cpu:?}");
        assert!(self.bytes < MAX_BYTES, "{} bytes more than at the beginning", self.bytes);
        while let Ok(event) = self.events.try_recv() {
            self.hear(event);
        }
    }

    /// A worker that counts what it has not done may lose whatever is on its way to it: counted as acknowledged,
    /// and never read.
    fn taint_what_liars_have(&mut self) {
        let liars = self.hostile.iter().filter(|one| one.has_lied).map(|one| one.end.id);
        for liar in liars {
            let Some(link) = self.dispatcher.routing.slots().any_link(liar) else { continue };
            for one in link.in_flight().last(usize::MAX) {
                self.clients.of(&one.record).is_tainted = true;
            }
        }
    }

    fn hear(&mut self, SlotEvent { worker, kind }: SlotEvent) {
        assert!(!self.ended.contains(&worker), "{worker:?} is ended, and heard: {kind:?}");
        match kind {
            SlotEventKind::Ready => {
                self.serving.insert(worker.slot, worker);
                self.order(SlotCommand::Serve(worker));
            }
            SlotEventKind::Violation(error) => self.violation(worker, &error),
            _ => {}
        }
    }

    fn violation(&mut self, worker: WorkerId, error: &ChannelError) {
        self.total.violations += 1;
        self.ended.insert(worker);
        let said = error.to_string();
        assert!(!said.is_empty());
        if worker.slot == HOSTILE {
            return self.end_hostile(worker);
        }
        let position = self.broken.iter().position(|one| one.worker.end.id == worker);
        let position = position.unwrap_or_else(|| panic!("{worker:?} has done nothing: {said}"));
        let Broken { worker: broken, error } = self.broken.swap_remove(position);
        assert!(said.contains(error), "{said:?} in place of {error:?}");
        self.total.breaches += 1;
        broken.taint(&mut self.clients);
        self.gone(worker);
        if !self.is_filled(worker.slot) {
            self.start_worker(worker.slot, true);
        }
    }

    /// Whether somebody serves a slot that has to, or is about to.
    fn is_filled(&self, slot: SlotId) -> bool {
        self.workers.iter().any(|one| one.end.id.slot == slot && !one.is_draining)
    }

    /// It gets no more clients.
    fn retire(&mut self, worker: WorkerId) {
        self.serving.retain(|_, serving| *serving != worker);
    }

    fn drain(&mut self, worker: WorkerId) {
        self.retire(worker);
        let order = any_order(&mut self.random);
        self.order(SlotCommand::Drain(worker, order));
    }

    fn gone(&mut self, worker: WorkerId) {
        self.retire(worker);
        self.order(SlotCommand::Gone(worker));
    }

    /// New clients, with the addresses of the slots where they belong.
    fn connect(&mut self) -> Vec<(std::net::SocketAddr, SlotId)> {
        let mut come = Vec::new();
        for _ in 0..self.random.below(4) {
            let address = self.clients.connect();
            self.total.clients += 1;
            let explained = self.dispatcher.explain(Client::Address(address.ip()));
            come.push((address, explained.ranking[0].slot));
        }
        let some: Vec<_> = self.clients.good().map(|(address, _)| *address).collect();
        if !some.is_empty() && self.random.one_in(2) {
            let address = *self.random.pick(&some);
            let bytes = vec![self.random.byte(); self.random.up_to(30)];
            self.clients.talk(address, &bytes);
        }
        come
    }

    /// In a calm scenario, those who belong to other slots than the hostile worker's are at home already.
    fn check_home(&self, come: &[(std::net::SocketAddr, SlotId)]) {
        for (address, slot) in come.iter().filter(|(_, slot)| *slot != HOSTILE) {
            let owner = self.clients.all[address].owner;
            let is_home = matches!(owner, Owner::Worker(worker) if worker.slot == *slot);
            assert!(!self.plan.is_calm || is_home, "{address} is with {owner:?}, not in {slot}");
        }
    }

    /// What the supervisor and an operator may order.
    fn supervise(&mut self) {
        match self.random.below(60) {
            0..6 => {
                let workers = self.workers.iter().map(|one| one.end.id);
                let hostile = self.hostile.iter().map(|one| one.end.id);
                let all: Vec<_> = workers.chain(hostile).collect();
                let worker = *self.random.pick(&all);
                self.order(SlotCommand::Ping(worker));
            }
            6..8 if self.broken.is_empty() => {
                let (reply, _) = oneshot::channel();
                let Dispatcher { broker, routing, .. } = &mut self.dispatcher;
                let memory = measure(|| broker.begin_rebalance(routing, reply));
                self.bytes += memory.bytes_current;
            }
            8 | 40..46 => {
                let worker = self.hostile.last().unwrap().end.id;
                self.drain(worker);
                self.start_hostile();
            }
            9 => {
                let number = self.random.up_to(self.hostile.len() - 1);
                self.end_hostile(self.hostile[number].end.id);
            }
            10 if self.broken.is_empty() => self.upgrade(),
            _ if self.plan.is_calm => {}
            11 | 12 => self.replace(),
            13 | 14 => self.kill(),
            15..18 => self.break_rule(),
            _ => {}
        }
    }

    /// It dies, unless it has before, and another one takes its place.
    fn end_hostile(&mut self, id: WorkerId) {
        let position = self.hostile.iter().position(|one| one.end.id == id);
        let Some(position) = position else { return };
        self.hostile.remove(position).die(&mut self.random, &mut self.clients);
        self.gone(id);
        if position == self.hostile.len() {
            self.start_hostile();
        }
    }

    /// A slot's worker drains, and another one takes its place.
    fn replace(&mut self) {
        let settled = |one: &&Honest| !one.is_draining;
        let all: Vec<_> = self.workers.iter().filter(settled).map(|one| one.end.id).collect();
        if all.is_empty() {
            return;
        }
        let old = *self.random.pick(&all);
        // Somebody always takes sessions.
        let takes_sessions = old.slot == SlotId(0) || !self.random.one_in(6);
        self.start_worker(old.slot, takes_sessions);
        self.drain(old);
        let old = self.workers.iter_mut().find(|one| one.end.id == old).unwrap();
        old.is_draining = true;
    }

    fn kill(&mut self) {
        // What waits for room would be lost with it.
        let sent = self.workers.iter().filter(|one| !one.end.has_waiting());
        let all: Vec<_> = sent.map(|one| one.end.id).collect();
        if all.is_empty() {
            return;
        }
        let id = *self.random.pick(&all);
        self.end_worker(id);
        if !self.is_filled(id.slot) {
            self.start_worker(id.slot, true);
        }
    }

    /// It has read all that it was sent, and dies.
    fn end_worker(&mut self, id: WorkerId) {
        let position = self.workers.iter().position(|one| one.end.id == id).unwrap();
        let mut worker = self.workers.swap_remove(position);
        worker.read(&mut self.random, &mut self.clients, 0);
        worker.die(&mut self.clients);
        self.gone(id);
    }

    fn break_rule(&mut self) {
        if self.workers.is_empty() {
            return;
        }
        let position = self.random.up_to(self.workers.len() - 1);
        let worker = &mut self.workers[position];
        worker.read(&mut self.random, &mut self.clients, 0);
        let serves = self.serving.get(&worker.end.id.slot) == Some(&worker.end.id);
        let gets_clients = serves && !self.plan.is_hasty;
        if let Some(error) = worker.break_rule(&mut self.random, gets_clients) {
            let worker = self.workers.swap_remove(position);
            self.broken.push(Broken { worker, error });
        }
    }

    /// Everything is written down, read, and goes on.
    fn upgrade(&mut self) {
        // What was ordered comes before, and what is ordered of that.
        self.turn(Duration::ZERO);
        while std::mem::take(&mut self.is_ordered) || self.dispatcher.broker.is_proving() {
            self.turn(Duration::from_millis(1));
        }
        let plan = self.plan;
        let memory = measure(|| {
            let (nobody, _, _) = dispatcher(FrontendHandover::default(), plan);
            let before = std::mem::replace(&mut self.dispatcher, nobody).into_handover();
            let mut kept = Descriptors::default();
            let snapshot = before.into_snapshot(&mut kept);
            let snapshot = decode(&encode(&snapshot).unwrap()).unwrap();
            let after = FrontendHandover::restore(snapshot, &mut kept).unwrap();
            assert!(kept.is_empty(), "{kept:?} belong to nothing");
            self.succeed(after);
        });
        self.bytes += memory.bytes_current;
        self.workers.iter_mut().for_each(Honest::upgraded);
        // Until it accepts.
        self.turn(Duration::ZERO);
        self.turn(Duration::ZERO);
    }

    /// As the supervisor does it.
    fn succeed(&mut self, mut before: FrontendHandover) {
        let links = before.take_channels();
        let (next, commander, events) = dispatcher(before, self.plan);
        (self.dispatcher, self.commander, self.events) = (next, commander, events);
        let mut commands = vec![all_slots()];
        let attach = |(worker, link)| SlotCommand::Attach(worker, Box::new(link));
        commands.extend(links.into_iter().map(attach));
        commands.extend(self.serving.values().copied().map(SlotCommand::Serve));
        commands.push(SlotCommand::Accept);
        let send = |command| self.runtime.block_on(self.commander.send(command)).unwrap();
        commands.into_iter().for_each(send);
    }

    fn misbehave(&mut self) {
        let copy = |held: &honest::Held| (held.record, held.socket.try_clone().unwrap());
        let all = self.workers.iter().flat_map(|one| one.own.values());
        let others: Vec<(ConnectionRecord, OwnedFd)> = all.take(8).map(copy).collect();
        for _ in 0..self.random.up_to(3) {
            let number = self.random.up_to(self.hostile.len() - 1);
            let hostile = &mut self.hostile[number];
            hostile.act(&mut self.random, &mut self.clients, &others, &self.sent);
        }
    }

    /// The workers that keep the rules take what is theirs.
    fn read(&mut self) {
        let refuses = if self.plan.is_calm { 0 } else { 30 };
        for worker in &mut self.workers {
            worker.read(&mut self.random, &mut self.clients, refuses);
        }
    }

    /// They do what they may.
    fn act(&mut self) {
        for worker in &mut self.workers {
            if self.random.one_in(3) {
                worker.act(&mut self.random, &mut self.clients);
            }
        }
        let done = self.workers.iter().filter(|one| one.is_done()).map(|one| one.end.id);
        done.collect::<Vec<_>>().into_iter().for_each(|id| self.end_worker(id));
    }

    fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let start = Timestamp::now();
        loop {
            self.turn(Duration::from_millis(1));
            let workers = self.workers.iter_mut();
            workers.for_each(|one| one.read(&mut self.random, &mut self.clients, 0));
            // What was ordered is carried out before.
            if !std::mem::take(&mut self.is_ordered) && condition(self) {
                return;
            }
            let is_late = Timestamp::now().since(start) > TIMEOUT;
            assert!(!is_late, "{what}: never; {}", self.open());
        }
    }

    /// All that still waits for something, in words.
    fn open(&self) -> String {
        let broken: Vec<_> = self.broken.iter().map(|one| (one.worker.end.id, one.error)).collect();
        let workers: Vec<_> = self.workers.iter().map(Honest::open).collect();
        let nowhere = self.clients.good().filter(|(_, one)| one.owner == Owner::Primary);
        let offered = |(image, by): &(Vec<u8>, WorkerId)| (image.len(), *by);
        let nowhere = nowhere.map(|(address, one)| (address, one.session.as_ref().map(offered)));
        let nowhere: Vec<_> = nowhere.collect();
        let FrontendFacts { waiting, sessions_waiting, counters, slots, .. } =
            self.dispatcher.facts();
        format!(
            "broken {broken:?}, workers {workers:?}, clients nowhere {nowhere:?}, {waiting} clients and \
             {sessions_waiting} sessions wait, {counters:?}, {slots:?}"
        )
    }

    /// The hostile worker ends, everything comes to its end, and is where it belongs.
    fn finish(&mut self) {
        let mut looks = 0_u32;
        self.wait_until("those that broke a rule are ended", |it| {
            looks += 1;
            if !it.broken.is_empty() && looks.is_power_of_two() {
                // Wrong counts show when the next clients come.
                for _ in 0..8 {
                    it.clients.connect();
                }
            }
            it.broken.is_empty()
        });
        // Not before: a client that has gone is nobody's mistake.
        self.clients.leave();
        self.sent.hurry();
        for hostile in std::mem::take(&mut self.hostile) {
            let id = hostile.end.id;
            hostile.die(&mut self.random, &mut self.clients);
            self.gone(id);
        }
        self.order(SlotCommand::GiveUp(HOSTILE));
        self.wait_until("everything has its place", |it| {
            let facts = it.dispatcher.facts();
            let is_answered = it.workers.iter().all(|one| one.offered.is_empty());
            let waits = it.workers.iter().any(|one| one.end.has_waiting());
            let come = it.clients.count_closed() <= closed(&facts.counters);
            facts.waiting + facts.sessions_waiting == 0 && is_answered && !waits && come
        });
        self.clients.end_closed();
        self.clients.leave();
        self.check_clients();
        self.check_descriptors();
        let facts = self.dispatcher.facts();
        self.total.sessions += facts.counters.moved;
        self.total.recovered += facts.counters.survival.recovered;
        assert!(self.bytes < MAX_BYTES_LEFT, "{} bytes are left over", self.bytes);
    }

    /// Each is with one worker, which reads what it has sent.
    fn check_clients(&self) {
        for (address, client) in self.clients.good() {
            let Owner::Worker(id) = client.owner else { panic!("{address} is nowhere") };
            let owner = self.workers.iter().find(|one| one.end.id == id);
            let owner = owner.unwrap_or_else(|| panic!("{address} is with {id:?}, which is dead"));
            owner.read_from(*address, &client.sent);
        }
    }

    /// Nothing is open that nobody has.
    fn check_descriptors(&mut self) {
        let mut held = HashMap::<Identity, usize>::new();
        for worker in &self.workers {
            worker.count_descriptors(&mut held);
            if let Some(link) = self.dispatcher.routing.slots().any_link(worker.end.id) {
                for (_, part) in link.descriptors() {
                    *held.entry(identity(part)).or_default() += 1;
                }
            }
            *held.entry(identity(&worker.end.channel)).or_default() += 1;
        }
        let start = Timestamp::now();
        loop {
            // A thread of its own may still have to close some, and messages be read that end a protection.
            self.turn(Duration::from_millis(1));
            let left = self.sent.left_open(&held);
            if left.is_empty() {
                return;
            }
            let is_late = Timestamp::now().since(start) > TIMEOUT;
            assert!(!is_late, "{left:?} are open that nobody has");
        }
    }
}

/// Sessions that the primary has closed, as it counts them: three workers have died with each.
fn closed(counters: &Counters) -> u64 {
    counters.sessions_lost + counters.survival.no_target
}

/// Clients belong to all of them.
fn all_slots() -> SlotCommand {
    SlotCommand::Rank((0..SLOTS).map(|slot| (SlotId(slot), 1.0)).collect())
}

fn any_order(random: &mut Random) -> DrainOrder {
    let mode = *random.pick(&[DrainMode::Wait, DrainMode::Close, DrainMode::Migrate]);
    let window = Duration::from_millis(random.below(5_000));
    DrainOrder { mode, reason: DrainReason::Restart, window }
}

/// How long this thread has waited for a processor: on a busy machine that may be seconds.
fn time_in_run_queue() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split(' ').nth(1).and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}
