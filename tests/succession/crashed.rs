//! Crashes: the next primary has copies of descriptors and knows what was counted. The rest it learns from
//! the workers.

use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use sticky_lb::internals::link::inherit::AdoptedFacts;
use sticky_lb::internals::link::seam::{SlotCommand, SlotEventKind};
use sticky_lb::protocol::message::{HELLO, PONG, READY, SESSIONS};
use sticky_lb::protocol::scoreboard::{Counter, Scoreboard};

use super::common::client::ends_within;
use super::common::fake_worker::{FakeWorker, FromPrimary};
use super::{Harness, ORDER, PATIENT, are_connected, worker};

const NOT_LONG: Duration = Duration::from_millis(50);

/// The next one, as yet unacknowledged.
fn hear_client(mover: &mut FakeWorker) -> (u64, OwnedFd) {
    match mover.receive() {
        FromPrimary::Client(record, socket) => (record.id.0, socket),
        other => panic!("no client: {other:?}"),
    }
}

/// A slot with a worker, and two of its clients: one has been received, the other hasn't.
async fn two_on_their_way(stage: &mut Harness) -> (FakeWorker, (TcpStream, OwnedFd), TcpStream) {
    let mut mover = stage.start_worker(worker(0, 0), false).await;
    let received = stage.connect(0, 0).await;
    let (id, socket) = hear_client(&mut mover);
    let unread = stage.connect(0, 1).await;
    stage.counts("both have come", |it| it.accepted == 2).await;
    assert_eq!((id, stage.facts().await.slots[0].in_flight), (1, 2));
    (mover, (received, socket), unread)
}

#[tokio::test]
async fn what_was_sent_is_settled_and_nothing_else_is_sent_before() {
    let mut stage = Harness::new(1, PATIENT).await;
    let (mut mover, (mut first, its_socket), mut second) = two_on_their_way(&mut stage).await;
    stage.crash(&[worker(0, 0)]).await;
    let mut third = stage.connect(0, 2).await;
    stage.counts("it has come", |it| it.accepted == 3).await;
    let (id, socket) = hear_client(&mut mover);
    let facts = stage.facts().await;
    assert_eq!((id, facts.slots[0].queued, facts.slots[0].in_flight), (2, 1, 0));
    mover.settle(2);
    are_connected(&mut first, its_socket);
    are_connected(&mut second, socket);
    let (record, socket) = mover.take_client();
    are_connected(&mut third, socket);
    assert_eq!(record.id.0, 3);
    stage.counts("all are acknowledged", |it| it.acknowledged == 3).await;
    assert_eq!((stage.count().await.lost, stage.facts().await.waiting), (0, 0));
    stage.end().await;
}

#[tokio::test]
async fn who_was_accepted_and_not_handed_over_is_lost_and_counted() {
    let mut stage = Harness::new(2, PATIENT).await;
    let mut zero = stage.start_worker(worker(0, 0), false).await;
    let one = stage.start_worker(worker(1, 0), false).await;
    let (_client, _, _socket) = stage.client(&mut zero, 0).await;
    stage.counts("acknowledged", |it| it.acknowledged == 1).await;
    stage.gone(worker(1, 0)).await;
    drop(one);
    let mut unlucky = stage.connect(1, 0).await;
    stage.counts("it has come", |it| it.accepted == 2).await;
    stage.crash(&[worker(0, 0)]).await;
    assert!(ends_within(&mut unlucky, PATIENT));
    assert_eq!(stage.count().await.lost, 0, "not before everybody has answered");
    assert!(zero.receive_within(NOT_LONG).is_none());
    stage.counts("it is counted", |it| (it.lost, it.acknowledged) == (1, 1)).await;
    let (_other, record, _socket) = stage.client(&mut zero, 1).await;
    assert_eq!(record.id.0, 3, "no number is given twice");
    stage.counts("all is well again", |it| (it.lost, it.acknowledged) == (1, 2)).await;
    assert_eq!(stage.facts().await.waiting, 0);
    stage.end().await;
}

#[tokio::test]
async fn what_a_dead_worker_has_not_received_goes_to_the_next() {
    for dies_before in [true, false] {
        let mut stage = Harness::new(1, PATIENT).await;
        let (mover, (mut received, socket), mut unread) = two_on_their_way(&mut stage).await;
        if dies_before {
            stage.bury(worker(0, 0));
            drop((mover, socket));
            stage.crash(&[worker(0, 0)]).await;
        } else {
            stage.crash(&[worker(0, 0)]).await;
            drop((mover, socket));
        }
        stage.gone(worker(0, 0)).await;
        // Only the dead ones had its socket.
        assert!(ends_within(&mut received, PATIENT));
        let mut next = stage.start_worker(worker(0, 1), false).await;
        let (record, socket) = next.take_client();
        assert_eq!(record.id.0, 2);
        are_connected(&mut unread, socket);
        stage.counts("all are accounted for", |it| (it.acknowledged, it.lost) == (1, 1)).await;
        stage.end().await;
    }
}

#[tokio::test]
async fn what_a_dead_worker_has_acknowledged_is_not_lost() {
    let mut stage = Harness::new(1, PATIENT).await;
    let (mut mover, first, _second) = two_on_their_way(&mut stage).await;
    stage.crash(&[worker(0, 0)]).await;
    let second = hear_client(&mut mover);
    mover.settle(2);
    drop((mover, first, second));
    stage.gone(worker(0, 0)).await;
    stage.counts("all are accounted for", |it| (it.acknowledged, it.lost) == (2, 0)).await;
    stage.end().await;
}

#[tokio::test]
async fn who_does_not_answer_stalls_and_others_take_its_clients() {
    let mut stage = Harness::new(2, Duration::from_millis(200)).await;
    let mut other = stage.start_worker(worker(1, 0), false).await;
    let mut hangs = stage.start_worker(worker(0, 0), false).await;
    let mut unread = stage.connect(0, 0).await;
    stage.counts("it has come", |it| it.accepted == 1).await;
    stage.crash(&[worker(0, 0), worker(1, 0)]).await;
    let mut waiting = stage.connect(0, 1).await;
    let mut arrived = Vec::new();
    for _ in 0..2 {
        let (record, socket) = other.take_client();
        arrived.push((record.id.0, socket));
    }
    arrived.sort_unstable_by_key(|(id, _)| *id);
    let [(1, first), (2, second)] = <[_; 2]>::try_from(arrived).unwrap() else {
        panic!("others have come")
    };
    are_connected(&mut unread, first);
    are_connected(&mut waiting, second);
    assert_eq!(stage.count().await.stalls, 1);
    // It is asked again, answers, and is back.
    assert!(hangs.receive_within(NOT_LONG).is_none());
    hangs.say(&PONG);
    while !matches!(stage.frontend.event().await.kind, SlotEventKind::Pong { .. }) {}
    let (_client, _, _socket) = stage.client(&mut hangs, 2).await;
    stage.counts("all are acknowledged", |it| (it.acknowledged, it.lost) == (3, 0)).await;
    stage.end().await;
}

#[tokio::test]
async fn who_was_told_to_drain_by_the_end_of_its_channel_can_be_asked_nothing() {
    let mut stage = Harness::new(1, PATIENT).await;
    let mut old = stage.start_worker(worker(0, 0), false).await;
    let mut unread = stage.connect(0, 0).await;
    stage.counts("it has come", |it| it.accepted == 1).await;
    stage.drain(worker(0, 0)).await;
    stage.crash(&[worker(0, 0)]).await;
    let mut next = stage.start_worker(worker(0, 1), false).await;
    let (_client, _, _socket) = stage.client(&mut next, 1).await;
    let (record, socket) = old.take_client();
    assert_eq!(record.id.0, 1);
    assert!(matches!(old.receive(), FromPrimary::End));
    are_connected(&mut unread, socket);
    stage.counts("all are accounted for", |it| (it.acknowledged, it.lost) == (2, 0)).await;
    // And one that is told so now.
    stage.crash(&[worker(0, 0), worker(0, 1)]).await;
    stage.order(SlotCommand::Drain(worker(0, 1), ORDER)).await;
    assert!(matches!(next.receive(), FromPrimary::End));
    drop(old);
    stage.end().await;
}

#[tokio::test]
async fn what_was_said_before_is_known_or_does_no_harm() {
    let mut stage = Harness::new(2, PATIENT).await;
    let silent = stage.attach(worker(0, 0)).await;
    let begun = stage.attach(worker(1, 0)).await;
    begun.say(&HELLO);
    while !matches!(stage.frontend.event().await.kind, SlotEventKind::Attached) {}
    begun.say(&SESSIONS);
    begun.say(&sticky_lb::protocol::message::encode_session_list(&[]));
    // It has counted without being asked, which only a primary that dies does not mind.
    while !matches!(stage.frontend.event().await.kind, SlotEventKind::Violation(_)) {}
    stage.crash(&[worker(0, 0), worker(1, 0)]).await;
    silent.say(&HELLO);
    silent.say(&READY);
    stage.is_ready(worker(0, 0)).await;
    begun.say(&READY);
    stage.is_ready(worker(1, 0)).await;
    let (mut silent, mut begun) = (silent, begun);
    stage.serve(worker(0, 0)).await;
    stage.serve(worker(1, 0)).await;
    begun.answer(&[], &[]);
    let (_zero, _, _socket) = stage.client(&mut silent, 0).await;
    let (_one, record, socket) = stage.client(&mut begun, 0).await;
    // It is known as one that moves sessions.
    begun.offer(&record, &socket, b"");
    assert_eq!(begun.answers(1), (vec![], vec![record.id.0]));
    stage.end().await;
}

#[tokio::test]
async fn what_was_said_and_not_noted_shows_by_what_is_said_next() {
    let mut stage = Harness::new(1, PATIENT).await;
    let mut mover = stage.start_worker(worker(0, 0), true).await;
    let (_client, record, socket) = stage.client(&mut mover, 0).await;
    stage.counts("acknowledged", |it| it.acknowledged == 1).await;
    mover.board(|board: &Scoreboard| board.set(Counter::Flags, 16));
    stage.crash(&[worker(0, 0)]).await;
    mover.offer(&record, &socket, b"");
    mover.answer(&[record.id.0], &[]);
    assert_eq!(mover.answers(1), (vec![], vec![record.id.0]));
    let (_client, _, _socket) = stage.client(&mut mover, 1).await;
    stage.counts("acknowledged", |it| (it.acknowledged, it.lost) == (2, 0)).await;
    stage.end().await;
}

#[tokio::test]
async fn answers_to_dead_ones_are_no_answers() {
    let mut stage = Harness::new(2, PATIENT).await;
    let mut plain = stage.start_worker(worker(0, 0), false).await;
    let mut able = stage.start_worker(worker(1, 0), true).await;
    stage.order(SlotCommand::Ping(worker(0, 0))).await;
    stage.order(SlotCommand::Ping(worker(1, 0))).await;
    let mut first = stage.connect(0, 0).await;
    let mut second = stage.connect(1, 0).await;
    stage.counts("both have come", |it| it.accepted == 2).await;
    // Crashes follow each other, so that the second of these has asked, too.
    let both = [worker(0, 0), worker(1, 0)];
    stage.crash(&both).await;
    stage.crash(&both).await;
    plain.say(&PONG);
    plain.say(&PONG);
    able.say(&PONG);
    let mut later = [stage.connect(0, 1).await, stage.connect(1, 1).await];
    stage.counts("both have come", |it| it.accepted == 4).await;
    let facts = stage.facts().await;
    assert_eq!(facts.slots.iter().map(|it| it.queued).collect::<Vec<_>>(), [1, 1]);
    let (_, socket) = plain.take_client();
    are_connected(&mut first, socket);
    let (_, socket) = able.take_client();
    are_connected(&mut second, socket);
    let FromPrimary::Resync(dead) = able.receive() else { panic!("no question") };
    able.report(dead, &[77], &[78]);
    let FromPrimary::Resync(number) = able.receive() else { panic!("no question of the last one") };
    assert!(able.receive_within(NOT_LONG).is_none());
    able.report(number, &[], &[]);
    for (client, mover) in later.iter_mut().zip([&mut plain, &mut able]) {
        let (_, socket) = mover.take_client();
        are_connected(client, socket);
    }
    stage.counts("all are acknowledged", |it| (it.acknowledged, it.lost) == (4, 0)).await;
    assert_eq!(stage.count().await.returned, 0, "what was told to the dead one is of no matter");
    stage.end().await;
}

#[tokio::test]
async fn who_refuses_what_a_dead_primary_sent_breaks_nothing() {
    let mut stage = Harness::new(1, PATIENT).await;
    let (mut mover, (_first, _socket), mut second) = two_on_their_way(&mut stage).await;
    stage.crash(&[worker(0, 0)]).await;
    let (id, socket) = hear_client(&mut mover);
    mover.settle(1);
    mover.refuse(sticky_lb::protocol::ids::ConnectionId(id));
    drop(socket);
    assert!(ends_within(&mut second, PATIENT));
    let (_client, _, _socket) = stage.client(&mut mover, 2).await;
    stage.counts("it is counted", |it| (it.acknowledged, it.lost) == (2, 1)).await;
    stage.end().await;
}

#[tokio::test]
async fn what_no_worker_may_say_is_said_to_be_so() {
    let mut stage = Harness::new(1, PATIENT).await;
    let mover = stage.start_worker(worker(0, 0), true).await;
    // Nobody has asked.
    mover.report(7, &[], &[]);
    while !matches!(stage.frontend.event().await.kind, SlotEventKind::Violation(_)) {}
    let mut mover = stage.start_worker(worker(0, 1), true).await;
    let (_client, _, _socket) = stage.client(&mut mover, 0).await;
    stage.crash(&[worker(0, 1)]).await;
    let FromPrimary::Resync(number) = mover.receive() else { panic!("no question") };
    mover.report(number, &(0..300).collect::<Vec<_>>(), &[]);
    while !matches!(stage.frontend.event().await.kind, SlotEventKind::Violation(_)) {}
    // What it has written of settled connections is believed only as far as it can be.
    mover.board(|board| board.add(Counter::Completed, 1_000_000));
    stage.gone(worker(0, 1)).await;
    stage.counts("all are accounted for", |it| (it.acknowledged, it.lost) == (1, 0)).await;
    stage.end().await;
}

#[test]
fn a_channel_of_something_else_is_none() {
    use sticky_lb::internals::handover::descriptors::{Descriptors, RestoreError};
    use sticky_lb::internals::link::Link;
    let id = worker(0, 0);
    let (_mover, channel) = FakeWorker::alone(id);
    let parts = channel.descriptors();
    let facts = AdoptedFacts { credits: 1, ..AdoptedFacts::default() };
    for wrong in 0..3 {
        let mut descriptors = Descriptors::default();
        for (_, (part, fd)) in parts.iter().enumerate().filter(|(number, _)| *number != wrong) {
            descriptors.insert(part.name(id), fd.try_clone_to_owned().unwrap());
        }
        let error = Link::adopt(&facts, id, &mut descriptors).unwrap_err();
        assert!(matches!(error, RestoreError::Missing(_)), "{error}");
    }
    let mut descriptors = Descriptors::default();
    let null = std::fs::File::open("/dev/null").unwrap();
    parts.iter().for_each(|(part, _)| {
        descriptors.insert(part.name(id), null.as_fd().try_clone_to_owned().unwrap());
    });
    let error = Link::adopt(&facts, id, &mut descriptors).unwrap_err();
    assert!(matches!(error, RestoreError::Unusable { .. }), "{error}");
}
