//! Whoever keeps descriptors, played: the receiving end of systemd's file-descriptor store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use sticky_lb::internals::system::store::Store;

/// Keeps what it is sent.
pub(crate) struct Keeper {
    pub(super) store: Store,
    kept: Mutex<BTreeMap<String, OwnedFd>>,
}

const BARRIER: &str = "barrier";
const END: &str = "end";

impl Keeper {
    pub(super) fn start() -> Arc<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("sticky-lb-orders-{}-{count}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let store = Store::connect(&address).unwrap();
        let keeper = Arc::new(Self { store, kept: Mutex::default() });
        let receiving = Arc::clone(&keeper);
        thread::spawn(move || while receiving.receive(&socket) {});
        keeper
    }

    pub(super) fn stop(&self) {
        self.store.remove(END);
    }

    /// What is kept by now.
    pub(crate) fn names(&self) -> Vec<String> {
        self.catch_up();
        self.kept.lock().unwrap().keys().cloned().collect()
    }

    /// Copies of what is kept by now.
    pub(super) fn copies(&self) -> BTreeMap<String, OwnedFd> {
        self.catch_up();
        let kept = self.kept.lock().unwrap();
        kept.iter().map(|(name, it)| (name.clone(), it.try_clone().unwrap())).collect()
    }

    /// Everything that was sent before has arrived.
    fn catch_up(&self) {
        self.store.keep(BARRIER, File::open("/dev/null").unwrap());
        while self.kept.lock().unwrap().remove(BARRIER).is_none() {
            thread::yield_now();
        }
    }

    fn receive(&self, socket: &UnixDatagram) -> bool {
        let mut bytes = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let length = recvmsg(socket, &mut parts, &mut control, flags).unwrap().bytes;
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        let name = text.split("FDNAME=kept-").nth(1).unwrap().lines().next().unwrap().to_owned();
        let mut kept = self.kept.lock().unwrap();
        if text.starts_with("FDSTORE=1") {
            let before = kept.insert(name, descriptor.unwrap());
            assert!(before.is_none(), "kept twice: {text}");
            return true;
        }
        kept.remove(&name);
        name != END
    }
}
