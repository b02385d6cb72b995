//! Why bytes are not a message.

use crate::protocol::message::{HEADER, VERSION};

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Shorter than a header.
    #[error("message of {0} bytes is shorter than its header of {HEADER}")]
    Short(usize),
    /// Does not open with `"SL"`.
    #[error("message opens with bytes {0:#04x} {1:#04x}, expected \"SL\"")]
    Magic(u8, u8),
    /// Another version of the protocol.
    #[error("message speaks version {0} of the protocol, expected {VERSION}")]
    Version(u8),
    /// No such kind in this direction.
    #[error("message is of the unknown kind {0:#04x}")]
    Kind(u8),
    /// Count and length don't fit.
    #[error("message of kind {kind:#04x} says {count} records and is {length} bytes long")]
    Length {
        /// The kind byte.
        kind: u8,
        /// The records that it claims.
        count: u16,
        /// Its bytes.
        length: usize,
    },
    /// An order to drain that is none.
    #[error("order to drain is of the unknown mode {0} or reason {1}")]
    Drain(u8, u8),
    /// An address that is neither IPv4 nor IPv6.
    #[error("address is of the unknown family {0}, expected 4 or 6")]
    Family(u8),
}
