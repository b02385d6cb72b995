//! Control socket and admin listener: taken over from the primary before where the configuration is still
//! the same, else opened.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::config::Config;
use crate::control::admin::AdminListener;
use crate::control::settings::{AdminSettings, TokenSource};
use crate::control::socket::{ControlSocket, SocketError};
use crate::control::token_file::TokenFile;
use crate::error::chain;
use crate::handover::descriptors::Descriptors;
use crate::handover::primary::{ControlSocketSnapshot, PrimarySnapshot};
use crate::primary::PrimaryError;
use crate::primary::handover::{ADMIN, CONTROL};
use crate::system::store::Store;

/// Control socket and admin listener.
#[derive(Debug)]
pub(super) struct Endpoints {
    pub(super) socket: Option<ControlSocket>,
    pub(super) admin: Option<AdminListener>,
    /// For the successor: the admin listener itself belongs to the thread that serves it.
    admin_copy: Option<OwnedFd>,
    /// The token that this primary, or one before, has made.
    pub(super) token: Option<TokenFile>,
}

impl Endpoints {
    /// Opens them, or takes over those of the primary before.
    pub(super) fn open(
        config: &Config,
        port: u16,
        before: Option<(&PrimarySnapshot, &mut Descriptors)>,
    ) -> Result<Self, PrimaryError> {
        let left_token = before.as_ref().and_then(|(snapshot, _)| left_token(snapshot));
        let (socket, left) = match before {
            Some((snapshot, left)) => {
                (left_socket(config, port, snapshot, left), left_admin(config, snapshot, left))
            }
            None => (None, None),
        };
        let socket = match socket {
            Some(socket) => Some(socket),
            None => bind_socket(config, port)?,
        };
        let Some(settings) = &config.admin else {
            return Ok(Self { socket, admin: None, admin_copy: None, token: None });
        };
        let token_file = match settings.token {
            TokenSource::Own => Some(own_token(socket.as_ref(), left_token)?),
            TokenSource::Given(_) | TokenSource::None => None,
        };
        let token = match &settings.token {
            TokenSource::Given(token) => Some(token),
            TokenSource::Own | TokenSource::None => token_file.as_ref().map(TokenFile::token),
        };
        let adopted = left.and_then(|it| AdminListener::adopt(it, settings, token.cloned()).ok());
        let admin = match adopted {
            Some(admin) => admin,
            None => AdminListener::bind(settings, token.cloned())?,
        };
        let admin_copy = admin.as_fd().try_clone_to_owned().ok();
        Ok(Self { socket, admin: Some(admin), admin_copy, token: token_file })
    }

    /// As plain data.
    pub(super) fn snapshot(
        &self,
        config: &Config,
    ) -> (Option<ControlSocketSnapshot>, Option<String>) {
        let control = self.socket.as_ref().map(|socket| ControlSocketSnapshot {
            path: socket.path().to_owned(),
            wanted: config.control.path.clone(),
            name: config.name.clone(),
        });
        (control, config.admin.as_ref().map(admin_name))
    }

    /// Sends copies to the store.
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

    /// Their descriptors, for a successor.
    pub(super) fn into_descriptors(self) -> Descriptors {
        let mut descriptors = Descriptors::default();
        if let Some(token) = self.token {
            token.leave();
        }
        if let Some(socket) = self.socket.and_then(ControlSocket::hand_over) {
            descriptors.insert(CONTROL, socket);
        }
        if let Some(admin) = self.admin_copy {
            descriptors.insert(ADMIN, admin);
        }
        descriptors
    }
}

fn left_socket(
    config: &Config,
    port: u16,
    snapshot: &PrimarySnapshot,
    left: &mut Descriptors,
) -> Option<ControlSocket> {
    let listener = left.take(CONTROL)?;
    let ControlSocketSnapshot { path, wanted, name } = snapshot.control.clone()?;
    let socket = ControlSocket::adopt(path, listener)?;
    // A socket that is not wanted any more is closed, and its file removed.
    let is_named = wanted.is_some() || socket.is_named(&config.name, port);
    (wanted == config.control.path && name == config.name && is_named).then_some(socket)
}

fn left_admin(
    config: &Config,
    snapshot: &PrimarySnapshot,
    left: &mut Descriptors,
) -> Option<OwnedFd> {
    let listener = left.take(ADMIN)?;
    let settings = config.admin.as_ref()?;
    let is_wanted = snapshot.admin == Some(admin_name(settings));
    is_wanted.then_some(listener)
}

/// If it is not used, its file goes with it.
fn left_token(snapshot: &PrimarySnapshot) -> Option<TokenFile> {
    let socket = &snapshot.control.as_ref()?.path;
    TokenFile::adopt(TokenFile::beside(socket))
}

/// Clients of a primary before go on with its token.
fn own_token(
    socket: Option<&ControlSocket>,
    left: Option<TokenFile>,
) -> Result<TokenFile, PrimaryError> {
    let Some(socket) = socket else {
        let source = io::Error::other("set admin_token_file: there is no control socket beside it");
        return Err(PrimaryError::Start { what: "keep a token for the admin listener", source });
    };
    let path = TokenFile::beside(socket.path());
    match left.filter(|left| left.path() == path) {
        Some(left) => Ok(left),
        None => Ok(TokenFile::create(path)?),
    }
}

/// Without one the primary still serves, unless its path was configured.
fn bind_socket(config: &Config, port: u16) -> Result<Option<ControlSocket>, SocketError> {
    let path = config.control.path.as_deref();
    match ControlSocket::bind(path, &config.name, port) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if path.is_none() => {
            tracing::warn!(
                error = chain(&error),
                "control socket not created: name one with --control"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The name that tells whether an admin listener is still the same.
fn admin_name(settings: &AdminSettings) -> String {
    settings.address.to_string()
}
