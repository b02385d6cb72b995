//! The answer to a program that wants to listen: the front's port, a socket that workers share, or a reason why not.
//!
//! Pure.

use rustix::io::Errno;
use serde_json::{Value, json};

use crate::link::node::ports::{AddressType, PortKey};

/// A server that a program wants to open.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    /// The number of the message, for the answer.
    pub(super) seq: u64,
    /// The address, or the path of a Unix socket.
    pub(super) address: Option<String>,
    pub(super) port: Option<i64>,
    pub(super) address_type: AddressType,
    /// A descriptor of the primary's.
    pub(super) descriptor: Option<i64>,
    /// What servers of one kind have in common: keys of TLS session tickets.
    pub(super) data: Value,
    /// Of those servers that the program has open on the same address, the number of this one.
    pub(super) index: u64,
    /// How the address is to be bound, in Node's numbers.
    pub(super) flags: u64,
}

/// What becomes of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// It is the front's port: the program gets its clients.
    Front {
        /// What the program gets back as `data`.
        data: Value,
    },
    /// It is another address, which workers share.
    Shared(PortKey),
    /// It is on a descriptor of the primary's, or on no address at all.
    Refused(Errno),
}

/// Decides. `port` is the front's.
pub(super) fn answer(query: &Query, port: u16, ticket_keys: &str) -> Answer {
    if query.descriptor.is_some() {
        return Answer::Refused(Errno::BADF);
    }
    let kind = query.address_type;
    let (asked, address) = match (kind, query.port, &query.address) {
        (AddressType::Path, _, None) => return Answer::Refused(Errno::INVAL),
        (AddressType::Path, ..) => (0, query.address.clone()),
        (_, asked, address) => match asked.and_then(|asked| u16::try_from(asked).ok()) {
            Some(asked) => (asked, address.clone().filter(|address| !address.is_empty())),
            None => return Answer::Refused(Errno::INVAL),
        },
    };
    if kind.is_tcp() && asked == port {
        return Answer::Front { data: shared_data(&query.data, ticket_keys) };
    }
    let is_any = asked == 0 && kind != AddressType::Path;
    Answer::Shared(PortKey {
        kind,
        port: asked,
        index: if is_any { query.index } else { 0 },
        address,
    })
}

/// Ticket keys are the same for all workers; anything else is the program's own.
pub(super) fn shared_data(data: &Value, ticket_keys: &str) -> Value {
    match data.get("ticketKeys") {
        Some(_) if !ticket_keys.is_empty() => json!({ "ticketKeys": ticket_keys }),
        _ => data.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(port: Option<i64>, address_type: AddressType, descriptor: Option<i64>) -> Query {
        let (address, data) = (Some("a".to_owned()), Value::Null);
        Query { seq: 1, address, port, address_type, descriptor, data, index: 2, flags: 0 }
    }

    #[test]
    fn only_the_fronts_port_is_the_fronts() {
        let of = |port, kind, descriptor| answer(&query(port, kind, descriptor), 3000, "");
        let front = Answer::Front { data: Value::Null };
        assert_eq!(of(Some(3000), AddressType::Ipv4, None), front);
        assert_eq!(of(Some(3000), AddressType::Ipv6, None), front);
        for (asked, kind, port, index) in [
            (3001, AddressType::Ipv4, 3001, 0),
            (-1, AddressType::Path, 0, 0),
            (3000, AddressType::Udp4, 3000, 0),
            // Each of those that a program has open on any port has one of its own.
            (0, AddressType::Ipv6, 0, 2),
            (0, AddressType::Udp6, 0, 2),
        ] {
            let key = PortKey { kind, port, index, address: Some("a".to_owned()) };
            assert_eq!(of(Some(asked), kind, None), Answer::Shared(key), "{asked} {kind:?}");
        }
        for (port, kind, descriptor, errno) in [
            (None, AddressType::Ipv4, Some(3), Errno::BADF),
            (None, AddressType::Ipv4, None, Errno::INVAL),
            (Some(70_000), AddressType::Ipv4, None, Errno::INVAL),
        ] {
            assert_eq!(of(port, kind, descriptor), Answer::Refused(errno));
        }
    }

    #[test]
    fn all_workers_have_the_same_ticket_keys() {
        let mut query = query(Some(443), AddressType::Ipv4, None);
        query.data = json!({"ticketKeys": "own"});
        let expected = Answer::Front { data: json!({"ticketKeys": "all"}) };
        assert_eq!(answer(&query, 443, "all"), expected);
        query.data = json!({"other": 1});
        assert_eq!(answer(&query, 443, "all"), Answer::Front { data: json!({"other": 1}) });
    }
}
