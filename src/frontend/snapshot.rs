//! A frontend that has stopped, and the start of the next one from it.
//!
//! After an upgrade that is everything, exactly. After a crash it is the listener and the counters; the
//! channels come from the descriptors that the keeper or systemd holds ([`crate::link::Link::adopt`]). In both
//! cases the supervisor gets the channels and attaches them again, and the next dispatcher gets the rest.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::frontend::acceptor::AcceptErrors;
use crate::frontend::keys::ClientKeys;
use crate::frontend::listener::{AcceptError, Accepted, Listener};
use crate::frontend::listener_group::{GroupError, ListenerGroup};
use crate::frontend::measure::stats::Stats;
use crate::frontend::shared_counters::{COUNTERS, SharedCounters};
use crate::frontend::slot_table::SlotsHandover;
use crate::handover::Carry;
use crate::handover::descriptors::{DescriptorKeeper, Descriptors, LISTENER, RestoreError};
use crate::handover::frontend::{
    CloseRequestsSnapshot, FrontendSnapshot, RecoverySnapshot, RouterSnapshot,
};
use crate::handover::link::ConnectionSnapshot;
use crate::link::connection::PendingConnection;
use crate::link::native::snapshot::{connection_snapshot, restore_connection};
use crate::link::node::ports::Ports;
use crate::link::record_key::RecordKey;
use crate::link::seam::{Counters, WorkerId};
use crate::link::{Attached, Delivery, GroupMember, snapshot as link};
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::ConnectionRecord;
use crate::sessions::recovery::Recovery;

/// All that a frontend has. Dropping it closes the connections that no worker owns.
#[derive(Debug, Default)]
pub struct FrontendHandover {
    pub(super) listener: Option<Listener>,
    pub(super) accept_errors: AcceptErrors,
    pub(super) slots: SlotsHandover,
    pub(super) counters: Counters,
    pub(super) stats: Stats,
    pub(super) router: RouterSnapshot,
    pub(super) close_requests: CloseRequestsSnapshot,
    pub(super) unroutable: Vec<PendingConnection>,
    pub(super) sessions: Vec<PendingConnection>,
    pub(super) recovery: Option<Recovery>,
    pub(super) page: Option<SharedCounters>,
    pub(super) is_successor: bool,
    pub(super) record_key: RecordKey,
    pub(super) ports: Ports,
    /// Listening sockets of workers, where the kernel picks the one of a client.
    pub(super) group: Option<ListenerGroup>,
}

impl From<Listener> for FrontendHandover {
    /// That of the first of all frontends.
    fn from(listener: Listener) -> Self {
        Self { listener: Some(listener), ..Self::default() }
    }
}

impl FrontendHandover {
    /// After a crash.
    #[must_use]
    pub fn after_crash(listener: Listener, page: SharedCounters) -> Self {
        Self {
            counters: page.read(),
            record_key: page.record_key(),
            page: Some(page),
            recovery: Some(Recovery::default()),
            is_successor: true,
            ..Self::from(listener)
        }
    }

    /// Counters are written to `page` from now on, for a successor after a crash.
    #[must_use]
    pub fn with_page(self, page: SharedCounters) -> Self {
        page.set_record_key(self.record_key);
        Self { page: Some(page), ..self }
    }

    /// With the sockets that workers share, among what was left.
    #[must_use]
    pub fn with_ports(self, left: &mut Descriptors) -> Self {
        Self { ports: Ports::adopt(left), ..self }
    }

    /// The kernel picks the worker of a client from now on, if the listener can be shared.
    ///
    /// # Errors
    ///
    /// If it can't, or the kernel has no descriptor left.
    pub fn with_group(self, backlog: i32) -> Result<Self, GroupError> {
        let group = self.listener.as_ref().map(|listener| ListenerGroup::new(listener, backlog));
        Ok(Self { group: group.transpose()?, ..self })
    }

    /// The same, with the sockets of workers that were left.
    ///
    /// # Errors
    ///
    /// As [`Self::with_group`].
    pub fn with_group_of(self, backlog: i32, left: &mut Descriptors) -> Result<Self, GroupError> {
        let adopt = |listener| ListenerGroup::adopt(listener, backlog, left);
        let group = self.listener.as_ref().map(adopt);
        Ok(Self { group: group.transpose()?, ..self })
    }

    /// Listening sockets of workers are stored from now on, for a successor after a crash.
    pub fn keep_group_in(&mut self, keeper: Box<dyn DescriptorKeeper>) {
        if let Some(group) = &mut self.group {
            group.keep_in(keeper);
        }
    }

    /// Sockets that workers share are stored from now on, for a successor after a crash.
    pub fn keep_ports_in(&mut self, keeper: Box<dyn DescriptorKeeper>) {
        self.ports.keep_in(keeper);
    }

    /// The listener, unless it is closed.
    #[must_use]
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Goes on with another listener. Clients in the backlog of the one before are not turned away: they wait
    /// for a slot.
    pub fn switch_listener(&mut self, next: Listener, keys: &ClientKeys) {
        let Some(before) = self.listener.replace(next) else { return };
        loop {
            match before.accept() {
                Ok(Accepted { socket, client }) => {
                    let local = before.local();
                    self.take_client(socket, client, local, keys);
                }
                Err(AcceptError::Skip(_)) => {}
                Err(_) => return,
            }
        }
    }

    fn take_client(
        &mut self,
        socket: OwnedFd,
        client: SocketAddr,
        local: SocketAddr,
        keys: &ClientKeys,
    ) {
        let (accepted_at, key) = (Timestamp::now(), keys.key(client.ip()));
        self.counters.accepted += 1;
        self.stats.accepted(key, client.ip(), accepted_at);
        let id = ConnectionId(self.counters.accepted);
        let record = ConnectionRecord { id, accepted_at, key, client, local, tag: 0 };
        let record = self.record_key.tagged(record);
        let socket = socket.into();
        self.unroutable.push(PendingConnection { record, socket, crashes: 0, transfer: None });
    }

    /// Takes the channels, to be attached to the next dispatcher one by one.
    pub fn take_channels(&mut self) -> Vec<(WorkerId, Attached)> {
        std::mem::take(&mut self.slots.channels)
    }

    /// Puts channels back.
    pub fn return_channels(&mut self, channels: impl IntoIterator<Item = (WorkerId, Attached)>) {
        self.slots.channels.extend(channels);
    }

    /// As plain data; its descriptors go to `descriptors`.
    pub fn into_snapshot(self, descriptors: &mut Descriptors) -> FrontendSnapshot {
        let listens = self.listener.is_some();
        if let Some(listener) = self.listener {
            descriptors.insert(LISTENER, listener.into_socket());
        }
        let is_counted = self.page.is_some();
        if let Some(page) = self.page {
            descriptors.insert(COUNTERS, page.into_file());
        }
        let links = self.slots.channels.into_iter().filter_map(|(worker, attached)| {
            let Attached { link, delivery } = attached;
            if let Delivery::Listener(member) = delivery {
                descriptors.insert(GroupMember::PART.name(worker), member.socket);
            }
            Some((worker, link::into_snapshot(link, worker, descriptors)?))
        });
        let links = links.collect();
        self.ports.hand_over(descriptors);
        if let Some(group) = self.group {
            group.into_descriptors(descriptors);
        }
        let mut waiting = Waiting { descriptors, number: 0 };
        let queues = self.slots.queues.into_iter();
        FrontendSnapshot {
            listens,
            accept_errors: self.accept_errors.snapshot(),
            links,
            queues: queues.map(|(slot, queue)| (slot, waiting.snapshots(queue))).collect(),
            quarantined: self.slots.quarantined,
            stalled: self.slots.stalled,
            counters: self.counters.snapshot(),
            stats: self.stats.snapshot(),
            router: self.router,
            close_requests: self.close_requests,
            unroutable: waiting.snapshots(self.unroutable),
            sessions: waiting.snapshots(self.sessions),
            recovery: self.recovery.map(|it| RecoverySnapshot {
                open_offers: it.open_offers.snapshot(),
                held: waiting.snapshots(it.held),
                is_decided: it.is_decided,
            }),
            is_counted,
            record_key: self.record_key.numbers().into(),
        }
    }

    /// As it was.
    ///
    /// # Errors
    ///
    /// If a descriptor is missing or unusable, or the snapshot is malformed.
    pub fn restore(
        snapshot: FrontendSnapshot,
        descriptors: &mut Descriptors,
    ) -> Result<Self, RestoreError> {
        let listener = snapshot.listens.then(|| open(LISTENER, descriptors, Listener::handed_over));
        let page = snapshot.is_counted.then(|| open(COUNTERS, descriptors, SharedCounters::open));
        let links = snapshot.links.into_iter();
        let links = links.map(|(worker, link)| {
            let link = link::restore(link, worker, descriptors)?;
            Ok((worker, Attached::new(link, GroupMember::take(worker, descriptors))))
        });
        let channels = links.collect::<Result<_, RestoreError>>()?;
        let ports = Ports::adopt(descriptors);
        let mut waiting = Waiting { descriptors, number: 0 };
        let queues = snapshot.queues.into_iter();
        let queues = queues.map(|(slot, queue)| Ok((slot, waiting.restored(queue)?)));
        let queues = queues.collect::<Result<_, RestoreError>>()?;
        let (quarantined, stalled) = (snapshot.quarantined, snapshot.stalled);
        Ok(Self {
            listener: listener.transpose()?,
            page: page.transpose()?,
            slots: SlotsHandover { channels, queues, quarantined, stalled },
            unroutable: waiting.restored(snapshot.unroutable)?,
            sessions: waiting.restored(snapshot.sessions)?,
            recovery: match snapshot.recovery {
                Some(RecoverySnapshot { open_offers, held, is_decided }) => Some(Recovery {
                    open_offers: Carry::restore(open_offers),
                    held: waiting.restored(held)?,
                    is_decided,
                    until: None,
                }),
                None => None,
            },
            accept_errors: Carry::restore(snapshot.accept_errors),
            counters: Carry::restore(snapshot.counters),
            stats: Carry::restore(snapshot.stats),
            router: snapshot.router,
            close_requests: snapshot.close_requests,
            is_successor: true,
            record_key: <[u64; 2]>::from(snapshot.record_key).into(),
            ports,
            group: None,
        })
    }
}

fn open<T>(
    name: &str,
    descriptors: &mut Descriptors,
    open: impl FnOnce(OwnedFd) -> io::Result<T>,
) -> Result<T, RestoreError> {
    let unusable = |source| RestoreError::Unusable { name: name.to_owned(), source };
    open(descriptors.require(name)?).map_err(unusable)
}

/// Names the connections that wait, by their number, in the same order both times.
struct Waiting<'a> {
    descriptors: &'a mut Descriptors,
    number: u64,
}

impl Waiting<'_> {
    fn next_name(&mut self) -> String {
        self.number += 1;
        format!("waiting.{}", self.number)
    }

    fn snapshots(&mut self, all: Vec<PendingConnection>) -> Vec<ConnectionSnapshot> {
        let snapshot = |one| connection_snapshot(one, &self.next_name(), self.descriptors);
        all.into_iter().map(snapshot).collect()
    }

    fn restored(
        &mut self,
        all: Vec<ConnectionSnapshot>,
    ) -> Result<Vec<PendingConnection>, RestoreError> {
        let restore = |one| restore_connection(one, &self.next_name(), self.descriptors);
        all.into_iter().map(restore).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::frontend::affinity::{Affinity, DigestKind, Prefixes};
    use crate::frontend::listener::ListenerSettings;

    #[test]
    fn clients_in_the_backlog_of_the_listener_before_are_taken() {
        let settings = ListenerSettings { host: Some("127.0.0.1".into()), port: 0, backlog: 16 };
        let (before, next) =
            (Listener::bind(&settings).unwrap(), Listener::bind(&settings).unwrap());
        let (old, new) = (before.local(), next.local());
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(old).unwrap()).collect();
        let mut handover = FrontendHandover::from(before);
        let affinity = Affinity::new(DigestKind::Md5, b"", Prefixes { v4: 32, v6: 64 });
        handover.switch_listener(next, &affinity.into());
        let taken = handover.unroutable.iter().map(|it| it.record.client);
        let expected = clients.iter().map(|client| client.local_addr().unwrap());
        assert_eq!(taken.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert_eq!(handover.counters.accepted, 3);
        assert_eq!(handover.listener().map(Listener::local), Some(new));
        assert!(TcpStream::connect(old).is_err());
    }
}
