//! What is kept, for whom, and what the service manager hears of it.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::json;

use crate::common::client::{ask, nth};
use crate::common::process::{Signal, descriptors, signal, variable};
use crate::common::{Primary, TIMEOUT, eventually};
use crate::{keeps_program, patient};

/// Says something to the keeper over its primary's own socket, which takes privileges to have.
pub(crate) fn say(primary: &Primary, text: &str, descriptors: &[BorrowedFd<'_>]) {
    let own = primary.primary_pid();
    let number = variable(own, "STICKY_LB_KEEPER_SOCKET").unwrap().parse().unwrap();
    let process = pidfd_open(pid(own), PidfdFlags::empty()).unwrap();
    let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).unwrap();
    let mut space = vec![MaybeUninit::uninit(); 2_000];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    let bytes = [IoSlice::new(text.as_bytes())];
    // The primary's end never waits, and its queue is short.
    eventually("there is room", || {
        match sendmsg(&socket, &bytes, &mut control, SendFlags::empty()) {
            Err(Errno::AGAIN) => false,
            sent => sent.is_ok(),
        }
    });
}

fn pid(number: u32) -> Pid {
    i32::try_from(number).ok().and_then(Pid::from_raw).unwrap()
}

/// The names of what a primary was started with, without those that it keeps by itself beside program and
/// listener.
fn names(primary: u32) -> Vec<String> {
    const OWN: [&str; 14] = [
        "kept-configuration",
        "kept-channel.",
        "kept-worker-end.",
        "kept-scoreboard.",
        "kept-process.",
        "kept-stdout.",
        "kept-stderr.",
        "kept-primary",
        "kept-journal",
        "kept-counters",
        "kept-control",
        "kept-admin",
        "kept-lines",
        "kept-events",
    ];
    let names = names_of(primary).into_iter();
    names.filter(|name| !OWN.iter().any(|own| name.starts_with(own))).collect()
}

/// The names of all that a primary was started with.
fn names_of(primary: u32) -> Vec<String> {
    let names = variable(primary, "LISTEN_FDNAMES").unwrap_or_default();
    names.split(':').map(str::to_owned).collect()
}

/// The sockets of a process that others can send datagrams to. It has a copy of the control socket, too, which
/// it doesn't read.
fn named_sockets(pid: u32) -> Vec<String> {
    let all = std::fs::read_to_string("/proc/net/unix").unwrap();
    let own: Vec<_> = descriptors(pid).into_iter().map(|(_, link)| link).collect();
    // Number, references, protocol, flags, type, state, inode, and the name if it has one.
    let lines = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let named = lines.filter(|words| words.len() > 7 && words[4] == "0002");
    let of_it = named.filter(|words| own.contains(&format!("socket:[{}]", words[6])));
    of_it.map(|words| words[7].to_owned()).collect()
}

#[test]
fn nobody_but_the_primary_can_send_to_the_keeper() {
    let primary = patient(1).start();
    for _ in 0..2 {
        assert_eq!(named_sockets(primary.pid()), [""; 0]);
        assert_eq!(variable(primary.primary_pid(), "NOTIFY_SOCKET"), None);
        assert_eq!(variable(primary.worker(0), "STICKY_LB_KEEPER_SOCKET"), None);
        primary.crash();
        primary.wait_for_event("recovered");
    }
    primary.stop();
}

#[test]
fn a_keeper_that_stands_still_keeps_nobody_waiting() {
    let primary = patient(4).start();
    eventually("the primary is heard", || keeps_program(&primary));
    signal(primary.pid(), Signal::STOP);
    primary.ask("reload", json!({}));
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    ask(nth(0), primary.address());
    signal(primary.pid(), Signal::CONT);
    let kept = |pid| names_of(pid).iter().filter(|name| name.starts_with("kept-channel.")).count();
    let before = primary.status();
    primary.upgrade();
    assert_eq!(kept(primary.crash()), 4, "what the keeper has heard late");
    primary.wait_for_recovery(&before);
    primary.stop();
}

#[test]
fn what_makes_no_sense_harms_nobody() {
    let primary = patient(1).start();
    eventually("the primary is heard", || keeps_program(&primary));
    let null = File::open("/dev/null").unwrap();
    let null = null.as_fd();
    let long = format!("FDSTORE=1\nFDNAME=kept-long\n{}", "x".repeat(5_000));
    for text in [
        "",
        "\n",
        "=",
        "FDSTORE",
        "FDSTORE=1",
        "FDSTORE=1\nFDNAME=",
        "FDSTORE=1\nFDNAME=a:b",
        "FDSTORE=1\nFDNAME=a\tb",
        "FDSTOREREMOVE=1\nFDNAME=kept-unknown",
        "BARRIER=1",
        &long,
    ] {
        say(&primary, text, &[null, null]);
        say(&primary, text, &[]);
    }
    let next = primary.crash();
    assert_eq!(names(next), ["kept-program", "kept-listener"]);
    primary.stop();
}

#[test]
fn several_descriptors_by_one_name_are_kept_and_removed_together() {
    let primary = patient(1).start();
    eventually("the primary is heard", || keeps_program(&primary));
    let null = File::open("/dev/null").unwrap();
    say(&primary, "FDSTORE=1\nFDNAME=kept-several\n", &[null.as_fd(); 3]);
    say(&primary, "FDSTORE=1\nFDNAME=kept-one\nFDPOLL=1\n", &[null.as_fd()]);
    let several = ["kept-several"; 3];
    let next = primary.crash();
    assert_eq!(names(next)[2..], [&several[..], &["kept-one"]].concat());
    primary.wait_for_event("recovered");
    say(&primary, "FDSTOREREMOVE=1\nFDNAME=kept-several\n", &[]);
    let next = primary.crash();
    assert!(!names(next).iter().any(|name| name == "kept-several"), "{:?}", names(next));
    primary.stop();
}

#[test]
fn very_many_descriptors_reach_the_next_primary() {
    let primary = patient(1).start();
    eventually("the primary is heard", || keeps_program(&primary));
    let null = File::open("/dev/null").unwrap();
    for n in 0..70 {
        let text = format!("FDSTORE=1\nFDNAME=kept-of.many.{n:08}\n");
        say(&primary, &text, &[null.as_fd(); 100]);
    }
    let next = primary.crash();
    let passed = variable(next, "LISTEN_FDS").and_then(|count| count.parse::<u32>().ok());
    assert!(passed >= Some(7_002), "{passed:?}");
    assert!(variable(next, "STICKY_LB_FDNAMES_1").is_some(), "more than one variable may hold");
    primary.wait_for_event("recovered");
    ask(nth(0), primary.address());
    primary.stop();
}

/// A service manager that listens.
fn manager() -> (UnixDatagram, String) {
    let path = crate::common::own_directory().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    (socket, path.to_str().unwrap().to_owned())
}

/// Hears until a message says that line: everything up to it.
fn hear(manager: &UnixDatagram, line: &str) -> Vec<String> {
    let mut heard = Vec::<String>::new();
    while !heard.iter().any(|message| message.lines().any(|said| said == line)) {
        let mut buffer = [0; 1024];
        let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}: {heard:?}"));
        heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    heard
}

#[test]
fn the_service_manager_hears_of_the_keeper_and_of_nothing_that_is_kept() {
    let (manager, name) = manager();
    let primary = patient(2).environment("NOTIFY_SOCKET", &name).start();
    let ready = format!("MAINPID={}", primary.pid());
    let mut heard = hear(&manager, &ready);
    primary.crash();
    heard.extend(hear(&manager, &ready));
    let last = heard.last().unwrap();
    assert_eq!(last, &format!("READY=1\nMAINPID={}\n", primary.pid()));
    assert!(!heard.iter().any(|message| message.contains("FD")), "{heard:?}");
    assert!(heard.contains(&"STATUS=2 of 2 workers serve\n".to_owned()), "{heard:?}");
    primary.signal(Signal::TERM);
    hear(&manager, "STOPPING=1");
    primary.stop_finished();
}

#[test]
fn a_manager_that_keeps_descriptors_is_the_keeper() {
    let (manager, name) = manager();
    // Its queue is short: somebody has to listen.
    let hearing = std::thread::spawn(move || hear(&manager, "READY=1"));
    let primary =
        patient(1).environment("NOTIFY_SOCKET", &name).environment("FDSTORE", "512").start();
    assert_eq!(primary.primary_pid(), primary.pid());
    let heard = hearing.join().unwrap();
    for kept in ["program", "listener"] {
        let expected = format!("FDSTORE=1\nFDNAME=kept-{kept}\nFDPOLL=0\n");
        assert!(heard.contains(&expected), "{heard:?}");
    }
    assert_eq!(variable(primary.worker(0), "FDSTORE"), None);
    primary.stop();
}

#[test]
fn the_socket_of_a_service_manager_is_there_after_a_crash_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let launcher = ["sh", "-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\""];
    let primary = patient(1)
        .launcher(&launcher)
        .environment("LISTEN_FDS", "1")
        .environment("LISTEN_FDNAMES", "web")
        .descriptor(listener.try_clone().unwrap().into())
        .start();
    assert_eq!(names(primary.primary_pid()), ["listener"]);
    assert_eq!(variable(primary.primary_pid(), "LISTEN_PID"), None);
    eventually("the primary is heard", || keeps_program(&primary));
    let next = primary.crash();
    assert_eq!(names(next), ["listener", "kept-program", "kept-listener"]);
    primary.wait_for_event("recovered");
    assert_eq!(primary.address(), listener.local_addr().unwrap());
    ask(nth(0), primary.address());
    let worker = primary.worker(0);
    for name in
        ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "STICKY_LB_KEEPER", "STICKY_LB_PROGRAM"]
    {
        assert_eq!(variable(worker, name), None, "{name}");
    }
    let of_test = descriptors(std::process::id());
    let (_, link) = of_test.iter().find(|(number, _)| *number == listener.as_raw_fd()).unwrap();
    let has_it = |pid| descriptors(pid).iter().filter(|(_, other)| other == link).count();
    assert_eq!((has_it(worker), has_it(next)), (0, 1), "of worker and primary");
    primary.stop();
}
