//! What the primary says of itself, as it travels in JSON: on the control socket, over HTTP, and to
//! people by `--json`. Times are in the unit that their name ends with, memory in bytes.
//!
//! What an older primary doesn't say yet has its default.

use serde::{Deserialize, Serialize};

/// How everything is, at a glance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The app's name.
    pub name: String,
    /// The primary's release.
    pub version: String,
    /// The process to send signals to: the keeper's, or the primary's where it has none.
    pub pid: u32,
    /// The primary's own process.
    pub primary_pid: u32,
    /// Since it was started; upgrades and crashes of the primary count as the same run.
    pub uptime_s: f64,
    /// Upgrades in place since then.
    pub upgrades: u64,
    /// Crashes of the primary that a successor has recovered from.
    pub recoveries: u64,
    /// Upgrades that came to nothing after they had begun.
    pub failed_upgrades: u64,
    /// Why the last of them.
    pub upgrade_failed: Option<String>,
    /// Addresses that clients connect to.
    pub listening: Vec<String>,
    /// Address of the admin listener.
    pub admin: Option<String>,
    /// Path of the control socket.
    pub control: Option<String>,
    /// How slots are chosen.
    pub placement: String,
    /// Slots that serve.
    pub serving: u16,
    /// Slots that are to be there.
    pub workers: u16,
    /// Between how many workers load decides, if it does.
    pub autoscale: Option<(u16, u16)>,
    /// Connections are accepted.
    pub accepting: bool,
    /// Everything is to end.
    pub stopping: bool,
    /// Connections established in all workers.
    pub connections: u64,
    /// WebSockets among them.
    pub websockets: u64,
    /// Those that can move to another worker.
    pub sessions: u64,
    /// Requests in flight in all workers.
    pub requests: u64,
    /// Connections accepted that no worker owns yet.
    pub waiting: u64,
    /// Connections accepted in the last second.
    pub accepts_per_second: f64,
    /// From accept to acknowledgement, lately: half take no longer.
    pub handoff_p50_ms: Option<f64>,
    /// All but one in a hundred take no longer.
    pub handoff_p99_ms: Option<f64>,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections that workers took over.
    pub acknowledged: u64,
    /// Connections taken back from one worker and given to another.
    pub redispatched: u64,
    /// Connections that went elsewhere than to the first of their ranking.
    pub fallbacks: u64,
    /// Times a worker didn't acknowledge in time.
    pub stalls: u64,
    /// Connections that workers refused.
    pub refused: u64,
    /// Connections that ended before a worker owned them.
    pub lost: u64,
    /// Sessions that moved to another worker.
    pub sessions_moved: u64,
    /// Sessions that nobody took, so that they stayed where they were.
    pub sessions_returned: u64,
    /// Sessions that nobody took and whose worker was gone.
    pub sessions_lost: u64,
    /// Crash-safe sessions of which there is a copy now.
    pub sessions_protected: u64,
    /// Crash-safe sessions that went on in another worker when theirs had died.
    pub sessions_recovered: u64,
    /// Those that didn't, since they were not at rest, or nobody was there.
    pub session_recovery_failures: u64,
    /// Clients that workers were allowed to send away.
    pub clients_closed: u64,
    /// Sessions that a rebalance has still to move.
    pub rebalance_pending: u64,
    /// Errors of accept.
    pub accept_errors: u64,
    /// Workers that ended without being told to.
    pub crashes: u64,
    /// The client with the largest share of connections lately.
    pub top_client: Option<TopClients>,
    /// The rolling restart that is under way.
    pub rollout: Option<Rollout>,
    /// Levels of the primary's log.
    pub log_levels: String,
    /// Lines of workers that couldn't be kept.
    pub dropped_lines: u64,
}

/// A client with many connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopClients {
    /// Its address.
    pub address: String,
    /// Its share of connections lately, 0 to 1.
    pub share: f64,
}

/// A worker, or a slot that has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// Its slot.
    pub slot: u16,
    /// Its generation. Nothing in a slot without a worker, as all that is a worker's.
    pub generation: Option<u32>,
    /// Its process.
    pub pid: Option<i32>,
    /// `serving`, `spawning`, `spare`, `standby`, `draining`, `aborted`, `killed`; of a slot without a
    /// worker `spawning`, `back-off`, `errored`, `stopped`, `drained`, `removed`.
    pub state: String,
    /// Since its process was started.
    pub uptime_s: Option<f64>,
    /// How often the slot's workers ended without being told to.
    pub crashes: u64,
    /// Connections established.
    pub connections: u64,
    /// Connections that the worker has taken over.
    pub connections_total: u64,
    /// WebSockets among the established connections, by the worker's own count.
    pub websockets: u64,
    /// Those that can move to another worker.
    pub sessions: u64,
    /// Requests in flight.
    pub requests: u64,
    /// Requests finished.
    pub requests_total: u64,
    /// Hand-offs to the slot in the last second; 0 for a worker that doesn't serve.
    pub handoffs_per_second: f64,
    /// From accept to acknowledgement in this slot, lately.
    pub handoff_p50_ms: Option<f64>,
    /// All but one in a hundred take no longer.
    pub handoff_p99_ms: Option<f64>,
    /// Times the slot's workers didn't acknowledge in time.
    pub stalls: u64,
    /// Bytes of memory, with all that the worker has started.
    pub memory: Option<u64>,
    /// Percent of one processor, lately.
    pub cpu: Option<f64>,
    /// Its share of all established connections, 0 to 1.
    pub share: f64,
}

/// Everything about a slot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slot {
    /// Which.
    pub slot: u16,
    /// `serving`, `spawning`, `back-off`, `errored`, `stopped`, `drained`, `removed`.
    pub state: String,
    /// `open`, `holding` or `closed`: what its clients meet.
    pub availability: String,
    /// Its weight in placement.
    pub weight: f64,
    /// How often its workers ended without being told to.
    pub crashes: u64,
    /// The last reason for that.
    pub last_failure: Option<String>,
    /// Workers that were started in it.
    pub started: u64,
    /// Until its next worker is started, in a back-off.
    pub delay_ms: Option<f64>,
    /// Connections that wait for it.
    pub queued: u64,
    /// Connections on their way to its workers.
    pub in_flight: u64,
    /// Connections acknowledged by its workers since the start.
    pub handed_off: u64,
    /// Connections that its workers refused.
    pub refused: u64,
    /// Requests finished by all of its workers.
    pub requests_total: u64,
    /// How long its serving worker's event loop took to answer last, where it is asked.
    pub lag_ms: Option<f64>,
    /// Its workers, the oldest first, or one that stands for none.
    pub workers: Vec<Worker>,
    /// What happened in it lately.
    pub events: Vec<Event>,
}

/// A rolling restart: how far it is, or how it ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rollout {
    /// Its number, from 1.
    pub number: u64,
    /// What it was begun by.
    pub trigger: String,
    /// Slots that have a new worker.
    pub replaced: u16,
    /// Slots that are to get one.
    pub of: u16,
    /// Slots whose successor is on its way, and what that waits for.
    pub under_way: Vec<(u16, String)>,
    /// How it ended: `done`, `aborted`, `superseded`, `stopped`. Nothing while it goes on.
    pub result: Option<String>,
    /// Why it was aborted.
    pub reason: Option<String>,
}

/// What came of an order to scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scaled {
    /// So many slots there were to be before.
    pub from: u16,
    /// So many there are to be.
    pub to: u16,
    /// It is done when the rolling restart that is under way has ended.
    pub deferred: bool,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Rises by one from event to event.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// `worker-started`, `worker-ready`, `worker-replacing`, `worker-draining`, `worker-killed`,
    /// `worker-exited`, `worker-crashed`, `slot-back-off`, `slot-errored`, `slot-stopped`,
    /// `slot-drained`, `slot-replaced`, `replacement-failed`, `rollout-started`, `rollout-done`,
    /// `rollout-aborted`, `rollout-superseded`, `rollout-stopped`, `scaled`, `stopping`.
    pub kind: String,
    /// The slot, if it is one's.
    pub slot: Option<u16>,
    /// The worker's generation, if it is one's.
    pub generation: Option<u32>,
    /// The worker's process, if it is one's.
    pub pid: Option<i32>,
    /// In words, for people: `died after 3.2 s: exit code 1`.
    pub text: String,
}

/// Where a client goes, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteExplanation {
    /// The address that was asked for.
    pub address: Option<String>,
    /// What of it counts: folded and cut to its prefix.
    pub counts: Option<String>,
    /// The name of the digest, and the digest in hexadecimal.
    pub digest: Option<(String, String)>,
    /// The affinity key: 16 hexadecimal digits.
    pub key: String,
    /// How slots are chosen.
    pub placement: String,
    /// All slots that clients belong to, its own first.
    pub ranking: Vec<Ranked>,
    /// The slot that is remembered for it, and for how many seconds if it doesn't come back.
    pub remembered: Option<(u16, f64)>,
    /// The slot that its next connection goes to.
    pub target: Option<u16>,
    /// Why that isn't the first, in words.
    pub why: Option<String>,
}

/// A slot in a client's ranking.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ranked {
    /// Which.
    pub slot: u16,
    /// How it is.
    pub state: String,
    /// `open`, `holding` or `closed`.
    pub availability: String,
    /// The worker that serves it.
    pub pid: Option<i32>,
    /// Its connections, established and on their way.
    pub load: u64,
    /// Why this client's next connection doesn't go there, if it would be its turn.
    pub skip_reason: Option<String>,
}

/// Connections that workers hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// Some of them.
    pub connections: Vec<Connection>,
    /// How many there are that were asked for.
    pub total: u64,
}

/// A connection that a worker holds, as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connection {
    /// The client.
    pub client: String,
    /// The address that it connected to.
    pub local: String,
    /// The slot of the worker that holds it.
    pub slot: u16,
    /// The worker's generation.
    pub generation: u32,
    /// The process that holds it: the worker, or one that it has started.
    pub pid: i32,
    /// `established`, `close-wait`, …: TCP's words.
    pub state: String,
    /// Bytes that the worker has not read yet.
    pub unread: u64,
    /// Bytes that the client has not acknowledged yet.
    pub unsent: u64,
}

/// A line that a worker has printed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLine {
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// Its slot.
    pub slot: u16,
    /// Its generation.
    pub generation: u32,
    /// Its process.
    pub pid: i32,
    /// On standard error.
    pub err: bool,
    /// The line without its end; what is no UTF-8 is replaced.
    pub text: String,
    /// So many lines before this one were missed: they were read too slowly.
    pub missed: u64,
}

/// Levels of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Levels {
    /// Those that count now.
    pub levels: String,
}

/// What rebalancing has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rebalanced {
    /// Clients that will come back to the first slot of their ranking.
    pub clients: u64,
    /// Sessions that move to the first slot of their ranking now, so many a second as
    /// `rebalance_rate` says.
    pub sessions: u64,
}

/// Everything that changes, once a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Live {
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// How everything is.
    pub status: Status,
    /// All workers.
    pub workers: Vec<Worker>,
    /// What happened since the one before; the last 200 in the first.
    pub events: Vec<Event>,
}
