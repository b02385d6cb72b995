//! The accept loop: takes connections from the backlog, asks the router for a slot, hands over.
//!
//! Runs on a thread of its own, with nothing beside it that could block. The supervisor sends it
//! commands. Never reads from a client, never drops a connection that no worker owns, and knows nothing
//! of a connection after its hand-off.
//!
//! The dispatcher itself decides nothing: it carries what its parts say from one to the other. Slots,
//! links and the router are [`Routing`]'s, sessions the [`Broker`]'s, the backlog [`Arrivals`]'.

#[cfg(test)]
mod fuzz;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::closing;
use crate::frontend::acceptor::AcceptErrors;
use crate::frontend::arrivals::{Arrivals, Taken};
use crate::frontend::kernel_dispatch::{Asked, Found, KernelDispatch};
use crate::frontend::keys::ClientKeys;
use crate::frontend::lines::{self, RedispatchReason};
use crate::frontend::placement::Slots;
use crate::frontend::poller::{Poller, Source};
use crate::frontend::programs::Programs;
use crate::frontend::query::{Client, FrontendFacts, Queries, Query, RouteExplanation};
use crate::frontend::restored::RestoredFlags;
use crate::frontend::router::{Explanation, Router};
use crate::frontend::routing::{Routing, Tally};
use crate::frontend::slot_table::{Completion, Overdue, SlotTable, Told};
use crate::frontend::snapshot::FrontendHandover;
use crate::link::connection::PendingConnection;
use crate::link::error::ChannelError;
use crate::link::event::{LinkEvent, SessionEvent, WorkerNote};
use crate::link::interface::Interface;
use crate::link::node::ports::PortRequest;
use crate::link::programs::{ProgramCommand, Recipients, TURN};
use crate::link::seam::{CommandReceiver, SlotCommand, SlotEventKind, WorkerId};
use crate::link::{Attached, Delivery, Link};
use crate::protocol::ids::{SlotId, Timestamp};
use crate::sessions::broker::{Broker, BrokerSettings, BrokerState, Proven};
use crate::sessions::close_requests::PaceSettings;
use crate::sessions::host::Host;

/// Limits and paces.
#[derive(Clone, Copy, Debug)]
pub struct DispatcherSettings {
    /// So many descriptors are held at a time that no worker owns. The rest is the supervisor's, which
    /// could start no worker for them otherwise.
    pub max_held: u64,
    /// So many copies of protected sessions beside those.
    pub max_protected: u64,
    /// How fast clients are made to move.
    pub pace: PaceSettings,
}

/// Connections taken in one turn, before links and commands have theirs.
const ACCEPT_BATCH: usize = 64;

/// So much longer than to acknowledge workers may take to report to a primary that follows a crash.
const REPORT_DELAY: Duration = Duration::from_millis(100);

/// How long the last connections may take to be handed over when the supervisor stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long connections on their way may take to be acknowledged before a handover: those that are need
/// not be carried over.
const HANDOVER_TIMEOUT: Duration = Duration::from_millis(100);

/// The frontend has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// The kernel won't watch descriptors.
    #[error("cannot wait for connections")]
    Wait(#[source] io::Error),
    /// The listener has failed.
    #[error("listener failed")]
    Listener(#[source] io::Error),
}

/// What the supervisor has ordered.
#[derive(Debug)]
enum Mode {
    /// Nothing: clients wait in the backlog.
    Waiting,
    /// Accept connections.
    Accepting,
    /// Hand out the backlog, close the listener, answer when all is handed over or the time is up.
    Stopping { reply: oneshot::Sender<()>, deadline: Timestamp },
    /// The listener is closed.
    Stopped,
    /// Leave everything to a successor when nothing is on its way or the time is up.
    HandingOver { deadline: Timestamp },
    /// End.
    Ended,
}

/// Hands connections to workers.
#[derive(Debug)]
pub struct Dispatcher {
    poller: Poller,
    commands: CommandReceiver,
    queries: Queries,
    arrivals: Arrivals,
    routing: Routing,
    broker: Broker,
    programs: Programs,
    /// Where the kernel sends clients to their workers.
    kernel: Option<KernelDispatch>,
    mode: Mode,
    restored: RestoredFlags,
    /// The time of this turn.
    now: Timestamp,
}

impl Dispatcher {
    /// Puts the parts together, and resumes from the state of another frontend: its connections wait for
    /// their slots, whose workers are attached and serve by the supervisor's commands as new ones do.
    /// Channels are taken out of the state before.
    ///
    /// # Errors
    ///
    /// If the kernel won't watch the listener.
    pub fn new(
        before: impl Into<FrontendHandover>,
        keys: impl Into<ClientKeys>,
        mut router: Router,
        mut slots: SlotTable,
        settings: DispatcherSettings,
        commands: CommandReceiver,
        queries: Queries,
    ) -> Result<Self, DispatchError> {
        let before = before.into();
        closing::start();
        let poller = Poller::new().map_err(DispatchError::Wait)?;
        poller.add(Source::Commands, commands.as_fd()).map_err(DispatchError::Wait)?;
        poller.add(Source::Queries, queries.as_fd()).map_err(DispatchError::Wait)?;
        let arrivals = Arrivals::new(
            before.listener,
            before.accept_errors,
            keys.into(),
            before.record_key,
            &poller,
        )
        .map_err(DispatchError::Wait)?;
        let queued = before.slots.queues.iter().flat_map(|(_, queue)| queue);
        let queued = queued.filter(|one| one.transfer.is_some()).count() as u64;
        let DispatcherSettings { max_held, max_protected, pace } = settings;
        // By then, what a worker has not received was taken back from it.
        let record_key = before.record_key;
        let report_timeout = slots.ack_timeout() + REPORT_DELAY;
        let state = BrokerState {
            close_requests: before.close_requests,
            waiting: before.sessions,
            recovery: before.recovery,
        };
        if before.is_successor {
            slots.resume(before.slots.queues, Timestamp::now());
        }
        router.resume(before.router);
        let tally = Tally { counters: before.counters, stats: before.stats, shared: before.page };
        let broker = Broker::resume(
            &BrokerSettings { max_protected, pace, report_timeout, record_key },
            state,
            queued,
        );
        let broker = broker.map_err(DispatchError::Wait)?;
        poller.add(Source::Proofs, broker.proven()).map_err(DispatchError::Wait)?;
        let mut routing = Routing::new(slots, router, tally, before.unroutable, max_held);
        routing.close_unroutable(arrivals.is_closed());
        let mut dispatcher = Self {
            poller,
            commands,
            queries,
            now: routing.begin_turn(),
            arrivals,
            routing,
            broker,
            programs: Programs::new(before.ports),
            kernel: before.group.map(KernelDispatch::new),
            mode: Mode::Waiting,
            restored: RestoredFlags::new(before.slots.quarantined, before.slots.stalled),
        };
        // Else the kernel would spread clients over the first sockets as it likes.
        dispatcher.steer();
        Ok(dispatcher)
    }

    /// Runs until the supervisor ends it. Returns everything if it is to be left to a successor.
    ///
    /// # Errors
    ///
    /// If the listener fails.
    pub fn run(mut self) -> Result<Option<Box<FrontendHandover>>, DispatchError> {
        let mut ready = Vec::new();
        while !self.is_done() {
            self.step(self.timeout(), &mut ready)?;
        }
        let has_ended = matches!(self.mode, Mode::Ended);
        if has_ended {
            self.programs.end();
        }
        Ok((!has_ended).then(|| Box::new(self.into_handover())))
    }

    /// Waits for something to do, at most so long, and does it.
    fn step(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<Source>,
    ) -> Result<(), DispatchError> {
        self.poller.wait(timeout, ready).map_err(DispatchError::Wait)?;
        self.now = self.routing.begin_turn();
        self.complete_all();
        self.turn(ready)?;
        self.routing.publish(self.arrivals.errors().total());
        if self.flush() {
            // Workers first, where they have to share a processor with this thread: they
            // acknowledge meanwhile and more clients come, which saves a wake-up for each.
            std::thread::yield_now();
        }
        let wanted = self.mode.accepts() && !self.routing.is_unroutable() && !self.is_full();
        let interest = self.arrivals.acceptor().set_interest(&self.poller, wanted, self.now);
        interest.map_err(DispatchError::Wait)
    }

    fn is_done(&mut self) -> bool {
        match self.mode {
            Mode::Ended => true,
            Mode::HandingOver { deadline } => {
                let is_idle = self.routing.slots().in_flight() == 0 && !self.broker.is_proving();
                is_idle && self.commands.is_bus_idle() || self.now >= deadline
            }
            _ => false,
        }
    }

    fn into_handover(mut self) -> FrontendHandover {
        while let Some(proven) = self.broker.take_any_proven(&mut self.routing) {
            self.settle(proven);
        }
        let (listener, accept_errors) = self.arrivals.into_parts();
        let (slots, router, tally, unroutable) = self.routing.into_parts();
        let record_key = self.broker.record_key();
        let state = self.broker.into_state();
        FrontendHandover {
            listener,
            accept_errors,
            slots: slots.into_handover(),
            counters: tally.counters,
            stats: tally.stats,
            router: router.into_snapshot(self.now),
            close_requests: state.close_requests,
            unroutable,
            sessions: state.waiting,
            recovery: state.recovery,
            page: tally.shared,
            is_successor: true,
            record_key,
            ports: self.programs.into_ports(),
            group: self.kernel.map(KernelDispatch::into_group),
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let due = self.routing.next_due().chain(self.broker.next_due());
        let due = due.chain(self.programs.next_due());
        let due = due.chain(self.kernel.as_ref().and_then(KernelDispatch::next_due));
        let next = due.chain(self.arrivals.paused_until()).min()?;
        Some(next.since(self.now))
    }

    /// Messages of workers come before the backlog: they make room.
    fn turn(&mut self, ready: &mut Vec<Source>) -> Result<(), DispatchError> {
        let mut backlog = false;
        for source in ready.drain(..) {
            match source {
                Source::Commands => self.handle_commands(),
                Source::Queries => self.handle_queries(),
                Source::Proofs => self.broker.clear_proven(),
                Source::Worker(worker) => drop(self.listen_to(worker)),
                Source::Listener => backlog = true,
            }
        }
        if backlog && !matches!(self.mode, Mode::HandingOver { .. }) {
            self.accept()?;
        }
        while let Some(proven) = self.broker.take_proven(&mut self.routing) {
            self.settle(proven);
        }
        if self.routing.take_tick() {
            self.tick()?;
        }
        self.broker.run_due(&mut self.routing);
        for (worker, event) in self.programs.run_due(self.routing.slots(), self.now) {
            self.handle(worker, event);
        }
        self.steer();
        // That connections are accepted also says that all workers are attached that are left.
        if self.mode.accepts() && self.broker.finish_recovery(&mut self.routing) {
            self.routing.count_lost();
        }
        Ok(())
    }

    /// What the kernel does with clients follows the slots.
    fn steer(&mut self) {
        let Some(kernel) = &mut self.kernel else { return };
        let (router, slots) = self.routing.router();
        let Found { accepting, lost } = kernel.run(slots, router.kernel_ranking(), self.now);
        self.routing.count_late(lost);
        for (worker, asked) in accepting {
            let link = self.routing.slots().any_link(worker);
            link.map(Link::note_attached);
            let kind = match asked {
                Asked::Ready => SlotEventKind::Ready,
                Asked::Alive => SlotEventKind::Pong { overdue: false },
            };
            self.commands.send_event(worker, kind);
        }
    }

    fn accept(&mut self) -> Result<(), DispatchError> {
        for _ in 0..ACCEPT_BATCH {
            if self.is_full() {
                return Ok(());
            }
            let id = self.routing.expect_arrival();
            let taken = self.arrivals.look(id, self.now).map_err(DispatchError::Listener)?;
            let Taken::Client(record, socket) = taken else {
                self.routing.expect_none();
                if matches!((taken, &self.mode), (Taken::Empty, Mode::Stopping { .. })) {
                    self.arrivals.acceptor().close();
                }
                return Ok(());
            };
            self.routing.count_arrival(&record);
            if self.kernel.is_some() {
                // No worker is handed connections: this one came before the kernel knew of any.
                self.routing.count_late(1);
                continue;
            }
            self.routing.place(PendingConnection { record, socket, crashes: 0, transfer: None });
            if self.routing.is_unroutable() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_full(&mut self) -> bool {
        let has_room = self.routing.has_room_for(self.broker.descriptors());
        self.arrivals.check_full(has_room, self.routing.max_held())
    }

    fn tick(&mut self) -> Result<(), DispatchError> {
        for overdue in self.routing.slots().overdue(self.now) {
            match overdue {
                Overdue::Unfilled(slot, connections) => {
                    self.redispatch(slot, RedispatchReason::Unfilled, connections);
                }
                Overdue::Stalled(worker, connections) => {
                    self.routing.count_stall(worker);
                    self.redispatch(worker.slot, RedispatchReason::Stalled, connections);
                }
            }
        }
        self.broker.check_pending(&mut self.routing);
        self.retry();
        if matches!(self.mode, Mode::Stopping { .. }) {
            self.accept()?;
            self.finish_stopping();
        }
        let is_stopping = matches!(self.mode, Mode::Stopping { .. });
        self.routing.end_tick(self.broker.is_waiting() || is_stopping);
        Ok(())
    }

    /// Tries again to place connections and sessions that wait for any slot.
    fn retry(&mut self) {
        self.routing.retry_unroutable();
        self.broker.retry(&mut self.routing);
    }

    /// Places connections and sessions that were taken back from a slot's worker or queue.
    fn redispatch(
        &mut self,
        slot: SlotId,
        reason: RedispatchReason,
        connections: Vec<PendingConnection>,
    ) {
        let failed = (reason != RedispatchReason::Unfilled).then_some(slot);
        for connection in connections {
            lines::redispatched(&connection.record, slot, reason);
            if connection.transfer.is_some() {
                self.broker.place_again(&mut self.routing, connection, failed);
            } else {
                self.routing.place_again(connection);
            }
        }
    }

    /// Looks at the acknowledgements of all slots where something is on its way. Costs no system call but
    /// the closing of what is completed.
    fn complete_all(&mut self) {
        if self.routing.slots().in_flight() == 0 {
            return;
        }
        for slot in (0..self.routing.slots().count()).map(SlotId) {
            let completion = self.complete(slot);
            if let Some(worker) = completion.refusals {
                self.read_refusals(worker);
            }
            if let Some((worker, error)) = completion.breach {
                self.quarantine(worker, error);
            }
        }
        self.finish_stopping();
    }

    fn complete(&mut self, slot: SlotId) -> Completion {
        let mut sessions = Vec::new();
        let completion = self.routing.complete(slot, &mut sessions);
        for (worker, session) in sessions {
            self.broker.acknowledged(&mut self.routing, worker, &session);
        }
        completion
    }

    /// A refusal is sent before it is counted, so that its message is there.
    fn read_refusals(&mut self, worker: WorkerId) {
        if !self.listen_to(worker)
            && let Some(link) = self.routing.slots().any_link(worker)
        {
            let error = link.missing_refusal();
            self.quarantine(worker, error);
        }
    }

    fn flush(&mut self) -> bool {
        let mut any = false;
        while let Some(flushed) = self.routing.flush_next() {
            match flushed {
                Ok(sent) => any |= sent,
                Err((worker, error)) => self.quarantine(worker, error),
            }
        }
        self.routing.end_flush(any);
        any
    }

    /// Reads one message of a worker, and says whether there was one. The poller reports the worker again
    /// if there are more.
    fn listen_to(&mut self, worker: WorkerId) -> bool {
        let event = self.routing.slots().receive(worker, self.now);
        if matches!(event, Ok(LinkEvent::Nothing)) {
            return false;
        }
        self.handle(worker, event);
        self.broker.resume_link(&mut self.routing, worker);
        // It is not stalled, so that what waits for it can be sent.
        self.routing.flush_later(worker.slot);
        true
    }

    fn handle(&mut self, worker: WorkerId, event: Result<LinkEvent, ChannelError>) {
        match event {
            Ok(LinkEvent::Nothing) => {}
            // The next look at the slot completes them.
            Ok(LinkEvent::Acknowledged(_)) => {}
            Ok(LinkEvent::Attached) => self.commands.send_event(worker, SlotEventKind::Attached),
            Ok(LinkEvent::Ready) => self.ready(worker),
            Ok(LinkEvent::Pong) => {
                let overdue = self.routing.slots().is_overdue(worker, self.now);
                self.commands.send_event(worker, SlotEventKind::Pong { overdue });
            }
            Ok(LinkEvent::ReplaceMe) => self.commands.send_event(worker, SlotEventKind::ReplaceMe),
            Ok(LinkEvent::Refused(connections)) => self.refused(worker, connections),
            Ok(LinkEvent::Session(event)) => self.session_event(worker, event),
            Ok(LinkEvent::Speaks(interface)) => self.decided(worker, interface),
            Ok(LinkEvent::Left) => self.left(worker),
            Ok(LinkEvent::Note(note)) => {
                self.commands.send_event(worker, SlotEventKind::Note(note))
            }
            Ok(LinkEvent::App(message)) => self.commands.pass(worker, message),
            Ok(LinkEvent::Listen(request)) => self.listen(worker, &request),
            Ok(LinkEvent::StoppedListening(name)) => {
                self.programs.stopped_listening(worker, &name);
            }
            Err(error) => self.quarantine(worker, error),
        }
    }

    /// A worker says that it is ready. One that listens itself has to take a connection, too.
    fn ready(&mut self, worker: WorkerId) {
        let Some(link) = self.routing.slots().any_link(worker) else { return };
        let listens = link.interface() == Some(Interface::Listen);
        match &mut self.kernel {
            Some(kernel) if !listens || link.awaits_probe() => {
                kernel.expect(worker, Asked::Ready, self.now);
            }
            // It serves already, and has said so late.
            Some(_) => {}
            None => self.commands.send_event(worker, SlotEventKind::Ready),
        }
    }

    fn listen(&mut self, worker: WorkerId, request: &PortRequest) {
        match self.programs.listen(self.routing.slots(), worker, request) {
            Ok(None) => {}
            Ok(Some(note)) => self.commands.send_event(worker, SlotEventKind::Note(note)),
            Err(error) => self.quarantine(worker, error),
        }
    }

    /// The link has gone on with one of its two channels: that is watched from now on.
    fn decided(&mut self, worker: WorkerId, interface: Interface) {
        if let Some(link) = self.routing.slots().any_link(worker) {
            watch(&self.poller, worker, link);
            self.programs.decided(worker, link, self.now);
        }
        self.commands.send_event(worker, SlotEventKind::Speaks(interface));
    }

    /// A worker has ended its channel: nothing more goes to it, and another one follows it.
    fn left(&mut self, worker: WorkerId) {
        if let Some(link) = self.routing.slots().any_link(worker) {
            self.poller.remove(link.as_fd());
        }
        self.routing.slots().retire(worker, self.now);
        self.routing.schedule_tick();
        self.commands.send_event(worker, SlotEventKind::ReplaceMe);
    }

    fn session_event(&mut self, worker: WorkerId, event: SessionEvent) {
        if let SessionEvent::Offered(offer) = &event
            && self.broker.begin_offer(&self.routing, worker, offer.record().id)
        {
            // The session may just have come here: its acknowledgement in this turn is not seen yet.
            self.complete(worker.slot);
        }
        if let Err(error) = self.broker.handle(&mut self.routing, worker, event) {
            self.quarantine(worker, error);
        }
    }

    /// Logged once a worker: it may refuse ten times a second for as long as it is full.
    fn refused(&mut self, worker: WorkerId, connections: Vec<PendingConnection>) {
        let clients = connections.iter().filter(|one| one.transfer.is_none()).count() as u64;
        self.routing.count_refused(worker, clients);
        self.broker.refused(worker, &connections);
        let all = connections.len() as u64;
        let link = self.routing.slots().any_link(worker);
        if clients > 0 && link.is_some_and(|link| link.in_flight().counts().refused == all) {
            tracing::warn!(
                slot = worker.slot.0,
                "worker refuses connections: it has no descriptors left, or its server is closed; its new clients go to others",
            );
        }
        self.redispatch(worker.slot, RedispatchReason::Refused, connections);
    }

    /// A worker that breaks the protocol gets nothing more. Connections on their way to it wait for its
    /// end.
    fn quarantine(&mut self, worker: WorkerId, error: ChannelError) {
        if let Some(link) = self.routing.slots().any_link(worker) {
            self.poller.remove(link.as_fd());
        }
        self.take_back_pending(worker);
        self.routing.slots().quarantine(worker, self.now);
        self.broker.forget(worker);
        self.routing.schedule_tick();
        self.commands.send_event(worker, SlotEventKind::Violation(error));
    }

    /// Takes back what a worker hasn't received of what another primary had sent, before it is
    /// quarantined: later it could not be told which sessions are among that.
    fn take_back_pending(&mut self, worker: WorkerId) {
        let link = self.routing.slots().link(worker).filter(|link| link.is_resyncing());
        let Some(link) = link else { return };
        let (freed, found) = (link.take_back(), link.take_found());
        self.broker.hold_found(&mut self.routing, found);
        self.redispatch(worker.slot, RedispatchReason::Stalled, freed);
    }

    fn handle_commands(&mut self) {
        self.commands.clear_wake();
        while let Some(command) = self.commands.next_command() {
            self.handle_command(command);
            self.routing.schedule_tick();
            if matches!(self.mode, Mode::Ended) {
                return;
            }
        }
        self.handle_program_commands();
    }

    /// Carries out some commands of the bus; the others wait for the next turn, so that they hold up nothing.
    fn handle_program_commands(&mut self) {
        for _ in 0..TURN {
            let Some(command) = self.commands.next_program_command() else { return };
            match command {
                ProgramCommand::Tell(recipients, line) => self.tell(recipients, &line),
                ProgramCommand::Requests(worker, noted) => {
                    let link = self.routing.slots().any_link(worker);
                    link.iter().for_each(|link| link.note_requests(&noted));
                }
                ProgramCommand::Replace(worker) => {
                    self.commands.send_event(worker, SlotEventKind::ReplaceMe);
                }
            }
        }
        self.commands.wake_again();
    }

    /// Sends programs a message. A worker that doesn't read misses it.
    fn tell(&mut self, recipients: Recipients, line: &Arc<[u8]>) {
        let Told { slots, refused } = self.routing.slots().tell(recipients, line);
        slots.into_iter().for_each(|slot| self.routing.flush_later(slot));
        self.commands.count_untold(refused.len() as u64);
        if let Some(worker) = refused.first() {
            self.commands.note(*worker, WorkerNote::Dropped);
        }
    }

    fn handle_command(&mut self, command: SlotCommand) {
        match command {
            SlotCommand::Accept => {
                self.mode.accept();
                self.programs.all_attached();
                self.kernel.iter_mut().for_each(KernelDispatch::all_attached);
            }
            SlotCommand::Rank(slots) => self.rank(&slots),
            SlotCommand::Attach(worker, attached) => self.attach(worker, *attached),
            SlotCommand::Member(worker, reply) => {
                let member = match &mut self.kernel {
                    Some(kernel) => kernel.member(worker),
                    None => Err(io::ErrorKind::Unsupported.into()),
                };
                // The one that has asked may not wait any more.
                let _ = reply.send(member);
            }
            SlotCommand::Serve(worker) => self.serve(worker),
            SlotCommand::Drain(worker, order) => {
                self.routing.slots().drain(worker, order, self.now);
                self.routing.flush_later(worker.slot);
            }
            SlotCommand::Disconnect(worker) => {
                if let Some(link) = self.routing.slots().any_link(worker) {
                    link.disconnect();
                }
                self.routing.flush_later(worker.slot);
            }
            SlotCommand::Ping(worker) => {
                self.ping(worker);
            }
            SlotCommand::Gone(worker) => self.remove(worker),
            SlotCommand::GiveUp(slot) => {
                let waiting = self.routing.slots().close(slot);
                self.redispatch(slot, RedispatchReason::Unfilled, waiting);
            }
            SlotCommand::StopAccepting(reply) => {
                self.mode = Mode::Stopping { reply, deadline: self.now + STOP_TIMEOUT };
                self.routing.close_unroutable(false);
            }
            SlotCommand::Count(reply) => {
                let errors = self.arrivals.errors().total();
                // The one that has asked may not wait any more.
                let _ = reply.send(self.routing.tally().total(errors));
            }
            SlotCommand::End => self.mode = Mode::Ended,
            SlotCommand::HandOver => {
                self.mode = Mode::HandingOver { deadline: self.now + HANDOVER_TIMEOUT };
            }
        }
    }

    /// One that can't be asked counts as alive, as long as it acknowledges what it gets.
    fn ping(&mut self, worker: WorkerId) {
        let Some(link) = self.routing.slots().any_link(worker) else { return };
        if link.capabilities().ping {
            // A worker whose link is full has more to do than to answer, and doesn't.
            let _ = link.ping();
            return;
        }
        if let Some(kernel) = &mut self.kernel {
            // A connection that waits behind all clients' is accepted if its loop turns.
            return kernel.expect(worker, Asked::Alive, self.now);
        }
        let overdue = self.routing.slots().is_overdue(worker, self.now);
        self.commands.send_event(worker, SlotEventKind::Pong { overdue });
    }

    fn rank(&mut self, ranked: &[(SlotId, f64)]) {
        let count = ranked.iter().map(|(slot, _)| slot.index() + 1).max();
        self.routing.slots().grow(count.unwrap_or(0));
        self.grow_stats();
        self.routing.router().0.rank(ranked);
    }

    fn grow_stats(&mut self) {
        let count = self.routing.slots().count();
        self.routing.tally().stats.grow(count);
    }

    fn attach(&mut self, worker: WorkerId, mut attached: Attached) {
        if let Delivery::Listener(member) = &attached.delivery {
            attached.link.listen_itself(member);
        }
        let link = &attached.link;
        self.broker.attached(link.in_flight().sessions() as u64);
        if self.restored.take_quarantined(worker) {
            self.routing.slots().attach(worker, attached);
            return self.routing.slots().quarantine(worker, self.now);
        }
        watch(&self.poller, worker, link);
        self.programs.attached(worker, link, self.now);
        if let (Delivery::Listener(member), Some(kernel)) = (&attached.delivery, &mut self.kernel) {
            kernel.attached(worker, member);
            if link.awaits_probe() {
                kernel.expect(worker, Asked::Ready, self.now);
            }
        }
        if link.is_resyncing() {
            self.broker.expect_report(worker);
        }
        if link.asked_for_replacement() {
            self.commands.send_event(worker, SlotEventKind::ReplaceMe);
        }
        self.routing.slots().attach(worker, attached);
        // There may be a question to send.
        self.routing.flush_later(worker.slot);
        self.grow_stats();
    }

    fn serve(&mut self, worker: WorkerId) {
        for session in self.routing.slots().serve(worker) {
            self.broker.place(&mut self.routing, session);
        }
        if self.restored.take_stalled(worker) {
            self.routing.slots().stall(worker);
        }
        self.routing.flush_later(worker.slot);
        self.retry();
    }

    /// A worker is dead: what it has not acknowledged goes to others.
    fn remove(&mut self, worker: WorkerId) {
        let has_stalled = self.routing.slots().is_overdue(worker, self.now);
        let Some(link) = self.routing.slots().remove(worker, self.now) else { return };
        self.programs.gone(worker);
        self.kernel.iter_mut().for_each(|kernel| kernel.gone(worker));
        self.commands.pass_end(worker);
        self.poller.remove(link.as_fd());
        let mut recovered = link.recover();
        if self.broker.is_recovering() {
            self.routing.count_acknowledged(recovered.uncounted);
        }
        self.broker.worker_died(&mut self.routing, worker, has_stalled, &mut recovered);
        for connection in recovered.acknowledged {
            if connection.transfer.is_some() {
                self.broker.acknowledged(&mut self.routing, worker, &connection);
            } else {
                self.routing.complete_one(worker, &connection.record);
            }
        }
        for connection in recovered.untouched {
            self.redispatch_after_crash(worker.slot, connection, has_stalled);
        }
        self.broker.restore(&mut self.routing, worker, recovered.offered);
    }

    /// What was on its way to a dead worker goes to others, if that has not used it.
    fn settle(&mut self, proven: Proven) {
        let Proven { worker, has_stalled, untouched, used } = proven;
        self.close_used(worker, used);
        for connection in untouched {
            self.redispatch_after_crash(worker.slot, connection, has_stalled);
        }
        self.finish_stopping();
    }

    /// Closes connections that a dead worker has used and not acknowledged.
    fn close_used(&mut self, worker: WorkerId, used: Vec<PendingConnection>) {
        let (sessions, clients): (Vec<_>, Vec<_>) =
            used.into_iter().partition(|one| one.transfer.is_some());
        self.routing.count_used(worker, clients.len() as u64);
        sessions.into_iter().for_each(|one| self.broker.close(&mut self.routing, one));
    }

    fn redispatch_after_crash(
        &mut self,
        slot: SlotId,
        mut connection: PendingConnection,
        has_stalled: bool,
    ) {
        lines::redispatched(&connection.record, slot, RedispatchReason::Crashed);
        connection.crashes = connection.crashes.saturating_add(1);
        if connection.transfer.is_some() {
            self.broker.place_again(&mut self.routing, connection, Some(slot));
        } else {
            self.routing.place_after_crash(slot, connection, has_stalled);
        }
    }

    /// Ends a stop when the last connections are handed over or have had their time.
    fn finish_stopping(&mut self) {
        let Mode::Stopping { deadline, .. } = self.mode else { return };
        let is_idle = self.routing.is_idle() && !self.broker.is_proving();
        let is_done = self.arrivals.is_closed() && is_idle;
        if !is_done && self.now < deadline {
            return;
        }
        self.arrivals.acceptor().close();
        self.routing.close_unroutable(true);
        if let Mode::Stopping { reply, .. } = std::mem::replace(&mut self.mode, Mode::Stopped) {
            // The supervisor may have been told to stop at once and wait no more.
            let _ = reply.send(());
        }
    }

    fn handle_queries(&mut self) {
        self.queries.quiet();
        while let Some(query) = self.queries.next_query() {
            // The one that has asked may not wait any more.
            match query {
                Query::Facts(reply) => drop(reply.send(self.facts())),
                Query::RouteExplanation(client, reply) => drop(reply.send(self.explain(client))),
                Query::Forget(reply) => drop(reply.send(self.routing.forget_fallbacks())),
                Query::Rebalance(reply) => self.broker.begin_rebalance(&mut self.routing, reply),
            }
        }
    }

    fn facts(&self) -> FrontendFacts {
        let errors: &AcceptErrors = self.arrivals.errors();
        FrontendFacts {
            accept_errors: errors.by_name().collect(),
            sessions_waiting: self.broker.in_progress(),
            sessions_protected: self.broker.protected(),
            rebalance_pending: self.broker.rebalance_pending(),
            accepting: self.mode.accepts() && !self.arrivals.is_closed(),
            ..self.routing.facts(errors.total())
        }
    }

    fn explain(&mut self, client: Client) -> RouteExplanation {
        let keys = self.arrivals.keys();
        let (key, counts, digest) = match client {
            Client::Key(key) => (key, None, None),
            Client::Address(address) => {
                (keys.key(address), Some(keys.counts(address)), keys.digest(address))
            }
        };
        let (router, slots) = self.routing.router();
        let Explanation { ranking, remembered, target, why } = router.explain(key, slots, self.now);
        let placement = router.placement();
        RouteExplanation { counts, digest, key, placement, ranking, remembered, target, why }
    }
}

/// Watches a worker's link.
fn watch(poller: &Poller, worker: WorkerId, link: &Link) {
    if let Err(error) = poller.add(Source::Worker(worker), link.as_fd()) {
        // It will not get ready in time, and be started again.
        tracing::error!(slot = worker.slot.0, %error, "cannot watch a worker's link");
    }
}

impl Mode {
    /// Whether connections are taken from the backlog, as far as there is one.
    fn accepts(&self) -> bool {
        matches!(self, Self::Accepting | Self::Stopping { .. } | Self::Stopped)
    }

    /// Begins to accept, unless another order has come since.
    fn accept(&mut self) {
        if matches!(self, Self::Waiting) {
            *self = Self::Accepting;
        }
    }
}
