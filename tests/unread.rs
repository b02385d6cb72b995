//! Nobody reads what a primary prints: its log, its events, what its workers say. Clients notice nothing, and
//! neither the end nor an upgrade nor a crash takes long.

mod common;

use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::time::{Duration, SystemTime};

use common::client::{ask, nth};
use common::process::Signal;
use common::{Primary, example};
use rustix::pipe::fcntl_getpipe_size;

/// A pipe in which there is no room, and that nobody reads from.
fn full() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().expect("the kernel has a pipe left");
    let size = fcntl_getpipe_size(&writer).expect("it is a pipe");
    writer.write_all(&vec![b'\n'; size]).expect("it has room for that");
    (reader, writer)
}

fn seconds(since: SystemTime) -> f64 {
    since.elapsed().map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_client() {
    let (_reader, writer) = full();
    // Three lines a connection.
    let primary =
        Primary::with_workers(2).arguments(&["--log-level", "debug"]).error_output(writer).start();
    let start = SystemTime::now();
    for n in 0..200 {
        ask(nth(n), primary.address());
    }
    assert!(seconds(start) < 10.0, "{} s", seconds(start));
    let stopped = primary.stop();
    assert_eq!((&stopped["stalls"], &stopped["fallbacks"]), (&0.into(), &0.into()));
}

#[test]
fn events_that_nobody_reads_hold_up_nothing() {
    let (_reader, writer) = full();
    let mut primary = Primary::with_workers(2).events_output(writer).start_unheard();
    for n in 0..20 {
        ask(nth(n), primary.address());
    }
    primary.upgrade();
    primary.signal(Signal::HUP);
    primary.wait_for_log("rolling restart done");
    ask(nth(0), primary.address());
    let start = SystemTime::now();
    primary.signal(Signal::TERM);
    assert_eq!(primary.wait().code(), Some(0));
    assert!(seconds(start) < 5.0, "{} s", seconds(start));
    primary.wait_for_log("events are lost: the descriptor of --events-fd is not read");
}

#[test]
fn the_event_of_the_end_comes_even_where_nobody_reads_the_rest() {
    let (_stdout, out) = full();
    let (_stderr, err) = full();
    let worker = example("library_worker");
    let primary =
        Primary::with_workers(1).worker(&[&worker, "chatty"]).output(out).error_output(err).start();
    // 110 kB.
    ask(nth(0), primary.address());
    primary.stop();
}

/// Nobody reads anything that it prints, and its worker prints much.
fn unread() -> (Primary, [PipeReader; 3]) {
    let [(stdout, out), (stderr, err), (events, events_end)] = [full(), full(), full()];
    let primary = Primary::with_workers(1)
        .worker(&[&example("library_worker"), "chatty"])
        .arguments(&["--log-level", "debug", "--keeper-min-uptime", "0"])
        .output(out)
        .error_output(err)
        .events_output(events_end)
        .start_unheard();
    ask(nth(0), primary.address());
    (primary, [stdout, stderr, events])
}

/// Asks again and again until `done`, and returns the longest time that an answer took.
fn longest_answer(primary: &Primary, mut done: impl FnMut() -> bool) -> Duration {
    let mut longest = Duration::ZERO;
    while !done() {
        let start = SystemTime::now();
        ask(nth(0), primary.address());
        longest = longest.max(start.elapsed().unwrap_or_default());
    }
    longest
}

#[test]
fn readers_that_do_not_read_share_the_time_that_an_upgrade_gives_them() {
    let (primary, _readers) = unread();
    let mut upgrade = primary.begin_upgrade();
    let longest =
        longest_answer(&primary, || upgrade.try_wait().is_ok_and(|ended| ended.is_some()));
    assert!(upgrade.wait().is_ok_and(|status| status.success()));
    let more = longest_answer(&primary, || primary.status()["upgrades"] == 1);
    assert!(longest.max(more) < Duration::from_secs(4), "{longest:?}, {more:?}");
}

#[test]
fn a_keeper_whose_log_nobody_reads_starts_the_next_primary_at_once() {
    let (primary, _readers) = unread();
    let start = SystemTime::now();
    for _ in 0..3 {
        primary.crash();
        ask(nth(0), primary.address());
    }
    assert!(seconds(start) < 8.0, "{} s", seconds(start));
}

#[test]
fn the_end_gives_readers_that_do_not_read_one_moment_together() {
    let (mut primary, _readers) = unread();
    let start = SystemTime::now();
    primary.signal(Signal::TERM);
    assert_eq!(primary.wait().code(), Some(0));
    assert!(seconds(start) < 4.5, "{} s", seconds(start));
}

#[test]
fn a_start_that_fails_ends_even_where_nobody_reads_why() {
    let (_reader, writer) = full();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let mut primary =
        Primary::from_flags(&["--host", "127.0.0.1", "--port", &port]).error_output(writer).spawn();
    assert_eq!(primary.wait().code(), Some(1));
}
