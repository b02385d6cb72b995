//! Looks at workers from time to time: whether they stand still, and what they use.
//!
//! The consequences are decided in `watchdog` and `limits`. Where nothing is to be looked at, nothing
//! wakes up.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::link::seam::{SlotCommand, WorkerId};
use crate::protocol::ids::Timestamp;
use crate::supervisor::autoscale::LoadMeasure;
use crate::supervisor::lifecycle::{Fact, KillReason, Phase};
use crate::supervisor::limits::{LimitSettings, LimitVerdict, WorkerUse, judge};
use crate::supervisor::pool::client_counts::{self, ClientCounts, ClientLook};
use crate::supervisor::pool::error::PoolError;
use crate::supervisor::pool::fleet::Fleet;
use crate::supervisor::pool::settings::PoolSettings;
use crate::supervisor::pool::timer::sleep_until;
use crate::supervisor::rollout::Cause;
use crate::supervisor::sample;
use crate::supervisor::watchdog::{Stall, Watchdog};

/// How often memory is sampled: a leak takes longer, and the kernel walks all pages for it.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// The limit of the time from one ping to the next.
const MAX_PING_INTERVAL: Duration = Duration::from_secs(5);

/// When to look at what.
#[derive(Debug, Default)]
pub(super) struct Health {
    ping_at: Option<Timestamp>,
    sample_at: Option<Timestamp>,
    sampling: Option<JoinHandle<Vec<Sample>>>,
    /// Not before this time are counts compared again.
    compare_after: Option<Timestamp>,
    comparing: Option<JoinHandle<Vec<Comparison>>>,
    clients: ClientCounts,
}

/// The next thing to look at.
#[derive(Debug)]
pub(super) enum Look {
    Pings,
    Sample,
    Sampled(Vec<Sample>),
    Compared(Vec<Comparison>),
    Clients(ClientLook),
}

/// The connections that a worker counts, and the descriptors that it has open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison {
    worker: WorkerId,
    connections: u64,
    descriptors: u64,
}

/// A sample of a worker's use of memory and processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    worker: WorkerId,
    at: Timestamp,
    memory: Option<u64>,
    cpu_time: Option<Duration>,
}

impl Health {
    /// Follows these settings from now on.
    pub(super) fn change(&mut self, settings: &PoolSettings, now: Timestamp) {
        self.ping_at = ping_interval(settings).map(|interval| now + interval);
        self.sample_at = sample_interval(settings).map(|interval| now + interval);
    }

    /// Whether event loops are pinged.
    pub(super) fn pings(&self) -> bool {
        self.ping_at.is_some()
    }

    /// Waits until something is to be looked at. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Look {
        tokio::select! {
            () = sleep_until(self.ping_at) => Look::Pings,
            () = sleep_until(self.sample_at) => Look::Sample,
            sampled = join(&mut self.sampling) => {
                self.sampling = None;
                Look::Sampled(sampled)
            }
            compared = join(&mut self.comparing) => {
                self.comparing = None;
                Look::Compared(compared)
            }
            look = self.clients.next() => Look::Clients(look),
        }
    }

    /// Counts the clients of workers that don't do so themselves, from now on or no longer.
    pub(super) fn count_clients(&mut self, fleet: &Fleet) {
        self.clients.plan(fleet, Timestamp::now());
    }

    /// Looks at it.
    pub(super) async fn look(&mut self, fleet: &mut Fleet, look: Look) -> Result<(), PoolError> {
        let now = Timestamp::now();
        match look {
            Look::Pings => self.ping(fleet, now).await,
            Look::Sample => {
                let interval = sample_interval(&fleet.settings);
                self.sample_at = interval.map(|interval| now + interval);
                self.sample(fleet, now);
                Ok(())
            }
            Look::Sampled(samples) => take_samples(fleet, &samples, now).await,
            Look::Compared(compared) => {
                compared.iter().for_each(|compared| take_comparison(fleet, compared));
                Ok(())
            }
            Look::Clients(ClientLook::Due) => {
                self.clients.count(fleet);
                Ok(())
            }
            Look::Clients(ClientLook::Counted(counts)) => client_counts::take(fleet, &counts).await,
        }
    }

    async fn ping(&mut self, fleet: &mut Fleet, now: Timestamp) -> Result<(), PoolError> {
        let Some(interval) = ping_interval(&fleet.settings) else { return Ok(()) };
        // If this process itself, or its frontend, stood still, pongs may wait that it hasn't read.
        fleet.frontend.count().await?;
        let now_too = Timestamp::now();
        let overslept = now_too.since(now) > interval
            || self.ping_at.is_some_and(|at| now_too.since(at) > interval);
        let now = now_too;
        self.ping_at = Some(now + interval);
        for (worker, phase) in fleet.slots.all_live() {
            let Some(running) = fleet.workers.get_mut(worker) else { continue };
            let watchdog = &mut running.health.watchdog;
            if overslept {
                *watchdog = Watchdog::new();
            }
            // A worker that starts has other things to do than to answer, and the order to drain may be
            // the end of what can be asked.
            let is_asked = matches!(phase, Phase::Serving { .. });
            watchdog.looked_at(now, running.process.stop(), is_asked);
            let timeout = fleet.settings.watchdog_timeout;
            let stall = timeout.and_then(|timeout| watchdog.stall(now, timeout));
            match stall {
                Some(Stall::Process) => {
                    let fact = Fact::Kill(worker.generation, KillReason::Stopped);
                    fleet.on(worker.slot, fact).await?;
                }
                Some(Stall::EventLoop) => {
                    fleet.on(worker.slot, Fact::Stalled(worker.generation)).await?;
                }
                None if is_asked => {
                    watchdog.ping_sent(now);
                    fleet.frontend.send(SlotCommand::Ping(worker)).await?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Compares the connections that workers count with the descriptors that they have open: where
    /// somebody looks at the counts, and not too often.
    pub(super) fn compare(&mut self, fleet: &Fleet) {
        let now = Timestamp::now();
        if self.comparing.is_some() || self.compare_after.is_some_and(|after| now < after) {
            return;
        }
        self.compare_after = Some(now + SAMPLE_INTERVAL);
        let counts = fleet.workers.iter().map(|(worker, running)| {
            let connections = running.stats().connections.unwrap_or(0);
            (worker, running.process.pid(), connections)
        });
        let counts: Vec<_> = counts.filter(|(_, _, connections)| *connections > 0).collect();
        if counts.is_empty() {
            return;
        }
        self.comparing = Some(tokio::task::spawn_blocking(move || {
            let compare = |(worker, pid, connections)| {
                let descriptors = sample::descriptors(pid)?;
                Some(Comparison { worker, connections, descriptors })
            };
            counts.into_iter().filter_map(compare).collect()
        }));
    }

    /// Samples on a thread of its own: each gigabyte takes some milliseconds.
    fn sample(&mut self, fleet: &Fleet, now: Timestamp) {
        if self.sampling.is_some() {
            return;
        }
        let pids = fleet.workers.pids();
        self.sampling = Some(tokio::task::spawn_blocking(move || {
            let sample = |(worker, pid)| Sample {
                worker,
                at: now,
                memory: sample::memory(pid),
                cpu_time: sample::cpu_time(pid),
            };
            pids.into_iter().map(sample).collect()
        }));
    }
}

async fn join<T>(task: &mut Option<JoinHandle<Vec<T>>>) -> Vec<T> {
    match task {
        Some(task) => task.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

/// Short enough to notice a stall soon after its time.
fn ping_interval(settings: &PoolSettings) -> Option<Duration> {
    let lag = |it: &_| matches!(it, LoadMeasure::Lag);
    let lag = settings.autoscale.filter(|autoscale| lag(&autoscale.measure));
    let stalls = settings.watchdog_timeout.map(|timeout| timeout / 4);
    let wanted = [stalls, lag.map(|autoscale| autoscale.interval)].into_iter().flatten().min();
    wanted.map(|interval| interval.clamp(Duration::from_millis(50), MAX_PING_INTERVAL))
}

fn sample_interval(settings: &PoolSettings) -> Option<Duration> {
    let cpu = settings.autoscale.filter(|autoscale| autoscale.measure == LoadMeasure::Cpu);
    let limits = settings.limits != LimitSettings::default()
        || settings.rollout.max_draining_memory.is_some();
    let limits = limits.then_some(SAMPLE_INTERVAL);
    [limits, cpu.map(|autoscale| autoscale.interval)].into_iter().flatten().min()
}

async fn take_samples(
    fleet: &mut Fleet,
    samples: &[Sample],
    now: Timestamp,
) -> Result<(), PoolError> {
    for Sample { worker, at, memory, cpu_time } in samples {
        if let Some(running) = fleet.workers.get_mut(*worker) {
            running.health.record(*at, *memory, *cpu_time);
            check_limits(fleet, *worker, now).await?;
        }
    }
    bound_draining_memory(fleet).await
}

/// Each connection takes a descriptor, wherever the worker keeps it.
fn take_comparison(fleet: &mut Fleet, compared: &Comparison) {
    let Comparison { worker, connections, descriptors } = *compared;
    let Some(running) = fleet.workers.get_mut(worker) else { return };
    // Some may have ended before the descriptors were counted.
    let connections = connections.min(running.stats().connections.unwrap_or(0));
    if running.health.compare(connections, descriptors) {
        tracing::warn!(
            slot = worker.slot.0,
            generation = worker.generation.0,
            pid = running.process.pid(),
            connections,
            descriptors,
            "worker counts more connections than it has descriptors open: it must count down \
             however a connection ends, or placement and scaling go wrong",
        );
    }
}

async fn check_limits(
    fleet: &mut Fleet,
    worker: WorkerId,
    now: Timestamp,
) -> Result<(), PoolError> {
    let phase = fleet.slots.phase(worker);
    let Some(running) = fleet.workers.get(worker) else { return Ok(()) };
    let serving_since = if let Some(Phase::Serving { since }) = phase { Some(since) } else { None };
    let usage = WorkerUse {
        memory: running.health.memory,
        age: serving_since.map_or(Duration::ZERO, |since| now.since(since)),
        connections_served: running.stats().connections_total.unwrap_or(0),
    };
    match judge(&fleet.settings.limits, &usage, running.jitter) {
        LimitVerdict::Kill(reason) => {
            tracing::warn!(slot = worker.slot.0, %reason, "worker far beyond its limit");
            let fact = Fact::Kill(worker.generation, KillReason::Memory);
            fleet.on(worker.slot, fact).await
        }
        LimitVerdict::Replace(reason) if serving_since.is_some() => {
            fleet.planner.want(worker.slot, Cause::Limit(reason), now);
            Ok(())
        }
        LimitVerdict::Replace(_) | LimitVerdict::Fine => Ok(()),
    }
}

/// Shortens the deadline of the oldest draining worker when all of them use too much memory.
async fn bound_draining_memory(fleet: &mut Fleet) -> Result<(), PoolError> {
    let Some(limit) = fleet.settings.rollout.max_draining_memory else { return Ok(()) };
    let is_draining =
        |worker: WorkerId| matches!(fleet.slots.phase(worker), Some(Phase::Draining { .. }));
    let draining = || fleet.workers.iter().filter(|(worker, _)| is_draining(*worker));
    let memory: u64 = draining().filter_map(|(_, running)| running.health.memory).sum();
    let oldest = draining().min_by_key(|(_, running)| running.started);
    match oldest.map(|(worker, _)| worker) {
        Some(oldest) if memory > limit => {
            fleet.on(oldest.slot, Fact::ShortenDeadline(oldest.generation)).await
        }
        _ => Ok(()),
    }
}
