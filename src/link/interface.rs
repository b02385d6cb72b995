//! The interfaces that a worker can speak.

use crate::handover::carry;
use crate::handover::settings::{DispatchSnapshot, InterfaceChoiceSnapshot, InterfaceSnapshot};

/// What a worker speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The protocol of [`crate::protocol`].
    Native,
    /// The protocol between Node's cluster primary and its workers.
    Node,
    /// Nothing but `sd_notify`: it accepts its clients itself, on a listening socket that it was started with.
    Listen,
}

carry!(enum Interface => InterfaceSnapshot { Native, Node, Listen });

impl Interface {
    /// Its name in settings and in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Node => "node",
            Self::Listen => "listen",
        }
    }

    /// Whether its worker gets no message when it drains: it ends by a signal, and the kernel says how many clients
    /// it has.
    #[must_use]
    pub fn ends_by_signal(self) -> bool {
        match self {
            Self::Native => false,
            Self::Node | Self::Listen => true,
        }
    }
}

/// What workers may speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterfaceChoice {
    /// What they begin with.
    #[default]
    Auto,
    /// This one.
    Only(Interface),
}

carry!(enum InterfaceChoice => InterfaceChoiceSnapshot { Auto, Only(interface) });

/// Who picks the worker of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dispatch {
    /// The primary, which accepts the connection and hands it over.
    #[default]
    Primary,
    /// The kernel, by a program of the primary's: each slot has a listening socket, and the client's address decides.
    Kernel,
    /// The kernel, as it likes: each slot has a listening socket, and nobody sticks.
    Os,
}

carry!(enum Dispatch => DispatchSnapshot { Primary, Kernel, Os });

impl Dispatch {
    /// Whether workers have listening sockets of their own.
    #[must_use]
    pub fn is_by_listeners(self) -> bool {
        self != Self::Primary
    }

    /// So many slots there can be, at most: those of the kernel's program, each with two listening sockets.
    #[must_use]
    pub fn max_slots(self) -> u16 {
        if self.is_by_listeners() { 200 } else { 1024 }
    }

    /// Its name in settings and in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Kernel => "kernel",
            Self::Os => "os",
        }
    }
}
