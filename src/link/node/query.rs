//! The answer to a program that wants to listen: the front's port, or a reason why not.
//!
//! Pure.

use serde_json::{Value, json};

use rustix::io::Errno;

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
}

/// The kind of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressType {
    Ipv4,
    Ipv6,
    /// A Unix socket.
    Path,
    Udp,
}

/// What becomes of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// It is the front's port: the program gets its clients.
    Front {
        /// What the program gets back as `data`.
        data: Value,
    },
    /// It is not opened.
    Refused(Errno, Refusal),
}

/// Why a server is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is another TCP port than the front's.
    Port(u16),
    /// It is no TCP server on an address.
    Kind,
    /// It is on a descriptor of the primary's.
    Descriptor,
}

/// Decides. `port` is the front's.
pub(super) fn answer(query: &Query, port: u16, ticket_keys: &str) -> Answer {
    if query.descriptor.is_some() {
        return Answer::Refused(Errno::BADF, Refusal::Descriptor);
    }
    if matches!(query.address_type, AddressType::Path | AddressType::Udp) {
        return Answer::Refused(Errno::OPNOTSUPP, Refusal::Kind);
    }
    match query.port.and_then(|asked| u16::try_from(asked).ok()) {
        Some(asked) if asked == port => {
            Answer::Front { data: shared_data(&query.data, ticket_keys) }
        }
        Some(asked) => Answer::Refused(Errno::ADDRNOTAVAIL, Refusal::Port(asked)),
        None => Answer::Refused(Errno::INVAL, Refusal::Kind),
    }
}

/// Ticket keys are the same for all workers; anything else is the program's own.
fn shared_data(data: &Value, ticket_keys: &str) -> Value {
    match data.get("ticketKeys") {
        Some(_) if !ticket_keys.is_empty() => json!({ "ticketKeys": ticket_keys }),
        _ => data.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(port: Option<i64>, address_type: AddressType, descriptor: Option<i64>) -> Query {
        Query { seq: 1, address: None, port, address_type, descriptor, data: Value::Null }
    }

    #[test]
    fn only_the_fronts_port_is_the_fronts() {
        let of = |port, kind, descriptor| answer(&query(port, kind, descriptor), 3000, "");
        let front = Answer::Front { data: Value::Null };
        assert_eq!(of(Some(3000), AddressType::Ipv4, None), front);
        assert_eq!(of(Some(3000), AddressType::Ipv6, None), front);
        for (port, kind, descriptor, errno) in [
            (Some(3001), AddressType::Ipv4, None, Errno::ADDRNOTAVAIL),
            (Some(-1), AddressType::Path, None, Errno::OPNOTSUPP),
            (Some(3000), AddressType::Udp, None, Errno::OPNOTSUPP),
            (None, AddressType::Ipv4, Some(3), Errno::BADF),
            (Some(70_000), AddressType::Ipv4, None, Errno::INVAL),
        ] {
            let answer = of(port, kind, descriptor);
            assert!(matches!(answer, Answer::Refused(found, _) if found == errno), "{answer:?}");
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
