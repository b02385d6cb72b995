//! Whether what all clients have seen is what was expected. Pure.

use clap::ValueEnum;

use crate::stats::{Ending, Stats};

/// What clients should have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Expect {
    /// Nothing at all: no disconnect, no wrong message.
    Continuity,
    /// Disconnects that said why, with close code 1012 or 1001, and no wrong message.
    Close,
    /// Whatever it was.
    Anything,
}

/// How a connection may end that was shed: "service restart" and "going away".
const PROPER: [Ending; 2] = [Ending::Closed(1012), Ending::Closed(1001)];

/// How it ends when its worker was killed.
const SUDDEN: [Ending; 2] = [Ending::Ended, Ending::Reset];

/// What the primary itself says it could not save, and has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Excuses {
    /// Sessions that were in the middle of a message when their worker was killed.
    pub(crate) not_at_rest: u64,
    /// Connections that were accepted and not handed over yet when the primary was killed.
    pub(crate) lost: u64,
}

/// All that was otherwise than expected.
pub(crate) fn complaints(
    stats: &Stats,
    expect: Expect,
    most_reconnects: Option<usize>,
    excuses: Excuses,
) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut count = |count: u64, excused: u64, what: &str| {
        if count > excused {
            let excused =
                if excused > 0 { format!(", and {excused} excused") } else { String::new() };
            complaints.push(format!("{count} {what}{excused}"));
        }
    };
    if expect != Expect::Anything {
        count(stats.wrong.count(), 0, "wrong messages");
        let failed = stats.counts.failed + stats.turned_away.values().sum::<u64>();
        count(failed, excuses.lost, "attempts to connect failed");
    }
    if expect == Expect::Continuity {
        let sudden = SUDDEN.iter().filter_map(|ending| stats.endings.get(ending)).sum();
        count(sudden, excuses.not_at_rest, "connections were cut without a word");
    }
    for (ending, number) in &stats.endings {
        let fine = match expect {
            Expect::Continuity => SUDDEN.contains(ending),
            Expect::Close => PROPER.contains(ending),
            Expect::Anything => true,
        };
        count(if fine { 0 } else { *number }, 0, &format!("connections were {ending}"));
    }
    if let Some(most) = most_reconnects.filter(|most| stats.most_reconnects() > *most) {
        let seen = stats.most_reconnects();
        complaints.push(format!("{seen} reconnects within a second, and not {most} at the most"));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::ledger::Wrong;

    const NONE: Excuses = Excuses { not_at_rest: 0, lost: 0 };

    #[test]
    fn what_the_primary_has_counted_is_excused_and_no_more() {
        let cut = stats(&[Ending::Ended, Ending::Reset]);
        let with = |not_at_rest| Excuses { not_at_rest, lost: 0 };
        assert!(complaints(&cut, Expect::Continuity, None, with(2)).is_empty());
        assert_eq!(complaints(&cut, Expect::Continuity, None, with(1)).len(), 1);
        let mut turned_away = stats(&[]);
        turned_away.turned_away("reset".to_owned());
        turned_away.failed("reset".to_owned());
        let with = |lost| Excuses { not_at_rest: 0, lost };
        assert!(complaints(&turned_away, Expect::Continuity, None, with(2)).is_empty());
        assert_eq!(complaints(&turned_away, Expect::Continuity, None, with(1)).len(), 1);
    }

    fn stats(endings: &[Ending]) -> Stats {
        let mut stats = Stats::default();
        for ending in endings {
            stats.opened(true, Instant::now());
            stats.cut(*ending, 0);
        }
        stats
    }

    #[test]
    fn continuity_is_that_nobody_was_disconnected() {
        assert!(complaints(&stats(&[]), Expect::Continuity, None, NONE).is_empty());
        for ending in [Ending::Closed(1012), Ending::Ended, Ending::Reset] {
            assert_eq!(complaints(&stats(&[ending]), Expect::Continuity, None, NONE).len(), 1);
        }
    }

    #[test]
    fn whoever_is_shed_is_told_why() {
        assert!(complaints(&stats(&PROPER), Expect::Close, None, NONE).is_empty());
        let rude = [Ending::Closed(1006), Ending::ClosedWithoutCode, Ending::Ended, Ending::Reset];
        assert_eq!(complaints(&stats(&rude), Expect::Close, None, NONE).len(), rude.len());
        assert!(complaints(&stats(&rude), Expect::Anything, None, NONE).is_empty());
    }

    #[test]
    fn reconnects_have_a_limit() {
        let stats = stats(&[PROPER[0]; 3]);
        assert!(complaints(&stats, Expect::Close, Some(3), NONE).is_empty());
        assert_eq!(complaints(&stats, Expect::Close, Some(2), NONE).len(), 1);
    }

    #[test]
    fn wrong_messages_are_never_expected() {
        let mut stats = Stats::default();
        stats.account(Wrong::default(), Wrong { doubled: 1, ..Wrong::default() });
        for expect in [Expect::Continuity, Expect::Close] {
            assert_eq!(complaints(&stats, expect, None, NONE), ["1 wrong messages"]);
        }
    }
}
