//! A pool goes on in the place of another one that has handed over, or died: workers notice nothing,
//! and nothing is lost, left behind or done twice.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sticky_lb::internals::handover::descriptors::WorkerPart;
use sticky_lb::internals::link::native::PARTS;
use sticky_lb::internals::link::seam::WorkerId;
use sticky_lb::internals::supervisor::event::{Event, WorkerChange};
use sticky_lb::internals::supervisor::lifecycle::SlotState;
use sticky_lb::internals::supervisor::pool::PoolSettings;
use sticky_lb::internals::supervisor::pool::handle::{Refusal, Scale, SlotOrder};
use sticky_lb::internals::supervisor::pool::status::PoolStatus;
use sticky_lb::internals::supervisor::rollout::{Outcome, Trigger};
use sticky_lb::protocol::ids::SlotId;

use crate::harness::{Harness, Life, with_successors, worker};
use crate::{order, total};

/// A pool that dies takes the answer to an order with it: it is given again.
async fn insist<T>(mut order: impl AsyncFnMut() -> Result<T, Refusal>) -> T {
    loop {
        match order().await {
            Err(Refusal::Gone) => tokio::time::sleep(Duration::from_millis(1)).await,
            answer => return answer.unwrap(),
        }
    }
}

async fn status(pool: &Harness) -> PoolStatus {
    insist(async || pool.handle.status().await).await
}

/// The pool as soon as something is so of it.
async fn when(pool: &Harness, what: &str, is_so: impl Fn(&PoolStatus) -> bool) -> PoolStatus {
    let found = async {
        loop {
            let status = status(pool).await;
            if is_so(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(30), found).await;
    found.unwrap_or_else(|_| panic!("never was so: {what}"))
}

/// So many slots, each with a worker that serves and no other, and nothing under way.
fn is_calm(status: &PoolStatus, slots: usize) -> bool {
    let calm = |phases: Vec<&str>| phases == ["serving"];
    status.rollout.is_none()
        && status.slots.len() == slots
        && status.slots.iter().all(|slot| calm(slot.workers.iter().map(|it| it.phase).collect()))
}

fn workers(status: &PoolStatus) -> Vec<WorkerId> {
    let all = status.slots.iter().flat_map(|slot| {
        slot.workers.iter().map(|it| WorkerId { slot: slot.slot, generation: it.generation })
    });
    all.collect()
}

/// What is kept of those who run, and of nobody else.
async fn assert_kept(pool: &Harness, status: &PoolStatus) {
    let of_workers = workers(status).into_iter();
    let others = [WorkerPart::Process, WorkerPart::Stdout, WorkerPart::Stderr];
    let all: Vec<_> = PARTS.into_iter().chain(others).collect();
    let names = of_workers.flat_map(|worker| all.iter().map(move |part| part.name(worker)));
    let expected: BTreeSet<_> = names.chain(["journal".to_owned()]).collect();
    pool.eventually("what is kept is what runs", || {
        pool.kept().into_iter().collect::<BTreeSet<_>>() == expected
    })
    .await;
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn rolling_restarts_and_scaling_go_on_through_twenty_hand_overs() {
    with_successors(3, Life::HandedOver, async |pool| {
        let mut rounds = 0;
        while pool.count_successors() < 20 {
            rounds += 1;
            let number = pool.handle.reload(Trigger::Command, pool.release(3)).await.unwrap();
            let scaled = pool.handle.scale(Scale::By(1)).await.unwrap();
            assert!(scaled.deferred && number == rounds);
            let report = pool.rolled_out().await;
            assert_eq!((report.number, report.outcome), (rounds, Outcome::Done));
            let status = when(pool, "the fourth serves", |status| is_calm(status, 4)).await;
            assert_kept(pool, &status).await;
            pool.handle.scale(Scale::To(3)).await.unwrap();
            let status = when(pool, "the fourth is gone", |status| is_calm(status, 3)).await;
            assert_eq!(total(&status.crashes), 0);
            assert_eq!(status.rollouts[0], ("done", rounds));
        }
        let status = pool.status().await;
        for slot in &status.slots {
            // One for each rolling restart, and none besides.
            assert_eq!(u64::from(slot.workers[0].generation.0), rounds);
            assert_eq!(slot.started, rounds + 1);
            assert!(pool.is_new(slot.slot.0).await);
        }
        assert_kept(pool, &status).await;
    });
}

#[test]
fn rolling_restarts_go_on_through_twenty_deaths_of_the_pool() {
    with_successors(3, Life::Dies, async |pool| {
        let mut rounds = 0;
        while pool.count_successors() < 20 {
            let trigger = || Trigger::Command;
            insist(async || pool.handle.reload(trigger(), pool.release(3)).await).await;
            rounds += 1;
            let done = |status: &PoolStatus| is_calm(status, 3) && status.rollouts[0].1 >= 1;
            let status = when(pool, "the restart is done", done).await;
            assert_eq!(total(&status.crashes), 0, "{status:?}");
            assert_kept(pool, &status).await;
        }
        assert!(rounds > 0);
        for slot in 0..3 {
            assert!(is_new(pool, slot).await);
        }
    });
}

async fn is_new(pool: &Harness, slot: u16) -> bool {
    let status = status(pool).await;
    let Some(worker) = status.slots[usize::from(slot)].workers.first() else { return false };
    let environment = std::fs::read(format!("/proc/{}/environ", worker.pid)).unwrap_or_default();
    environment.windows(9).any(|it| it == b"RELEASE=2")
}

#[test]
fn the_end_of_a_worker_is_noticed_whenever_it_comes() {
    for life in [Life::HandedOver, Life::Dies] {
        with_successors(2, life, async |pool| {
            for round in 1..=4 {
                let before = when(pool, "all serve", |status| is_calm(status, 2)).await;
                kill(before.slots[0].workers[0].pid);
                let reason = pool.gone().await;
                assert_eq!(reason, (0, "was killed by signal 9".to_owned(), true));
                let again = |status: &PoolStatus| {
                    is_calm(status, 2) && status.slots[0].workers[0].generation.0 == round
                };
                let status = when(pool, "the next one serves", again).await;
                assert_eq!(total(&status.crashes), u64::from(round));
                assert_kept(pool, &status).await;
            }
        });
    }
}

#[test]
fn a_back_off_and_an_errored_slot_survive() {
    for life in [Life::HandedOver, Life::Dies] {
        with_successors(2, life, async |pool| {
            let before = when(pool, "all serve", |status| is_calm(status, 2)).await;
            pool.break_code(true);
            kill(before.slots[1].workers[0].pid);
            // The pauses become longer than any pool lives.
            let waits = |status: &PoolStatus| status.slots[1].crashes >= 4;
            when(pool, "some have died", waits).await;
            let errored = |status: &PoolStatus| status.slots[1].state == SlotState::BackOff;
            when(pool, "it waits", errored).await;
            pool.break_code(false);
            when(pool, "it serves again", |status| is_calm(status, 2)).await;
        });
    }
}

#[test]
fn a_graceful_stop_goes_on_when_the_pool_dies_and_is_not_handed_over() {
    for life in [Life::HandedOver, Life::Dies] {
        let summary = with_successors(3, life, async |pool| {
            let quick = PoolSettings { lameduck: Duration::from_millis(100), ..pool.release(3) };
            insist(async || pool.handle.reload(Trigger::Command, quick.clone()).await).await;
            let written = |status: &PoolStatus| status.rollout.is_some();
            when(pool, "it is under way", written).await;
            pool.pause_readiness(true);
            let begun = async |pool: &mut Harness| loop {
                pool.handle.stop(false).await;
                if status(pool).await.stopping {
                    return;
                }
            };
            begun(pool).await;
            pool.successors(pool.count_successors() + 3 * u32::from(life == Life::Dies)).await;
            let refused = pool.handle.hand_over().await;
            assert!(matches!(refused, Err(Refusal::Stopping | Refusal::Gone)), "{refused:?}");
            pool.pause_readiness(false);
            pool.ended().await;
        });
        assert_eq!((summary.killed, summary.at_once), (0, false), "{life:?}");
    }
}

#[test]
fn a_drained_slot_stays_so() {
    for life in [Life::HandedOver, Life::Dies] {
        with_successors(2, life, async |pool| {
            insist(async || order(pool, 1, SlotOrder::Drain).await.or_else(already)).await;
            let drained = |status: &PoolStatus| {
                status.slots[1].state == SlotState::Drained && status.slots[1].workers.is_empty()
            };
            when(pool, "it is drained", drained).await;
            let successors = pool.count_successors();
            pool.successors(successors + 3).await;
            assert!(drained(&status(pool).await));
            insist(async || order(pool, 1, SlotOrder::Undrain).await.or_else(already)).await;
            when(pool, "it serves", |status| is_calm(status, 2)).await;
        });
    }
}

/// Whoever asks again hears so.
fn already(refusal: Refusal) -> Result<(), Refusal> {
    if matches!(refusal, Refusal::Already(..)) { Ok(()) } else { Err(refusal) }
}

#[test]
fn a_worker_that_was_started_and_not_written_down_is_found_and_taken() {
    with_successors(2, Life::DiesWhenTold, async |pool| {
        pool.pause_readiness(true);
        let before = pool.written();
        order(pool, 0, SlotOrder::Restart).await.unwrap();
        let both = |status: &PoolStatus| status.slots[0].workers.len() == 2;
        let started = when(pool, "its successor is started", both).await;
        pool.die(Some(before)).await;
        let found = when(pool, "it is found", both).await;
        assert_eq!(workers(&found), workers(&started));
        assert_eq!(found.slots[0].workers[1].pid, started.slots[0].workers[1].pid);
        assert_eq!(found.slots[0].workers[1].phase, "spawning");
        pool.pause_readiness(false);
        let status = when(pool, "it serves", |status| is_calm(status, 2)).await;
        assert_eq!(workers(&status), [worker(0, 1), worker(1, 0)]);
        assert_kept(pool, &status).await;
    });
}

#[test]
fn what_was_done_and_not_written_down_is_found_out() {
    with_successors(2, Life::DiesWhenTold, async |pool| {
        let before = pool.written();
        order(pool, 0, SlotOrder::Restart).await.unwrap();
        assert_eq!(pool.settled().await, (0, None));
        let after = when(pool, "it is replaced", |status| is_calm(status, 2)).await;
        // The next one knows of the first worker, of which nothing is left, and of no other.
        pool.die(Some(before)).await;
        let status = when(pool, "all is well", |status| is_calm(status, 2)).await;
        assert_eq!(workers(&status), workers(&after));
        assert_eq!(status.slots[0].workers[0].pid, after.slots[0].workers[0].pid);
        assert_kept(pool, &status).await;
    });
}

#[test]
fn a_worker_that_nobody_waits_for_ends_and_its_number_is_not_used_again() {
    with_successors(2, Life::DiesWhenTold, async |pool| {
        order(pool, 1, SlotOrder::Drain).await.unwrap();
        let drained = |status: &PoolStatus| status.slots[1].workers.is_empty();
        when(pool, "it is drained", drained).await;
        pool.handle.status().await.unwrap();
        let before = pool.written();
        order(pool, 1, SlotOrder::Undrain).await.unwrap();
        pool.handle.scale(Scale::By(1)).await.unwrap();
        when(pool, "both serve", |status| is_calm(status, 3)).await;
        pool.die(Some(before)).await;
        let status = status(pool).await;
        assert_eq!((status.slots.len(), status.slots[1].state), (2, SlotState::Drained));
        assert_eq!(workers(&status), [worker(0, 0)]);
        assert_kept(pool, &status).await;
        order(pool, 1, SlotOrder::Undrain).await.unwrap();
        pool.handle.scale(Scale::By(1)).await.unwrap();
        let status = when(pool, "both serve again", |status| is_calm(status, 3)).await;
        assert_eq!(workers(&status), [worker(0, 0), worker(1, 2), worker(2, 1)]);
    });
}

#[test]
fn hand_overs_and_deaths_leave_no_descriptor_behind() {
    for life in [Life::HandedOver, Life::Dies] {
        with_successors(2, life, async |pool| {
            let own = std::process::id();
            let count = || std::fs::read_dir(format!("/proc/{own}/fd")).unwrap().count();
            pool.successors(2).await;
            when(pool, "all serve", |status| is_calm(status, 2)).await;
            let mut base = usize::MAX;
            for _ in 0..20 {
                base = base.min(count());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            pool.successors(20).await;
            pool.eventually("as many as before", || count() <= base).await;
        });
    }
}

#[test]
fn it_is_announced_who_goes_on_with_what() {
    with_successors(2, Life::DiesWhenTold, async |pool| {
        pool.die(None).await;
        // The same workers, and none announced again.
        order(pool, 0, SlotOrder::Kill).await.unwrap();
        let next = pool.event("a worker", |event| match event {
            Event::Worker { worker, change: WorkerChange::Killed(_), .. } => Some(*worker),
            Event::Worker { .. } => panic!("announced again: {event:?}"),
            _ => None,
        });
        assert_eq!(next.await, worker(0, 0));
        assert_eq!(pool.serves().await.slot, SlotId(0));
    });
}
