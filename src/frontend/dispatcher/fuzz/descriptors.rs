//! Descriptors that a worker sends, and a look at those that are open.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{
    FileType, MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create,
};
use rustix::net::sockopt::{set_socket_linger, set_socket_send_buffer_size};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::protocol::message::MAX_IMAGE;
use crate::protocol::random::Random;
use crate::protocol::scm_rights;

/// An open file: its device and its inode.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(descriptor: impl AsFd) -> Identity {
    let stat = fstat(descriptor).unwrap();
    (stat.st_dev, stat.st_ino)
}

/// How often each file is open in this process.
pub(super) fn open() -> HashMap<Identity, usize> {
    let mut open = HashMap::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        // Another thread may have closed it by now.
        if let Ok(file) = fs::metadata(entry.path()) {
            *open.entry((file.dev(), file.ino())).or_default() += 1;
        }
    }
    open
}

/// Descriptors that were sent: in the end, each is closed that nobody has. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Sent(Rc<RefCell<Files>>);

#[derive(Default)]
struct Files {
    files: HashSet<Identity>,
    /// Clients whose servers linger as long as they are there.
    slow: Vec<TcpStream>,
}

impl Sent {
    pub(super) fn note(&self, descriptor: impl AsFd) {
        let stat = fstat(&descriptor).unwrap();
        // Everybody has those.
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice {
            self.0.borrow_mut().files.insert(identity(descriptor));
        }
    }

    /// Nothing lingers any more.
    pub(super) fn hurry(&self) {
        self.0.borrow_mut().slow.clear();
    }

    /// Those that are open more often than they are `held`, and how much more often.
    pub(super) fn left_open(&self, held: &HashMap<Identity, usize>) -> Vec<(Identity, usize)> {
        let open = open();
        let surplus = |file: &Identity| {
            let held = held.get(file).copied().unwrap_or(0);
            let surplus = open.get(file).copied().unwrap_or(0).saturating_sub(held);
            (surplus > 0).then_some((*file, surplus))
        };
        self.0.borrow().files.iter().filter_map(surplus).collect()
    }
}

/// Any but a client's. None of them is of use to anybody.
pub(super) fn any(random: &mut Random, sent: &Sent) -> OwnedFd {
    match random.below(13) {
        0 => File::open("/dev/null").unwrap().into(),
        1 => rustix::pipe::pipe().unwrap().0,
        2 => rustix::pipe::pipe().unwrap().1,
        3 => memory(random.up_to(9_000), SealFlags::empty()),
        4 => memory(random.up_to(9_000), SealFlags::SHRINK),
        5 => sealed(random.up_to(40_000)),
        6 => sparse(MAX_IMAGE + 1),
        7 => sparse(1 << 40),
        8 => UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        9 => TcpListener::bind("127.0.0.1:0").unwrap().into(),
        10 => unconnected(),
        11 => lingering_in_a_queue(sent),
        _ => UnixStream::pair().unwrap().0.into(),
    }
}

pub(super) fn all_seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

fn memory(length: usize, seals: SealFlags) -> OwnedFd {
    image(&vec![7; length], seals)
}

/// An image that nobody can change.
pub(super) fn sealed(length: usize) -> OwnedFd {
    memory(length, all_seals())
}

pub(super) fn image(bytes: &[u8], seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("image", flags).unwrap());
    file.write_all(bytes).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

fn sparse(length: u64) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("image", flags).unwrap();
    ftruncate(&file, length).unwrap();
    fcntl_add_seals(&file, all_seals()).unwrap();
    file
}

fn unconnected() -> OwnedFd {
    socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

/// How long the close of a socket that lingers takes: far longer than a turn may.
const LINGER: Duration = Duration::from_secs(8);

/// A socket whose close has to wait, unless its client goes.
pub(super) fn linger(socket: impl AsFd) {
    // Any of these fails where its client has gone.
    let _ = rustix::io::ioctl_fionbio(&socket, true);
    let _ = set_socket_send_buffer_size(&socket, 4_096);
    while rustix::io::write(&socket, &[7; 65_536]).is_ok() {}
    let _ = set_socket_linger(&socket, Some(LINGER));
}

/// A socket whose queue holds one that lingers: closing the first waits for the second.
fn lingering_in_a_queue(sent: &Sent) -> OwnedFd {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    linger(&server);
    sent.note(&server);
    let (near, far) = UnixStream::pair().unwrap();
    scm_rights::send(&near, b"x", &[server.as_fd()]).unwrap();
    sent.0.borrow_mut().slow.push(client);
    far.into()
}
