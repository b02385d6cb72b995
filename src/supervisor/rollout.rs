//! The words of replacements: rolling restarts over all slots, and single slots that get a new
//! worker.
//!
//! Pure, and without a decision of its own: the [`planner`] decides.

use std::fmt;

use crate::handover::carry;
use crate::handover::pool::{CauseSnapshot, OutcomeSnapshot, TriggerSnapshot};
use crate::handover::settings::RolloutSettingsSnapshot;
use crate::protocol::ids::SlotId;
use crate::supervisor::limits::LimitReason;

pub mod planner;

/// How replacements are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutSettings {
    /// Slots of a rolling restart that are replaced at the same time, 1 at least.
    pub parallel: u16,
    /// Draining workers may take so many bytes of memory together; beyond, the oldest ends.
    pub max_draining_memory: Option<u64>,
}

carry!(struct RolloutSettings => RolloutSettingsSnapshot { parallel, max_draining_memory });

impl Default for RolloutSettings {
    fn default() -> Self {
        Self { parallel: 1, max_draining_memory: None }
    }
}

/// The trigger of a rolling restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// An operator's command.
    Command,
    /// This file has changed.
    Watch(std::path::PathBuf),
    /// It is time.
    Cron,
}

carry!(enum Trigger => TriggerSnapshot { Signal, Command, Watch(path), Cron });

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal => f.write_str("signal"),
            Self::Command => f.write_str("command"),
            Self::Watch(path) => write!(f, "change of {}", path.display()),
            Self::Cron => f.write_str("cron_restart"),
        }
    }
}

/// Why a single slot gets a new worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its worker has reached a limit.
    Limit(LimitReason),
    /// Its worker asks for it.
    Asked,
    /// An operator's command.
    Ordered,
}

carry!(enum Cause => CauseSnapshot { Limit(reason), Asked, Ordered });

impl Cause {
    /// A word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit(LimitReason::Memory { .. }) => "memory",
            Self::Limit(LimitReason::Age { .. }) => "age",
            Self::Limit(LimitReason::Connections { .. }) => "connections",
            Self::Asked => "asked",
            Self::Ordered => "ordered",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(reason) => reason.fmt(f),
            Self::Asked => f.write_str("asks for it"),
            Self::Ordered => f.write_str("ordered"),
        }
    }
}

/// The kind of a replacement: part of a rolling restart, or single.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The rolling restart.
    Rollout,
    /// Nothing else, for this cause.
    Single(Cause),
}

/// How a rolling restart ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every slot has a new worker.
    Done,
    /// The new worker of this slot failed, for this reason.
    Aborted(SlotId, String),
    /// Another one was ordered.
    Superseded,
    /// Everything is to end.
    Stopped,
}

carry!(enum Outcome => OutcomeSnapshot { Done, Aborted(slot, reason), Superseded, Stopped });

impl Outcome {
    /// A word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Aborted(..) => "aborted",
            Self::Superseded => "superseded",
            Self::Stopped => "stopped",
        }
    }
}

/// The result of a rolling restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its number, from 1.
    pub number: u64,
    /// Its trigger.
    pub trigger: Trigger,
    /// How it ended.
    pub outcome: Outcome,
    /// Slots that have a new worker.
    pub replaced: u16,
    /// Slots that were to get one.
    pub of: u16,
}

/// A step to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A rolling restart begins, of so many slots.
    Begin {
        /// Its number.
        number: u64,
        /// Its trigger.
        trigger: Trigger,
        /// Its slots.
        of: u16,
    },
    /// Start a successor in this slot. The cause is that of a single slot.
    Replace(SlotId, Option<Cause>),
    /// A rolling restart has ended.
    End(Report),
}

/// How far the rolling restart that is under way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutProgress<'a> {
    /// Its number.
    pub number: u64,
    /// Its trigger.
    pub trigger: &'a Trigger,
    /// Slots that have a new worker.
    pub replaced: u16,
    /// Slots that are to get one.
    pub of: u16,
    /// Slots whose successor is on its way.
    pub under_way: &'a [SlotId],
}

#[cfg(test)]
mod tests;
