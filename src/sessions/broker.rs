//! The broker: sessions on their way from one worker to another are taken from their sender, placed, and
//! answered for.
//!
//! Each comes to one end: its taker has acknowledged it and its sender is told that it has migrated; or
//! its sender is told that it is returned; or, with no worker left, it is closed. Sessions don't count as
//! connections.
//!
//! Owns all state of sessions; slots, links and the router are the [`Host`]'s.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::handover::frontend::CloseRequestsSnapshot;
use crate::link::connection::{Offer, PendingConnection};
use crate::link::error::ChannelError;
use crate::link::event::{ResyncReport, SessionEvent};
use crate::link::image_budget::ImageBudget;
use crate::link::protection::ProtectionEvent;
use crate::link::record_key::RecordKey;
use crate::link::recovered::Recovered;
use crate::link::seam::{Survival, WorkerId};
use crate::protocol::ids::{ConnectionId, SlotId, Timestamp};
use crate::protocol::message::ConnectionRecord;
use crate::sessions::close_requests::{CloseRequests, Grant, PaceSettings};
use crate::sessions::host::{Host, Sender};
use crate::sessions::lines;
use crate::sessions::open_offers::OfferOutcome;
use crate::sessions::proofs::{Answers, Proofs, Remains};
use crate::sessions::protected::{Protected, Recovery as RecoveryResult, recover};
use crate::sessions::rebalance::{Rebalance, RebalanceReplies, Rebalanced, choose};
use crate::sessions::recovery::Recovery;
use crate::sessions::recovery_outcome::RecoveryFailure;
use crate::sessions::route::{RouteDecision, RouteRequest, decide};

/// Limits and paces.
#[derive(Clone, Copy, Debug)]
pub struct BrokerSettings {
    /// Copies of protected sessions, at most.
    pub max_protected: u64,
    /// How fast clients are made to move.
    pub pace: PaceSettings,
    /// How long workers may take to report to a primary that follows a crash.
    pub report_timeout: Duration,
    /// Which records are the primary's own.
    pub record_key: RecordKey,
}

/// State that a broker leaves to its successor.
#[derive(Debug, Default)]
pub struct BrokerState {
    /// Closes that were asked for and not granted.
    pub close_requests: CloseRequestsSnapshot,
    /// Sessions that no worker takes now, and whose senders are gone.
    pub waiting: Vec<PendingConnection>,
    /// State that a primary has left open when it died.
    pub recovery: Option<Recovery>,
}

/// What was on its way to a dead worker.
#[derive(Debug)]
pub struct Proven {
    /// The worker.
    pub worker: WorkerId,
    /// Whether it had stalled.
    pub has_stalled: bool,
    /// No worker has used these.
    pub untouched: Vec<PendingConnection>,
    /// These were used, or it can't be proven that they were not.
    pub used: Vec<PendingConnection>,
}

/// A dead worker whose protected sessions are being proven, one part after the other.
#[derive(Debug)]
struct Recovering {
    /// Parts that are not decided.
    parts: usize,
    /// What is left of the bytes that all images may have: images that overlap, or that were never written, would
    /// be more bytes here than there.
    bytes: u64,
    at_rest: usize,
    closed: usize,
}

/// Moves sessions between workers.
#[derive(Debug)]
pub struct Broker {
    /// Sessions that are the primary's, wherever they are.
    in_progress: u64,
    /// Those of them that have survived their worker, and count as protected.
    recovered: u64,
    /// Sessions that no worker takes now, and whose senders are gone. Bounded by the descriptors that
    /// may be held.
    waiting: Vec<PendingConnection>,
    /// Closed sessions that were not logged yet.
    closed: u64,
    protected: Protected,
    close_requests: CloseRequests,
    rebalance: Rebalance,
    rebalance_replies: RebalanceReplies,
    recovery: Option<Recovery>,
    proofs: Proofs,
    /// Workers whose protected sessions are being proven.
    recovering: HashMap<WorkerId, Recovering>,
    report_timeout: Duration,
    record_key: RecordKey,
    image_budget: ImageBudget,
}

impl Broker {
    /// Resumes from the state of another broker; beside it, so many sessions wait in slots' queues.
    /// Sessions on links are counted as these are attached.
    ///
    /// # Errors
    ///
    /// If the kernel has no descriptor left.
    pub fn resume(settings: &BrokerSettings, state: BrokerState, queued: u64) -> io::Result<Self> {
        let BrokerState { close_requests, waiting, recovery } = state;
        let held = recovery.iter().flat_map(|recovery| &recovery.held);
        let sessions = held.chain(&waiting).filter(|one| one.transfer.is_some()).count() as u64;
        Ok(Self {
            in_progress: queued + sessions,
            recovered: 0,
            waiting,
            closed: 0,
            protected: Protected::new(settings.max_protected),
            close_requests: CloseRequests::resume(settings.pace.close_rate, close_requests),
            rebalance: Rebalance::new(settings.pace.rebalance_rate),
            rebalance_replies: RebalanceReplies::default(),
            recovery,
            proofs: Proofs::new()?,
            recovering: HashMap::new(),
            report_timeout: settings.report_timeout,
            record_key: settings.record_key,
            image_budget: ImageBudget::default(),
        })
    }

    /// The state for a successor. An unfinished rebalance is given up: the operator that waits for it
    /// learns that the frontend has ended.
    #[must_use]
    pub fn into_state(self) -> BrokerState {
        BrokerState {
            close_requests: self.close_requests.into_snapshot(),
            waiting: self.waiting,
            recovery: self.recovery,
        }
    }

    /// Which records are the primary's own.
    #[must_use]
    pub fn record_key(&self) -> RecordKey {
        self.record_key
    }

    /// Whether a record is of a connection that was accepted here, as it was handed over.
    fn is_own(&self, host: &mut impl Host, record: &ConnectionRecord) -> bool {
        was_accepted(host, record.id) && self.record_key.has_tagged(record)
    }

    /// Sessions that are the primary's now.
    #[must_use]
    pub fn in_progress(&self) -> u64 {
        self.in_progress
    }

    /// Copies of protected sessions.
    #[must_use]
    pub fn protected(&self) -> u64 {
        self.protected.count()
    }

    /// Sessions that a rebalance has still to move.
    #[must_use]
    pub fn rebalance_pending(&self) -> u64 {
        self.rebalance.pending()
    }

    /// Descriptors that sessions hold at most: a socket and a state each. Those of recovered sessions
    /// are in their checkpoint.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        2 * self.in_progress.saturating_sub(self.recovered)
    }

    /// Whether a session waits for any worker.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether it is not known yet what a primary that has died has left open.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.recovery.is_some()
    }

    /// When [`Self::run_due`] has something to do.
    pub fn next_due(&self) -> impl Iterator<Item = Timestamp> + use<> {
        let due =
            [self.close_requests.next_due(), self.rebalance.next_due(), self.proofs.next_due()];
        due.into_iter().flatten()
    }

    /// A worker's link is attached with so many sessions on their way.
    pub fn attached(&mut self, sessions: u64) {
        self.in_progress += sessions;
    }

    /// An adopted worker was asked what its former primary has left open.
    pub fn expect_report(&mut self, worker: WorkerId) {
        self.recovery.get_or_insert_default().open_offers.expect(worker);
    }

    /// A worker is about to offer a session: it is protected no more. Says whether the primary holds it;
    /// it may just have come to the worker, whose acknowledgements are read first then.
    pub fn begin_offer(&mut self, host: &impl Host, worker: WorkerId, id: ConnectionId) -> bool {
        self.protected.unprotect(worker, id);
        self.holds(host, id)
    }

    /// Handles a message about sessions.
    ///
    /// # Errors
    ///
    /// If the worker names a session that never was.
    pub fn handle(
        &mut self,
        host: &mut impl Host,
        worker: WorkerId,
        event: SessionEvent,
    ) -> Result<(), ChannelError> {
        let result = self.handle_event(host, worker, event);
        self.note_protected(host, worker);
        result
    }

    /// The worker's page says how many of its sessions are protected, for the count at its end.
    fn note_protected(&mut self, host: &mut impl Host, worker: WorkerId) {
        let Some(count) = self.protected.changed(worker) else { return };
        if let Some(link) = host.link(worker) {
            link.note_protected(count);
        }
    }

    fn handle_event(
        &mut self,
        host: &mut impl Host,
        worker: WorkerId,
        event: SessionEvent,
    ) -> Result<(), ChannelError> {
        match event {
            SessionEvent::Enabled => lines::sessions_enabled(worker),
            SessionEvent::Offered(offer) => return self.offered(host, worker, *offer),
            SessionEvent::NotMigratable(id) => {
                self.protected.unprotect(worker, id);
                Self::returned(host, worker, id);
            }
            SessionEvent::Protection(event) => {
                if let Some(foreign) = self.foreign(host, &event) {
                    return Err(ChannelError::UnknownSession(foreign));
                }
                self.protection(host, worker, event);
            }
            SessionEvent::Listed { keys, complete } => {
                self.rebalance.add(worker, keys.into_iter(), complete);
            }
            SessionEvent::CloseRequest(count, within) => {
                self.close_requests.ask(worker, count, within, host.now());
            }
            SessionEvent::Failed(ids) => return Self::failed(host, worker, &ids),
            SessionEvent::Resynced(report) => self.reported(worker, report),
            SessionEvent::Ignored => {}
        }
        Ok(())
    }

    fn offered(
        &mut self,
        host: &mut impl Host,
        worker: WorkerId,
        offer: Offer,
    ) -> Result<(), ChannelError> {
        let id = offer.record().id;
        if !self.is_own(host, offer.record()) {
            return Err(ChannelError::UnknownSession(id));
        }
        if self.holds(host, id) || !host.has_room_for(self.descriptors()) {
            Self::return_to(host, worker, id);
        } else {
            self.begin(host, worker, offer);
        }
        Ok(())
    }

    fn begin(&mut self, host: &mut impl Host, worker: WorkerId, offer: Offer) {
        lines::step(worker, offer.record().id, "offered");
        self.in_progress += 1;
        self.place(host, offer.depart(worker));
    }

    /// Whether the primary has it: no worker can offer it then.
    fn holds(&self, host: &impl Host, id: ConnectionId) -> bool {
        let held = self.recovery.iter().flat_map(|recovery| &recovery.held);
        let mut waiting = self.waiting.iter().chain(held);
        host.holds(id) || waiting.any(|one| one.record.id == id) || self.proofs.hold(id)
    }

    /// Finds a target for a session.
    pub fn place(&mut self, host: &mut impl Host, mut session: PendingConnection) {
        let Some(transfer) = &session.transfer else { return host.place_client(session) };
        if let Some(recovery) = self.undecided() {
            return recovery.held.push(session);
        }
        let request = RouteRequest {
            key: session.record.key,
            from: transfer.from,
            sender: match transfer.sender {
                _ if transfer.has_survived_worker() => Sender::Dead,
                Some(sender) => host.sender(sender),
                None => Sender::Gone,
            },
            failed: &transfer.failed,
            crashes: session.crashes,
        };
        let sender = transfer.sender;
        let decision = decide(&request, &mut host.targets());
        match decision {
            RouteDecision::To(_) if !self.has_room_for(&mut session) => {
                self.waiting.push(session);
                host.schedule_tick();
            }
            RouteDecision::To(slot) => {
                host.queue(slot, session);
                host.schedule_tick();
            }
            RouteDecision::Return => {
                self.in_progress -= 1;
                if let Some(sender) = sender {
                    Self::return_to(host, sender, session.record.id);
                }
            }
            RouteDecision::Wait => {
                self.waiting.push(session);
                host.schedule_tick();
            }
            RouteDecision::Close => self.close(host, session),
        }
    }

    fn has_room_for(&self, session: &mut PendingConnection) -> bool {
        let transfer = session.transfer.as_mut();
        transfer.is_none_or(|transfer| transfer.take_room(&self.image_budget))
    }

    /// Finds a target for a session that was taken back. `failed` is the slot whose worker should have
    /// taken it and didn't.
    pub fn place_again(
        &mut self,
        host: &mut impl Host,
        mut session: PendingConnection,
        failed: Option<SlotId>,
    ) {
        if let Some(transfer) = &mut session.transfer {
            transfer.failed.extend(failed);
        }
        self.place(host, session);
    }

    /// Tries again to place the sessions that wait.
    pub fn retry(&mut self, host: &mut impl Host) {
        for session in std::mem::take(&mut self.waiting) {
            self.place(host, session);
        }
    }

    /// A worker has acknowledged a session: the worker owns it.
    pub fn acknowledged(
        &mut self,
        host: &mut impl Host,
        worker: WorkerId,
        session: &PendingConnection,
    ) {
        let id = session.record.id;
        lines::step(worker, id, "acknowledged");
        self.in_progress -= 1;
        if is_recovered(session) {
            host.counters().survival.recovered += 1;
            self.recovered -= 1;
            self.protected.taken(worker, id, session.crashes);
        } else {
            host.counters().moved += 1;
        }
        host.session_taken(worker.slot);
        send_migrated(host, session);
    }

    /// A worker has refused these: they are protected for it no more.
    pub fn refused(&mut self, worker: WorkerId, sessions: &[PendingConnection]) {
        sessions.iter().for_each(|one| self.protected.unprotect(worker, one.record.id));
    }

    fn return_to(host: &mut impl Host, sender: WorkerId, id: ConnectionId) {
        if let Some(link) = host.link(sender) {
            link.send_returned(id);
        }
        Self::returned(host, sender, id);
    }

    /// A session goes on where it was.
    fn returned(host: &mut impl Host, sender: WorkerId, id: ConnectionId) {
        lines::step(sender, id, "returned");
        host.counters().returned += 1;
    }

    /// Sessions have ended in the worker that had taken them.
    fn failed(
        host: &mut impl Host,
        worker: WorkerId,
        ids: &[ConnectionId],
    ) -> Result<(), ChannelError> {
        for id in ids {
            if !was_accepted(host, *id) {
                return Err(ChannelError::UnknownSession(*id));
            }
            lines::step(worker, *id, "failed");
            host.counters().returned += 1;
        }
        Ok(())
    }

    /// Closes a session. If its sender lives, another worker has used the session since.
    pub fn close(&mut self, host: &mut impl Host, session: PendingConnection) {
        self.in_progress -= 1;
        self.closed += 1;
        if !is_recovered(&session) {
            host.counters().sessions_lost += 1;
            return send_migrated(host, &session);
        }
        self.recovered -= 1;
        if let Some(sender) = session.transfer.as_ref().and_then(|transfer| transfer.sender) {
            recovery_failed(host, sender, session.record.id, RecoveryFailure::NoTarget);
        }
    }

    /// A session that is to be protected and that this primary hasn't accepted.
    fn foreign(&self, host: &mut impl Host, event: &ProtectionEvent) -> Option<ConnectionId> {
        let ProtectionEvent::Protect { sessions, .. } = event else { return None };
        let foreign = sessions.iter().find(|session| !self.is_own(host, &session.record));
        foreign.map(|session| session.record.id)
    }

    fn protection(&mut self, host: &mut impl Host, worker: WorkerId, event: ProtectionEvent) {
        match event {
            ProtectionEvent::Checkpoint(checkpoint) => {
                self.protected.set_checkpoint(worker, checkpoint)
            }
            ProtectionEvent::Protect { sessions, without_socket } => {
                let mut not_protected = without_socket.len() as u64;
                for session in sessions {
                    let is_kept = self.protected.protect(worker, session, self.recovered);
                    not_protected += u64::from(!is_kept);
                }
                without_socket.iter().for_each(|id| self.protected.unprotect(worker, *id));
                host.counters().survival.not_protected += not_protected;
            }
            ProtectionEvent::Unprotect(ids) => {
                ids.iter().for_each(|id| self.protected.unprotect(worker, *id));
            }
        }
    }

    /// A worker is gone or quarantined: nothing more is granted to it or expected from it.
    pub fn forget(&mut self, worker: WorkerId) {
        self.close_requests.forget(worker);
        self.rebalance.forget(worker);
        if let Some(recovery) = &mut self.recovery {
            recovery.open_offers.forget(worker);
        }
    }

    /// A worker is dead. Its last messages count; sessions that it has left on their way are not those
    /// that it left at rest. What it has done with all of them is proven from now on: see
    /// [`Self::take_proven`]. [`Self::restore`] follows when the rest is placed.
    pub fn worker_died(
        &mut self,
        host: &mut impl Host,
        worker: WorkerId,
        has_stalled: bool,
        recovered: &mut Recovered,
    ) {
        self.forget(worker);
        self.hold_found(host, std::mem::take(&mut recovered.found));
        for event in std::mem::take(&mut recovered.last_words) {
            if self.foreign(host, &event).is_none() {
                self.protection(host, worker, event);
            }
        }
        let Recovered { untouched, in_flight, offered, .. } = recovered;
        let pending = untouched.iter().chain(&*in_flight).map(|session| session.record.id);
        let offered = offered.iter().map(|offer| offer.record().id);
        for id in pending.chain(offered).collect::<HashSet<_>>() {
            self.protected.unprotect(worker, id);
        }
        let in_flight = std::mem::take(in_flight);
        let protected = self.protected.take(worker).filter(|(_, copies)| !copies.is_empty());
        let remains = Remains { worker, has_stalled, in_flight, protected };
        self.in_progress += remains.protected_count();
        self.recovered += remains.protected_count();
        let bytes = remains.protected.as_ref().map(|(checkpoint, _)| checkpoint.allocated());
        let parts = remains.into_parts();
        if let Some(bytes) = bytes {
            let recovering = Recovering { parts: parts.len(), bytes, at_rest: 0, closed: 0 };
            self.recovering.insert(worker, recovering);
        }
        for part in parts {
            self.proofs.ask(part, host.now());
        }
    }

    /// Places what a dead worker had offered.
    pub fn restore(&mut self, host: &mut impl Host, worker: WorkerId, offered: Vec<Offer>) {
        for offer in offered {
            if self.is_own(host, offer.record()) && !self.holds(host, offer.record().id) {
                self.begin(host, worker, offer);
            }
        }
    }

    /// Readable when [`Self::take_proven`] has something.
    pub fn proven(&self) -> BorrowedFd<'_> {
        self.proofs.as_fd()
    }

    /// Hears that something is proven.
    pub fn clear_proven(&self) {
        self.proofs.clear_wake();
    }

    /// Whether something that a dead worker has left is not proven yet.
    #[must_use]
    pub fn is_proving(&self) -> bool {
        !self.proofs.is_empty()
    }

    /// What was on its way to a dead worker, once it is proven what that has done with it, or can't be in time. Its
    /// protected sessions that were at rest are placed; the others are closed.
    pub fn take_proven(&mut self, host: &mut impl Host) -> Option<Proven> {
        let (remains, answers) = self.proofs.take(host.now())?;
        Some(self.decide(host, remains, answers))
    }

    /// The same for everything that is left: whatever is not proven yet isn't.
    pub fn take_any_proven(&mut self, host: &mut impl Host) -> Option<Proven> {
        let (remains, answers) = self.proofs.take_any()?;
        Some(self.decide(host, remains, answers))
    }

    fn decide(&mut self, host: &mut impl Host, remains: Remains, answers: Answers) -> Proven {
        let mut answers = answers.into_iter();
        let Remains { worker, has_stalled, in_flight, protected } = remains;
        let mut proven = Proven { worker, has_stalled, untouched: Vec::new(), used: Vec::new() };
        for connection in in_flight {
            let evidence = answers.next().flatten();
            let is_untouched = evidence.is_some_and(|evidence| connection.is_untouched(&evidence));
            let side = if is_untouched { &mut proven.untouched } else { &mut proven.used };
            side.push(connection);
        }
        if let Some((checkpoint, copies)) = protected
            && let Some(mut recovering) = self.recovering.remove(&worker)
        {
            let sessions = recover(worker, &checkpoint, copies, answers, &mut recovering.bytes);
            self.place_recovered(host, worker, sessions, &mut recovering);
            if recovering.parts > 0 {
                self.recovering.insert(worker, recovering);
            }
        }
        proven
    }

    /// A part of them.
    fn place_recovered(
        &mut self,
        host: &mut impl Host,
        worker: WorkerId,
        sessions: Vec<RecoveryResult>,
        recovering: &mut Recovering,
    ) {
        for (id, session) in sessions {
            match session {
                Ok(session) => {
                    recovering.at_rest += 1;
                    lines::step(worker, id, "restored");
                    self.place(host, session);
                }
                Err(failure) => {
                    recovering.closed += 1;
                    self.in_progress -= 1;
                    self.recovered -= 1;
                    recovery_failed(host, worker, id, failure);
                }
            }
        }
        recovering.parts -= 1;
        let Recovering { parts, at_rest, closed, .. } = *recovering;
        if parts == 0 {
            tracing::info!(
                slot = worker.slot.0,
                generation = worker.generation.0,
                at_rest,
                closed,
                "worker crashed with protected sessions",
            );
        }
    }

    /// Takes a worker's report. One of a worker whose state was carried over has nothing new.
    fn reported(&mut self, worker: WorkerId, report: ResyncReport) {
        if let Some(recovery) = &mut self.recovery
            && recovery.open_offers.expects(worker)
        {
            recovery.open_offers.report(worker, report);
        }
    }

    /// A worker that may be pending has said something.
    pub fn resume_link(&mut self, host: &mut impl Host, worker: WorkerId) {
        if let Some(recovery) = &mut self.recovery
            && host.resume_link(worker)
        {
            recovery.open_offers.complete(worker);
        }
    }

    /// Looks whether pending workers have answered, and takes what was found on its way to workers that
    /// stall.
    pub fn check_pending(&mut self, host: &mut impl Host) {
        let Some(recovery) = &self.recovery else { return };
        let open_offers = &recovery.open_offers;
        for worker in [open_offers.pending(), open_offers.silent()].concat() {
            let found = host.link(worker).map(|link| link.take_found()).unwrap_or_default();
            self.hold_found(host, found);
            self.resume_link(host, worker);
        }
        host.schedule_tick();
    }

    /// Takes sessions that another primary had sent and that no worker has received. While a recovery
    /// goes on they wait; later they are closed, since their senders may have them again.
    pub fn hold_found(&mut self, host: &mut impl Host, sessions: Vec<PendingConnection>) {
        self.in_progress += sessions.len() as u64;
        match self.undecided() {
            Some(recovery) => recovery.held.extend(sessions),
            None => sessions.into_iter().for_each(|session| self.close(host, session)),
        }
    }

    /// A recovery in which sessions wait.
    fn undecided(&mut self) -> Option<&mut Recovery> {
        self.recovery.as_mut().filter(|recovery| !recovery.is_decided)
    }

    /// Answers open offers when all workers have reported or their time is over, and says whether that ends
    /// a recovery. Not to be called before all workers are attached that are left.
    pub fn finish_recovery(&mut self, host: &mut impl Host) -> bool {
        let (now, timeout) = (host.now(), self.report_timeout);
        let Some(recovery) = &mut self.recovery else { return false };
        if now >= *recovery.until.get_or_insert(now + timeout) {
            recovery.expire();
        }
        // Those may belong to it.
        if !self.proofs.is_empty() {
            return false;
        }
        let open_offers = &recovery.open_offers;
        if !open_offers.pending().is_empty() {
            return false;
        }
        let silent: Vec<_> = open_offers.silent().to_vec();
        let last_sessions: Vec<_> = silent
            .iter()
            .filter_map(|worker| Some((*worker, host.link(*worker)?.last_session())))
            .collect();
        let held = std::mem::take(&mut recovery.held);
        let may_have = |sender, id, at| {
            let sent_since = |(worker, last)| worker != sender && at <= last;
            last_sessions.iter().copied().any(sent_since)
                && !held.iter().any(|one| one.record.id == id)
        };
        let outcomes = open_offers.outcomes(may_have);
        let (offered, held): (Vec<_>, Vec<_>) = held.into_iter().partition(|session| {
            let transfer = session.transfer.as_ref();
            let has_sender = transfer.is_some_and(|transfer| transfer.sender.is_some());
            !has_sender && open_offers.is_offered(&session.record)
        });
        recovery.answered();
        if silent.is_empty() {
            self.recovery = None;
        }
        answer_offers(host, &outcomes);
        // Their senders have copies of all of it, and have just got it back.
        self.in_progress -= offered.len() as u64;
        held.into_iter().for_each(|session| self.place(host, session));
        silent.is_empty()
    }

    /// Grants closes and moves sessions that are due.
    pub fn run_due(&mut self, host: &mut impl Host) {
        while let Some(grant) = self.close_requests.grant(host.now()) {
            grant_closes(host, grant);
        }
        if self.rebalance.is_listing() {
            self.begin_moves(host);
        }
        while let Some((worker, session)) = self.rebalance.next_move(host.now()) {
            if let Some(link) = host.link(worker) {
                link.request_offer(session);
            }
        }
        self.log_closed();
    }

    /// Asks workers for their sessions. A rebalance that is asked for while lists are awaited is the same
    /// as the one before.
    pub fn begin_rebalance(&mut self, host: &mut impl Host, reply: oneshot::Sender<Rebalanced>) {
        self.rebalance_replies.add(reply, host.forget_fallbacks());
        if self.rebalance.is_listing() {
            return;
        }
        let workers = host.session_workers();
        for worker in &workers {
            if let Some(link) = host.link(*worker) {
                link.request_session_list();
            }
        }
        self.rebalance.begin(workers, host.now());
    }

    fn begin_moves(&mut self, host: &mut impl Host) {
        let Some(listed) = self.rebalance.take_lists(host.now()) else { return };
        let moves = choose(&listed, &host.targets());
        let sessions = moves.len() as u64;
        self.rebalance.begin_moves(moves);
        self.rebalance_replies.answer(sessions);
    }

    /// Logs closed sessions once a turn.
    fn log_closed(&mut self) {
        let sessions = std::mem::take(&mut self.closed);
        if sessions > 0 {
            tracing::warn!(sessions, "sessions closed: no worker is left that takes them");
        }
    }
}

fn was_accepted(host: &mut impl Host, id: ConnectionId) -> bool {
    (1..=host.counters().accepted).contains(&id.0)
}

fn is_recovered(session: &PendingConnection) -> bool {
    session.transfer.as_ref().is_some_and(|transfer| transfer.has_survived_worker())
}

/// Tells workers what has become of sessions that they had offered to a primary before.
fn answer_offers(host: &mut impl Host, outcomes: &[(WorkerId, ConnectionId, OfferOutcome)]) {
    for (worker, id, outcome) in outcomes {
        let Some(link) = host.link(*worker) else { continue };
        match outcome {
            OfferOutcome::Migrated => {
                link.send_moved(*id);
                host.counters().moved += 1;
            }
            OfferOutcome::Returned => {
                link.send_returned(*id);
                Broker::returned(host, *worker, *id);
            }
        }
    }
}

/// Tells the sender of a session, if it lives, that the session is no longer its own.
fn send_migrated(host: &mut impl Host, session: &PendingConnection) {
    let sender = session.transfer.as_ref().and_then(|transfer| transfer.sender);
    if let Some(link) = sender.and_then(|sender| host.link(sender)) {
        link.send_moved(session.record.id);
    }
}

fn recovery_failed(
    host: &mut impl Host,
    worker: WorkerId,
    id: ConnectionId,
    failure: RecoveryFailure,
) {
    let Survival { busy, client_gone, unverified, no_target, .. } = &mut host.counters().survival;
    *match failure {
        RecoveryFailure::Busy => busy,
        RecoveryFailure::ClientGone => client_gone,
        RecoveryFailure::Unverified => unverified,
        RecoveryFailure::NoTarget => no_target,
    } += 1;
    lines::recovery_failed(worker, id, failure);
}

fn grant_closes(host: &mut impl Host, Grant { worker, count, hurried }: Grant) {
    let Some(link) = host.link(worker) else { return };
    link.grant_closes(count);
    host.counters().closed += u64::from(count);
    if hurried {
        tracing::warn!(
            slot = worker.slot.0,
            generation = worker.generation.0,
            clients = count,
            "worker's time is nearly over, its last clients are closed at once: raise close_rate, or \
             give it more time",
        );
    }
}
