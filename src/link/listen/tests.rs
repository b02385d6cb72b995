//! What comes in at the socket of a worker's notifications, and primaries that die. The worker is this process.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::handover::descriptors::Descriptors;
use crate::link::dialect::LoadSource;
use crate::link::event::{LinkEvent, SessionEvent};
use crate::link::inherit::{AdoptedFacts, WorkerFacts};
use crate::link::interface::{Interface, InterfaceChoice};
use crate::link::listen::notify::NOTIFY;
use crate::link::native::PAGE;
use crate::link::node::ports::Rights;
use crate::link::node::settings::NodeSettings;
use crate::link::stats_source::StatsSource;
use crate::link::{Link, snapshot};
use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::protocol::ids::{Generation, SlotId, Timestamp, WorkerId};
use crate::protocol::scoreboard::{Counter, Scoreboard};

const WORKER: WorkerId = WorkerId { slot: SlotId(2), generation: Generation(5) };

/// A link, and the worker's socket to it.
struct Harness {
    link: Link,
    name: String,
    worker: UnixDatagram,
}

impl Harness {
    fn start() -> Self {
        let time = Duration::from_secs(1);
        let facts = WorkerFacts {
            worker: WORKER,
            credits: 4,
            orphan_timeout: time,
            kill_timeout: time,
            migrate_timeout: time,
            protect: false,
            interface: InterfaceChoice::Only(Interface::Listen),
            rights: Rights::default(),
            port: 3000,
            node: Arc::new(NodeSettings { wait_ready: true, ..NodeSettings::default() }),
        };
        let (link, inherit) = Link::start(&facts).unwrap();
        let variables = inherit.number().variables;
        let name = variables.into_iter().find(|(name, _)| *name == "NOTIFY_SOCKET").unwrap().1;
        let worker = UnixDatagram::unbound().unwrap();
        worker.connect(&name).unwrap();
        let harness = Self { link, name, worker };
        harness.is_process(std::process::id());
        harness
    }

    /// The worker's process is this one.
    fn is_process(&self, pid: u32) {
        self.page().set(Counter::Process, pid.into());
    }

    fn page(&self) -> Scoreboard {
        let descriptors = self.link.descriptors();
        Scoreboard::open(descriptors.iter().find(|(part, _)| *part == PAGE).unwrap().1).unwrap()
    }

    fn say(&mut self, message: &[u8]) -> LinkEvent {
        self.worker.send(message).unwrap();
        self.link.receive().unwrap()
    }

    fn say_with(&mut self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> LinkEvent {
        let mut space = [std::mem::MaybeUninit::uninit(); 2048];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        let message = [std::io::IoSlice::new(message)];
        sendmsg(&self.worker, &message, &mut control, SendFlags::empty()).unwrap();
        self.link.receive().unwrap()
    }
}

/// The primary dies: nothing of it is dropped.
fn crash(link: Link) -> Descriptors {
    let mut kept = Descriptors::default();
    for (part, descriptor) in link.descriptors() {
        kept.insert(part.name(WORKER), descriptor.try_clone_to_owned().unwrap());
    }
    std::mem::forget(link);
    kept
}

/// Whether all copies of the other end are closed, in time.
fn is_closed(mut reader: std::io::PipeReader) -> bool {
    let timeout = Timespec { tv_sec: 20, tv_nsec: 0 };
    let is_readable = poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&timeout)) == Ok(1);
    is_readable && reader.read(&mut [0]).unwrap() == 0
}

fn is_ignored(event: &LinkEvent) -> bool {
    matches!(event, LinkEvent::Session(SessionEvent::Ignored))
}

#[test]
fn a_worker_is_ready_once_and_when_it_says_so() {
    let mut it = Harness::start();
    assert_eq!(it.link.interface(), Some(Interface::Listen));
    assert!(!it.link.is_ready() && !it.link.is_attached());
    assert!(matches!(it.link.receive().unwrap(), LinkEvent::Nothing));
    for other in ["STATUS=starting", "RELOADING=1\nMONOTONIC_USEC=7", "MAINPID=1", "", "\n", "="] {
        assert!(is_ignored(&it.say(other.as_bytes())), "{other:?}");
    }
    assert!(!it.link.awaits_probe(), "it has to say so");
    assert!(matches!(it.say(b"MAINPID=7\nREADY=1\n"), LinkEvent::Ready));
    assert!(it.link.awaits_probe() && !it.link.is_ready(), "and to show it");
    assert!(it.link.note_attached() && !it.link.note_attached());
    assert!(it.link.is_ready() && !it.link.awaits_probe());
    for other in ["READY=1", "STOPPING=1", "READY=0"] {
        assert!(is_ignored(&it.say(other.as_bytes())), "{other}");
    }
    assert!(it.link.is_ready(), "it is for good");
}

#[test]
fn a_message_that_is_too_long_is_ignored() {
    let mut it = Harness::start();
    let long = [&b"READY=1\n"[..], &[b'x'; 5000]].concat();
    assert!(is_ignored(&it.say(&long)));
    assert!(is_ignored(&it.say(&[0xff; 4096])));
    assert!(matches!(it.say(b"READY=1"), LinkEvent::Ready));
}

#[test]
fn only_the_workers_processes_count() {
    let mut it = Harness::start();
    // Not known yet, of another process, above: of all processes.
    let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get().unsigned_abs();
    for pid in [0, u32::MAX, std::process::id() + 1] {
        it.is_process(pid);
        assert!(is_ignored(&it.say(b"READY=1")), "{pid}");
    }
    it.is_process(parent);
    assert!(matches!(it.say(b"READY=1"), LinkEvent::Ready));
}

#[test]
fn each_receive_reads_one_message() {
    let mut it = Harness::start();
    it.worker.set_nonblocking(true).unwrap();
    let mut queued = 0;
    while it.worker.send(b"STATUS=flood").is_ok() {
        queued += 1;
        assert!(queued < 100_000, "the queue has no end");
    }
    for _ in 0..queued {
        assert!(is_ignored(&it.link.receive().unwrap()));
    }
    assert!(matches!(it.link.receive().unwrap(), LinkEvent::Nothing));
    // Others may go on sending: the end of a worker doesn't read them.
    it.worker.send(b"STATUS=flood").unwrap();
    assert!(it.link.recover().untouched.is_empty());
}

#[test]
fn descriptors_are_closed_and_a_barrier_is_answered() {
    for message in ["BARRIER=1", "FDSTORE=1\nFDNAME=x", "nonsense"] {
        let mut it = Harness::start();
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(is_ignored(&it.say_with(message.as_bytes(), &[writer.as_fd()])));
        drop(writer);
        assert!(is_closed(reader), "{message}");
    }
    // As many as can come.
    let mut it = Harness::start();
    let (reader, writer) = std::io::pipe().unwrap();
    assert!(matches!(it.say_with(b"READY=1", &[writer.as_fd(); 253]), LinkEvent::Ready));
    drop(writer);
    assert!(is_closed(reader));
}

#[test]
fn readiness_survives_a_crash_of_the_primary() {
    let node = Arc::new(NodeSettings { wait_ready: true, ..NodeSettings::default() });
    let facts = AdoptedFacts { node, ..AdoptedFacts::default() };
    let mut it = Harness::start();
    let mut kept = crash(it.link);
    assert_eq!(snapshot::workers(&kept), [WORKER]);
    it.link = Link::adopt(&facts, WORKER, &mut kept).unwrap();
    assert!(kept.is_empty() && !it.link.is_ready() && !it.link.is_attached());
    assert_eq!(it.link.interface(), Some(Interface::Listen));
    // Said while there is no primary: the next one hears it, and knows the worker.
    let mut kept = crash(it.link);
    it.worker.send(b"READY=1").unwrap();
    it.link = Link::adopt(&facts, WORKER, &mut kept).unwrap();
    assert!(!it.link.is_ready() && matches!(it.link.receive().unwrap(), LinkEvent::Ready));
    let mut kept = crash(it.link);
    it.link = Link::adopt(&facts, WORKER, &mut kept).unwrap();
    assert!(it.link.awaits_probe() && is_ignored(&it.say(b"READY=1")));
    it.link.note_attached();
    let mut kept = crash(it.link);
    it.link = Link::adopt(&facts, WORKER, &mut kept).unwrap();
    assert!(it.link.is_ready());
    let parts: Vec<_> = it.link.descriptors().into_iter().map(|(part, _)| part).collect();
    assert_eq!(parts, [NOTIFY, PAGE]);
    assert!(parts.iter().all(|part| snapshot::parts().any(|known| known == *part)));
}

#[test]
fn readiness_that_a_probe_has_found_is_noted() {
    let mut it = Harness::start();
    assert!(it.link.note_attached() && !it.link.is_ready(), "it hasn't said so");
    let mut kept = crash(it.link);
    assert!(Link::adopt(&AdoptedFacts::default(), WORKER, &mut kept).unwrap().is_ready());
}

#[test]
fn a_link_survives_an_upgrade_and_its_file_goes_with_it() {
    let mut it = Harness::start();
    assert!(matches!(it.say(b"READY=1"), LinkEvent::Ready));
    it.link.note_attached();
    let mut descriptors = Descriptors::default();
    let left = snapshot::into_snapshot(it.link, WORKER, &mut descriptors).unwrap();
    let left = serde_json::from_str(&serde_json::to_string(&left).unwrap()).unwrap();
    it.link = snapshot::restore(left, WORKER, &mut descriptors).unwrap();
    assert!(descriptors.is_empty() && it.link.is_ready());
    assert!(is_ignored(&it.say(b"STATUS=still here")));
    assert!(Path::new(&it.name).is_absolute() && Path::new(&it.name).exists(), "{}", it.name);
    drop(it.link);
    assert!(!Path::new(&it.name).exists());
}

#[test]
fn nothing_is_handed_over_and_the_kernel_counts() {
    let mut it = Harness::start();
    let can = it.link.capabilities();
    assert!(!can.ping && !can.sessions && !can.acknowledges && can.load == LoadSource::Kernel);
    assert_eq!(it.link.send_from(&mut [].into(), Timestamp::now()).unwrap(), 0);
    assert!(it.link.in_flight().is_empty() && it.link.in_flight().room() == 0);
    let stats = StatsSource::new(&it.link).unwrap();
    assert!(!stats.has_attached() && it.link.note_attached() && stats.has_attached());
    assert!(!stats.is_drain_ordered());
    stats.note_clients(7);
    assert_eq!((it.link.load(), stats.read().connections), (7, Some(7)));
    let (mode, reason, window) = (DrainMode::Wait, DrainReason::Restart, Duration::from_secs(1));
    it.link.drain(DrainOrder { mode, reason, window });
    assert!(stats.is_drain_ordered() && stats.read().open_at_drain == Some(7));
}

/// Two workers' sockets differ, and another user's worker may send.
#[test]
fn names_differ_and_everybody_may_send() {
    use std::os::unix::fs::PermissionsExt;
    let (one, other) = (Harness::start(), Harness::start());
    assert_ne!(one.name, other.name);
    let mode = std::fs::metadata(&one.name).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
}
