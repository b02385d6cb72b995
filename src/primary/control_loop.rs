//! Signals, commands, triggers and events of the primary as a whole: turned into orders to the pool, and
//! into reports to the program's caller and to the service manager.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::bus::service::BusHandle;
use crate::control::links::PrimaryOrder;
use crate::control::report::{NotApplied, Upgrading};
use crate::error::chain;
use crate::frontend::listener::{Listener, ListenerSettings};
use crate::handover::Carry;
use crate::handover::descriptors::LISTENER;
use crate::handover::primary::ListenerSnapshot;
use crate::handover::settings::DispatchSnapshot;
use crate::log::LogHandle;
use crate::primary::handover::KEPT;
use crate::primary::journal::PrimaryJournal;
use crate::primary::operators::Operators;
use crate::primary::pool_settings::PoolContext;
use crate::primary::signals::{SignalAction, Signals};
use crate::primary::triggers::Triggers;
use crate::primary::upgrade::{Answer, Upgrade};
use crate::primary::{Occasion, Reread, StatusEvent};
use crate::supervisor::event::Event;
use crate::supervisor::output::{Output, OutputSettings};
use crate::supervisor::pool::handle::{PoolHandle, Refusal, Reply, Scale};
use crate::supervisor::pool::snapshot::After;
use crate::supervisor::pool::{Order, PoolSettings, Progress};
use crate::supervisor::rollout::{Outcome, Trigger};
use crate::system::keeper::{Keeper, main_pid};
use crate::system::notify::Notifier;
use crate::system::store::Store;

/// The control loop of a primary.
pub(super) struct ControlLoop<Read, Report> {
    pub(super) signals: Signals,
    pub(super) triggers: Triggers,
    pub(super) orders: mpsc::Receiver<PrimaryOrder>,
    pub(super) progress: watch::Receiver<Progress>,
    /// None once it is gone.
    pub(super) keeper: Option<Keeper>,
    pub(super) notifier: Option<Notifier>,
    pub(super) store: Option<Store>,
    pub(super) pool: PoolHandle,
    pub(super) output: Output,
    pub(super) log: LogHandle,
    pub(super) reload: Reload<Read>,
    pub(super) report: Report,
    pub(super) journal: PrimaryJournal,
    pub(super) upgrade: Upgrade,
    pub(super) operators: Operators,
}

/// Who has ordered a reload and waits for the answers.
type Requester = (Reply<u64>, oneshot::Sender<Vec<NotApplied>>);

/// The way to new settings.
pub(super) struct Reload<Read> {
    /// Reads the configuration again.
    reread: Read,
    pool: PoolContext,
    /// Other rules for messages apply at once.
    bus: BusHandle,
    /// Those that apply when the rolling restart that is under way is done.
    output: Option<OutputSettings>,
    /// The words of the command that workers run when the rolling restart is done.
    command: Option<Vec<String>>,
}

impl<Read> Reload<Read> {
    pub(super) fn new(reread: Read, pool: PoolContext, bus: BusHandle) -> Self {
        Self { reread, pool, bus, output: None, command: None }
    }
}

impl<Read, Report> ControlLoop<Read, Report> {
    /// Notes that the successor goes on with another listener.
    pub(super) fn note_listener(&mut self, listener: &Listener, settings: &ListenerSettings) {
        let address = listener.local();
        tracing::info!(%address, "listener switched, the one before is closed");
        self.journal.update(|snapshot| snapshot.listener = Some(settings.snapshot()));
        if let Some(store) = &self.store {
            store.remove(LISTENER);
            store.keep(LISTENER, listener);
        }
    }

    /// Waits until keeper and service manager have heard everything, at most so long for each.
    pub(super) fn flush(&self, timeout: Duration) {
        self.store.iter().for_each(|store| store.flush(timeout));
        self.notifier.iter().for_each(|notifier| notifier.flush(timeout));
    }
}

impl<Read, Report> ControlLoop<Read, Report>
where
    Read: Fn(Occasion) -> Result<Reread, String>,
    Report: FnMut(StatusEvent),
{
    pub(super) async fn serve(&mut self, mut events: broadcast::Receiver<Event>) -> Infallible {
        let mut last = Progress::default();
        loop {
            tokio::select! {
                action = self.signals.next() => self.handle_signal(action).await,
                () = gone(self.keeper.as_ref()) => self.stop_without_keeper().await,
                trigger = self.triggers.next() => self.trigger_reload(trigger, None).await,
                Some(order) = self.orders.recv() => self.handle_command(order).await,
                answer = self.upgrade.answered() => self.hand_over(answer).await,
                () = self.operators.due() => self.operators.renew(),
                Ok(()) = self.progress.changed() => {
                    let now = *self.progress.borrow_and_update();
                    self.notify_manager(last, now);
                    last = now;
                    self.report_if_ready(now);
                }
                // Missed events are in the log.
                Ok(event) = events.recv() => self.handle_event(event),
            }
        }
    }

    /// Reports the address that clients connect to.
    pub(super) fn report_listening(&mut self, address: SocketAddr) {
        self.report(StatusEvent::Listening(address));
    }

    fn report_if_ready(&mut self, Progress { serving, of, .. }: Progress) {
        if serving == of && !self.journal.snapshot().all_ready {
            self.journal.update(|snapshot| snapshot.all_ready = true);
            self.report(StatusEvent::Ready(serving));
        }
    }

    fn report(&mut self, event: StatusEvent) {
        (self.report)(event);
    }

    fn handle_event(&mut self, event: Event) {
        let notifier = self.notifier.as_ref();
        match event {
            Event::RolloutStarted { .. } => notifier.into_iter().for_each(Notifier::reloading),
            Event::RolloutEnded(ended) => {
                notifier.into_iter().for_each(|notifier| notifier.ready(main_pid()));
                // Another one is under way if it was superseded.
                if ended.outcome != Outcome::Superseded {
                    self.triggers.rolled_out();
                }
                if ended.outcome == Outcome::Done {
                    self.change_output();
                    self.operators.set_command(self.reload.command.take());
                }
                self.report(StatusEvent::RolledOut(ended));
            }
            Event::Resumed { workers, after } => self.report_resumed(workers, after),
            Event::Scaled { to, .. } => self.report(StatusEvent::Scaled(to)),
            Event::Stopping { .. } => {
                notifier.into_iter().for_each(Notifier::stopping);
                self.remove_kept();
            }
            _ => {}
        }
    }

    fn report_resumed(&mut self, workers: u16, after: After) {
        let failed = self.journal.snapshot().replacements.upgrade_failed.clone();
        match failed.filter(|_| after == After::Upgrade) {
            Some(error) => {
                tracing::error!(error, "upgrade failed, everything goes on as it was");
                self.report(StatusEvent::UpgradeRefused(error));
            }
            None => self.report(StatusEvent::Resumed(workers, after)),
        }
    }

    /// A copy of the listener that systemd went on to hold would let clients connect to nobody. The
    /// descriptors of workers are removed as the workers exit.
    fn remove_kept(&self) {
        if let Some(store) = &self.store {
            KEPT.iter().for_each(|name| store.remove(name));
        }
    }

    fn change_output(&mut self) {
        let Some(settings) = self.reload.output.take() else { return };
        if let Err(error) = self.output.change(settings) {
            tracing::error!(error = chain(&error), "log files unchanged");
        }
    }

    /// Sends the service manager, if there is one, what has changed.
    fn notify_manager(&self, last: Progress, now: Progress) {
        let Some(notifier) = &self.notifier else { return };
        if (now.serving, now.of) != (last.serving, last.of) {
            let workers = if now.of == 1 { "worker serves" } else { "workers serve" };
            notifier.status(&format!("{} of {} {workers}", now.serving, now.of));
        }
        // A slot whose workers keep crashing is no reason to fail the start: the others serve.
        if now.accepting && !last.accepting {
            notifier.ready(main_pid());
        }
        if now.beats != last.beats {
            notifier.watchdog();
        }
    }

    /// Nothing would start the next primary, and signals to the program don't reach this one any more.
    async fn stop_without_keeper(&mut self) {
        let pid = self.keeper.take().map(|keeper| keeper.pid());
        tracing::error!(pid, "keeper exited, everything stops");
        self.pool.stop(false).await;
    }

    async fn handle_signal(&mut self, action: SignalAction) {
        match action {
            SignalAction::Stop => self.pool.stop(false).await,
            SignalAction::StopNow => self.pool.stop(true).await,
            SignalAction::OneMore => self.pool.order(Order::Scale(Scale::By(1), None)).await,
            SignalAction::OneFewer => self.pool.order(Order::Scale(Scale::By(-1), None)).await,
            SignalAction::Upgrade => self.start_upgrade(None),
            SignalAction::Reopen => {
                self.output.reopen();
                self.operators.renew();
            }
            SignalAction::Reload => self.trigger_reload(Trigger::Signal, None).await,
        }
    }

    async fn handle_command(&mut self, order: PrimaryOrder) {
        match order {
            PrimaryOrder::Reload(reply, not_applied) => {
                self.trigger_reload(Trigger::Command, Some((reply, not_applied))).await;
            }
            PrimaryOrder::Upgrade(reply) => self.start_upgrade(Some(reply)),
        }
    }

    /// With a wrong configuration everything goes on as it was.
    async fn trigger_reload(&mut self, trigger: Trigger, requester: Option<Requester>) {
        let (reply, sender) = requester.unzip();
        match self.reread() {
            Ok((settings, not_applied)) => {
                // The requester may have gone.
                sender.map(|sender| sender.send(not_applied));
                self.pool.order(Order::Reload(trigger, Box::new(settings), reply)).await;
            }
            Err(error) => {
                tracing::error!(error, "reload refused, nothing is changed");
                self.triggers.rolled_out();
                reply.map(|reply| reply.send(Err(Refusal::Configuration(error.clone()))));
                self.report(StatusEvent::ReloadRefused(error));
            }
        }
    }

    fn reread(&mut self) -> Result<(PoolSettings, Vec<NotApplied>), String> {
        let Reread { config, not_applied } = (self.reload.reread)(Occasion::Reload)?;
        self.triggers.change(&config).map_err(|error| chain(&error))?;
        self.log.configure(&config.log.levels);
        self.reload.bus.change(&config.messages);
        self.reload.output = Some(config.output.clone());
        self.reload.command = Some(config.workers.command.words());
        self.journal.update(|snapshot| snapshot.source.clone_from(&config.source));
        self.operators.set_config(&config);
        self.operators.renew();
        Ok((self.reload.pool.settings(&config), not_applied))
    }

    /// Starts the check of the new program. A wrong configuration is the new program's to refuse.
    fn start_upgrade(&mut self, reply: Option<Reply<Upgrading>>) {
        let (mut next, mut prospect) = (None, Upgrading::default());
        if let Ok(Reread { config, not_applied }) = (self.reload.reread)(Occasion::Upgrade) {
            let wanted = config.listener;
            let opened = self.journal.snapshot().listener.as_ref();
            let is_other =
                |it: &ListenerSnapshot| (&it.host, it.port) != (&wanted.host, wanted.port);
            // Workers' own listening sockets are all at the address of the first.
            let can_move = self.journal.snapshot().dispatch == DispatchSnapshot::Primary;
            next = (can_move && opened.is_some_and(is_other)).then_some(wanted);
            let control = config.control.path.map(|path| path.display().to_string());
            prospect = Upgrading { not_applied, control };
        }
        self.upgrade.start_check(next, prospect, reply);
    }

    /// Orders the pool to hand over, if the new program would go on.
    async fn hand_over(&mut self, answer: Answer) {
        let refusal = match answer {
            Ok(next) => {
                self.upgrade.listener = next;
                self.pool.hand_over().await.err()
            }
            Err(reason) => Some(Refusal::Configuration(reason)),
        };
        if let Some(refusal) = &refusal {
            self.upgrade.listener = None;
            let error = refusal.to_string();
            tracing::error!(error, "upgrade refused, nothing is changed");
            self.report(StatusEvent::UpgradeRefused(error));
        }
        self.upgrade.reply(refusal.map_or(Ok(()), Err));
    }
}

async fn gone(keeper: Option<&Keeper>) {
    match keeper {
        Some(keeper) => keeper.gone().await,
        None => std::future::pending().await,
    }
}
