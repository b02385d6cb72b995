//! Everything that a pool knows is in its snapshot, and comes back from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::handover::pool::WorkerMessageSnapshot;
use crate::handover::{Carry, assert_is_format, decode, encode};
use crate::link::interface::{Dispatch, Interface, InterfaceChoice};

use crate::link::node::settings::{HandOverBy, NodeSettings, TicketKeys};
use crate::protocol::drain::DrainMode;
use crate::protocol::ids::Generation;
use crate::supervisor::autoscale::{AutoscaleSettings, LoadMeasure};
use crate::supervisor::command::{InheritedVariables, User};
use crate::supervisor::ended::EndedConnections;
use crate::supervisor::lifecycle::{Fact, LifecycleSettings};
use crate::supervisor::limits::{LimitReason, LimitSettings};
use crate::supervisor::pool::handle::Scale;
use crate::supervisor::pool::stats::{Crash, Stats};
use crate::supervisor::restart::RestartPolicy;
use crate::supervisor::rollout::planner::Planner;
use crate::supervisor::rollout::{Cause, Outcome, RolloutSettings, Trigger};
use crate::supervisor::slot_life::SlotLife;

fn at(seconds: u64) -> Timestamp {
    Timestamp(0) + Duration::from_secs(seconds)
}

fn command(release: &str) -> WorkerCommand {
    WorkerCommand {
        program: "node".into(),
        arguments: vec!["server.js".into(), release.into()],
        directory: Some("/srv/app".into()),
        environment: vec![("NODE_ENV".into(), "production".into())],
        inherited: InheritedVariables::Without(vec!["AWS_".to_owned()]),
        user: Some(User {
            name: Some("www".to_owned()),
            home: Some("/srv".into()),
            uid: 33,
            gid: 33,
            groups: vec![33, 4],
        }),
        umask: Some(0o27),
        no_new_privs: true,
        drop_capabilities: false,
        nice: Some(-3),
    }
}

fn lifecycle() -> LifecycleSettings {
    LifecycleSettings {
        signal_drain_timeout: Duration::from_secs(7),
        signal_at_once: false,
        listen_timeout: Duration::from_secs(3),
        kill_timeout: Duration::from_secs(10),
        drain_timeout: Duration::from_secs(60),
        drain: DrainMode::Migrate,
        max_draining: 2,
        spare: true,
        restart: RestartPolicy { stop_exit_codes: vec![0, 3], ..RestartPolicy::DEFAULT },
    }
}

fn settings(release: &str) -> PoolSettings {
    PoolSettings {
        interface: InterfaceChoice::Only(Interface::Node),
        dispatch: Dispatch::Primary,
        node: Arc::new(NodeSettings {
            wait_ready: true,
            hand_over_by: HandOverBy::Message("\"x\"".to_owned()),
            shutdown_message: Some("\"shutdown\"".to_owned()),
            ticket_keys: TicketKeys::restore("00ff".to_owned()),
        }),
        stop_signal: 2,
        workers: 6,
        configured_workers: 5,
        weights: vec![1.0, 0.1 + 0.2],
        command: Arc::new(command(release)),
        port: 3000,
        credits: 64,
        slot_wait: Duration::from_millis(1_500),
        wait_ready: true,
        lifecycle: lifecycle(),
        rollout: RolloutSettings { parallel: 2, max_draining_memory: Some(1 << 30) },
        autoscale: Some(AutoscaleSettings {
            min_workers: 2,
            max_workers: 8,
            measure: LoadMeasure::Cpu,
            scale_up_load: 70.5,
            scale_down_load: 20.0,
            interval: Duration::from_secs(5),
            scale_down_after: Duration::from_secs(300),
        }),
        contiguous: true,
        limits: LimitSettings {
            max_memory_restart: Some(300 << 20),
            max_memory_kill: None,
            max_age: Some(Duration::from_secs(3_600)),
            max_connections_served: Some(u64::MAX),
        },
        watchdog_timeout: Some(Duration::from_secs(30)),
        orphan_timeout: Duration::from_secs(60),
        heartbeat: None,
        protect: true,
        migrate_timeout: Duration::from_secs(5),
        lameduck: Duration::ZERO,
    }
}

/// A slot of which these became true, one after the other, a second apart.
fn life(facts: &[Fact]) -> SlotLife {
    let mut life = SlotLife::new(lifecycle());
    for (second, fact) in (0..).zip(facts) {
        life.on(*fact, at(second));
    }
    life
}

fn lives() -> Vec<SlotLife> {
    use Fact::{Drain, Ready, Remove, Replace, Stalled, Start, Time};
    let g = Generation;
    let died =
        |generation| Fact::Exited { generation: g(generation), status: Some(1), jitter: 0.3 };
    let stopped = Fact::Exited { generation: g(0), status: Some(3), jitter: 0.0 };
    let kill = Fact::Kill(g(0), KillReason::Memory);
    vec![
        // Standing by for its successor, which serves.
        life(&[Start, Ready(g(0)), Replace, Ready(g(1))]),
        // Draining, and a successor that is being started.
        life(&[Start, Ready(g(0)), Replace, Ready(g(1)), Time, Time, Replace]),
        // With a spare.
        life(&[Start, Ready(g(0)), Time, Time, Ready(g(1))]),
        // Waiting for its next worker.
        life(&[Start, died(0)]),
        life(&[Start, Ready(g(0)), Time, stopped]),
        life(&[Start, Ready(g(0)), Drain]),
        life(&[Start, Ready(g(0)), Remove]),
        // Stalled; killed.
        life(&[Start, Ready(g(0)), Stalled(g(0))]),
        life(&[Start, Ready(g(0)), kill]),
    ]
}

fn planner() -> Planner {
    let mut planner = Planner::default();
    let parallel = RolloutSettings { parallel: 2, max_draining_memory: None };
    let limit = LimitReason::Age { age: Duration::from_secs(9), limit: Duration::from_secs(8) };
    planner.want(SlotId(5), Cause::Limit(limit), at(1));
    planner.steps(&parallel);
    planner.failed(SlotId(5), "failed", at(2));
    planner
        .begin(Trigger::Watch(PathBuf::from("/srv/app/server.js")), (0..6).map(SlotId).collect());
    planner.steps(&parallel);
    planner.replaced(SlotId(0));
    planner.steps(&parallel);
    planner.order(SlotId(4));
    planner.want(SlotId(6), Cause::Asked, at(3));
    planner.begin(Trigger::Cron, vec![SlotId(0), SlotId(1)]);
    planner
}

fn stats() -> Stats {
    let mut stats = Stats::default();
    stats.started(SlotId(1));
    stats.crashed(SlotId(1), Crash::Killed(KillReason::Stalled), "stood still");
    stats.exited(SlotId(1), 17, 4);
    stats.replaced(Cause::Ordered);
    stats.rolled_out(&Outcome::Superseded);
    stats
}

/// With every kind of thing that there can be in it.
fn rich() -> PoolSnapshot {
    let commands = || {
        let other = Box::new(command("1").snapshot());
        [CommandSnapshot::Current, CommandSnapshot::Before, CommandSnapshot::Other(other)]
    };
    let slots = (0..).zip(lives()).map(|(number, life)| SlotSnapshot {
        slot: SlotId(number),
        life: life.snapshot(),
        command: commands()[usize::from(number) % 3].clone(),
        candidate: (number == 0).then_some(CommandSnapshot::Current),
        ranked: number != 3,
    });
    let worker =
        |slot, generation| WorkerId { slot: SlotId(slot), generation: Generation(generation) };
    let running = |slot, killed| WorkerRecord {
        worker: worker(slot, 1),
        pid: 4_711,
        started: at(1),
        jitter: 0.1 + 0.2,
        killed,
    };
    let running = vec![running(0, None), running(7, Some(KillReason::Stalled))];
    let messages = [
        WorkerMessageSnapshot::Hello,
        WorkerMessageSnapshot::Ready,
        WorkerMessageSnapshot::Leave,
        WorkerMessageSnapshot::Violation,
    ];
    let ended =
        EndedConnections { open: 15, finished: 1, migrated: 2, closed: 3, protected: 4, cut: 5 };
    let deferred = Deferred::NOTHING.then(Scale::To(4)).then(Scale::By(-1));
    PoolSnapshot {
        settings: settings("3").snapshot(),
        before: Some(settings("2").snapshot()),
        deferred: Some(deferred.snapshot()),
        slots: slots.collect(),
        running: running.snapshot(),
        planner: planner().snapshot(),
        stats: stats().snapshot(),
        accepting: true,
        stopping: StoppingSnapshot::LameDuck(at(99)),
        summary: Summary { killed: 1, ended, ..Summary::default() }.snapshot(),
        last_failure: Some((SlotId(3), "exited with status 1".to_owned())),
        inherited: vec![17, 4_711],
        unheard: messages.into_iter().map(|message| (worker(1, 2), message)).collect(),
    }
}

#[test]
fn the_format_is_the_one_of_its_version() {
    let snapshot = rich();
    let encoded = encode(&snapshot).unwrap();
    assert_is_format("pool", &encoded);
    assert_eq!(decode::<PoolSnapshot>(&encoded).unwrap(), snapshot);
}

/// There and back again: whatever is lost on the way would be missing the second time.
fn again<T: Carry>(snapshot: &T::Snapshot) -> T::Snapshot
where
    T::Snapshot: Clone,
{
    T::restore(snapshot.clone()).snapshot()
}

#[test]
fn nothing_is_lost_on_the_way() {
    let rich = rich();
    assert_eq!(again::<PoolSettings>(&rich.settings), rich.settings);
    assert_eq!(again::<Option<PoolSettings>>(&rich.before), rich.before);
    assert_eq!(again::<Option<Deferred>>(&rich.deferred), rich.deferred);
    assert_eq!(again::<Vec<WorkerRecord>>(&rich.running), rich.running);
    assert_eq!(again::<Planner>(&rich.planner), rich.planner);
    assert_eq!(again::<Stats>(&rich.stats), rich.stats);
    assert_eq!(again::<Summary>(&rich.summary), rich.summary);
    for slot in rich.slots {
        assert_eq!(again::<SlotLife>(&slot.life), slot.life);
    }
}

#[test]
fn slots_that_run_the_same_share_it_again() {
    let snapshot = rich();
    let settings = RestoredSettings {
        current: Carry::restore(snapshot.settings),
        before: Carry::restore(snapshot.before),
    };
    let current = settings.command(CommandSnapshot::Current);
    assert!(Arc::ptr_eq(&current, &settings.current.command));
    assert_eq!(*settings.command(CommandSnapshot::Before), command("2"));
    assert_eq!(*settings.command(snapshot.slots[2].command.clone()), command("1"));
    // A command that is named and missing is the current one.
    let without = RestoredSettings { before: None, ..settings };
    assert!(Arc::ptr_eq(&without.command(CommandSnapshot::Before), &without.current.command));
}
