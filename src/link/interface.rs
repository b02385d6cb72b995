//! The interfaces that a worker can speak.

use crate::handover::carry;
use crate::handover::settings::{InterfaceChoiceSnapshot, InterfaceSnapshot};

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
