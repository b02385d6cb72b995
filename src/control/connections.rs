//! Connections that workers hold, as the kernel shows them in `/proc`: nobody keeps a table of them.
//!
//! Reads only, and blocks meanwhile: each descriptor of each worker is looked at.

use std::collections::HashMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use procfs::ProcResult;
use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};
use procfs::process::{FDTarget, Process};

use crate::control::report::{Connection, Connections};
use crate::frontend::affinity::fold;
use crate::link::seam::WorkerId;
use crate::supervisor::procfs::tree;

/// A process that may hold connections, with all that it has started.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// The worker.
    pub worker: WorkerId,
    /// Its process.
    pub pid: i32,
}

/// Which connections.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// To this port.
    pub port: u16,
    /// From these addresses only.
    pub clients: Option<IpNet>,
    /// So many at the most.
    pub limit: usize,
}

/// Connections of these holders.
///
/// # Errors
///
/// If the kernel doesn't show any.
pub fn connections(holders: &[Holder], wanted: &Wanted) -> ProcResult<Connections> {
    let held = holders.iter().flat_map(held_sockets).collect::<HashMap<_, _>>();
    let entries = tcp()?.into_iter().chain(tcp6().unwrap_or_default());
    let mut found = Connections::default();
    for entry in entries.filter(|entry| is_wanted(entry, wanted)) {
        let Some((worker, pid)) = held.get(&entry.inode) else { continue };
        found.total += 1;
        if found.connections.len() < wanted.limit {
            found.connections.push(connection(&entry, *worker, *pid));
        }
    }
    found.connections.sort_by(|a, b| (a.slot, &a.client).cmp(&(b.slot, &b.client)));
    Ok(found)
}

/// Inodes of a holder's sockets, and who has them. Processes that end meanwhile have none.
fn held_sockets(holder: &Holder) -> Vec<(u64, (WorkerId, i32))> {
    let worker = holder.worker;
    let mut sockets = Vec::new();
    for pid in tree(holder.pid) {
        let Ok(descriptors) = Process::new(pid).and_then(|process| process.fd()) else { continue };
        for descriptor in descriptors.flatten() {
            if let FDTarget::Socket(inode) = descriptor.target {
                sockets.push((inode, (worker, pid)));
            }
        }
    }
    sockets
}

fn is_wanted(entry: &TcpNetEntry, wanted: &Wanted) -> bool {
    let client = fold(entry.remote_address.ip());
    entry.local_address.port() == wanted.port
        && entry.state != TcpState::Listen
        && wanted.clients.is_none_or(|clients| clients.contains(&client))
}

fn connection(entry: &TcpNetEntry, worker: WorkerId, pid: i32) -> Connection {
    Connection {
        client: plain(entry.remote_address).to_string(),
        local: plain(entry.local_address).to_string(),
        slot: worker.slot.0,
        generation: worker.generation.0,
        pid,
        state: state(&entry.state).to_owned(),
        unread: entry.rx_queue.into(),
        unsent: entry.tx_queue.into(),
    }
}

/// IPv4 as IPv4, however the listener sees it.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(fold(address.ip()), address.port())
}

fn state(state: &TcpState) -> &'static str {
    match state {
        TcpState::Established => "established",
        TcpState::SynSent => "syn-sent",
        TcpState::SynRecv | TcpState::NewSynRecv => "syn-received",
        TcpState::FinWait1 => "fin-wait-1",
        TcpState::FinWait2 => "fin-wait-2",
        TcpState::TimeWait => "time-wait",
        TcpState::Close => "closed",
        TcpState::CloseWait => "close-wait",
        TcpState::LastAck => "last-ack",
        TcpState::Listen => "listen",
        TcpState::Closing => "closing",
    }
}
