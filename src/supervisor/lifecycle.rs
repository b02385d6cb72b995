//! The types of a worker's life: its phases, the facts, and the reactions to them.
//!
//! Pure, and without a decision of its own: `slot_life` decides.

use std::fmt;
use std::time::Duration;

use crate::handover::carry;
use crate::handover::pool::{KillReasonSnapshot, PhaseSnapshot, SlotStateSnapshot};
use crate::handover::settings::LifecycleSettingsSnapshot;
use crate::protocol::drain::{DrainMode, DrainOrder};
use crate::protocol::ids::{Generation, Timestamp};
use crate::supervisor::restart::RestartPolicy;

/// How long each phase may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifecycleSettings {
    /// From start to ready; longer is a failure.
    pub listen_timeout: Duration,
    /// The grace period when everything ends: from the order to drain to SIGKILL.
    pub kill_timeout: Duration,
    /// The grace period of a worker that is replaced, drained or removed while others go on.
    pub drain_timeout: Duration,
    /// The same for a worker that ends by a signal, if that is shorter.
    pub signal_drain_timeout: Duration,
    /// A worker that ends by a signal gets it at once when everything ends: it stops to listen by itself then.
    pub signal_at_once: bool,
    /// How its established WebSockets end then.
    pub drain: DrainMode,
    /// Generations of a slot that may drain at a time; with one more, the oldest has only
    /// `kill_timeout` left.
    pub max_draining: u16,
    /// Whether each slot has another worker that is ready and takes over when the first one crashes.
    pub spare: bool,
    /// When to start again.
    pub restart: RestartPolicy,
}

carry!(struct LifecycleSettings => LifecycleSettingsSnapshot { listen_timeout, kill_timeout, drain_timeout, signal_drain_timeout, signal_at_once, drain, max_draining, spare, restart });

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its process was started.
    Spawning {
        /// When it has to be ready.
        deadline: Timestamp,
    },
    /// It takes its slot's connections.
    Serving {
        /// When it began to.
        since: Timestamp,
    },
    /// Its successor takes them, but is not stable yet: if it crashes before that, this one serves
    /// again.
    Standby {
        /// When it began to serve.
        since: Timestamp,
    },
    /// It is ready, and takes the slot's connections when the worker that serves crashes.
    Spare {
        /// When it became ready.
        since: Timestamp,
    },
    /// It finishes what it has.
    Draining {
        /// When it served, if it ever did.
        since: Option<Timestamp>,
        /// When it is killed.
        deadline: Timestamp,
        /// The last order; nothing if it hadn't attached, and was sent SIGTERM.
        told: Option<DrainOrder>,
    },
    /// It was sent SIGABRT: its event loop stands still, and its core may show why.
    Aborted {
        /// When it is killed.
        deadline: Timestamp,
    },
    /// It was sent SIGKILL and is about to end.
    Killed {
        /// When it served, if it ever did.
        since: Option<Timestamp>,
    },
}

carry!(enum Phase => PhaseSnapshot { Spawning { deadline }, Serving { since }, Standby { since }, Spare { since }, Draining { since, deadline, told }, Aborted { deadline }, Killed { since } });

impl Phase {
    /// A word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spawning { .. } => "spawning",
            Self::Serving { .. } => "serving",
            Self::Standby { .. } => "standby",
            Self::Spare { .. } => "spare",
            Self::Draining { .. } => "draining",
            Self::Aborted { .. } => "aborted",
            Self::Killed { .. } => "killed",
        }
    }
}

/// The state of a slot, as its clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// A worker serves.
    Serving,
    /// Its first worker, or the successor of one that crashed, is on its way.
    Spawning,
    /// The next worker is started after a pause.
    BackOff,
    /// Too many workers have crashed in it: none is started until an operator says so.
    Errored,
    /// Its worker was done, and none is to follow.
    Stopped,
    /// An operator took it out of service: its workers finish what they have, and none is started
    /// until an operator says so. It stays one of the slots, and its clients come back.
    Drained,
    /// It was taken out of service.
    Removed,
}

carry!(enum SlotState => SlotStateSnapshot { Serving, Spawning, BackOff, Errored, Stopped, Drained, Removed });

/// A fact about a slot or one of its workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fact {
    /// The slot is to be filled, whatever became of it before.
    Start,
    /// The slot's worker is to be followed by a new one, which serves before the old one drains.
    Replace,
    /// The slot is to be out of service until the next `Start`.
    Drain,
    /// The slot is no longer wanted.
    Remove,
    /// A worker takes connections.
    Ready(Generation),
    /// A worker that isn't ready yet wants to go.
    Leave(Generation),
    /// A worker is to be killed at once.
    Kill(Generation, KillReason),
    /// A worker's event loop stands still.
    Stalled(Generation),
    /// A draining worker has to make room.
    ShortenDeadline(Generation),
    /// A worker's process has ended, or could not be started.
    Exited {
        /// The worker.
        generation: Generation,
        /// Its exit code, if it ended by itself.
        status: Option<i32>,
        /// From 0 to 1.
        jitter: f64,
    },
    /// A draining worker's last client has gone.
    Idle(Generation),
    /// Time has passed.
    Time,
    /// The whole is to end.
    Stop,
    /// The whole is to end at once.
    StopNow,
}

/// A reaction to a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a worker.
    Spawn(Generation),
    /// Give it the slot's connections.
    Serve(Generation),
    /// Give it no more, and tell it so.
    Drain(Generation, DrainOrder),
    /// It drains already: tell it that it has less time, or that everything ends.
    ShortenDeadline(Generation, DrainOrder),
    /// It drains and still has clients: tell it to close its servers, and the connections that are idle.
    Disconnect(Generation),
    /// Send it the signal by which it ends.
    Stop(Generation),
    /// Send it SIGTERM: it hasn't attached, so that it cannot be told otherwise.
    Terminate(Generation),
    /// Give it no more, and send it SIGABRT.
    Abort(Generation),
    /// Send it SIGKILL.
    Kill(Generation, KillReason),
    /// The next start is at that time.
    BackOff(Duration),
    /// No worker is started any more: the slot is errored, or stopped; or drained, and its last
    /// worker has ended.
    Idle(SlotState),
    /// The replacement that was asked for is done: this worker is stable.
    Replaced(Generation),
    /// The replacement that was asked for has failed with this worker.
    ReplacementFailed(Generation),
}

/// Why a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// It wasn't ready in time.
    NotReady,
    /// It broke the protocol.
    Violation,
    /// Its grace period is over.
    GraceOver,
    /// It used more memory than it may at all.
    Memory,
    /// Its event loop stood still, and it did not end by SIGABRT.
    Stalled,
    /// Another one was ordered before it was ready.
    Superseded,
    /// Everything is to end at once.
    StopNow,
    /// An operator wants to see what follows.
    Ordered,
    /// Its process was stopped and not continued.
    Stopped,
}

carry!(enum KillReason => KillReasonSnapshot { NotReady, Violation, GraceOver, Memory, Stalled, Superseded, StopNow, Ordered, Stopped });

impl LifecycleSettings {
    /// The reason in words, with the setting that it goes back to.
    #[must_use]
    pub fn explain(&self, reason: KillReason) -> String {
        let Self { listen_timeout, .. } = self;
        match reason {
            KillReason::NotReady => {
                format!("was not ready within {listen_timeout:?} (listen_timeout) and was killed")
            }
            KillReason::Violation => "broke the protocol and was killed".to_owned(),
            KillReason::GraceOver => "was killed at the end of its grace period".to_owned(),
            KillReason::Memory => "used more than max_memory_kill and was killed".to_owned(),
            KillReason::Stalled => "stood still and was killed".to_owned(),
            KillReason::Superseded => {
                "was killed since a newer one was ordered before it was ready".to_owned()
            }
            KillReason::StopNow => "was killed, as ordered".to_owned(),
            KillReason::Ordered => "was killed by command".to_owned(),
            KillReason::Stopped => {
                "was stopped (SIGSTOP) for watchdog_timeout and was killed".to_owned()
            }
        }
    }
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serving => "serving",
            Self::Spawning => "spawning",
            Self::BackOff => "back-off",
            Self::Errored => "errored",
            Self::Stopped => "stopped",
            Self::Drained => "drained",
            Self::Removed => "removed",
        })
    }
}
