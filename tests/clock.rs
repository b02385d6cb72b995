//! The wall clock jumps: nothing that takes a time is early or late for it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::client::ask;
use common::process::{Signal, signal};
use common::{Builder, Primary, eventually};

const DAY: i64 = 24 * 3600;

/// A primary whose wall clock is shifted by what [`jump`] says.
fn with_shifted_clock(folder: &Path) -> Builder {
    let (source, library) = ("tests/data/clock.c", folder.join("clock.so"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
    let compiled = compiler.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(compiled.unwrap().success(), "the clock does not compile");
    jump(folder, 0);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    Primary::with_workers(2)
        .environment("LD_PRELOAD", &path(&library))
        .environment("CLOCK_SHIFT", &path(&folder.join("shift")))
}

fn jump(folder: &Path, seconds: i64) {
    // Whole, or the reader finds half of it.
    let new = folder.join("new");
    fs::write(&new, seconds.to_string()).unwrap();
    fs::rename(new, folder.join("shift")).unwrap();
}

#[test]
fn a_jump_kills_nobody_and_holds_nothing_up() {
    let folder = common::own_directory();
    let primary = with_shifted_clock(&folder)
        .arguments(&["--max-age", "1h", "--watchdog-timeout", "1s", "--drain-timeout", "1h"])
        .start();
    for shift in [DAY, -400 * DAY, 0] {
        jump(&folder, shift);
        // This takes its time: each successor has to prove itself before its predecessor drains.
        primary.signal(Signal::HUP);
        assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
        eventually("two workers", || primary.workers().len() == 2);
    }
    let log = primary.log();
    for sign in ["killed", "crashed", "stands still", "worker replacing"] {
        assert!(!log.contains(sign), "{sign}");
    }
    jump(&folder, -DAY);
    let old = primary.worker(0);
    signal(old, Signal::KILL);
    eventually("a successor", || ask(primary.client_of(0), primary.address()).pid() != old);
    let shifted = primary.log().lines().last().unwrap_or_default().to_owned();
    let today = Command::new("date").args(["--utc", "+%Y-%m-%d"]).output().unwrap().stdout;
    assert!(!shifted.starts_with(String::from_utf8(today).unwrap().trim()), "{shifted}");
    primary.stop();
}
