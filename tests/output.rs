//! What workers print arrives where it is wanted, whole and in order, and never holds a worker up.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::client::{ask, nth};
use common::process::{Signal, children, descriptors, signal};
use common::{Builder, Primary, TIMEOUT, eventually, example, own_directory};
use serde_json::Value;
use sticky_lb::internals::handover::Carry;
use sticky_lb::internals::link::seam::WorkerId;
use sticky_lb::internals::supervisor::output::{
    LineFilter, Output, OutputSettings, Recent, Stream,
};
use sticky_lb::protocol::ids::{Generation, SlotId};

/// A worker that runs `shell`, and then serves.
fn prints(workers: u16, shell: &str) -> Builder {
    let demo = env!("CARGO_BIN_EXE_sticky-lb");
    let script = format!("{shell}\nexec {demo} demo-worker");
    Primary::with_workers(workers).worker(&["sh", "-c", &script])
}

fn text(lines: &[Vec<u8>]) -> Vec<String> {
    lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

fn file(primary: &Primary, name: &str) -> String {
    let bytes = fs::read(primary.directory().join(name)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wait_for_file(primary: &Primary, name: &str, expected: &str) {
    eventually(&format!("{expected:?} in {name}"), || file(primary, name).contains(expected));
}

/// A terminal, and what it has shown so far.
struct Screen {
    terminal: File,
    seen: String,
}

impl Screen {
    /// With the end that programs write to.
    fn new() -> (Self, OwnedFd) {
        let pair = nix::pty::openpty(None, None).expect("the kernel has a terminal left");
        let terminal = File::from(pair.master);
        rustix::io::ioctl_fionbio(&terminal, true).expect("a terminal need not block");
        (Self { terminal, seen: String::new() }, pair.slave)
    }

    fn wait_for(&mut self, expected: &str) {
        eventually(&format!("{expected:?} on the screen"), || {
            let mut buffer = [0; 4096];
            // Nothing to read yet is an error, too.
            let count = self.terminal.read(&mut buffer).unwrap_or(0);
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            self.seen.contains(expected)
        });
    }
}

#[test]
fn lines_pass_as_they_are_where_nobody_looks() {
    let primary = prints(1, "printf 'one\\r\\n\\033[1mtwo\\0\\n\\n'; echo three >&2").start();
    eventually("all lines", || primary.printed().len() == 3);
    assert_eq!(primary.printed(), [&b"one"[..], b"\x1b[1mtwo\0", b""]);
    primary.wait_for_log("\nthree\n");
    primary.stop();
}

#[test]
fn a_terminal_shows_slots_in_colour() {
    let (mut screen, tty) = Screen::new();
    let primary = prints(2, "echo out; echo err >&2").output(tty).spawn();
    for line in ["\x1b[0;36m0 |\x1b[0m out\r\n", "\x1b[0;32m1 |\x1b[0m out\r\n"] {
        screen.wait_for(line);
    }
    // Standard error isn't the terminal.
    primary.wait_for_log("\nerr\n");
}

#[test]
fn a_terminal_shows_no_colour_to_those_who_want_none() {
    let (mut screen, tty) = Screen::new();
    let _primary = prints(1, "echo out").output(tty).environment("NO_COLOR", "1").spawn();
    screen.wait_for("0 | out\r\n");
    assert!(screen.seen.starts_with("0 | out"), "{:?}", screen.seen);
    let (mut screen, tty) = Screen::new();
    let _primary = prints(1, "echo out").output(tty).arguments(&["--log-prefix", "never"]).spawn();
    screen.wait_for("out\r\n");
    assert!(screen.seen.starts_with("out"), "{:?}", screen.seen);
}

#[test]
fn a_prefix_can_be_had_anywhere() {
    let primary =
        prints(2, "echo out; echo err >&2").arguments(&["--log-prefix", "always"]).start();
    eventually("all lines", || primary.printed().len() == 2);
    let mut printed = text(&primary.printed());
    printed.sort();
    assert_eq!(printed, ["0 | out", "1 | out"]);
    primary.wait_for_log("\n0 | err\n");
    primary.wait_for_log("\n1 | err\n");
}

#[test]
fn each_slot_has_its_own_files() {
    let files = ["--out-file", "logs/out.log", "--error-file", "err", "--log-file", "all.log"];
    let primary =
        prints(2, "echo o$STICKY_LB_SLOT; echo e$STICKY_LB_SLOT >&2").arguments(&files).start();
    for slot in 0..2 {
        wait_for_file(&primary, &format!("all-{slot}.log"), &format!("o{slot}\n"));
        wait_for_file(&primary, &format!("all-{slot}.log"), &format!("e{slot}\n"));
        wait_for_file(&primary, &format!("err-{slot}"), "\n");
        assert_eq!(file(&primary, &format!("logs/out-{slot}.log")), format!("o{slot}\n"));
        assert_eq!(file(&primary, &format!("err-{slot}")), format!("e{slot}\n"));
    }
    eventually("standard output has them too", || primary.printed().len() == 2);
}

#[test]
fn merged_json_has_the_keys_of_pm2() {
    let arguments = ["--log-file", "all.json", "--merge-logs", "--log-format", "json"];
    let shell = "echo \"I \\\"am\\\" $STICKY_LB_SLOT\"; printf 'bad \\377\\n' >&2";
    let primary = prints(2, shell).arguments(&arguments).start();
    let lines = || -> Vec<Value> {
        let text = file(&primary, "all.json");
        text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    };
    eventually("all lines", || lines().len() == 4);
    for (slot, number) in [(0_u16, "0"), (1, "1")] {
        let of_slot: Vec<_> =
            lines().into_iter().filter(|line| line["process_id"] == slot).collect();
        let out = of_slot.iter().find(|line| line["type"] == "out").expect("a line of stdout");
        assert_eq!(out["message"], format!("I \"am\" {number}"));
        assert_eq!(out["pid"], primary.worker(slot));
        assert_eq!((&out["app_name"], &out["generation"]), (&"app".into(), &0.into()));
        let time = out["timestamp"].as_str().expect("a time").parse::<jiff::Timestamp>();
        let age = jiff::Timestamp::now().duration_since(time.expect("in ISO 8601"));
        assert!(age.as_secs() < 60, "{age:?}");
        let err = of_slot.iter().find(|line| line["type"] == "err").expect("a line of stderr");
        assert_eq!(err["message"], "bad \u{fffd}");
    }
}

#[test]
fn times_stand_before_lines_in_the_local_zone() {
    for (format, strftime) in
        [("YYYY-MM-DD HH:mm:ss Z", "%Y-%m-%d %H:%M:%S %:z"), ("%FT%T%z [x]", "%FT%T%z [x]")]
    {
        let primary = prints(1, "echo hello")
            .arguments(&["--out-file", "out.log", "--log-date-format", format])
            .environment("TZ", "Asia/Kolkata")
            .start();
        wait_for_file(&primary, "out-0.log", "hello\n");
        let line = file(&primary, "out-0.log");
        let time = line.strip_suffix(": hello\n").expect("the line as it was");
        let time = jiff::fmt::strtime::parse(strftime, time).expect("the time as asked for");
        assert_eq!(
            time.offset(),
            Some(jiff::tz::offset(5).saturating_add(jiff::Span::new().minutes(30)))
        );
        let age = jiff::Timestamp::now().duration_since(time.to_timestamp().expect("a time"));
        assert!(age.as_secs().abs() < 60, "{age:?}");
    }
}

#[test]
fn what_cannot_be_done_is_said_at_once() {
    for (arguments, expected, reason) in [
        (
            ["--out-file", "/proc/nowhere/out.log"],
            1,
            "cannot open log file \"/proc/nowhere/out-0.log\"",
        ),
        (["--error-file", "log/err.log"], 1, "/log/err-0.log\": "),
        // The setting itself is wrong.
        (["--log-date-format", "100%"], 2, "date format \"100%\" is wrong"),
    ] {
        let (code, log) = Primary::with_workers(1).arguments(&arguments).run();
        assert_eq!(code, Some(expected), "{log}");
        assert!(log.contains(reason), "{log}");
    }
}

#[test]
fn a_file_is_rotated_by_size_and_so_many_are_kept() {
    let shell = "seq 10000 99999; echo last";
    let arguments = ["--out-file", "out.log", "--log-rotate-size", "60K", "--log-rotate-keep", "3"];
    let primary = prints(1, shell).arguments(&arguments).start();
    wait_for_file(&primary, "out-0.log", "last\n");
    let names = ["out-0.log.3", "out-0.log.2", "out-0.log.1", "out-0.log"];
    let files = names.map(|name| file(&primary, name));
    assert!(files[..3].iter().all(|file| file.len() == 60 * 1024), "full to the last line");
    assert_eq!(file(&primary, "out-0.log.4"), "");
    let numbers: Vec<u32> = files.concat().lines().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "lines are lost at a rotation");
    assert_eq!(numbers.last(), Some(&99_999));
}

#[test]
fn a_file_is_rotated_by_age() {
    let shell = "(for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done; echo last) &";
    let arguments = ["--out-file", "out.log", "--log-rotate-interval", "500ms"];
    let primary = prints(1, shell).arguments(&arguments).start();
    eventually("the last line", || {
        (0..9).any(|n| file(&primary, &format!("out-0.log.{n}")).contains("last"))
            || file(&primary, "out-0.log").contains("last")
    });
    assert!(!file(&primary, "out-0.log.2").is_empty(), "three files at least");
    let mut lines: Vec<_> =
        (1..9).rev().map(|n| file(&primary, &format!("out-0.log.{n}"))).collect();
    lines.push(file(&primary, "out-0.log"));
    assert_eq!(lines.concat(), "1\n2\n3\n4\n5\n6\nlast\n");
}

#[test]
fn usr1_opens_files_anew_after_a_rename() {
    let shell = "(echo before; while ! [ -e go ]; do sleep 0.05; done; echo after) &";
    let primary = prints(1, shell).arguments(&["--log-file", "all.log", "--merge-logs"]).start();
    wait_for_file(&primary, "all.log", "before\n");
    let path = |name| primary.directory().join(name);
    fs::rename(path("all.log"), path("renamed")).expect("it is there");
    primary.signal(Signal::USR1);
    eventually("a new file", || path("all.log").exists());
    fs::write(path("go"), "").expect("the directory is writable");
    wait_for_file(&primary, "all.log", "after\n");
    assert_eq!(file(&primary, "renamed"), "before\n");
    assert_eq!(file(&primary, "all.log"), "after\n");
    primary.stop();
}

#[test]
fn a_line_of_a_mebibyte_is_cut_and_not_lost() {
    let shell = "head -c 1048576 /dev/zero | tr '\\0' x; echo; echo next";
    let arguments = ["--log-file", "all.json", "--merge-logs", "--log-format", "json"];
    let primary = prints(1, shell).arguments(&arguments).start();
    eventually("the next line", || primary.printed().last().is_some_and(|line| line == b"next"));
    let printed = primary.printed();
    assert!(printed.iter().all(|line| line.len() <= 64 * 1024));
    assert_eq!(printed.concat().len(), 1024 * 1024 + 4);
    wait_for_file(&primary, "all.json", "next");
    let text = file(&primary, "all.json");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let partial = lines.iter().filter(|line| line["partial"] == true).count();
    assert_eq!((partial, lines.len()), (15, 17), "all pieces but the last");
    primary.stop();
}

#[test]
fn the_last_words_of_a_crash_arrive() {
    let shell = "if [ $STICKY_LB_GENERATION = 0 ]; then printf 'help \\377'; kill -9 $$; fi";
    let primary = Primary::with_workers(2).slot_zero(shell).start();
    eventually("the last words", || primary.printed().contains(&b"help \xff".to_vec()));
}

#[test]
fn the_last_words_of_a_failed_start_arrive() {
    let mut primary =
        Primary::with_workers(1).worker(&["sh", "-c", "printf 'no database'; exit 3"]).spawn();
    assert_eq!(primary.wait().code(), Some(1));
    eventually("the last words", || primary.printed().contains(&b"no database".to_vec()));
}

#[test]
fn every_line_of_a_chatty_worker_arrives_in_order() {
    let shell = "echo 0; seq 1 199999 & wait";
    let arguments = ["--listen-timeout", "1m", "--out-file", "out.log"];
    let primary = prints(1, shell).arguments(&arguments).start();
    eventually("the last line", || primary.printed().last().is_some_and(|line| line == b"199999"));
    let in_order = |lines: &[String]| {
        lines.len() == 200_000 && (0..).zip(lines).all(|(n, line)| line.parse() == Ok(n))
    };
    assert!(in_order(&text(&primary.printed())));
    wait_for_file(&primary, "out-0.log", "\n199999\n");
    let lines: Vec<_> = file(&primary, "out-0.log").lines().map(str::to_owned).collect();
    assert!(in_order(&lines));
    primary.stop();
}

#[test]
fn nobody_waits_for_who_does_not_read() {
    let arguments = ["--out-file", "out.log"];
    let primary = Primary::with_workers(1)
        .worker(&[&example("library_worker"), "chatty"])
        .arguments(&arguments)
        .start();
    let reading = primary.reading();
    let stalled = reading.lock();
    // 110 kB each: several times what the queue takes.
    for _ in 0..200 {
        assert!(ask(nth(0), primary.address()).body.starts_with("hello"));
    }
    wait_for_file(&primary, "out-0.log", "chatter 199999");
    drop(stalled);
    primary.wait_for_log("lines dropped: output is not read fast enough");
    let whole = |line: &str| line.len() == 115 && line.starts_with("chatter ");
    let kept = file(&primary, "out-0.log");
    assert_eq!(kept.lines().filter(|line| whole(line)).count(), 200_000, "files miss nothing");
    eventually("all that was kept is read", || {
        let printed = primary.printed().len();
        let dropped: usize = logged(&primary.log(), "fast enough", "lines=").sum();
        assert!(printed + dropped <= 200_000);
        printed + dropped == 200_000
    });
    let printed = text(&primary.printed());
    assert!(printed.iter().all(|line| whole(line)), "a line is torn");
    assert!(printed.is_sorted());
    primary.stop();
}

#[test]
fn the_end_waits_only_a_moment_for_who_does_not_read() {
    let worker = example("library_worker");
    let mut primary = Primary::with_workers(1).worker(&[&worker, "chatty"]).start();
    let reading = primary.reading();
    let _stalled = reading.lock();
    for _ in 0..50 {
        ask(nth(0), primary.address());
    }
    primary.signal(Signal::TERM);
    assert_eq!(primary.wait().code(), Some(0));
    assert!(primary.log().contains("output blocked"), "{}", primary.log());
}

/// The numbers that follow `key` in the lines of a log with `text`.
fn logged<'a>(log: &'a str, text: &'a str, key: &'a str) -> impl Iterator<Item = usize> + 'a {
    let lines = log.lines().filter(move |line| line.contains(text));
    lines.filter_map(move |line| {
        let (_, number) = line.split_once(key)?;
        number.split(' ').next()?.parse().ok()
    })
}

#[test]
fn the_primarys_own_lines_stay_whole_amid_chatter() {
    let shell =
        "(while ! [ -e quiet ]; do printf 'no end '; yes chatter | head -c 9999; done) >&2 &";
    let primary = prints(2, shell).start();
    for _ in 0..3 {
        let old = primary.worker(0);
        signal(old, Signal::KILL);
        eventually("a successor", || primary.worker(0) != old);
    }
    fs::write(primary.directory().join("quiet"), "").expect("the directory is writable");
    // Where no worker prints, the log is alone there.
    let log = primary.log();
    let is_chatter = |line: &str| {
        let rest = line.strip_prefix("no end ").unwrap_or(line);
        // The last piece of each round has no end of its own.
        "chatter".starts_with(rest.split("no end ").next().unwrap_or_default())
    };
    let is_own = |line: &str| line.starts_with("20") && line.contains("Z ");
    for line in log.lines() {
        assert!(is_own(line) || is_chatter(line), "{line:?}");
    }
    assert!(log.lines().filter(|line| is_own(line)).count() > 10);
    primary.stop();
}

#[test]
fn no_worker_can_forge_an_event() {
    let shell = "echo '{\"event\":\"stopped\"}'; test -e /proc/$$/fd/9 && echo inherited";
    let mut primary = prints(1, shell).start_listening();
    // What is written there by a worker would come before.
    primary.wait_for_event("ready");
    eventually("what it prints", || text(&primary.printed()) == ["{\"event\":\"stopped\"}"]);
    primary.signal(Signal::TERM);
    assert_eq!(primary.wait_for_event("stopped")["how"], "graceful");
    assert_eq!(primary.wait().code(), Some(0));
}

#[test]
fn where_both_streams_are_one_terminal_lines_of_both_are_shown_there() {
    let (mut screen, tty) = Screen::new();
    let copy = tty.try_clone().expect("the kernel has a descriptor left");
    let _primary = prints(1, "echo out; echo err >&2").output(tty).error_output(copy).spawn();
    for line in ["\x1b[0;36m0 |\x1b[0m out\r\n", "\x1b[0;36m0 \x1b[31m|\x1b[0m err\r\n"] {
        screen.wait_for(line);
    }
    screen.wait_for(" · 1 worker ready · Ctrl-C stops");
    assert!(!screen.seen.contains("{\"event\""), "{}", screen.seen);
}

#[test]
fn a_closed_standard_output_is_said_once() {
    let (reader, writer) = std::io::pipe().expect("the kernel has a pipe left");
    drop(reader);
    let shell = "(while :; do echo chatter; sleep 0.05; done) &";
    let mut primary = prints(1, shell).output(writer).arguments(&["--out-file", "out.log"]).spawn();
    wait_for_file(&primary, "out-0.log", "chatter\nchatter\nchatter\n");
    let said = "output cannot be written: lines are lost to=\"standard output\"";
    assert_eq!(primary.log().matches(said).count(), 1);
    primary.signal(Signal::TERM);
    assert_eq!(primary.wait().code(), Some(0));
}

#[test]
fn a_full_disk_is_said_once_and_again_when_it_is_over() {
    // A file system of its own, which nobody else sees. Where the machine forbids that, this fails.
    let disk = "mkdir disk && mount -t tmpfs -o size=64k none disk && head -c 40000 /dev/zero >disk/filler";
    let shell = "(i=10000; while :; do i=$((i+1)); echo line $i has an end; sleep 0.001; done) &";
    let primary = prints(1, shell)
        .prepared_by(&["unshare", "--map-root-user", "--mount"], disk)
        .arguments(&["--out-file", "disk/out.log", "--merge-logs"])
        .start();
    let disk = Path::new("/proc").join(primary.pid().to_string()).join("root");
    let disk = disk.join(primary.directory().strip_prefix("/").expect("absolute")).join("disk");
    primary.wait_for_log("output cannot be written: lines are lost");
    ask(nth(0), primary.address());
    fs::remove_file(disk.join("filler")).expect("it is there");
    primary.wait_for_log("output can be written again");
    let log = primary.log();
    assert_eq!(log.matches("output cannot be written").count(), 1, "said once");
    let lost = logged(&log, "written again", "lost=").next().expect("how many were lost");
    let text = fs::read_to_string(disk.join("out.log")).expect("text");
    let number =
        |line: &str| line.strip_prefix("line ")?.strip_suffix(" has an end")?.parse::<usize>().ok();
    let numbers: Vec<_> = text.lines().map(number).collect();
    let torn = numbers.iter().filter(|number| number.is_none()).count();
    assert!(torn <= 1, "{torn} lines are torn");
    let whole: Vec<_> = numbers.into_iter().flatten().collect();
    let missing: usize = whole.windows(2).map(|pair| pair[1] - pair[0] - 1).sum();
    assert_eq!(missing, lost, "what was lost is what is missing");
    primary.stop();
}

#[test]
fn a_pipe_that_outlives_its_worker_is_closed() {
    // Without its environment it isn't known as the worker's, and isn't ended with it.
    let shell = "if [ $STICKY_LB_GENERATION = 0 ]; then env -i setsid sleep 60 & fi";
    let primary = prints(1, shell).start();
    let pipes = || {
        let all = descriptors(primary.primary_pid());
        all.into_iter().filter(|(_, link)| link.starts_with("pipe:")).count()
    };
    let before = pipes();
    let (old, sleeper) = (primary.worker(0), children(primary.worker(0)));
    signal(old, Signal::KILL);
    eventually("a successor", || primary.worker(0) != old && pipes() > before);
    eventually("the old pipes are closed", || pipes() == before);
    for pid in sleeper {
        signal(pid, Signal::KILL);
    }
}

#[test]
fn nobody_wakes_up_while_nobody_prints() {
    let primary = prints(2, "echo hello").arguments(&["--log-file", "all.log"]).start();
    wait_for_file(&primary, "all-1.log", "hello\n");
    let switches = || -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", primary.primary_pid())).expect("it runs");
        let statuses =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
        let of_output = statuses.filter(|status| status.starts_with("Name:\toutput-"));
        let count = |status: String| {
            Some(status.lines().find(|line| line.starts_with("voluntary_ctxt"))?.to_owned())
        };
        of_output.filter_map(count).collect()
    };
    assert_eq!(switches().len(), 4);
    // Whatever the start has left to do is done when nothing has changed for a while.
    eventually("rest", || {
        let before = switches();
        std::thread::sleep(Duration::from_millis(500));
        switches() == before
    });
}

fn settings(file: PathBuf) -> OutputSettings {
    OutputSettings { out_file: Some(file), merge_logs: true, ..OutputSettings::default() }
}

fn worker() -> WorkerId {
    WorkerId { slot: SlotId(0), generation: Generation(0) }
}

fn this_process() -> i32 {
    std::process::id().try_into().expect("process ids are positive")
}

#[tokio::test]
async fn a_change_moves_to_other_files_or_changes_nothing() {
    let directory = own_directory();
    let path = |name: &str| directory.join(name);
    let output = Output::start(settings(path("old"))).expect("a new file");
    let (stdout, mut says) = std::io::pipe().expect("a pipe");
    let (stderr, _silent) = std::io::pipe().expect("a pipe");
    output.take(worker(), this_process(), stdout.into(), stderr.into());
    let mut say = |line: &str, file: &str| {
        says.write_all(line.as_bytes()).expect("it is read");
        eventually(line, || fs::read_to_string(path(file)).is_ok_and(|text| text.ends_with(line)));
    };
    say("one\n", "old");
    output.change(settings(path("old").join("no folder"))).expect_err("no folder");
    say("two\n", "old");
    output.change(settings(path("new"))).expect("a new file");
    say("three\n", "new");
    assert_eq!(fs::read_to_string(path("old")).expect("it stays"), "one\ntwo\n");
    // Without an end, and never more of it: the end of the whole brings it.
    says.write_all(b"four").expect("it is read");
    assert_eq!(output.dropped(), 0);
    output.finish(TIMEOUT).await;
    assert_eq!(fs::read_to_string(path("new")).expect("it is there"), "three\nfour\n");
}

#[tokio::test]
async fn the_last_lines_can_be_seen_and_followed() {
    let output = Output::start(OutputSettings::default()).expect("threads");
    let (stdout, mut says) = std::io::pipe().expect("a pipe");
    let (stderr, mut complains) = std::io::pipe().expect("a pipe");
    output.take(worker(), this_process(), stdout.into(), stderr.into());
    let seen = |filter, count| -> Vec<String> {
        let printed = output.recent(filter, count).printed;
        printed.lines().map(|line| String::from_utf8_lossy(line.text).into_owned()).collect()
    };
    let (all, err) = (LineFilter::default(), LineFilter { err: true, ..LineFilter::default() });
    says.write_all(b"one\ntwo\nthree\nbegun").expect("it is read");
    eventually("three lines", || seen(all, 9).len() == 3);
    complains.write_all(b"oh\r\n").expect("it is read");
    eventually("a fourth", || seen(all, 9).len() == 4);
    assert_eq!(seen(all, 3), ["two", "three", "oh"]);
    assert_eq!(seen(err, 3), ["oh"]);
    assert_eq!(seen(LineFilter { slot: Some(SlotId(1)), ..all }, 3), [""; 0]);

    let Recent { printed, mut follower } = output.recent(all, 1);
    let last = printed.lines().next().expect("a line");
    let whence = (last.worker, last.pid, last.stream, last.partial);
    assert_eq!(whence, (worker(), this_process(), Stream::Err, false));
    let mut of_stderr = output.recent(err, 0).follower;
    says.write_all(b" and ended\n").expect("it is read");
    let printed = follower.next().await.expect("a line");
    assert_eq!((printed.missed, printed.lines().count()), (0, 1));
    assert_eq!(printed.lines().next().map(|line| line.text), Some(&b"begun and ended"[..]));
    complains.write_all(b"at the end").expect("it is read");
    output.finish(TIMEOUT).await;
    let printed = of_stderr.next().await.expect("a line");
    assert_eq!(printed.lines().map(|line| line.text).collect::<Vec<_>>(), [b"at the end"]);
    assert!(of_stderr.next().await.is_none(), "nothing more comes");
}

/// Prints a line that takes its time, then numbered ones in pieces, then ends.
const PIECES: &str = "printf 'at '; sleep 0.3; echo first; i=0; while [ $i -lt 4000 ]; do i=$((i+1)); printf 'li'; printf \"ne $i\"; \
    printf ' goes on\\n'; printf \"oh $i\\n\" >&2; done; printf 'the end'";

#[tokio::test]
async fn no_line_is_lost_or_cut_when_output_is_handed_over_again_and_again() {
    let directory = own_directory();
    let (out, err) = (directory.join("out"), directory.join("err"));
    let settings = || OutputSettings { error_file: Some(err.clone()), ..settings(out.clone()) };
    let mut output = Output::start(settings()).expect("new files");
    let mut prints = std::process::Command::new("sh")
        .args(["-c", PIECES])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("a shell");
    let pid = prints.id().try_into().expect("process ids are positive");
    let stdout = prints.stdout.take().expect("a pipe").into();
    output.take(worker(), pid, stdout, prints.stderr.take().expect("a pipe").into());
    let (mut begun, mut all) = (0, 0);
    while all < 20 || prints.try_wait().expect("it is ours").is_none() {
        let mut stopped = output.hand_over(TIMEOUT).await;
        for pipe in &mut stopped.pipes {
            begun += usize::from(!pipe.state.begun.is_empty());
            // As it would travel.
            let written = serde_json::to_string(&pipe.state.clone().snapshot());
            let written = written.expect("it can be written");
            pipe.state = Carry::restore(serde_json::from_str(&written).expect("it can be read"));
        }
        stopped.dropped += 1;
        output = Output::resume(settings(), &mut stopped, |error| panic!("{error}"))
            .expect("the same files");
        all += 1;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert_eq!(output.dropped(), all);
    output.finish(TIMEOUT).await;
    assert!(begun > 0, "no line was handed over in the middle, in {all} times");
    let lines = |path: &Path| -> Vec<String> {
        let text = fs::read_to_string(path).expect("it is there");
        text.lines().map(str::to_owned).collect()
    };
    let mut expected = vec!["at first".to_owned()];
    expected.extend((1..=4000).map(|i| format!("line {i} goes on")));
    expected.push("the end".to_owned());
    assert!(lines(&out) == expected, "{:?}", lines(&out));
    assert!(lines(&err) == (1..=4000).map(|i| format!("oh {i}")).collect::<Vec<_>>());
}

#[test]
fn a_file_that_is_the_stream_itself_has_each_line_once() {
    let shell = "echo one; echo two >&2; while ! [ -e go ]; do sleep 0.05; done; echo three";
    for (arguments, is_json) in [
        (&["--out-file", "/dev/stdout", "--error-file", "/dev/stderr"][..], false),
        (&["--log-file", "/proc/self/fd/1"], false),
        (&["--out-file", "/dev/fd/1", "--log-format", "json"], true),
    ] {
        let primary = prints(1, &format!("({shell}) &")).arguments(arguments).start();
        eventually("the first line", || !primary.printed().is_empty());
        fs::write(primary.directory().join("go"), "").unwrap();
        let printed = || text(&primary.printed());
        eventually("the last line", || printed().iter().any(|line| line.contains("three")));
        for word in ["one", "three"] {
            let lines: Vec<_> = printed().into_iter().filter(|line| line.contains(word)).collect();
            assert_eq!(lines.len(), 1, "{arguments:?}: {lines:?}");
            assert_eq!(lines[0].starts_with('{'), is_json, "{arguments:?}: {lines:?}");
        }
        primary.wait_for_log("two");
        assert_eq!(primary.log().matches("two").count(), 1, "{arguments:?}");
    }
}

#[test]
fn no_file_is_written_where_none_is_wanted() {
    let primary = prints(1, "echo one")
        .arguments(&["--out-file", "NULL", "--error-file", "/dev/null", "--log-file", "NULL"])
        .start();
    eventually("the line", || !primary.printed().is_empty());
    let names = || fs::read_dir(primary.directory()).unwrap();
    let names: Vec<_> = names().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().starts_with("NULL")), "{names:?}");
    primary.stop();
}
