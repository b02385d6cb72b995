//! Takes over workers that a pool before this one has started: those of its snapshot, those that it
//! started after its last snapshot, and those of which nothing is left.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::handover::descriptors::WorkerPart;
use crate::link::seam::{SlotCommand, WorkerId};
use crate::link::stats_source::StatsSource;
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::Timestamp;
use crate::supervisor::lifecycle::{Fact, Phase};
use crate::supervisor::orphans::Orphans;
use crate::supervisor::output::{PipeHandover, PipeState, Stream};
use crate::supervisor::pool::error::PoolError;
use crate::supervisor::pool::fleet::Fleet;
use crate::supervisor::pool::snapshot::{AdoptedWorker, WorkerRecord};
use crate::supervisor::pool::workers::WorkerStart;
use crate::supervisor::process::Process;
use crate::supervisor::procfs::{pid_of, process_of};
use crate::supervisor::rollout::Cause;

/// A worker that was adopted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adopted {
    worker: WorkerId,
    /// It may serve.
    is_ready: bool,
    /// It was ordered to drain.
    drains: bool,
}

/// Adopts a worker that is in the snapshot.
pub(super) async fn adopt(
    fleet: &mut Fleet,
    mut worker: AdoptedWorker,
    record: WorkerRecord,
) -> Result<Option<Adopted>, PoolError> {
    let pidfd = worker.process.take();
    let pidfd = pidfd.or_else(|| {
        let (pid, pidfd) = find(&fleet.orphans, worker.id)?;
        (pid == record.pid).then_some(pidfd)
    });
    let process = pidfd.and_then(|pidfd| Process::adopt(record.pid, pidfd).ok());
    let WorkerRecord { worker: id, pid, started, jitter, killed } = record;
    attach(fleet, worker, pid, WorkerStart { worker: id, started, jitter, killed }, process).await
}

/// Adopts a worker that is not in the snapshot: it was started, or about to be, in the turn in which
/// the pool died. It counts as started just now.
pub(super) async fn adopt_unknown(
    fleet: &mut Fleet,
    mut worker: AdoptedWorker,
) -> Result<Option<Adopted>, PoolError> {
    let id = worker.id;
    let known = worker.process.take().and_then(|pidfd| Some((pid_of(&pidfd)?, pidfd)));
    let is_stored = known.is_some();
    let found = known.or_else(|| find(&fleet.orphans, id));
    let process = found.and_then(|(pid, pidfd)| Process::adopt(pid, pidfd).ok());
    let has_place = make_place(fleet, id, process.is_some()).await?;
    let process = match process {
        Some(process) if has_place => process,
        process => {
            if let Some(process) = process {
                let (slot, generation, pid) = (id.slot.0, id.generation.0, process.pid());
                tracing::warn!(slot, generation, pid, "worker without a place killed");
                process.signal(Signal::KILL);
            }
            fleet.record.remove_worker(id);
            return Ok(None);
        }
    };
    if !is_stored {
        fleet.record.store_part(id, WorkerPart::Process, &process);
    }
    fleet.history.stats.started(id.slot);
    let pid = process.pid();
    attach(fleet, worker, pid, WorkerStart::now(id), Some(process)).await
}

/// Whether the slot of a worker that is in no snapshot has a place for it. Its generation number is
/// used in any case.
async fn make_place(fleet: &mut Fleet, worker: WorkerId, runs: bool) -> Result<bool, PoolError> {
    let WorkerId { slot, generation } = worker;
    if fleet.slots.get(slot).is_none() {
        fleet.slots.add(slot, false, &fleet.settings);
        fleet.on(slot, Fact::Remove).await?;
    }
    let Some(found) = fleet.slots.get_mut(slot) else { return Ok(false) };
    found.life.skip(generation);
    Ok(runs && found.life.adopt(generation, Timestamp::now()))
}

/// Gives the frontend the worker's channel, even if the worker has ended: connections in it go to
/// others.
async fn attach(
    fleet: &mut Fleet,
    worker: AdoptedWorker,
    pid: i32,
    start: WorkerStart,
    process: Option<Process>,
) -> Result<Option<Adopted>, PoolError> {
    let AdoptedWorker { id, channel, stdout, stderr, .. } = worker;
    let link = &channel.link;
    let is_ready = link.is_ready() || link.is_attached() && !fleet.settings.wait_ready;
    let (stats, interface) = (StatsSource::new(link), link.interface());
    let member = channel.copy_of_member();
    fleet.frontend.send(SlotCommand::Attach(id, Box::new(channel))).await?;
    let gone = process.is_none();
    for (descriptor, stream) in [(stdout, Stream::Out), (stderr, Stream::Err)] {
        let state = PipeState { worker: id, pid, stream, begun: Vec::new(), gone };
        if let Some(descriptor) = descriptor {
            fleet.output.adopt_pipe(PipeHandover { state, descriptor });
        }
    }
    let (Some(process), Ok(stats)) = (process, stats) else { return Ok(None) };
    let drains = stats.is_drain_ordered();
    fleet.workers.watch(start, process, stats, member);
    if let Some(interface) = interface {
        fleet.note_interface(id, interface);
    }
    Ok(Some(Adopted { worker: id, is_ready, drains }))
}

/// Looks for a worker's process among those that it can be.
fn find(orphans: &Orphans, worker: WorkerId) -> Option<(i32, OwnedFd)> {
    let found = process_of(worker, &orphans.candidates())?;
    let pidfd = pidfd_open(Pid::from_raw(found)?, PidfdFlags::NONBLOCK).ok()?;
    // It may have ended meanwhile, and another process may have its number.
    (process_of(worker, &[found]) == Some(found)).then_some((found, pidfd))
}

/// Reports the ends of workers of which nothing is left.
pub(super) async fn report_lost(fleet: &mut Fleet) -> Result<(), PoolError> {
    let is_lost = |worker: &WorkerId| fleet.workers.get(*worker).is_none();
    let lost: Vec<_> = fleet.slots.workers().filter(is_lost).collect();
    for worker in lost {
        fleet.lost(worker).await?;
    }
    Ok(())
}

/// After a crash: repeats what a worker said and was told in the pool's last turn.
pub(super) async fn catch_up(fleet: &mut Fleet, adopted: Adopted) -> Result<(), PoolError> {
    let Adopted { worker, is_ready, drains } = adopted;
    let WorkerId { slot, generation } = worker;
    let now = Timestamp::now();
    match fleet.slots.phase(worker) {
        Some(Phase::Spawning { .. }) if is_ready => fleet.on(slot, Fact::Ready(generation)).await?,
        Some(Phase::Spare { .. }) if drains => fleet.on(slot, Fact::Leave(generation)).await?,
        // It takes no clients any more, and the order's reason is not known.
        Some(Phase::Serving { .. }) if drains => fleet.planner.want(slot, Cause::Asked, now),
        // The order may have been lost with the primary.
        Some(Phase::Draining { deadline, told: Some(told), .. }) => {
            let order = DrainOrder { window: deadline.since(now), ..told };
            fleet.frontend.send(SlotCommand::Drain(worker, order)).await?;
        }
        _ => {}
    }
    Ok(())
}
