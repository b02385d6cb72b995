//! What operators are told of the frontend is what has happened, and what will.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::IpAddr;
use std::time::Duration;

use common::client::{connect_from, nth};
use common::frontend::{Ended, Frontend, worker};
use sticky_lb::internals::frontend::dispatcher::Dispatcher;
use sticky_lb::internals::frontend::placement::Availability;
use sticky_lb::internals::frontend::query::{Client, FallbackReason, RouteExplanation, TopClients};
use sticky_lb::internals::link::seam::SlotCommand;
use sticky_lb::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use sticky_lb::protocol::ids::SlotId;

const ORDER: DrainOrder = DrainOrder {
    mode: DrainMode::Wait,
    reason: DrainReason::Restart,
    window: Duration::from_secs(10),
};

type Running = Frontend<Ended>;

async fn whereabouts(frontend: &Running, client: IpAddr) -> RouteExplanation {
    frontend.handle.explain(Client::Address(client)).await.unwrap()
}

/// Clients that belong to a slot, by the frontend's own word.
async fn clients_of(frontend: &Running, slot: u16, count: usize) -> Vec<IpAddr> {
    let mut clients = Vec::new();
    for client in (0..).map(nth) {
        if whereabouts(frontend, client).await.ranking[0].slot == SlotId(slot) {
            clients.push(client);
        }
        if clients.len() == count {
            break;
        }
    }
    clients
}

/// Connects from each, one after the other.
async fn connect(frontend: &Running, clients: &[IpAddr]) {
    for client in clients {
        let before = frontend.commander.count().await.unwrap().acknowledged;
        let _held = connect_from(*client, frontend.address).unwrap();
        frontend.wait_for_acknowledged(usize::try_from(before).unwrap() + 1).await;
    }
}

#[tokio::test]
async fn what_is_counted_adds_up() {
    let mut frontend = Frontend::start(2, Dispatcher::run);
    frontend.serve().await;
    let heavy = clients_of(&frontend, 0, 1).await[0];
    connect(&frontend, &[heavy; 20]).await;
    connect(&frontend, &clients_of(&frontend, 1, 10).await).await;
    let facts = frontend.handle.facts().await.unwrap();
    assert_eq!((facts.counters.accepted, facts.counters.acknowledged), (30, 30));
    let slots: Vec<_> = facts.slots.iter().map(|slot| slot.handed_off).collect();
    assert_eq!(slots, [20, 10]);
    assert_eq!(facts.handoff_times.iter().map(|(_, count)| count).sum::<u64>(), 30);
    let longest = facts.handoff_times.last().map(|(bound, _)| *bound).unwrap();
    assert!(facts.handoff_total > Duration::ZERO && facts.handoff_total < 30 * longest);
    let Some(TopClients { address, share }) = facts.top_client else {
        panic!("nobody is top_client")
    };
    assert_eq!(address, heavy);
    assert!((0.5..0.8).contains(&share), "{share} of 20 in 30");
    for recent in facts.slots.iter().map(|slot| slot.recent).chain([facts.recent]) {
        assert!(recent.p50.is_some() && recent.p50 <= recent.p99 && recent.p99 <= Some(longest));
    }
    for slot in &facts.slots {
        assert_eq!((slot.availability, slot.queued, slot.in_flight), (Availability::Open, 0, 0));
    }
    assert!(facts.accepting && facts.waiting == 0 && facts.counters.fallbacks == 0);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn who_goes_elsewhere_is_told_why_and_comes_back_when_that_is_forgotten() {
    let mut frontend = Frontend::start(2, Dispatcher::run);
    frontend.serve().await;
    let client = clients_of(&frontend, 0, 1).await[0];
    frontend.commander.send(SlotCommand::Drain(worker(0), ORDER)).await.unwrap();
    frontend.commander.send(SlotCommand::GiveUp(SlotId(0))).await.unwrap();
    // Orders and questions come by different ways: with this answer, the orders are carried out.
    frontend.commander.count().await.unwrap();
    let away = (Some(SlotId(1)), Some(FallbackReason::NotServing));
    let told = whereabouts(&frontend, client).await;
    assert_eq!(((told.target, told.why), told.remembered), (away, None));
    assert_eq!(told.counts, Some(client));
    assert_eq!(told.digest.as_ref().map(|(name, text)| (*name, text.len())), Some(("md5", 32)));

    connect(&frontend, &[client; 3]).await;
    let told = whereabouts(&frontend, client).await;
    assert_eq!((told.target, told.why), (Some(SlotId(1)), Some(FallbackReason::Remembered)));
    assert_eq!(told.remembered.map(|(slot, _)| slot), Some(SlotId(1)));
    assert_eq!(told.ranking[0].skip_reason, Some(FallbackReason::Remembered));
    let by_key = frontend.handle.explain(Client::Key(told.key)).await.unwrap();
    assert_eq!((by_key.ranking, by_key.digest), (told.ranking, None));

    let facts = frontend.handle.facts().await.unwrap();
    let fallback: Vec<_> = facts.fallback.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(fallback, [(FallbackReason::Remembered, 2), (FallbackReason::NotServing, 1)]);
    assert_eq!(facts.counters.fallbacks, 3);

    assert_eq!(frontend.handle.forget().await, Ok(1));
    let told = whereabouts(&frontend, client).await;
    assert_eq!(((told.target, told.why), told.remembered), (away, None));
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn before_there_are_slots_nobody_goes_anywhere() {
    let frontend = Frontend::start(3, Dispatcher::run);
    let told = whereabouts(&frontend, nth(0)).await;
    assert_eq!((told.target, told.why), (None, Some(FallbackReason::NotServing)));
    assert_eq!(told.ranking.len(), 3);
    assert!(frontend.handle.facts().await.unwrap().slots.is_empty());
    frontend.end().await.unwrap();
}
