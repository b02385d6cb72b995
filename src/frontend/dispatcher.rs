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
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::frontend::affinity::Affinity;
use crate::frontend::listener::{AcceptBackoff, AcceptError, Accepted, Listener, WatchedListener};
use crate::frontend::placement::Slots;
use crate::frontend::router::{Route, Router};
use crate::frontend::slot_table::{Overdue, SlotTable};
use crate::frontend::watched::Watched;
use crate::handoff::channel::{ChannelError, Notice, PendingConnection};
use crate::handoff::message::{ConnectionId, ConnectionRecord, SlotId, Timestamp};
use crate::handoff::slots::{Counters, SlotCommand, SlotEventKind, SlotOrders, WorkerId};

/// Connections taken in one go, before channels and commands have their turn.
const ACCEPT_BATCH: usize = 64;

/// How often slots are looked at while something waits.
const TICK: Duration = Duration::from_millis(5);

/// How long the last connections may take to be handed over when the listener has closed.
const LAST_HANDOFFS: Duration = Duration::from_secs(2);

/// The frontend ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// The kernel won't watch descriptors.
    #[error("cannot watch {what}")]
    Watch {
        /// What.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The listener is of no use any more.
    #[error("listener failed")]
    Listener(#[source] io::Error),
}

/// Hands connections to workers.
#[derive(Debug)]
pub struct Dispatcher {
    orders: SlotOrders,
    listener: Option<WatchedListener>,
    affinity: Affinity,
    router: Router,
    slots: SlotTable,
    channels: Watched,
    counters: Counters,
    /// Connections that no slot can take now. While there are any, none is accepted.
    homeless: Vec<PendingConnection>,
    /// Slots that got a connection since the last flush.
    touched: Vec<SlotId>,
    accepting: bool,
    /// The last batch was full.
    more_in_backlog: bool,
    backoff: AcceptBackoff,
    paused_until: Option<Instant>,
    next_tick: Option<Instant>,
    stopping: Option<(oneshot::Sender<()>, Instant)>,
}

impl Dispatcher {
    /// Puts the parts together. To be called on the thread's own runtime.
    ///
    /// # Errors
    ///
    /// If the kernel won't watch the listener.
    pub fn new(
        listener: Listener,
        affinity: Affinity,
        router: Router,
        slots: SlotTable,
        orders: SlotOrders,
    ) -> Result<Self, DispatchError> {
        let failed = |what| move |source| DispatchError::Watch { what, source };
        Ok(Self {
            orders,
            listener: Some(listener.watch().map_err(failed("the listener"))?),
            affinity,
            router,
            slots,
            channels: Watched::new().map_err(failed("the channels"))?,
            counters: Counters::default(),
            homeless: Vec::with_capacity(ACCEPT_BATCH),
            touched: Vec::with_capacity(ACCEPT_BATCH),
            accepting: false,
            more_in_backlog: false,
            backoff: AcceptBackoff::default(),
            paused_until: None,
            next_tick: None,
            stopping: None,
        })
    }

    /// Runs until the supervisor has gone.
    ///
    /// # Errors
    ///
    /// If the listener breaks.
    pub async fn run(mut self) -> Result<(), DispatchError> {
        loop {
            let may_accept = self.accepting && self.homeless.is_empty();
            let listener = self.listener.as_ref().filter(|_| may_accept);
            tokio::select! {
                biased;
                command = self.orders.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return Ok(()),
                },
                () = self.channels.readable() => self.hear(),
                () = until(self.next_tick) => self.tick(),
                () = until(self.paused_until) => self.paused_until = None,
                () = readable(listener, self.stopping.is_some()), if self.paused_until.is_none() => {
                    self.accept()?;
                }
            }
            self.flush();
            if self.more_in_backlog {
                // Lets tokio look at the channels before the next batch.
                tokio::task::yield_now().await;
            }
        }
    }

    fn accept(&mut self) -> Result<(), DispatchError> {
        let now = Timestamp::now();
        self.more_in_backlog = false;
        for _ in 0..ACCEPT_BATCH {
            match self.accept_one() {
                Ok(accepted) => {
                    let connection = self.admit(accepted, now);
                    self.place(connection, now);
                    if !self.homeless.is_empty() {
                        return Ok(());
                    }
                }
                Err(AcceptError::Empty) => {
                    self.backlog_is_empty();
                    return Ok(());
                }
                Err(AcceptError::Skip(errno)) => {
                    self.counters.accept_errors += 1;
                    tracing::debug!(error = %errno, "connection failed before it was accepted");
                }
                Err(AcceptError::Exhausted(errno)) => {
                    self.pause(errno);
                    return Ok(());
                }
                Err(AcceptError::Broken(errno)) => {
                    return Err(DispatchError::Listener(errno.into()));
                }
            }
        }
        self.more_in_backlog = true;
        Ok(())
    }

    fn accept_one(&self) -> Result<Accepted, AcceptError> {
        match &self.listener {
            None => Err(AcceptError::Empty),
            Some(listener) if self.stopping.is_some() => listener.accept_last(),
            Some(listener) => listener.accept(),
        }
    }

    fn admit(&mut self, accepted: Accepted, now: Timestamp) -> PendingConnection {
        let Accepted { socket, client } = accepted;
        self.counters.accepted += 1;
        let local = match &self.listener {
            Some(listener) => listener.local_of(&socket),
            None => client,
        };
        let record = ConnectionRecord {
            id: ConnectionId(self.counters.accepted),
            accepted_at: now,
            key: self.affinity.key(client.ip()),
            client,
            local,
        };
        PendingConnection { record, socket, deaths: 0 }
    }

    fn place(&mut self, connection: PendingConnection, now: Timestamp) {
        let route = self.router.route(connection.record.key, &self.slots, now);
        self.place_by(route, connection);
    }

    fn place_by(&mut self, route: Route, connection: PendingConnection) {
        let slot = match route {
            Route::Home(slot) => slot,
            Route::Spill(slot) => {
                self.counters.spilled += 1;
                slot
            }
            Route::Nowhere => {
                self.homeless.push(connection);
                self.watch_time();
                return;
            }
        };
        self.slots.push(slot, connection);
        self.touched.push(slot);
    }

    fn place_again(&mut self, connections: Vec<PendingConnection>, now: Timestamp) {
        self.counters.redelivered += connections.len() as u64;
        for connection in connections {
            self.place(connection, now);
        }
    }

    /// Sends what the last turn has put into queues. A connection placed twice in one turn makes
    /// its slot stand here twice; the second flush finds nothing.
    fn flush(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        let now = Timestamp::now();
        self.watch_time();
        while let Some(slot) = self.touched.pop() {
            if let Err((worker, error)) = self.slots.flush(slot, now) {
                self.expel(worker, error, now);
            }
        }
    }

    /// Reads what workers have said, until none has anything to say.
    fn hear(&mut self) {
        let now = Timestamp::now();
        while let Some(worker) = self.channels.take_ready() {
            self.listen_to(worker, now);
        }
        if self.stopping.is_some() {
            self.finish_stopping();
        }
    }

    fn listen_to(&mut self, worker: WorkerId, now: Timestamp) {
        loop {
            match self.slots.receive(worker, now) {
                Ok(Notice::Nothing) => break,
                Ok(Notice::Acknowledged(count)) => self.counters.acknowledged += count as u64,
                Ok(Notice::Refused(connections)) => {
                    self.counters.refused += connections.len() as u64;
                    tracing::warn!(slot = %worker.slot, "worker has no descriptors left");
                    self.place_again(connections, now);
                }
                Ok(Notice::Ready) => self.orders.tell(worker, SlotEventKind::Ready),
                Ok(Notice::Leave) => self.orders.tell(worker, SlotEventKind::Leave),
                Ok(Notice::Hello | Notice::Pong) => {}
                Err(error) => return self.expel(worker, error, now),
            }
        }
        // Its acknowledgements have made room for others.
        self.touched.push(worker.slot);
    }

    /// A worker that breaks the protocol gets nothing more; what it holds waits for its end.
    fn expel(&mut self, worker: WorkerId, error: ChannelError, now: Timestamp) {
        if let Some(channel) = self.slots.channel(worker) {
            self.channels.remove(channel.as_fd());
        }
        self.slots.retire(worker, now);
        self.orders.tell(worker, SlotEventKind::Violation(error));
    }

    fn obey(&mut self, command: SlotCommand) {
        let now = Timestamp::now();
        self.watch_time();
        match command {
            SlotCommand::Accept => self.accepting = true,
            SlotCommand::Attach(worker, channel) => {
                self.channels.add(worker, channel.as_fd());
                self.slots.attach(worker, *channel);
            }
            SlotCommand::Serve(worker) => {
                self.slots.serve(worker);
                self.touched.push(worker.slot);
                self.house(now);
            }
            SlotCommand::Drain(worker) => self.slots.drain(worker, now),
            SlotCommand::Gone(worker) => self.bury(worker, now),
            SlotCommand::GiveUp(slot) => {
                let waiting = self.slots.close(slot);
                self.place_again(waiting, now);
            }
            SlotCommand::StopAccepting(reply) => {
                self.stopping = Some((reply, Instant::now() + LAST_HANDOFFS));
                self.accepting = true;
            }
            SlotCommand::Count(reply) => {
                // Nobody waits any more: nothing to do.
                let _ = reply.send(self.counters);
            }
        }
    }

    fn bury(&mut self, worker: WorkerId, now: Timestamp) {
        let Some(channel) = self.slots.remove(worker, now) else { return };
        self.channels.remove(channel.as_fd());
        let recovered = channel.recover();
        self.counters.acknowledged += recovered.acknowledged as u64;
        if recovered.lost > 0 {
            self.counters.lost += recovered.lost as u64;
            tracing::warn!(
                slot = %worker.slot,
                connections = recovered.lost,
                "worker died with connections that it had not acknowledged, and that were used or \
                 ended",
            );
        }
        self.counters.redelivered += recovered.untouched.len() as u64;
        for mut connection in recovered.untouched {
            connection.deaths = connection.deaths.saturating_add(1);
            // To the successor, so that the client stays in its slot; but only once.
            let avoid = (connection.deaths > 1).then_some(worker.slot);
            let key = connection.record.key;
            let route = self.router.route_past(avoid, key, &self.slots, now);
            self.place_by(route, connection);
        }
    }

    /// Gives those who have no slot another chance.
    fn house(&mut self, now: Timestamp) {
        for connection in std::mem::take(&mut self.homeless) {
            self.place(connection, now);
        }
    }

    fn tick(&mut self) {
        let now = Timestamp::now();
        self.next_tick = None;
        let overdue: Vec<_> = self.slots.overdue(now).collect();
        for overdue in overdue {
            match overdue {
                Overdue::Unfilled(connections) => self.place_again(connections, now),
                Overdue::Stalled(worker, connections) => {
                    self.counters.stalls += 1;
                    tracing::warn!(
                        slot = %worker.slot,
                        generation = %worker.generation,
                        "worker does not acknowledge, its clients go to others until it does",
                    );
                    self.place_again(connections, now);
                }
            }
        }
        self.house(now);
        self.touched.extend(self.slots.ids());
        if self.slots.is_busy() || !self.homeless.is_empty() || self.stopping.is_some() {
            self.watch_time();
        }
        self.finish_stopping();
    }

    fn watch_time(&mut self) {
        if self.next_tick.is_none() {
            self.next_tick = Some(Instant::now() + TICK);
        }
    }

    fn pause(&mut self, errno: rustix::io::Errno) {
        self.counters.accept_errors += 1;
        let (pause, first) = self.backoff.pause();
        self.paused_until = Some(Instant::now() + pause);
        if first {
            tracing::warn!(error = %errno, "out of descriptors or memory, clients wait in the backlog");
        }
    }

    fn backlog_is_empty(&mut self) {
        if self.backoff.end() {
            tracing::info!("accepting again");
        }
        if self.stopping.is_some() {
            self.listener = None;
            self.finish_stopping();
        }
    }

    /// The last connections are handed over, or have had their time.
    fn finish_stopping(&mut self) {
        let Some((_, deadline)) = &self.stopping else { return };
        let done = self.listener.is_none() && self.slots.is_idle() && self.homeless.is_empty();
        if !done && Instant::now() < *deadline {
            return;
        }
        self.listener = None;
        if let Some((reply, _)) = self.stopping.take() {
            // The supervisor may have been told to stop at once and wait no more.
            let _ = reply.send(());
        }
    }
}

/// Waits until there is something to accept, or only to look whether there is.
async fn readable(listener: Option<&WatchedListener>, at_once: bool) {
    match listener {
        Some(_) if at_once => {}
        Some(listener) => listener.readable().await,
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
