//! How everything is at one moment, put together from what pool and frontend say.
//!
//! However many ask, pool and frontend are asked five times a second at the most: a snapshot serves
//! all who come soon after it was taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::control::links::Links;
use crate::control::report::{Status, Worker};
use crate::control::usage::{Subject, Usage, UsageTable, Used};
use crate::frontend::query::FrontendFacts;
use crate::link::seam::WorkerId;
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::pool::handle::Refusal;
use crate::supervisor::pool::status::PoolStatus;

mod status;
mod workers;

pub(super) use status::{millis, placement_name, rollout};

/// How long a snapshot is of use.
const FRESH: Duration = Duration::from_millis(200);

/// How everything was.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When.
    pub at: Timestamp,
    /// What the pool said.
    pub pool: PoolStatus,
    /// What the frontend said.
    pub frontend: FrontendFacts,
    /// What workers use.
    pub usage: HashMap<WorkerId, Usage>,
    /// Processor time of each slot's workers.
    pub cpu_time: HashMap<SlotId, Duration>,
    /// Both, at a glance.
    pub status: Status,
    /// All workers.
    pub workers: Vec<Worker>,
}

/// Takes snapshots.
#[derive(Clone, Debug)]
pub struct Snapshots {
    links: Links,
    last: Arc<Mutex<Option<Arc<Snapshot>>>>,
    usage: Arc<std::sync::Mutex<UsageTable>>,
}

impl Snapshots {
    /// Without one yet.
    #[must_use]
    pub fn new(links: Links) -> Self {
        Self { links, last: Arc::default(), usage: Arc::default() }
    }

    /// A fresh one.
    ///
    /// # Errors
    ///
    /// If pool or frontend have ended.
    pub async fn take(&self) -> Result<Arc<Snapshot>, Refusal> {
        // Whoever comes while one is taken waits for that one.
        let mut last = self.last.lock().await;
        if let Some(fresh) = last.as_ref().filter(|it| Timestamp::now().since(it.at) < FRESH) {
            return Ok(Arc::clone(fresh));
        }
        let taken = Arc::new(self.gather().await?);
        *last = Some(Arc::clone(&taken));
        Ok(taken)
    }

    /// Something has changed: whoever asks next gets a new one.
    pub async fn expire(&self) {
        *self.last.lock().await = None;
    }

    async fn gather(&self) -> Result<Snapshot, Refusal> {
        let pool = self.links.pool.status().await?;
        let frontend = self.links.frontend.facts().await.map_err(|_| Refusal::Gone)?;
        let Used { workers: usage, cpu_time } = self.usage(&pool).await;
        let workers = workers::workers(&pool, &frontend, &usage);
        let status = status::status(&self.links, &pool, &frontend);
        Ok(Snapshot { at: Timestamp::now(), pool, frontend, usage, cpu_time, status, workers })
    }

    /// On a thread of its own: it takes some milliseconds for each gigabyte.
    async fn usage(&self, pool: &PoolStatus) -> Used {
        let workers = pool.slots.iter().flat_map(|slot| {
            slot.workers.iter().map(|worker| Subject {
                worker: WorkerId { slot: slot.slot, generation: worker.generation },
                pid: worker.pid,
                uptime: worker.uptime,
            })
        });
        let (subjects, table) = (workers.collect::<Vec<_>>(), Arc::clone(&self.usage));
        let look = move || {
            let mut table = table.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            table.look(&subjects)
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }
}
