//! Looks at workers from time to time: does their event loop turn, what do they use, are there too
//! many of them or too few.
//!
//! What follows is decided in `watchdog`, `limits` and `autoscale`. Where nothing is to be looked
//! at, nothing wakes up.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::link::seam::{SlotCommand, WorkerId};
use crate::protocol::ids::{SlotId, Timestamp};
use crate::protocol::scoreboard::Counter;
use crate::supervisor::autoscale::{Autoscaler, Decision, LoadMeasure, WorkerLoad};
use crate::supervisor::event::Event;
use crate::supervisor::lifecycle::{Fact, KillReason, Phase};
use crate::supervisor::limits::{LimitSettings, Verdict, WorkerUse, judge};
use crate::supervisor::pool::{Pool, PoolError, PoolSettings, until_then};
use crate::supervisor::rollout::Cause;
use crate::supervisor::sample;
use crate::supervisor::watchdog::Watchdog;

/// How often memory is looked at: a leak takes longer, and the kernel walks all pages for it.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Pings go out at least so often, where they do.
const PING_EVERY: Duration = Duration::from_secs(5);

/// When to look at what, and what was seen that no single worker has.
#[derive(Debug, Default)]
pub(super) struct Health {
    autoscaler: Option<Autoscaler>,
    ping_at: Option<Timestamp>,
    sample_at: Option<Timestamp>,
    scale_at: Option<Timestamp>,
    sampling: Option<JoinHandle<Vec<Sample>>>,
}

/// What is known of one worker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WorkerStats {
    pub(super) watchdog: Watchdog,
    memory: Option<u64>,
    /// Its processor time, and when it was looked at.
    cpu_time: Option<(Timestamp, Duration)>,
    /// Percent of one processor.
    cpu: Option<f64>,
}

/// What is to be looked at next.
#[derive(Debug)]
pub(super) enum Look {
    Pings,
    Sample,
    Sampled(Vec<Sample>),
    Scale,
}

/// What a worker uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    worker: WorkerId,
    at: Timestamp,
    memory: Option<u64>,
    cpu_time: Option<Duration>,
}

impl Health {
    /// Goes by these settings from now on.
    pub(super) fn change(&mut self, settings: &PoolSettings, now: Timestamp) {
        self.autoscaler = settings.autoscale.map(|new| match self.autoscaler.take() {
            Some(mut autoscaler) => {
                autoscaler.change(new);
                autoscaler
            }
            None => Autoscaler::new(new),
        });
        self.ping_at = ping_every(settings).map(|every| now + every);
        self.sample_at = sample_every(settings).map(|every| now + every);
        self.scale_at = settings.autoscale.map(|settings| now + settings.interval);
    }

    /// Somebody has scaled by hand.
    pub(super) fn scaled(&mut self, now: Timestamp) {
        if let Some(autoscaler) = &mut self.autoscaler {
            autoscaler.scaled(now);
        }
    }

    /// Whether event loops are asked.
    pub(super) fn asks(&self) -> bool {
        self.ping_at.is_some()
    }

    /// Waits until something is to be looked at. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Look {
        tokio::select! {
            () = until_then(self.ping_at) => Look::Pings,
            () = until_then(self.sample_at) => Look::Sample,
            () = until_then(self.scale_at) => Look::Scale,
            sampled = join(&mut self.sampling) => {
                self.sampling = None;
                Look::Sampled(sampled)
            }
        }
    }
}

async fn join(sampling: &mut Option<JoinHandle<Vec<Sample>>>) -> Vec<Sample> {
    match sampling {
        Some(sampling) => sampling.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

/// Often enough to notice a stall soon after its time.
fn ping_every(settings: &PoolSettings) -> Option<Duration> {
    let lag = |it: &_| matches!(it, LoadMeasure::Lag);
    let lag = settings.autoscale.filter(|autoscale| lag(&autoscale.measure));
    let stalls = settings.watchdog_timeout.map(|timeout| timeout / 4);
    let wanted = [stalls, lag.map(|autoscale| autoscale.interval)].into_iter().flatten().min();
    wanted.map(|every| every.clamp(Duration::from_millis(50), PING_EVERY))
}

fn sample_every(settings: &PoolSettings) -> Option<Duration> {
    let cpu = settings.autoscale.filter(|autoscale| autoscale.measure == LoadMeasure::Cpu);
    let limits = settings.limits != LimitSettings::default()
        || settings.rollout.max_draining_memory.is_some();
    let limits = limits.then_some(SAMPLE_EVERY);
    [limits, cpu.map(|autoscale| autoscale.interval)].into_iter().flatten().min()
}

impl Pool {
    pub(super) async fn look(&mut self, look: Look) -> Result<(), PoolError> {
        let now = Timestamp::now();
        match look {
            Look::Pings => self.look_at_pings(now).await,
            Look::Sample => {
                self.health.sample_at = sample_every(&self.settings).map(|every| now + every);
                self.sample(now);
                Ok(())
            }
            Look::Sampled(samples) => self.look_at_samples(&samples, now).await,
            Look::Scale => self.look_at_load(now).await,
        }
    }

    async fn look_at_pings(&mut self, now: Timestamp) -> Result<(), PoolError> {
        let Some(every) = ping_every(&self.settings) else { return Ok(()) };
        // Where this process itself stood still, pongs may wait that it hasn't read.
        let overslept = self.health.ping_at.is_some_and(|at| now.since(at) > every);
        self.health.ping_at = Some(now + every);
        for (worker, _) in self.all_serving() {
            let Some(running) = self.running.get_mut(&worker) else { continue };
            let watchdog = &mut running.vitals.watchdog;
            if overslept {
                *watchdog = Watchdog::new();
            }
            let timeout = self.settings.watchdog_timeout;
            if timeout.is_some_and(|timeout| watchdog.has_stalled(now, timeout)) {
                self.on(worker.slot, Fact::Stalled(worker.generation)).await?;
                continue;
            }
            watchdog.ping_sent(now);
            self.links.frontend.send(SlotCommand::Ping(worker)).await?;
        }
        Ok(())
    }

    /// On a thread of its own: it takes some milliseconds for each gigabyte.
    fn sample(&mut self, now: Timestamp) {
        if self.health.sampling.is_some() {
            return;
        }
        let pids = self.running.iter().map(|(worker, it)| (*worker, it.process.pid()));
        let pids: Vec<_> = pids.collect();
        self.health.sampling = Some(tokio::task::spawn_blocking(move || {
            let sample = |(worker, pid)| Sample {
                worker,
                at: now,
                memory: sample::memory(pid),
                cpu_time: sample::cpu_time(pid),
            };
            pids.into_iter().map(sample).collect()
        }));
    }

    async fn look_at_samples(
        &mut self,
        samples: &[Sample],
        now: Timestamp,
    ) -> Result<(), PoolError> {
        for Sample { worker, at, memory, cpu_time } in samples {
            if let Some(running) = self.running.get_mut(worker) {
                running.vitals.take(*at, *memory, *cpu_time);
                self.judge(*worker, now).await?;
            }
        }
        self.bound_draining_memory().await
    }

    async fn judge(&mut self, worker: WorkerId, now: Timestamp) -> Result<(), PoolError> {
        let phase = self.slots.get(&worker.slot).and_then(|it| it.life.phase(worker.generation));
        let Some(running) = self.running.get(&worker) else { return Ok(()) };
        let serving_since =
            if let Some(Phase::Serving { since }) = phase { Some(since) } else { None };
        let usage = WorkerUse {
            memory: running.vitals.memory,
            age: serving_since.map_or(Duration::ZERO, |since| now.since(since)),
            connections_served: running.scoreboard.get(Counter::ConnectionsTotal),
        };
        match judge(&self.settings.limits, &usage, running.jitter) {
            Verdict::Kill(reason) => {
                tracing::warn!(slot = worker.slot.0, %reason, "worker is far beyond its limit");
                let fact = Fact::Kill(worker.generation, KillReason::Memory);
                self.on(worker.slot, fact).await
            }
            Verdict::Replace(reason) if serving_since.is_some() => {
                self.planner.want(worker.slot, Cause::Limit(reason), now);
                Ok(())
            }
            Verdict::Replace(_) | Verdict::Fine => Ok(()),
        }
    }

    /// The oldest worker that drains has to go when all of them take too much.
    async fn bound_draining_memory(&mut self) -> Result<(), PoolError> {
        let Some(most) = self.settings.rollout.max_draining_memory else { return Ok(()) };
        let drains = |worker: &WorkerId| {
            let slot = self.slots.get(&worker.slot);
            let phase = slot.and_then(|slot| slot.life.phase(worker.generation));
            matches!(phase, Some(Phase::Draining { .. }))
        };
        let draining = || self.running.iter().filter(|(worker, _)| drains(worker));
        let memory: u64 = draining().filter_map(|(_, running)| running.vitals.memory).sum();
        let oldest = draining().min_by_key(|(_, running)| running.started);
        match oldest.map(|(worker, _)| *worker) {
            Some(oldest) if memory > most => {
                self.on(oldest.slot, Fact::Hurry(oldest.generation)).await
            }
            _ => Ok(()),
        }
    }

    async fn look_at_load(&mut self, now: Timestamp) -> Result<(), PoolError> {
        let Some(settings) = self.settings.autoscale else { return Ok(()) };
        self.health.scale_at = Some(now + settings.interval);
        let loads: Vec<_> = self
            .all_serving()
            .into_iter()
            .filter_map(|(worker, _)| self.load(worker, settings.measure, now))
            .collect();
        let changing = self.active().any(|(_, slot)| slot.life.is_filling())
            || self.planner.is_rolling()
            || self.stopping.is_ordered();
        let count = u16::try_from(self.active().count()).unwrap_or(u16::MAX);
        let Some(autoscaler) = &mut self.health.autoscaler else { return Ok(()) };
        let decision = autoscaler.look(now, &loads, changing);
        match decision {
            Decision::Up if count < settings.max_workers => {
                self.scale_to(count.saturating_add(1), "load").await
            }
            Decision::Down(slot) => self.scale_down(slot, count).await,
            Decision::Up | Decision::Stay => Ok(()),
        }
    }

    /// The one that has least to lose goes, unless numbers have to stay without gaps.
    async fn scale_down(&mut self, slot: SlotId, from: u16) -> Result<(), PoolError> {
        let to = from.saturating_sub(1);
        if self.settings.contiguous {
            return self.scale_to(to, "load").await;
        }
        self.links.announcer.announce(Event::Scaled { from, to, by: "load" });
        self.settings.workers = to;
        self.remove_slot(slot).await
    }

    fn load(&self, worker: WorkerId, measure: LoadMeasure, now: Timestamp) -> Option<WorkerLoad> {
        let running = self.running.get(&worker)?;
        let connections = running.scoreboard.get(Counter::Connections);
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let load = match measure {
            LoadMeasure::Connections => connections as f64,
            LoadMeasure::Requests => running.scoreboard.get(Counter::Requests) as f64,
            // What is not known yet is no number, and decides nothing.
            LoadMeasure::Cpu => running.vitals.cpu.unwrap_or(f64::NAN),
            LoadMeasure::Lag => running.vitals.watchdog.lag(now).as_secs_f64() * 1_000.0,
        };
        Some(WorkerLoad { slot: worker.slot, load, connections })
    }

    /// The workers that serve, and since when.
    fn all_serving(&self) -> Vec<(WorkerId, Timestamp)> {
        let serving = self.slots.iter().filter_map(|(slot, found)| {
            let (generation, since) = found.life.serving()?;
            Some((WorkerId { slot: *slot, generation }, since))
        });
        serving.collect()
    }
}

impl WorkerStats {
    fn take(&mut self, at: Timestamp, memory: Option<u64>, cpu_time: Option<Duration>) {
        self.memory = memory;
        let Some(cpu_time) = cpu_time else { return };
        if let Some((before_at, before)) = self.cpu_time.replace((at, cpu_time)) {
            let (passed, used) = (at.since(before_at), cpu_time.saturating_sub(before));
            self.cpu = Some(100.0 * used.as_secs_f64() / passed.as_secs_f64());
        }
    }
}
