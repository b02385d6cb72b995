//! A real pool with real processes, and a frontend that is played: workers are ready as soon as they
//! are attached, and lose their channel when they are to drain, by which they end.

mod frontend;
mod keeper;
mod successors;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sticky_lb::internals::link::interface::{Dispatch, Interface, InterfaceChoice};

use sticky_lb::internals::link::seam::WorkerId;
use sticky_lb::internals::supervisor::command::WorkerCommand;
use sticky_lb::internals::supervisor::event::{Event, WorkerChange};
use sticky_lb::internals::supervisor::lifecycle::LifecycleSettings;
use sticky_lb::internals::supervisor::limits::LimitSettings;
use sticky_lb::internals::supervisor::pool::handle::PoolHandle;
use sticky_lb::internals::supervisor::pool::status::{PoolStatus, SlotStatus, WorkerStatus};
use sticky_lb::internals::supervisor::pool::{PoolSettings, Summary};
use sticky_lb::internals::supervisor::procfs::children;
use sticky_lb::internals::supervisor::restart::RestartPolicy;
use sticky_lb::internals::supervisor::rollout::{Report, RolloutSettings};
use sticky_lb::internals::system::journal::Journal;
use sticky_lb::protocol::drain::DrainMode;
use sticky_lb::protocol::ids::{Generation, SlotId};
use tokio::sync::broadcast;

pub(crate) use successors::Life;
use successors::Line;

/// Longer than anything takes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A pool takes care of every child of this process: there can be one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What a test has of the pool.
pub(crate) struct Harness {
    pub(crate) handle: PoolHandle,
    pub(crate) directory: PathBuf,
    events: broadcast::Receiver<Event>,
    line: Arc<Line>,
}

/// Workers that end with their channel, or at once where there is a file `broken`. Each has taken
/// five connections over; three are WebSockets now, of which two can move.
pub(crate) fn settings(workers: u16, directory: &Path) -> PoolSettings {
    let broken = directory.join("broken");
    let script = format!(
        "test -e {} && exit 3; \
         count() {{ printf $2 | dd bs=1 seek=$1 conv=notrunc of=/proc/self/fd/$STICKY_LB_SCOREBOARD 2>/dev/null; }}; \
         count 64 '\\005'; count 512 '\\002'; count 576 '\\003'; \
         exec cat <&$STICKY_LB_CHANNEL >/dev/null",
        broken.display(),
    );
    let command = WorkerCommand {
        // A plain `sh` knows no descriptors above 9.
        program: "bash".into(),
        arguments: ["-c".into(), script.into()].into(),
        ..WorkerCommand::default()
    };
    PoolSettings {
        workers,
        configured_workers: workers,
        weights: Vec::new(),
        command: Arc::new(command),
        port: 1,
        credits: 1,
        slot_wait: Duration::from_secs(1),
        wait_ready: true,
        interface: InterfaceChoice::Only(Interface::Native),
        dispatch: Dispatch::Primary,
        node: Arc::default(),
        stop_signal: 2,
        lifecycle: LifecycleSettings {
            signal_drain_timeout: TIMEOUT,
            signal_at_once: false,
            listen_timeout: TIMEOUT,
            kill_timeout: Duration::from_secs(10),
            drain_timeout: TIMEOUT,
            drain: DrainMode::Migrate,
            max_draining: 2,
            spare: false,
            restart: RestartPolicy {
                min_uptime: Duration::from_millis(300),
                ..RestartPolicy::DEFAULT
            },
        },
        rollout: RolloutSettings::default(),
        autoscale: None,
        contiguous: false,
        limits: LimitSettings::default(),
        watchdog_timeout: None,
        orphan_timeout: TIMEOUT,
        heartbeat: None,
        migrate_timeout: TIMEOUT,
        protect: false,
        lameduck: TIMEOUT,
    }
}

/// Runs a pool of so many workers, and beside it a test; when that is over, all ends at once. Then
/// the same again with a pool that is handed over to a successor all the time: nobody is to notice.
pub(crate) fn with_pool(workers: u16, test: impl AsyncFn(&mut Harness)) {
    with_successors(workers, Life::Calm, &test);
    with_successors(workers, Life::HandedOver, async |pool: &mut Harness| {
        // However fast the test is.
        pool.successors(3).await;
        test(pool).await;
    });
}

/// Runs a pool and a test, and tells how it went.
pub(crate) fn with_successors(
    workers: u16,
    life: Life,
    test: impl AsyncFn(&mut Harness),
) -> Summary {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    // Of a test that has failed.
    let own = i32::try_from(std::process::id()).unwrap();
    let before = children(own);
    let went = runtime.block_on(async {
        let (handle, ordered) = PoolHandle::new();
        let line = Arc::new(Line::new());
        let mut harness = Harness {
            handle,
            directory: folder.path().to_owned(),
            events: line.announcer.subscribe(),
            line: Arc::clone(&line),
        };
        let pool = line.run(settings(workers, folder.path()), life, ordered);
        let (went, ()) = tokio::join!(pool, async {
            for _ in 0..workers {
                harness.serves().await;
            }
            test(&mut harness).await;
            harness.stop_at_once().await;
        });
        assert_eq!(line.keeper.names(), ["journal"], "nothing of a worker is kept");
        line.keeper.stop();
        went
    });
    let mut left = children(own);
    left.retain(|pid| !before.contains(pid));
    assert!(left.is_empty(), "processes or zombies are left: {left:?}");
    went
}

impl Harness {
    /// Settings of a release that isn't the one that runs: its workers have `RELEASE` in their
    /// environment.
    pub(crate) fn release(&self, workers: u16) -> PoolSettings {
        let mut settings = settings(workers, &self.directory);
        let mut command = WorkerCommand::clone(&settings.command);
        command.environment.push(("RELEASE".into(), "2".into()));
        settings.command = Arc::new(command);
        settings
    }

    /// Workers that are started from now on come to nothing, or well.
    pub(crate) fn break_code(&self, broken: bool) {
        let file = self.directory.join("broken");
        if broken {
            std::fs::write(file, "").unwrap();
        } else {
            std::fs::remove_file(file).unwrap();
        }
    }

    /// Workers that are started from now on are not ready until this is over, those that drain go
    /// on until then.
    pub(crate) fn pause_readiness(&self, deaf: bool) {
        self.line.frontend.deaf.store(deaf, Ordering::SeqCst);
    }

    /// As soon as the pool has had so many successors.
    pub(crate) async fn successors(&self, count: u32) {
        self.eventually("there are so many successors", || self.count_successors() >= count).await;
    }

    pub(crate) fn count_successors(&self) -> u32 {
        self.line.successors.load(Ordering::SeqCst)
    }

    /// The pool dies, if it is to die when told. What it has done after it was [`Self::written`] so
    /// is forgotten, as if it had come to write nothing down since.
    pub(crate) async fn die(&mut self, written: Option<Vec<u8>>) {
        *self.line.written.lock().unwrap() = written;
        self.line.death.notify_one();
        self.event("another one goes on", |event| match event {
            Event::Resumed { .. } => Some(()),
            _ => None,
        })
        .await;
    }

    /// What is written down of the pool.
    pub(crate) fn written(&self) -> Vec<u8> {
        let journal = self.line.keeper.copies().remove("journal").unwrap();
        Journal::open(journal).read().unwrap()
    }

    /// What is kept of this pool's workers.
    pub(crate) fn kept(&self) -> Vec<String> {
        self.line.keeper.names()
    }

    /// Waits until something is so.
    pub(crate) async fn eventually(&self, what: &str, is_so: impl Fn() -> bool) {
        let begin = tokio::time::Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < TIMEOUT, "never was so: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// As soon as all workers have ended.
    pub(crate) async fn ended(&self) {
        self.eventually("it has ended", || self.line.frontend.has_ended()).await;
    }

    /// Until it is heard: a pool that dies forgets what it was ordered last.
    async fn stop_at_once(&self) {
        while !self.line.frontend.has_ended() {
            self.handle.stop(true).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Forgets what the frontend was told so far.
    pub(crate) fn forget_told(&self) {
        self.line.frontend.told.lock().unwrap().clear();
    }

    /// What the frontend was told, as soon as it is so much.
    pub(crate) async fn told(&self, count: usize) -> Vec<String> {
        let told = async {
            loop {
                let told = self.line.frontend.told.lock().unwrap().clone();
                if told.len() >= count {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, told).await.expect("the frontend is told")
    }

    /// The first event from now on of which something can be said.
    pub(crate) async fn event<T>(
        &mut self,
        what: &str,
        mut say: impl FnMut(&Event) -> Option<T>,
    ) -> T {
        let found = async {
            loop {
                if let Some(said) = say(&self.events.recv().await.unwrap()) {
                    return said;
                }
            }
        };
        let found = tokio::time::timeout(TIMEOUT, found).await;
        found.unwrap_or_else(|_| panic!("never came: {what}"))
    }

    /// The next worker that serves.
    pub(crate) async fn serves(&mut self) -> WorkerId {
        self.event("a worker serves", |event| match event {
            Event::Worker { worker, change: WorkerChange::Ready { .. }, .. } => Some(*worker),
            _ => None,
        })
        .await
    }

    /// The next one that is gone: its slot, why, and whether nobody had told it to.
    pub(crate) async fn gone(&mut self) -> (u16, String, bool) {
        self.event("a worker is gone", |event| match event {
            Event::Worker { worker, change: WorkerChange::Exited(end), .. } => {
                Some((worker.slot.0, end.reason.clone(), end.unexpected))
            }
            _ => None,
        })
        .await
    }

    /// The next replacement that is settled: why it came to nothing, if it did.
    pub(crate) async fn settled(&mut self) -> (u16, Option<String>) {
        self.event("a replacement is settled", |event| match event {
            Event::Replaced { slot } => Some((slot.0, None)),
            Event::ReplacementFailed { slot, reason } => Some((slot.0, Some(reason.clone()))),
            _ => None,
        })
        .await
    }

    /// The next rolling restart that has ended.
    pub(crate) async fn rolled_out(&mut self) -> Report {
        self.event("a rolling restart has ended", |event| match event {
            Event::RolloutEnded(report) => Some(report.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn status(&self) -> PoolStatus {
        self.handle.status().await.unwrap()
    }

    pub(crate) async fn slot(&self, slot: u16) -> SlotStatus {
        let slots = self.status().await.slots.into_iter();
        slots.into_iter().find(|found| found.slot.0 == slot).unwrap()
    }

    /// A slot's first worker, as soon as something is true of it.
    pub(crate) async fn worker(
        &self,
        what: &str,
        slot: u16,
        is_so: impl Fn(&WorkerStatus) -> bool,
    ) -> WorkerStatus {
        let found = async {
            loop {
                let worker = self.slot(slot).await.workers.swap_remove(0);
                if is_so(&worker) {
                    return worker;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(TIMEOUT, found).await;
        found.unwrap_or_else(|_| panic!("never was so: {what}"))
    }

    /// Whether the worker that serves a slot is of the new release.
    pub(crate) async fn is_new(&self, slot: u16) -> bool {
        let workers = self.slot(slot).await.workers;
        let serving = workers.iter().find(|worker| worker.phase == "serving").unwrap();
        let environment = std::fs::read(format!("/proc/{}/environ", serving.pid)).unwrap();
        environment.split(|byte| *byte == 0).any(|variable| variable == b"RELEASE=2")
    }
}

pub(crate) fn worker(slot: u16, generation: u32) -> WorkerId {
    WorkerId { slot: SlotId(slot), generation: Generation(generation) }
}
