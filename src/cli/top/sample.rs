//! Snapshots for tests.

use crate::control::report::{Event, Live, Status, TopClient, Worker};

/// A lively primary of so many workers.
pub(super) fn live(workers: u16) -> Live {
    Live {
        time_ms: 0,
        status: status(workers),
        workers: (0..workers).map(worker).collect(),
        events: events(),
    }
}

fn status(workers: u16) -> Status {
    Status {
        name: "shop".to_owned(),
        version: "0.1.0".to_owned(),
        pid: 4_711,
        uptime_s: 11_520.0,
        listening: vec!["0.0.0.0:3000".to_owned()],
        placement: "rendezvous".to_owned(),
        serving: workers,
        workers,
        accepting: true,
        connections: 4_321,
        requests: 17,
        accepts_per_second: 1_234.0,
        handoff_p50_ms: Some(0.081),
        handoff_p99_ms: Some(0.312),
        fallbacks: 12,
        redispatched: 3,
        crashes: 2,
        top_client: Some(TopClient { address: "192.168.100.100".to_owned(), share: 0.12 }),
        ..Status::default()
    }
}

fn worker(slot: u16) -> Worker {
    Worker {
        slot,
        generation: Some(1),
        pid: Some(4_712 + i32::from(slot)),
        state: "serving".to_owned(),
        uptime_s: Some(11_519.0),
        connections: 100 + u64::from(slot),
        handoffs_per_second: 12.3,
        handoff_p50_ms: Some(0.08),
        handoff_p99_ms: Some(0.3),
        memory: Some(123 << 20),
        cpu: Some(12.5),
        share: 0.25,
        ..Worker::default()
    }
}

fn events() -> Vec<Event> {
    let event = |number, kind: &str, text: &str| Event {
        number,
        time_ms: 1_700_000_000_000,
        kind: kind.to_owned(),
        slot: Some(2),
        text: text.to_owned(),
        ..Event::default()
    };
    vec![
        event(1, "worker-ready", "worker ready, 4 of 4 slots serve"),
        event(2, "worker-crashed", "worker crashed after 3.2 s and 12 connections: exit code 1"),
    ]
}
