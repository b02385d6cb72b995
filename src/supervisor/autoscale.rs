//! How many workers there should be, by their load.
//!
//! Pure: loads and a time in, one worker more or fewer out. Never starts or removes anyone.
//!
//! # Promises
//!
//! * Up goes at once, by one at a look, and never while another change is under way.
//! * Down goes only after the load was low for [`AutoscaleSettings::scale_down_after`] in which
//!   nobody scaled, and only when those who stay could carry the most that there was in that time,
//!   with room to spare. So what goes down doesn't come up again by itself.
//! * Never beyond the bounds, and back within them one at a look when they were moved.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

use crate::handover::carry;
use crate::handover::settings::{AutoscaleSettingsSnapshot, LoadMeasureSnapshot};
use crate::protocol::ids::{SlotId, Timestamp};

/// When to have more workers and when fewer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoscaleSettings {
    /// Never fewer than these.
    pub min_workers: u16,
    /// Never more than these.
    pub max_workers: u16,
    /// The measure.
    pub measure: LoadMeasure,
    /// One more when the average load per worker is above this.
    pub scale_up_load: f64,
    /// One fewer when the average load per worker is below this, and has been for a while.
    pub scale_down_load: f64,
    /// How often loads are looked at.
    pub interval: Duration,
    /// How long the average has to be low, and nothing else to have been scaled, before there is
    /// one worker fewer.
    pub scale_down_after: Duration,
}

carry!(struct AutoscaleSettings => AutoscaleSettingsSnapshot { min_workers, max_workers, measure, scale_up_load, scale_down_load, interval, scale_down_after });

/// The measure of a worker's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadMeasure {
    /// Established connections.
    Connections,
    /// Requests in flight.
    Requests,
    /// Percent of one processor.
    Cpu,
    /// How late its event loop is, in milliseconds.
    Lag,
}

carry!(enum LoadMeasure => LoadMeasureSnapshot { Connections, Requests, Cpu, Lag });

/// A worker that serves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorkerLoad {
    /// Where it serves.
    pub slot: SlotId,
    /// Its load, by the measure of the settings. What is no number, or below zero, is not known.
    pub load: f64,
    /// Its established connections.
    pub connections: u64,
}

/// A decision about the number of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Stay,
    /// One worker more.
    Up,
    /// One worker fewer: the one in this slot.
    Down(SlotId),
}

/// How much of `scale_up_load` those who stay may carry after another has gone.
const CARRIED_AFTER_DOWN: f64 = 0.8;

/// Looks at loads and remembers the looks of the last [`AutoscaleSettings::scale_down_after`].
#[derive(Clone, Debug)]
pub struct Autoscaler {
    settings: AutoscaleSettings,
    /// The oldest first, from the last one that is older than that time.
    looks: VecDeque<Look>,
    last_scaled: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Timestamp,
    low: bool,
    sum: f64,
}

impl Autoscaler {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(settings: AutoscaleSettings) -> Self {
        Self { settings, looks: VecDeque::new(), last_scaled: None }
    }

    /// Decides by the loads of the workers that serve. While somebody starts or is being removed
    /// (`changing`), nothing; but what is seen meanwhile counts. It notes its own decisions as
    /// [`Self::scaled`] does.
    pub fn look(&mut self, now: Timestamp, workers: &[WorkerLoad], changing: bool) -> Decision {
        let loads = Loads::new(workers);
        self.remember(now, loads);
        let decision = if changing { Decision::Stay } else { self.decide(now, workers, loads) };
        if decision != Decision::Stay {
            self.scaled(now);
        }
        decision
    }

    /// Notes a change of the number, be it by hand: no worker fewer for a while.
    pub fn scaled(&mut self, now: Timestamp) {
        self.last_scaled = Some(now);
    }

    /// Goes on with other settings, and with what it has seen.
    pub fn change(&mut self, settings: AutoscaleSettings) {
        self.settings = settings;
    }

    fn remember(&mut self, now: Timestamp, loads: Loads) {
        // A worker of unknown load may be busy.
        let low = loads.unknown == 0 && loads.average() < self.settings.scale_down_load;
        self.looks.push_back(Look { at: now, low, sum: loads.sum });
        while self.looks.get(1).is_some_and(|second| self.is_long_ago(now, second.at)) {
            self.looks.pop_front();
        }
    }

    fn decide(&self, now: Timestamp, workers: &[WorkerLoad], loads: Loads) -> Decision {
        let min = usize::from(self.settings.min_workers.max(1));
        let max = usize::from(self.settings.max_workers).max(min);
        let count = workers.len();
        let busy = loads.average() > self.settings.scale_up_load;
        if count < min || (busy && count < max) {
            return Decision::Up;
        }
        if count > max || (!busy && count > min && self.can_spare_one(now, loads)) {
            return fewest_connections(workers).map_or(Decision::Stay, Decision::Down);
        }
        Decision::Stay
    }

    /// Whether the load was low all the time, nobody has scaled, and those who stay could carry the
    /// most that there was in that time.
    fn can_spare_one(&self, now: Timestamp, loads: Loads) -> bool {
        let seen_for_long = self.looks.front().is_some_and(|look| self.is_long_ago(now, look.at));
        let cooled_down = self.last_scaled.is_none_or(|at| self.is_long_ago(now, at));
        let peak = self.looks.iter().map(|look| look.sum).fold(0.0, f64::max);
        let carried = self.settings.scale_up_load * CARRIED_AFTER_DOWN;
        seen_for_long
            && cooled_down
            && self.looks.iter().all(|look| look.low)
            && peak / (loads.known - 1.0) <= carried
    }

    fn is_long_ago(&self, now: Timestamp, at: Timestamp) -> bool {
        now.since(at) >= self.settings.scale_down_after
    }
}

/// The loads of all, as far as they are known.
#[derive(Clone, Copy)]
struct Loads {
    sum: f64,
    known: f64,
    unknown: usize,
}

impl Loads {
    fn new(workers: &[WorkerLoad]) -> Self {
        let (mut sum, mut known, mut unknown) = (0.0, 0.0, 0);
        for worker in workers {
            if worker.load.is_finite() && worker.load >= 0.0 {
                sum += worker.load;
                known += 1.0;
            } else {
                unknown += 1;
            }
        }
        Self { sum, known, unknown }
    }

    /// Without workers it is not a number, and as such neither high nor low.
    fn average(self) -> f64 {
        self.sum / self.known
    }
}

/// Of several, the one in the highest slot.
fn fewest_connections(workers: &[WorkerLoad]) -> Option<SlotId> {
    let fewest = workers.iter().min_by_key(|worker| (worker.connections, Reverse(worker.slot)));
    fewest.map(|worker| worker.slot)
}

#[cfg(test)]
mod tests;
