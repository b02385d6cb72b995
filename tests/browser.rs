//! The chat page in a real browser: who serves it, what is said, and what becomes of it when its
//! worker ends.

mod common;

use std::io::{Read, Write};
use std::path::Path;

use common::browser::{Browser, Tab};
use common::process::{self, Signal};
use common::{Primary, eventually, example};
use serde_json::Value;
use tokio_tungstenite::tungstenite::{self, WebSocket};

const DESK: [u32; 2] = [1000, 800];
const PHONE: [u32; 2] = [390, 844];

#[test]
fn two_tabs_in_one_room_hear_each_other() {
    let primary = Primary::with_workers(3).start();
    let browser = Browser::start();
    let (ann, bob) = (member(&browser, &primary, "ann"), member(&browser, &primary, "bob"));
    let (worker, slot) = served_by(&ann, &primary);
    assert_eq!(served_by(&bob, &primary), (worker, slot));
    ann.wait_for_text("#members", "2 members");
    ann.enter("#text", "Good morning");
    bob.wait_for_text("#log", "ann: Good morning");
    ann.wait_for_text("#log .own", "You: Good morning");
    // Who says the same under the same name is another one.
    bob.wait_for_text("#reach", &format!("that of slot {slot}"));
    assert_eq!(bob.evaluate("document.querySelectorAll('.own').length"), 0);
    // Markup is text like any other.
    bob.enter("#text", "<b>Hello</b> & <img src=x>");
    ann.wait_for_text("#log", "bob: <b>Hello</b> & <img src=x>");
    screenshots(&ann);
    assert_eq!(ann.complaints(), [""; 0]);
    assert_eq!(bob.complaints(), [""; 0]);
}

#[test]
fn who_moves_to_another_room_hears_nothing_of_the_first() {
    let primary = Primary::with_workers(2).start();
    let browser = Browser::start();
    let (ann, bob) = (member(&browser, &primary, "ann"), member(&browser, &primary, "bob"));
    bob.enter("#room", "Küche & #1");
    bob.wait_for_text("#title", "Room Küche & #1");
    ann.wait_for_text("#log", "bob left");
    ann.enter("#text", "Is anybody there?");
    ann.wait_for_text("#log", "Is anybody there?");
    // The address of a room leads to it.
    ann.evaluate("location.hash = '#K%C3%BCche%20%26%20%231'");
    ann.wait_for_text("#title", "Room Küche & #1");
    ann.enter("#text", "There you are");
    bob.wait_for_text("#log", "There you are");
    assert!(!bob.text("#log").contains("anybody"), "{}", bob.text("#log"));
    assert_eq!(ann.complaints(), [""; 0]);
    assert_eq!(bob.complaints(), [""; 0]);
}

#[test]
fn the_newest_line_stays_in_sight() {
    let primary = Primary::with_workers(1).start();
    let browser = Browser::start();
    let ann = member(&browser, &primary, "ann");
    for n in 0..30 {
        ann.enter("#text", &format!("Line {n} {}", "and so on ".repeat(20)));
    }
    ann.wait_for_text("#log", "Line 29");
    let place = |selector: &str, edge: &str| {
        let place = format!("document.querySelector({selector:?}).getBoundingClientRect().{edge}");
        ann.evaluate(&place).as_f64().expect("a number")
    };
    for size in [PHONE, DESK, [320, 568]] {
        ann.emulate(size, "light");
        eventually("the end of the log", || {
            (place("#log", "bottom") - place("#scroll", "bottom")).abs() < 2.0
        });
    }
    // A reader that has scrolled up is not disturbed.
    ann.evaluate("document.querySelector('#scroll').scrollBy(0, -500)");
    let before = place("#log", "top");
    ann.enter("#text", "One more");
    ann.wait_for_text("#log", "One more");
    assert!((place("#log", "top") - before).abs() < 2.0, "the log has moved");
    assert!(place("#log", "bottom") > place("#scroll", "bottom") + 400.0, "back at the end");
}

#[test]
fn a_page_finds_the_successor_of_a_killed_worker() {
    // On a busy machine, a worker may take longer to start than clients usually wait for it.
    let primary = Primary::with_workers(3).arguments(&["--slot-wait", "20s"]).start();
    let browser = Browser::start();
    let (ann, bob) = (member(&browser, &primary, "ann"), member(&browser, &primary, "bob"));
    let (worker, slot) = served_by(&ann, &primary);
    process::signal(worker, Signal::KILL);
    let (successor, _) = moved(&ann, &primary, worker, slot);
    assert_eq!(moved(&bob, &primary, worker, slot), (successor, slot));
    ann.wait_for_text("#members", "2 members");
    ann.enter("#text", "Still here");
    bob.wait_for_text("#log", "ann: Still here");
    for tab in [&ann, &bob] {
        let mut complaints = tab.complaints();
        complaints.retain(|complaint| !complaint.contains("WebSocket connection to"));
        assert_eq!(complaints, [""; 0]);
    }
}

#[test]
fn a_page_stays_connected_through_a_deploy_and_its_room_stays_whole() {
    let primary = Primary::with_workers(2).arguments(&["--min-uptime", "0"]).start();
    let browser = Browser::start();
    let (ann, bob) = (member(&browser, &primary, "ann"), member(&browser, &primary, "bob"));
    ann.wait_for_text("#members", "2 members");
    // A new connection is counted.
    for tab in [&ann, &bob] {
        tab.evaluate(
            "var connects = 0, plain = connect; connect = () => { connects++; plain(); }; 0",
        );
    }
    let mut before = vec![comings_and_goings(&ann), comings_and_goings(&bob)];
    for _ in 0..2 {
        let (worker, slot) = served_by(&ann, &primary);
        primary.signal(Signal::HUP);
        let (now, _) = moved(&ann, &primary, worker, slot);
        assert_eq!(moved(&bob, &primary, worker, slot).0, now);
        // Both are there again, before anything is said.
        ann.wait_for_text("#members", "2 members");
        bob.wait_for_text("#members", "2 members");
        ann.wait_for_text("#log", &format!("worker {now}, on the same connection, before"));
        ann.enter("#text", &format!("Are you still there, {now}?"));
        bob.wait_for_text("#log", &format!("ann: Are you still there, {now}?"));
    }
    for tab in [&ann, &bob] {
        assert_eq!(tab.evaluate("connects"), 0, "connected again");
        let log = tab.text("#log");
        assert_eq!(comings_and_goings(tab), before.remove(0), "{log}");
        assert_eq!(tab.complaints(), [""; 0]);
    }
    ann.wait_for_text("#members", "2 members");
    screenshot_of_move(&ann);
}

fn comings_and_goings(tab: &Tab) -> usize {
    let log = tab.text("#log");
    log.matches(" joined").count() + log.matches(" left").count()
}

#[test]
fn a_page_that_is_sent_away_comes_back_by_itself() {
    let flags = ["--min-uptime", "0", "--drain", "close", "--drain-timeout", "1s"];
    let primary = Primary::with_workers(2).arguments(&flags).start();
    let browser = Browser::start();
    let ann = member(&browser, &primary, "ann");
    let (worker, slot) = served_by(&ann, &primary);
    process::signal(worker, Signal::TERM);
    ann.wait_for_text("#log", &format!("Worker {worker} drains"));
    moved(&ann, &primary, worker, slot);
    assert_eq!(ann.complaints(), [""; 0]);
}

#[test]
fn a_stop_promises_no_successor() {
    let primary = Primary::with_workers(2).start();
    let browser = Browser::start();
    let ann = member(&browser, &primary, "ann");
    let (worker, _) = served_by(&ann, &primary);
    primary.stop();
    ann.wait_for_text("#log", &format!("Worker {worker} drains: trying to connect again."));
    assert!(!ann.text("#log").contains("successor"), "{}", ann.text("#log"));
}

#[test]
fn each_tab_has_a_name_of_its_own_and_keeps_it() {
    let primary = Primary::with_workers(2).start();
    let browser = Browser::start();
    let ann = member(&browser, &primary, "ann");
    let other = browser.open(&format!("http://127.0.0.1:{}/", primary.port()));
    other.wait_for_text("#state", "Connected as guest-");
    ann.evaluate("location.reload()");
    ann.wait_for_text("#state", "Connected as ann");
}

#[test]
fn the_example_serves_the_same_page() {
    let primary = Primary::with_workers(2).worker(&[&example("chat")]).start();
    let browser = Browser::start();
    let ann = member(&browser, &primary, "ann");
    served_by(&ann, &primary);
    assert_eq!(ann.complaints(), [""; 0]);
}

#[test]
fn what_a_member_sends_is_cut() {
    let primary = Primary::with_workers(1).start();
    let long = "x".repeat(65);
    let url = format!("ws://{}/ws?room={long}&name={long}", primary.address());
    let (mut member, _) = tungstenite::connect(url).expect("a worker answers");
    let welcome = line(&mut member);
    assert_eq!(welcome["event"], "welcome");
    assert_eq!((&welcome["name"], &welcome["room"]), (&long[..64].into(), &long[..64].into()));
    assert_eq!((&welcome["slot"], &welcome["generation"]), (&0.into(), &0.into()));
    assert_eq!(line(&mut member)["event"], "joined");
    member.send("ü".repeat(4_097).into()).expect("the worker reads");
    assert_eq!(line(&mut member)["text"], "ü".repeat(4_096));
    member.send("x".repeat(65_537).into()).expect("the worker reads");
    assert!(!member.read().is_ok_and(|message| message.is_text()), "it was said");
}

/// The next line that a member hears.
fn line<S: Read + Write>(member: &mut WebSocket<S>) -> Value {
    let line = member.read().expect("a line").into_text().expect("a text");
    serde_json::from_str(&line).expect("JSON")
}

/// A tab in the lobby, with a name typed in.
fn member(browser: &Browser, primary: &Primary, name: &str) -> Tab {
    let tab = browser.open(&format!("http://127.0.0.1:{}/", primary.port()));
    tab.wait_for_text("#state", "Connected as ");
    tab.enter("#name", name);
    tab.wait_for_text("#state", &format!("Connected as {name}"));
    tab
}

/// Worker and slot that a page shows, which have to be there.
fn served_by(tab: &Tab, primary: &Primary) -> (u32, u16) {
    let shown = |selector| tab.text(selector).parse::<u32>().expect("a number");
    let (worker, slot) = (shown("#worker"), u16::try_from(shown("#slot")).expect("a slot"));
    let generation = shown("#generation");
    let workers = primary.workers();
    assert!(workers.contains(&(worker, slot, generation)), "{worker} is none of {workers:?}");
    (worker, slot)
}

/// Waits until a page is served by another worker, which has to fill the same slot.
fn moved(tab: &Tab, primary: &Primary, from: u32, slot: u16) -> (u32, u16) {
    eventually("another worker on the page", || {
        tab.text("#state").starts_with("Connected") && tab.text("#worker") != from.to_string()
    });
    let now = served_by(tab, primary);
    let log = tab.text("#log");
    let (told, before) = (format!("Now served by worker {}", now.0), format!("before by {from}."));
    assert!(log.contains(&told) && log.contains(&before), "{log}");
    assert_eq!(now.1, slot, "the page has left its slot");
    now
}

/// For people to look at: `chat-moved.png` in the target directory.
fn screenshot_of_move(tab: &Tab) {
    tab.screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("chat-moved.png"));
}

/// For people to look at: `chat.png` and its like in the target directory.
fn screenshots(tab: &Tab) {
    let looks = [
        ("chat.png", DESK, "light"),
        ("chat-dark.png", DESK, "dark"),
        ("chat-phone.png", PHONE, "light"),
        ("chat-phone-dark.png", PHONE, "dark"),
    ];
    for (file, size, scheme) in looks {
        tab.emulate(size, scheme);
        tab.screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(file));
    }
}
