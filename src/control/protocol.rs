//! The protocol of the control socket: one JSON object per line.
//!
//! A client sends one request per connection. The primary answers with any number of items and then
//! one last line.
//!
//! ```text
//! ─► {"version":1,"request":"scale","to":"+1"}
//! ◄─ {"done":{"from":4,"to":5,"deferred":false}}
//!
//! ─► {"version":1,"request":"events","follow":true}
//! ◄─ {"item":{"number":17,"kind":"worker-crashed","time_ms":1767225600000,"slot":3,"generation":2,
//!     "pid":4711,"text":"worker crashed after 3.2 s and 7 connections: exit code 1"}}
//! ◄─ …
//!
//! ─► {"version":1,"request":"drain","slot":9}
//! ◄─ {"error":{"code":"not-found","message":"there is no slot 9: slots are 0 to 3"}}
//! ```
//!
//! # Versions
//!
//! Both sides must speak the same version of the protocol. A primary answers another version with an
//! error of code `version`, which every version understands: `{"error":{"code":…,"message":…}}` and
//! the key `version` of requests never change. A primary rejects unknown requests and unknown keys; a
//! client ignores unknown keys of answers. New keys in answers make no new version.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// This release's version of the protocol.
pub const VERSION: u32 = 1;

/// The largest request in bytes, end of line included.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// A request with its version.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Envelope<'a> {
    /// The client's [`VERSION`].
    pub version: u32,
    /// The request.
    #[serde(flatten)]
    pub request: &'a Request,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The primary's status: `report::Status`.
    Status {},
    /// All workers: `report::Worker`s.
    Workers {},
    /// A slot in detail: `report::Slot`.
    Describe {
        /// The slot.
        slot: u16,
    },
    /// The route of a client: `report::RouteExplanation`.
    Where {
        /// Its address, or
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
        /// its affinity key, 16 hexadecimal digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// Connections that workers hold: `report::Connections`.
    Conns {
        /// This slot only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<u16>,
        /// These clients only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<IpNet>,
        /// The largest number listed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    /// A snapshot every second until the client disconnects: items `report::Live`.
    Live {},
    /// Replace all workers in a rolling restart with the current configuration. Items
    /// `report::Rollout` whenever it changes, and one with the result at the end.
    Reload {},
    /// Follow a rolling restart that is under way, with the answer of `reload`.
    Rollout {
        /// Its number.
        number: u64,
    },
    /// Upgrade in place: run the program on disk in the same process, with its workers and
    /// connections. The answer, `report::Upgrading`, comes before the upgrade, and the connection ends with
    /// it.
    Upgrade {},
    /// Change the number of workers: `report::Scaled`.
    Scale {
        /// `4`, `+1` or `-1`; the first may be a number.
        #[serde(deserialize_with = "number_or_text")]
        to: String,
    },
    /// Take a slot out of service.
    Drain {
        /// The slot.
        slot: u16,
        /// Whether to answer when its worker has ended.
        #[serde(default)]
        wait: bool,
    },
    /// Take a slot back into service. The answer comes when its worker serves.
    Undrain {
        /// The slot.
        slot: u16,
    },
    /// Replace a slot's worker. The answer comes when the new one is stable.
    Restart {
        /// The slot.
        slot: u16,
    },
    /// Stop the primary. The connection ends with it.
    Stop {
        /// Whether to stop without a grace period.
        #[serde(default)]
        now: bool,
    },
    /// Kill a slot's worker.
    Kill {
        /// The slot.
        slot: u16,
    },
    /// Send a slot's worker a signal.
    Signal {
        /// Which.
        slot: u16,
        /// `USR2`, `SIGUSR2` or `12`.
        signal: String,
    },
    /// Events: items `report::Event`.
    Events {
        /// Whether to continue with new events.
        #[serde(default)]
        follow: bool,
        /// The number of past events.
        #[serde(default = "last_events")]
        last: usize,
    },
    /// Set the levels of the primary's log and answer with those in force: `report::Levels`.
    LogLevel {
        /// `debug`, `info,frontend=debug`, or `configured` for the levels of the configuration; none to
        /// change nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        levels: Option<String>,
    },
    /// Forget clients' fallback slots, and migrate sessions to the first slot of their ranking:
    /// `report::Rebalanced`.
    Rebalance {},
    /// Workers' output: items `report::LogLine`.
    Logs {
        /// Whether to continue with new lines.
        #[serde(default)]
        follow: bool,
        /// This slot only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<u16>,
        /// Whether to send standard error only.
        #[serde(default)]
        err: bool,
        /// The number of past lines.
        #[serde(default = "last_lines")]
        lines: usize,
    },
}

impl Request {
    /// Whether it changes anything.
    #[must_use]
    pub fn steers(&self) -> bool {
        match self {
            Self::Status {}
            | Self::Workers {}
            | Self::Describe { .. }
            | Self::Where { .. }
            | Self::Conns { .. }
            | Self::Live {}
            | Self::Rollout { .. }
            | Self::Events { .. }
            | Self::Logs { .. } => false,
            Self::Reload {}
            | Self::Upgrade {}
            | Self::Scale { .. }
            | Self::Drain { .. }
            | Self::Undrain { .. }
            | Self::Restart { .. }
            | Self::Stop { .. }
            | Self::Kill { .. }
            | Self::Signal { .. }
            | Self::LogLevel { .. }
            | Self::Rebalance {} => true,
        }
    }
}

fn last_events() -> usize {
    50
}

fn last_lines() -> usize {
    15
}

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// One item.
    Item(Value),
    /// The last line: the result.
    Done(Value),
    /// The last line: an error.
    Error(Problem),
}

/// An error of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Its kind, for programs.
    pub code: Code,
    /// Its text, for people: the failure, its object, and the remedy.
    pub message: String,
}

/// Kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The client speaks another version of the protocol.
    Version,
    /// The request is not valid.
    BadRequest,
    /// There is no such slot.
    NotFound,
    /// The request is not possible now.
    Refused,
    /// The request was started and failed.
    Failed,
    /// The client has no permission.
    Forbidden,
    /// Too many clients are connected.
    Busy,
    /// A kind of a later release.
    #[serde(other)]
    Unknown,
}

impl Problem {
    /// An error with this text.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// An address, which may have a port, and a zone as in `fe80::1%eth0`: neither counts for affinity.
#[must_use]
pub fn address(text: &str) -> Option<IpAddr> {
    let without_zone = match text.split_once('%') {
        Some((address, zone)) => {
            // Behind the zone, only a port with its bracket may follow.
            let rest = zone.find(']').map_or("", |end| &zone[end..]);
            format!("{address}{rest}")
        }
        None => text.to_owned(),
    };
    let plain = without_zone.parse().ok();
    plain.or_else(|| without_zone.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// Reads a request.
///
/// # Errors
///
/// If it is not valid, or of another version.
pub fn parse(line: &[u8]) -> Result<Request, Problem> {
    let bad = |text: String| Problem::new(Code::BadRequest, text);
    let mut value: Value = serde_json::from_slice(line)
        .map_err(|error| bad(format!("request is not JSON: {error}")))?;
    let Some(object) = value.as_object_mut() else {
        return Err(bad("request is not a JSON object".to_owned()));
    };
    match object.remove("version").as_ref().map(Value::as_u64) {
        Some(Some(version)) if version == u64::from(VERSION) => {}
        Some(Some(version)) => {
            return Err(Problem::new(
                Code::Version,
                format!(
                    "sticky-lb {} speaks version {VERSION} of the control protocol, the request has \
                     version {version}: use the same release for both",
                    env!("CARGO_PKG_VERSION"),
                ),
            ));
        }
        _ => return Err(bad(format!("request has no version, expected {VERSION}"))),
    }
    serde_json::from_value(value).map_err(|error| bad(format!("request is not valid: {error}")))
}

/// A count is a number to most people, and a change of it can't be one in JSON (`+1`).
fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number of workers, \"+N\" or \"-N\"")]
    enum NumberOrText {
        Number(u64),
        Text(String),
    }
    Ok(match NumberOrText::deserialize(deserializer)? {
        NumberOrText::Number(number) => number.to_string(),
        NumberOrText::Text(text) => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> Code {
        parse(line.as_bytes()).unwrap_err().code
    }

    #[test]
    fn requests_arrive_unchanged() {
        for request in [
            Request::Status {},
            Request::Describe { slot: 3 },
            Request::Where { address: Some([10, 0, 0, 1].into()), key: None },
            Request::Conns { slot: None, address: "10.0.0.0/8".parse().ok(), limit: Some(9) },
            Request::Scale { to: "+1".to_owned() },
            Request::Logs { follow: true, slot: Some(1), err: true, lines: 7 },
        ] {
            let envelope = Envelope { version: VERSION, request: &request };
            let line = serde_json::to_vec(&envelope).unwrap();
            assert_eq!(parse(&line).as_ref(), Ok(&request), "{}", String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn keys_that_are_left_out_have_defaults() {
        let parsed = parse(br#"{"version":1,"request":"logs"}"#);
        assert_eq!(parsed, Ok(Request::Logs { follow: false, slot: None, err: false, lines: 15 }));
    }

    #[test]
    fn each_error_has_its_kind() {
        assert_eq!(code(r#"{"version":2,"request":"status"}"#), Code::Version);
        assert_eq!(code(r#"{"version":2,"request":"of the future","x":[]}"#), Code::Version);
        for wrong in [
            "",
            "{",
            "[]",
            "null",
            r#"{"request":"status"}"#,
            r#"{"version":"1","request":"status"}"#,
            r#"{"version":1}"#,
            r#"{"version":1,"request":"dance"}"#,
            r#"{"version":1,"request":"status","more":1}"#,
            r#"{"version":1,"request":"drain"}"#,
            r#"{"version":1,"request":"drain","slot":-1}"#,
            r#"{"version":1,"request":"drain","slot":70000}"#,
            "\u{0}\u{0}",
        ] {
            assert_eq!(code(wrong), Code::BadRequest, "{wrong}");
        }
    }

    #[test]
    fn kinds_of_later_releases_are_understood() {
        let line: Line =
            serde_json::from_str(r#"{"error":{"code":"moon","message":"x"}}"#).unwrap();
        assert_eq!(line, Line::Error(Problem::new(Code::Unknown, "x")));
    }
}
