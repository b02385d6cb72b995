//! The format is what it was, and everything that a pool knows is in it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::protocol::drain::DrainMode;
use crate::protocol::ids::Generation;
use crate::supervisor::autoscale::{AutoscaleSettings, LoadMeasure};
use crate::supervisor::command::{InheritedVariables, User};
use crate::supervisor::lifecycle::{Fact, LifecycleSettings};
use crate::supervisor::limits::{LimitReason, LimitSettings};
use crate::supervisor::pool::handle::Scale;
use crate::supervisor::pool::stats::Crash;
use crate::supervisor::restart::RestartPolicy;
use crate::supervisor::rollout::{Cause, Outcome, RolloutSettings, Trigger};

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
        nice: Some(-3),
    }
}

fn lifecycle() -> LifecycleSettings {
    LifecycleSettings {
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
        workers: 6,
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
fn rich() -> PoolDocument {
    let kinds = [Kind::Current, Kind::Before, Kind::Other(Box::new(command("1")))];
    let slots = (0..).zip(lives()).map(|(number, life)| WrittenSlot {
        slot: SlotId(number),
        life,
        command: kinds[usize::from(number) % 3].clone(),
        candidate: (number == 0).then_some(Kind::Current),
        ranked: number != 3,
    });
    let worker =
        |slot, generation| WorkerId { slot: SlotId(slot), generation: Generation(generation) };
    let running = |slot, killed| WrittenWorker {
        worker: worker(slot, 1),
        pid: 4_711,
        started: at(1),
        jitter: 0.1 + 0.2,
        killed,
    };
    let said = [Said::Hello, Said::Ready, Said::Leave, Said::Violation];
    PoolDocument {
        version: VERSION,
        settings: settings("3"),
        before: Some(settings("2")),
        deferred: Some(Deferred::NOTHING.then(Scale::To(4)).then(Scale::By(-1))),
        slots: slots.collect(),
        running: vec![running(0, None), running(7, Some(KillReason::Stalled))],
        planner: planner(),
        stats: stats(),
        accepting: true,
        stopping: WrittenStopping::LameDuck(at(99)),
        summary: Summary { at_once: false, killed: 1, cut: 2, ..Summary::default() },
        last_failure: Some((SlotId(3), "exited with status 1".to_owned())),
        inherited: vec![17, 4_711],
        unheard: said.into_iter().map(|said| (worker(1, 2), said)).collect(),
    }
}

fn value(document: &PoolDocument) -> Value {
    serde_json::from_slice(&document.encode()).unwrap()
}

#[test]
fn the_format_is_the_one_of_its_version() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let path = format!("{root}/pool-{VERSION}.json");
    let golden = std::fs::read(&path).unwrap_or_default();
    let expected: Value = serde_json::from_slice(&golden).unwrap_or_default();
    let found = value(&rich());
    assert!(
        found == expected,
        "what is written is no longer what {path} says. A primary of the same VERSION could not read \
         it: raise the version, leave that file, and write the new one:\n{found:#}",
    );
    assert_eq!(value(&PoolDocument::decode(&golden).unwrap()), expected);
}

#[test]
fn of_another_version_nothing_else_is_read() {
    for version in [0, 2, u64::MAX] {
        let text = format!(r#"{{"version":{version},"slots":17}}"#);
        let error = PoolDocument::decode(text.as_bytes()).unwrap_err();
        assert!(matches!(error, DocumentError::Version(found) if found == version), "{error}");
    }
    for wrong in ["", "{", "[]", r#"{"version":1}"#] {
        assert!(PoolDocument::decode(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn slots_that_run_the_same_share_it_again() {
    let document = rich();
    let read = PoolDocument::decode(&document.encode()).unwrap();
    let current = read.command(&Kind::Current);
    assert!(Arc::ptr_eq(&current, &read.settings.command));
    assert_eq!(*read.command(&Kind::Before), command("2"));
    assert_eq!(*read.command(&document.slots[2].command), command("1"));
    // Whoever names what isn't there gets what there is.
    let without = PoolDocument { before: None, ..read };
    assert!(Arc::ptr_eq(&without.command(&Kind::Before), &without.settings.command));
}
