//! What a worker says of sessions that are to survive it.
//!
//! Never looks into a ledger: what it says counts when its worker is dead.

use std::os::fd::OwnedFd;

use crate::link::native::transfer::{Luggage, is_tcp};
use crate::link::native::{Channel, ChannelError};
use crate::protocol::checkpoint::Ledger;
use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{ConnectionRecord, ToPrimary};

/// A session that is to survive its worker.
#[derive(Debug)]
pub struct Keep {
    /// What travels with the connection.
    pub record: ConnectionRecord,
    /// A copy of its socket.
    pub socket: OwnedFd,
    /// The page of its entry in the worker's ledger.
    pub page: u64,
}

/// What is said of such sessions.
#[derive(Debug)]
pub enum Keeping {
    /// Where the worker writes them down; none if it has not arrived.
    Ledger(Option<Ledger>),
    /// This one is to survive it.
    Keep(Box<Keep>),
    /// The socket of this one has not arrived: it can't be kept.
    Unkeepable(ConnectionId),
    /// These needn't survive it any more.
    Forget(Vec<ConnectionId>),
}

impl ToPrimary<'_> {
    /// Whether descriptors may come with it.
    pub(super) fn may_carry(&self) -> bool {
        matches!(self, Self::Session(..) | Self::Ledger | Self::Keep(..))
    }
}

impl Channel {
    pub(super) fn take_of_ledger(
        &self,
        message: ToPrimary<'_>,
        luggage: Luggage,
    ) -> Result<Keeping, ChannelError> {
        if !self.takes_sessions {
            return Err(ChannelError::NoSessions);
        }
        let Luggage { descriptors, lost } = luggage;
        if descriptors.len() > 1 {
            return Err(ChannelError::Descriptors);
        }
        let descriptor = descriptors.into_iter().next();
        match message {
            ToPrimary::Forget(ids) => Ok(Keeping::Forget(ids.iter().collect())),
            ToPrimary::Ledger => match descriptor.map(Ledger::open) {
                None if lost => Ok(Keeping::Ledger(None)),
                Some(Some(ledger)) => Ok(Keeping::Ledger(Some(ledger))),
                None | Some(None) => Err(ChannelError::NoLedger),
            },
            ToPrimary::Keep(record, page) => {
                let fault = |what| ChannelError::Session(record.id, what);
                match descriptor {
                    None if lost => Ok(Keeping::Unkeepable(record.id)),
                    None => Err(fault("no socket")),
                    Some(socket) if !is_tcp(&socket) => Err(fault("a socket that is not TCP")),
                    Some(socket) => Ok(Keeping::Keep(Box::new(Keep { record, socket, page }))),
                }
            }
            _ => Err(ChannelError::NoSessions),
        }
    }
}
