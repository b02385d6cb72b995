//! The settings of this dialect.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use data_encoding::HEXLOWER;

use crate::handover::settings::{HandOverBySnapshot, NodeSettingsSnapshot};
use crate::handover::{Carry, carry};

/// How Node workers are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// A worker serves when its program has sent `ready`, as for PM2; else as soon as it listens.
    pub wait_ready: bool,
    /// How connections are handed over.
    pub hand_over_by: HandOverBy,
    /// A message of the program's own protocol, in JSON, that it gets when it is to end.
    pub shutdown_message: Option<String>,
    /// The same for all workers.
    pub ticket_keys: TicketKeys,
}

carry!(struct NodeSettings => NodeSettingsSnapshot { wait_ready, hand_over_by, shutdown_message, ticket_keys });

/// Keys of TLS session tickets, 48 bytes in hexadecimal: with the same keys in all workers, a session that began with
/// one goes on with another. Empty until they are made.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TicketKeys(Arc<str>);

impl TicketKeys {
    /// Random ones.
    ///
    /// # Errors
    ///
    /// If there is no random device.
    pub fn random() -> io::Result<Self> {
        let mut random = [0; 48];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        Ok(Self(HEXLOWER.encode(&random).into()))
    }

    /// Whether they are not made yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a program gets them.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // They are a secret.
        f.write_str("TicketKeys")
    }
}

impl Carry for TicketKeys {
    type Snapshot = String;

    fn snapshot(&self) -> String {
        self.0.as_ref().to_owned()
    }

    fn restore(snapshot: String) -> Self {
        Self(snapshot.into())
    }
}

/// How a Node worker gets a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HandOverBy {
    /// As Node's cluster does: to the server that the program has open on the front's port.
    #[default]
    Listening,
    /// As a message of the program's own protocol, in JSON, with the socket.
    Message(String),
}

carry!(enum HandOverBy => HandOverBySnapshot { Listening, Message(message) });
