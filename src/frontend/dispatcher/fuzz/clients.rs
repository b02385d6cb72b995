//! Clients, and the model of who has each of them.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, getpeername, socket_with,
};

use crate::protocol::ids::WorkerId;
use crate::protocol::message::ConnectionRecord;

/// Who has a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The primary, or its backlog.
    Primary,
    /// A worker, by its acknowledgement.
    Worker(WorkerId),
    /// Nobody: its worker died.
    Nobody,
}

/// A client.
pub(super) struct Client {
    stream: Option<TcpStream>,
    pub(super) owner: Owner,
    /// A worker that breaks the rules had it: whatever happens to it was done by that one.
    pub(super) is_tainted: bool,
    /// The worker that has offered it died: if it had just been returned, it is gone, too.
    pub(super) may_be_gone: bool,
    /// What it has sent. No worker reads before the end.
    pub(super) sent: Vec<u8>,
    /// The image of the session that it is, and the worker that has offered it.
    pub(super) session: Option<(Vec<u8>, WorkerId)>,
}

/// All of them.
pub(super) struct Clients {
    address: SocketAddr,
    next: u32,
    pub(super) all: HashMap<SocketAddr, Client>,
}

impl Clients {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, next: 1, all: HashMap::new() }
    }

    /// Another one, with an address of its own.
    pub(super) fn connect(&mut self) -> SocketAddr {
        let [_, a, b, c] = self.next.to_be_bytes();
        self.next += 1;
        let address = IpAddr::V4(Ipv4Addr::new(127, a, b, c));
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        bind(&socket, &SocketAddr::new(address, 0)).unwrap();
        connect(&socket, &self.address).unwrap();
        let stream = TcpStream::from(socket);
        // Its end leaves nothing behind.
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        let own = stream.local_addr().unwrap();
        let client = Client {
            stream: Some(stream),
            owner: Owner::Primary,
            is_tainted: false,
            may_be_gone: false,
            sent: Vec::new(),
            session: None,
        };
        self.all.insert(own, client);
        own
    }

    pub(super) fn of(&mut self, record: &ConnectionRecord) -> &mut Client {
        self.all.get_mut(&record.client).unwrap_or_else(|| panic!("nobody's: {record:?}"))
    }

    /// A client, or the session that it is, has come to a worker that keeps the rules.
    pub(super) fn arrive(
        &mut self,
        worker: WorkerId,
        record: &ConnectionRecord,
        socket: impl AsFd,
        image: Option<&[u8]>,
    ) {
        if let Ok(peer) = getpeername(&socket) {
            let peer = peer.map(|peer| SocketAddr::try_from(peer).unwrap());
            assert_eq!(peer, Some(record.client), "another client's socket came to {worker:?}");
        }
        let client = self.of(record);
        if !client.is_tainted {
            assert_eq!(client.owner, Owner::Primary, "{record:?} has come to {worker:?}, too");
            let offered = client.session.take();
            match (image, offered) {
                (None, None) => {}
                (Some(image), Some((offered, _))) => assert!(image == offered, "another image"),
                (came, offered) => panic!("{came:?} in place of {offered:?}"),
            }
        }
        client.session = None;
        client.may_be_gone = false;
        client.owner = Owner::Worker(worker);
    }

    /// A client sends something; nobody reads it yet.
    pub(super) fn talk(&mut self, address: SocketAddr, bytes: &[u8]) {
        let client = self.all.get_mut(&address).unwrap();
        let Some(stream) = &mut client.stream else { return };
        // It may be closed by its worker's end.
        if stream.write_all(bytes).is_ok() {
            client.sent.extend(bytes);
        }
    }

    /// Clients that are as bad as their worker, and those that lost theirs, go.
    pub(super) fn leave(&mut self) {
        let others =
            self.all.values_mut().filter(|one| one.is_tainted || one.owner == Owner::Nobody);
        others.for_each(|client| client.stream = None);
    }

    /// Those that somebody has to have.
    pub(super) fn good(&self) -> impl Iterator<Item = (&SocketAddr, &Client)> {
        let may_be_gone = |one: &Client| one.may_be_gone && one.owner == Owner::Primary;
        let is_good =
            move |one: &Client| !one.is_tainted && one.owner != Owner::Nobody && !may_be_gone(one);
        self.all.iter().filter(move |(_, one)| is_good(one))
    }
}
