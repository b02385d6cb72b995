//! Counts the clients of workers that don't do so themselves: now and then for placement and status, and often while
//! one drains, whose signal waits for its last client.

use std::collections::HashSet;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::link::event::WorkerNote;
use crate::link::interface::Interface;
use crate::link::seam::WorkerId;
use crate::protocol::ids::Timestamp;
use crate::supervisor::lifecycle::Fact;
use crate::supervisor::pool::error::PoolError;
use crate::supervisor::pool::fleet::Fleet;
use crate::supervisor::pool::timer::sleep_until;
use crate::supervisor::pool::workers::Running;
use crate::supervisor::sockets::{ClientSockets, Open};
use crate::system::tcp_clients::Handshake;

/// While workers only serve.
const INTERVAL: Duration = Duration::from_secs(2);
/// While one drains.
const DRAIN_INTERVAL: Duration = Duration::from_millis(50);
/// A draining worker is seen without clients so often in a row before it is stopped: a client may be on its way.
const EMPTY_LOOKS: u8 = 3;

/// When to count next, and the count under way.
#[derive(Debug, Default)]
pub(super) struct ClientCounts {
    at: Option<Timestamp>,
    counting: Option<JoinHandle<Counts>>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum ClientLook {
    /// A count is due.
    Due,
    /// It is done.
    Counted(Counts),
}

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    workers: Vec<ClientCount>,
    /// Handshakes with the port that are under way, if workers have listening sockets of their own.
    handshakes: HashSet<Handshake>,
}

/// The clients that a worker has.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientCount {
    worker: WorkerId,
    clients: u64,
    /// It listens on the port by a socket of its own, beside the one that it was given.
    listens_elsewhere: bool,
}

impl ClientCounts {
    /// When to count next.
    pub(super) fn plan(&mut self, fleet: &Fleet, now: Timestamp) {
        let mut counted = counted(fleet).peekable();
        if counted.peek().is_none() {
            self.at = None;
            return;
        }
        let interval = if counted.any(|worker| fleet.waits_for_signal(worker)) {
            DRAIN_INTERVAL
        } else {
            INTERVAL
        };
        let at = now + interval;
        self.at = Some(self.at.map_or(at, |planned| planned.min(at)));
    }

    /// Waits until something is to be done. May be dropped and called again.
    pub(super) async fn next(&mut self) -> ClientLook {
        if let Some(counting) = &mut self.counting {
            let counts = counting.await.unwrap_or_default();
            self.counting = None;
            return ClientLook::Counted(counts);
        }
        sleep_until(self.at).await;
        ClientLook::Due
    }

    /// Counts on a thread of its own.
    pub(super) fn count(&mut self, fleet: &Fleet) {
        self.at = None;
        let port = fleet.settings.port;
        let inode = |id| fleet.workers.get(id).and_then(Running::listening_inode);
        let workers = counted(fleet).map(|id| (id, fleet.workers.pid(id), inode(id)));
        let workers: Vec<_> = workers.collect();
        self.counting = Some(tokio::task::spawn_blocking(move || {
            let Some(sockets) = ClientSockets::of_port(port) else { return Counts::default() };
            let count = |(worker, pid, inode)| {
                let Open { clients, listens_elsewhere } = sockets.of_process(pid, inode)?;
                Some(ClientCount { worker, clients, listens_elsewhere })
            };
            let workers = workers.into_iter().filter_map(count).collect();
            Counts { workers, handshakes: sockets.into_handshakes() }
        }));
    }
}

/// The workers that don't count.
fn counted(fleet: &Fleet) -> impl Iterator<Item = WorkerId> {
    let workers = fleet.workers.iter();
    let counted = workers.filter(|(_, it)| it.interface.is_some_and(Interface::ends_by_signal));
    counted.map(|(worker, _)| worker)
}

/// Notes the counts. A draining worker without clients is stopped, unless one may still come to it: a handshake that was
/// under way when its successor took over ends at its socket.
pub(super) async fn take(fleet: &mut Fleet, counts: &Counts) -> Result<(), PoolError> {
    let now = Timestamp::now();
    for ClientCount { worker, clients, listens_elsewhere } in &counts.workers {
        if *listens_elsewhere {
            fleet.hints.noted(*worker, WorkerNote::OwnListener);
        }
        let waits = fleet.waits_for_signal(*worker);
        let Some(running) = fleet.workers.get_mut(*worker) else { continue };
        running.note_clients(*clients);
        let is_expected = waits && running.expects_clients(&counts.handshakes, now);
        running.empty_looks = if *clients == 0 && waits && !is_expected {
            running.empty_looks.saturating_add(1)
        } else {
            0
        };
        if running.empty_looks >= EMPTY_LOOKS {
            fleet.on(worker.slot, Fact::Idle(worker.generation)).await?;
        }
    }
    Ok(())
}
