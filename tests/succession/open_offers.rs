//! Sessions whose primary died while they moved: each has one owner.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use sticky_lb::protocol::message::ConnectionRecord;

use super::common::client::ends_within;
use super::common::fake_worker::{FakeWorker, FromPrimary};
use super::{Harness, PATIENT, are_connected, worker};

const NOT_LONG: Duration = Duration::from_millis(50);

type Client = (TcpStream, ConnectionRecord, OwnedFd);

/// Ids are small numbers: all that there may be in a test.
fn guessed() -> Vec<u64> {
    (0..1024).collect()
}

/// Slot 0 changes hands: an old worker that drains, two of its clients, and its successor.
async fn deploy(stage: &mut Harness) -> (FakeWorker, Client, Client, FakeWorker) {
    let mut old = stage.start_worker(worker(0, 0), true).await;
    let first = stage.client(&mut old, 0).await;
    let second = stage.client(&mut old, 1).await;
    stage.counts("acknowledged", |it| it.acknowledged == 2).await;
    let new = stage.start_worker(worker(0, 1), true).await;
    stage.drain(worker(0, 0)).await;
    assert!(matches!(old.receive(), FromPrimary::Drain(_)));
    (old, first, second, new)
}

const BOTH: [sticky_lb::internals::link::seam::WorkerId; 2] = [worker_of(0), worker_of(1)];

const fn worker_of(generation: u32) -> sticky_lb::internals::link::seam::WorkerId {
    use sticky_lb::protocol::ids::{Generation, SlotId};
    sticky_lb::internals::link::seam::WorkerId {
        slot: SlotId(0),
        generation: Generation(generation),
    }
}

async fn is_offered(stage: &Harness, count: u64) {
    let start = std::time::SystemTime::now();
    while stage.facts().await.sessions_waiting < count {
        assert!(start.elapsed().unwrap() < PATIENT, "it is not offered");
    }
}

#[tokio::test]
async fn what_somebody_has_taken_has_moved_and_the_rest_returns() {
    let mut stage = Harness::new(1, PATIENT).await;
    let (mut old, (mut one, a, _socket_a), (mut two, b, socket_b), mut new) =
        deploy(&mut stage).await;
    old.offer(&a, &_socket_a, b"a");
    let (_, arrived, _) = new.receive_session();
    stage.crash(&BOTH).await;
    // Read by this one, and not given on before it knows everything: the next has to ask.
    old.offer(&b, &socket_b, b"b");
    is_offered(&stage, 1).await;
    stage.crash(&BOTH).await;
    let (a, b) = (a.id.0, b.id.0);
    let FromPrimary::Resync(_) = old.receive() else { panic!("no question") };
    old.answer(&[a, b], &[]);
    assert!(old.receive_within(NOT_LONG).is_none(), "not before everybody has reported");
    new.settle(1);
    let FromPrimary::Resync(_) = new.receive() else { panic!("no question") };
    new.answer(&[], &[a]);
    assert_eq!(old.answers(2), (vec![a], vec![b]));
    are_connected(&mut one, arrived);
    are_connected(&mut two, socket_b);
    let counters = stage.count().await;
    assert_eq!((counters.moved, counters.returned, counters.sessions_lost), (1, 1, 0));
    assert_eq!((counters.acknowledged, counters.lost), (2, 0), "sessions are no connections");
    stage.end().await;
}

#[tokio::test]
async fn what_nobody_has_received_is_its_senders() {
    for hangs in [false, true] {
        // Long enough for the other one to answer, on a busy machine, too.
        let patience = if hangs { Duration::from_secs(1) } else { PATIENT };
        let mut stage = Harness::new(1, patience).await;
        let (mut old, (mut client, a, socket), _, new) = deploy(&mut stage).await;
        old.offer(&a, &socket, b"a");
        is_offered(&stage, 1).await;
        stage.crash(&BOTH).await;
        old.answer(&[a.id.0], &[]);
        if hangs {
            // What it had not received is not for it any more.
            stage.counts("it stalls", |it| it.stalls == 1).await;
            assert!(
                old.receive_within(NOT_LONG).is_none(),
                "it may have it as far as anybody knows"
            );
        }
        drop(new);
        stage.gone(worker(0, 1)).await;
        assert_eq!(old.answers(1), (vec![], vec![a.id.0]));
        let mut last = stage.start_worker(worker(0, 2), true).await;
        assert!(last.receive_within(NOT_LONG).is_none(), "one of two is enough");
        are_connected(&mut client, socket);
        let counters = stage.count().await;
        assert_eq!((counters.moved, counters.returned, counters.sessions_lost), (0, 1, 0));
        assert_eq!(stage.facts().await.sessions_waiting, 0);
        stage.end().await;
    }
}

#[tokio::test]
async fn what_was_on_its_way_between_two_that_are_dead_goes_to_the_next() {
    let mut stage = Harness::new(1, PATIENT).await;
    let (old, (mut client, a, socket), (_, b, _), new) = deploy(&mut stage).await;
    old.offer(&a, &socket, b"state");
    is_offered(&stage, 1).await;
    stage.bury(worker(0, 1));
    drop(new);
    stage.crash(&BOTH).await;
    drop((old, socket, b));
    stage.gone(worker(0, 0)).await;
    stage.gone(worker(0, 1)).await;
    let mut last = stage.start_worker(worker(0, 2), true).await;
    let (record, arrived, image) = last.receive_session();
    assert_eq!((record, &image[..]), (a, &b"state"[..]));
    last.settle(1);
    stage.counts("it has moved", |it| it.moved == 1).await;
    are_connected(&mut client, arrived);
    assert_eq!(stage.facts().await.sessions_waiting, 0);
    stage.end().await;
}

#[tokio::test]
async fn what_a_worker_never_had_it_does_not_take_by_saying_so() {
    let mut stage = Harness::new(2, PATIENT).await;
    let mut thief = stage.start_worker(worker(1, 0), true).await;
    let (mut old, (mut client, a, socket), _, mut new) = deploy(&mut stage).await;
    // So that there is something to be learnt of them.
    let _its_own = stage.client(&mut thief, 0).await;
    let _its_own = stage.client(&mut new, 2).await;
    let all = [worker(0, 0), worker(0, 1), worker(1, 0)];
    stage.crash(&all).await;
    // Read by this one, and given to nobody: the next has to ask.
    old.offer(&a, &socket, b"a");
    is_offered(&stage, 1).await;
    stage.crash(&all).await;
    for worker in [&mut old, &mut new, &mut thief] {
        let FromPrimary::Resync(_) = worker.receive() else { panic!("no question") };
    }
    old.answer(&[a.id.0], &[]);
    new.answer(&[], &guessed());
    thief.answer(&[], &guessed());
    assert_eq!(old.answers(1), (vec![], vec![a.id.0]));
    are_connected(&mut client, socket);
    let counters = stage.count().await;
    assert_eq!((counters.moved, counters.returned, counters.sessions_lost), (0, 1, 0));
    stage.end().await;
}

#[tokio::test]
async fn who_offers_what_it_never_had_keeps_it_from_nobody() {
    let mut stage = Harness::new(2, PATIENT).await;
    let mut thief = stage.start_worker(worker(1, 0), true).await;
    let (old, (mut client, a, socket), (_, b, _), new) = deploy(&mut stage).await;
    let _its_own = stage.client(&mut thief, 0).await;
    old.offer(&a, &socket, b"state");
    is_offered(&stage, 1).await;
    stage.bury(worker(0, 1));
    drop(new);
    stage.crash(&[worker(0, 0), worker(0, 1), worker(1, 0)]).await;
    thief.answer(&[a.id.0], &[]);
    drop((old, socket, b));
    stage.gone(worker(0, 0)).await;
    let mut last = stage.start_worker(worker(0, 2), true).await;
    stage.gone(worker(0, 1)).await;
    assert_eq!(thief.answers(1), (vec![], vec![a.id.0]));
    let (record, arrived, image) = last.receive_session();
    assert_eq!((record, &image[..]), (a, &b"state"[..]));
    last.settle(1);
    stage.counts("it has moved", |it| it.moved == 1).await;
    are_connected(&mut client, arrived);
    stage.end().await;
}

#[tokio::test]
async fn what_is_offered_meanwhile_waits_and_goes_on() {
    let mut stage = Harness::new(1, PATIENT).await;
    let (mut old, (mut client, a, socket), _, mut new) = deploy(&mut stage).await;
    // Of one that was never sent anything nothing is to be learnt.
    let _its_own = stage.client(&mut new, 2).await;
    stage.crash(&BOTH).await;
    let FromPrimary::Resync(number) = old.receive() else { panic!("no question") };
    old.offer(&a, &socket, b"a");
    old.report(number, &[a.id.0], &[]);
    is_offered(&stage, 1).await;
    let FromPrimary::Resync(number) = new.receive() else { panic!("no question") };
    assert!(new.receive_within(NOT_LONG).is_none());
    new.report(number, &[], &[]);
    let (_, arrived, _) = new.receive_session();
    new.settle(1);
    assert_eq!(old.answers(1), (vec![a.id.0], vec![]));
    are_connected(&mut client, arrived);
    let counters = stage.count().await;
    assert_eq!((counters.moved, counters.returned), (1, 0), "the report says nothing new of it");
    stage.end().await;
}

#[tokio::test]
async fn who_breaks_the_protocol_is_not_waited_for() {
    let mut stage = Harness::new(1, PATIENT).await;
    let (mut old, (mut client, a, socket), _, mut new) = deploy(&mut stage).await;
    old.offer(&a, &socket, b"a");
    is_offered(&stage, 1).await;
    stage.crash(&BOTH).await;
    old.answer(&[a.id.0], &[]);
    new.say(b"nonsense");
    assert_eq!(old.answers(1), (vec![], vec![a.id.0]));
    assert!(new.receive_within(NOT_LONG).is_none(), "what it had not received was taken back");
    drop(new);
    stage.gone(worker(0, 1)).await;
    are_connected(&mut client, socket);
    stage.end().await;
}

#[tokio::test]
async fn an_upgrade_in_the_middle_of_that_forgets_nothing() {
    let mut stage = Harness::new(1, PATIENT).await;
    let (mut old, (mut one, a, socket_a), (mut two, b, socket_b), mut new) =
        deploy(&mut stage).await;
    old.offer(&a, &socket_a, b"a");
    let (_, arrived, _) = new.receive_session();
    stage.crash(&BOTH).await;
    let FromPrimary::Resync(number) = old.receive() else { panic!("no question") };
    old.report(number, &[a.id.0], &[]);
    old.offer(&b, &socket_b, b"b");
    is_offered(&stage, 1).await;
    let mut waiting = stage.connect(0, 3).await;
    stage.counts("it has come", |it| it.accepted == 3).await;
    stage.hand_over().await;
    old.answer(&[a.id.0, b.id.0], &[]);
    new.settle(1);
    new.answer(&[], &[a.id.0]);
    let (_, also_arrived, client) = loop {
        match new.receive() {
            FromPrimary::Client(_, socket) => {
                new.settle(1);
                are_connected(&mut waiting, socket);
            }
            FromPrimary::Session(record, socket, image) => break (record, socket, image),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(client, b"b");
    new.settle(1);
    let (mut moved, returned) = old.answers(2);
    moved.sort_unstable();
    assert_eq!((moved, returned), (vec![a.id.0, b.id.0], vec![]));
    are_connected(&mut one, arrived);
    are_connected(&mut two, also_arrived);
    stage.end().await;
}

#[tokio::test]
async fn a_client_whose_socket_only_the_dead_had_sees_its_end() {
    let mut stage = Harness::new(1, PATIENT).await;
    let (old, (mut client, a, socket), _, new) = deploy(&mut stage).await;
    old.offer(&a, &socket, b"a");
    is_offered(&stage, 1).await;
    stage.crash(&[]).await;
    drop((old, socket, new));
    drop(std::mem::replace(&mut stage, Harness::new(0, PATIENT).await));
    assert!(ends_within(&mut client, PATIENT));
    stage.end().await;
}
