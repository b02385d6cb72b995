//! Connections that workers hold, read from `/proc`: the primary has no table of them.
//!
//! Blocks: reads each descriptor of each worker.

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

/// A worker whose connections are listed, with its child processes.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// The worker.
    pub worker: WorkerId,
    /// Its process.
    pub pid: i32,
}

/// A filter of connections.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The server's port.
    pub port: u16,
    /// The clients' addresses, all by default.
    pub clients: Option<IpNet>,
    /// The largest number listed.
    pub limit: usize,
}

/// Lists connections of these workers.
///
/// # Errors
///
/// If `/proc/net` cannot be read.
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

/// Inodes of a worker's sockets, with the process that holds them. Processes that end meanwhile
/// have none.
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

/// An IPv4 address as IPv4, also on an IPv6 socket.
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
