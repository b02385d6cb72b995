//! The start of a worker: descriptors by name, each with the environment variable that names its
//! number, listening sockets by number, and further environment variables.
//!
//! A dialect fills it; the supervisor hands over whatever it holds and knows none of the names.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::kernel::SharedCell;
use crate::link::interface::InterfaceChoice;
use crate::link::node::ports::Rights;
use crate::link::node::settings::NodeSettings;
use crate::protocol::ids::WorkerId;

/// The number of the first listening socket in the worker, as `sd_listen_fds` has it.
pub const FIRST_LISTENING: i32 = 3;

/// The name of a slot's listening socket for its worker (`LISTEN_FDNAMES`).
pub const LISTENER_NAME: &str = "http";

/// The number of the first descriptor in the worker. Those below belong to standard streams and to
/// sockets that are passed by number (`LISTEN_FDS`, from 3).
const FIRST_DESCRIPTOR: i32 = 10;

/// The facts about a worker that is about to start, for every dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerFacts {
    /// Its slot and generation.
    pub worker: WorkerId,
    /// Connections that it may have unacknowledged.
    pub credits: usize,
    /// How long it goes on serving when the primary is gone.
    pub orphan_timeout: Duration,
    /// How long it may drain then.
    pub kill_timeout: Duration,
    /// How long a session may take to migrate.
    pub migrate_timeout: Duration,
    /// Whether sessions may be protected.
    pub protect: bool,
    /// What it may speak.
    pub interface: InterfaceChoice,
    /// The port that the primary listens on.
    pub port: u16,
    /// How it is spoken to if it is a Node worker.
    pub node: Arc<NodeSettings>,
    /// What it may do.
    pub rights: Rights,
}

/// What the link of a worker has to know whose primary has died.
#[derive(Clone, Debug, Default)]
pub struct AdoptedFacts {
    /// Connections that it may have unacknowledged.
    pub credits: usize,
    /// The port that the primary listens on.
    pub port: u16,
    /// How it is spoken to if it is a Node worker.
    pub node: Arc<NodeSettings>,
}

/// Descriptors and variables for a worker, beside its command and the environment that every worker
/// gets.
#[derive(Debug, Default)]
pub struct Inherit {
    descriptors: Vec<Inherited>,
    variables: Vec<(&'static str, String)>,
    /// Each with its name.
    listening: Vec<(String, OwnedFd)>,
    pid_cell: Option<SharedCell>,
}

#[derive(Debug)]
struct Inherited {
    name: &'static str,
    variable: &'static str,
    descriptor: OwnedFd,
}

/// The same, once each descriptor has its number in the worker.
#[derive(Debug)]
pub struct Numbered {
    /// Descriptors and their numbers.
    pub descriptors: Vec<(OwnedFd, i32)>,
    /// Environment variables, those with the numbers included.
    pub variables: Vec<(&'static str, String)>,
    /// How many of the descriptors are listening sockets: their numbers are those from [`FIRST_LISTENING`] on.
    pub listening: usize,
    /// Where the worker's process notes its id, if it has to.
    pub pid_cell: Option<SharedCell>,
}

impl Inherit {
    /// Adds a descriptor. The worker finds its number in `variable`.
    pub fn add(&mut self, name: &'static str, variable: &'static str, descriptor: OwnedFd) {
        self.descriptors.push(Inherited { name, variable, descriptor });
    }

    /// Adds an environment variable.
    pub fn set(&mut self, variable: &'static str, value: impl ToString) {
        self.variables.push((variable, value.to_string()));
    }

    /// Adds a listening socket. The worker finds it by its place among them, or by its name in `LISTEN_FDNAMES`.
    pub fn listen_on(&mut self, name: &str, socket: OwnedFd) {
        // Names are separated by colons.
        let separates = |character: char| character == ':' || character.is_control();
        self.listening.push((name.replace(separates, "_"), socket));
    }

    /// The worker's process is to note its id there, before its program runs.
    pub fn note_pid_in(&mut self, cell: SharedCell) {
        self.pid_cell = Some(cell);
    }

    /// A descriptor by its name.
    #[must_use]
    pub fn descriptor(&self, name: &str) -> Option<BorrowedFd<'_>> {
        let found = self.descriptors.iter().find(|one| one.name == name);
        found.map(|found| found.descriptor.as_fd())
    }

    /// Takes out a descriptor by its name. Its variable is not set then.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let index = self.descriptors.iter().position(|one| one.name == name)?;
        Some(self.descriptors.remove(index).descriptor)
    }

    /// Gives each descriptor its number in the worker.
    #[must_use]
    pub fn number(self) -> Numbered {
        let Self { descriptors, mut variables, listening, pid_cell } = self;
        let (names, sockets): (Vec<_>, Vec<_>) = listening.into_iter().unzip();
        let count = sockets.len();
        if count > 0 {
            variables.push(("LISTEN_FDS", count.to_string()));
            variables.push(("LISTEN_FDNAMES", names.join(":")));
        }
        let mut numbers = FIRST_LISTENING..;
        let listening = sockets.into_iter().zip(numbers.by_ref()).collect::<Vec<_>>();
        let numbers = numbers.skip_while(|number| *number < FIRST_DESCRIPTOR);
        let named = numbers.zip(descriptors).map(|(number, inherited)| {
            variables.push((inherited.variable, number.to_string()));
            (inherited.descriptor, number)
        });
        let descriptors = listening.into_iter().chain(named).collect();
        Numbered { descriptors, variables, listening: count, pid_cell }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn each_descriptor_has_a_number_of_its_own_that_its_variable_names() {
        let mut inherit = Inherit::default();
        inherit.add("channel", "CHANNEL", null());
        inherit.add("page", "PAGE", null());
        inherit.set("SLOT", 3);
        assert!(inherit.descriptor("page").is_some() && inherit.descriptor("other").is_none());
        let Numbered { descriptors, mut variables, .. } = inherit.number();
        variables.sort();
        let expected = [("CHANNEL", "10"), ("PAGE", "11"), ("SLOT", "3")];
        assert_eq!(variables, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(descriptors.iter().map(|one| one.1).collect::<Vec<_>>(), [10, 11]);
    }

    #[test]
    fn a_descriptor_that_was_taken_out_is_not_named() {
        let mut inherit = Inherit::default();
        inherit.add("channel", "CHANNEL", null());
        assert!(inherit.take("channel").is_some() && inherit.take("channel").is_none());
        let numbered = inherit.number();
        assert!(numbered.descriptors.is_empty() && numbered.variables.is_empty());
    }

    #[test]
    fn listening_sockets_have_the_first_numbers_and_are_named() {
        let mut inherit = Inherit::default();
        inherit.add("channel", "CHANNEL", null());
        inherit.listen_on("web", null());
        inherit.listen_on("a:b\n", null());
        let Numbered { descriptors, mut variables, listening, .. } = inherit.number();
        variables.sort();
        let expected = [("CHANNEL", "10"), ("LISTEN_FDNAMES", "web:a_b_"), ("LISTEN_FDS", "2")];
        assert_eq!(variables, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(descriptors.iter().map(|one| one.1).collect::<Vec<_>>(), [3, 4, 10]);
        assert_eq!(listening, 2);
    }
}
