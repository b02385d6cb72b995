//! The workers' processes: watched until they end, signalled, measured.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::kernel;
use crate::link::GroupMember;
use crate::link::interface::Interface;
use crate::link::seam::WorkerId;
use crate::link::stats::WorkerStats;
use crate::link::stats_source::StatsSource;
use crate::protocol::ids::Timestamp;
use crate::supervisor::lifecycle::{KillReason, LifecycleSettings};
use crate::supervisor::pool::stats::Crash;
use crate::supervisor::pool::worker_health::WorkerHealth;
use crate::supervisor::process::{Exit, Process};
use crate::supervisor::sample;
use crate::system::limits::oom_kills;
use crate::system::tcp_clients::Handshake;

/// How long a handshake is waited for.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends of workers that may wait to be handled. Further ones wait in their tasks.
const MAX_WAITING_ENDS: usize = 64;

/// The start of a worker that begins to be watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerStart {
    pub(super) worker: WorkerId,
    pub(super) started: Timestamp,
    /// From 0 to 1, the same for its whole life.
    pub(super) jitter: f64,
    /// Why it was killed or aborted, if it was.
    pub(super) killed: Option<KillReason>,
}

/// A worker's process and what is known of it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) process: Arc<Process>,
    pub(super) started: Timestamp,
    pub(super) health: WorkerHealth,
    /// From 0 to 1, the same for its whole life.
    pub(super) jitter: f64,
    /// Why it was killed or aborted, if it was.
    pub(super) killed: Option<KillReason>,
    /// What it speaks, once that is known.
    pub(super) interface: Option<Interface>,
    /// So often in a row it was seen without clients while it drains.
    pub(super) empty_looks: u8,
    /// Its listening socket, if it has one of its own.
    member: Option<GroupMember>,
    /// While it drains: those that were under way at the first look and still are, and when that was.
    handshakes: Option<(Timestamp, HashSet<Handshake>)>,
    stats: StatsSource,
    /// Bytes, read as it became ready.
    memory_at_start: Arc<OnceLock<u64>>,
    /// Waits for its end.
    _watched: AbortOnDropHandle<()>,
}

/// All workers that run, and those that have ended and were not reaped yet.
#[derive(Debug)]
pub(super) struct Workers {
    running: HashMap<WorkerId, Running>,
    ended: (mpsc::Sender<WorkerId>, mpsc::Receiver<WorkerId>),
    /// Processes that the kernel has killed because memory ran out, where it counts them.
    oom_kills: Option<u64>,
}

impl WorkerStart {
    /// Of a worker that was just started.
    pub(super) fn now(worker: WorkerId) -> Self {
        Self { worker, started: Timestamp::now(), jitter: jitter(), killed: None }
    }
}

impl Running {
    /// Whether it has ever attached.
    pub(super) fn has_attached(&self) -> bool {
        self.stats.has_attached()
    }

    /// Whether clients may come to it though it serves no more: its listening socket has some, or a handshake that was
    /// under way at the first look still is. Nothing of the kind takes longer than [`HANDSHAKE_TIMEOUT`].
    pub(super) fn expects_clients(
        &mut self,
        handshakes: &HashSet<Handshake>,
        now: Timestamp,
    ) -> bool {
        let Some(member) = &self.member else { return false };
        let (since, left) = self.handshakes.get_or_insert_with(|| (now, handshakes.clone()));
        left.retain(|handshake| handshakes.contains(handshake));
        let is_awaited = !left.is_empty() && now.since(*since) < HANDSHAKE_TIMEOUT;
        is_awaited || kernel::accept_queue(&member.socket).ok().flatten().unwrap_or(0) > 0
    }

    /// The inode of its listening socket, if it has one of its own.
    pub(super) fn listening_inode(&self) -> Option<u64> {
        let member = self.member.as_ref()?;
        rustix::fs::fstat(&member.socket).ok().map(|it| it.st_ino)
    }

    /// Notes how many clients the worker has, which it doesn't say itself.
    pub(super) fn note_clients(&self, count: u64) {
        self.stats.note_clients(count);
    }

    /// The worker's own counts.
    pub(super) fn stats(&self) -> WorkerStats {
        self.stats.read()
    }

    /// Bytes of memory that it had as it became ready, before any connection; none if that was before an
    /// upgrade or a crash of the primary.
    pub(super) fn memory_at_start(&self) -> Option<u64> {
        self.memory_at_start.get().copied()
    }

    /// It is ready. Its memory is read on a thread of its own: the kernel walks all of its pages.
    pub(super) fn sample_start(&self) {
        let (pid, start) = (self.process.pid(), Arc::clone(&self.memory_at_start));
        tokio::task::spawn_blocking(move || sample::memory(pid).map(|memory| start.set(memory)));
    }
}

impl Workers {
    pub(super) fn new() -> Self {
        Self {
            running: HashMap::new(),
            ended: mpsc::channel(MAX_WAITING_ENDS),
            oom_kills: oom_kills(),
        }
    }

    /// Adds a worker. [`Self::next_ended`] reports its end.
    pub(super) fn watch(
        &mut self,
        start: WorkerStart,
        process: Process,
        stats: StatsSource,
        member: Option<GroupMember>,
    ) {
        let WorkerStart { worker, started, jitter, killed } = start;
        let process = Arc::new(process);
        let (watched, ended) = (Arc::clone(&process), self.ended.0.clone());
        let watching = tokio::spawn(async move {
            watched.ended().await;
            // If it fails, the pool has ended.
            let _ = ended.send(worker).await;
        });
        let running = Running {
            process,
            started,
            health: WorkerHealth::default(),
            jitter,
            killed,
            interface: None,
            empty_looks: 0,
            member,
            handshakes: None,
            stats,
            memory_at_start: Arc::default(),
            _watched: AbortOnDropHandle::new(watching),
        };
        self.running.insert(worker, running);
    }

    /// Waits for the next worker that has ended.
    pub(super) async fn next_ended(&mut self) -> Option<WorkerId> {
        self.ended.1.recv().await
    }

    /// Whether an end waits to be handled.
    pub(super) fn has_ended(&self) -> bool {
        !self.ended.1.is_empty()
    }

    pub(super) fn get(&self, worker: WorkerId) -> Option<&Running> {
        self.running.get(&worker)
    }

    pub(super) fn get_mut(&mut self, worker: WorkerId) -> Option<&mut Running> {
        self.running.get_mut(&worker)
    }

    pub(super) fn remove(&mut self, worker: WorkerId) -> Option<Running> {
        self.running.remove(&worker)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Running)> {
        self.running.iter().map(|(worker, running)| (*worker, running))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// All workers and their process ids.
    pub(super) fn pids(&self) -> HashMap<WorkerId, i32> {
        self.iter().map(|(worker, running)| (worker, running.process.pid())).collect()
    }

    /// The process id of a worker, 0 if it has none.
    pub(super) fn pid(&self, worker: WorkerId) -> i32 {
        self.get(worker).map_or(0, |running| running.process.pid())
    }

    /// Sends a signal to a worker and what it has started.
    pub(super) fn signal(&self, worker: WorkerId, signal: Signal) {
        if let Some(running) = self.get(worker) {
            running.process.signal(signal);
        }
    }

    /// Notes why a worker is killed. Nothing if there is no such worker.
    pub(super) fn mark_killed(&mut self, worker: WorkerId, reason: KillReason) -> Option<&Running> {
        let running = self.running.get_mut(&worker)?;
        running.killed = Some(reason);
        Some(running)
    }

    /// Tells a worker that everything is to end.
    pub(super) fn note_stopping(&self, worker: WorkerId) {
        if let Some(running) = self.get(worker) {
            running.stats.note_stopping();
        }
    }

    /// Tells all workers that everything is to end.
    pub(super) fn note_all_stopping(&self) {
        self.running.values().for_each(|running| running.stats.note_stopping());
    }

    /// Why a worker ended, in words, and whether that was a crash if nobody had ordered it to end.
    pub(super) fn explain_end(
        &mut self,
        running: &Running,
        exit: io::Result<Exit>,
        settings: &LifecycleSettings,
    ) -> (String, Option<Crash>) {
        let crash = Crash::new(running.killed, exit.as_ref().ok().copied());
        let reason = match (running.killed, exit) {
            (Some(KillReason::Stalled), Ok(exit)) if running.health.watchdog.is_overdue() => {
                format!("did not acknowledge: {exit}")
            }
            (Some(KillReason::Stalled), Ok(exit)) => format!("stood still: {exit}"),
            (Some(reason), _) => settings.explain(reason),
            (None, Ok(Exit::Signal(9))) if self.has_run_out_of_memory() => {
                let reason = "was killed by the kernel: out of memory".to_owned();
                return (reason, Some(Crash::OutOfMemory));
            }
            (None, Ok(exit)) => exit.to_string(),
            // As under systemd, which reaps the children of a dead primary itself.
            (None, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                "ended, its status is known only to the subreaper that has taken it over".to_owned()
            }
            (None, Err(error)) => format!("ended, its status is unknown: {error}"),
        };
        (reason, crash)
    }

    /// Whether the kernel says that it has killed one more process.
    fn has_run_out_of_memory(&mut self) -> bool {
        let before = std::mem::replace(&mut self.oom_kills, oom_kills());
        self.oom_kills > before
    }

    /// Takes out all workers.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (WorkerId, Running)> {
        std::mem::take(&mut self.running).into_iter()
    }
}

/// A number from 0 to 1 that differs from slot to slot and from time to time. It need not be
/// unpredictable.
pub(super) fn jitter() -> f64 {
    f64::from(Timestamp::now().0.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]) / 255.0
}
