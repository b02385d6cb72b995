//! Hints for the operator, each said once: the command is no worker, nothing is protected.

use std::collections::{HashMap, HashSet};

use crate::link::event::WorkerNote;
use crate::link::interface::Interface;
use crate::link::node::settings::HandOverBy;
use crate::link::seam::WorkerId;
use crate::supervisor::ended::EndedConnections;
use crate::supervisor::pool::settings::PoolSettings;
use crate::supervisor::wrappers;

/// What follows the reason why no worker became ready.
const NO_WORKER: &str = ", and no worker ever attached: COMMAND has to be a worker: a server for Node, or a program that takes \
     its connections from sticky-lb and doesn't listen itself, or one that takes a listening socket: {fd} in the command is \
     its number, --interface listen is for those that look for LISTEN_FDS (see the guide, node-programs, any-server and \
     protocol)";

/// What was found and said so far.
#[derive(Debug, Default)]
pub(super) struct Hints {
    has_attached: bool,
    /// A program for Node has listened on the front's port.
    has_listened: bool,
    protects: bool,
    is_protection_hinted: bool,
    interface: Option<Interface>,
    is_lateness_hinted: bool,
    noted: HashSet<WorkerNote>,
    /// Programs that listen on another port than the front's, and not on that.
    elsewhere: HashMap<WorkerId, u16>,
    other_port: Option<u16>,
}

impl Hints {
    /// A worker has attached.
    pub(super) fn attached(&mut self) {
        self.has_attached = true;
    }

    /// The primary follows one that has crashed, whose copies of protected sessions are gone: that a worker has none
    /// says nothing of its app.
    pub(super) fn crashed(&mut self) {
        self.is_protection_hinted = true;
    }

    /// The rest of the reason why no worker became ready: the command is none, or listens elsewhere.
    pub(super) fn no_worker(&self, command: &[String], settings: &PoolSettings) -> String {
        let listens = self.interface == Some(Interface::Listen);
        let advice = wrappers::advice(command).filter(|_| !listens);
        match (advice, self.other_port) {
            (Some(advice), _) => format!(": {advice}"),
            (None, Some(port)) => format!(
                ": its program listens on port {port}, and clients come by another; start with --port {port}, or \
                 let the program listen on the port in its variable PORT"
            ),
            (None, None) => match self.late_because(settings) {
                Some(reason) => format!(": {reason}"),
                None if self.has_attached => String::new(),
                None => NO_WORKER.to_owned(),
            },
        }
    }

    /// What a program that is not ready in time has not done, by what is known of it.
    fn late_because(&self, settings: &PoolSettings) -> Option<&'static str> {
        let by_message = matches!(settings.node.hand_over_by, HandOverBy::Message(_));
        match self.interface {
            Some(Interface::Node) if self.has_listened && settings.dispatch.is_by_listeners() => {
                Some(
                    "its program listens and has not accepted a connection on its own listening socket: Deno takes \
                     connections by dispatch = \"primary\" alone",
                )
            }
            Some(Interface::Node) if settings.node.wait_ready && self.has_listened => Some(
                "its program listens and has not sent ready, which wait_ready waits for: process.send('ready')",
            ),
            Some(Interface::Node) if by_message => Some(
                "its program has taken no connection by the message that node_message names, and has sent no ready",
            ),
            Some(Interface::Node) => Some(
                "its program has not listened on the port in its variable PORT; one that takes its connections as \
                 messages needs --node-message",
            ),
            Some(Interface::Listen) if settings.wait_ready => Some(
                "its program has not sent READY=1 (sd_notify), which wait_ready waits for: leave wait_ready out \
                     where it never does",
            ),
            Some(Interface::Listen) => Some(
                "its program has not accepted a connection on its listening socket: descriptor 3 (LISTEN_FDS), of \
                 which {fd} in the command is the number, as in --fd {fd}; npm, npx, bun run and their like lose it",
            ),
            Some(Interface::Native) | None => None,
        }
    }

    /// It is found out what a worker speaks, where the settings leave it open: said where it is the first one, or another
    /// than before.
    pub(super) fn speaks(&mut self, worker: WorkerId, interface: Interface, is_found: bool) {
        if self.interface.replace(interface) != Some(interface) && is_found {
            tracing::info!(
                slot = worker.slot.0,
                interface = interface.name(),
                "interface found: the worker has written to its channel first",
            );
        }
    }

    /// Something that the operator should know: said once, not by each worker.
    pub(super) fn noted(&mut self, worker: WorkerId, note: WorkerNote) {
        match note {
            // It may listen on the front's port next: nothing is said until its time is over.
            WorkerNote::OtherPort(port) => {
                self.elsewhere.entry(worker).or_insert(port);
                return;
            }
            WorkerNote::FrontPort => {
                self.has_listened = true;
                self.elsewhere.remove(&worker);
                return;
            }
            _ if !self.noted.insert(note) => return,
            _ => {}
        }
        let slot = worker.slot.0;
        match note {
            WorkerNote::OtherPort(_) | WorkerNote::FrontPort => {}
            WorkerNote::OtherServer => tracing::warn!(
                slot,
                "worker's program was refused a server on a descriptor of the primary's, or on no address",
            ),
            WorkerNote::NotAllowed => tracing::warn!(
                slot,
                "worker's program was refused an address: the primary may have it, its own user may not",
            ),
            WorkerNote::TooManyPorts => tracing::warn!(
                slot,
                "worker's program was refused an address: workers share too many beside the primary's port",
            ),
            WorkerNote::Bun => tracing::warn!(
                slot,
                "worker's program was refused its server: Bun's servers take no connections from a primary",
            ),
            WorkerNote::OwnListener => tracing::warn!(
                slot,
                "worker opens the port itself, beside the listening socket that it was given: it takes clients of \
                 other slots",
            ),
            WorkerNote::Malformed => {
                tracing::warn!(slot, "worker has sent a line that is no JSON: ignored");
            }
            WorkerNote::Dropped => tracing::warn!(
                slot,
                "worker doesn't read what is sent to it: further messages are dropped",
            ),
        }
    }

    /// A worker's process is gone; whether it was killed since it was not ready in time.
    pub(super) fn gone(&mut self, worker: WorkerId, was_late: bool, settings: &PoolSettings) {
        let front = settings.port;
        if was_late
            && !self.elsewhere.contains_key(&worker)
            && let Some(reason) = self.late_because(settings)
            && !std::mem::replace(&mut self.is_lateness_hinted, true)
        {
            tracing::warn!(slot = worker.slot.0, reason, "worker was not ready in time");
        }
        let Some(port) = self.elsewhere.remove(&worker).filter(|_| was_late) else { return };
        if self.other_port.replace(port) != Some(port) {
            tracing::warn!(
                slot = worker.slot.0,
                port,
                front,
                "worker's program listens on another port: workers get clients by the primary's port alone",
            );
        }
    }

    /// A worker has ended; by a crash that sessions could have been protected from, or not.
    pub(super) fn died(&mut self, ended: &EndedConnections, could_protect: bool) {
        self.protects |= ended.protected > 0;
        if could_protect && ended.cut > 0 && !self.protects && !self.is_protection_hinted {
            self.is_protection_hinted = true;
            tracing::warn!(
                cut = ended.cut,
                "worker crashed and none of its connections was protected: protect is on, and only \
                 WebSockets whose handlers call Session::protect are",
            );
        }
    }
}
