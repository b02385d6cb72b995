//! A link as a successor gets it.

use serde::{Deserialize, Serialize};

use crate::handover::descriptors::{Descriptors, TakeOverError};
use crate::link::Link;
use crate::link::native::ChannelDocument;
use crate::protocol::ids::WorkerId;

/// A link without its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub enum LinkSnapshot {
    /// Of a native worker.
    Native(Box<ChannelDocument>),
}

impl LinkSnapshot {
    /// Writes a link down; its descriptors go to `descriptors`.
    pub fn pack(link: Link, worker: WorkerId, descriptors: &mut Descriptors) -> Self {
        match link {
            Link::Native(channel) => {
                Self::Native(Box::new(ChannelDocument::pack(channel, worker, descriptors)))
            }
        }
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// If a descriptor is missing, or what is written is no link.
    pub fn unpack(
        self,
        worker: WorkerId,
        descriptors: &mut Descriptors,
    ) -> Result<Link, TakeOverError> {
        match self {
            Self::Native(document) => document.unpack(worker, descriptors).map(Link::Native),
        }
    }
}
