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
    /// The dialect of tests is not handed over.
    #[cfg(test)]
    JsonLines,
}

impl LinkSnapshot {
    /// Writes a link down; its descriptors go to `descriptors`.
    pub fn pack(link: Link, worker: WorkerId, descriptors: &mut Descriptors) -> Self {
        match link {
            Link::Native(channel) => {
                Self::Native(Box::new(ChannelDocument::pack(channel, worker, descriptors)))
            }
            #[cfg(test)]
            Link::JsonLines(_) => Self::JsonLines,
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
            #[cfg(test)]
            Self::JsonLines => Err(TakeOverError::Malformed("a link of tests")),
        }
    }
}
