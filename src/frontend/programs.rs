//! What programs of workers need beside their clients: the sockets that they share, and connections of the primary's
//! own that show whether they take some.
//!
//! Decides nothing about clients. Costs nothing once all programs are up.

use rustix::io::Errno;

use crate::frontend::slot_table::SlotTable;
use crate::link::Link;
use crate::link::error::ChannelError;
use crate::link::event::{LinkEvent, WorkerNote};
use crate::link::node::ports::{PortRequest, Ports};
use crate::link::seam::WorkerId;
use crate::protocol::ids::Timestamp;

/// Shared sockets, and workers that are probed.
#[derive(Debug, Default)]
pub(super) struct Programs {
    ports: Ports,
    probed: Vec<WorkerId>,
    /// When they are looked at next.
    due: Option<Timestamp>,
}

/// What is found in a look at a worker that is probed.
pub(super) type Probed = (WorkerId, Result<LinkEvent, ChannelError>);

impl Programs {
    /// With the sockets of a frontend before.
    pub(super) fn new(ports: Ports) -> Self {
        Self { ports, ..Self::default() }
    }

    /// The sockets, for a successor.
    pub(super) fn into_ports(self) -> Ports {
        self.ports
    }

    /// A worker was attached.
    pub(super) fn attached(&mut self, worker: WorkerId, link: &Link, now: Timestamp) {
        self.ports.adopt_holder(worker, &link.shared_ports());
        self.decided(worker, link, now);
    }

    /// It is known what a worker speaks.
    pub(super) fn decided(&mut self, worker: WorkerId, link: &Link, now: Timestamp) {
        let Some(next) = link.next_probe(now) else { return };
        self.probed.push(worker);
        self.due.get_or_insert(next);
    }

    /// All workers that a frontend before has left are attached.
    pub(super) fn all_attached(&mut self) {
        self.ports.release();
    }

    /// A worker's program asks for an address. Returns what the operator should know.
    ///
    /// # Errors
    ///
    /// If the worker has closed its link.
    pub(super) fn listen(
        &mut self,
        slots: &mut SlotTable,
        worker: WorkerId,
        request: &PortRequest,
    ) -> Result<Option<WorkerNote>, ChannelError> {
        let Some(link) = slots.any_link(worker) else { return Ok(None) };
        let socket = self.ports.open(worker, request);
        let note = match &socket {
            Err(Errno::ACCESS) => Some(WorkerNote::NotAllowed),
            Err(Errno::MFILE) => Some(WorkerNote::TooManyPorts),
            _ => None,
        };
        link.opened(socket)?;
        Ok(note)
    }

    /// A worker's program has closed a shared socket.
    pub(super) fn stopped_listening(&mut self, worker: WorkerId, name: &str) {
        self.ports.close(worker, name);
    }

    /// A worker is gone.
    pub(super) fn gone(&mut self, worker: WorkerId) {
        self.ports.worker_gone(worker);
        self.probed.retain(|probed| *probed != worker);
    }

    /// All workers are gone for good.
    pub(super) fn end(&mut self) {
        self.ports.close_all();
    }

    /// When something is to be done.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Looks at workers that are probed, if it is time.
    pub(super) fn run_due(&mut self, slots: &mut SlotTable, now: Timestamp) -> Vec<Probed> {
        let mut found = Vec::new();
        if self.due.take_if(|due| now >= *due).is_none() {
            return found;
        }
        let mut next = None;
        self.probed.retain(|worker| {
            let Some(link) = slots.link(*worker) else { return false };
            match link.probe(now).transpose() {
                Some(Err(error)) => {
                    found.push((*worker, Err(error)));
                    return false;
                }
                event => found.extend(event.map(|event| (*worker, event))),
            }
            let due = link.next_probe(now);
            next = next.or(due);
            due.is_some()
        });
        self.due = next;
        found
    }
}
