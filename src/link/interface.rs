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
}

carry!(enum Interface => InterfaceSnapshot { Native, Node });

impl Interface {
    /// Its name in settings and in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Node => "node",
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
