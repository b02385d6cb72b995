//! The server of control socket and admin listener, put together and started.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::bus::service::BusHandle;
use crate::config::Config;
use crate::control::admin::AdminListener;
use crate::control::answers::Control;
use crate::control::history::History;
use crate::control::links::{Facts, Links, Notes, PrimaryHandle};
use crate::control::server::{self, Server};
use crate::control::snapshot::Snapshots;
use crate::control::socket::ControlSocket;
use crate::control::token_file::TokenFile;
use crate::frontend::query::FrontendHandle;
use crate::handover::Carry;
use crate::handover::primary::PrimarySnapshot;
use crate::log::LogHandle;
use crate::supervisor::event::Announcer;
use crate::supervisor::output::Output;
use crate::supervisor::pool::handle::PoolHandle;

/// The parts that can be seen and steered.
pub(super) struct Handles {
    pub(super) frontend: FrontendHandle,
    pub(super) pool: PoolHandle,
    pub(super) primary: PrimaryHandle,
    pub(super) bus: BusHandle,
    pub(super) output: Output,
    pub(super) log: LogHandle,
}

/// The listeners for operators.
pub(super) struct Listeners<'a> {
    pub(super) socket: Option<&'a ControlSocket>,
    pub(super) admin: Option<AdminListener>,
    pub(super) token: Option<&'a TokenFile>,
}

/// Starts the thread that answers. It ends when the returned server is dropped.
pub(super) fn start(
    handles: Handles,
    config: &Config,
    address: SocketAddr,
    snapshot: &PrimarySnapshot,
    listeners: Listeners<'_>,
    notes: watch::Receiver<Notes>,
    (announcer, history): (&Announcer, History),
) -> io::Result<Server> {
    let Listeners { socket, admin, token } = listeners;
    let admin_token_file = token.map(|token| token.path().to_owned());
    let admin_address = admin.as_ref().map(AdminListener::address);
    if let Some(address) = admin_address {
        let token_file =
            admin_token_file.as_deref().map(|file| tracing::field::display(file.display()));
        tracing::info!(url = %url(address), token_file, "admin listener started");
    }
    let facts = Facts {
        name: config.name.clone(),
        started: snapshot.started,
        address,
        placement: config.frontend.placement(),
        admin: admin_address,
        admin_token_file,
        replacements: Carry::restore(snapshot.replacements.clone()),
    };
    let Handles { frontend, pool, primary, bus, output, log } = handles;
    let links = Links { frontend, pool, primary, bus, output, log, facts: Arc::new(facts), notes };
    let snapshots = Snapshots::new(links.clone(), history.clone());
    let control = Control { links, history, snapshots };
    let endpoints =
        server::Endpoints { control: socket.map(ControlSocket::listener).transpose()?, admin };
    Server::start(control, announcer.subscribe(), endpoints)
}

/// Where a browser finds it.
fn url(address: SocketAddr) -> String {
    format!("http://{address}/")
}
