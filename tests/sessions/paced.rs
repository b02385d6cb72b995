//! What is done at a pace: permissions to send clients away, and sessions that go home.

use std::time::{Duration, SystemTime};

use sticky_lb::internals::frontend::query::{Client, Rebalanced};
use sticky_lb::internals::link::seam::{SlotCommand, SlotEventKind};
use sticky_lb::internals::sessions::close_requests::PaceSettings;
use sticky_lb::protocol::ids::{AffinityKey, ConnectionId, SlotId};
use sticky_lb::protocol::message::{BATCH, encode_close_request, encode_session_list};

use super::common::client::{connect_from, nth};
use super::common::fake_worker::{FakeWorker, FromPrimary};
use super::{ORDER, client, facts, frontend, order, worker};

const PATIENT: Duration = Duration::from_secs(10);

/// Permissions as they come, until there were so many, and how long that took.
fn closes(mover: &mut FakeWorker, count: u32) -> (Vec<u32>, Duration) {
    let start = SystemTime::now();
    let mut heard = Vec::new();
    while heard.iter().sum::<u32>() < count {
        match mover.receive() {
            FromPrimary::CloseGrant(count) => heard.push(count),
            other => panic!("no permission: {other:?}"),
        }
    }
    (heard, start.elapsed().unwrap())
}

#[tokio::test]
async fn closes_are_granted_one_by_one_over_the_time() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let mut mover = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    order(&frontend, SlotCommand::Drain(worker(0, 0), ORDER)).await;
    assert!(matches!(mover.receive(), FromPrimary::Drain(_)));
    mover.say(&encode_close_request(10, Duration::from_millis(1_000)));
    let (heard, time) = closes(&mut mover, 10);
    // Nine times 90 ms from the first to the last; several come at once where it was late.
    assert!(time >= Duration::from_millis(750), "{heard:?} in {time:?}");
    assert_eq!(heard.iter().sum::<u32>(), 10);
    assert_eq!(frontend.commander.count().await.unwrap().closed, 10);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn all_workers_share_one_rate() {
    let pace = PaceSettings { close_rate: 20.0, ..PaceSettings::default() };
    let mut frontend = frontend(2, PATIENT, pace).await;
    let mut one = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let mut two = FakeWorker::serve(&mut frontend, worker(1, 0), true).await;
    one.say(&encode_close_request(10, Duration::from_secs(60)));
    one.say(&encode_close_request(10, Duration::from_millis(100_000)));
    two.say(&encode_close_request(10, Duration::from_millis(100_000)));
    let (first, _) = closes(&mut one, 1);
    assert_eq!(first, [1]);
    // Asked again with less time: the rate is what limits it.
    one.say(&encode_close_request(10, Duration::from_secs(1)));
    two.say(&encode_close_request(10, Duration::from_secs(1)));
    let ((_, time), (_, more)) = (closes(&mut one, 10), closes(&mut two, 10));
    // 20 in a second at 20 a second, the last at last call.
    let time = time + more;
    assert!(time >= Duration::from_millis(600), "20 at 20 per second in {time:?}");
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn who_is_gone_is_granted_nothing_and_others_all() {
    let pace = PaceSettings { close_rate: 5.0, ..PaceSettings::default() };
    let mut frontend = frontend(2, PATIENT, pace).await;
    let mut gone = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let mut mover = FakeWorker::serve(&mut frontend, worker(1, 0), true).await;
    gone.say(&encode_close_request(u32::MAX, Duration::from_secs(60)));
    closes(&mut gone, 1);
    drop(gone);
    order(&frontend, SlotCommand::Gone(worker(0, 0))).await;
    let before = frontend.commander.count().await.unwrap().closed;
    // Behind the others, which are due every few nanoseconds, it would be its turn at last call.
    mover.say(&encode_close_request(1, Duration::from_secs(60)));
    closes(&mut mover, 1);
    assert_eq!(frontend.commander.count().await.unwrap().closed, before + 1);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn a_rebalance_brings_home_who_is_elsewhere_at_its_pace() {
    let pace = PaceSettings { rebalance_rate: 20.0, ..PaceSettings::default() };
    let mut frontend = frontend(2, PATIENT, pace).await;
    let mut one = FakeWorker::serve(&mut frontend, worker(1, 0), true).await;
    // Slot 0 has no worker: its clients go to slot 1.
    order(&frontend, SlotCommand::GiveUp(SlotId(0))).await;
    let mut guests = Vec::new();
    for address in (0..).map(nth) {
        let told = frontend.handle.explain(Client::Address(address)).await.unwrap();
        if told.ranking[0].slot == SlotId(0) {
            let stream = connect_from(address, frontend.address).unwrap();
            let (record, socket) = one.take_client();
            guests.push((stream, record, socket));
        }
        if guests.len() == 10 {
            break;
        }
    }
    let (_client, at_home, _socket) = client(&frontend, &mut one, 3).await;
    let mut zero = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;

    let asked = tokio::spawn({
        let handle = frontend.handle.clone();
        async move { handle.rebalance().await.unwrap() }
    });
    tokio::task::yield_now().await;
    assert!(matches!(one.receive(), FromPrimary::ListSessions));
    assert!(matches!(zero.receive(), FromPrimary::ListSessions));
    let mut all: Vec<_> = guests.iter().map(|(_, record, _)| (record.id, record.key)).collect();
    all.push((at_home.id, at_home.key));
    one.say(&encode_session_list(&all));
    one.say(&encode_session_list(&[]));
    zero.say(&encode_session_list(&[]));
    assert_eq!(asked.await.unwrap(), Rebalanced { forgotten: 10, sessions: 10 });
    let start = SystemTime::now();
    for _ in 0..10 {
        let FromPrimary::Move(ids) = one.receive() else { panic!("no order to move") };
        let [id] = ids[..] else { panic!("several at once: {ids:?}") };
        let guest = guests.iter().find(|(_, record, _)| record.id.0 == id).unwrap();
        one.offer(&guest.1, &guest.2, b"state");
        assert_eq!(zero.receive_session().0, guest.1);
        zero.settle(1);
        assert_eq!(one.answers(1).0, [id]);
    }
    let time = start.elapsed().unwrap();
    assert!(time >= Duration::from_millis(400), "10 at 20 per second in {time:?}");
    assert_eq!(facts(&frontend).await.rebalance_pending, 0);
    let told = frontend.handle.explain(Client::Key(guests[0].1.key)).await.unwrap();
    assert_eq!((told.target, told.why), (Some(SlotId(0)), None));
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_does_not_count_holds_nobody_up() {
    let pace = PaceSettings { rebalance_rate: 0.001, ..PaceSettings::default() };
    let mut frontend = frontend(2, PATIENT, pace).await;
    let mut zero = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let _silent = FakeWorker::serve(&mut frontend, worker(1, 0), true).await;
    let foreign = (0..).map(AffinityKey);
    let mut away = Vec::new();
    for key in foreign {
        let told = frontend.handle.explain(Client::Key(key)).await.unwrap();
        if told.ranking[0].slot == SlotId(1) {
            away.push((ConnectionId(key.0), key));
        }
        if away.len() == BATCH {
            break;
        }
    }
    let handle = frontend.handle.clone();
    let asked = tokio::spawn(async move { handle.rebalance().await.unwrap() });
    tokio::task::yield_now().await;
    assert!(matches!(zero.receive(), FromPrimary::ListSessions));
    zero.say(&encode_session_list(&away));
    zero.say(&encode_session_list(&[]));
    let rebalanced = asked.await.unwrap();
    assert_eq!(rebalanced, Rebalanced { forgotten: 0, sessions: BATCH as u64 });
    let FromPrimary::Move(ids) = zero.receive() else { panic!("no order to move") };
    assert_eq!(ids, [away[0].0.0]);
    assert_eq!(facts(&frontend).await.rebalance_pending, BATCH as u64 - 1);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn a_session_of_a_connection_that_never_was_is_a_breach() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let mut mover = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let (_client, mut record, socket) = client(&frontend, &mut mover, 0).await;
    record.id = ConnectionId(record.id.0 + 1);
    mover.offer(&record, &socket, b"");
    let SlotEventKind::Violation(error) = frontend.event().await.kind else { panic!("no breach") };
    assert_eq!(error.to_string(), "session 2 is of no connection that was accepted");
    frontend.end().await.unwrap();
}
