//! Sockets that programs listen on beside the front's port: bound once, by the primary, and shared by all workers that
//! ask for the same address. The kernel gives each connection to one of them.
//!
//! One owner for all workers of a frontend. Whether a worker may have an address is decided by its own rights. Binding
//! waits for nothing: addresses are numbers, no names; a path is looked up by the kernel, as far as its file system lets
//! it.
//!
//! # Promises
//!
//! * A socket is stored for a successor before the first worker gets it, and goes on in an upgrade: a worker that starts
//!   after a crash of the primary gets the same one.
//! * It is closed when no worker that asked for it lives or has it open. It stops listening at once then, even if
//!   the descriptor store still has a copy; a path is removed.
//! * At most [`MAX_PORTS`] are open; of more, a program is told that there is no descriptor left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, listen, shutdown,
    socket_with, sockopt,
};
use serde::{Deserialize, Serialize};

use crate::closing::Deferred;
use crate::handover::descriptors::{DescriptorKeeper, Descriptors};
use crate::protocol::ids::WorkerId;

/// Sockets that are open at a time, at most.
pub const MAX_PORTS: usize = 64;

/// Connections that wait for a program, until that says how many may: Node's own number.
const BACKLOG: i32 = 511;

/// The first port that needs no rights, where the kernel doesn't say it.
const FIRST_FREE_PORT: u16 = 1024;

/// How the names of their descriptors begin.
const PREFIX: &str = "node-port.";

/// Only addresses of version 6, as Node says it.
const ONLY_V6: u64 = 1;
/// Others may bind the same address for datagrams, as Node says it.
const REUSE: u64 = 4;

/// The kind of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressType {
    /// TCP, version 4, or both where the program names no address.
    Ipv4,
    /// TCP, version 6.
    Ipv6,
    /// A Unix socket.
    Path,
    /// Datagrams, version 4.
    Udp4,
    /// Datagrams, version 6.
    Udp6,
}

/// An address that a program asks for. Workers that ask for the same one share a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey {
    /// Its kind.
    pub kind: AddressType,
    /// 0 for any.
    pub port: u16,
    /// Where the port is any: of those that one program has open, the number of this one.
    pub index: u64,
    /// The address, a number, or the path of a Unix socket; none for all.
    pub address: Option<String>,
}

/// What a worker may do. Its primary may do more where it runs as another user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// It may have all ports that its primary may; else only those that anyone may.
    pub low_ports: bool,
    /// It may have Unix sockets where its primary may, by a path or a name.
    pub files: bool,
}

/// A question of a program: may it listen there?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// The address.
    pub key: PortKey,
    /// As Node says it.
    pub flags: u64,
    /// What its worker may do.
    pub rights: Rights,
}

/// A socket that workers share. The descriptor closes elsewhere, since that can wait.
pub type SharedSocket = Arc<Deferred>;

/// All shared sockets.
#[derive(Debug, Default)]
pub struct Ports {
    open: BTreeMap<PortKey, Port>,
    keeper: Option<Box<dyn DescriptorKeeper>>,
}

/// One shared socket.
#[derive(Debug)]
struct Port {
    socket: SharedSocket,
    /// Workers that have it open.
    holders: BTreeSet<WorkerId>,
    /// The number of the file at its path.
    file: Option<u64>,
}

impl AddressType {
    const NAMES: [(Self, &'static str); 5] = [
        (Self::Ipv4, "tcp4"),
        (Self::Ipv6, "tcp6"),
        (Self::Path, "path"),
        (Self::Udp4, "udp4"),
        (Self::Udp6, "udp6"),
    ];

    /// Whether it is a TCP port.
    #[must_use]
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Ipv4 | Self::Ipv6)
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

impl PortKey {
    /// The name of its descriptor, of characters that every descriptor store takes, and of the server in a worker.
    #[must_use]
    pub fn name(&self) -> String {
        let address = self.address.as_ref().map_or_else(String::new, |address| {
            format!(".{}", BASE64URL_NOPAD.encode(address.as_bytes()))
        });
        format!("{PREFIX}{}.{}.{}{address}", self.kind.name(), self.port, self.index)
    }

    /// The address of which this is the name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('.');
        let kind = parts.next()?;
        let (kind, _) = AddressType::NAMES.into_iter().find(|(_, name)| *name == kind)?;
        let (port, index) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let address = match parts.next() {
            None => None,
            Some(coded) => {
                let bytes = BASE64URL_NOPAD.decode(coded.as_bytes()).ok()?;
                Some(String::from_utf8(bytes).ok()?)
            }
        };
        parts.next().is_none().then_some(Self { kind, port, index, address })
    }

    /// The addresses to try, the first one first: a program that names none wants all of both versions.
    fn addresses(&self) -> Result<Vec<SocketAddr>, Errno> {
        let (all_v4, all_v6) =
            (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED));
        let addresses = match (&self.address, self.kind) {
            (Some(address), _) => vec![address.parse().map_err(|_| Errno::ADDRNOTAVAIL)?],
            (None, AddressType::Udp4) => vec![all_v4],
            (None, AddressType::Udp6) => vec![all_v6],
            (None, _) => vec![all_v6, all_v4],
        };
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, self.port)).collect())
    }

    /// The path of its socket; none for a name without a file. Node puts the directory before such a name.
    fn file(&self) -> Option<&str> {
        let path = self.address.as_deref().filter(|_| self.kind == AddressType::Path)?;
        (!path.contains('\0')).then_some(path)
    }
}

impl Default for Rights {
    /// Those of the primary.
    fn default() -> Self {
        Self { low_ports: true, files: true }
    }
}

impl Rights {
    /// Whether a worker with these may have that address.
    fn allow(self, key: &PortKey, first_free: u16) -> bool {
        let is_low = key.kind != AddressType::Path && key.port > 0 && key.port < first_free;
        // A name without a file, too: who connects to it sees who has made it.
        (self.low_ports || !is_low) && (self.files || key.kind != AddressType::Path)
    }
}

impl Ports {
    /// The sockets of a primary before, among what it has left. Those that are unusable are left out.
    #[must_use]
    pub fn adopt(descriptors: &mut Descriptors) -> Self {
        let keys = descriptors.iter().filter_map(|(name, _)| PortKey::from_name(name));
        let keys: Vec<_> = keys.collect();
        let open = keys.into_iter().filter_map(|key| {
            let socket = descriptors.take(&key.name())?;
            let file = key.file().and_then(file_number);
            Some((key, Port::new(socket, file)))
        });
        Self { open: open.collect(), keeper: None }
    }

    /// Stores them for a successor after a crash from now on.
    pub fn keep_in(&mut self, keeper: Box<dyn DescriptorKeeper>) {
        self.keeper = Some(keeper);
    }

    /// For a successor, with the descriptors in `descriptors`.
    pub fn hand_over(self, descriptors: &mut Descriptors) {
        for (key, port) in self.open {
            // A link may have a copy that is not sent yet.
            let copy = match Arc::try_unwrap(port.socket) {
                Ok(socket) => Ok(socket.into_inner()),
                Err(shared) => shared.try_clone(),
            };
            match copy {
                Ok(socket) => descriptors.insert(key.name(), socket),
                Err(error) => tracing::error!(%error, "shared port of workers not handed over"),
            }
        }
    }

    /// Opens an address for a worker: the socket that others have, or a new one.
    ///
    /// # Errors
    ///
    /// If the worker may not have it, too many are open, or the kernel refuses.
    pub fn open(&mut self, worker: WorkerId, request: &PortRequest) -> Result<SharedSocket, Errno> {
        let key = &request.key;
        if !request.rights.allow(key, first_free_port()) {
            return Err(Errno::ACCESS);
        }
        if let Some(port) = self.open.get_mut(key) {
            // A program that starts may remove what it takes for the file of one that has ended.
            if key.file().and_then(file_number) == port.file {
                port.holders.insert(worker);
                return Ok(Arc::clone(&port.socket));
            }
        } else if self.open.len() >= MAX_PORTS {
            return Err(Errno::MFILE);
        }
        let socket = open(key, request.flags)?;
        let mut port = Port::new(socket, key.file().and_then(file_number));
        port.holders.insert(worker);
        let name = key.name();
        if let Some(keeper) = &self.keeper {
            if self.open.contains_key(key) {
                keeper.remove(&name);
            }
            keeper.keep(&name, port.socket.as_fd());
        }
        let shared = Arc::clone(&port.socket);
        // Workers that have the one before go on with it until they end.
        let before = self.open.insert(key.clone(), port);
        if let (Some(before), Some(now)) = (before, self.open.get_mut(key)) {
            now.holders.extend(before.holders);
        }
        Ok(shared)
    }

    /// A worker has closed its server on that address.
    pub fn close(&mut self, worker: WorkerId, name: &str) {
        let Some(key) = PortKey::from_name(name) else { return };
        if let Some(port) = self.open.get_mut(&key) {
            port.holders.remove(&worker);
        }
        self.release();
    }

    /// A worker of a primary before has these open.
    pub fn adopt_holder(&mut self, worker: WorkerId, names: &[String]) {
        for key in names.iter().filter_map(|name| PortKey::from_name(name)) {
            if let Some(port) = self.open.get_mut(&key) {
                port.holders.insert(worker);
            }
        }
    }

    /// A worker has ended.
    pub fn worker_gone(&mut self, worker: WorkerId) {
        self.open.values_mut().for_each(|port| {
            port.holders.remove(&worker);
        });
        self.release();
    }

    /// Closes those that no worker has open.
    pub fn release(&mut self) {
        let keeper = self.keeper.as_deref();
        self.open.retain(|key, port| {
            let is_held = !port.holders.is_empty();
            if !is_held {
                if let Some(keeper) = keeper {
                    keeper.remove(&key.name());
                }
                port.end(key);
            }
            is_held
        });
    }

    /// Closes all of them.
    pub fn close_all(&mut self) {
        self.open.values_mut().for_each(|port| port.holders.clear());
        self.release();
    }
}

impl Port {
    fn new(socket: OwnedFd, file: Option<u64>) -> Self {
        Self { socket: Arc::new(socket.into()), holders: BTreeSet::new(), file }
    }

    /// Ends the listening of all copies, and removes the file.
    fn end(&self, key: &PortKey) {
        // Datagram sockets that are connected to nobody can't be shut down: they just close.
        let _ = shutdown(&*self.socket, Shutdown::Both);
        if let Some(path) = key.file().filter(|path| file_number(path) == self.file) {
            // Another program may have removed it in between.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The number of the file at a path.
fn file_number(path: &str) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|file| file.ino())
}

/// The first port that needs no rights.
fn first_free_port() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(FIRST_FREE_PORT)
}

fn open(key: &PortKey, flags: u64) -> Result<OwnedFd, Errno> {
    if key.kind == AddressType::Path {
        return open_path(key.address.as_deref().unwrap_or_default());
    }
    let mut failed = Errno::ADDRNOTAVAIL;
    for address in key.addresses()? {
        match open_address(key.kind, address, flags) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn open_address(kind: AddressType, address: SocketAddr, flags: u64) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let is_tcp = kind.is_tcp();
    let socket = new_socket(family, if is_tcp { SocketType::STREAM } else { SocketType::DGRAM })?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, flags & ONLY_V6 != 0)?;
    }
    sockopt::set_socket_reuseaddr(&socket, is_tcp || flags & REUSE != 0)?;
    bind(&socket, &address)?;
    if is_tcp {
        // Now, since only this shows that the port is taken.
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

fn open_path(path: &str) -> Result<OwnedFd, Errno> {
    let socket = new_socket(AddressFamily::UNIX, SocketType::STREAM)?;
    let address = match path.split_once('\0') {
        Some((_, name)) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        None => SocketAddrUnix::new(path)?,
    };
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn new_socket(family: AddressFamily, kind: SocketType) -> Result<OwnedFd, Errno> {
    socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

#[cfg(test)]
mod tests;
