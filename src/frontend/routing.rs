//! Connections between accept and acknowledgement: placed, queued, sent, counted.
//!
//! Owns slots, links and the router. Sessions are the broker's, which reaches all of this as its
//! [`Host`].
//!
//! # Pitfalls
//!
//! Between the accept and the hand-off nothing allocates, locks or logs above debug: queues are made at
//! their full size. Rare events (a stall, a death, a refusal) may.

use std::time::Duration;

use crate::frontend::fallback::FallbackReason;
use crate::frontend::lines;
use crate::frontend::measure::stats::{SlotTally, Stats};
use crate::frontend::placement::Slots;
use crate::frontend::query::{FrontendFacts, SlotFacts};
use crate::frontend::router::{Route, Router};
use crate::frontend::session_targets::SessionTargets;
use crate::frontend::shared_counters::SharedCounters;
use crate::frontend::slot_table::{Completion, SlotTable};
use crate::link::Link;
use crate::link::connection::PendingConnection;
use crate::link::error::ChannelError;
use crate::link::seam::{Counters, WorkerId};
use crate::protocol::ids::{AffinityKey, ConnectionId, SlotId, Timestamp};
use crate::protocol::message::ConnectionRecord;
use crate::sessions::host::{Host, MigrationTargets, Sender};

/// How often slots are looked at while something waits.
const TICK: Duration = Duration::from_millis(5);

/// How soon to look whether workers have acknowledged. Until then the primary's copy stays open,
/// which no client notices: a FIN is withheld only from a client whose worker closes without
/// shutdown(2), and within that time.
const ACKNOWLEDGE_WAIT: Duration = Duration::from_millis(1);

/// A worker that hasn't acknowledged within that time is looked at with each tick only.
const ACKNOWLEDGE_EXPECTED: Duration = Duration::from_millis(10);

/// Room that is made for slots and connections, so that a turn allocates nothing.
const RESERVED: usize = 128;

/// Counters and measures, and the page where counters outlive this process.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) counters: Counters,
    pub(super) stats: Stats,
    /// Where a primary that follows a crash finds the counters.
    pub(super) shared: Option<SharedCounters>,
}

/// Owns slots, links and the router.
#[derive(Debug)]
pub(super) struct Routing {
    slots: SlotTable,
    router: Router,
    tally: Tally,
    /// Connections that no slot can take now. While there are any, none is accepted.
    unroutable: Vec<PendingConnection>,
    /// Unroutable connections are closed: the listener is closed, and all workers drain or have drained.
    closes_unroutable: bool,
    /// Slots that may have something to send since the last flush.
    unflushed: Vec<SlotId>,
    /// So many descriptors are held at a time that no worker owns.
    max_held: u64,
    /// When a connection was last sent to a worker.
    handed_over_at: Timestamp,
    /// The time of this turn.
    now: Timestamp,
    next_tick: Option<Timestamp>,
}

impl Routing {
    /// Resumes with connections that no slot could take.
    pub(super) fn new(
        slots: SlotTable,
        router: Router,
        tally: Tally,
        mut unroutable: Vec<PendingConnection>,
        max_held: u64,
    ) -> Self {
        unroutable.reserve(RESERVED);
        Self {
            slots,
            router,
            tally,
            unroutable,
            closes_unroutable: false,
            unflushed: Vec::with_capacity(RESERVED),
            max_held,
            handed_over_at: Timestamp(0),
            now: Timestamp::now(),
            next_tick: None,
        }
    }

    /// Everything, for a successor.
    pub(super) fn into_parts(self) -> (SlotTable, Router, Tally, Vec<PendingConnection>) {
        (self.slots, self.router, self.tally, self.unroutable)
    }

    /// The slots.
    pub(super) fn slots(&mut self) -> &mut SlotTable {
        &mut self.slots
    }

    /// The router, and the slots that it routes to.
    pub(super) fn router(&mut self) -> (&mut Router, &SlotTable) {
        (&mut self.router, &self.slots)
    }

    /// Counters and measures.
    pub(super) fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// So many descriptors are held at most that no worker owns.
    pub(super) fn max_held(&self) -> u64 {
        self.max_held
    }

    /// Begins a turn.
    pub(super) fn begin_turn(&mut self) -> Timestamp {
        self.now = Timestamp::now();
        self.now
    }

    /// Unroutable connections are closed from now on, or wait.
    pub(super) fn close_unroutable(&mut self, close: bool) {
        self.closes_unroutable = close;
    }

    /// Whether a connection waits that no slot can take.
    pub(super) fn is_unroutable(&self) -> bool {
        !self.unroutable.is_empty()
    }

    /// Whether no connection waits or is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.is_idle() && self.unroutable.is_empty()
    }

    /// Connections that were accepted and not acknowledged.
    fn waiting(&self) -> u64 {
        let Counters { accepted, acknowledged, lost, .. } = self.tally.counters;
        accepted.saturating_sub(acknowledged + lost)
    }

    /// When time changes something.
    pub(super) fn next_due(&self) -> impl Iterator<Item = Timestamp> + use<> {
        let expected = self.now.since(self.handed_over_at) < ACKNOWLEDGE_EXPECTED;
        let acknowledged =
            (expected && self.slots.in_flight() > 0).then(|| self.now + ACKNOWLEDGE_WAIT);
        [acknowledged, self.next_tick].into_iter().flatten()
    }

    /// Begins a tick if one is due, and says whether it is.
    pub(super) fn take_tick(&mut self) -> bool {
        self.next_tick.take_if(|at| self.now >= *at).is_some()
    }

    /// Ends a tick: everything is flushed, and another tick follows while something waits.
    pub(super) fn end_tick(&mut self, is_waiting: bool) {
        self.unflushed.extend(self.slots.ids());
        if is_waiting || self.slots.is_busy() || self.is_unroutable() {
            self.schedule_tick();
        }
    }

    /// Has a slot's waiting messages and connections sent at the end of the turn.
    pub(super) fn flush_later(&mut self, slot: SlotId) {
        self.unflushed.push(slot);
    }

    /// Notes that accept is about to give this number, so that its connection counts even if this process
    /// is killed at once.
    pub(super) fn expect_arrival(&self) -> ConnectionId {
        let next = self.tally.counters.accepted + 1;
        self.expect(next);
        ConnectionId(next)
    }

    /// No connection has come.
    pub(super) fn expect_none(&self) {
        self.expect(self.tally.counters.accepted);
    }

    fn expect(&self, number: u64) {
        if let Some(shared) = &self.tally.shared {
            shared.expect(number);
        }
    }

    /// Counts a connection that was accepted.
    pub(super) fn count_arrival(&mut self, record: &ConnectionRecord) {
        self.tally.counters.accepted += 1;
        self.tally.stats.accepted(record.key, record.client.ip(), self.now);
    }

    /// Places a connection.
    pub(super) fn place(&mut self, connection: PendingConnection) {
        let route = self.router.route(connection.record.key, &self.slots, self.now);
        self.follow(route, connection);
    }

    /// Places a connection that was taken back from a slot.
    pub(super) fn place_again(&mut self, connection: PendingConnection) {
        self.tally.counters.redispatched += 1;
        self.place(connection);
    }

    /// Places a connection whose worker has died: to the successor, so that the client stays in its
    /// slot, but only once; where the worker `has_stalled`, elsewhere, as the client has waited long.
    pub(super) fn place_after_crash(
        &mut self,
        slot: SlotId,
        connection: PendingConnection,
        has_stalled: bool,
    ) {
        self.tally.counters.redispatched += 1;
        let avoid = (connection.crashes > 1 || has_stalled).then_some(slot);
        let key: AffinityKey = connection.record.key;
        let route = self.router.route_past(avoid, key, &self.slots, self.now);
        self.follow(route, connection);
    }

    fn follow(&mut self, route: Route, connection: PendingConnection) {
        let slot = match route {
            Route::Home(slot) => slot,
            Route::Fallback(slot, reason) => {
                self.count_fallback(&connection.record, slot, reason);
                slot
            }
            Route::Nowhere if self.closes_unroutable => {
                // Its client is told at once.
                self.tally.counters.lost += 1;
                return;
            }
            Route::Nowhere => {
                self.unroutable.push(connection);
                self.schedule_tick();
                return;
            }
        };
        self.slots.push(slot, connection);
        self.flush_later(slot);
    }

    fn count_fallback(&mut self, record: &ConnectionRecord, slot: SlotId, reason: FallbackReason) {
        self.tally.stats.fallbacks(reason);
        lines::fallback(record, slot, reason);
    }

    /// Tries again to place connections that no slot could take.
    pub(super) fn retry_unroutable(&mut self) {
        for connection in std::mem::take(&mut self.unroutable) {
            self.place(connection);
        }
    }

    /// Completes what a slot's workers have acknowledged. Sessions among it go to `sessions`.
    pub(super) fn complete(
        &mut self,
        slot: SlotId,
        sessions: &mut Vec<(WorkerId, PendingConnection)>,
    ) -> Completion {
        let (stats, now, before) = (&mut self.tally.stats, self.now, sessions.len());
        let completion = self.slots.complete(slot, now, |worker, connection| {
            if connection.transfer.is_some() {
                sessions.push((worker, connection));
            } else {
                measure(stats, worker, &connection.record, now);
            }
        });
        let clients = completion.acknowledged.saturating_sub(sessions.len() - before);
        self.tally.counters.acknowledged += clients as u64;
        if completion.acknowledged > 0 {
            self.flush_later(slot);
        }
        completion
    }

    /// Completes a connection that a worker had acknowledged before it died.
    pub(super) fn complete_one(&mut self, worker: WorkerId, record: &ConnectionRecord) {
        self.tally.counters.acknowledged += 1;
        measure(&mut self.tally.stats, worker, record, self.now);
    }

    /// Sends what this turn has put into the queue of one slot, and says whether any connection went;
    /// to be called until there is no slot left. A slot may be named twice; the second time finds nothing.
    pub(super) fn flush_next(&mut self) -> Option<Result<bool, (WorkerId, ChannelError)>> {
        let slot = self.unflushed.pop()?;
        Some(self.slots.flush(slot, self.now, lines::handed_over))
    }

    /// Ends a flush; `any` says whether any connection went.
    pub(super) fn end_flush(&mut self, any: bool) {
        if any {
            self.handed_over_at = self.now;
        }
        if self.slots.in_flight() > 0 {
            self.schedule_tick();
        }
    }

    /// Writes the counters where they outlive this process: before anything is handed over, so that no
    /// number is given twice.
    pub(super) fn publish(&mut self, accept_errors: u64) {
        if let Some(shared) = &self.tally.shared {
            shared.write(self.tally.total(accept_errors));
        }
        for slot in &self.unflushed {
            self.slots.publish_counts(*slot);
        }
    }

    /// Counts so many acknowledgements that a primary which has died had not counted. No more than can
    /// be: a worker may write any number.
    pub(super) fn count_acknowledged(&mut self, uncounted: u64) {
        self.tally.counters.acknowledged += uncounted.min(self.unaccounted());
    }

    /// Clients that were accepted and are nowhere.
    fn unaccounted(&self) -> u64 {
        self.waiting().saturating_sub(self.slots.clients() + self.unroutable.len() as u64)
    }

    /// Counts clients as lost that a primary which has died had accepted and not handed over.
    pub(super) fn count_lost(&mut self) {
        let connections = self.unaccounted();
        self.tally.counters.lost += connections;
        if connections > 0 {
            tracing::warn!(
                connections,
                "former primary crashed with connections that it had accepted and not handed over",
            );
        }
    }

    /// Counts clients that came to a listening socket whose worker had ended, and were closed.
    pub(super) fn count_late(&mut self, clients: u64) {
        self.tally.counters.lost += clients;
        if clients > 0 {
            tracing::warn!(
                clients,
                "clients came to a listening socket of a worker that has ended: closed"
            );
        }
    }

    /// Counts connections that a dead worker has used and not acknowledged.
    pub(super) fn count_used(&mut self, worker: WorkerId, connections: u64) {
        self.tally.counters.lost += connections;
        if connections > 0 {
            tracing::warn!(
                slot = worker.slot.0,
                connections,
                "worker crashed with connections that it had used and not acknowledged",
            );
        }
    }

    /// Counts a stall.
    pub(super) fn count_stall(&mut self, worker: WorkerId) {
        self.tally.counters.stalls += 1;
        self.tally.stats.stalled(worker.slot);
        tracing::warn!(
            slot = worker.slot.0,
            generation = worker.generation.0,
            "worker does not acknowledge, its clients go to others until it does",
        );
    }

    /// Counts refusals.
    pub(super) fn count_refused(&mut self, worker: WorkerId, clients: u64) {
        self.tally.counters.refused += clients;
        self.tally.stats.refused(worker.slot, clients);
    }

    /// Facts about connections and slots.
    pub(super) fn facts(&self, accept_errors: u64) -> FrontendFacts {
        let (stats, now) = (&self.tally.stats, self.now);
        FrontendFacts {
            counters: self.tally.total(accept_errors),
            fallback: stats.fallback().collect(),
            accepts_per_second: stats.accepts.per_second(now),
            recent: stats.recent.quantiles(now),
            handoff_times: stats.times.buckets().collect(),
            handoff_total: stats.total_time,
            top_client: stats.top_client.top_client(now),
            waiting: self.waiting(),
            slots: self.slots.ids().map(|slot| self.slot_facts(slot)).collect(),
            ..FrontendFacts::default()
        }
    }

    fn slot_facts(&self, slot: SlotId) -> SlotFacts {
        let (queued, in_flight) = self.slots.held_for(slot);
        let stats = self.tally.stats.slot(slot);
        let count = |count: fn(&SlotTally) -> u64| stats.map_or(0, count);
        SlotFacts {
            slot,
            availability: self.slots.availability(slot),
            load: self.slots.load(slot),
            queued: queued as u64,
            in_flight: in_flight as u64,
            handed_off: count(|stats| stats.handed_off),
            handoffs_per_second: stats.map_or(0.0, |stats| stats.handoffs.per_second(self.now)),
            recent: stats.map(|stats| stats.recent.quantiles(self.now)).unwrap_or_default(),
            stalls: count(|stats| stats.stalls),
            refused: count(|stats| stats.refused),
            sessions_taken: count(|stats| stats.sessions),
        }
    }
}

impl Tally {
    /// All counters. Of the measures of a primary that has died only its counters are left.
    pub(super) fn total(&self, accept_errors: u64) -> Counters {
        Counters {
            accept_errors: self.counters.accept_errors + accept_errors,
            fallbacks: self.counters.fallbacks + self.stats.all_fallbacks(),
            ..self.counters
        }
    }
}

impl Host for Routing {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.tally.counters
    }

    fn link(&mut self, worker: WorkerId) -> Option<&mut Link> {
        let link = self.slots.link(worker)?;
        self.unflushed.push(worker.slot);
        Some(link)
    }

    fn resume_link(&mut self, worker: WorkerId) -> bool {
        let Some(uncounted) = self.slots.complete_resync(worker, self.now) else { return false };
        self.count_acknowledged(uncounted);
        self.flush_later(worker.slot);
        true
    }

    fn sender(&self, worker: WorkerId) -> Sender {
        self.slots.sender(worker)
    }

    fn session_workers(&self) -> Vec<WorkerId> {
        self.slots.session_workers().collect()
    }

    fn targets(&mut self) -> impl MigrationTargets {
        SessionTargets { router: &mut self.router, slots: &self.slots, now: self.now }
    }

    fn forget_fallbacks(&mut self) -> u64 {
        self.router.forget_all(self.now)
    }

    fn queue(&mut self, slot: SlotId, session: PendingConnection) {
        self.slots.push(slot, session);
        self.flush_later(slot);
    }

    fn place_client(&mut self, connection: PendingConnection) {
        self.place(connection);
    }

    fn holds(&self, id: ConnectionId) -> bool {
        self.slots.holds(id) || self.unroutable.iter().any(|one| one.record.id == id)
    }

    fn has_room_for(&self, descriptors: u64) -> bool {
        self.waiting() + descriptors < self.max_held
    }

    fn session_taken(&mut self, slot: SlotId) {
        self.tally.stats.took_session(slot);
    }

    fn schedule_tick(&mut self) {
        self.next_tick.get_or_insert(self.now + TICK);
    }
}

/// On the way of each connection: allocates nothing.
fn measure(stats: &mut Stats, worker: WorkerId, record: &ConnectionRecord, now: Timestamp) {
    let time = now.since(record.accepted_at);
    stats.acknowledged(worker.slot, time, now);
    lines::acknowledged(worker, record, time);
}
