//! A worker that breaks the protocol is killed with a clear error, and other workers serve on.

mod common;

use common::Primary;
use common::client::{ask, nth};

/// Slot 0 breaks a rule, slots 1 and 2 serve everybody.
fn breaks(role: &str, error: &str) {
    let primary = Primary::with_workers(3)
        .slot_zero_plays(role)
        .arguments(&["--listen-timeout", "1s"])
        .start_listening();
    for n in 0..12 {
        assert_ne!(ask(nth(n), primary.address()).slot(), 0, "client {n}");
    }
    primary.wait_for_log("worker killed: it breaks the protocol");
    let log = primary.log();
    assert!(log.contains(error), "{error:?} is not in the log");
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn garbage() {
    breaks("garbage", "expected \"SL\"");
}

#[test]
fn a_truncated_message() {
    breaks("truncated", "message of 5 bytes is shorter than its header of 8");
}

#[test]
fn a_message_far_too_long() {
    breaks("too-long", "message is longer than");
}

#[test]
fn another_version_of_the_protocol() {
    breaks("other-version", "message speaks version 99 of the protocol, expected 1");
}

#[test]
fn something_before_the_hello() {
    breaks("no-hello", "hello is not the first message");
}

#[test]
fn a_second_hello() {
    breaks("hello-twice", "or came again");
}

#[test]
fn descriptors_that_nobody_asked_for() {
    breaks("surplus-descriptors", "message carries descriptors, expected none");
}

#[test]
fn a_refusal_of_nobody() {
    breaks("refuses-somebody-else", "which is not waiting for an answer");
}

#[test]
fn a_pong_that_nobody_asked_for() {
    breaks("pongs", "pong without a ping");
}

/// Slot 0 counts wrongly, which shows once it is sent a connection.
fn miscounts(role: &str, expected: &str) {
    let primary = Primary::with_workers(3).slot_zero_plays(role).start();
    assert_ne!(ask(primary.client_of(0), primary.address()).slot(), 0);
    primary.wait_for_log("worker killed: it breaks the protocol");
    assert!(primary.log().contains(expected), "{expected:?} is not in the log");
    primary.stop();
}

/// Slot 0 offers a session as its own that it is not.
fn forges(role: &str, expected: &str) {
    let primary = Primary::with_workers(3).slot_zero_plays(role).start();
    ask(primary.client_of(1), primary.address());
    let _cut = common::client::get_from(primary.client_of(0), primary.address(), "/");
    primary.wait_for_log("worker killed: it breaks the protocol");
    assert!(primary.log().contains(expected), "{expected:?} is not in the log");
    primary.stop();
}

#[test]
fn a_session_of_another_worker() {
    forges("offers-anothers-session", "session 1 is of no connection that was accepted");
}

#[test]
fn a_session_with_another_address() {
    forges("offers-another-address", "is of no connection that was accepted");
}

/// Only its taker can look without waiting for those who use the socket.
#[test]
fn a_session_with_a_socket_of_another_is_taken_by_nobody() {
    let primary = Primary::with_workers(3).slot_zero_plays("offers-another-socket").start();
    let client = primary.client_of(0);
    let mut unanswered = common::client::connect_from(client, primary.address()).unwrap();
    common::client::send_get(&mut unanswered, "/").unwrap();
    common::eventually("it has come", || primary.status()["acknowledged"] == 1);
    primary.begin("drain", serde_json::json!({"slot": 0}));
    primary.wait_for_log("another worker offers it with the socket of another client");
    assert_ne!(ask(primary.client_of(1), primary.address()).slot(), 0);
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn a_protected_session_of_another_worker() {
    forges("protects-anothers-session", "session 1 is of no connection that was accepted");
}

#[test]
fn an_acknowledgement_too_many() {
    let primary = Primary::with_workers(2).test_worker(&["acknowledges-twice"]).start();
    // Its client may be cut with it; the next one is served by the successor.
    let client = primary.client_of(0);
    let _ = common::client::get_from(client, primary.address(), "/");
    let _ = common::client::get_from(client, primary.address(), "/");
    primary.wait_for_log("scoreboard counts");
    primary.wait_for_log("slot=0 generation=1");
}

#[test]
fn a_refusal_that_is_counted_and_never_sent() {
    miscounts("refuses-nobody", "connections completed and 1 refused, which were not");
}

#[test]
fn a_channel_shut_without_being_asked() {
    breaks("shuts-channel", "channel was closed by the worker");
}
