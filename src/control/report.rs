//! The primary's status as JSON: on the control socket, over HTTP, and in the output of `--json`.
//! Times are in the unit at the end of their name, memory is in bytes.
//!
//! A key that an older primary doesn't send has its default.

use serde::{Deserialize, Serialize};

/// The primary's status: one flat object, so that scripts read each figure by one key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The app's name.
    pub name: String,
    /// The configuration file, if there is one.
    pub configuration: Option<String>,
    /// The command of workers that are started from now on; empty for the demo.
    pub command: Option<Vec<String>>,
    /// The primary's release.
    pub version: String,
    /// The process that takes signals: the keeper's, or the primary's if there is no keeper.
    pub pid: u32,
    /// The primary's own process.
    pub primary_pid: u32,
    /// Time since the start; upgrades and crashes of the primary do not end a run.
    pub uptime_s: f64,
    /// Upgrades in place since the start.
    pub upgrades: u64,
    /// Crashes of the primary after which a successor took over.
    pub recoveries: u64,
    /// Upgrades that failed after they had started.
    pub failed_upgrades: u64,
    /// The reason of the last failed upgrade.
    pub upgrade_failed: Option<String>,
    /// Addresses that clients connect to.
    pub listening: Vec<String>,
    /// Address of the admin listener.
    pub admin: Option<String>,
    /// The file with the token that the primary has made for it, if it has.
    pub admin_token_file: Option<String>,
    /// Path of the control socket.
    pub control: Option<String>,
    /// What a successor could not read or open again, a sentence each: it goes on as its predecessor had it,
    /// or without.
    pub not_renewed: Vec<String>,
    /// The placement.
    pub placement: String,
    /// Slots that serve.
    pub serving: u16,
    /// The configured number of slots.
    pub workers: u16,
    /// The smallest and largest number of workers, if they are scaled by load.
    pub autoscale: Option<(u16, u16)>,
    /// Whether connections are accepted.
    pub accepting: bool,
    /// Whether the primary is stopping.
    pub stopping: bool,
    /// Connections established in all workers.
    pub connections: u64,
    /// WebSockets among them.
    pub websockets: u64,
    /// WebSockets that can migrate.
    pub sessions: u64,
    /// Requests in flight in all workers.
    pub requests: u64,
    /// Connections accepted that no worker owns yet.
    pub waiting: u64,
    /// Connections accepted in the last second.
    pub accepts_per_second: f64,
    /// Recent time from accept to acknowledgement, median.
    pub handoff_p50_ms: Option<f64>,
    /// The same, 99th percentile.
    pub handoff_p99_ms: Option<f64>,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections that workers have acknowledged.
    pub acknowledged: u64,
    /// Connections taken back from one worker and sent to another.
    pub redispatched: u64,
    /// Connections placed on another slot than the first of their ranking.
    pub fallbacks: u64,
    /// Times that a worker did not acknowledge within `ack_timeout`.
    pub stalls: u64,
    /// Connections that workers refused.
    pub refused: u64,
    /// Connections that ended before a worker owned them.
    pub lost: u64,
    /// Sessions migrated to another worker.
    pub sessions_migrated: u64,
    /// Migrations that no worker accepted, the session stayed with its worker; or whose new handler
    /// closed the session at once.
    pub migrations_failed: u64,
    /// Sessions that no worker accepted after their own worker had ended.
    pub sessions_lost: u64,
    /// Protected sessions now.
    pub sessions_protected: u64,
    /// Protected sessions that another worker continued after a crash of theirs.
    pub sessions_recovered: u64,
    /// Protected sessions that were closed after a crash of their worker.
    pub session_recovery_failures: u64,
    /// Clients that draining workers closed.
    pub clients_closed: u64,
    /// Sessions that a rebalance has yet to migrate.
    pub rebalance_pending: u64,
    /// Errors of accept.
    pub accept_errors: u64,
    /// Workers that exited without an order.
    pub crashes: u64,
    /// Connections open in workers when those ended, and finished by their clients or handlers.
    pub connections_finished: u64,
    /// Those that went on in another worker.
    pub connections_migrated: u64,
    /// Those that were closed with a close frame.
    pub connections_closed: u64,
    /// Those that were protected: sessions recovered, or failed to be.
    pub connections_protected: u64,
    /// Those that were cut.
    pub connections_cut: u64,
    /// The client with the largest share of recent connections.
    pub top_client: Option<TopClient>,
    /// The address that has nearly all connections now, if there is one: its slot alone serves.
    pub dominant_client: Option<DominantClient>,
    /// The worker whose WebSockets take far more memory than they need, if there is one.
    pub heavy_connections: Option<HeavyConnections>,
    /// The rolling restart in progress.
    pub rollout: Option<Rollout>,
    /// The last one that has ended.
    pub last_rollout: Option<Rollout>,
    /// Levels of the primary's log.
    pub log_levels: String,
    /// Lines of workers' output that were dropped.
    pub dropped_lines: u64,
}

/// The client with the most connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopClient {
    /// Its address.
    pub address: String,
    /// Its share of recent connections, 0 to 1.
    pub share: f64,
}

/// An address that has nearly all connections and sticks to one slot, as in a load test from one machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DominantClient {
    /// The address.
    pub address: String,
    /// Its share of established connections, 0 to 1.
    pub share: f64,
    /// The slot of its next connection.
    pub slot: u16,
    /// The chapter of the guide about it, in words; the admin listener has it as `/guide/load-tests`.
    pub guide: String,
}

/// A worker whose WebSockets take far more memory than they need: their library's buffers are large.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeavyConnections {
    /// Its slot.
    pub slot: u16,
    /// Its memory for each connection.
    pub memory_per_connection: u64,
    /// Where the guide says more.
    pub guide: String,
}

/// A worker, or a slot without one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// Its slot.
    pub slot: u16,
    /// Its generation. This and every other key of a worker is null for a slot without one.
    pub generation: Option<u32>,
    /// Its process.
    pub pid: Option<i32>,
    /// `serving`, `spawning`, `spare`, `standby`, `draining`, `aborted` or `killed`; for a slot without
    /// a worker `spawning`, `back-off`, `errored`, `stopped`, `drained` or `removed`.
    pub state: String,
    /// Time since the start of its process.
    pub uptime_s: Option<f64>,
    /// Crashes of the slot's workers.
    pub crashes: u64,
    /// Connections established.
    pub connections: u64,
    /// Connections that the worker has acknowledged.
    pub connections_total: u64,
    /// WebSockets among them, by the worker's own count.
    pub websockets: u64,
    /// WebSockets that can migrate.
    pub sessions: u64,
    /// Requests in flight.
    pub requests: u64,
    /// Completed requests.
    pub requests_total: u64,
    /// Hand-offs in the last second; 0 unless the worker serves.
    pub handoffs_per_second: f64,
    /// Recent time from accept to acknowledgement in this slot, median.
    pub handoff_p50_ms: Option<f64>,
    /// The same, 99th percentile.
    pub handoff_p99_ms: Option<f64>,
    /// Times that the slot's workers did not acknowledge within `ack_timeout`.
    pub stalls: u64,
    /// Memory of the worker and its child processes.
    pub memory: Option<u64>,
    /// The part of it that came since the worker was ready, by connections; null below 100 connections, and
    /// for a worker that was ready before the primary started.
    pub memory_per_connection: Option<u64>,
    /// Recent CPU time, in percent of one CPU.
    pub cpu: Option<f64>,
    /// Its share of all established connections, 0 to 1.
    pub share: f64,
}

/// A slot in detail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slot {
    /// Its number.
    pub slot: u16,
    /// `serving`, `spawning`, `back-off`, `errored`, `stopped`, `drained` or `removed`.
    pub state: String,
    /// `open`, `holding` or `closed` for new clients.
    pub availability: String,
    /// Its weight in placement.
    pub weight: f64,
    /// Crashes of its workers.
    pub crashes: u64,
    /// The reason of the last crash.
    pub last_failure: Option<String>,
    /// Workers started in it.
    pub started: u64,
    /// During a back-off, time until its next worker starts.
    pub delay_ms: Option<f64>,
    /// Connections that wait for it.
    pub queued: u64,
    /// Connections sent to its workers and not acknowledged.
    pub in_flight: u64,
    /// Connections acknowledged by its workers since the start.
    pub handed_off: u64,
    /// Connections that its workers refused.
    pub refused: u64,
    /// Requests completed by all of its workers.
    pub requests_total: u64,
    /// Last answer time of the serving worker's event loop, if it is measured.
    pub lag_ms: Option<f64>,
    /// Its workers, oldest first, or one entry without a worker.
    pub workers: Vec<Worker>,
    /// Its last events.
    pub events: Vec<Event>,
}

/// A rolling restart: progress or result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rollout {
    /// Its number, from 1.
    pub number: u64,
    /// Its trigger.
    pub trigger: String,
    /// Slots that have a new worker.
    pub replaced: u16,
    /// Slots to replace.
    pub of: u16,
    /// Slots whose replacement is in progress, and what each waits for.
    pub under_way: Vec<(u16, String)>,
    /// `done`, `aborted`, `superseded` or `stopped`; null while it is in progress.
    pub result: Option<String>,
    /// The reason of an abort.
    pub reason: Option<String>,
    /// Settings that have changed and that it does not apply; with the result.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_applied: Vec<NotApplied>,
    /// When it ended, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<i64>,
    /// The slot whose new worker failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_slot: Option<u16>,
    /// The last line that this worker has printed on standard error, if it is still in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_line: Option<String>,
}

impl Rollout {
    /// Whether it has failed.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.result.as_deref() == Some("aborted")
    }
}

/// A setting that an order has left as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotApplied {
    /// Its key.
    pub setting: String,
    /// What applies it: `reload`, `upgrade` or `restart`.
    pub applied_by: String,
}

/// An upgrade that begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upgrading {
    /// Settings that have changed and that it does not apply.
    pub not_applied: Vec<NotApplied>,
    /// The path that the configuration gives to the control socket of the successor.
    pub control: Option<String>,
}

/// The result of an order to scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scaled {
    /// The number of slots before.
    pub from: u16,
    /// The number of slots ordered.
    pub to: u16,
    /// Whether it waits for the rolling restart in progress.
    pub deferred: bool,
}

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Its number, one higher than that of the event before.
    pub number: u64,
    /// Time in milliseconds since 1970.
    pub time_ms: i64,
    /// `worker-started`, `worker-ready`, `worker-replacing`, `worker-draining`, `worker-killed`,
    /// `worker-exited`, `worker-crashed`, `slot-back-off`, `slot-errored`, `slot-stopped`,
    /// `slot-drained`, `slot-replaced`, `replacement-failed`, `rollout-started`, `rollout-done`,
    /// `rollout-aborted`, `rollout-superseded`, `rollout-stopped`, `scaled`, `resumed`, `stopping`.
    pub kind: String,
    /// The slot, if it concerns one.
    pub slot: Option<u16>,
    /// The worker's generation, if it concerns a worker.
    pub generation: Option<u32>,
    /// The worker's process, if it concerns a worker.
    pub pid: Option<i32>,
    /// Text for people: `worker crashed after 3.2 s and 7 connections: exit code 1; 2 open: 2 cut`.
    pub text: String,
    /// The connections that were open in a worker at its end, if it concerns that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// The rolling restart, if it is the end of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// Connections that were open in a worker at its end, by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// All of them.
    pub open: u64,
    /// By their clients or handlers.
    pub finished: u64,
    /// They went on in another worker.
    pub migrated: u64,
    /// With a close frame.
    pub closed: u64,
    /// Protected sessions of a worker that crashed.
    pub protected: u64,
    /// Without a word.
    pub cut: u64,
}

/// The route of a client, and its reasons.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteExplanation {
    /// The address in the request.
    pub address: Option<String>,
    /// The part of the address that is the affinity key's source: folded and cut to its prefix.
    pub prefix: Option<String>,
    /// The name of the digest, and the digest in hexadecimal.
    pub digest: Option<(String, String)>,
    /// The affinity key: 16 hexadecimal digits.
    pub key: String,
    /// The placement.
    pub placement: String,
    /// All slots in the client's order, the preferred one first.
    pub ranking: Vec<Ranked>,
    /// Its fallback slot, and the seconds until that is forgotten if the client doesn't return.
    pub remembered: Option<(u16, f64)>,
    /// The slot of its next connection.
    pub target: Option<u16>,
    /// The reason, as text, if that is not the first in the ranking.
    pub why: Option<String>,
}

/// A slot in a client's ranking.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ranked {
    /// Its number.
    pub slot: u16,
    /// Its state.
    pub state: String,
    /// `open`, `holding` or `closed`.
    pub availability: String,
    /// The process of its serving worker.
    pub pid: Option<i32>,
    /// Its connections, established and in flight.
    pub load: u64,
    /// The reason, as text, why the client's next connection skips it.
    pub skip_reason: Option<String>,
}

/// Connections that workers hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// The connections, up to the limit.
    pub connections: Vec<Connection>,
    /// The number without the limit.
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
    /// The process that holds it: the worker or a child process of it.
    pub pid: i32,
    /// The TCP state: `established`, `close-wait`, …
    pub state: String,
    /// Bytes that the worker has not read yet.
    pub unread: u64,
    /// Bytes that the client has not acknowledged yet.
    pub unsent: u64,
}

/// A line of a worker's output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLine {
    /// Time in milliseconds since 1970.
    pub time_ms: i64,
    /// Its slot.
    pub slot: u16,
    /// Its generation.
    pub generation: u32,
    /// Its process.
    pub pid: i32,
    /// Whether it was printed on standard error.
    pub err: bool,
    /// The line without its end; invalid UTF-8 is replaced.
    pub text: String,
    /// The number of lines missed before this one because the client read too slowly.
    pub missed: u64,
}

/// Levels of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Levels {
    /// The levels in force.
    pub levels: String,
}

/// The result of a rebalance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rebalanced {
    /// Clients whose fallback slot is forgotten.
    pub clients: u64,
    /// Sessions that migrate to the first slot of their ranking now, at `rebalance_rate`.
    pub sessions: u64,
}

/// A snapshot, sent every second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Live {
    /// Time in milliseconds since 1970.
    pub time_ms: i64,
    /// The primary's status.
    pub status: Status,
    /// All workers.
    pub workers: Vec<Worker>,
    /// Events since the previous snapshot; in the first one, the last 200.
    pub events: Vec<Event>,
}
