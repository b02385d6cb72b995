//! What is said on the control socket: JSON, an object a line.
//!
//! The operator's end sends one request a connection; the primary answers with any number of items
//! and then one line that ends it. Nothing here is carried out.
//!
//! ```text
//! ─► {"version":1,"request":"scale","to":"+1"}
//! ◄─ {"done":{"from":4,"to":5,"deferred":false}}
//!
//! ─► {"version":1,"request":"events","follow":true}
//! ◄─ {"item":{"number":17,"kind":"worker-crashed", …}}
//! ◄─ …
//! ```
//!
//! # Versions
//!
//! Both ends must speak the same version of the protocol. A primary that is asked in another
//! answers with an error of code `version`, which every version understands: `{"error":{"code":…,
//! "message":…}}` and the key `version` of requests never change. Requests and keys that a primary
//! doesn't know are errors, keys of answers that a client doesn't know are none: what is added to
//! answers makes no new version.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version that is spoken here.
pub const VERSION: u32 = 1;

/// Bytes that a request may have, its end of line included.
pub const LONGEST_REQUEST: usize = 16 * 1024;

/// A request on its way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Envelope<'a> {
    /// [`VERSION`] of whoever asks.
    pub version: u32,
    /// What is wanted.
    #[serde(flatten)]
    pub request: &'a Request,
}

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How everything is, at a glance: `report::Status`.
    Status {},
    /// All workers: `report::Worker`s.
    Workers {},
    /// Everything about a slot: `report::Slot`.
    Describe {
        /// Which.
        slot: u16,
    },
    /// Where a client goes: `report::RouteExplanation`.
    Where {
        /// Its address,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
        /// or its key: 16 hexadecimal digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// Connections that workers hold: `report::Connections`.
    Conns {
        /// Of this slot only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<u16>,
        /// Of these clients only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<IpNet>,
        /// So many at the most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    /// A snapshot each second, `report::Live`, until whoever asks has enough.
    Live {},
    /// Replace all workers by such of the configuration as it is now. Items `report::Rollout`
    /// whenever that changes, and one with its result at the end.
    Reload {},
    /// Run the program anew in the same process, workers and connections staying. Answers once the
    /// program has said that it can go on; the connection ends when it does.
    Upgrade {},
    /// More workers, or fewer: `report::Scaled`.
    Scale {
        /// `4`, `+1` or `-1`.
        to: String,
    },
    /// Take a slot out of service.
    Drain {
        /// Which.
        slot: u16,
        /// Answer when its worker has ended.
        #[serde(default)]
        wait: bool,
    },
    /// Take it back into service; answers when its worker serves.
    Undrain {
        /// Which.
        slot: u16,
    },
    /// Replace a slot's worker; answers when the new one has proved itself.
    Restart {
        /// Which.
        slot: u16,
    },
    /// End everything. The connection ends when the primary does.
    Stop {
        /// Not gracefully.
        #[serde(default)]
        now: bool,
    },
    /// Kill a slot's worker.
    Kill {
        /// Which.
        slot: u16,
    },
    /// Send a slot's worker a signal.
    Signal {
        /// Which.
        slot: u16,
        /// `USR2`, `SIGUSR2` or `12`.
        signal: String,
    },
    /// What has happened: items `report::Event`.
    Events {
        /// Go on with what happens.
        #[serde(default)]
        follow: bool,
        /// So many of the past.
        #[serde(default = "last_events")]
        last: usize,
    },
    /// Log from these levels on, and say which count: `report::Levels`.
    LogLevel {
        /// `debug`, `info,frontend=debug`, or `configured` for those of the configuration; as they
        /// are if nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        levels: Option<String>,
    },
    /// Forget which clients went elsewhere, and move the sessions that aren't in the first slot of
    /// their ranking: `report::Rebalanced`.
    Rebalance {},
    /// What workers print: items `report::LogLine`.
    Logs {
        /// Go on with what they print.
        #[serde(default)]
        follow: bool,
        /// Of this slot only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<u16>,
        /// Standard error only.
        #[serde(default)]
        err: bool,
        /// So many of the past.
        #[serde(default = "last_lines")]
        lines: usize,
    },
}

impl Request {
    /// Whether it changes something.
    #[must_use]
    pub fn steers(&self) -> bool {
        match self {
            Self::Status {}
            | Self::Workers {}
            | Self::Describe { .. }
            | Self::Where { .. }
            | Self::Conns { .. }
            | Self::Live {}
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
    /// One of several.
    Item(Value),
    /// The last one: what was asked for.
    Done(Value),
    /// The last one: it wasn't done.
    Error(Problem),
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// For programs.
    pub code: Code,
    /// For people: what failed, on what, what to do.
    pub message: String,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Another version of the protocol is spoken.
    Version,
    /// The request isn't understood.
    BadRequest,
    /// It can't be done as things are.
    Refused,
    /// It was begun and came to nothing.
    Failed,
    /// Whoever asks may not.
    Forbidden,
    /// Too many ask at once.
    Busy,
    /// A kind that came later.
    #[serde(other)]
    Unknown,
}

impl Problem {
    /// With its words.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Reads a request.
///
/// # Errors
///
/// If it is none, or of another version.
pub fn parse(line: &[u8]) -> Result<Request, Problem> {
    let bad = |text: String| Problem::new(Code::BadRequest, text);
    let mut value: Value = serde_json::from_slice(line)
        .map_err(|error| bad(format!("request is no JSON: {error}")))?;
    let Some(object) = value.as_object_mut() else {
        return Err(bad("request is no JSON object".to_owned()));
    };
    match object.remove("version").as_ref().map(Value::as_u64) {
        Some(Some(version)) if version == u64::from(VERSION) => {}
        Some(Some(version)) => {
            return Err(Problem::new(
                Code::Version,
                format!(
                    "sticky-lb {} speaks version {VERSION} of the control protocol and was asked \
                     in version {version}: use the same release for both",
                    env!("CARGO_PKG_VERSION"),
                ),
            ));
        }
        _ => return Err(bad(format!("request has no version, expected {VERSION}"))),
    }
    serde_json::from_value(value).map_err(|error| bad(format!("request not understood: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> Code {
        parse(line.as_bytes()).unwrap_err().code
    }

    #[test]
    fn requests_survive_the_way() {
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
    fn what_is_left_out_has_a_default() {
        let parsed = parse(br#"{"version":1,"request":"logs"}"#);
        assert_eq!(parsed, Ok(Request::Logs { follow: false, slot: None, err: false, lines: 15 }));
    }

    #[test]
    fn what_is_wrong_has_its_kind() {
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
    fn kinds_of_problems_that_came_later_are_understood() {
        let line: Line =
            serde_json::from_str(r#"{"error":{"code":"moon","message":"x"}}"#).unwrap();
        assert_eq!(line, Line::Error(Problem::new(Code::Unknown, "x")));
    }
}
