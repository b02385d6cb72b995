//! Orders to the pool, as the control socket gives them: each is carried out or refused, answered,
//! and what becomes of it is announced.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;
mod snapshot;

use std::time::Duration;

use harness::{Harness, settings, with_pool, worker};
use rustix::process::Signal;
use sticky_lb::internals::supervisor::event::{Event, WorkerChange};
use sticky_lb::internals::supervisor::lifecycle::SlotState;
use sticky_lb::internals::supervisor::pool::handle::{Refusal, Scale, Scaled, SlotOrder};
use sticky_lb::internals::supervisor::pool::{Order, PoolSettings};
use sticky_lb::internals::supervisor::rollout::{Outcome, Trigger};
use sticky_lb::protocol::ids::SlotId;

async fn order(pool: &Harness, slot: u16, order: SlotOrder) -> Result<(), Refusal> {
    pool.handle.slot(SlotId(slot), order).await
}

/// Orders a drain and waits until it is done.
async fn drain(pool: &mut Harness, slot: u16) {
    order(pool, slot, SlotOrder::Drain).await.unwrap();
    pool.event("the slot is drained", |event| match event {
        Event::Slot { slot: found, state: SlotState::Drained, .. } if found.0 == slot => Some(()),
        _ => None,
    })
    .await;
}

fn count(counts: &[(&'static str, u64)], word: &str) -> u64 {
    counts.iter().find(|(found, _)| *found == word).unwrap().1
}

fn total(counts: &[(&'static str, u64)]) -> u64 {
    counts.iter().map(|(_, count)| count).sum()
}

#[test]
fn a_drained_slot_gives_its_clients_to_others_until_it_is_undrained() {
    with_pool(3, async |pool| {
        pool.forget_told();
        pool.pause_readiness(true);
        order(pool, 1, SlotOrder::Drain).await.unwrap();
        let reason = pool.event("it drains", |event| match event {
            Event::Worker { worker: found, change: WorkerChange::Draining(reason), .. } => {
                assert_eq!(*found, worker(1, 0));
                Some(*reason)
            }
            _ => None,
        });
        assert_eq!(reason.await, "its slot is drained");
        // Nobody waits for its end, and it stays in all rankings.
        assert_eq!(pool.told(2).await, ["drain 1.0: migrate 1012 30", "give up 1"]);
        let slot = pool.slot(1).await;
        assert_eq!((slot.state, slot.workers[0].phase), (SlotState::Drained, "draining"));
        let counted = pool.worker("its WebSockets are counted", 1, |it| it.websockets > 0).await;
        assert_eq!((counted.websockets, counted.sessions), (3, 2));
        pool.pause_readiness(false);
        assert_eq!(pool.gone().await, (1, "exited with status 0".to_owned(), false));
        let drained =
            |event: &Event| matches!(event, Event::Slot { state: SlotState::Drained, .. });
        pool.event("it is drained", |event| drained(event).then_some(())).await;
        let status = pool.status().await;
        assert_eq!((status.serving, status.of, total(&status.crashes)), (2, 3, 0));
        let slot = pool.slot(1).await;
        assert_eq!((slot.state, slot.workers.len(), slot.started), (SlotState::Drained, 0, 1));
        assert_eq!(slot.connections_total, 5, "those who are gone keep counting");
        let already = Refusal::Already(SlotId(1), "drained");
        assert_eq!(order(pool, 1, SlotOrder::Drain).await, Err(already));
        assert_eq!(order(pool, 1, SlotOrder::Restart).await, Err(Refusal::Drained(SlotId(1))));
        assert_eq!(order(pool, 1, SlotOrder::Kill).await, Err(Refusal::NoWorker(SlotId(1))));

        order(pool, 1, SlotOrder::Undrain).await.unwrap();
        assert_eq!(pool.serves().await, worker(1, 1));
        let already = Refusal::Already(SlotId(1), "serving");
        assert_eq!(order(pool, 1, SlotOrder::Undrain).await, Err(already));
        assert_eq!(pool.slot(1).await.started, 2);
    });
}

#[test]
fn the_last_slot_that_serves_is_not_drained_and_drained_ones_keep_the_primary_alive() {
    with_pool(2, async |pool| {
        drain(pool, 0).await;
        assert_eq!(order(pool, 1, SlotOrder::Drain).await, Err(Refusal::LastServing(SlotId(1))),);
        let no_slot = order(pool, 7, SlotOrder::Undrain).await.unwrap_err();
        assert_eq!(no_slot.to_string(), "there is no slot 7: slots are 0 to 1");
        // Nobody is left, but one that an operator may want back.
        pool.pause_readiness(true);
        order(pool, 1, SlotOrder::Kill).await.unwrap();
        pool.gone().await;
        drain(pool, 1).await;
        assert_eq!(pool.status().await.serving, 0);
        pool.pause_readiness(false);
        order(pool, 1, SlotOrder::Undrain).await.unwrap();
        assert_eq!(pool.serves().await.slot, SlotId(1));
    });
}

#[test]
fn an_ordered_restart_is_settled_well_or_not() {
    with_pool(2, async |pool| {
        order(pool, 1, SlotOrder::Restart).await.unwrap();
        assert_eq!(pool.settled().await, (1, None));
        assert_eq!(pool.gone().await, (1, "exited with status 0".to_owned(), false));
        pool.break_code(true);
        order(pool, 1, SlotOrder::Restart).await.unwrap();
        let (slot, reason) = pool.settled().await;
        assert_eq!((slot, reason.as_deref()), (1, Some("exited with status 3")));
        assert_eq!(pool.slot(1).await.last_failure, reason);
        pool.break_code(false);
        // That it failed a moment ago is known to whoever orders it again.
        order(pool, 1, SlotOrder::Restart).await.unwrap();
        assert_eq!(pool.settled().await, (1, None));
        let status = pool.status().await;
        assert_eq!(count(&status.replacements, "ordered"), 2);
        assert_eq!((count(&status.crashes, "exited"), total(&status.crashes)), (1, 1));
    });
}

#[test]
fn an_ordered_restart_that_comes_to_nothing_is_told_whatever_came_between() {
    with_pool(3, async |pool| {
        pool.pause_readiness(true);
        // The second waits for the first.
        order(pool, 1, SlotOrder::Restart).await.unwrap();
        order(pool, 2, SlotOrder::Restart).await.unwrap();
        order(pool, 1, SlotOrder::Drain).await.unwrap();
        assert_eq!(pool.settled().await, (1, Some("its slot is drained".to_owned())));
        pool.pause_readiness(false);
        assert_eq!(pool.settled().await, (2, None));
        pool.pause_readiness(true);
        order(pool, 2, SlotOrder::Restart).await.unwrap();
        pool.handle.scale(Scale::To(2)).await.unwrap();
        assert_eq!(pool.settled().await, (2, Some("its slot is removed".to_owned())));
        order(pool, 0, SlotOrder::Restart).await.unwrap();
        pool.handle.stop(false).await;
        assert_eq!(pool.settled().await, (0, Some("everything ends".to_owned())));
        assert_eq!(order(pool, 0, SlotOrder::Restart).await, Err(Refusal::Stopping));
        assert_eq!(pool.handle.scale(Scale::To(1)).await, Err(Refusal::Stopping));
        let reloaded = pool.handle.reload(Trigger::Command, settings(2, &pool.directory));
        assert_eq!(reloaded.await, Err(Refusal::Stopping));
    });
}

#[test]
fn a_drain_in_the_middle_of_a_replacement_settles_it() {
    with_pool(2, async |pool| {
        pool.pause_readiness(true);
        order(pool, 1, SlotOrder::Restart).await.unwrap();
        order(pool, 1, SlotOrder::Drain).await.unwrap();
        assert_eq!(pool.settled().await, (1, Some("its slot is drained".to_owned())));
        pool.pause_readiness(false);
        pool.event("it is drained", |event| match event {
            Event::Slot { state: SlotState::Drained, .. } => Some(()),
            _ => None,
        })
        .await;
        assert_eq!(total(&pool.status().await.crashes), 0);
    });
}

#[test]
fn a_killed_worker_is_followed_and_counted_as_one_that_crashed() {
    with_pool(1, async |pool| {
        order(pool, 0, SlotOrder::Kill).await.unwrap();
        assert_eq!(pool.gone().await, (0, "was killed by command".to_owned(), true));
        assert_eq!(pool.serves().await, worker(0, 1));
        order(pool, 0, SlotOrder::Signal(Signal::USR2)).await.unwrap();
        let reason = format!("was killed by signal {}", Signal::USR2.as_raw());
        assert_eq!(pool.gone().await, (0, reason, true));
        pool.serves().await;
        let status = pool.status().await;
        assert_eq!(count(&status.crashes, "ordered"), 1);
        assert_eq!((count(&status.crashes, "signal"), total(&status.crashes)), (1, 2));
        let slot = pool.slot(0).await;
        assert_eq!((slot.crashes, slot.started), (2, 3));
    });
}

#[test]
fn a_rolling_restart_leaves_drained_slots_alone_and_goes_on_when_one_is_drained() {
    with_pool(4, async |pool| {
        drain(pool, 0).await;
        pool.pause_readiness(true);
        let number = pool.handle.reload(Trigger::Command, pool.release(4)).await.unwrap();
        let rollout = pool.status().await.rollout.unwrap();
        assert_eq!((number, rollout.number, rollout.replaced, rollout.of), (1, 1, 0, 3));
        assert_eq!(rollout.trigger, "command");
        assert_eq!(rollout.under_way, [(SlotId(1), "its new worker to be ready")]);
        // The next one's number is that of the one that takes its place.
        for _ in 0..2 {
            let again = pool.handle.reload(Trigger::Command, pool.release(4)).await;
            assert_eq!(again, Ok(2));
        }
        order(pool, 1, SlotOrder::Drain).await.unwrap();
        pool.pause_readiness(false);
        assert_eq!(pool.settled().await, (1, Some("its slot is drained".to_owned())));
        let first = pool.rolled_out().await;
        assert_eq!((first.number, first.outcome, first.replaced), (1, Outcome::Superseded, 0));
        // Filled while the second one is under way, and replaced by it.
        order(pool, 0, SlotOrder::Undrain).await.unwrap();
        let second = pool.rolled_out().await;
        assert_eq!((second.outcome, second.replaced, second.of), (Outcome::Done, 3, 3));
        assert!(pool.is_new(0).await && pool.is_new(2).await && pool.is_new(3).await);
        assert_eq!(pool.slot(1).await.state, SlotState::Drained);
        order(pool, 1, SlotOrder::Undrain).await.unwrap();
        pool.serves().await;
        assert!(pool.is_new(1).await);
        let status = pool.status().await;
        assert_eq!(
            status.rollouts,
            [("done", 1), ("aborted", 0), ("superseded", 1), ("stopped", 0)]
        );
        assert_eq!((status.rollout, total(&status.replacements)), (None, 0));
    });
}

#[test]
fn what_is_undrained_after_a_rolling_restart_that_failed_runs_what_worked() {
    with_pool(2, async |pool| {
        drain(pool, 0).await;
        pool.break_code(true);
        pool.handle.reload(Trigger::Command, pool.release(2)).await.unwrap();
        let report = pool.rolled_out().await;
        assert!(matches!(report.outcome, Outcome::Aborted(SlotId(1), _)), "{report:?}");
        pool.break_code(false);
        order(pool, 0, SlotOrder::Undrain).await.unwrap();
        assert_eq!(pool.serves().await.slot, SlotId(0));
        assert!(!pool.is_new(0).await);
    });
}

#[test]
fn a_drain_that_the_end_overtakes_is_reported_too() {
    with_pool(2, async |pool| {
        pool.forget_told();
        pool.pause_readiness(true);
        order(pool, 1, SlotOrder::Drain).await.unwrap();
        assert_eq!(pool.told(2).await, ["drain 1.0: migrate 1012 30", "give up 1"]);
        // Without it, the backlog is handed out for a while.
        let quick = PoolSettings { lameduck: Duration::ZERO, ..pool.release(2) };
        pool.handle.reload(Trigger::Command, quick).await.unwrap();
        pool.handle.stop(false).await;
        let told = pool.told(4).await;
        assert_eq!(told[2..4], ["drain 0.0: close 1001 10", "drain 1.0: close 1001 10"]);
        pool.pause_readiness(false);
    });
}

#[test]
fn scaling_is_answered_with_what_comes_of_it() {
    with_pool(2, async |pool| {
        let scaled = |from, to, deferred| Ok(Scaled { from, to, deferred });
        assert_eq!(pool.handle.scale(Scale::By(1)).await, scaled(2, 3, false));
        let who = async |pool: &mut Harness| {
            let scaled = |event: &Event| match event {
                Event::Scaled { from, to, by } => Some((*from, *to, *by)),
                _ => None,
            };
            pool.event("it is scaled", scaled).await
        };
        assert_eq!(who(pool).await, (2, 3, "command"));
        assert_eq!(pool.handle.scale(Scale::To(3)).await, scaled(3, 3, false));
        for (scale, count) in [(Scale::By(-3), 0), (Scale::To(0), 0), (Scale::To(1_025), 1_025)] {
            let refused = pool.handle.scale(scale).await;
            assert_eq!(refused, Err(Refusal::OutOfRange(count, 1, 1_024)));
        }
        // Whoever signals hears nothing: it is done as far as it goes.
        pool.handle.order(Order::Scale(Scale::By(-9), None)).await;
        assert_eq!(who(pool).await, (3, 1, "signal"));

        pool.pause_readiness(true);
        // A reload with the number of before keeps what was ordered.
        pool.handle.reload(Trigger::Command, pool.release(2)).await.unwrap();
        assert_eq!(pool.handle.scale(Scale::By(1)).await, scaled(1, 2, true));
        assert_eq!(pool.handle.scale(Scale::To(4)).await, scaled(2, 4, true));
        assert_eq!(pool.handle.scale(Scale::By(-1)).await, scaled(4, 3, true));
        // A reload with another number takes that one.
        pool.handle.reload(Trigger::Command, pool.release(5)).await.unwrap();
        assert_eq!(pool.handle.scale(Scale::By(2)).await, scaled(5, 7, true));
        let refused = pool.handle.scale(Scale::By(-7)).await;
        assert_eq!(refused, Err(Refusal::OutOfRange(0, 1, 1_024)));
        pool.pause_readiness(false);
        assert_eq!(who(pool).await, (1, 5, "reload"));
        assert_eq!(who(pool).await, (5, 7, "command"));
    });
}
