//! The accept loop: takes connections from the backlog, asks the router for a slot, hands over.
//!
//! Runs on a thread of its own, with nothing beside it that could block. Owns listener, slots and
//! channels; the supervisor sends it commands. Never reads from a client, never drops a connection
//! that no worker owns, and after the hand-off knows nothing of it any more.
//!
//! # Pitfalls
//!
//! Between the accept and the hand-off nothing allocates, locks or logs above debug: queues are
//! made at their full size. What is rare (a stall, a death, a refusal) may.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::frontend::acceptor::{Acceptor, Arrival, Look};
use crate::frontend::affinity::Affinity;
use crate::frontend::close_requests::{CloseRequests, PaceSettings};
use crate::frontend::dispatcher::lines::TakenBack;
use crate::frontend::measure::stats::Stats;
use crate::frontend::placement::Slots;
use crate::frontend::poller::{Poller, Source};
use crate::frontend::query::Queries;
use crate::frontend::rebalance::Rebalance;
use crate::frontend::router::{Route, Router};
use crate::frontend::shared_counters::SharedCounters;
use crate::frontend::slot_table::{Overdue, SlotTable};
use crate::frontend::snapshot::FrontendHandover;
use crate::link::native::PendingConnection;
use crate::link::seam::{CommandReceiver, Counters};
use crate::protocol::ids::{ConnectionId, SlotId, Timestamp};
use crate::protocol::message::ConnectionRecord;

mod answers;
mod commands;
mod handover;
mod lines;
mod pacing;
mod protected;
mod recovery;
mod sessions;
mod workers;

use handover::RestoredFlags;
use pacing::RebalanceReplies;
use protected::Protected;
pub(super) use recovery::Recovery;
use sessions::Sessions;

/// How much and how fast.
#[derive(Clone, Copy, Debug)]
pub struct DispatcherSettings {
    /// So many descriptors are held at a time that no worker owns: those that are left are the
    /// supervisor's, who could start no worker for them otherwise.
    pub most_held: u64,
    /// So many copies of protected sessions beside those.
    pub max_protected: u64,
    /// How fast clients are made to move.
    pub pace: PaceSettings,
}

/// Connections taken in one turn, before channels and commands have theirs.
const ACCEPT_BATCH: usize = 64;

/// How often slots are looked at while something waits.
const TICK: Duration = Duration::from_millis(5);

/// How soon to look whether workers have acknowledged. Until then the primary's copy stays open,
/// which nobody sees: a FIN is withheld only from a client whose worker closes without shutdown(2),
/// and within that time.
const ANSWERS_WAIT: Duration = Duration::from_millis(1);

/// A worker that hasn't acknowledged within that time is not looked at more often than each tick.
const ANSWERS_EXPECTED: Duration = Duration::from_millis(10);

/// The frontend ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// The kernel won't watch descriptors.
    #[error("cannot wait for connections")]
    Wait(#[source] io::Error),
    /// The listener is of no use any more.
    #[error("listener failed")]
    Listener(#[source] io::Error),
}

/// Hands connections to workers.
#[derive(Debug)]
pub struct Dispatcher {
    poller: Poller,
    orders: CommandReceiver,
    queries: Queries,
    acceptor: Acceptor,
    affinity: Affinity,
    router: Router,
    slots: SlotTable,
    most_held: u64,
    max_protected: u64,
    sessions: Sessions,
    protected: Protected,
    close_requests: CloseRequests,
    rebalance: Rebalance,
    rebalance_replies: RebalanceReplies,
    /// As many are held as may be.
    full: bool,
    counters: Counters,
    stats: Stats,
    /// Connections that no slot can take now. While there are any, none is accepted.
    unroutable: Vec<PendingConnection>,
    /// Slots that may have something to send since the last flush.
    touched: Vec<SlotId>,
    /// When a connection was last sent to a worker.
    handed_over_at: Timestamp,
    /// The time of this turn.
    now: Timestamp,
    next_tick: Option<Timestamp>,
    accepting: bool,
    stopping: Option<(oneshot::Sender<()>, Timestamp)>,
    ended: bool,
    /// Everything is left to a successor, then at the latest.
    handing_over: Option<Timestamp>,
    /// What another frontend has known of workers that aren't attached yet.
    restored: RestoredFlags,
    /// What a primary that has died has left open.
    recovery: Option<Recovery>,
    /// Where a primary that follows a crash finds the counters.
    page: Option<SharedCounters>,
}

impl Dispatcher {
    /// Puts the parts together, and goes on from what another frontend has left: its connections wait
    /// for their slots, whose workers are attached and serve by the supervisor's commands as new ones do.
    /// The channels of `before` are taken out beforehand.
    ///
    /// # Errors
    ///
    /// If the kernel won't watch the listener.
    pub fn new(
        before: impl Into<FrontendHandover>,
        affinity: Affinity,
        mut router: Router,
        mut slots: SlotTable,
        settings: DispatcherSettings,
        orders: CommandReceiver,
        queries: Queries,
    ) -> Result<Self, DispatchError> {
        let poller = Poller::new().map_err(DispatchError::Wait)?;
        poller.add(Source::Commands, orders.as_fd()).map_err(DispatchError::Wait)?;
        poller.add(Source::Queries, queries.as_fd()).map_err(DispatchError::Wait)?;
        let before = before.into();
        let acceptor = Acceptor::new(before.listener, before.accept_errors, &poller);
        let now = Timestamp::now();
        let sessions = Sessions::resume(&before.slots, before.sessions, before.recovery.as_ref());
        if before.is_successor {
            slots.resume(before.slots.queues, now);
        }
        router.resume(before.router);
        let mut unroutable = before.unroutable;
        unroutable.reserve(ACCEPT_BATCH);
        Ok(Self {
            poller,
            orders,
            queries,
            acceptor: acceptor.map_err(DispatchError::Wait)?,
            affinity,
            router,
            slots,
            most_held: settings.most_held,
            max_protected: settings.max_protected,
            sessions,
            protected: Protected::default(),
            close_requests: CloseRequests::resume(settings.pace.close_rate, before.close_requests),
            rebalance: Rebalance::new(settings.pace.rebalance_rate),
            rebalance_replies: RebalanceReplies::default(),
            full: false,
            counters: before.counters,
            stats: before.stats,
            unroutable,
            touched: Vec::with_capacity(2 * ACCEPT_BATCH),
            handed_over_at: Timestamp(0),
            now,
            next_tick: None,
            accepting: false,
            stopping: None,
            ended: false,
            handing_over: None,
            restored: RestoredFlags {
                quarantined: before.slots.quarantined,
                stalled: before.slots.stalled,
            },
            recovery: before.recovery,
            page: before.page,
        })
    }

    /// Runs until the supervisor ends it, and returns everything if it is to be left to a successor.
    ///
    /// # Errors
    ///
    /// If the listener breaks.
    pub fn run(mut self) -> Result<Option<Box<FrontendHandover>>, DispatchError> {
        let mut ready = Vec::new();
        while !self.ended && !self.is_handed_over() {
            self.poller.wait(self.timeout(), &mut ready).map_err(DispatchError::Wait)?;
            self.now = Timestamp::now();
            self.settle();
            self.turn(&mut ready)?;
            self.publish();
            if self.flush() {
                // Workers first, where they have to share a processor with this thread: they
                // acknowledge meanwhile and more clients come, which saves a wake-up for each.
                std::thread::yield_now();
            }
            let wanted = self.accepting && self.unroutable.is_empty() && !self.is_full();
            let heeded = self.acceptor.heed(&self.poller, wanted, self.now);
            heeded.map_err(DispatchError::Wait)?;
        }
        Ok((!self.ended).then(|| Box::new(self.into_handover())))
    }

    /// Writes what is counted where it outlives this process: before anything is handed over, so that
    /// no number is given twice.
    fn publish(&mut self) {
        if let Some(page) = &self.page {
            page.write(self.counters());
        }
        for slot in &self.touched {
            self.slots.note_seen(*slot);
        }
    }

    /// What workers say comes before the backlog: it makes room.
    fn turn(&mut self, ready: &mut Vec<Source>) -> Result<(), DispatchError> {
        let mut backlog = false;
        for source in ready.drain(..) {
            match source {
                Source::Commands => self.obey_all(),
                Source::Queries => self.answer_all(),
                Source::Worker(worker) => drop(self.listen_to(worker)),
                Source::Listener => backlog = true,
            }
        }
        if backlog && self.handing_over.is_none() {
            self.accept()?;
        }
        if self.next_tick.is_some_and(|at| self.now >= at) {
            self.tick()?;
        }
        self.keep_pace();
        self.finish_recovery();
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let expected = self.now.since(self.handed_over_at) < ANSWERS_EXPECTED;
        let answers = (expected && self.slots.in_flight() > 0).then(|| self.now + ANSWERS_WAIT);
        let paced = [self.close_requests.next_due(), self.rebalance.next_due()];
        let next = [answers, self.next_tick, self.acceptor.paused_until()].into_iter().chain(paced);
        Some(next.flatten().min()?.since(self.now))
    }

    fn accept(&mut self) -> Result<(), DispatchError> {
        for _ in 0..ACCEPT_BATCH {
            if self.is_full() {
                return Ok(());
            }
            match self.look()? {
                Look::Arrival(arrival) => {
                    let connection = self.admit(arrival);
                    self.place(connection);
                    if !self.unroutable.is_empty() {
                        return Ok(());
                    }
                }
                Look::Empty => {
                    if self.stopping.is_some() {
                        self.acceptor.close();
                    }
                    return Ok(());
                }
                Look::Paused => return Ok(()),
            }
        }
        Ok(())
    }

    /// Looks into the backlog, so that whoever is accepted counts even if this process is killed at once.
    fn look(&mut self) -> Result<Look, DispatchError> {
        let accepted = self.counters.accepted;
        let expect = |number| self.page.iter().for_each(|page| page.expect(number));
        expect(accepted + 1);
        let look = self.acceptor.look(self.now).map_err(DispatchError::Listener)?;
        if !matches!(look, Look::Arrival(_)) {
            expect(accepted);
        }
        Ok(look)
    }

    /// Whether no more connections may be taken from the backlog; said when it begins and ends.
    fn is_full(&mut self) -> bool {
        let full = self.held() >= self.most_held;
        match (self.full, full) {
            (false, true) => tracing::warn!(
                held = self.most_held,
                "descriptors are short for what waits for workers, clients wait in the backlog",
            ),
            (true, false) => tracing::info!("accepting again"),
            _ => {}
        }
        self.full = full;
        full
    }

    /// Descriptors of connections and sessions that no worker owns.
    fn held(&self) -> u64 {
        let Counters { accepted, acknowledged, lost, .. } = self.counters;
        accepted.saturating_sub(acknowledged + lost) + self.sessions.descriptors()
    }

    fn admit(&mut self, Arrival { socket, client, local }: Arrival) -> PendingConnection {
        self.counters.accepted += 1;
        let key = self.affinity.key(client.ip());
        self.stats.accepted(key, client.ip(), self.now);
        let id = ConnectionId(self.counters.accepted);
        let record = ConnectionRecord { id, accepted_at: self.now, key, client, local };
        PendingConnection { record, socket, crashes: 0, parcel: None }
    }

    fn place(&mut self, connection: PendingConnection) {
        let route = self.router.route(connection.record.key, &self.slots, self.now);
        self.place_by(route, connection);
    }

    fn place_by(&mut self, route: Route, connection: PendingConnection) {
        let slot = match route {
            Route::Home(slot) => slot,
            Route::Fallback(slot, reason) => {
                self.stats.fallbacks(reason);
                lines::fallbacks(&connection.record, slot, reason);
                slot
            }
            Route::Nowhere if self.acceptor.is_closed() && self.stopping.is_none() => {
                // All workers drain, or have: nobody will take it. Its client is told at once.
                self.counters.lost += 1;
                return;
            }
            Route::Nowhere => {
                self.unroutable.push(connection);
                self.watch_time();
                return;
            }
        };
        self.slots.push(slot, connection);
        self.touched.push(slot);
    }

    /// Connections and sessions that were taken back from a slot's worker or queue.
    fn place_again(
        &mut self,
        slot: SlotId,
        reason: TakenBack,
        connections: Vec<PendingConnection>,
    ) {
        for mut connection in connections {
            lines::redispatched(&connection.record, slot, reason);
            if connection.parcel.is_some() {
                sessions::note_failure(&mut connection, slot, reason);
                self.place_session(connection);
            } else {
                self.counters.redispatched += 1;
                self.place(connection);
            }
        }
    }

    /// Gives those who have no slot another chance.
    fn house(&mut self) {
        for connection in std::mem::take(&mut self.unroutable) {
            self.place(connection);
        }
    }

    fn tick(&mut self) -> Result<(), DispatchError> {
        self.next_tick = None;
        for overdue in self.slots.overdue(self.now) {
            match overdue {
                Overdue::Unfilled(slot, connections) => {
                    self.place_again(slot, TakenBack::Unfilled, connections);
                }
                Overdue::Stalled(worker, connections) => {
                    self.counters.stalls += 1;
                    self.stats.stalled(worker.slot);
                    tracing::warn!(
                        slot = worker.slot.0,
                        generation = worker.generation.0,
                        "worker does not acknowledge, its clients go to others until it does",
                    );
                    self.place_again(worker.slot, TakenBack::Stalled, connections);
                }
            }
        }
        self.look_after_awaited();
        self.house();
        self.house_sessions();
        self.touched.extend(self.slots.ids());
        if self.stopping.is_some() {
            self.accept()?;
            self.finish_stopping();
        }
        let waiting = !self.unroutable.is_empty() || self.sessions.any_waits();
        if self.slots.is_busy() || waiting || self.stopping.is_some() {
            self.watch_time();
        }
        Ok(())
    }

    fn watch_time(&mut self) {
        self.next_tick.get_or_insert(self.now + TICK);
    }
}
