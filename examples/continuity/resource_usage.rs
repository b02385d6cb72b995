//! What keeper and primary have at one time: processes, zombies, descriptors, memory. It has to be as
//! before when everything is over.

use std::error::Error;
use std::fs;

use tokio::time::{Duration, Instant, sleep};

use crate::primary::Primary;

/// How long it may take until nobody ends any more and spares are there again.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Descriptors that there may be more: of a connection that just comes, of a clock.
const FEW: usize = 16;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ResourceUsage {
    /// Workers that serve, and spares.
    workers: usize,
    /// Processes beside those: keeper and primary.
    others: usize,
    zombies: usize,
    /// Of keeper and primary, but those of protected sessions.
    descriptors: usize,
    /// KiB of keeper and primary (PSS).
    memory: u64,
}

impl ResourceUsage {
    /// As soon as so many workers run and nothing else; or what there is when that takes too long.
    pub(crate) async fn of(primary: &Primary, workers: usize) -> Result<Self, Box<dyn Error>> {
        let start = Instant::now();
        loop {
            let found = Self::now(primary).await?;
            let is_calm = (found.workers, found.others, found.zombies) == (workers, 2, 0);
            if is_calm || start.elapsed() > TIMEOUT {
                return Ok(found);
            }
            sleep(LOOK).await;
        }
    }

    async fn now(primary: &Primary) -> Result<Self, Box<dyn Error>> {
        let status = primary.status().await?;
        let number = |what: &str| status[what].as_u64().unwrap_or_default();
        let both = [number("pid"), number("primary_pid")];
        let workers = primary.workers().await?.len();
        let tree = tree(both[0]);
        let count = |pid: &u64| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let descriptors: usize = both.iter().map(count).sum();
        let protected = usize::try_from(number("sessions_protected"))?;
        Ok(Self {
            workers,
            others: tree.len().saturating_sub(workers),
            zombies: tree.iter().filter(|process| process.is_zombie).count(),
            descriptors: descriptors.saturating_sub(protected),
            memory: both.iter().filter_map(memory).sum(),
        })
    }

    /// What there is more of now that there should not be.
    pub(crate) fn complaints(&self, before: &Self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.zombies > 0 || self.others > before.others || self.workers != before.workers {
            complaints.push(format!("processes are not as before: {before:?}, {self:?}"));
        }
        if self.descriptors > before.descriptors + FEW {
            complaints.push(format!("descriptors are not as before: {before:?}, {self:?}"));
        }
        complaints
    }

    pub(crate) fn words(&self) -> String {
        format!(
            "{} workers and {} other processes, {} zombies, {} descriptors, {:.1} MB",
            self.workers,
            self.others,
            self.zombies,
            self.descriptors,
            self.memory as f64 / 1_024.0
        )
    }
}

struct Process {
    pid: u64,
    parent: u64,
    is_zombie: bool,
}

/// A process, and all that it and they have started.
fn tree(root: u64) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut others: Vec<_> = pids.filter_map(process).collect();
    let mut found: Vec<Process> = others.extract_if(.., |it| it.pid == root).collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|process| process.pid) {
        found.extend(others.extract_if(.., |it| it.parent == parent));
        next += 1;
    }
    found
}

fn process(pid: u64) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may be anything.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    let is_zombie = fields.next()? == "Z";
    Some(Process { pid, parent: fields.next()?.parse().ok()?, is_zombie })
}

fn memory(pid: &u64) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_left_is_complained_of() {
        let before =
            ResourceUsage { workers: 4, others: 2, descriptors: 60, ..ResourceUsage::default() };
        let changes: [fn(&mut ResourceUsage); 5] = [
            |now| now.zombies = 1,
            |now| now.others = 3,
            |now| now.workers = 3,
            |now| now.workers = 5,
            |now| now.descriptors = 60 + FEW + 1,
        ];
        assert!(before.complaints(&before).is_empty());
        for change in changes {
            let mut now = before;
            change(&mut now);
            assert_eq!(now.complaints(&before).len(), 1, "{now:?}");
        }
    }

    #[test]
    fn this_process_is_in_its_own_tree() {
        let own = u64::from(std::process::id());
        let found = tree(own);
        assert!(found.iter().any(|process| process.pid == own && !process.is_zombie));
        assert!(memory(&own).is_some_and(|memory| memory > 0));
    }
}
