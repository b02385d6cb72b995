//! Memory and CPU time of workers, read on request.
//!
//! At most once a second, and for at most a twentieth of the time.

use std::collections::HashMap;
use std::time::Duration;

use crate::link::seam::WorkerId;
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::sample;

/// The shortest time between two readings.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Memory and CPU of a worker and its child processes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Percent of one CPU since the last reading; in the first, since its start.
    pub cpu: Option<f64>,
}

/// The last reading.
#[derive(Debug, Default)]
pub struct UsageTable {
    seen: HashMap<WorkerId, Seen>,
    /// CPU time of each slot's workers up to the last reading, ended ones included.
    spent: HashMap<SlotId, Duration>,
    next: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Timestamp,
    cpu_time: Option<Duration>,
    usage: Usage,
}

/// Usage of all workers.
#[derive(Clone, Debug, Default)]
pub struct Used {
    /// By worker.
    pub workers: HashMap<WorkerId, Usage>,
    /// CPU time of each slot's workers; ended ones count up to the last reading before their end.
    pub cpu_time: HashMap<SlotId, Duration>,
}

/// A worker to read.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The worker.
    pub worker: WorkerId,
    /// Its process.
    pub pid: i32,
    /// Time since its start.
    pub uptime: Duration,
}

impl UsageTable {
    /// The usage of these workers. Blocks while the kernel walks their pages.
    pub fn read(&mut self, subjects: &[Subject]) -> Used {
        let now = Timestamp::now();
        if self.next.is_none_or(|next| now >= next) {
            let seen = subjects.iter().map(|it| (it.worker, self.read_worker(it, now))).collect();
            self.add(&seen);
            self.seen = seen;
            let took = Timestamp::now().since(now);
            self.next = Some(now + MIN_INTERVAL.max(took * 20));
        }
        let workers = self.seen.iter().map(|(worker, seen)| (*worker, seen.usage)).collect();
        Used { workers, cpu_time: self.spent.clone() }
    }

    /// Adds the CPU time since the last reading.
    fn add(&mut self, seen: &HashMap<WorkerId, Seen>) {
        for (worker, now) in seen {
            let before = self.seen.get(worker).and_then(|seen| seen.cpu_time).unwrap_or_default();
            let used = now.cpu_time.unwrap_or_default().saturating_sub(before);
            *self.spent.entry(worker.slot).or_default() += used;
        }
    }

    fn read_worker(&self, subject: &Subject, now: Timestamp) -> Seen {
        let cpu_time = sample::cpu_time(subject.pid);
        let before = self.seen.get(&subject.worker);
        let before = before.and_then(|seen| Some((now.since(seen.at), seen.cpu_time?)));
        let (passed, used_before) = before.unwrap_or((subject.uptime, Duration::ZERO));
        let cpu = cpu_time.filter(|_| !passed.is_zero()).map(|used| {
            100.0 * used.saturating_sub(used_before).as_secs_f64() / passed.as_secs_f64()
        });
        Seen { at: now, cpu_time, usage: Usage { memory: sample::memory(subject.pid), cpu } }
    }
}
