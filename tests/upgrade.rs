//! Upgrades of the running primary, on the real binary: the same process, the same workers, and nobody
//! notices; and where the successor would not go on, nothing happens.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use common::client::{ask, connect_from, get_from, nth, read_answer, read_kept_alive, send_get};
use common::counting::Client;
use common::process::{self, Signal};
use common::successor::Program;
use common::{Primary, eventually, example};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde_json::json;
use sticky_lb::protocol::sealed::seal;

#[test]
fn nobody_notices_an_upgrade() {
    let primary =
        Primary::with_workers(2).worker(&[&example("library_worker"), "sessions"]).start();
    let mut clients: Vec<_> = (0..10).map(|n| Client::open(n, &primary, "/count")).collect();
    eventually("all are sessions", || primary.status()["sessions"] == 10);
    let (before, serving) = (primary.status(), primary.serving());
    for upgrades in 1..=5 {
        primary.upgrade();
        clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
        let after = primary.status();
        assert_eq!(after["upgrades"], upgrades);
        for what in ["pid", "primary_pid", "listening", "serving", "workers", "sessions"] {
            assert_eq!(after[what], before[what], "{what}");
        }
        assert!(after["uptime_s"].as_f64() > before["uptime_s"].as_f64());
        assert_eq!(primary.serving(), serving);
        let upgraded = primary.wait_for_event("upgraded");
        assert_eq!(upgraded["pid"], after["pid"]);
    }
    let stopped = primary.stop();
    assert_eq!((&stopped["accepted"], &stopped["lost"]), (&10.into(), &0.into()));
    assert_eq!(stopped["acknowledged"], 10);
}

#[test]
fn a_signal_upgrades_as_well_with_a_keeper_and_without() {
    for keeper in ["--keeper", "--no-keeper"] {
        let primary = Primary::with_workers(1).arguments(&[keeper]).start();
        let worker = ask(nth(0), primary.address()).pid();
        primary.signal(Signal::USR2);
        primary.wait_for_event("upgraded");
        assert_eq!(ask(nth(0), primary.address()).pid(), worker);
        eventually("the successor answers", || primary.try_ask("status").is_some());
        assert_eq!(primary.status()["upgrades"], 1);
        primary.stop();
    }
}

/// Each of them ends a process that has no handlers yet, as at the beginning of a program.
#[test]
fn signals_that_come_in_the_middle_wait_for_the_successor() {
    let primary = Primary::with_workers(1).arguments(&["--no-keeper"]).start();
    let pid = primary.pid();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                process::signal(pid, Signal::USR1);
                thread::park_timeout(Duration::from_micros(100));
            }
        });
        let upgrades = (0..10).map(|_| primary.order_upgrade().status.success());
        let done = upgrades.filter(|done| *done).count();
        over.store(true, Ordering::Relaxed);
        assert_eq!(done, 10, "{}", primary.log());
    });
    assert_eq!(primary.status()["upgrades"], 10);
    primary.stop();
}

#[test]
fn clients_that_come_all_the_time_are_all_served() {
    let primary = Primary::with_workers(2).start();
    let (over, address) = (AtomicBool::new(false), primary.address());
    let over = &over;
    let served = thread::scope(|scope| {
        let come = move |first: u16| {
            let mut served = 0;
            for n in (first..first + 100).cycle() {
                if over.load(Ordering::Relaxed) {
                    return served;
                }
                let answer = get_from(nth(n), address, "/");
                assert!(answer.is_ok(), "{answer:?} after {served}");
                served += 1;
            }
            served
        };
        let clients: Vec<_> = [0, 1_000].map(|first| scope.spawn(move || come(first))).into();
        (0..10).for_each(|_| primary.upgrade());
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>()
    });
    let stopped = primary.stop();
    assert_eq!((&stopped["accepted"], &stopped["lost"]), (&served.into(), &0.into()));
}

#[test]
fn connections_that_wait_for_a_worker_are_carried_over() {
    // The successor of a worker that died takes its time.
    let slow = "test -e died && sleep 2; touch died";
    let arguments = ["--slot-wait", "30s", "--listen-timeout", "20s"];
    let primary = Primary::with_workers(1).arguments(&arguments).slot_zero(slow).start();
    process::signal(primary.worker(0), Signal::KILL);
    eventually("nobody serves", || primary.status()["serving"] == 0);
    let mut waiting: Vec<_> =
        (0..5).map(|n| connect_from(nth(n), primary.address()).unwrap()).collect();
    waiting.iter_mut().for_each(|stream| send_get(stream, "/").unwrap());
    eventually("all wait in the primary", || primary.status()["waiting"] == 5);
    primary.upgrade();
    assert_eq!(primary.status()["waiting"], 5);
    for stream in waiting {
        assert!(read_answer(stream).unwrap().head.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn a_kept_alive_connection_goes_on() {
    let primary = Primary::with_workers(1).start();
    let mut stream = connect_from(nth(0), primary.address()).unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        assert_eq!(read_kept_alive(&mut stream).unwrap().pid(), primary.worker(0));
        primary.upgrade();
    }
}

#[test]
fn a_program_that_is_none_is_refused() {
    let program = Program::fresh();
    let primary = Primary::with_workers(1).upgraded_to(&program).start();
    let worker = ask(nth(0), primary.address()).pid();
    program.replace("#!/bin/false\n");
    assert!(primary.upgrade_in_vain().contains("does not say that it would go on"));
    program.replace("no program at all");
    assert!(primary.upgrade_in_vain().contains("not found"));
    program.replace("#!/bin/sh\necho cannot find libmoon.so >&2; exit 127\n");
    assert!(primary.upgrade_in_vain().contains("cannot find libmoon.so"));
    std::fs::remove_file(program.path()).unwrap();
    assert!(primary.upgrade_in_vain().contains("No such file"));
    program.restore();
    primary.upgrade();
    assert_eq!(ask(nth(0), primary.address()).pid(), worker);
}

#[test]
fn a_program_that_cannot_be_run_after_all_leaves_the_old_one_at_work() {
    let program = Program::fresh();
    let primary = Primary::with_workers(2).upgraded_to(&program).start();
    let serving = primary.serving();
    let mut stream = connect_from(nth(0), primary.address()).unwrap();
    for _ in 0..3 {
        // It understands everything, and is gone when it is needed.
        program.interpose("rm \"$0\"");
        let reason = primary.upgrade_in_vain();
        assert!(reason.contains("No such file"), "{reason}");
        assert_eq!(primary.serving(), serving);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        read_kept_alive(&mut stream).unwrap();
        ask(nth(1), primary.address());
    }
    program.restore();
    primary.upgrade();
    assert_eq!(primary.serving(), serving);
    primary.stop();
}

#[test]
fn a_configuration_that_is_wrong_is_refused() {
    let primary = Primary::with_workers(1).start();
    let file = primary.directory().join("sticky-lb.toml");
    std::fs::write(&file, "workers = \"many\"\nshed_rat = 3\n").unwrap();
    let reason = primary.upgrade_in_vain();
    assert!(reason.contains("workers") && reason.contains("shed_rat"), "{reason}");
    std::fs::write(&file, "close_rate = 3\n").unwrap();
    primary.upgrade();
}

#[test]
fn a_state_of_another_version_is_refused() {
    let program = Program::fresh();
    let primary = Primary::with_workers(1).upgraded_to(&program).start();
    let (fake_admin, built) = (example("continuity"), env!("CARGO_BIN_EXE_sticky-lb"));
    program.replace(&format!("#!/bin/sh\nexec {fake_admin} newer-state {built} -- \"$@\"\n"));
    let reason = primary.upgrade_in_vain();
    assert!(reason.contains("is of version 2") && reason.contains("restart instead"), "{reason}");
}

/// What `check --state` says to a descriptor of that number, and its exit code.
fn check_state(number: i32, descriptor: Option<OwnedFd>) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
    command.args(["check", "--state", &number.to_string()]);
    let mapping = descriptor.map(|parent_fd| FdMapping { parent_fd, child_fd: number });
    command.fd_mappings(mapping.into_iter().collect()).expect("numbers of its own");
    let output = command.output().expect("the binary");
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn only_a_sealed_state_is_taken_for_one() {
    let memory = || memfd_create("sticky-lb sealed", MemfdFlags::ALLOW_SEALING).unwrap();
    let state = seal(br#"{"version":1}"#).unwrap();
    let half_sealed = memory();
    fcntl_add_seals(&half_sealed, SealFlags::WRITE | SealFlags::SHRINK).unwrap();
    let (socket, _far) = UnixStream::pair().unwrap();
    for (what, descriptor, expected) in [
        ("a file", File::open("/etc/passwd").unwrap().into(), "not sealed memory"),
        ("a device", File::open("/dev/zero").unwrap().into(), "not sealed memory"),
        ("a socket", socket.into(), "not sealed memory"),
        ("unsealed memory", memory(), "not sealed memory"),
        ("half sealed memory", half_sealed, "not sealed memory"),
        ("something else that is sealed", seal(b"{}").unwrap(), "is of version 0"),
        ("an empty state", state, "not understood"),
    ] {
        let (code, said) = check_state(12, Some(descriptor));
        assert_eq!(code, Some(1), "{what}: {said}");
        assert!(said.contains(expected), "{what}: {said}");
    }
    // Not open, or open and the process's own: nothing of it is closed.
    for number in [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 99, i32::MAX] {
        let (code, said) = check_state(number, None);
        assert!(matches!(code, Some(1 | 2)), "{number}: {code:?} {said}");
        assert!(said.contains("state") || code == Some(2), "{number}: {said}");
    }
}

#[test]
fn checking_a_state_reads_nothing_else() {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"somebody else's").unwrap();
    drop(writer);
    let (code, said) = check_state(12, Some(reader.try_clone().unwrap().into()));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("descriptor 12 holds no state of a running primary"), "{said}");
    let mut left = String::new();
    reader.read_to_string(&mut left).unwrap();
    assert_eq!(left, "somebody else's");
}

#[test]
fn what_only_a_new_primary_can_change_is_changed_and_workers_are_not() {
    let primary = Primary::with_workers(1).start();
    let worker = primary.worker(0);
    let file = primary.directory().join("sticky-lb.toml");
    std::fs::write(&file, "placement = \"least-connections\"\n[env]\nCOLOUR = \"green\"\n")
        .unwrap();
    primary.upgrade();
    assert_eq!(primary.status()["placement"], "least-connections");
    process::signal(worker, Signal::KILL);
    eventually("the next worker serves", || {
        primary.serving().first().is_some_and(|(_, generation, _)| *generation == 1)
    });
    assert_eq!(process::variable(primary.worker(0), "COLOUR"), None, "that takes a reload");
    primary.ask("reload", json!({}));
    assert_eq!(process::variable(primary.worker(0), "COLOUR").as_deref(), Some("green"));
}

/// A primary with a free port in its file, that file, and another free port.
fn with_port(more: &str) -> (Primary, PathBuf, u16) {
    let [port, other] = [(); 2].map(|()| TcpListener::bind("0.0.0.0:0").unwrap());
    let [port, other] = [port, other].map(|it| it.local_addr().unwrap().port());
    let file = common::own_directory().join("sticky-lb.toml");
    std::fs::write(&file, format!("port = {port}\nworkers = 1\n{more}")).unwrap();
    let primary = Primary::from_flags(&["--config", file.to_str().unwrap()]).start();
    (primary, file, other)
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_upgrade_goes_to_another_port_and_host() {
    let (primary, file, other) = with_port("name = \"one\"\n");
    let worker = primary.worker(0);
    let mut open = connect_from(nth(0), primary.address()).unwrap();
    open.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    read_kept_alive(&mut open).unwrap();
    let control = primary.control();
    let new = format!("port = {other}\nhost = \"127.0.0.1\"\nworkers = 1\nname = \"two\"\n");
    std::fs::write(&file, new).unwrap();
    let (code, said) = {
        let output = primary.order_upgrade();
        (output.status.code(), text(&output))
    };
    assert_eq!(code, Some(0), "{said:?} {}", primary.log());
    assert!(said.0.contains(&format!("clients connect to 127.0.0.1:{other} now")), "{said:?}");
    // The control socket has the new name, and the command has found it.
    assert!(!control.exists(), "{}", control.display());
    let status = primary.status();
    assert_eq!((&status["name"], &status["upgrades"]), (&"two".into(), &1.into()));
    assert_eq!(status["listening"], json!([format!("127.0.0.1:{other}")]));
    // New clients come in there, the open ones stay, nobody listens where they came from.
    let there = ([127, 0, 0, 1], other).into();
    assert_eq!(ask(nth(0), there).pid(), worker);
    open.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    read_kept_alive(&mut open).unwrap();
    assert!(connect_from(nth(1), primary.address()).is_err());
    // After a crash, too; and the next worker is told the new port.
    primary.crash();
    eventually("it is back", || primary.try_ask("status").is_some());
    assert_eq!(ask(nth(0), there).pid(), worker);
    process::signal(worker, Signal::KILL);
    eventually("another worker", || primary.worker(0) != worker);
    let told = process::variable(primary.worker(0), "PORT");
    assert_eq!(told, Some(other.to_string()));
    primary.stop();
}

#[test]
fn a_port_that_is_taken_refuses_the_upgrade() {
    let (primary, file, _) = with_port("");
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    std::fs::write(&file, format!("port = {port}\nworkers = 1\n")).unwrap();
    let said = primary.upgrade_in_vain();
    assert!(said.contains(&format!("port {port} is in use")), "{said}");
    ask(nth(0), primary.address());
    primary.stop();
}

#[test]
fn it_is_said_what_an_upgrade_has_not_applied() {
    let (primary, file, _) = with_port("keeper_min_uptime = \"1s\"\n[env]\nCOLOUR = \"red\"\n");
    let port = primary.port();
    let new = format!(
        "port = {port}\nworkers = 2\nplacement = \"random\"\nkill_timeout = \"9s\"\n\
         keeper_min_uptime = \"2s\"\n[env]\nCOLOUR = \"green\"\n"
    );
    std::fs::write(&file, new).unwrap();
    let output = primary.order_upgrade();
    let (said, complained) = text(&output);
    assert!(output.status.success(), "{said}{complained}");
    let expected = [
        "sticky-lb: not applied: workers, kill_timeout, env: `sticky-lb reload` applies them",
        "sticky-lb: not applied: keeper_min_uptime: a restart of sticky-lb applies it",
    ];
    assert_eq!(complained.lines().collect::<Vec<_>>(), expected);
    assert_eq!(primary.status()["placement"], "random");
    primary.ask("reload", json!({}));
    let (_, complained) = text(&primary.order_upgrade());
    assert_eq!(complained, "", "a reload has applied the rest, and this keeper is what it was");
    primary.stop();
}

#[test]
fn commands_that_follow_go_on_with_the_successor() {
    let primary = Primary::with_workers(4).arguments(&["--min-uptime", "300ms"]).start();
    let command = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
        command.args(words).arg("--control").arg(primary.control());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let events = command(&["events", "-f"]);
    let reload = command(&["reload"]);
    eventually("one slot is replaced", || {
        let rollout = &primary.status()["rollout"];
        rollout["replaced"].as_u64() >= Some(1)
    });
    primary.upgrade();
    let output = reload.wait_with_output().unwrap();
    let (said, complained) = text(&output);
    assert!(output.status.success(), "{said}{complained}");
    assert_eq!(said, "rolling restart 1 is done: 4 of 4 slots have new workers\n");
    primary.stop();
    let output = events.wait_with_output().unwrap();
    let (said, complained) = text(&output);
    for expected in
        ["rolling restart 1 of 4 slots started", "resumed after", "rolling restart 1 done"]
    {
        assert!(said.contains(expected), "{expected}: {said}{complained}");
    }
}

#[test]
fn a_rolling_restart_goes_on_in_the_successor() {
    let primary = Primary::with_workers(4).arguments(&["--min-uptime", "300ms"]).start();
    let reload = primary.begin("reload", json!({}));
    eventually("one slot is replaced", || {
        let rollout = &primary.status()["rollout"];
        rollout["replaced"].as_u64() >= Some(1)
    });
    primary.upgrade();
    drop(reload);
    let reloaded = primary.wait_for_event("reloaded");
    assert_eq!((&reloaded["result"], &reloaded["replaced"]), (&"done".into(), &4.into()));
    let generations: Vec<_> = primary.serving().iter().map(|(_, it, _)| *it).collect();
    assert_eq!(generations, [1; 4]);
    assert_eq!(primary.stop()["killed_workers"], 0);
}

#[test]
fn no_line_of_a_worker_is_lost() {
    let script = "n=0; while [ $n -lt 4000 ]; do n=$((n+1)); printf \"line \"; echo $n; done; \
                  exec \"$0\" demo-worker";
    let demo = env!("CARGO_BIN_EXE_sticky-lb");
    let primary = Primary::with_workers(1).arguments(&["--wait-ready=true"]);
    let primary = primary.arguments(&["--listen-timeout", "30s", "--log-prefix", "never"]);
    let primary = primary.worker(&["sh", "-c", script, demo]).start_listening();
    eventually("the worker prints", || !primary.printed().is_empty());
    for _ in 0..5 {
        primary.upgrade();
    }
    primary.wait_for_event("ready");
    eventually("all is printed", || primary.printed().len() >= 4_000);
    let expected: Vec<_> = (1..=4_000).map(|n| format!("line {n}").into_bytes()).collect();
    assert_eq!(primary.printed(), expected);
}

#[test]
fn while_everything_ends_there_is_no_upgrade() {
    let primary = Primary::with_workers(1).arguments(&["--lameduck", "60s"]).start();
    primary.signal(Signal::TERM);
    primary.wait_for_log("signal received");
    eventually("everything is to end", || primary.status()["stopping"] == true);
    let (code, message) = primary.ask_in_vain("upgrade", json!({}));
    assert_eq!(code, "refused");
    assert!(message.contains("being stopped"), "{message}");
}

#[test]
fn nothing_is_left_open_by_many_upgrades() {
    let primary = Primary::with_workers(2).start();
    let pid = || u32::try_from(primary.status()["primary_pid"].as_u64().unwrap()).unwrap();
    let count = || process::descriptors(pid()).len();
    primary.upgrade();
    eventually("it is quiet", || count() == count());
    let before = process::descriptors(pid()).len();
    (0..10).for_each(|_| primary.upgrade());
    eventually("descriptors are as many as before", || count() <= before);
    assert!(process::children(pid()).iter().all(|it| process::state(*it) != Some('Z')));
}

#[test]
fn nothing_is_left_of_a_program_that_was_asked() {
    let program = Program::fresh();
    let primary = Primary::with_workers(1).upgraded_to(&program).start();
    let left = primary.directory().join("left");
    // It has the state, and what is printed to, and does not end by itself.
    let shell = format!("sleep 1000 & echo $! > {}", left.display());
    for is_good in [true, false] {
        if is_good {
            program.interpose(&format!("if [ \"$1\" = check ]; then {shell}; fi"));
            primary.upgrade();
        } else {
            program.replace(&format!("#!/bin/sh\n{shell}\necho no >&2; exit 1\n"));
            assert!(primary.upgrade_in_vain().contains("refuses: no"));
        }
        let pid = std::fs::read_to_string(&left).unwrap().trim().parse().unwrap();
        eventually("it is gone", || !process::exists(pid));
    }
    primary.stop();
}
