//! The primary's end of control, put together and started.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::control::admin::AdminListener;
use crate::control::answers::Control;
use crate::control::history::History;
use crate::control::links::{Facts, Links, PrimaryHandle};
use crate::control::server::{self, Server};
use crate::control::snapshot::Snapshots;
use crate::control::socket::ControlSocket;
use crate::frontend::query::FrontendHandle;
use crate::log::LogHandle;
use crate::primary::snapshot::PrimaryDocument;
use crate::supervisor::event::Announcer;
use crate::supervisor::output::Output;
use crate::supervisor::pool::handle::PoolHandle;

/// What can be seen and steered.
pub(super) struct Parts {
    pub(super) frontend: FrontendHandle,
    pub(super) pool: PoolHandle,
    pub(super) primary: PrimaryHandle,
    pub(super) output: Output,
    pub(super) log: LogHandle,
}

/// Where operators come in.
pub(super) struct Endpoints<'a> {
    pub(super) socket: Option<&'a ControlSocket>,
    pub(super) admin: Option<AdminListener>,
}

/// Starts the thread that answers. It ends when what is returned is dropped.
pub(super) fn start(
    parts: Parts,
    config: &Config,
    address: SocketAddr,
    document: &PrimaryDocument,
    doors: Endpoints<'_>,
    announcer: &Announcer,
) -> io::Result<Server> {
    let Endpoints { socket, admin } = doors;
    let admin_address = admin.as_ref().map(AdminListener::address);
    if let Some(address) = admin_address {
        tracing::info!(%address, "admin listener");
    }
    let facts = Facts {
        name: config.name.clone(),
        started: document.started,
        address,
        placement: config.frontend.router.placement,
        admin: admin_address,
        control: socket.map(|socket| socket.path().to_owned()),
        replacements: document.replacements.clone(),
    };
    let Parts { frontend, pool, primary, output, log } = parts;
    let links = Links { frontend, pool, primary, output, log, facts: Arc::new(facts) };
    let snapshots = Snapshots::new(links.clone());
    let control = Control { links, history: History::new(), snapshots };
    let doors =
        server::Endpoints { control: socket.map(ControlSocket::listener).transpose()?, admin };
    Server::start(control, announcer.subscribe(), doors)
}
