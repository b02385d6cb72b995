//! Where operators come in: opened anew, or gone on with where the primary before had them, unless the
//! configuration says something else now.

use std::os::fd::{AsFd, OwnedFd};

use crate::config::Config;
use crate::control::admin::AdminListener;
use crate::control::socket::{ControlSocket, SocketError};
use crate::error::chain;
use crate::handover::descriptors::Descriptors;
use crate::primary::PrimaryError;
use crate::primary::snapshot::{ADMIN, CONTROL, ControlDocument, PrimaryDocument, admin_name};
use crate::system::store::Store;

/// Control socket and admin listener.
#[derive(Debug)]
pub(super) struct Endpoints {
    pub(super) socket: Option<ControlSocket>,
    pub(super) admin: Option<AdminListener>,
    /// For the successor: the admin listener itself belongs to those who serve it.
    admin_copy: Option<OwnedFd>,
}

impl Endpoints {
    /// Opens them; what `left` has is used where it is still what is wanted.
    pub(super) fn open(
        config: &Config,
        port: u16,
        before: Option<(&PrimaryDocument, &mut Descriptors)>,
    ) -> Result<Self, PrimaryError> {
        let (socket, admin) = match before {
            Some((document, left)) => {
                (left_socket(config, document, left), left_admin(config, document, left))
            }
            None => (None, None),
        };
        let socket = match socket {
            Some(socket) => Some(socket),
            None => bind_socket(config, port)?,
        };
        let admin = match (admin, &config.admin) {
            (Some(admin), _) => Some(admin),
            (None, Some(settings)) => Some(AdminListener::bind(settings)?),
            (None, None) => None,
        };
        let admin_copy = admin.as_ref().and_then(|admin| admin.as_fd().try_clone_to_owned().ok());
        Ok(Self { socket, admin, admin_copy })
    }

    /// What is written down of them.
    pub(super) fn describe(&self, config: &Config) -> (Option<ControlDocument>, Option<String>) {
        let control = self.socket.as_ref().map(|socket| ControlDocument {
            path: socket.path().to_owned(),
            wanted: config.control.path.clone(),
            name: config.name.clone(),
        });
        (control, config.admin.as_ref().map(admin_name))
    }

    /// Has copies kept.
    pub(super) fn keep(&self, store: &Store) {
        for name in [CONTROL, ADMIN] {
            store.remove(name);
        }
        if let Some(Ok(socket)) = self.socket.as_ref().map(ControlSocket::listener) {
            store.keep(CONTROL, socket);
        }
        if let Some(admin) = &self.admin_copy {
            store.keep(ADMIN, admin);
        }
    }

    /// Leaves them to a successor.
    pub(super) fn hand_over(self, descriptors: &mut Descriptors) {
        if let Some(socket) = self.socket.and_then(ControlSocket::hand_over) {
            descriptors.insert(CONTROL, socket);
        }
        if let Some(admin) = self.admin_copy {
            descriptors.insert(ADMIN, admin);
        }
    }
}

fn left_socket(
    config: &Config,
    document: &PrimaryDocument,
    left: &mut Descriptors,
) -> Option<ControlSocket> {
    let listener = left.take(CONTROL)?;
    let ControlDocument { path, wanted, name } = document.control.clone()?;
    let socket = ControlSocket::adopt(path, listener)?;
    // What is not wanted any more is closed, and its file goes.
    (wanted == config.control.path && name == config.name).then_some(socket)
}

fn left_admin(
    config: &Config,
    document: &PrimaryDocument,
    left: &mut Descriptors,
) -> Option<AdminListener> {
    let listener = left.take(ADMIN)?;
    let settings = config.admin.as_ref()?;
    let is_wanted = document.admin == Some(admin_name(settings));
    is_wanted.then(|| AdminListener::adopt(listener, settings).ok()).flatten()
}

/// Without one the primary still serves, unless the socket was asked for.
fn bind_socket(config: &Config, port: u16) -> Result<Option<ControlSocket>, SocketError> {
    let path = config.control.path.as_deref();
    match ControlSocket::bind(path, &config.name, port) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if path.is_none() => {
            tracing::warn!(
                error = chain(&error),
                "no control socket: commands reach it by --control"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
