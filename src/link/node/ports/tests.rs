use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use super::*;
use crate::protocol::ids::{Generation, SlotId};

fn worker(slot: u16) -> WorkerId {
    WorkerId { slot: SlotId(slot), generation: Generation(1) }
}

fn request(kind: AddressType, port: u16, index: u64, address: Option<&str>) -> PortRequest {
    let key = PortKey { kind, port, index, address: address.map(str::to_owned) };
    PortRequest { key, flags: 0, rights: Rights::default() }
}

fn any(index: u64) -> PortRequest {
    request(AddressType::Ipv4, 0, index, Some("127.0.0.1"))
}

fn port(socket: &SharedSocket) -> u16 {
    let address = rustix::net::getsockname(&***socket).unwrap();
    SocketAddr::try_from(address).unwrap().port()
}

/// The store, which keeps copies as the keeper does.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<BTreeMap<String, OwnedFd>>>);

impl DescriptorKeeper for Kept {
    fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) {
        let copy = descriptor.try_clone_to_owned().unwrap();
        assert!(self.0.lock().unwrap().insert(name.to_owned(), copy).is_none(), "{name} twice");
    }

    fn remove(&self, name: &str) {
        self.0.lock().unwrap().remove(name);
    }
}

#[test]
fn an_address_is_known_by_its_name() {
    let path = Some("/tmp/a:b \n\u{fc}/".to_owned() + &"x".repeat(90));
    let named = |kind, port, index, address| PortKey { kind, port, index, address };
    for key in [
        named(AddressType::Ipv4, 9100, 0, None),
        named(AddressType::Ipv6, 0, 7, Some("::1".to_owned())),
        named(AddressType::Udp4, 53, 0, Some("127.0.0.1".to_owned())),
        named(AddressType::Udp6, 53, 0, None),
        named(AddressType::Path, 0, 0, path),
        named(AddressType::Path, 0, 0, Some("/app/\0name".to_owned())),
    ] {
        let name = key.name();
        assert!(name.len() < 200 && name.bytes().all(|it| it.is_ascii_graphic() && it != b':'));
        assert_eq!(PortKey::from_name(&name), Some(key));
    }
    for wrong in
        ["node-port", "node-port.tcp4.1", "node-port.tcp9.1.0", "node-port.tcp4.1.0.-.", "listener"]
    {
        assert_eq!(PortKey::from_name(wrong), None, "{wrong}");
    }
}

#[test]
fn workers_share_a_socket_until_none_has_it() {
    let mut ports = Ports::default();
    let first = ports.open(worker(0), &any(0)).unwrap();
    let second = ports.open(worker(1), &any(0)).unwrap();
    let other = ports.open(worker(1), &any(1)).unwrap();
    assert_eq!(port(&first), port(&second));
    assert_ne!(port(&first), port(&other));
    let address = SocketAddr::from(([127, 0, 0, 1], port(&first)));
    ports.close(worker(0), &any(0).key.name());
    TcpStream::connect(address).unwrap();
    ports.worker_gone(worker(1));
    assert!(ports.open.is_empty());
    // At once, though there are copies.
    assert!(TcpStream::connect(address).is_err());
    drop((first, second, other));
}

#[test]
fn a_port_that_is_taken_is_refused_and_one_that_was_closed_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = taken.local_addr().unwrap().port();
    let asked = request(AddressType::Ipv4, number, 0, Some("127.0.0.1"));
    let mut ports = Ports::default();
    assert_eq!(ports.open(worker(0), &asked).unwrap_err(), Errno::ADDRINUSE);
    drop(taken);
    // Port probers. The store's copies must not be in the way.
    let copies: Vec<_> = (0..8)
        .map(|_| {
            let socket = ports.open(worker(0), &asked).unwrap();
            ports.close(worker(0), &asked.key.name());
            socket
        })
        .collect();
    let socket = ports.open(worker(0), &asked).unwrap();
    assert_eq!(port(&socket), number);
    drop(copies);
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let number = taken.local_addr().unwrap().port();
    let asked = request(AddressType::Udp4, number, 0, Some("127.0.0.1"));
    assert_eq!(ports.open(worker(0), &asked).unwrap_err(), Errno::ADDRINUSE);
    let name = request(AddressType::Ipv4, 0, 0, Some("localhost"));
    assert_eq!(ports.open(worker(0), &name).unwrap_err(), Errno::ADDRNOTAVAIL);
}

#[test]
fn a_worker_of_less_rights_gets_no_low_port_and_no_path() {
    let rights = Rights { low_ports: false, files: false };
    let allows = |kind, port, address: Option<&str>| {
        rights.allow(&request(kind, port, 0, address).key, 1024)
    };
    assert!(!allows(AddressType::Ipv4, 1023, None) && allows(AddressType::Ipv4, 1024, None));
    assert!(!allows(AddressType::Udp6, 53, None) && allows(AddressType::Udp6, 0, None));
    assert!(!allows(AddressType::Path, 0, Some("/tmp/x")));
    assert!(!allows(AddressType::Path, 0, Some("/tmp/\0x")), "its clients would see the primary");
    let mut ports = Ports::default();
    let low = PortRequest { rights, ..request(AddressType::Ipv4, 1, 0, Some("127.0.0.1")) };
    assert_eq!(ports.open(worker(0), &low).unwrap_err(), Errno::ACCESS);
    // Nor one that another worker has.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let asked = request(AddressType::Path, 0, 0, path.to_str());
    ports.open(worker(0), &asked).unwrap();
    let less = PortRequest { rights, ..asked };
    assert_eq!(ports.open(worker(1), &less).unwrap_err(), Errno::ACCESS);
}

#[test]
fn a_path_is_removed_at_the_end_and_made_again_if_it_was_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let asked = request(AddressType::Path, 0, 0, path.to_str());
    let mut ports = Ports::default();
    let kept = Kept::default();
    ports.keep_in(Box::new(kept.clone()));
    let first = ports.open(worker(0), &asked).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = ports.open(worker(1), &asked).unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    UnixStream::connect(&path).unwrap();
    ports.worker_gone(worker(1));
    assert!(path.exists(), "another worker has asked for it");
    ports.worker_gone(worker(0));
    assert!(!path.exists() && kept.0.lock().unwrap().is_empty());
    let name = request(AddressType::Path, 0, 0, Some("/app/\0sticky-lb-ports-test"));
    ports.open(worker(0), &name).unwrap();
    ports.close_all();
}

#[test]
fn a_successor_has_the_same_sockets() {
    let mut ports = Ports::default();
    let kept = Kept::default();
    ports.keep_in(Box::new(kept.clone()));
    let number = port(&ports.open(worker(0), &any(0)).unwrap());
    ports.open(worker(1), &any(1)).unwrap();

    // After a crash: of what the store has. A worker that was lost has nothing open.
    let mut left = Descriptors::default();
    for (name, socket) in kept.0.lock().unwrap().iter() {
        left.insert(name.as_str(), socket.try_clone().unwrap());
    }
    drop(ports);
    let mut ports = Ports::adopt(&mut left);
    ports.keep_in(Box::new(kept.clone()));
    ports.adopt_holder(worker(0), &[any(0).key.name()]);
    ports.release();
    assert_eq!(ports.open.len(), 1);
    assert_eq!(kept.0.lock().unwrap().len(), 1);
    assert_eq!(port(&ports.open(worker(2), &any(0)).unwrap()), number);

    // After an upgrade: of what was handed over.
    let mut left = Descriptors::default();
    ports.hand_over(&mut left);
    let mut ports = Ports::adopt(&mut left);
    ports.adopt_holder(worker(2), &[any(0).key.name()]);
    assert_eq!(port(&ports.open(worker(3), &any(0)).unwrap()), number);
    assert!(left.is_empty());
}

#[test]
fn there_are_only_so_many() {
    let mut ports = Ports::default();
    for index in 0..MAX_PORTS as u64 {
        ports.open(worker(0), &any(index)).unwrap();
    }
    assert_eq!(ports.open(worker(0), &any(99)).unwrap_err(), Errno::MFILE);
    ports.close(worker(0), &any(5).key.name());
    ports.open(worker(0), &any(99)).unwrap();
}
