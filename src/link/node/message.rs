//! Lines between the primary and a Node worker.
//!
//! Only lines of Node's own kind are read here. What a program sends for itself stays as it is.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::link::node::ports::AddressType;
use crate::link::node::query::Query;

/// Bun puts this byte before lines of Node's own kind, and wants it before the answers.
pub(super) const BUN_MARK: u8 = 2;

/// How such a line begins.
const INTERNAL: &[u8] = b"{\"cmd\":\"NODE_";

/// The most frequent line of all.
const HANDLE_ACK: &[u8] = b"{\"cmd\":\"NODE_HANDLE_ACK\"}";

/// A line to a worker that sends a descriptor upwards: until then it withholds everything else.
pub(super) const ACK_OF_HANDLE: &[u8] = HANDLE_ACK;

/// How a line begins that hands a connection to a server that no worker has: every Node refuses and closes it, which
/// shows that its event loop is alive.
const PING: &str = "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":{\"cmd\":\"NODE_CLUSTER\",\
     \"act\":\"newconn\",\"key\":\"ping\",\"seq\":";

/// A line of a worker.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// The program is about to run.
    Online {
        /// It is Bun.
        is_bun: bool,
    },
    /// A server is to be opened.
    Query(Box<Query>),
    /// The server is open.
    Listening {
        port: Option<i64>,
        /// It is a TCP server.
        is_tcp: bool,
    },
    /// The server with this key is closed.
    Close(String),
    /// The worker has asked to leave, and waits for an answer.
    Leaving { seq: u64 },
    /// A descriptor has come.
    HandleAck,
    /// A descriptor should have come.
    HandleNack,
    /// The connection of this message was taken, or not.
    Accepted { ack: u64, accepted: bool },
    /// The worker sends a descriptor.
    Handle,
    /// The program's own, as bytes.
    App(Vec<u8>),
    /// Of no consequence.
    Other,
    /// No JSON.
    Malformed,
}

/// All fields that lines of Node's own kind have.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Internal {
    cmd: String,
    #[serde(default)]
    act: Option<String>,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(default)]
    ack: Option<u64>,
    #[serde(default)]
    accepted: Option<bool>,
    #[serde(default)]
    key: Option<Value>,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    port: Option<i64>,
    #[serde(default)]
    address_type: Value,
    #[serde(default)]
    fd: Option<i64>,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    index: Option<u64>,
    #[serde(default)]
    flags: Option<u64>,
}

/// Reads one line, without its end.
pub(super) fn parse(line: &[u8]) -> Line {
    let is_bun = line.first() == Some(&BUN_MARK);
    let line = if is_bun { &line[1..] } else { line };
    if line == HANDLE_ACK {
        return Line::HandleAck;
    }
    if !line.starts_with(INTERNAL) {
        return Line::App(line.to_vec());
    }
    let Ok(internal) = serde_json::from_slice::<Internal>(line) else { return Line::Malformed };
    internal.read(is_bun)
}

impl Internal {
    fn read(self, is_bun: bool) -> Line {
        match (self.cmd.as_str(), self.act.as_deref()) {
            ("NODE_HANDLE_ACK", _) => Line::HandleAck,
            ("NODE_HANDLE_NACK", _) => Line::HandleNack,
            ("NODE_HANDLE", _) => Line::Handle,
            ("NODE_CLUSTER", Some("online")) => Line::Online { is_bun },
            ("NODE_CLUSTER", Some("queryServer")) => Line::Query(Box::new(self.query())),
            ("NODE_CLUSTER", Some("listening")) => {
                Line::Listening { port: self.port, is_tcp: self.address_type().is_tcp() }
            }
            ("NODE_CLUSTER", Some("close")) => match self.key {
                Some(Value::String(key)) => Line::Close(key),
                _ => Line::Other,
            },
            ("NODE_CLUSTER", Some("exitedAfterDisconnect")) => {
                Line::Leaving { seq: self.seq.unwrap_or(0) }
            }
            ("NODE_CLUSTER", None) => match (self.ack, self.accepted) {
                (Some(ack), Some(accepted)) => Line::Accepted { ack, accepted },
                _ => Line::Other,
            },
            _ => Line::Other,
        }
    }

    fn address_type(&self) -> AddressType {
        match &self.address_type {
            Value::String(text) if text == "udp6" => AddressType::Udp6,
            Value::String(text) if text.starts_with("udp") => AddressType::Udp4,
            Value::Number(number) if number.as_i64() == Some(-1) => AddressType::Path,
            Value::Number(number) if number.as_i64() == Some(6) => AddressType::Ipv6,
            _ => AddressType::Ipv4,
        }
    }

    fn query(self) -> Query {
        Query {
            seq: self.seq.unwrap_or(0),
            address_type: self.address_type(),
            address: self.address,
            port: self.port,
            descriptor: self.fd.filter(|fd| *fd >= 0),
            data: self.data,
            index: self.index.unwrap_or(0),
            flags: self.flags.unwrap_or(0),
        }
    }
}

/// The answer to a query.
#[derive(Serialize)]
struct Reply<'a> {
    cmd: &'static str,
    ack: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    errno: Option<i32>,
    #[serde(skip_serializing_if = "Value::is_null")]
    data: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    sockname: Option<SockName<'a>>,
    seq: u64,
}

/// The address that a program is told that it listens on: the one that it asked for.
#[derive(Serialize)]
struct SockName<'a> {
    address: &'a str,
    family: &'static str,
    port: i64,
}

/// A line of Node's own that a descriptor comes with.
#[derive(Serialize)]
struct WithDescriptor<T> {
    cmd: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    msg: T,
}

/// The server is open, and its connections come with `key`.
pub(super) fn opened(query: &Query, key: &str, data: Value, seq: u64) -> Vec<u8> {
    let any = if query.address_type == AddressType::Ipv6 { "::" } else { "0.0.0.0" };
    let address = query.address.as_deref().unwrap_or(any);
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    let sockname = Some(SockName { address, family, port: query.port.unwrap_or(0) });
    let key = Some(key);
    encode(&Reply { cmd: "NODE_CLUSTER", ack: query.seq, key, errno: None, data, sockname, seq })
}

/// The server is open, and its socket, shared with other workers, comes with this line. Its own address is the
/// program's to read from it.
pub(super) fn shared(query: &Query, key: &str, data: Value, seq: u64) -> Vec<u8> {
    let key = Some(key);
    let (ack, errno, sockname) = (query.seq, None, None);
    let msg = Reply { cmd: "NODE_CLUSTER", ack, key, errno, data, sockname, seq };
    let kind = match query.address_type {
        AddressType::Udp4 | AddressType::Udp6 => "dgram.Native",
        AddressType::Ipv4 | AddressType::Ipv6 | AddressType::Path => "net.Native",
    };
    encode(&WithDescriptor { cmd: "NODE_HANDLE", kind, msg })
}

/// The number of the query that a line of [`shared`] answers.
pub(super) fn answered_by(line: &[u8]) -> Option<u64> {
    let line = if line.first() == Some(&BUN_MARK) { &line[1..] } else { line };
    if !line.starts_with(INTERNAL) {
        return None;
    }
    let value: Value = serde_json::from_slice(line).ok()?;
    let msg = value.get("msg")?;
    msg.get("key")?;
    msg.get("ack")?.as_u64()
}

/// The server cannot be opened, for this reason, a positive number.
pub(super) fn refused(ack: u64, errno: i32, seq: u64) -> Vec<u8> {
    encode(&Reply {
        cmd: "NODE_CLUSTER",
        ack,
        key: None,
        errno: Some(-errno),
        data: Value::Null,
        sockname: None,
        seq,
    })
}

/// The order to close all servers, and to leave when their connections have ended.
pub(super) fn disconnect(seq: u64) -> Vec<u8> {
    format!("{{\"cmd\":\"NODE_CLUSTER\",\"act\":\"disconnect\",\"seq\":{seq}}}").into_bytes()
}

/// The answer to a worker that wants to leave.
pub(super) fn acknowledged(ack: u64, seq: u64) -> Vec<u8> {
    format!("{{\"cmd\":\"NODE_CLUSTER\",\"ack\":{ack},\"seq\":{seq}}}").into_bytes()
}

/// What goes before the number in a line that hands a connection to the server with `key`, and what goes after.
pub(super) fn new_connection(key: &str) -> (Vec<u8>, &'static [u8]) {
    let begin = format!(
        "{{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":{{\"cmd\":\"NODE_CLUSTER\",\
         \"act\":\"newconn\",\"key\":{},\"seq\":",
        Value::from(key),
    );
    (begin.into_bytes(), b"}}")
}

/// A ping with this number, with the end of its line. A socket that nobody is connected to goes with it.
pub(super) fn ping(seq: u64) -> Vec<u8> {
    format!("{PING}{seq}}}}}\n").into_bytes()
}

/// Whether this is a line of [`ping`].
pub(super) fn is_ping(line: &[u8]) -> bool {
    line.starts_with(PING.as_bytes())
}

/// A line that hands a connection to the program itself, with its own message, which is JSON.
pub(super) fn socket(message: &str) -> Vec<u8> {
    format!("{{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{message}}}").into_bytes()
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    // Numbers and texts can always be written.
    serde_json::to_vec(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(line: &[u8]) -> Value {
        serde_json::from_slice(line).unwrap()
    }

    #[test]
    fn lines_of_node_are_told_from_those_of_a_program() {
        let online = |is_bun| Line::Online { is_bun };
        for (line, expected) in [
            (r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#, online(false)),
            ("\u{2}{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}", online(true)),
            (r#"{"cmd":"NODE_HANDLE_ACK"}"#, Line::HandleAck),
            (r#"{"cmd":"NODE_HANDLE_NACK"}"#, Line::HandleNack),
            (
                r#"{"cmd":"NODE_CLUSTER","ack":7,"accepted":false,"seq":9}"#,
                Line::Accepted { ack: 7, accepted: false },
            ),
            (
                r#"{"cmd":"NODE_CLUSTER","act":"listening","index":0,"port":3000,"seq":2}"#,
                Line::Listening { port: Some(3000), is_tcp: true },
            ),
            (
                r#"{"cmd":"NODE_CLUSTER","act":"listening","port":3000,"addressType":"udp4"}"#,
                Line::Listening { port: Some(3000), is_tcp: false },
            ),
            (
                r#"{"cmd":"NODE_CLUSTER","act":"listening","port":-1,"addressType":-1}"#,
                Line::Listening { port: Some(-1), is_tcp: false },
            ),
            (r#"{"cmd":"NODE_CLUSTER","act":"close","key":"a","seq":2}"#, Line::Close("a".into())),
            (
                r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":4}"#,
                Line::Leaving { seq: 4 },
            ),
            (r#"{"cmd":"NODE_DEBUG_ENABLED"}"#, Line::Other),
            (r#"{"cmd":"NODE_CLUSTER","act":"#, Line::Malformed),
            (r#""ready""#, Line::App(br#""ready""#.to_vec())),
            (r#"{"type":"request"}"#, Line::App(br#"{"type":"request"}"#.to_vec())),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_query_is_read_in_all_its_forms() {
        let of = |rest: &str| {
            let line = format!(r#"{{"cmd":"NODE_CLUSTER","act":"queryServer","seq":1{rest}}}"#);
            match parse(line.as_bytes()) {
                Line::Query(query) => (query.address_type, query.port, query.descriptor),
                other => panic!("{line}: {other:?}"),
            }
        };
        let front = (AddressType::Ipv4, Some(3000), None);
        assert_eq!(of(r#","port":3000,"addressType":4,"backlog":0,"flags":0"#), front);
        assert_eq!(of(r#","port":3000,"addressType":4,"backlog":false,"fd":-1"#), front);
        assert_eq!(
            of(r#","address":"/tmp/x","port":-1,"addressType":-1"#),
            (AddressType::Path, Some(-1), None)
        );
        assert_eq!(
            of(r#","port":5353,"addressType":"udp4","fd":-1"#),
            (AddressType::Udp4, Some(5353), None)
        );
        assert_eq!(
            of(r#","port":null,"addressType":null,"fd":3"#),
            (AddressType::Ipv4, None, Some(3))
        );
    }

    #[test]
    fn the_asked_address_is_echoed() {
        let query = Query {
            seq: 5,
            address: Some("127.0.0.1".to_owned()),
            port: Some(3000),
            address_type: AddressType::Ipv4,
            descriptor: None,
            data: Value::Null,
            index: 0,
            flags: 0,
        };
        assert_eq!(
            text(&opened(&query, "1", json!({"ticketKeys": "00"}), 9)),
            json!({
                "cmd": "NODE_CLUSTER", "ack": 5, "key": "1", "errno": null,
                "data": {"ticketKeys": "00"},
                "sockname": {"address": "127.0.0.1", "family": "IPv4", "port": 3000}, "seq": 9,
            })
        );
        assert_eq!(
            text(&refused(query.seq, 98, 9)),
            json!({"cmd": "NODE_CLUSTER", "ack": 5, "errno": -98, "seq": 9})
        );
        let line = shared(&query, "k", Value::Null, 9);
        assert_eq!(
            text(&line),
            json!({
                "cmd": "NODE_HANDLE", "type": "net.Native",
                "msg": {"cmd": "NODE_CLUSTER", "ack": 5, "key": "k", "errno": null, "seq": 9},
            })
        );
        assert_eq!(answered_by(&line), Some(5));
        assert_eq!(answered_by(&ping(3)), None);
        assert!(is_ping(&ping(3)) && !is_ping(&line));
        let (mut line, end) = new_connection("a\"b");
        line.extend(b"7");
        line.extend(end);
        assert_eq!(
            text(&line)["msg"],
            json!({"cmd": "NODE_CLUSTER", "act": "newconn", "key": "a\"b", "seq": 7})
        );
        assert_eq!(text(&socket(r#"{"type":"x"}"#))["msg"]["type"], "x");
        for line in [acknowledged(1, 2), ping(3), ACK_OF_HANDLE.to_vec()] {
            assert!(text(&line)["cmd"].is_string());
        }
    }
}
