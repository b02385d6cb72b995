//! A primary that dies at each byte of what its worker says, and workers that say anything.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::handover::descriptors::Descriptors;
use crate::link::Link;
use crate::link::event::{LinkEvent, WorkerNote};
use crate::link::inherit::{AdoptedFacts, WorkerFacts};
use crate::link::interface::{Interface, InterfaceChoice};
use crate::link::node::ports::Rights;
use crate::link::node::settings::NodeSettings;
use crate::protocol::ids::{Generation, SlotId, WorkerId};
use crate::protocol::scm_rights::{Received, receive_without_descriptors, send};

const WORKER: WorkerId = WorkerId { slot: SlotId(0), generation: Generation(0) };

/// All that a program says that listens.
const SAID: &str = "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}\n\
    {\"type\":\"of the program\",\"text\":\"äöü\"}\n\
    {\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",\"index\":0,\"data\":null,\"address\":null,\"port\":3000,\
    \"addressType\":4,\"backlog\":0,\"seq\":1}\n\
    {\"cmd\":\"NODE_CLUSTER\",\"act\":\"listening\",\"port\":3000,\"addressType\":4,\"seq\":2}\n";

fn start() -> (Link, OwnedFd) {
    start_as(InterfaceChoice::Only(Interface::Node))
}

fn start_as(interface: InterfaceChoice) -> (Link, OwnedFd) {
    let time = Duration::from_secs(1);
    let facts = WorkerFacts {
        worker: WORKER,
        credits: 4,
        orphan_timeout: time,
        kill_timeout: time,
        migrate_timeout: time,
        protect: false,
        interface,
        rights: Rights::default(),
        port: 3000,
        node: Arc::new(NodeSettings::default()),
    };
    let (link, mut inherit) = Link::start(&facts).unwrap();
    (link, inherit.take("node-channel").unwrap())
}

/// What the keeper has of a link.
fn kept(link: &Link) -> Descriptors {
    let mut kept = Descriptors::default();
    for (part, descriptor) in link.descriptors() {
        kept.insert(part.name(WORKER), descriptor.try_clone_to_owned().unwrap());
    }
    kept
}

fn events(link: &mut Link) -> Vec<LinkEvent> {
    let mut events = Vec::new();
    loop {
        match link.receive().unwrap() {
            LinkEvent::Nothing => return events,
            event => events.push(event),
        }
        assert!(events.len() < 100, "{events:?}");
    }
}

/// Everything that the worker has been sent.
fn sent_to(end: &OwnedFd) -> String {
    let (mut all, mut bytes) = (Vec::new(), [0; 4096]);
    while let Ok(Received::Message { length, .. }) =
        receive_without_descriptors(end.as_fd(), &mut bytes)
    {
        all.extend_from_slice(&bytes[..length]);
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn a_primary_may_die_at_each_byte_of_what_a_worker_says() {
    let facts = AdoptedFacts { credits: 4, port: 3000, ..AdoptedFacts::default() };
    for cut in 0..=SAID.len() {
        let (mut link, end) = start();
        let mut descriptors = kept(&link);
        send(&end, &SAID.as_bytes()[..cut.max(1)], &[]).unwrap();
        let before = events(&mut link);
        drop(link);
        let mut link = Link::adopt(&facts, WORKER, &mut descriptors).unwrap();
        let was_ready = link.is_ready();
        if cut.max(1) < SAID.len() {
            send(&end, &SAID.as_bytes()[cut.max(1)..], &[]).unwrap();
        }
        let after = events(&mut link);
        let all = || before.iter().chain(&after);
        let ready = all().filter(|it| matches!(it, LinkEvent::Ready)).count();
        assert!(link.is_ready() && ready == 1, "{cut}: {before:?} {after:?}");
        assert_eq!(was_ready, before.iter().any(|it| matches!(it, LinkEvent::Ready)), "{cut}");
        assert_eq!(all().filter(|it| matches!(it, LinkEvent::App(_))).count(), 1, "{cut}");
        let said = sent_to(&end);
        assert_eq!(said.matches("\"ack\":1,").count(), 1, "{cut}: {said}");
        assert!(said.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }
}

#[test]
fn a_worker_that_had_said_nothing_as_the_primary_died_gets_clients_of_the_next_one() {
    let facts = AdoptedFacts { credits: 4, port: 3000, ..AdoptedFacts::default() };
    for interface in [InterfaceChoice::Auto, InterfaceChoice::Only(Interface::Node)] {
        let (link, end) = start_as(interface);
        let mut descriptors = kept(&link);
        drop(link);
        let mut link = Link::adopt(&facts, WORKER, &mut descriptors).unwrap();
        send(&end, SAID.as_bytes(), &[]).unwrap();
        assert!(events(&mut link).iter().any(|it| matches!(it, LinkEvent::Ready)));
        // Nobody resumes a link later than the recovery after a crash goes on.
        assert!(!link.is_resyncing(), "{interface:?}: nothing is ever sent");
    }
}

#[test]
fn a_program_that_only_says_that_it_listens_is_not_ready() {
    let (mut link, end) = start();
    let without_query: Vec<_> = SAID.lines().filter(|line| !line.contains("queryServer")).collect();
    send(&end, format!("{}\n\"ready\"\n", without_query.join("\n")).as_bytes(), &[]).unwrap();
    let said = events(&mut link);
    assert!(!said.iter().any(|it| matches!(it, LinkEvent::Ready)), "{said:?}");
    send(&end, SAID.as_bytes(), &[]).unwrap();
    assert!(events(&mut link).iter().any(|it| matches!(it, LinkEvent::Ready)));
}

#[test]
fn long_lines_and_garbage_are_no_end() {
    let (mut link, end) = start();
    send(&end, b"\x80no JSON\n{\"cmd\":\"NODE_CLUSTER\",\n{\"cmd\":\"NODE_X\",\"act\":7}\n\n", &[])
        .unwrap();
    let said = events(&mut link);
    let malformed = |it: &&LinkEvent| matches!(it, LinkEvent::Note(WorkerNote::Malformed));
    assert!(said.iter().any(|it| malformed(&it)), "{said:?}");
    // Ten megabytes in one line, as far as the channel has room at a time.
    let line = [vec![b'"'], vec![b'x'; 10 << 20], b"\"\n".to_vec()].concat();
    let mut app = Vec::new();
    for piece in line.chunks(64 * 1024) {
        send(&end, piece, &[]).unwrap();
        app.extend(events(&mut link).into_iter().filter_map(|event| match event {
            LinkEvent::App(bytes) => Some(bytes.len()),
            _ => None,
        }));
    }
    assert_eq!(app, [line.len() - 1]);
    send(&end, SAID.as_bytes(), &[]).unwrap();
    assert!(events(&mut link).iter().any(|it| matches!(it, LinkEvent::Ready)));
}

#[test]
fn descriptors_that_a_worker_sends_are_closed_and_it_goes_on() {
    let (mut link, end) = start();
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let line = b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":\"mine\"}\n";
    send(&end, line, &[far.as_fd()]).unwrap();
    drop(far);
    events(&mut link);
    link.send_outgoing().unwrap();
    assert!(sent_to(&end).contains("NODE_HANDLE_ACK"));
    near.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(std::io::Read::read(&mut &near, &mut [0; 1]).unwrap(), 0, "it is closed");
}
