//! The format is the one of its version.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::handover::frontend::*;
use crate::handover::link::*;
use crate::handover::output::*;
use crate::handover::pool::*;
use crate::handover::primary::*;
use crate::handover::settings::{DispatchSnapshot, DrainModeSnapshot};
use crate::protocol::ids::{AffinityKey, ConnectionId, Generation, SlotId, Timestamp, WorkerId};

fn worker(slot: u16, generation: u32) -> WorkerId {
    WorkerId { slot: SlotId(slot), generation: Generation(generation) }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp(0) + Duration::from_secs(seconds)
}

fn connection(id: u64, session: Option<SessionSnapshot>) -> ConnectionSnapshot {
    let record = RecordSnapshot {
        id: ConnectionId(id),
        accepted_at: at(7),
        key: AffinityKey(u64::MAX),
        client: "192.0.2.7:40000".parse().unwrap(),
        local: "[2001:db8::1]:3000".parse().unwrap(),
        tag: 42,
    };
    ConnectionSnapshot { record, crashes: 1, session }
}

fn session(inline: Option<&str>) -> SessionSnapshot {
    SessionSnapshot {
        from: SlotId(1),
        sender: Some(worker(1, 2)),
        inline: inline.map(str::to_owned),
        progress: (12, 34),
        failed: vec![SlotId(2)],
    }
}

fn link() -> LinkSnapshot {
    let report = SessionReportSnapshot {
        offers: vec![(ConnectionId(3), at(1), 42)],
        taken: vec![(ConnectionId(4), 43)],
    };
    let pending = PendingSnapshot {
        slot: SlotId(0),
        since: at(1),
        has_reported: true,
        received_since: Some(at(2)),
        counted: 3,
    };
    let order = DrainOrderSnapshot {
        mode: DrainModeSnapshot::Close,
        reason: DrainReasonSnapshot::GoingAway,
        window: Duration::from_millis(1_500),
    };
    let channel = ChannelSnapshot {
        counts: CountsSnapshot { completed: 1, refused: 2, acknowledged: 3 },
        credits: 64,
        handshake: HandshakeSnapshot { hello_received: true, ready: true, takes_sessions: true },
        pings: 4,
        lists: 5,
        offered: vec![ConnectionId(6)],
        outbox: OutboxSnapshot {
            question: Some(QuestionSnapshot::Resync(9)),
            moved: vec![ConnectionId(7)],
            returned: vec![ConnectionId(8)],
            drain: Some(order),
            session_lists: 1,
            moves: vec![ConnectionId(9)],
            close_grants: 2,
        },
        resync: ResyncSnapshot {
            is_lost: true,
            pending: Some(pending),
            asked: Some(9),
            report,
            finishes: true,
        },
        in_flight: vec![
            InFlightSnapshot { id: ConnectionId(10), sent_at: at(3), connection: None },
            InFlightSnapshot {
                id: ConnectionId(11),
                sent_at: at(4),
                connection: Some(connection(11, Some(session(Some("AAEC"))))),
            },
        ],
    };
    LinkSnapshot::Native(Box::new(channel))
}

fn times() -> RecentTimesSnapshot {
    let window = |number| WindowSnapshot { number, times: TimesSnapshot { counts: vec![0, 1] } };
    RecentTimesSnapshot { windows: vec![window(4), window(5)] }
}

fn stats() -> FrontendStatsSnapshot {
    let rate = || RateSnapshot { second: 1, current: 2, last: 3 };
    let client = ClientSnapshot { address: "192.0.2.7".parse().unwrap(), error: 1 };
    FrontendStatsSnapshot {
        accepts: rate(),
        top_client: TopClientSnapshot {
            marks: vec![1],
            counts: vec![2],
            clients: vec![client],
            total: 3,
            half_lives: 4,
            floor: 5,
            hand: 6,
        },
        times: TimesSnapshot { counts: vec![1, 0, 2] },
        total_time: Duration::from_micros(7),
        recent: times(),
        fallback: vec![1, 2],
        slots: vec![FrontendSlotStatsSnapshot {
            handed_off: 1,
            handoffs: rate(),
            recent: times(),
            stalls: 2,
            refused: 3,
            sessions: 4,
        }],
    }
}

fn frontend(counters: CountersSnapshot) -> FrontendSnapshot {
    let request = CloseRequestSnapshot {
        worker: worker(1, 2),
        left: 3,
        due: at(1),
        interval: Duration::from_millis(10),
        last_call: at(2),
    };
    let open_offers = OpenOffersSnapshot {
        pending: vec![worker(0, 1)],
        silent: vec![worker(0, 2)],
        reports: vec![(
            worker(1, 2),
            SessionReportSnapshot { offers: Vec::new(), taken: Vec::new() },
        )],
    };
    FrontendSnapshot {
        listens: true,
        accept_errors: AcceptErrorsSnapshot { named: vec![0, 1], other: 2 },
        links: vec![(worker(1, 2), link())],
        queues: vec![(SlotId(1), vec![connection(12, None)])],
        quarantined: vec![worker(2, 0)],
        stalled: vec![worker(3, 0)],
        counters,
        stats: stats(),
        router: RouterSnapshot {
            spread: SpreadSnapshot { turn: 5 },
            remembered: vec![(AffinityKey(1), SlotId(2), at(3))],
        },
        close_requests: CloseRequestsSnapshot { next: Some(at(1)), requests: vec![request] },
        unroutable: vec![connection(13, None)],
        sessions: vec![connection(14, Some(session(None)))],
        recovery: Some(RecoverySnapshot {
            open_offers,
            held: vec![connection(15, None)],
            is_decided: true,
        }),
        is_counted: true,
        record_key: (8, 9),
    }
}

/// A state with everything in it that there can be; the pool is the one of the pool's own test.
pub(crate) fn sample() -> StateFile {
    let pool: PoolSnapshot =
        decode(&fs::read(sample_path("pool")).unwrap()).expect("the pool's sample");
    let pipe = PipeSnapshot {
        worker: worker(1, 2),
        pid: 4_711,
        stream: StreamSnapshot::Err,
        begun: b"half a li".to_vec(),
        gone: true,
    };
    StateFile {
        primary: PrimarySnapshot {
            started: at(1),
            replacements: ReplacementsSnapshot {
                upgrades: 1,
                recoveries: 2,
                failed_upgrades: 3,
                upgrade_failed: Some("No such file".to_owned()),
            },
            source: Some("workers = 2\n".to_owned()),
            secret: vec![0, 255],
            token: Some("0123456789abcdef".to_owned()),
            control: Some(ControlSocketSnapshot {
                path: "/run/app.sock".into(),
                wanted: None,
                name: "app".to_owned(),
            }),
            admin: Some("127.0.0.1:9000".to_owned()),
            all_ready: true,
            dispatch: DispatchSnapshot::Primary,
            listener: None,
        },
        frontend: frontend(pool.summary.counters.clone()),
        pool,
        output: OutputSnapshot { pipes: vec![pipe], dropped: 9 },
        descriptors: [("channel.1.2".to_owned(), 7), ("listener".to_owned(), 8)].into(),
    }
}

fn value(bytes: &[u8]) -> Value {
    let mut value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    // The release is for people.
    value["release"] = Value::Null;
    value
}

/// The committed file of a part.
fn sample_path(name: &str) -> PathBuf {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"));
    data.join(format!("{name}-{VERSION}.json"))
}

/// Compares with the committed file of this version; `name` is the part's.
pub(crate) fn assert_is_format(name: &str, encoded: &[u8]) {
    let path = sample_path(name);
    if std::env::var_os("WRITE_SAMPLES").is_some() {
        let text = serde_json::to_string_pretty(&value(encoded)).unwrap();
        fs::write(&path, format!("{text}\n").replace("\"release\": null", "\"release\": \"any\""))
            .unwrap();
    }
    let expected = value(&fs::read(&path).unwrap_or_default());
    let found = value(encoded);
    assert!(
        found == expected,
        "the format is no longer that of {path:?}. A primary of the same VERSION could not read it: \
         raise VERSION, leave that file, and write new ones with WRITE_SAMPLES=1:\n{found:#}",
    );
}

#[test]
fn the_format_is_the_one_of_its_version() {
    let state = sample();
    let encoded = encode(&state).unwrap();
    assert_is_format("state", &encoded);
    assert_eq!(decode::<StateFile>(&encoded).unwrap(), state);
}

#[test]
fn a_state_file_comes_back_from_memory_as_it_was() {
    let state = sample();
    let memory = state.to_memory().unwrap();
    assert_eq!(StateFile::from_number(memory.as_raw_fd()).unwrap(), state);
    assert_eq!(StateFile::from_memory(&memory).unwrap(), state);
    assert_eq!(StateFile::from_memory(memory.try_clone().unwrap()).unwrap(), state);
}

#[test]
fn of_another_version_nothing_else_is_read() {
    for found in [0, 2, u64::from(u32::MAX)] {
        let text = format!(r#"{{"version":{found},"release":"9.9.9","state":17}}"#);
        let error = decode::<StateFile>(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("written by sticky-lb 9.9.9"), "{error}");
        assert!(matches!(error, StateError::Version { found: it, .. } if it == found));
    }
    for wrong in [&b""[..], b"{", b"[]", br#"{"version":"1"}"#, br#"{"version":1}"#] {
        assert!(decode::<StateFile>(wrong).is_err());
    }
}
