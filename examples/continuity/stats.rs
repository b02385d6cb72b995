//! What has become of all clients together, and of nobody in particular.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::ledger::Wrong;
use crate::times::Durations;
use crate::wire::Place;

/// How a connection ended that its client had not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(crate) enum Ending {
    /// With a close frame of this code.
    Closed(u16),
    /// With a close frame that gives no reason.
    ClosedWithoutCode,
    /// With the end of the stream alone.
    Ended,
    /// With a reset.
    Reset,
    /// With bytes that are no WebSocket's.
    Garbled,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code) => write!(f, "closed with {code}"),
            Self::ClosedWithoutCode => f.write_str("closed without a code"),
            Self::Ended => f.write_str("ended without a close frame"),
            Self::Reset => f.write_str("reset"),
            Self::Garbled => f.write_str("garbled"),
        }
    }
}

/// Counts that only grow.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Counts {
    /// WebSockets that were opened.
    pub(crate) opened: u64,
    pub(crate) said: u64,
    pub(crate) answered: u64,
    pub(crate) pushes: u64,
    /// Connections that went on in another worker.
    pub(crate) moves: u64,
    pub(crate) disconnects: u64,
    /// WebSockets that were opened again after their end.
    pub(crate) reconnects: u64,
    /// Attempts to open one that came to nothing.
    pub(crate) failed: u64,
    /// Numbers that had no answer when their connection was cut.
    pub(crate) cut: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.said += other.said;
        self.answered += other.answered;
        self.pushes += other.pushes;
        self.moves += other.moves;
        self.disconnects += other.disconnects;
        self.reconnects += other.reconnects;
        self.failed += other.failed;
        self.cut += other.cut;
    }
}

/// What all clients have seen; a process tells another one, but for what belongs to its own clock.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Stats {
    pub(crate) counts: Counts,
    /// WebSockets that are open now.
    pub(crate) open: u64,
    pub(crate) wrong: Wrong,
    #[serde(serialize_with = "to_pairs", deserialize_with = "from_pairs")]
    pub(crate) endings: BTreeMap<Ending, u64>,
    /// From a number to its answer.
    pub(crate) round_trips: Durations,
    /// The same, of those that were on their way while their connection moved.
    pub(crate) across_moves: Durations,
    /// The longest round trip since somebody asked last.
    #[serde(skip)]
    lately: Duration,
    /// From a page's request to its answer, of clients that come once.
    pub(crate) arrivals: Durations,
    /// Those that got none.
    pub(crate) turned_away: BTreeMap<String, u64>,
    /// What is being played, which those that got none are told apart by.
    pub(crate) act: String,
    /// Those that were cut as a worker was killed meanwhile: a page is a session to nobody.
    pub(crate) cut_off: u64,
    /// When a worker was killed last.
    #[serde(skip)]
    pub(crate) killed: Option<Instant>,
    /// From the death of a worker until its clients hear of the next one.
    pub(crate) after_deaths: Durations,
    /// From the death of the primary until a client is served.
    pub(crate) after_crashes: Durations,
    /// Sessions that killed workers had.
    pub(crate) orphaned: u64,
    workers: BTreeSet<(u16, u32, u32)>,
    /// Of the last second.
    #[serde(skip)]
    reconnected: VecDeque<Instant>,
    most_reconnects: usize,
    /// Why the last attempt came to nothing.
    pub(crate) last_failure: Option<String>,
}

/// Keys that are no texts.
fn to_pairs<S: Serializer>(map: &BTreeMap<Ending, u64>, into: S) -> Result<S::Ok, S::Error> {
    into.collect_seq(map)
}

fn from_pairs<'a, D: Deserializer<'a>>(from: D) -> Result<BTreeMap<Ending, u64>, D::Error> {
    Ok(Vec::deserialize(from)?.into_iter().collect())
}

/// The window in which reconnects are counted together.
const SECOND: Duration = Duration::from_secs(1);

/// So long after a worker's death its sessions go on for that reason.
const LATELY: Duration = Duration::from_secs(2);

impl Stats {
    pub(crate) fn opened(&mut self, again: bool, now: Instant) {
        self.open += 1;
        self.counts.opened += 1;
        if !again {
            return;
        }
        self.counts.reconnects += 1;
        self.reconnected.push_back(now);
        while self.reconnected.front().is_some_and(|then| now.duration_since(*then) >= SECOND) {
            self.reconnected.pop_front();
        }
        self.most_reconnects = self.most_reconnects.max(self.reconnected.len());
    }

    pub(crate) fn failed(&mut self, error: String) {
        self.counts.failed += 1;
        self.last_failure = Some(error);
    }

    /// A client that came once was not served.
    pub(crate) fn turned_away(&mut self, reason: String) {
        let during = format!("{}: {reason}", self.act);
        *self.turned_away.entry(during).or_default() += 1;
    }

    /// A client that came once, at that time, was cut.
    pub(crate) fn cut_off(&mut self, came: Instant, reason: String) {
        if self.killed.is_some_and(|killed| came <= killed) {
            self.cut_off += 1;
        } else {
            self.turned_away(reason);
        }
    }

    /// A connection goes on elsewhere. Where its worker was killed just now, that is the reason.
    pub(crate) fn resumed(&mut self, now: Instant) {
        self.counts.moves += 1;
        if let Some(killed) = self.killed.filter(|it| now.duration_since(*it) < LATELY) {
            self.after_deaths.record(now - killed);
        }
    }

    /// One was closed by its own client.
    pub(crate) fn closed(&mut self) {
        self.open -= 1;
    }

    /// One was cut, with so many numbers that had no answer.
    pub(crate) fn cut(&mut self, ending: Ending, unanswered: u64) {
        self.open -= 1;
        self.counts.disconnects += 1;
        self.counts.cut += unanswered;
        *self.endings.entry(ending).or_default() += 1;
    }

    /// What was wrong with one client has grown.
    pub(crate) fn account(&mut self, before: Wrong, after: Wrong) {
        let grown = |total: &mut u64, before: u64, after: u64| *total = *total + after - before;
        grown(&mut self.wrong.lost, before.lost, after.lost);
        grown(&mut self.wrong.doubled, before.doubled, after.doubled);
        grown(&mut self.wrong.reordered, before.reordered, after.reordered);
        grown(&mut self.wrong.invented, before.invented, after.invented);
        grown(&mut self.wrong.breaches, before.breaches, after.breaches);
    }

    /// What the clients of another process have seen.
    pub(crate) fn add(&mut self, other: Self) {
        self.counts.add(other.counts);
        self.open += other.open;
        self.account(Wrong::default(), other.wrong);
        for (ending, count) in other.endings {
            *self.endings.entry(ending).or_default() += count;
        }
        self.round_trips.add(&other.round_trips);
        self.across_moves.add(&other.across_moves);
        self.arrivals.add(&other.arrivals);
        for (during, count) in other.turned_away {
            *self.turned_away.entry(during).or_default() += count;
        }
        self.cut_off += other.cut_off;
        self.after_deaths.add(&other.after_deaths);
        self.after_crashes.add(&other.after_crashes);
        self.orphaned += other.orphaned;
        self.workers.extend(other.workers);
        self.most_reconnects = self.most_reconnects.max(other.most_reconnects);
        self.last_failure = self.last_failure.take().or(other.last_failure);
    }

    pub(crate) fn served_by(&mut self, place: Place) {
        self.workers.insert((place.slot, place.generation, place.pid));
    }

    pub(crate) fn round_trip(&mut self, time: Duration, across_a_move: bool) {
        self.round_trips.record(time);
        self.lately = self.lately.max(time);
        if across_a_move {
            self.across_moves.record(time);
        }
    }

    /// The longest round trip since this was asked last.
    pub(crate) fn longest_lately(&mut self) -> Duration {
        std::mem::take(&mut self.lately)
    }

    /// The most that came back within a second.
    pub(crate) fn most_reconnects(&self) -> usize {
        self.most_reconnects
    }

    /// How many processes have served.
    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// All of it, for programs.
    pub(crate) fn report(&self) -> Value {
        let endings: BTreeMap<_, _> =
            self.endings.iter().map(|(ending, count)| (ending.to_string(), count)).collect();
        json!({
            "opened": self.counts.opened,
            "said": self.counts.said,
            "answered": self.counts.answered,
            "pushes": self.counts.pushes,
            "moves": self.counts.moves,
            "workers": self.workers(),
            "disconnects": self.counts.disconnects,
            "endings": endings,
            "cut": self.counts.cut,
            "failed_to_open": self.counts.failed,
            "last_failure": self.last_failure,
            "reconnects": self.counts.reconnects,
            "most_reconnects_in_a_second": self.most_reconnects,
            "wrong_messages": self.wrong.count(),
            "wrong": self.wrong,
            "round_trips": self.round_trips.report(),
            "across_moves": self.across_moves.report(),
            "arrivals": self.arrivals.report(),
            "turned_away": self.turned_away,
            "cut_off": self.cut_off,
            "orphaned_sessions": self.orphaned,
            "after_worker_crashes": self.after_deaths.report(),
            "after_primary_crashes": self.after_crashes.report(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_reconnects_are_those_of_the_worst_second() {
        let (mut stats, start) = (Stats::default(), Instant::now());
        // The first time is no reconnect.
        stats.opened(false, start);
        for milliseconds in [0, 400, 999, 1_000, 1_400, 5_000] {
            stats.opened(true, start + Duration::from_millis(milliseconds));
        }
        assert_eq!((stats.counts.reconnects, stats.most_reconnects()), (6, 3));
    }

    #[test]
    fn only_whoever_was_there_when_a_worker_was_killed_is_cut_off_by_that() {
        let (mut stats, start) =
            (Stats { act: "An act".to_owned(), ..Stats::default() }, Instant::now());
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        stats.cut_off(start, "reset".to_owned());
        stats.killed = Some(after(10));
        stats.cut_off(after(9), "reset".to_owned());
        stats.cut_off(after(11), "reset".to_owned());
        assert_eq!((stats.cut_off, stats.turned_away["An act: reset"]), (1, 2));
    }

    #[test]
    fn what_was_lost_and_came_late_is_lost_no_more() {
        let mut stats = Stats::default();
        let gap = Wrong { lost: 2, ..Wrong::default() };
        let late = Wrong { lost: 1, reordered: 1, ..Wrong::default() };
        stats.account(Wrong::default(), gap);
        stats.account(gap, late);
        assert_eq!(stats.wrong, late);
    }

    #[test]
    fn what_two_processes_have_seen_is_added_up() {
        let (mut stats, now) = (Stats::default(), Instant::now());
        stats.opened(false, now);
        stats.cut(Ending::Closed(1012), 3);
        stats.account(Wrong::default(), Wrong { lost: 2, ..Wrong::default() });
        stats.round_trip(Duration::from_millis(5), true);
        let text = serde_json::to_string(&stats).expect("text");
        let mut both: Stats = serde_json::from_str(&text).expect("the same");
        assert_eq!(both.report(), stats.report());
        both.add(stats);
        assert_eq!((both.counts.opened, both.wrong.lost, both.across_moves.count()), (2, 4, 2));
        assert_eq!(both.endings, [(Ending::Closed(1012), 2)].into());
    }
}
