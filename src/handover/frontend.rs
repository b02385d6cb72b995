//! The frontend as plain data.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::handover::link::{ConnectionSnapshot, LinkSnapshot, SessionReportSnapshot};
use crate::handover::pool::CountersSnapshot;
use crate::protocol::ids::{AffinityKey, SlotId, Timestamp, WorkerId};

/// A frontend without its descriptors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontendSnapshot {
    pub listens: bool,
    pub accept_errors: AcceptErrorsSnapshot,
    pub links: Vec<(WorkerId, LinkSnapshot)>,
    pub queues: Vec<(SlotId, Vec<ConnectionSnapshot>)>,
    pub quarantined: Vec<WorkerId>,
    pub stalled: Vec<WorkerId>,
    pub counters: CountersSnapshot,
    pub stats: FrontendStatsSnapshot,
    pub router: RouterSnapshot,
    pub close_requests: CloseRequestsSnapshot,
    pub unroutable: Vec<ConnectionSnapshot>,
    pub sessions: Vec<ConnectionSnapshot>,
    pub recovery: Option<RecoverySnapshot>,
    /// Its counters are in shared memory, too.
    pub is_counted: bool,
    /// The key of the tags of records.
    pub record_key: (u64, u64),
}

/// Open offers of workers whose primary has died, and the sessions that wait for an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecoverySnapshot {
    pub open_offers: OpenOffersSnapshot,
    pub held: Vec<ConnectionSnapshot>,
    pub is_decided: bool,
}

/// Workers that have not reported on their sessions, and the reports of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenOffersSnapshot {
    pub pending: Vec<WorkerId>,
    pub silent: Vec<WorkerId>,
    pub reports: Vec<(WorkerId, SessionReportSnapshot)>,
}

/// Errors of `accept`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcceptErrorsSnapshot {
    pub named: Vec<u64>,
    pub other: u64,
}

/// Where clients went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterSnapshot {
    pub spread: SpreadSnapshot,
    pub remembered: Vec<(AffinityKey, SlotId, Timestamp)>,
}

/// Placement where nothing sticks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpreadSnapshot {
    pub turn: u64,
}

/// Closes that workers have asked for and were not granted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CloseRequestsSnapshot {
    pub next: Option<Timestamp>,
    pub requests: Vec<CloseRequestSnapshot>,
}

/// The closes that one worker has asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloseRequestSnapshot {
    pub worker: WorkerId,
    pub left: u32,
    pub due: Timestamp,
    pub interval: Duration,
    pub last_call: Timestamp,
}

/// Counters and measures of the frontend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontendStatsSnapshot {
    pub accepts: RateSnapshot,
    pub top_client: TopClientSnapshot,
    pub times: TimesSnapshot,
    pub total_time: Duration,
    pub recent: RecentTimesSnapshot,
    pub fallback: Vec<u64>,
    pub slots: Vec<FrontendSlotStatsSnapshot>,
}

/// Counters and measures of a slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontendSlotStatsSnapshot {
    pub handed_off: u64,
    pub handoffs: RateSnapshot,
    pub recent: RecentTimesSnapshot,
    pub stalls: u64,
    pub refused: u64,
    pub sessions: u64,
}

/// A rate per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateSnapshot {
    pub second: u64,
    pub current: u64,
    pub last: u64,
}

/// The clients with the most connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopClientSnapshot {
    pub marks: Vec<u32>,
    pub counts: Vec<u64>,
    pub clients: Vec<ClientSnapshot>,
    pub total: u64,
    pub half_lives: u64,
    pub floor: u64,
    pub hand: usize,
}

/// One of those clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientSnapshot {
    pub address: IpAddr,
    pub error: u64,
}

/// Times by their bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimesSnapshot {
    pub counts: Vec<u64>,
}

/// Times of the last seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecentTimesSnapshot {
    pub windows: Vec<WindowSnapshot>,
}

/// Times of a few seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowSnapshot {
    pub number: u64,
    pub times: TimesSnapshot,
}
