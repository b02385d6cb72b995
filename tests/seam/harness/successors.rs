//! One pool after the other, with the same workers.

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sticky_lb::internals::handover::descriptors::WorkerPart;
use sticky_lb::internals::handover::pool::PoolSnapshot;
use sticky_lb::internals::handover::{decode, encode};
use sticky_lb::internals::link::native::PARTS;
use sticky_lb::internals::link::seam::{WorkerId, seam};
use sticky_lb::internals::supervisor::event::Announcer;
use sticky_lb::internals::supervisor::orphans::Orphans;
use sticky_lb::internals::supervisor::output::{Output, OutputSettings};
use sticky_lb::internals::supervisor::pool::handle::PoolHandle;
use sticky_lb::internals::supervisor::pool::snapshot::{
    AdoptedWorker, After, PoolEnd, PoolHandover,
};
use sticky_lb::internals::supervisor::pool::{
    Order, Pool, PoolLinks, PoolSettings, Progress, Summary,
};
use sticky_lb::internals::system::journal::Journal;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;

use super::frontend::{Channels, Frontend};
use super::keeper::Keeper;

const FLUSH_TIMEOUT: Duration = Duration::from_secs(20);

/// What becomes of a pool, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Nothing.
    Calm,
    /// It hands over to a successor.
    HandedOver,
    /// It dies, and is followed by another one.
    Dies,
    /// It dies when it is told to.
    DiesWhenTold,
}

/// How long each pool lives.
const LIFETIME: Duration = Duration::from_millis(40);

/// What outlives every pool.
pub(super) struct Line {
    pub(super) frontend: Arc<Frontend>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) announcer: Announcer,
    /// How many pools have followed the first.
    pub(super) successors: AtomicU32,
    pub(super) death: Notify,
    /// What the next one finds instead of what was written last.
    pub(super) written: Mutex<Option<Vec<u8>>>,
}

/// A pool, and the frontend that plays beside it.
type Pair = (Pool, JoinHandle<Channels>);

impl Line {
    pub(super) fn new() -> Self {
        let (frontend, keeper) = (Arc::default(), Keeper::start());
        Self {
            frontend,
            keeper,
            announcer: Announcer::new(),
            successors: AtomicU32::new(0),
            death: Notify::new(),
            written: Mutex::default(),
        }
    }

    /// Runs a pool and all its successors, and tells how it went.
    pub(super) async fn run(
        &self,
        settings: PoolSettings,
        life: Life,
        mut ordered: mpsc::Receiver<Order>,
    ) -> Summary {
        let (mut handle, orders) = PoolHandle::new();
        let journal = Journal::create().unwrap();
        let output = Output::start(OutputSettings::default()).unwrap();
        let orphans = Orphans::adopt(None).unwrap();
        let (links, mut frontend) = self.links(orders, journal, output, orphans);
        let mut pool = Pool::new(settings, links);
        loop {
            let end = tokio::select! {
                biased;
                end = pool.run() => Some(end.unwrap()),
                never = pass_on(&mut ordered, &handle) => match never {},
                () = self.lives(life, &handle) => None,
            };
            // Tasks of the one that is gone may still have to end.
            let joined = tokio::task::spawn_blocking(|| frontend.join().unwrap());
            let channels = joined.await.unwrap();
            (pool, frontend) = match end {
                Some(PoolEnd::Ended(summary)) => return summary,
                Some(PoolEnd::HandedOver(pool)) => self.after_upgrade(*pool, channels).await,
                None => {
                    let (next, orders) = PoolHandle::new();
                    handle = next;
                    self.after_crash(orders, channels)
                }
            };
            self.successors.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn after_upgrade(&self, pool: PoolHandover, channels: Channels) -> Pair {
        let PoolHandover { snapshot, mut processes, links } = pool;
        let mut printed = links.output.hand_over(FLUSH_TIMEOUT).await;
        let output =
            Output::resume(OutputSettings::default(), &mut printed, |error| panic!("{error}"))
                .unwrap();
        let snapshot: PoolSnapshot = decode(&encode(&snapshot).unwrap()).unwrap();
        let inherited = snapshot.inherited.iter().copied().collect();
        let orphans = Orphans::resume(None, inherited).unwrap();
        let journal = links.journal.unwrap();
        let (links, frontend) = self.links(links.orders, journal, output, orphans);
        let workers = channels.into_iter().map(|(id, channel)| {
            let process = processes.iter().position(|(worker, _)| *worker == id);
            let process = process.map(|position| processes.swap_remove(position).1);
            AdoptedWorker { id, channel: channel.into(), process, stdout: None, stderr: None }
        });
        (Pool::resume(snapshot, workers.collect(), After::Upgrade, links), frontend)
    }

    fn after_crash(&self, orders: mpsc::Receiver<Order>, channels: Channels) -> Pair {
        let mut kept = self.keeper.copies();
        let journal = Journal::open(kept.remove("journal").unwrap());
        let written = self.written.lock().unwrap().take();
        let written = written.unwrap_or_else(|| journal.read().unwrap());
        let snapshot: PoolSnapshot = decode(&written).unwrap();
        let inherited = snapshot.inherited.iter().copied().collect();
        let orphans = Orphans::resume(None, inherited).unwrap();
        let output = Output::start(OutputSettings::default()).unwrap();
        let (links, frontend) = self.links(orders, journal, output, orphans);
        let mut take = |part: WorkerPart, worker: WorkerId| kept.remove(&part.name(worker));
        let workers = channels.into_iter().filter_map(|(id, channel)| {
            take(PARTS[0], id)?;
            Some(AdoptedWorker {
                id,
                channel: channel.into(),
                process: take(WorkerPart::Process, id),
                stdout: take(WorkerPart::Stdout, id),
                stderr: take(WorkerPart::Stderr, id),
            })
        });
        (Pool::resume(snapshot, workers.collect(), After::Crash, links), frontend)
    }

    /// Until it dies.
    async fn lives(&self, life: Life, handle: &PoolHandle) {
        match life {
            Life::Calm => pending().await,
            Life::Dies => sleep(LIFETIME).await,
            Life::DiesWhenTold => self.death.notified().await,
            Life::HandedOver => {
                sleep(LIFETIME).await;
                // Where everything ends, it isn't handed over any more.
                let _ = handle.hand_over().await;
                pending().await
            }
        }
    }

    fn links(
        &self,
        orders: mpsc::Receiver<Order>,
        journal: Journal,
        output: Output,
        orphans: Orphans,
    ) -> (PoolLinks, JoinHandle<Channels>) {
        let (commander, events, heard) = seam().unwrap();
        let played = Arc::clone(&self.frontend);
        let frontend = thread::spawn(move || played.play(heard));
        let links = PoolLinks {
            frontend: commander,
            events,
            output,
            orphans,
            orders,
            progress: watch::channel(Progress::default()).0,
            announcer: self.announcer.clone(),
            store: Some(self.keeper.store.clone()),
            journal: Some(journal),
        };
        (links, frontend)
    }
}

/// What is ordered reaches whichever pool there is.
async fn pass_on(ordered: &mut mpsc::Receiver<Order>, handle: &PoolHandle) -> Infallible {
    while let Some(order) = ordered.recv().await {
        handle.order(order).await;
    }
    pending().await
}
