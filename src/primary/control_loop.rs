//! What the operator and the time want of the pool, turned into orders; and what came of it, told to
//! whoever started the primary and to the service manager.

use std::convert::Infallible;

use tokio::sync::{broadcast, mpsc, watch};

use crate::config::Config;
use crate::control::links::PrimaryOrder;
use crate::error::chain;
use crate::log::LogHandle;
use crate::primary::StatusEvent;
use crate::primary::pool::PoolOf;
use crate::primary::record::Record;
use crate::primary::signals::{Signals, Wish};
use crate::primary::snapshot::KEPT;
use crate::primary::triggers::Triggers;
use crate::supervisor::event::Event;
use crate::supervisor::output::{Output, OutputSettings};
use crate::supervisor::pool::handle::{PoolHandle, Refusal, Reply, Scale};
use crate::supervisor::pool::{Order, PoolSettings, Progress};
use crate::supervisor::rollout::{Outcome, Trigger};
use crate::system::keeper::{Keeper, main_pid};
use crate::system::notify::Notifier;
use crate::system::store::Store;

mod upgrade;

pub(super) use upgrade::Upgrading;

/// Turns what the operator and the time say into orders, and tells what came of them.
pub(super) struct Operator<Reread, Tell> {
    pub(super) pool: PoolOf,
    pub(super) signals: Signals,
    /// Until it is gone.
    pub(super) keeper: Option<Keeper>,
    pub(super) triggers: Triggers,
    pub(super) output: Output,
    pub(super) log: LogHandle,
    /// To be used when the rolling restart that is under way is done.
    pub(super) output_settings: Option<OutputSettings>,
    pub(super) notifier: Option<Notifier>,
    pub(super) store: Option<Store>,
    pub(super) handle: PoolHandle,
    pub(super) ordered: mpsc::Receiver<PrimaryOrder>,
    pub(super) reread: Reread,
    pub(super) report: Tell,
    pub(super) progressed: watch::Receiver<Progress>,
    pub(super) record: Record,
    pub(super) upgrading: Upgrading,
}

impl<Reread, Tell> Operator<Reread, Tell>
where
    Reread: Fn() -> Result<Config, String>,
    Tell: FnMut(StatusEvent),
{
    pub(super) async fn attend(&mut self, mut announced: broadcast::Receiver<Event>) -> Infallible {
        let mut last = Progress::default();
        loop {
            tokio::select! {
                wish = self.signals.next() => self.heed(wish).await,
                () = gone(self.keeper.as_ref()) => self.end_with_keeper().await,
                trigger = self.triggers.next() => self.pull(trigger, None).await,
                Some(order) = self.ordered.recv() => self.obey(order).await,
                answer = self.upgrading.answered() => self.go_on(answer).await,
                Ok(()) = self.progressed.changed() => {
                    let now = *self.progressed.borrow_and_update();
                    self.tell_manager(last, now);
                    last = now;
                    self.tell_if_ready(now);
                }
                // Of events that were missed the log tells.
                Ok(event) = announced.recv() => self.tell_of(event),
            }
        }
    }

    fn tell_if_ready(&mut self, Progress { serving, of, .. }: Progress) {
        if serving == of && !self.record.document().all_ready {
            self.record.note(|document| document.all_ready = true);
            self.tell(StatusEvent::Ready(serving));
        }
    }

    fn tell(&mut self, milestone: StatusEvent) {
        (self.report)(milestone);
    }

    fn tell_of(&mut self, event: Event) {
        let notifier = self.notifier.as_ref();
        match event {
            Event::RolloutStarted { .. } => notifier.into_iter().for_each(Notifier::reloading),
            Event::RolloutEnded(ended) => {
                notifier.into_iter().for_each(|notifier| notifier.ready(main_pid()));
                if ended.outcome == Outcome::Done {
                    self.change_output();
                }
                self.tell(StatusEvent::RolledOut(ended));
            }
            Event::Resumed { workers, after } => self.tell_of_resuming(workers, after),
            Event::Scaled { to, .. } => self.tell(StatusEvent::Scaled(to)),
            Event::Stopping { .. } => {
                notifier.into_iter().for_each(Notifier::stopping);
                self.keep_no_longer();
            }
            _ => {}
        }
    }

    /// A copy of the listener that systemd goes on with would let clients wait for nobody. What is
    /// kept of workers goes with them.
    fn keep_no_longer(&self) {
        if let Some(store) = &self.store {
            KEPT.iter().for_each(|name| store.remove(name));
        }
    }

    fn change_output(&mut self) {
        let Some(settings) = self.output_settings.take() else { return };
        if let Err(error) = self.output.change(settings) {
            tracing::error!(error = chain(&error), "log files stay as they were");
        }
    }

    /// Tells the service manager, if there is one, what has changed.
    fn tell_manager(&self, last: Progress, now: Progress) {
        let Some(notifier) = &self.notifier else { return };
        if (now.serving, now.of) != (last.serving, last.of) {
            notifier.status(&format!("{} of {} workers serve", now.serving, now.of));
        }
        // A slot whose workers keep dying is no reason to fail the start: the others serve.
        if now.accepting && !last.accepting {
            notifier.ready(main_pid());
        }
        if now.beats != last.beats {
            notifier.watchdog();
        }
    }

    /// Nobody would start the next primary, and signals to the program reach this one no longer.
    async fn end_with_keeper(&mut self) {
        let pid = self.keeper.take().map(|keeper| keeper.pid());
        tracing::error!(pid, "keeper is gone, everything is stopped");
        self.handle.stop(false).await;
    }

    async fn heed(&mut self, wish: Wish) {
        match wish {
            Wish::Stop => self.handle.stop(false).await,
            Wish::StopNow => self.handle.stop(true).await,
            Wish::OneMore => self.handle.order(Order::Scale(Scale::By(1), None)).await,
            Wish::OneFewer => self.handle.order(Order::Scale(Scale::By(-1), None)).await,
            Wish::Upgrade => self.begin_upgrade(None),
            Wish::Reopen => self.output.reopen(),
            Wish::Reload => self.pull(Trigger::Signal, None).await,
        }
    }

    async fn obey(&mut self, order: PrimaryOrder) {
        match order {
            PrimaryOrder::Reload(reply) => self.pull(Trigger::Command, Some(reply)).await,
            PrimaryOrder::Upgrade(reply) => self.begin_upgrade(Some(reply)),
        }
    }

    /// With a configuration that is wrong, everything goes on as it was.
    async fn pull(&mut self, trigger: Trigger, reply: Option<Reply<u64>>) {
        match self.reread() {
            Ok(settings) => {
                self.handle.order(Order::Reload(trigger, Box::new(settings), reply)).await;
            }
            Err(error) => {
                tracing::error!(error, "reload refused, nothing is changed");
                // Whoever has ordered it may not wait any more.
                reply.map(|reply| reply.send(Err(Refusal::Configuration(error.clone()))));
                self.tell(StatusEvent::ReloadRefused(error));
            }
        }
    }

    fn reread(&mut self) -> Result<PoolSettings, String> {
        let config = (self.reread)()?;
        self.triggers.change(&config).map_err(|error| chain(&error))?;
        self.log.configure(&config.log.levels);
        self.output_settings = Some(config.output.clone());
        self.record.note(|document| document.source.clone_from(&config.source));
        Ok(self.pool.settings(&config))
    }
}

async fn gone(keeper: Option<&Keeper>) {
    match keeper {
        Some(keeper) => keeper.gone().await,
        None => std::future::pending().await,
    }
}
