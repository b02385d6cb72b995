//! Control socket and admin listener: taken over from the primary before where the configuration is still
//! the same, else opened.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use crate::config::Config;
use crate::control::admin::AdminListener;
use crate::control::settings::{AdminSettings, Token, TokenSource};
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
    wanted: WantedSocket,
    pub(super) admin: Option<AdminListener>,
    /// For the successor: the admin listener itself belongs to the thread that serves it.
    admin_copy: Option<OwnedFd>,
    /// The token that this primary, or one before, has made.
    pub(super) token: Option<TokenFile>,
}

/// Where the control socket is to be.
#[derive(Clone, Debug)]
struct WantedSocket {
    path: Option<PathBuf>,
    name: String,
    port: u16,
}

/// What was made again.
#[derive(Debug)]
pub(super) enum Renewed {
    /// Nothing: all is there.
    Nothing,
    /// The file of the token.
    TokenFile,
    /// The control socket, and where it is. The file of the token, too.
    Socket(UnixListener, PathBuf),
}

impl Endpoints {
    /// Opens them, or takes over those of the primary before: what cannot be had any more then is noted in
    /// the configuration, and the primary goes on without.
    pub(super) fn open(
        config: &mut Config,
        port: u16,
        before: Option<(&PrimarySnapshot, &mut Descriptors)>,
    ) -> Result<Self, PrimaryError> {
        let path = config.control.path.clone();
        let wanted = WantedSocket { path, name: config.name.clone(), port };
        let Some((snapshot, left)) = before else {
            let socket = wanted.bind_first()?;
            let token = token_file(config, socket.as_ref())?;
            let admin = config
                .admin
                .as_ref()
                .map(|settings| AdminListener::bind(settings, token_of(settings, token.as_ref())));
            return Ok(Self::new(socket, wanted, admin.transpose()?, token));
        };
        let mut not_renewed = Vec::new();
        let adopted = left_socket(config, port, snapshot, left);
        let socket = adopted.or_else(|| noted(wanted.bind(), "control", &mut not_renewed));
        let token = left_token_file(config, snapshot, socket.as_ref(), &mut not_renewed);
        let left = left_admin(config, snapshot, left);
        let admin = config.admin.as_ref().and_then(|settings| {
            let token = token_of(settings, token.as_ref());
            let adopted =
                left.and_then(|it| AdminListener::adopt(it, settings, token.clone()).ok());
            let bind = || noted(AdminListener::bind(settings, token), "admin", &mut not_renewed);
            adopted.or_else(bind)
        });
        config.not_renewed.extend(not_renewed);
        Ok(Self::new(socket, wanted, admin, token))
    }

    fn new(
        socket: Option<ControlSocket>,
        wanted: WantedSocket,
        admin: Option<AdminListener>,
        token: Option<TokenFile>,
    ) -> Self {
        let admin_copy = admin.as_ref().and_then(|admin| admin.as_fd().try_clone_to_owned().ok());
        Self { socket, wanted, admin, admin_copy, token }
    }

    /// Makes again what others have removed.
    ///
    /// # Errors
    ///
    /// A text, if that cannot be.
    pub(super) fn renew(&mut self) -> Result<Renewed, String> {
        let has_token = self.token.as_ref().is_none_or(TokenFile::is_there);
        if self.socket.as_ref().is_some_and(ControlSocket::is_there) {
            if has_token {
                return Ok(Renewed::Nothing);
            }
            self.renew_token()?;
            return Ok(Renewed::TokenFile);
        }
        match &mut self.socket {
            Some(socket) => socket.bind_again().map_err(|error| chain(&error))?,
            none => *none = Some(self.wanted.bind().map_err(|error| chain(&error))?),
        }
        self.renew_token()?;
        let socket = self.socket.as_ref().and_then(|it| Some((it.listener().ok()?, it.path())));
        Ok(socket.map_or(Renewed::Nothing, |(it, path)| Renewed::Socket(it, path.to_owned())))
    }

    fn renew_token(&mut self) -> Result<(), String> {
        let Some(token) = &mut self.token else { return Ok(()) };
        token.renew().map_err(|error| format!("file of the admin token: {error}"))
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

    /// The token of the admin listener, for a successor that doesn't find its file.
    pub(super) fn token(&self, config: &Config) -> Option<String> {
        let token = token_of(config.admin.as_ref()?, self.token.as_ref());
        token.map(|token| token.text().to_owned())
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

/// Clients of the primary before go on with its token.
fn left_token_file(
    config: &Config,
    snapshot: &PrimarySnapshot,
    socket: Option<&ControlSocket>,
    not_renewed: &mut Vec<String>,
) -> Option<TokenFile> {
    let before = snapshot.control.as_ref().map(|control| TokenFile::beside(&control.path));
    // If it is not used, its file goes with it.
    let left = before.clone().and_then(TokenFile::adopt);
    if !wants_own_token(config) {
        return None;
    }
    let path = socket.map(|socket| TokenFile::beside(socket.path())).or(before)?;
    if let Some(left) = left.filter(|left| left.path() == path) {
        return Some(left);
    }
    let token = snapshot.token.as_deref().map(Token::new);
    let made = TokenFile::create(path.clone(), token.clone());
    let unwritten = || token.map(|token| TokenFile::unwritten(path, token));
    noted(made, "admin_token_file", not_renewed).or_else(unwritten)
}

/// A token for the first primary, where no other is configured.
fn token_file(
    config: &Config,
    socket: Option<&ControlSocket>,
) -> Result<Option<TokenFile>, PrimaryError> {
    if !wants_own_token(config) {
        return Ok(None);
    }
    let Some(socket) = socket else {
        let source = io::Error::other("set admin_token_file: there is no control socket beside it");
        return Err(PrimaryError::Start { what: "keep a token for the admin listener", source });
    };
    Ok(Some(TokenFile::create(TokenFile::beside(socket.path()), None)?))
}

fn wants_own_token(config: &Config) -> bool {
    config.admin.as_ref().is_some_and(|settings| settings.token == TokenSource::Own)
}

fn token_of(settings: &AdminSettings, own: Option<&TokenFile>) -> Option<Token> {
    match &settings.token {
        TokenSource::Given(token) => Some(token.clone()),
        TokenSource::Own => own.map(|own| own.token().clone()),
        TokenSource::None => None,
    }
}

/// The result; an error is a note.
fn noted<T, E: std::error::Error>(
    result: Result<T, E>,
    key: &str,
    not_renewed: &mut Vec<String>,
) -> Option<T> {
    result.map_err(|error| not_renewed.push(format!("{key}: {}", chain(&error)))).ok()
}

impl WantedSocket {
    fn bind(&self) -> Result<ControlSocket, SocketError> {
        ControlSocket::bind(self.path.as_deref(), &self.name, self.port)
    }

    /// Without one the first primary still serves, unless its path was configured.
    fn bind_first(&self) -> Result<Option<ControlSocket>, SocketError> {
        match self.bind() {
            Ok(socket) => Ok(Some(socket)),
            Err(error) if self.path.is_none() => {
                tracing::warn!(
                    error = chain(&error),
                    "control socket not created: name one with --control"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The name that tells whether an admin listener is still the same.
fn admin_name(settings: &AdminSettings) -> String {
    settings.address.to_string()
}
