//! A real pool with real processes, and a frontend that is played: workers are ready as soon as they
//! are attached, and lose their channel when they are to drain, by which they end.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sticky_lb::handoff::drain::{DrainMode, DrainOrder};
use sticky_lb::handoff::ids::{Generation, SlotId};
use sticky_lb::handoff::slots::{Counters, SlotCommand, SlotEventKind, SlotOrders, WorkerId, seam};
use sticky_lb::supervisor::command::WorkerCommand;
use sticky_lb::supervisor::event::{Announcer, Event, WorkerChange};
use sticky_lb::supervisor::lifecycle::LifecycleSettings;
use sticky_lb::supervisor::limits::LimitSettings;
use sticky_lb::supervisor::orphans::Orphans;
use sticky_lb::supervisor::output::{Output, OutputSettings};
use sticky_lb::supervisor::pool::handle::PoolHandle;
use sticky_lb::supervisor::pool::status::{PoolStatus, SlotStatus, WorkerStatus};
use sticky_lb::supervisor::pool::{Pool, PoolLinks, PoolSettings, Progress, Summary};
use sticky_lb::supervisor::restart::RestartPolicy;
use sticky_lb::supervisor::rollout::{Report, RolloutSettings};
use tokio::sync::{broadcast, watch};

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pool takes care of every child of this process: there can be one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What a test has of the pool.
pub(crate) struct Harness {
    pub(crate) handle: PoolHandle,
    pub(crate) directory: PathBuf,
    events: broadcast::Receiver<Event>,
    frontend: Arc<Frontend>,
}

/// What the frontend was told, and whether it keeps what workers say to itself.
#[derive(Default)]
struct Frontend {
    told: Mutex<Vec<String>>,
    deaf: AtomicBool,
}

/// Workers that end with their channel, or at once where there is a file `broken`. Each has taken
/// five connections over; three are WebSockets now, of which two can move.
pub(crate) fn settings(workers: u16, directory: &Path) -> PoolSettings {
    let broken = directory.join("broken");
    let script = format!(
        "test -e {} && exit 3; \
         count() {{ printf $2 | dd bs=1 seek=$1 conv=notrunc of=/proc/self/fd/4 2>/dev/null; }}; \
         count 64 '\\005'; count 512 '\\002'; count 576 '\\003'; \
         exec cat <&3 >/dev/null",
        broken.display(),
    );
    let command = WorkerCommand {
        program: "sh".into(),
        arguments: ["-c".into(), script.into()].into(),
        ..WorkerCommand::default()
    };
    PoolSettings {
        workers,
        weights: Vec::new(),
        command: Arc::new(command),
        port: 1,
        credits: 1,
        slot_wait: Duration::from_secs(1),
        wait_ready: true,
        lifecycle: LifecycleSettings {
            listen_timeout: PATIENCE,
            kill_timeout: Duration::from_secs(10),
            drain_timeout: PATIENCE,
            drain: DrainMode::Migrate,
            max_draining: 2,
            restart: RestartPolicy {
                min_uptime: Duration::from_millis(300),
                ..RestartPolicy::DEFAULT
            },
        },
        rollout: RolloutSettings::default(),
        autoscale: None,
        dense: false,
        limits: LimitSettings::default(),
        stall_timeout: None,
        orphan_grace: PATIENCE,
        heartbeat: None,
        move_timeout: PATIENCE,
        crash_safe: false,
        lameduck: PATIENCE,
    }
}

/// Runs a pool of so many workers, and beside it a test; when that is over, all ends at once.
pub(crate) fn with_pool(workers: u16, test: impl AsyncFnOnce(&mut Harness)) -> Summary {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (commander, heard, orders) = seam().unwrap();
        let frontend = Arc::new(Frontend::default());
        let played = Arc::clone(&frontend);
        thread::spawn(move || played.play(orders));
        let (handle, ordered) = PoolHandle::new();
        let announcer = Announcer::new();
        let events = announcer.subscribe();
        let links = PoolLinks {
            frontend: commander,
            events: heard,
            output: Output::start(OutputSettings::default()).unwrap(),
            orphans: Orphans::adopt().unwrap(),
            orders: ordered,
            progress: watch::channel(Progress::default()).0,
            announcer,
        };
        let directory = folder.path().to_owned();
        let pool = Pool::new(settings(workers, &directory), links).run();
        let mut harness = Harness { handle, directory, events, frontend };
        let (summary, ()) = tokio::join!(pool, async {
            for _ in 0..workers {
                harness.serves().await;
            }
            test(&mut harness).await;
            harness.handle.stop(true).await;
        });
        summary.unwrap()
    })
}

impl Frontend {
    fn play(&self, mut orders: SlotOrders) {
        let mut channels = HashMap::new();
        let (mut kept, mut held) = (Vec::new(), Vec::new());
        loop {
            orders.quiet();
            while let Some(command) = orders.next_command() {
                match command {
                    SlotCommand::Attach(worker, channel) => {
                        channels.insert(worker, channel);
                        kept.push(worker);
                    }
                    SlotCommand::Drain(worker, DrainOrder { mode, reason, window }) => {
                        let WorkerId { slot, generation } = worker;
                        let (code, seconds) = (reason.close_code(), window.as_secs());
                        self.note(format!("drain {slot}.{generation}: {mode} {code} {seconds}"));
                        held.extend(channels.remove(&worker));
                    }
                    SlotCommand::Gone(worker) => drop(channels.remove(&worker)),
                    SlotCommand::GiveUp(slot) => self.note(format!("give up {slot}")),
                    SlotCommand::Rank(slots) => self.note(format!("rank {}", slots.len())),
                    SlotCommand::StopAccepting(reply) => drop(reply.send(())),
                    SlotCommand::Count(reply) => drop(reply.send(Counters::default())),
                    SlotCommand::End => return,
                    _ => {}
                }
            }
            if !self.deaf.load(Ordering::SeqCst) {
                kept.drain(..).for_each(|worker| orders.tell(worker, SlotEventKind::Ready));
                held.clear();
            }
            // Short, since nothing wakes it when it isn't deaf any more.
            let mut wake = [PollFd::new(&orders, PollFlags::IN)];
            let _ = poll(&mut wake, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
        }
    }

    fn note(&self, what: String) {
        self.told.lock().unwrap().push(what);
    }
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
    pub(crate) fn deafen(&self, deaf: bool) {
        self.frontend.deaf.store(deaf, Ordering::SeqCst);
    }

    /// Forgets what the frontend was told so far.
    pub(crate) fn forget_told(&self) {
        self.frontend.told.lock().unwrap().clear();
    }

    /// What the frontend was told, as soon as it is so much.
    pub(crate) async fn told(&self, count: usize) -> Vec<String> {
        let told = async {
            loop {
                let told = self.frontend.told.lock().unwrap().clone();
                if told.len() >= count {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("the frontend is told")
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
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("never came: {what}"))
    }

    /// The next worker that serves.
    pub(crate) async fn serves(&mut self) -> WorkerId {
        self.event("a worker serves", |event| match event {
            Event::Worker { worker, change: WorkerChange::Serves { .. }, .. } => Some(*worker),
            _ => None,
        })
        .await
    }

    /// The next one that is gone: its slot, why, and whether nobody had told it to.
    pub(crate) async fn gone(&mut self) -> (u16, String, bool) {
        self.event("a worker is gone", |event| match event {
            Event::Worker { worker, change: WorkerChange::Gone(end), .. } => {
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
            Event::NotReplaced { slot, reason } => Some((slot.0, Some(reason.clone()))),
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
        let found = tokio::time::timeout(PATIENCE, found).await;
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
