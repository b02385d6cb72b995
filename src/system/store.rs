//! The store for copies of this process's descriptors, which its successor gets after a crash: the
//! keeper's, or systemd's. Both have the protocol of systemd's file-descriptor store
//! (<https://systemd.io/FILE_DESCRIPTOR_STORE>): datagrams to `NOTIFY_SOCKET`, or to the keeper.
//!
//! Never fails and never waits: a descriptor that is not stored is missing after a crash, and only then.

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::handover::descriptors::DescriptorKeeper;
use crate::system::datagrams::DatagramSender;
pub use crate::system::notify::is_systemd;
use crate::system::{keeper, notify};

/// The prefix of stored names, which tells them from other descriptors that are passed.
pub const PREFIX: &str = "kept-";

/// The name of the program that a primary runs.
pub const PROGRAM: &str = "program";

/// The name of the configuration file's text, which the keeper passes: it may have come from a pipe, which
/// can be read once.
pub const CONFIGURATION: &str = "configuration";

/// Stores descriptors. Clones have the same store.
#[derive(Clone, Debug)]
pub struct Store {
    sender: DatagramSender,
}

impl Store {
    /// The keeper's, or systemd's where `FileDescriptorStoreMax=` is set, which it says in `FDSTORE`; if
    /// there is one.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        if let Some(sender) = keeper::sender() {
            return Some(Self { sender });
        }
        if !is_systemd() {
            return None;
        }
        let name = env::var_os("NOTIFY_SOCKET")?;
        match notify::address(&name).and_then(|address| Self::connect(&address)) {
            Ok(store) => Some(store),
            Err(error) => {
                tracing::warn!(%error, ?name, "no descriptor store (NOTIFY_SOCKET)");
                None
            }
        }
    }

    /// The store at this address.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn connect(address: &SocketAddr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(address)?;
        Ok(Self { sender: DatagramSender::connected(socket)? })
    }

    /// Stores a copy of `descriptor`. A name is to be used once, unless it was removed. It stays even if
    /// the other side is closed (`FDPOLL=0`).
    pub fn keep(&self, name: &str, descriptor: impl AsFd) {
        let message = format!("FDSTORE=1\nFDNAME={PREFIX}{name}\nFDPOLL=0\n");
        self.sender.send(message.as_bytes(), Some(descriptor.as_fd()));
    }

    /// Removes the descriptor of that name.
    pub fn remove(&self, name: &str) {
        let message = format!("FDSTOREREMOVE=1\nFDNAME={PREFIX}{name}\n");
        self.sender.send(message.as_bytes(), None);
    }

    /// Waits until the store has everything, at most so long. For the end of a process: what still waits
    /// is lost with it.
    pub fn flush(&self, timeout: Duration) {
        if !self.sender.flush(timeout) {
            tracing::warn!("descriptor store is slow: a crash of the next primary may lose some");
        }
    }
}

impl DescriptorKeeper for Store {
    fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) {
        Self::keep(self, name, descriptor);
    }

    fn remove(&self, name: &str) {
        Self::remove(self, name);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::mem::MaybeUninit;
    use std::os::linux::net::SocketAddrExt;

    use rustix::net::RecvAncillaryMessage;

    use super::*;

    #[test]
    fn a_descriptor_travels_with_its_name() {
        let name = format!("sticky-lb-store-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let store = Store::connect(&address).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        store.keep("listener", &writer);
        drop(writer);
        store.remove("listener");

        let mut bytes = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut parts = [io::IoSliceMut::new(&mut bytes)];
        let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
        let length = rustix::net::recvmsg(&manager, &mut parts, &mut control, flags).unwrap().bytes;
        assert_eq!(&bytes[..length], b"FDSTORE=1\nFDNAME=kept-listener\nFDPOLL=0\n");
        let rights = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        rustix::io::write(rights.unwrap(), b"kept").unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "kept");

        let length = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"FDSTOREREMOVE=1\nFDNAME=kept-listener\n");
    }

    #[test]
    fn a_store_that_is_gone_is_no_error() {
        let name = format!("sticky-lb-store-gone-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        assert!(Store::connect(&address).is_err());
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let store = Store::connect(&address).unwrap();
        drop(manager);
        store.remove("listener");
        assert_eq!(store.sender.lost(), 1);
    }
}
