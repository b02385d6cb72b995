//! The decision: a message of a program in, replies out.
//!
//! Pure: knows neither queues nor workers. The same messages in the same order have the same replies.
//!
//! # Relay
//!
//! Messages of `@socket.io/cluster-adapter` go to all other workers as they were sent. A response to a question goes
//! to the worker that has asked, as far as it is known: each message names its sender's `uid`. To a primary that
//! follows another, the asker may be unknown: then all others get the response, and only the asker knows the
//! question.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::json;
use serde_json::value::RawValue;

use crate::bus::head::{self, Head};
use crate::bus::log4js;
use crate::bus::rules::{Action, Rules};
use crate::link::node::unique_id;
use crate::link::programs::{Recipients, RequestCounts};
use crate::protocol::ids::WorkerId;

/// The mark of `@socket.io/cluster-adapter`, from version 0.2 on.
const SOCKET_IO: &str = "_sio_adapter";

/// Types of its messages that answer one worker's question: to `fetchSockets`, and to `serverSideEmit`.
const RESPONSES: [&str; 2] = ["8", "10"];

/// Senders of it that are known. With more of them, all are forgotten: responses go to all then.
const MAX_UIDS: usize = 16_384;

/// Types that are said to have no effect. Programs may make them up.
const MAX_UNKNOWN: usize = 16;

/// The longest type that is said.
const MAX_TYPE: usize = 64;

/// Types that begin so are for PM2's own monitoring, and expect nothing.
const OF_PM2: [&str; 3] = ["axm:", "process:", "human:event"];

/// What follows from a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Programs get this line.
    Tell(Recipients, Arc<[u8]>),
    /// The sender's requests.
    Requests(RequestCounts),
    /// The sender is to be replaced.
    Replace,
    /// Lines for the sender's output.
    Print(Vec<u8>),
    /// The sender's metrics, in JSON; none if it has failed to tell them.
    Metrics { request: u64, metrics: Option<String> },
    /// A library that asks the primary for something doesn't get it; said once.
    Missing { library: &'static str, advice: &'static str },
    /// A message of this type does nothing; said once.
    Unknown(String),
}

/// What is known of programs' messages.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    counter: u64,
    /// Who has sent messages of the cluster adapter, by its own names.
    senders: HashMap<String, WorkerId>,
    /// Libraries and types that were said.
    said: HashSet<String>,
}

impl Decisions {
    /// Goes on with the counter of a primary before.
    pub(super) fn new(counter: u64) -> Self {
        Self { counter, ..Self::default() }
    }

    /// The programs' counter.
    pub(super) fn counter(&self) -> u64 {
        self.counter
    }

    /// Forgets a worker that has ended.
    pub(super) fn ended(&mut self, worker: WorkerId) {
        self.senders.retain(|_, sender| *sender != worker);
    }

    /// Decides what a message does.
    pub(super) fn on(&mut self, message: &[u8], from: WorkerId, rules: &Rules) -> Vec<Reply> {
        let head = Head::read(message);
        if head::is(head.source, SOCKET_IO) {
            return self.relay(message, &head, from, rules);
        }
        if head::is(head.topic, "log4js:message") {
            return self.log4js(&head, rules);
        }
        if head::is(head.channel, "rate_limiter_flexible") {
            let advice = "its RateLimiterCluster rejects by time-out: use RateLimiterMemory, since each client \
                          stays with one worker, or RateLimiterRedis";
            return self.missing("rate-limiter-flexible", advice);
        }
        // A text alone is its own type.
        let kind = match head.kind {
            Some(kind) => head::text(Some(kind)),
            None => serde_json::from_slice(message).ok(),
        };
        let Some(kind) = kind else { return Vec::new() };
        match rules.actions.get(&kind) {
            Some(action) => self.act(action, message, &head, from),
            None if kind == "prom-client:getMetricsRes" => metrics(&head),
            None => self.unknown(kind),
        }
    }

    fn act(
        &mut self,
        action: &Action,
        message: &[u8],
        head: &Head<'_>,
        from: WorkerId,
    ) -> Vec<Reply> {
        let finished = RequestCounts { open: None, finished: 1 };
        vec![match action {
            Action::Increment(answer) => {
                self.counter += 1;
                Reply::Tell(
                    Recipients::All,
                    line(&json!({"type": answer, "payload": self.counter})),
                )
            }
            Action::GetCounter(answer) => Reply::Tell(
                Recipients::One(from),
                line(&json!({"type": answer, "payload": self.counter})),
            ),
            Action::Broadcast(kind) => {
                Reply::Tell(Recipients::Others(from), broadcast(kind, head.payload, from))
            }
            Action::Request => Reply::Requests(finished),
            Action::Load(field) => {
                let open = head::number(message, field).filter(|it| *it >= 0.0);
                // Programs count whole requests; a rounded one does for what isn't.
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "it is not negative, and saturates"
                )]
                Reply::Requests(RequestCounts {
                    open: open.map(|it| it.round() as u64),
                    ..finished
                })
            }
            Action::Replace => Reply::Replace,
            Action::Ignore => return Vec::new(),
        }]
    }

    fn relay(
        &mut self,
        message: &[u8],
        head: &Head<'_>,
        from: WorkerId,
        rules: &Rules,
    ) -> Vec<Reply> {
        if !rules.libraries.socket_io {
            let advice = "its rooms end at each worker: add socket.io to node_messages";
            return self.missing("@socket.io/cluster-adapter", advice);
        }
        if let Some(uid) = head::text(head.uid).filter(|uid| uid.len() <= MAX_TYPE) {
            if self.senders.len() >= MAX_UIDS {
                self.senders.clear();
            }
            self.senders.insert(uid, from);
        }
        let is_response = head.kind.is_some_and(|kind| RESPONSES.contains(&kind.get()));
        let asker = head::text(head.requester_uid).filter(|_| is_response);
        let recipients = match asker.and_then(|uid| self.senders.get(&uid)) {
            Some(asker) => Recipients::One(*asker),
            None => Recipients::Others(from),
        };
        vec![Reply::Tell(recipients, [message, b"\n"].concat().into())]
    }

    fn log4js(&mut self, head: &Head<'_>, rules: &Rules) -> Vec<Reply> {
        if !rules.libraries.log4js {
            let advice =
                "its workers write no log: add log4js to node_messages, or set disableClustering";
            return self.missing("log4js", advice);
        }
        let line = head::text(head.data).map(|event| log4js::line(&event));
        line.map(|line| Reply::Print(line.into_bytes())).into_iter().collect()
    }

    fn missing(&mut self, library: &'static str, advice: &'static str) -> Vec<Reply> {
        let is_news = self.said.insert(library.to_owned());
        if is_news { vec![Reply::Missing { library, advice }] } else { Vec::new() }
    }

    fn unknown(&mut self, kind: String) -> Vec<Reply> {
        let is_known = kind == "ready" || OF_PM2.iter().any(|begin| kind.starts_with(begin));
        if is_known || kind.len() > MAX_TYPE || self.said.len() >= MAX_UNKNOWN {
            return Vec::new();
        }
        if self.said.insert(kind.clone()) { vec![Reply::Unknown(kind)] } else { Vec::new() }
    }
}

fn metrics(head: &Head<'_>) -> Vec<Reply> {
    let request = head.request_id.and_then(|id| id.get().parse().ok());
    let metrics = head.metrics.map(|metrics| metrics.get().to_owned());
    request.map(|request| Reply::Metrics { request, metrics }).into_iter().collect()
}

/// A line of JSON with its end.
pub(super) fn line(message: &serde_json::Value) -> Arc<[u8]> {
    (message.to_string() + "\n").into_bytes().into()
}

/// The payload stays as it was written; one that is missing stays missing.
fn broadcast(kind: &str, payload: Option<&RawValue>, from: WorkerId) -> Arc<[u8]> {
    let kind = serde_json::Value::from(kind);
    let payload = payload.map(|it| format!(",\"payload\":{}", it.get())).unwrap_or_default();
    let from = unique_id(from);
    format!("{{\"type\":{kind}{payload},\"from\":{from}}}\n").into_bytes().into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::bus::rules::Rule;
    use crate::protocol::ids::{Generation, SlotId};

    fn worker(slot: u16) -> WorkerId {
        WorkerId { slot: SlotId(slot), generation: Generation(0) }
    }

    fn rules(words: &[&str]) -> Rules {
        let words: Vec<Rule> = words.iter().map(|word| word.parse().unwrap()).collect();
        Rules::new(&words)
    }

    fn told(reply: &Reply) -> (Recipients, Value) {
        let Reply::Tell(recipients, line) = reply else { panic!("{reply:?}") };
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        (*recipients, serde_json::from_slice(line).unwrap())
    }

    #[test]
    fn the_counter_is_told_to_all_or_to_the_one_that_asks() {
        let (mut decisions, rules) = (Decisions::new(4), rules(&["guide"]));
        let mut on = |message: &str| told(&decisions.on(message.as_bytes(), worker(1), &rules)[0]);
        let update = json!({"type": "counter-update", "payload": 5});
        assert_eq!(on(r#"{"type":"increment"}"#), (Recipients::All, update));
        let value = json!({"type": "counter-value", "payload": 5});
        assert_eq!(on(r#"{"type":"get-counter"}"#), (Recipients::One(worker(1)), value));
        assert_eq!(decisions.counter(), 5);
    }

    #[test]
    fn a_broadcast_goes_to_the_others_with_its_payload_as_it_was() {
        let (mut decisions, rules) =
            (Decisions::default(), rules(&["guide", "say=broadcast:said"]));
        let mut on = |message: &str| told(&decisions.on(message.as_bytes(), worker(2), &rules)[0]);
        let sent = json!({"type": "broadcast-message", "payload": {"a": [1, "x"]}, "from": 3});
        assert_eq!(
            on(r#"{"type":"broadcast","payload":{"a":[1,"x"]}}"#),
            (Recipients::Others(worker(2)), sent)
        );
        assert_eq!(on(r#"{"type":"say"}"#).1, json!({"type": "said", "from": 3}));
        assert_eq!(on(r#""say""#).1, json!({"type": "said", "from": 3}));
    }

    #[test]
    fn requests_load_and_replacement_are_the_senders() {
        let (mut decisions, rules) = (Decisions::default(), rules(&["guide", "busy=load:open"]));
        let mut on = |message: &str| decisions.on(message.as_bytes(), worker(0), &rules);
        let requests = |open| vec![Reply::Requests(RequestCounts { open, finished: 1 })];
        assert_eq!(on(r#"{"type":"request"}"#), requests(None));
        assert_eq!(on(r#"{"type":"request-complete","count":7}"#), requests(Some(7)));
        assert_eq!(on(r#"{"type":"busy","open":3,"count":7}"#), requests(Some(3)));
        for odd in ["\"7\"", "-1", "null", "1e999", "{}"] {
            let message = format!(r#"{{"type":"request-complete","count":{odd}}}"#);
            assert_eq!(on(&message), requests(None), "{odd}");
        }
        assert_eq!(on(r#"{"type":"memory-exceeded"}"#), [Reply::Replace]);
    }

    #[test]
    fn nothing_of_the_guide_happens_unless_it_is_on() {
        let (mut decisions, rules) = (Decisions::default(), rules(&[]));
        let mut on = |message: &str| decisions.on(message.as_bytes(), worker(0), &rules);
        let unknown = |kind: &str| vec![Reply::Unknown(kind.to_owned())];
        assert_eq!(on(r#"{"type":"increment"}"#), unknown("increment"));
        assert_eq!(on(r#"{"type":"increment"}"#), [], "said once");
        assert_eq!(on(r#"{"type":"memory-exceeded"}"#), unknown("memory-exceeded"));
        for silent in [
            r#""ready""#,
            r#"{"type":"axm:monitor","data":{}}"#,
            r#"{"type":"process:msg"}"#,
            "5",
            "null",
            "[]",
            "{}",
            "no JSON",
            "",
        ] {
            assert_eq!(on(silent), [], "{silent}");
        }
        let many = (0..100).filter(|n| !on(&format!(r#"{{"type":"t{n}"}}"#)).is_empty());
        assert!(many.count() < MAX_UNKNOWN, "programs make up types");
    }

    #[test]
    fn the_cluster_adapter_is_relayed_and_responses_go_to_the_asker() {
        let (mut decisions, default) = (Decisions::default(), rules(&[]));
        let heartbeat = br#"{"type":1,"source":"_sio_adapter","uid":"aa","nsp":"/"}"#;
        let replies = decisions.on(heartbeat, worker(0), &default);
        let relayed = [&heartbeat[..], b"\n"].concat().into();
        assert_eq!(replies, [Reply::Tell(Recipients::Others(worker(0)), relayed)]);
        let response = |kind: u8, uid: &str| {
            format!(
                r#"{{"type":{kind},"source":"_sio_adapter","uid":"bb","nsp":"/","requesterUid":"{uid}"}}"#
            )
        };
        let mut to =
            |message: String| told(&decisions.on(message.as_bytes(), worker(1), &default)[0]).0;
        assert_eq!(to(response(8, "aa")), Recipients::One(worker(0)));
        assert_eq!(to(response(10, "aa")), Recipients::One(worker(0)));
        assert_eq!(to(response(12, "aa")), Recipients::Others(worker(1)), "as the adapter's own");
        assert_eq!(to(response(8, "zz")), Recipients::Others(worker(1)), "of a primary before");
        decisions.ended(worker(0));
        let reply = decisions.on(response(8, "aa").as_bytes(), worker(1), &default);
        assert_eq!(told(&reply[0]).0, Recipients::Others(worker(1)), "it has ended");
        let off = rules(&["off"]);
        let reply = decisions.on(heartbeat, worker(0), &off);
        assert!(matches!(
            reply[..],
            [Reply::Missing { library: "@socket.io/cluster-adapter", .. }]
        ));
    }

    #[test]
    fn a_library_that_asks_in_vain_is_named_once() {
        let (mut decisions, rules) = (Decisions::default(), rules(&["guide"]));
        let ask = br#"{"channel":"rate_limiter_flexible","type":"init","opts":{}}"#;
        let first = decisions.on(ask, worker(0), &rules);
        assert!(matches!(first[..], [Reply::Missing { library: "rate-limiter-flexible", .. }]));
        assert_eq!(decisions.on(ask, worker(1), &rules), []);
    }

    #[test]
    fn metrics_belong_to_a_question() {
        let (mut decisions, rules) = (Decisions::default(), rules(&["prom-client"]));
        let mut on = |message: &str| decisions.on(message.as_bytes(), worker(0), &rules);
        assert_eq!(
            on(r#"{"type":"prom-client:getMetricsRes","requestId":3,"metrics":[[]]}"#),
            [Reply::Metrics { request: 3, metrics: Some("[[]]".to_owned()) }]
        );
        assert_eq!(
            on(r#"{"type":"prom-client:getMetricsRes","requestId":4,"error":"x"}"#),
            [Reply::Metrics { request: 4, metrics: None }]
        );
    }
}
