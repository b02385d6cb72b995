//! The command of a worker, and its surroundings.
//!
//! Data only: `process` starts it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::process::{Signal, geteuid};

use crate::handover::carry;
use crate::handover::settings::{InheritedVariablesSnapshot, UserSnapshot, WorkerCommandSnapshot};
use crate::link::interface::{Interface, InterfaceChoice};
use crate::link::node::ports::Rights;

/// The command of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerCommand {
    /// Looked for in `PATH` unless it has a slash; a relative path starts at `directory`.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where it runs; where the primary runs if `None`.
    pub directory: Option<PathBuf>,
    /// The variables that are set for it, beside those that every worker gets.
    pub environment: Vec<(OsString, OsString)>,
    /// The primary's variables that it inherits.
    pub inherited: InheritedVariables,
    /// The user that it runs as; the primary's if `None`.
    pub user: Option<User>,
    /// Its file mode creation mask; the primary's if `None`.
    pub umask: Option<u32>,
    /// Its niceness, from -20 to 19; the primary's if `None`.
    pub nice: Option<i32>,
    /// No program that it runs gives it more rights than it has: setuid programs run as the worker's user.
    pub no_new_privs: bool,
    /// No program that it runs has any capability.
    pub drop_capabilities: bool,
}

carry!(struct WorkerCommand => WorkerCommandSnapshot { program, arguments, directory, environment, inherited, user, umask, nice, no_new_privs, drop_capabilities });

/// Whether a word of a command stands for a listening socket that is passed to it by number.
#[must_use]
pub fn names_listener(word: &OsStr) -> bool {
    let word = word.to_string_lossy();
    ["{fd}", "{fd6}", "fd://"].iter().any(|name| word.contains(name))
}

impl WorkerCommand {
    /// The signal by which its workers end that get no order, unless another one is set.
    #[must_use]
    pub fn stop_signal(&self, interface: InterfaceChoice) -> Signal {
        // nginx closes connections at once at SIGTERM.
        let is_nginx = || Path::new(&self.program).file_name() == Some(OsStr::new("nginx"));
        match interface {
            InterfaceChoice::Only(Interface::Listen) if is_nginx() => Signal::QUIT,
            InterfaceChoice::Only(Interface::Listen) => Signal::TERM,
            _ => Signal::INT,
        }
    }

    /// What a worker may do that this process might do for it.
    #[must_use]
    pub fn rights(&self) -> Rights {
        let own = geteuid();
        self.rights_under(own.as_raw())
    }

    /// The same, for a process of this user.
    fn rights_under(&self, own: u32) -> Rights {
        let is_own = self.user.as_ref().is_none_or(|user| user.uid == own);
        // Without capabilities, root is a user whose files are its own.
        let is_less = self.drop_capabilities;
        Rights { low_ports: is_own && !is_less, files: is_own && !(is_less && own == 0) }
    }
}

/// This program itself, as a worker's.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

impl WorkerCommand {
    /// Program and arguments, for people; empty if it is the demo.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        if self.program == OWN_PROGRAM {
            return Vec::new();
        }
        let words = [&self.program].into_iter().chain(&self.arguments);
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }
}

/// The primary's variables that a worker inherits. Those that concern the primary alone are never
/// among them: `STICKY_LB_*` but `STICKY_LB_LOG`, systemd's, a Node parent's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InheritedVariables {
    /// All.
    #[default]
    All,
    /// None but `PATH`, `HOME`, `USER`, `LANG`, `TZ` and their like.
    Few,
    /// All but those whose names begin so.
    Without(Vec<String>),
}

carry!(enum InheritedVariables => InheritedVariablesSnapshot { All, Few, Without(prefixes) });

/// The user that a worker runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name, for `USER` and `LOGNAME`, if it has one.
    pub name: Option<String>,
    /// Its home, for `HOME`, if it has one.
    pub home: Option<PathBuf>,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
}

carry!(struct User => UserSnapshot { name, home, uid, gid, groups });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_accept_end_by_term_and_nginx_by_quit() {
        let listen = InterfaceChoice::Only(Interface::Listen);
        for (program, interface, signal) in [
            ("uvicorn", listen, Signal::TERM),
            ("nginx", listen, Signal::QUIT),
            ("/usr/sbin/nginx", listen, Signal::QUIT),
            ("nginx", InterfaceChoice::Auto, Signal::INT),
            ("node", InterfaceChoice::Only(Interface::Node), Signal::INT),
        ] {
            let command = WorkerCommand { program: program.into(), ..WorkerCommand::default() };
            assert_eq!(command.stop_signal(interface), signal, "{program} {interface:?}");
        }
    }

    #[test]
    fn a_worker_of_another_user_has_its_own_rights_alone() {
        let user = |uid| Some(User { name: None, home: None, uid, gid: uid, groups: Vec::new() });
        for (user, drop_capabilities, own, low_ports, files) in [
            (None, false, 0, true, true),
            (user(0), false, 0, true, true),
            (user(33), false, 0, false, false),
            (user(33), true, 0, false, false),
            (None, true, 0, false, false),
            (None, true, 1000, false, true),
            (None, false, 1000, true, true),
            (user(33), false, 1000, false, false),
        ] {
            let command = WorkerCommand { user, drop_capabilities, ..WorkerCommand::default() };
            let expected = Rights { low_ports, files };
            assert_eq!(command.rights_under(own), expected, "{command:?} {own}");
        }
    }
}
