//! The record that travels with a connection's descriptor, as bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::protocol::ids::{AffinityKey, ConnectionId, Timestamp};
use crate::protocol::message::{MessageError, RECORD, u64_at};

/// The record that travels with a connection's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// Names the connection in acknowledgements and logs.
    pub id: ConnectionId,
    /// When the primary accepted it.
    pub accepted_at: Timestamp,
    /// The affinity key that decided its slot.
    pub key: AffinityKey,
    /// The client's address, IPv4 as IPv4 even on a dual-stack listener.
    pub client: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// By this the primary knows its record again: it comes back with all the rest, unchanged.
    pub tag: u64,
}

/// Bytes of a record without its tag.
const UNTAGGED: usize = RECORD - 8;

impl ConnectionRecord {
    /// Its bytes without the tag.
    #[must_use]
    pub fn untagged_bytes(&self) -> [u8; UNTAGGED] {
        let mut bytes = [0; UNTAGGED];
        encode_untagged(&mut bytes, self);
        bytes
    }
}

/// The connections of one message; checked when the message was read.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a>(pub(super) &'a [u8]);

impl<'a> Records<'a> {
    /// How many there are, 1 to [`BATCH`](crate::protocol::message::BATCH).
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(self) -> usize {
        self.0.len() / RECORD
    }

    /// In the order of their descriptors.
    pub fn iter(self) -> impl Iterator<Item = ConnectionRecord> + 'a {
        self.0.chunks_exact(RECORD).filter_map(|bytes| decode_record(bytes).ok())
    }
}

pub(super) fn encode_record(bytes: &mut [u8], record: &ConnectionRecord) {
    encode_untagged(bytes, record);
    bytes[UNTAGGED..RECORD].copy_from_slice(&record.tag.to_le_bytes());
}

fn encode_untagged(bytes: &mut [u8], record: &ConnectionRecord) {
    bytes[0..8].copy_from_slice(&record.id.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&record.accepted_at.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&record.key.0.to_le_bytes());
    encode_address(&mut bytes[24..48], record.client);
    encode_address(&mut bytes[48..72], record.local);
}

pub(super) fn decode_record(bytes: &[u8]) -> Result<ConnectionRecord, MessageError> {
    Ok(ConnectionRecord {
        id: ConnectionId(u64_at(bytes, 0)),
        accepted_at: Timestamp(u64_at(bytes, 8)),
        key: AffinityKey(u64_at(bytes, 16)),
        client: decode_address(&bytes[24..48])?,
        local: decode_address(&bytes[48..72])?,
        tag: u64_at(bytes, UNTAGGED),
    })
}

fn encode_address(bytes: &mut [u8], address: SocketAddr) {
    bytes.fill(0);
    bytes[2..4].copy_from_slice(&address.port().to_le_bytes());
    match address {
        SocketAddr::V4(v4) => {
            bytes[0] = 4;
            bytes[8..12].copy_from_slice(&v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            bytes[0] = 6;
            bytes[4..8].copy_from_slice(&v6.scope_id().to_le_bytes());
            bytes[8..24].copy_from_slice(&v6.ip().octets());
        }
    }
}

fn decode_address(bytes: &[u8]) -> Result<SocketAddr, MessageError> {
    let port = u16::from_le_bytes([bytes[2], bytes[3]]);
    match bytes[0] {
        4 => {
            let ip = Ipv4Addr::new(bytes[8], bytes[9], bytes[10], bytes[11]);
            Ok(SocketAddr::new(IpAddr::V4(ip), port))
        }
        6 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&bytes[8..24]);
            let scope = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            Ok(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope).into())
        }
        unknown => Err(MessageError::Family(unknown)),
    }
}
