//! What a start would refuse, found without starting anything: for `check`.
//!
//! What listens on the port and the admin address is not asked: that may be the primary itself.

use crate::config::Config;
use crate::control::admin::AdminListener;
use crate::control::socket::ControlSocket;
use crate::error::chain;
use crate::frontend::listener::{ListenError, Listener};
use crate::supervisor::output;
use crate::supervisor::program;

/// The keys of settings that a start would refuse, and why.
#[must_use]
pub fn problems(config: &Config) -> Vec<(&'static str, String)> {
    let command = &config.workers.command;
    let listener = Listener::check(&config.listener).err().map(|error| {
        let key = match &error {
            ListenError::Privileged(_) => "port",
            _ => "host",
        };
        (key, chain(&error))
    });
    let program = program::check(command).err().map(|error| {
        let program = &command.program;
        ("command", format!("cannot run {program:?}: {}", chain(&error)))
    });
    let control = config.control.path.as_deref().map(ControlSocket::check);
    let control = control.and_then(Result::err).map(|error| ("control", chain(&error)));
    let admin = config.admin.as_ref().map(AdminListener::check);
    let admin = admin.and_then(Result::err).map(|error| ("admin", chain(&error)));
    let output = output::problems(&config.output).into_iter();
    let output = output.map(|(key, error)| (key, chain(&error)));
    listener.into_iter().chain(program).chain(output).chain(control).chain(admin).collect()
}
