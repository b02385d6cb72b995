//! Kernel dispatch: each slot's worker has a listening socket of its own, and the kernel sends clients there.
//!
//! Decides which workers the kernel knows, and when a worker takes connections; the sockets are the
//! [`ListenerGroup`]'s. Nothing here is in a client's way.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::error::chain;
use crate::frontend::listener_group::{GroupError, ListenerGroup};
use crate::frontend::slot_table::SlotTable;
use crate::frontend::steering::KernelRanking;
use crate::link::GroupMember;
use crate::protocol::ids::{SlotId, Timestamp, WorkerId};

/// How often workers that don't take connections yet are looked at.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// How often it is looked after sockets that a worker has shut down, and clients that came late.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Why a worker is to take a connection of the primary's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is ready but for that.
    Ready,
    /// Its loop is to show that it turns.
    Alive,
}

/// A worker that hasn't taken such a connection yet.
#[derive(Clone, Copy, Debug)]
struct Probed {
    worker: WorkerId,
    asked: Asked,
    is_sent: bool,
}

/// How long workers of a primary before may take to be attached.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the program is attached again: a worker may replace or remove it.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// The group, and what its workers are asked.
#[derive(Debug)]
pub(super) struct KernelDispatch {
    group: ListenerGroup,
    probed: Vec<Probed>,
    /// The workers that the kernel sends clients to.
    steered: Vec<(SlotId, WorkerId)>,
    next_probe: Option<Timestamp>,
    next_check: Timestamp,
    next_refresh: Timestamp,
    /// The last error was logged.
    has_failed: bool,
    /// Nothing was ever steered.
    is_new: bool,
    /// All workers that a primary before has left are attached. Until then the kernel goes on with that one's program.
    is_complete: bool,
    /// That is so by then, where nothing was accepted before: workers that start have to be asked.
    complete_at: Timestamp,
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// These have taken a connection of the primary's own.
    pub(super) accepting: Vec<(WorkerId, Asked)>,
    /// So many clients came too late, to a socket whose worker had ended, and were closed.
    pub(super) lost: u64,
}

impl KernelDispatch {
    /// With a group that may have members of a primary before.
    pub(super) fn new(group: ListenerGroup) -> Self {
        Self {
            is_new: !group.has_members(),
            is_complete: !group.has_members(),
            complete_at: Timestamp::now() + COMPLETE_TIMEOUT,
            group,
            probed: Vec::new(),
            steered: Vec::new(),
            next_probe: None,
            next_check: Timestamp(0),
            next_refresh: Timestamp(0),
            has_failed: false,
        }
    }

    /// The group, for a successor.
    pub(super) fn into_group(self) -> ListenerGroup {
        self.group
    }

    /// A listening socket for a worker that is about to start.
    ///
    /// # Errors
    ///
    /// See [`GroupError`].
    pub(super) fn member(&mut self, worker: WorkerId) -> io::Result<GroupMember> {
        let socket = self.group.member(worker).map_err(io::Error::other)?;
        Ok(GroupMember { socket: socket.try_clone_to_owned()? })
    }

    /// A worker with that socket was attached.
    pub(super) fn attached(&mut self, worker: WorkerId, member: &GroupMember) {
        if !self.group.hold(worker, member.socket.as_fd()) {
            tracing::warn!(
                slot = worker.slot.0,
                generation = worker.generation.0,
                "worker's listening socket is none of the group: it gets no clients",
            );
        }
    }

    /// Whether the worker takes connections is to be found out, at first or once more.
    pub(super) fn expect(&mut self, worker: WorkerId, asked: Asked, now: Timestamp) {
        if !self.probed.iter().any(|probed| probed.worker == worker) {
            self.probed.push(Probed { worker, asked, is_sent: false });
            self.next_probe.get_or_insert(now);
        }
    }

    /// All workers that a primary before has left are attached.
    pub(super) fn all_attached(&mut self) {
        self.is_complete = true;
    }

    /// A worker has ended. Some shut their socket down at their end: it is looked at in this turn.
    pub(super) fn gone(&mut self, worker: WorkerId) {
        self.next_check = Timestamp(0);
        self.probed.retain(|probed| probed.worker != worker);
        self.group.gone(worker);
    }

    /// When something is to be done.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let probe = self.next_probe.filter(|_| self.is_complete);
        probe.into_iter().chain([self.next_check]).min()
    }

    /// Looks at sockets, has the kernel send clients to the slots that serve, and looks at workers that are asked
    /// whether they accept: in this order, since a connection of the primary's own goes where the program says.
    pub(super) fn run(
        &mut self,
        slots: &SlotTable,
        ranking: Option<&KernelRanking>,
        now: Timestamp,
    ) -> Found {
        let mut found = Found::default();
        let checks = now >= self.next_check;
        if checks {
            self.next_check = now + CHECK_INTERVAL;
            if now >= self.next_refresh {
                self.next_refresh = now + REFRESH_INTERVAL;
                let refreshed = self.group.refresh();
                self.note(refreshed);
            }
            if self.group.check() > 0 || self.group.is_in_doubt() {
                // The order is another one.
                self.steered.clear();
            }
        }
        self.is_complete |= now >= self.complete_at;
        if self.is_complete {
            if let Some(ranking) = ranking {
                self.steer(slots, ranking);
            }
            if self.next_probe.take_if(|at| now >= *at).is_some() {
                found.accepting = self.look_at_probes(now);
                self.next_probe = (!self.probed.is_empty()).then(|| now + PROBE_INTERVAL);
            }
        }
        if checks {
            found.lost = self.group.strays();
        }
        found
    }

    fn look_at_probes(&mut self, now: Timestamp) -> Vec<(WorkerId, Asked)> {
        let mut accepting = Vec::new();
        let mut probed = std::mem::take(&mut self.probed);
        probed.retain_mut(|Probed { worker, asked, is_sent }| {
            if !*is_sent {
                let begun = self.group.probe(*worker);
                *is_sent = begun.is_ok();
                if !matches!(begun, Err(GroupError::Probes)) {
                    self.note(begun);
                }
                return true;
            }
            match self.group.probed(*worker, now) {
                Ok(true) => {
                    accepting.push((*worker, *asked));
                    return false;
                }
                Ok(false) => {}
                Err(error) => {
                    *is_sent = false;
                    self.note(Err(error));
                }
            }
            true
        });
        self.probed = probed;
        accepting
    }

    /// Has the kernel send clients to the slots that serve; while none does, to those that are about to: they wait there.
    fn steer(&mut self, slots: &SlotTable, ranking: &KernelRanking) {
        let all = slots.listening();
        let any_serves = all.iter().any(|(_, serves)| *serves);
        let wanted: Vec<_> = all
            .into_iter()
            .filter(|(_, serves)| *serves || !any_serves)
            .map(|(worker, _)| (worker.slot, worker))
            .filter(|(slot, _)| ranking.slots().contains(slot))
            .collect();
        let is_first = std::mem::take(&mut self.is_new);
        let is_other = wanted != self.steered || self.group.is_ranked_otherwise(ranking);
        // With nobody left, the clients of each slot wait where its last worker was.
        if !is_first && (wanted.is_empty() || !is_other) {
            return;
        }
        let steered = self.group.steer(&wanted, ranking).map(drop);
        // After an error it is tried again with the next change, and with each check.
        self.steered = if steered.is_ok() { wanted } else { Vec::new() };
        self.note(steered);
    }

    /// Logs an error once, until something succeeds.
    fn note(&mut self, result: Result<(), GroupError>) {
        let Err(error) = result else {
            self.has_failed = false;
            return;
        };
        if !std::mem::replace(&mut self.has_failed, true) {
            let error = chain(&error);
            tracing::error!(error, "listening sockets of workers are not as they should be");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::affinity::Prefixes;
    use crate::frontend::listener::{Listener, ListenerSettings};
    use crate::frontend::slot_table::{AckTimeout, SlotSettings};
    use crate::frontend::steering::Steering;
    use crate::frontend::steering::program::Family;
    use crate::handover::descriptors::Descriptors;
    use crate::link::{Attached, Link};
    use crate::protocol::ids::Generation;

    #[test]
    fn after_a_crash_nobody_is_steered_until_all_workers_are_attached() {
        let settings = ListenerSettings { host: Some("127.0.0.1".into()), port: 0, backlog: 16 };
        let first = Listener::bind_shared(&settings, Family::V4).unwrap();
        let mut before = ListenerGroup::new(&first, 16).unwrap();
        let workers = [0, 1].map(|slot| WorkerId { slot: SlotId(slot), generation: Generation(0) });
        let members = workers.map(|worker| {
            let socket = before.member(worker).unwrap();
            GroupMember { socket: socket.try_clone_to_owned().unwrap() }
        });
        let mut left = Descriptors::default();
        before.into_descriptors(&mut left);
        let mut kernel = KernelDispatch::new(ListenerGroup::adopt(&first, 16, &mut left).unwrap());
        let steering = Steering::new(b"", Prefixes { v4: 32, v6: 64 });
        let ranking = KernelRanking::new(&steering, &[(SlotId(0), 1.0), (SlotId(1), 1.0)]);
        let second = Duration::from_secs(1);
        let settings =
            SlotSettings { ack_timeout: AckTimeout::same(second), slot_wait: second, queue: 4 };
        let (mut slots, now) = (SlotTable::new(settings), Timestamp::now());
        for (worker, member) in workers.into_iter().zip(members) {
            kernel.run(&slots, Some(&ranking), now);
            assert!(kernel.steered.is_empty(), "the program of before goes on");
            kernel.attached(worker, &member);
            slots.attach(worker, Attached::new(Link::native(1).unwrap().0, Some(member)));
            slots.serve(worker);
        }
        kernel.all_attached();
        kernel.run(&slots, Some(&ranking), now);
        assert_eq!(kernel.steered, workers.map(|worker| (worker.slot, worker)));
    }
}
