//! What workers use: memory and processor time, looked at when somebody asks and not more often
//! than each second, or a twentieth of the time if that takes long.

use std::collections::HashMap;
use std::time::Duration;

use crate::link::seam::WorkerId;
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::sample;

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_secs(1);

/// What a worker uses, with all that it has started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Percent of one processor since the last look; since its start in the first.
    pub cpu: Option<f64>,
}

/// What was seen last.
#[derive(Debug, Default)]
pub struct UsageTable {
    seen: HashMap<WorkerId, Seen>,
    /// Processor time of each slot's workers up to the last look, those that are gone included.
    spent: HashMap<SlotId, Duration>,
    next: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Timestamp,
    cpu_time: Option<Duration>,
    usage: Usage,
}

/// What all workers use.
#[derive(Clone, Debug, Default)]
pub struct Used {
    /// By worker.
    pub workers: HashMap<WorkerId, Usage>,
    /// Processor time that each slot's workers have used, those that are gone included up to the
    /// last look before their end.
    pub cpu_time: HashMap<SlotId, Duration>,
}

/// A worker to look at.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Which.
    pub worker: WorkerId,
    /// Its process.
    pub pid: i32,
    /// Since it was started.
    pub uptime: Duration,
}

impl UsageTable {
    /// What these workers use. Blocks while the kernel walks their pages.
    pub fn look(&mut self, subjects: &[Subject]) -> Used {
        let now = Timestamp::now();
        if self.next.is_none_or(|next| now >= next) {
            let seen = subjects.iter().map(|it| (it.worker, self.look_at(it, now))).collect();
            self.add(&seen);
            self.seen = seen;
            let took = Timestamp::now().since(now);
            self.next = Some(now + SHORTEST.max(took * 20));
        }
        let workers = self.seen.iter().map(|(worker, seen)| (*worker, seen.usage)).collect();
        Used { workers, cpu_time: self.spent.clone() }
    }

    /// What was used since the last look.
    fn add(&mut self, seen: &HashMap<WorkerId, Seen>) {
        for (worker, now) in seen {
            let before = self.seen.get(worker).and_then(|seen| seen.cpu_time).unwrap_or_default();
            let used = now.cpu_time.unwrap_or_default().saturating_sub(before);
            *self.spent.entry(worker.slot).or_default() += used;
        }
    }

    fn look_at(&self, subject: &Subject, now: Timestamp) -> Seen {
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
