//! The group of listening sockets of kernel dispatch: the kernel sends each client to the socket of its slot's worker.
//!
//! Owns the sockets, the *members*: a slot has several, and its old and new workers take turns. The front's own
//! listener is the first of the group, where clients come while no slot can take any. The kernel knows members by their
//! index, the order in which they began to listen. Another program that shuts a member down changes that order; the
//! group notices by [`ListenerGroup::check`] and keeps its own account of the order exact.
//!
//! # Promises
//!
//! * No member is closed while the group lives: clients that wait in its queue stay there for the slot's next worker.
//! * A switch from one worker to another is one system call, and every client comes before or after it.
//! * A member is stored for a successor before the first worker gets it, by a name that says its slot and index.
//! * A slot has at most [`MAX_MEMBERS_OF_SLOT`], all slots have at most [`MAX_MEMBERS`]: beyond that a worker gets none.
//! * At most [`MAX_PROBES`] run at a time: beyond that none is begun.
//!
//! # Limits
//!
//! A worker that shuts its member down and listens again between two checks has changed the order unseen:
//! [`ListenerGroup::doubt`] has it found out.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::net::sockopt;

use crate::frontend::listener::Listener;
use crate::frontend::steering::KernelRanking;
use crate::frontend::steering::program::{CompileError, Family, Pin, compile};
use crate::handover::descriptors::{DescriptorKeeper, Descriptors};
use crate::kernel::{self, Instruction};
use crate::protocol::ids::{SlotId, Timestamp, WorkerId};

mod connect;
mod locate;
mod name;
mod strays;

use connect::Connection;
use name::MemberName;
use strays::Strays;

/// Members of a slot, at most: workers that drain hold theirs until they end.
pub const MAX_MEMBERS_OF_SLOT: usize = 8;

/// Members of all slots, at most.
pub const MAX_MEMBERS: usize = 480;

/// Probes that run at a time, at most.
pub const MAX_PROBES: usize = 16;

/// Addresses of ended probes that are remembered, at most.
const MAX_OWN: usize = 64;

/// A socket whose worker hasn't accepted for so long isn't given to another one: what the worker has done to it may outlive it.
const PATIENCE: Duration = Duration::from_secs(2);

/// From when a probe is established on its side, until it waits at the member for sure.
const SETTLE_TIME: Duration = Duration::from_millis(10);

/// Why the group doesn't do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The front's listener can't be in a group.
    #[error(
        "listener at {0} cannot be shared: it was bound without SO_REUSEPORT, so bind it again"
    )]
    NotShared(SocketAddr),
    /// A slot has too many members.
    #[error(
        "slot {0} has no listening socket left: workers that drain hold all {MAX_MEMBERS_OF_SLOT}; \
         wait for one to end, or end it"
    )]
    SlotFull(SlotId),
    /// The group has too many members.
    #[error("no listening socket left: the group has {MAX_MEMBERS}; use fewer workers")]
    Full,
    /// The worker has no member.
    #[error("worker {0:?} has no listening socket of the group")]
    NoMember(WorkerId),
    /// Too many probes run.
    #[error("no probe begun: {MAX_PROBES} run; wait for one to end")]
    Probes,
    /// There is no program.
    #[error("no program for the kernel")]
    Compile(#[from] CompileError),
    /// The kernel doesn't take the program.
    #[error(
        "the kernel refuses a program of {length} instructions: where it says that there is no memory, raise \
         net.core.optmem_max"
    )]
    Attach {
        /// Its length.
        length: usize,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// There is no program yet that could pin a probe.
    #[error("no probe begun: clients are not steered yet, so steer them first")]
    NotSteered,
    /// The kernel refuses a socket something.
    #[error("cannot {what} of the group at {address}")]
    Socket {
        /// The deed.
        what: &'static str,
        /// The group's address.
        address: SocketAddr,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// A slot's listening socket.
#[derive(Debug)]
struct GroupMember {
    listener: Listener,
    /// The kernel's name of the socket, the same in every process.
    cookie: u64,
    slot: SlotId,
    holder: Option<WorkerId>,
    /// When its last holder left it, as a number that grows.
    left: u64,
    /// Since when its holder has had it, until that has accepted.
    unproven: Option<Timestamp>,
    /// A worker had it for long and never accepted: others come first.
    is_suspect: bool,
    /// Its holder has shut it down, or listened again: more of that may have gone unseen.
    is_restless: bool,
    /// Connections that it queues, as its holder has set that by the time it accepted.
    queue_limit: Option<u32>,
    /// Its name in the descriptor store.
    stored: Option<MemberName>,
}

impl GroupMember {
    /// One that nobody holds.
    fn new(listener: Listener, cookie: u64, slot: SlotId) -> Self {
        Self {
            listener,
            cookie,
            slot,
            holder: None,
            left: 0,
            unproven: None,
            is_suspect: false,
            is_restless: false,
            queue_limit: None,
            stored: None,
        }
    }
}

/// What the group knows of the order of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Known,
    /// Several have gone, and nobody knows which one first.
    Unknown,
}

/// How clients are steered.
#[derive(Debug, Default)]
struct Steered {
    ranking: Option<KernelRanking>,
    serving: Vec<(SlotId, WorkerId)>,
    /// The program that is attached; empty if that is unknown.
    program: Vec<Instruction>,
}

/// A connection of the group's own to a worker's member.
#[derive(Debug)]
struct Probe {
    worker: WorkerId,
    connection: Connection,
    established: Option<Timestamp>,
}

/// The listening sockets of all slots.
#[derive(Debug)]
pub struct ListenerGroup {
    first: Listener,
    family: Family,
    backlog: i32,
    /// In the kernel's order, behind the first.
    members: Vec<GroupMember>,
    order: Order,
    steered: Steered,
    probes: Vec<Probe>,
    /// Where probes came from that have ended unaccepted: they may still wait.
    own: Vec<SocketAddr>,
    strays: Option<Strays>,
    /// How often a worker has left a member.
    leaves: u64,
    /// Names that are to be removed from the store.
    stale: Vec<MemberName>,
    keeper: Option<Box<dyn DescriptorKeeper>>,
}

impl ListenerGroup {
    /// With the front's listener alone, which is shared ([`Listener::bind_shared`]) and listens already. Members
    /// queue as many connections as `backlog` says. Until the first [`Self::steer`], which may be one to no slot, the
    /// kernel spreads clients over all sockets.
    ///
    /// # Errors
    ///
    /// If the listener isn't shared, or no descriptor is left.
    pub fn new(first: &Listener, backlog: i32) -> Result<Self, GroupError> {
        let address = first.local();
        let failed = |source| GroupError::Socket { what: "use the first socket", address, source };
        if !first.is_shared().map_err(failed)? {
            return Err(GroupError::NotShared(address));
        }
        Ok(Self {
            family: first.family().map_err(failed)?,
            first: first.try_clone().map_err(failed)?,
            backlog,
            members: Vec::new(),
            order: Order::Known,
            steered: Steered::default(),
            probes: Vec::new(),
            own: Vec::new(),
            strays: None,
            leaves: 0,
            stale: Vec::new(),
            keeper: None,
        })
    }

    /// The group of a primary before, by its descriptors' names. Members that are unusable, or of another address,
    /// are left out. No worker holds any until [`Self::hold`].
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn adopt(
        first: &Listener,
        backlog: i32,
        descriptors: &mut Descriptors,
    ) -> Result<Self, GroupError> {
        let mut group = Self::new(first, backlog)?;
        let mut names: Vec<_> =
            descriptors.iter().filter_map(|(name, _)| MemberName::parse(name)).collect();
        names.sort_by_key(|name| name.index);
        let mut seen = BTreeSet::new();
        for name in names {
            let Some(socket) = descriptors.take(&name.to_string()) else { continue };
            let listener = Listener::handed_over(socket).ok();
            let usable = listener.filter(|listener| listener.local() == group.first.local());
            let Some((listener, cookie)) = usable.and_then(|listener| {
                let cookie = sockopt::socket_cookie(&listener).ok()?;
                Some((listener, cookie))
            }) else {
                tracing::warn!(slot = %name.slot, "listening socket of the primary before left out");
                group.stale.push(name);
                continue;
            };
            // A primary that ended in the middle of a change of names has left two for one socket.
            let is_new = seen.insert(cookie);
            if !is_new || name.index != seen.len() {
                group.order = Order::Unknown;
            }
            if is_new {
                let (slot, stored) = (name.slot, Some(name));
                group
                    .members
                    .push(GroupMember { stored, ..GroupMember::new(listener, cookie, slot) });
            } else {
                group.stale.push(name);
            }
        }
        Ok(group)
    }

    /// Stores its members for a successor after a crash from now on.
    pub fn keep_in(&mut self, keeper: Box<dyn DescriptorKeeper>) {
        self.keeper = Some(keeper);
        self.store();
    }

    /// For a successor, with its members in `descriptors`. The first isn't among them: it is the front's.
    pub fn into_descriptors(self, descriptors: &mut Descriptors) {
        for (index, member) in (1..).zip(self.members) {
            let name = MemberName { slot: member.slot, index, cookie: member.cookie };
            descriptors.insert(name.to_string(), member.listener.into_socket());
        }
    }

    /// A socket for a new worker of the slot, as it was at first: that of a worker that has left it, first of all one
    /// where clients wait, then the one that was left last; else a new one.
    ///
    /// # Errors
    ///
    /// If workers hold as many as a slot may have, or the kernel refuses.
    pub fn member(&mut self, worker: WorkerId) -> Result<BorrowedFd<'_>, GroupError> {
        self.check();
        let held = self.place_held_by(worker).or_else(|| self.free_place(worker.slot, false));
        let place = match held {
            Some(place) => place,
            None => match self.add(worker.slot) {
                Ok(place) => place,
                Err(error) => self.free_place(worker.slot, true).ok_or(error)?,
            },
        };
        let renewed = self.members[place].listener.renew(self.backlog);
        renewed.map_err(|source| self.failed("listen again on a socket", source))?;
        let member = &mut self.members[place];
        (member.holder, member.queue_limit) = (Some(worker), None);
        member.unproven = Some(Timestamp::now());
        Ok(member.listener.as_fd())
    }

    /// A worker of a primary before holds that socket. Returns false if it is none of the group.
    pub fn hold(&mut self, worker: WorkerId, socket: BorrowedFd<'_>) -> bool {
        sockopt::socket_cookie(socket).is_ok_and(|cookie| self.hold_by_cookie(worker, cookie))
    }

    /// As [`Self::hold`], by the kernel's name of the socket (`SO_COOKIE`).
    pub fn hold_by_cookie(&mut self, worker: WorkerId, cookie: u64) -> bool {
        let place = self.place_of(cookie);
        let member = place.map(|place| &mut self.members[place]);
        let Some(member) = member.filter(|member| member.slot == worker.slot) else { return false };
        member.holder = Some(worker);
        true
    }

    /// The workers that hold members, and the kernel's name of each one's socket.
    pub fn holders(&self) -> impl Iterator<Item = (WorkerId, u64)> {
        self.members.iter().filter_map(|member| Some((member.holder?, member.cookie)))
    }

    /// A worker has ended. Its member stays for the next one, with the clients that wait there.
    pub fn gone(&mut self, worker: WorkerId) {
        let ended = self.probes.iter().filter(|probe| probe.worker == worker);
        self.own.extend(ended.map(|probe| probe.connection.source()));
        self.own.drain(..self.own.len().saturating_sub(MAX_OWN));
        self.probes.retain(|probe| probe.worker != worker);
        if let Some(place) = self.place_held_by(worker) {
            self.leaves += 1;
            let member = &mut self.members[place];
            (member.holder, member.left) = (None, self.leaves);
            let has_waited = |since: Timestamp| Timestamp::now().since(since) >= PATIENCE;
            member.is_suspect = member.unproven.take().is_some_and(has_waited);
            if std::mem::take(&mut member.is_restless) {
                self.doubt();
            }
        }
    }

    /// Looks whether all members still listen, has those listen again that don't, and returns how many those were. The
    /// program that is attached stays wrong until [`Self::steer`]. A member that can't listen any more is given up: its
    /// worker has none then.
    pub fn check(&mut self) -> usize {
        let is_down =
            |member: &GroupMember| !matches!(kernel::accept_queue(&member.listener), Ok(Some(_)));
        let down = (0..self.members.len()).rev().filter(|place| is_down(&self.members[*place]));
        let down: Vec<_> = down.collect();
        let count = down.len();
        if count > 1 {
            // In another order, others would have taken the empty places.
            self.order = Order::Unknown;
        }
        // One that listens otherwise than when it first accepted may have been shut down in between.
        for member in &mut self.members {
            let limit = kernel::accept_limit(&member.listener).ok().flatten();
            if let (Some(before), Some(now)) = (member.queue_limit, limit)
                && before != now
            {
                member.queue_limit = Some(now);
                if !std::mem::replace(&mut member.is_restless, true) {
                    tracing::warn!(slot = %member.slot, "worker listens again on its socket: it may get clients of other slots");
                }
            }
        }
        // The last one takes the place of the one that goes.
        let down: Vec<_> = down.into_iter().map(|place| self.members.swap_remove(place)).collect();
        for mut member in down {
            let slot = member.slot;
            member.is_restless = member.holder.is_some();
            match member.listener.renew(self.backlog) {
                Ok(()) => {
                    tracing::warn!(%slot, "listening socket that a worker had shut down listens again");
                    self.members.push(member);
                }
                Err(error) => {
                    tracing::error!(%slot, %error, "listening socket given up");
                    self.stale.extend(member.stored);
                }
            }
        }
        self.store();
        count
    }

    /// The order of members, or the program, may have been changed unseen: the next [`Self::steer`] finds out the
    /// order, by connections of its own to all members, and attaches the program again.
    pub fn doubt(&mut self) {
        self.order = Order::Unknown;
        self.steered.program.clear();
    }

    /// Whether the order is to be found out.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.order == Order::Unknown
    }

    /// Members queue so many connections from now on.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_backlog(&mut self, backlog: i32) -> Result<(), GroupError> {
        self.backlog = backlog;
        self.check();
        let set = self.members.iter().try_for_each(|member| member.listener.set_backlog(backlog));
        set.map_err(|source| self.failed("set the backlog of a socket", source))
    }

    /// Has the kernel send clients to these workers from now on, each slot's to the member of its worker; slots that
    /// aren't among them, or whose worker has none, are passed over by ranking. Where no slot is left, clients come to
    /// the first socket. Returns whether that is a change.
    ///
    /// If members are found out whose queues are full, the others' places are right, and those are sorted out by the
    /// next call.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; it goes on with the program before.
    pub fn steer(
        &mut self,
        serving: &[(SlotId, WorkerId)],
        ranking: &KernelRanking,
    ) -> Result<bool, GroupError> {
        serving.clone_into(&mut self.steered.serving);
        if self.steered.ranking.as_ref() != Some(ranking) {
            self.steered.ranking = Some(ranking.clone());
        }
        self.check();
        if self.order == Order::Unknown {
            locate::locate(self)?;
        }
        self.attach(&[])
    }

    /// Whether there is any member beside the front's listener.
    #[must_use]
    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Whether clients are ranked otherwise than by this.
    #[must_use]
    pub fn is_ranked_otherwise(&self, ranking: &KernelRanking) -> bool {
        self.steered.ranking.as_ref() != Some(ranking)
    }

    /// Whether the kernel sends clients to the slot: one that serves, and whose worker has a member.
    #[must_use]
    pub fn steers(&self, slot: SlotId) -> bool {
        self.targets().iter().any(|(target, _)| *target == slot)
    }

    /// Begins a connection of the group's own to the worker's member, past all clients and whether or not it serves. It
    /// takes the place of one that has begun, which may have been reset.
    ///
    /// # Errors
    ///
    /// If clients were never steered, the worker has no member, too many run, or the kernel refuses.
    pub fn probe(&mut self, worker: WorkerId) -> Result<(), GroupError> {
        self.check();
        self.probes.retain(|probe| probe.worker != worker);
        if self.place_held_by(worker).is_none() {
            return Err(GroupError::NoMember(worker));
        }
        if self.steered.ranking.is_none() {
            return Err(GroupError::NotSteered);
        }
        if self.probes.len() >= MAX_PROBES {
            return Err(GroupError::Probes);
        }
        if self.order == Order::Unknown {
            locate::locate(self)?;
        }
        let connection = self.connection()?;
        self.probes.push(Probe { worker, connection, established: None });
        // Now the program knows its port.
        let begun = self.attach(&[]).and_then(|_| {
            let probe = self.probes.last().map_or(Ok(()), |probe| probe.connection.connect());
            probe.map_err(|source| self.failed("connect to a socket", source))
        });
        if begun.is_err() {
            self.probes.pop();
        }
        begun
    }

    /// Whether the worker has accepted its probe, and all that waited before it. The probe ends then.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the program without the probe.
    pub fn probed(&mut self, worker: WorkerId, now: Timestamp) -> Result<bool, GroupError> {
        let queued = self.queued(worker);
        let Some(probe) = self.probes.iter_mut().find(|probe| probe.worker == worker) else {
            return Ok(false);
        };
        if probe.established.is_none() && probe.connection.is_established() {
            probe.established = Some(now);
            // A worker that serves one client at a time reads its end at once, and goes on.
            probe.connection.end_request();
        }
        // It is established here a moment before it waits there.
        let settled = probe.established.is_some_and(|since| now.since(since) >= SETTLE_TIME);
        // Where clients always wait, its end shows that it was accepted.
        let accepted = settled && (queued == Some(0) || probe.connection.has_ended());
        if accepted {
            self.probes.retain(|probe| probe.worker != worker);
            if let Some(place) = self.place_held_by(worker) {
                let member = &mut self.members[place];
                member.unproven = None;
                member.queue_limit = kernel::accept_limit(&member.listener).ok().flatten();
            }
            self.attach(&[])?;
        }
        Ok(accepted)
    }

    /// Connections that wait for the worker to accept them; none if it has no member that listens.
    #[must_use]
    pub fn queued(&self, worker: WorkerId) -> Option<u32> {
        let place = self.place_held_by(worker)?;
        kernel::accept_queue(&self.members[place].listener).ok().flatten()
    }

    /// Has clients closed that came late to members that no worker holds, of slots that another worker serves, and
    /// returns how many were since the last time. Never waits: a thread does it.
    pub fn strays(&mut self) -> u64 {
        let serves = |(slot, worker): &(SlotId, WorkerId)| {
            self.place_held_by(*worker).is_some().then_some(*slot)
        };
        let served: Vec<_> = self.steered.serving.iter().filter_map(serves).collect();
        let has_clients = |member: &&GroupMember| {
            member.holder.is_none()
                && served.contains(&member.slot)
                && kernel::accept_queue(&member.listener).ok().flatten().unwrap_or(0) > 0
        };
        let sockets = self.members.iter().filter(has_clients);
        let sockets: Vec<_> = sockets.filter_map(|it| it.listener.try_clone().ok()).collect();
        if !sockets.is_empty() && self.strays.is_none() {
            self.strays = Strays::start().ok();
        }
        let Some(strays) = &self.strays else { return 0 };
        if !sockets.is_empty() {
            strays.close(sockets, self.own.clone());
        }
        strays.take_count()
    }

    /// Attaches the program again: a process that has a copy of a member may have put another in its place. Where one has
    /// listened again, the order is found out first.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn refresh(&mut self) -> Result<(), GroupError> {
        let is_restless = self.members.iter_mut().any(|it| std::mem::take(&mut it.is_restless));
        if is_restless {
            self.doubt();
            locate::locate(self)?;
        }
        self.steered.program.clear();
        self.attach(&[]).map(drop)
    }

    /// Each slot that can take clients, and the index of its socket.
    fn targets(&self) -> Vec<(SlotId, u16)> {
        let index = |(slot, worker): &(SlotId, WorkerId)| {
            let place = self.place_held_by(*worker)?;
            (self.members[place].slot == *slot).then_some((*slot, index_at(place)))
        };
        self.steered.serving.iter().filter_map(index).collect()
    }

    /// Attaches the program of now, with these pins beside those of the probes, unless it is attached already.
    fn attach(&mut self, pins: &[Pin]) -> Result<bool, GroupError> {
        let Some(ranking) = &self.steered.ranking else { return Ok(false) };
        let pinned = |probe: &Probe| {
            let index = index_at(self.place_held_by(probe.worker)?);
            Some(Pin { source: probe.connection.source(), index })
        };
        let pins: Vec<_> =
            self.probes.iter().filter_map(pinned).chain(pins.iter().copied()).collect();
        let program = compile(ranking, &self.targets(), &pins, self.family)?;
        if program == self.steered.program {
            return Ok(false);
        }
        let length = program.len();
        kernel::attach_program(&self.first, &program)
            .map_err(|source| GroupError::Attach { length, source })?;
        self.steered.program = program;
        Ok(true)
    }

    /// A connection of its own, not begun.
    fn connection(&self) -> Result<Connection, GroupError> {
        Connection::to(self.first.local(), self.family)
            .map_err(|source| self.failed("make a connection to a socket", source))
    }

    /// A new member, at the end.
    fn add(&mut self, slot: SlotId) -> Result<usize, GroupError> {
        if self.members.iter().filter(|member| member.slot == slot).count() >= MAX_MEMBERS_OF_SLOT {
            return Err(GroupError::SlotFull(slot));
        }
        if self.members.len() >= MAX_MEMBERS {
            return Err(GroupError::Full);
        }
        let made = self.first.beside(self.backlog).and_then(|listener| {
            let cookie = sockopt::socket_cookie(&listener)?;
            Ok(GroupMember::new(listener, cookie, slot))
        });
        let member = made.map_err(|source| self.failed("make a socket", source))?;
        self.members.push(member);
        self.store();
        Ok(self.members.len() - 1)
    }

    fn free_place(&self, slot: SlotId, is_suspect: bool) -> Option<usize> {
        let is_free = |place: &usize| {
            let member = &self.members[*place];
            member.slot == slot && member.holder.is_none() && member.is_suspect == is_suspect
        };
        (0..self.members.len()).filter(is_free).max_by_key(|place| {
            let member = &self.members[*place];
            let queue = kernel::accept_queue(&member.listener).ok().flatten();
            (queue.is_some_and(|queued| queued > 0), member.left)
        })
    }

    fn place_held_by(&self, worker: WorkerId) -> Option<usize> {
        self.members.iter().position(|member| member.holder == Some(worker))
    }

    fn place_of(&self, cookie: u64) -> Option<usize> {
        self.members.iter().position(|member| member.cookie == cookie)
    }

    /// Gives each member the name of its place in the store. The new one first: a primary that ends in between leaves
    /// both.
    fn store(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        self.stale.drain(..).for_each(|name| keeper.remove(&name.to_string()));
        for (index, member) in (1..).zip(&mut self.members) {
            let name = MemberName { slot: member.slot, index, cookie: member.cookie };
            if member.stored == Some(name) {
                continue;
            }
            keeper.keep(&name.to_string(), member.listener.as_fd());
            if let Some(before) = member.stored.replace(name) {
                keeper.remove(&before.to_string());
            }
        }
    }

    fn failed(&self, what: &'static str, source: io::Error) -> GroupError {
        GroupError::Socket { what, address: self.first.local(), source }
    }
}

/// The kernel's index of the member at that place: the front's own listener is the first.
fn index_at(place: usize) -> u16 {
    // There are far fewer.
    u16::try_from(place + 1).unwrap_or(0)
}

#[cfg(test)]
mod tests;
