//! A primary that is out of descriptors gives sessions back to whom they come from. Alone in its
//! process, whose limit it changes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use common::fake_worker::{FakeWorker, FromPrimary, parcel_file, sealed};
use common::process::descriptors;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sticky_lb::internals::link::event::{LinkEvent, SessionEvent};
use sticky_lb::internals::link::seam::WorkerId;
use sticky_lb::protocol::ids::{AffinityKey, ConnectionId, Generation, SlotId, Timestamp};
use sticky_lb::protocol::message::{ConnectionRecord, HELLO, READY, SESSIONS};

/// Lets this process open so many more.
fn leave(more: usize) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = |current| setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    limit(maximum);
    // The limit is one of numbers: as many free ones lie below it. The directory that is read is
    // closed again.
    let open = descriptors(std::process::id());
    let open = open.iter().filter(|(_, link)| !link.ends_with("/fd"));
    let open: Vec<_> = open.map(|(number, _)| *number).collect();
    let next = (0..).filter(|number| !open.contains(number)).nth(more).unwrap();
    limit(Some(u64::try_from(next).unwrap()));
}

#[test]
fn a_session_that_does_not_arrive_whole_returns() {
    let id = WorkerId { slot: SlotId(0), generation: Generation(0) };
    let (mut mover, mut channel) = FakeWorker::alone(id);
    for message in [HELLO, SESSIONS, READY] {
        mover.say(&message);
        channel.receive().unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = listener.local_addr().unwrap();
    let _client = TcpStream::connect(local).unwrap();
    let (socket, client) = listener.accept().unwrap();
    let socket = OwnedFd::from(socket);
    let (accepted_at, key) = (Timestamp(0), AffinityKey(0));
    let id = ConnectionId(1);
    let record = ConnectionRecord { id, accepted_at, key, client, local, tag: 0 };
    let image = parcel_file(b"state", sealed());
    for more in 0..2 {
        mover.offer_file(&record, &socket, &image);
        leave(more);
        assert!(
            matches!(
                channel.receive(),
                Ok(LinkEvent::Session(SessionEvent::NotMigratable(ConnectionId(1))))
            ),
            "{more}"
        );
        channel.send_outgoing().unwrap();
        assert!(matches!(mover.receive(), FromPrimary::Returned(ids) if ids == [1]));
    }
    leave(2);
    mover.offer_file(&record, &socket, &image);
    assert!(matches!(channel.receive(), Ok(LinkEvent::Session(SessionEvent::Offered(_)))));
}
