//! Upgrades: the next frontend has everything that the one before had.

use std::time::Duration;

use sticky_lb::internals::frontend::query::Client;
use sticky_lb::internals::link::seam::{SlotCommand, SlotEventKind};
use sticky_lb::protocol::ids::SlotId;
use sticky_lb::protocol::message::encode_close_request;

use super::common::client::connect_from;
use super::common::fake_worker::{FakeWorker, FromPrimary, parcel_file, sealed};
use super::{Harness, ORDER, PATIENT, are_connected, worker};

#[tokio::test]
async fn what_was_counted_measured_and_remembered_goes_on() {
    let mut stage = Harness::new(2, PATIENT).await;
    let mut one = stage.start_worker(worker(1, 0), false).await;
    stage.order(SlotCommand::GiveUp(SlotId(0))).await;
    // It has nobody at home, and is remembered where it went.
    let away = stage.nth_of(0, 0).await;
    let _guest = connect_from(away, stage.frontend.address).unwrap();
    let (first, _socket) = one.take_client();
    stage.counts("acknowledged", |it| it.acknowledged == 1).await;
    let before = stage.facts().await;

    stage.hand_over().await;
    let _zero = stage.start_worker(worker(0, 0), false).await;
    let after = stage.facts().await;
    assert_eq!(after.counters, before.counters);
    assert_eq!((after.fallback, after.handoff_times), (before.fallback, before.handoff_times));
    assert_eq!((after.handoff_total, after.top_client), (before.handoff_total, before.top_client));
    assert_eq!(after.slots[1].handed_off, 1);
    let told = stage.frontend.handle.explain(Client::Address(away)).await.unwrap();
    assert_eq!((told.ranking[0].slot, told.target), (SlotId(0), Some(SlotId(1))));
    let _again = connect_from(away, stage.frontend.address).unwrap();
    let (second, _socket) = one.take_client();
    assert_eq!((first.id.0, second.id.0), (1, 2), "no number is given twice");
    stage.end().await;
}

#[tokio::test]
async fn clients_that_wait_and_clients_on_their_way_arrive() {
    let mut stage = Harness::new(2, PATIENT).await;
    let mut zero = stage.start_worker(worker(0, 0), false).await;
    let mut one = stage.start_worker(worker(1, 0), false).await;
    stage.gone(worker(1, 0)).await;
    drop(one);
    let mut received = stage.connect(0, 0).await;
    let FromPrimary::Client(of_received, its_socket) = zero.receive() else { panic!("no client") };
    let mut unread = stage.connect(0, 1).await;
    let mut waiting = stage.connect(1, 0).await;
    stage.counts("all have come", |it| it.accepted == 3).await;
    assert_eq!(stage.facts().await.slots[1].queued, 1);

    stage.hand_over().await;
    let facts = stage.facts().await;
    assert_eq!((facts.waiting, facts.slots[0].in_flight, facts.slots[1].queued), (3, 2, 1));
    let FromPrimary::Client(of_unread, socket) = zero.receive() else { panic!("no client") };
    zero.settle(2);
    are_connected(&mut received, its_socket);
    are_connected(&mut unread, socket);
    one = stage.start_worker(worker(1, 1), false).await;
    let (of_waiting, socket) = one.take_client();
    are_connected(&mut waiting, socket);
    let ids = [of_received, of_unread, of_waiting].map(|record| record.id.0);
    assert_eq!(ids, [1, 2, 3]);
    stage.counts("acknowledged", |it| it.acknowledged == 3 && it.lost == 0).await;
    assert_eq!(stage.count().await.fallbacks, 0, "everybody stays in his slot");
    stage.end().await;
}

/// Slot 0 has changed hands: an old worker that drains, and its successor.
async fn deploy(stage: &mut Harness) -> (FakeWorker, FakeWorker) {
    let mut old = stage.start_worker(worker(0, 0), true).await;
    // It is another frontend's by then.
    stage.hand_over().await;
    old.answer(&[], &[]);
    let new = stage.start_worker(worker(0, 1), true).await;
    stage.order(SlotCommand::Drain(worker(0, 0), ORDER)).await;
    assert!(matches!(old.receive(), FromPrimary::Drain(_)));
    (old, new)
}

#[tokio::test]
async fn sessions_offered_on_their_way_and_refused_have_one_end() {
    let mut stage = Harness::new(1, PATIENT).await;
    let (mut old, mut new) = deploy(&mut stage).await;
    let mut sessions = Vec::new();
    for n in 0..4 {
        let client = stage.connect(0, n).await;
        let (record, socket) = new.take_client();
        sessions.push((client, record, socket));
    }
    // What the successor has got it gives on to the next.
    let mut last = stage.start_worker(worker(0, 2), true).await;
    stage.order(SlotCommand::Drain(worker(0, 1), ORDER)).await;
    assert!(matches!(new.receive(), FromPrimary::Drain(_)));
    let ids: Vec<_> = sessions.iter().map(|(_, record, _)| record.id.0).collect();
    let long: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for (n, (_, record, socket)) in sessions.iter().enumerate().take(3) {
        if n == 1 {
            new.offer_file(record, socket, &parcel_file(&long, sealed()));
        } else {
            new.offer(record, socket, &[7; 3]);
        }
    }
    // One is received, one is unread, one is refused and on its way back.
    let (_, first, image) = last.receive_session();
    assert_eq!(image, [7; 3]);
    let start = std::time::SystemTime::now();
    while stage.facts().await.sessions_waiting < 3 {
        assert!(start.elapsed().unwrap() < PATIENT);
    }
    stage.hand_over().await;
    assert_eq!(stage.facts().await.sessions_waiting, 3);
    // And one is offered that the frontend before has never read.
    new.offer(&sessions[3].1, &sessions[3].2, b"late");
    new.answer(&ids, &[]);
    let (_, second, image) = last.receive_session();
    assert!(image == long, "another image");
    last.settle(2);
    let (third, _, _) = last.receive_session();
    last.refuse(third.id);
    loop {
        match last.receive() {
            FromPrimary::Resync(number) => last.report(number, &[], &ids[..2]),
            FromPrimary::Session(record, fourth, _) => {
                assert_eq!(record.id.0, ids[3]);
                last.settle(1);
                are_connected(&mut sessions[3].0, fourth);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let (mut moved, returned) = new.answers(4);
    moved.sort_unstable();
    assert_eq!((moved, returned), (vec![ids[0], ids[1], ids[3]], vec![ids[2]]));
    are_connected(&mut sessions[0].0, first);
    are_connected(&mut sessions[1].0, second);
    let (client, _, socket) = &mut sessions[2];
    are_connected(client, socket.try_clone().unwrap());
    let counters = stage.count().await;
    assert_eq!((counters.moved, counters.returned, counters.sessions_lost), (3, 1, 0));
    assert_eq!(stage.facts().await.sessions_waiting, 0);
    old.answer(&[], &[]);
    assert!(old.receive_within(Duration::from_millis(20)).is_none());
    stage.end().await;
}

#[tokio::test]
async fn wishes_are_granted_by_the_next() {
    let mut stage = Harness::new(1, PATIENT).await;
    let mut mover = stage.start_worker(worker(0, 0), true).await;
    mover.say(&encode_close_request(10, Duration::from_secs(1)));
    let mut granted = 0;
    let mut hand_over = true;
    while granted < 10 {
        match mover.receive() {
            FromPrimary::CloseGrant(count) => granted += count,
            FromPrimary::Resync(number) => mover.report(number, &[], &[]),
            other => panic!("{other:?}"),
        }
        if std::mem::take(&mut hand_over) {
            assert!(granted < 10);
            stage.hand_over().await;
        }
    }
    assert_eq!((granted, stage.count().await.closed), (10, 10));
    stage.end().await;
}

#[tokio::test]
async fn who_was_expelled_stays_so_and_who_has_stalled_too() {
    let patience = Duration::from_millis(300);
    let mut stage = Harness::new(2, patience).await;
    let mut stalled = stage.start_worker(worker(0, 0), false).await;
    let mut other = stage.start_worker(worker(1, 0), false).await;
    let quarantined = stage.attach(worker(1, 1)).await;
    quarantined.say(b"nonsense");
    while !matches!(stage.frontend.event().await.kind, SlotEventKind::Violation(_)) {}
    let mut client = stage.connect(0, 0).await;
    // It has stalled: its client goes elsewhere.
    let (_, socket) = other.take_client();
    are_connected(&mut client, socket);
    stage.hand_over().await;
    stage.order(SlotCommand::Serve(worker(1, 1))).await;
    let mut next = stage.connect(0, 1).await;
    let (_, socket) = other.take_client();
    are_connected(&mut next, socket);
    assert_eq!(stage.count().await.stalls, 1);
    // Its answer brings it back.
    assert!(stalled.receive_within(Duration::from_millis(20)).is_none());
    stalled.say(&sticky_lb::protocol::message::PONG);
    while !matches!(stage.frontend.event().await.kind, SlotEventKind::Pong { .. }) {}
    let _back = stage.connect(0, 2).await;
    stalled.take_client();
    drop(quarantined);
    stage.end().await;
}

#[tokio::test]
async fn a_rebalance_that_counts_is_given_up() {
    let mut stage = Harness::new(1, PATIENT).await;
    let mut mover = stage.start_worker(worker(0, 0), true).await;
    let asked = tokio::spawn({
        let handle = stage.frontend.handle.clone();
        async move { handle.rebalance().await }
    });
    tokio::task::yield_now().await;
    assert!(matches!(mover.receive(), FromPrimary::ListSessions));
    stage.hand_over().await;
    assert!(asked.await.unwrap().is_err());
    // What answers the old question is no answer to a new one.
    mover.say(&sticky_lb::protocol::message::encode_session_list(&[]));
    mover.answer(&[], &[]);
    let asked = stage.frontend.handle.rebalance();
    let answered = async {
        tokio::task::yield_now().await;
        assert!(matches!(mover.receive(), FromPrimary::ListSessions));
        mover.say(&sticky_lb::protocol::message::encode_session_list(&[]));
    };
    let (rebalanced, ()) = tokio::join!(asked, answered);
    assert_eq!(rebalanced.unwrap().sessions, 0);
    stage.end().await;
}

#[tokio::test]
async fn a_successor_that_is_not_there_yet_is_waited_for() {
    let mut stage = Harness::new(2, PATIENT).await;
    let mut zero = stage.start_worker(worker(0, 0), false).await;
    let one = stage.start_worker(worker(1, 0), false).await;
    stage.gone(worker(1, 0)).await;
    drop(one);
    stage.hand_over().await;
    // Its slot is empty, and belongs to somebody who is about to come.
    let mut client = stage.connect(1, 0).await;
    stage.counts("it has come", |it| it.accepted == 1).await;
    assert!(zero.receive_within(Duration::from_millis(50)).is_none());
    let mut one = stage.start_worker(worker(1, 1), false).await;
    let (_, socket) = one.take_client();
    are_connected(&mut client, socket);
    // And if nobody comes, others take its clients, as always.
    stage.gone(worker(1, 1)).await;
    stage.hand_over().await;
    let mut client = stage.connect(1, 1).await;
    stage.order(SlotCommand::GiveUp(SlotId(1))).await;
    let (_, socket) = zero.take_client();
    are_connected(&mut client, socket);
    drop(one);
    stage.end().await;
}

#[tokio::test]
async fn what_is_missing_is_said() {
    use sticky_lb::internals::frontend::snapshot::FrontendHandover;
    use sticky_lb::internals::handover::descriptors::{Descriptors, RestoreError};
    let mut stage = Harness::new(1, PATIENT).await;
    let _mover = stage.start_worker(worker(0, 0), false).await;
    let _client = stage.connect(0, 0).await;
    stage.counts("it has come", |it| it.accepted == 1).await;
    let before = stage.let_go().await;
    let mut descriptors = Descriptors::default();
    let snapshot = before.into_snapshot(&mut descriptors);
    let names: Vec<_> = descriptors.iter().map(|(name, _)| name.to_owned()).collect();
    let expected = [
        "channel.0.0",
        "counters",
        "in-flight.0.0.0",
        "listener",
        "scoreboard.0.0",
        "worker-end.0.0",
    ];
    assert_eq!(names, expected);
    for missing in names {
        let mut some = Descriptors::default();
        for (name, descriptor) in descriptors.iter().filter(|(name, _)| *name != missing) {
            let copy = std::os::fd::AsFd::as_fd(&descriptor).try_clone_to_owned().unwrap();
            some.insert(name, copy);
        }
        let error = FrontendHandover::restore(snapshot.clone(), &mut some).unwrap_err();
        assert!(matches!(error, RestoreError::Missing(name) if name == missing));
    }
    stage.end().await;
}
