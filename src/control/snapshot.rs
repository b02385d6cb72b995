//! Snapshots of the status, from pool and frontend.
//!
//! Pool and frontend are queried five times a second at most: a snapshot serves all requests of the
//! next 200 ms.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::control::dominance::{Dominance, MIN_CONNECTIONS};
use crate::control::history::History;
use crate::control::links::Links;
use crate::control::report::{DominantClient, Rollout, Status, Worker};
use crate::control::usage::{Subject, Usage, UsageTable, Used};
use crate::frontend::query::{Client, FrontendFacts};
use crate::link::seam::WorkerId;
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::output::LineFilter;
use crate::supervisor::pool::handle::Refusal;
use crate::supervisor::pool::status::PoolStatus;

mod status;
mod workers;

pub(super) use status::{millis, placement_name, rollout};

/// The page of the guide about connections that all come from one address.
const LOAD_TESTS: &str = "the guide's chapter \"Load tests\"";

/// Lines among which the last one of a worker is looked for: the slot's other worker prints, too.
const LAST_LINES: usize = 1000;

/// How long a snapshot is valid.
const MAX_AGE: Duration = Duration::from_millis(200);

/// The status at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The moment.
    pub at: Timestamp,
    /// The pool's status.
    pub pool: PoolStatus,
    /// The frontend's facts.
    pub frontend: FrontendFacts,
    /// Memory and CPU of workers.
    pub usage: HashMap<WorkerId, Usage>,
    /// CPU time of each slot's workers.
    pub cpu_time: HashMap<SlotId, Duration>,
    /// The report on all of it.
    pub status: Status,
    /// All workers.
    pub workers: Vec<Worker>,
}

/// Takes snapshots.
#[derive(Clone, Debug)]
pub struct Snapshots {
    links: Links,
    history: History,
    last: Arc<Mutex<Option<Arc<Snapshot>>>>,
    usage: Arc<std::sync::Mutex<UsageTable>>,
    dominance: Arc<std::sync::Mutex<Dominance>>,
}

impl Snapshots {
    /// Takes snapshots of the primary with these handles.
    #[must_use]
    pub fn new(links: Links, history: History) -> Self {
        Self {
            links,
            history,
            last: Arc::default(),
            usage: Arc::default(),
            dominance: Arc::default(),
        }
    }

    /// The current snapshot.
    ///
    /// # Errors
    ///
    /// If pool or frontend has ended.
    pub async fn take(&self) -> Result<Arc<Snapshot>, Refusal> {
        // Locked while a snapshot is taken: concurrent requests wait for it.
        let mut last = self.last.lock().await;
        if let Some(fresh) = last.as_ref().filter(|it| Timestamp::now().since(it.at) < MAX_AGE) {
            return Ok(Arc::clone(fresh));
        }
        let taken = Arc::new(self.gather().await?);
        *last = Some(Arc::clone(&taken));
        Ok(taken)
    }

    /// Discards the last snapshot after a change.
    pub async fn expire(&self) {
        *self.last.lock().await = None;
    }

    async fn gather(&self) -> Result<Snapshot, Refusal> {
        let pool = self.links.pool.status().await?;
        let frontend = self.links.frontend.facts().await.map_err(|_| Refusal::Gone)?;
        let Used { workers: usage, cpu_time } = self.usage(&pool).await;
        let workers = workers::workers(&pool, &frontend, &usage);
        let mut status = status::status(&self.links, &pool, &frontend);
        status.dominant_client = self.dominant_client(&status).await;
        status.heavy_connections = workers::heavy_connections(&workers);
        status.last_rollout = self.last_rollout();
        Ok(Snapshot { at: Timestamp::now(), pool, frontend, usage, cpu_time, status, workers })
    }

    /// The last rolling restart that has ended, with the last words of the worker that failed.
    fn last_rollout(&self) -> Option<Rollout> {
        let (mut rollout, generation) = self.history.last_rollout()?;
        if let (Some(slot), Some(generation)) = (rollout.failed_slot, generation) {
            let filter = LineFilter { slot: Some(SlotId(slot)), err: true };
            let recent = self.links.output.recent(filter, LAST_LINES);
            let lines = recent.printed.lines().filter(|it| it.worker.generation.0 == generation);
            let lines: Vec<_> = lines.map(|line| line.text).collect();
            rollout.last_line =
                last_words(&lines).map(|line| String::from_utf8_lossy(line).into_owned());
        }
        Some(rollout)
    }

    /// On a thread of its own: reading a gigabyte's pages takes some milliseconds.
    async fn usage(&self, pool: &PoolStatus) -> Used {
        let workers = pool.slots.iter().flat_map(|slot| {
            slot.workers.iter().map(|worker| Subject {
                worker: WorkerId { slot: slot.slot, generation: worker.generation },
                pid: worker.pid,
                uptime: worker.uptime,
            })
        });
        let (subjects, table) = (workers.collect::<Vec<_>>(), Arc::clone(&self.usage));
        let read = move || {
            let mut table = table.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            table.read(&subjects)
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// The address that keeps one slot busy while the others idle, if there is one.
    async fn dominant_client(&self, status: &Status) -> Option<DominantClient> {
        let facts = &self.links.facts;
        let sticks = facts.placement.is_sticky() && status.workers > 1;
        if !sticks || status.connections < MIN_CONNECTIONS {
            return None;
        }
        let (address, dominance) = (facts.address, Arc::clone(&self.dominance));
        let look = move || {
            let mut dominance = dominance.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            dominance.look(address)
        };
        let found = tokio::task::spawn_blocking(look).await.ok()??;
        let route = self.links.frontend.explain(Client::Address(found.address)).await.ok()?;
        Some(DominantClient {
            address: found.address.to_string(),
            share: found.share,
            slot: route.target?.0,
            guide: LOAD_TESTS.to_owned(),
        })
    }
}

/// The line that says why a worker has ended: the last one; where Node has printed its version after an error, that.
fn last_words<'a>(lines: &[&'a [u8]]) -> Option<&'a [u8]> {
    let last = lines.iter().rfind(|line| !line.trim_ascii().is_empty())?;
    if !last.starts_with(b"Node.js v") {
        return Some(last);
    }
    let names_error = |line: &&&[u8]| {
        let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        word.ends_with(b"Error:") || word.ends_with(b"Error")
    };
    lines.iter().rfind(names_error).or(Some(last)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_more_than_the_version_after_it() {
        let of = |text: &str| {
            let lines: Vec<_> = text.split('\n').map(str::as_bytes).collect();
            last_words(&lines).map(|line| String::from_utf8_lossy(line).into_owned())
        };
        let node = "/srv/app.js:3\n  throw new Error('boom');\n  ^\n\nError: boom\n    at main (/srv/app.js:3:9)\n\nNode.js v24.1.0\n";
        assert_eq!(of(node).as_deref(), Some("Error: boom"));
        let coded = "TypeError [ERR_X]: no\n    at a\n  code: 'ERR_X'\n}\n\nNode.js v22.0.0";
        assert_eq!(of(coded).as_deref(), Some("TypeError [ERR_X]: no"));
        assert_eq!(of("Error: a\nlast\n\n").as_deref(), Some("last"));
        assert_eq!(of("Node.js v24.1.0").as_deref(), Some("Node.js v24.1.0"));
        assert_eq!(of("\n \n"), None);
    }
}
