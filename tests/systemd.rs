//! What the primary and its service manager say to each other; the test plays the manager.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use common::client::{ask, connect_from, get_from, nth, read_answer, send_get};
use common::process::{Signal, signal, variable};
use common::{Builder, Primary, TIMEOUT, eventually};
use rustix::net::{AddressFamily, SocketType, ipproto};

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    /// As `NOTIFY_SOCKET` names it.
    name: String,
    heard: Vec<String>,
}

impl Manager {
    fn at_path() -> Self {
        let path = common::own_directory().join("notify");
        Self::new(SocketAddr::from_pathname(&path).unwrap(), path.to_str().unwrap().to_owned())
    }

    fn with_abstract_name() -> Self {
        let name = format!("sticky-lb-test-{}", std::process::id());
        Self::new(SocketAddr::from_abstract_name(&name).unwrap(), format!("@{name}"))
    }

    fn new(address: SocketAddr, name: String) -> Self {
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self { socket, name, heard: Vec::new() }
    }

    /// Waits for a message that says `line`, and returns it whole.
    fn wait_for(&mut self, line: &str) -> String {
        loop {
            let mut buffer = [0; 1024];
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("no {line}: {error}; heard {:?}", self.heard);
            });
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.push(message.clone());
            if message.lines().any(|heard| heard == line) {
                return message;
            }
        }
    }

    /// All that was said until now.
    fn all(mut self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 1024];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    self.heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.heard,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Sets what a manager sets for the process that it starts, by its own number.
const AS_MANAGED: &[&str] =
    &["sh", "-c", "export LISTEN_PID=$$ WATCHDOG_PID=$$; exec \"$0\" \"$@\""];

#[test]
fn the_manager_learns_of_ready_progress_and_the_end() {
    for mut manager in [Manager::at_path(), Manager::with_abstract_name()] {
        let primary = Primary::with_workers(2).environment("NOTIFY_SOCKET", &manager.name).start();
        let ready = manager.wait_for("READY=1");
        assert_eq!(ready, format!("READY=1\nMAINPID={}\n", primary.pid()));
        assert!(manager.heard.iter().any(|message| message == "STATUS=2 of 2 workers serve\n"));
        signal(primary.worker(1), Signal::KILL);
        manager.wait_for("STATUS=1 of 2 workers serve");
        manager.wait_for("STATUS=2 of 2 workers serve");
        primary.signal(Signal::TERM);
        manager.wait_for("STOPPING=1");
        primary.stop_finished();
        let all = manager.all();
        assert_eq!(all.iter().filter(|message| message.contains("READY=1")).count(), 1, "{all:?}");
        assert!(!all.iter().any(|message| message.contains("WATCHDOG")), "{all:?}");
    }
}

#[test]
fn the_manager_learns_of_a_rolling_restart() {
    let mut manager = Manager::at_path();
    let primary = Primary::with_workers(2)
        .environment("NOTIFY_SOCKET", &manager.name)
        .arguments(&["--min-uptime", "0"])
        .start();
    manager.wait_for("READY=1");
    primary.signal(Signal::HUP);
    assert!(manager.wait_for("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.wait_for("READY=1");
    primary.stop();
}

#[test]
fn one_slot_whose_workers_keep_dying_does_not_fail_the_start() {
    let mut manager = Manager::at_path();
    let _primary = Primary::with_workers(2)
        .environment("NOTIFY_SOCKET", &manager.name)
        .slot_zero("exit 3")
        .start_listening();
    manager.wait_for("READY=1");
}

#[test]
fn nobody_is_told_that_all_is_ready_before_it_is() {
    let manager = Manager::at_path();
    let (code, _) = Primary::with_workers(2)
        .environment("NOTIFY_SOCKET", &manager.name)
        .test_worker(&["exits"])
        .run();
    assert_eq!(code, Some(1));
    let all = manager.all();
    assert!(!all.iter().any(|message| message.contains("READY=1")), "{all:?}");
}

#[test]
fn the_watchdog_is_fed_as_long_as_all_goes_on() {
    let mut manager = Manager::at_path();
    let primary = Primary::with_workers(2)
        .launcher(AS_MANAGED)
        .environment("NOTIFY_SOCKET", &manager.name)
        .environment("WATCHDOG_USEC", "100000")
        .start();
    for _ in 0..5 {
        manager.wait_for("WATCHDOG=1");
    }
    signal(primary.primary_pid(), Signal::STOP);
    eventually("it stands still", || common::process::state(primary.primary_pid()) == Some('T'));
    let socket = manager.socket.try_clone().unwrap();
    manager.all();
    // Twice the time in which the manager loses its patience.
    std::thread::park_timeout(std::time::Duration::from_millis(200));
    assert_eq!(socket.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    signal(primary.primary_pid(), Signal::CONT);
    primary.stop();
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let manager = Manager::at_path();
    let primary = Primary::with_workers(1)
        .environment("NOTIFY_SOCKET", &manager.name)
        .environment("WATCHDOG_USEC", "20000")
        .environment("WATCHDOG_PID", "1")
        .start();
    ask(nth(0), primary.address());
    primary.stop();
    let all = manager.all();
    assert!(!all.iter().any(|message| message.contains("WATCHDOG")), "{all:?}");
}

#[test]
fn a_manager_that_is_gone_is_said_once_and_no_matter() {
    let primary = Primary::with_workers(2).environment("NOTIFY_SOCKET", "/nonexistent").start();
    signal(primary.worker(0), Signal::KILL);
    primary.wait_for_log("slot=0 generation=1");
    assert_eq!(primary.log().matches("cannot notify the service manager").count(), 1);
    primary.stop();
}

#[test]
fn workers_do_not_speak_for_the_primary() {
    let manager = Manager::at_path();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let primary = activated(Primary::with_workers(1), &[&listener])
        .environment("NOTIFY_SOCKET", &manager.name)
        .start();
    let worker = primary.worker(0);
    for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        assert_eq!(variable(worker, name), None, "{name}");
    }
    let listeners = common::process::descriptors(primary.primary_pid());
    let sockets = common::process::descriptors(worker);
    let (_, inherited) = listeners.iter().find(|(number, _)| *number == 3).unwrap();
    assert!(!sockets.iter().any(|(_, link)| link == inherited), "a worker has the listener");
}

/// With listeners passed as a manager passes them.
fn activated(builder: Builder, listeners: &[&TcpListener]) -> Builder {
    let count = listeners.len().to_string();
    let builder = builder
        .launcher(AS_MANAGED)
        .environment("LISTEN_FDS", &count)
        .environment("LISTEN_FDNAMES", "web:admin");
    listeners
        .iter()
        .fold(builder, |builder, listener| builder.descriptor(listener.try_clone().unwrap().into()))
}

#[test]
fn whoever_comes_between_two_runs_is_served_by_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for run in 0..3 {
        let mut early: Vec<_> = (0..10).map(|n| connect_from(nth(n), address).unwrap()).collect();
        for client in &mut early {
            send_get(client, "/").unwrap();
        }
        let primary = activated(Primary::with_workers(2), &[&listener]).start();
        assert_eq!(primary.address(), address);
        for client in early {
            read_answer(client).unwrap();
        }
        ask(nth(99), address);
        primary.wait_for_log("inherited socket is used, not --host and --port");
        let stopped = primary.stop();
        assert_eq!((&stopped["accepted"], &stopped["lost"]), (&11.into(), &0.into()), "{run}");
    }
}

#[test]
fn an_inherited_listener_that_blocks_does_not_block_the_primary() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let primary = activated(Primary::with_workers(1), &[&listener]).start();
    for n in 0..5 {
        assert_eq!(get_from(nth(n), primary.address(), "/health").unwrap().slot(), 0);
    }
    primary.stop();
}

#[test]
fn what_is_passed_to_another_process_is_none_of_ours() {
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let primary = Primary::with_workers(1)
        .environment("LISTEN_FDS", "1")
        .environment("LISTEN_PID", "1")
        .descriptor(theirs.try_clone().unwrap().into())
        .start();
    assert_ne!(primary.port(), theirs.local_addr().unwrap().port());
    ask(nth(0), primary.address());
    primary.stop();
}

/// As `SocketProtocol=mptcp` makes it; the kernel must have MPTCP, as those of distributions do.
fn multipath_listener() -> OwnedFd {
    let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
    let socket = rustix::net::socket(family, kind, Some(ipproto::MPTCP)).expect("MPTCP");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    rustix::net::bind(&socket, &any).unwrap();
    rustix::net::listen(&socket, 16).unwrap();
    socket
}

#[test]
fn what_cannot_be_served_from_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let one = || Primary::with_workers(1).launcher(AS_MANAGED).environment("LISTEN_FDS", "1");
    for (builder, expected) in [
        (
            activated(Primary::with_workers(1), &[&listener, &listener]),
            "2 sockets are passed (LISTEN_FDS, LISTEN_FDNAMES=\"web:admin\"), expected one",
        ),
        (one().descriptor(datagrams.into()), "expected a TCP socket that listens"),
        (one().descriptor(multipath_listener()), "remove SocketProtocol=mptcp"),
        (one(), "cannot use descriptor 3, the socket that is passed (LISTEN_FDS)"),
        (one().environment("LISTEN_FDS", "all"), "LISTEN_FDS=\"all\" is no number"),
    ] {
        let (code, log) = builder.run();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(expected), "{log}");
    }
}
