//! Whether what all clients have seen is what was expected. Pure.

use clap::ValueEnum;

use crate::tally::{Ending, Tally};

/// What clients should have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Expect {
    /// Nothing at all: no disconnect, no wrong message.
    Continuity,
    /// Disconnects that said why, with close code 1012 or 1001, and no wrong message.
    Shed,
    /// Whatever it was.
    Anything,
}

/// How a connection may end that was shed: "service restart" and "going away".
const PROPER: [Ending; 2] = [Ending::Closed(1012), Ending::Closed(1001)];

/// All that was otherwise than expected.
pub(crate) fn complaints(
    tally: &Tally,
    expect: Expect,
    most_reconnects: Option<usize>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut count = |count: u64, what: &str| {
        if count > 0 {
            complaints.push(format!("{count} {what}"));
        }
    };
    if expect != Expect::Anything {
        count(tally.wrong.count(), "wrong messages");
        count(tally.counts.failed, "attempts to connect failed");
    }
    for (ending, number) in &tally.endings {
        let fine = match expect {
            Expect::Continuity => false,
            Expect::Shed => PROPER.contains(ending),
            Expect::Anything => true,
        };
        count(if fine { 0 } else { *number }, &format!("connections were {ending}"));
    }
    if let Some(most) = most_reconnects.filter(|most| tally.most_reconnects() > *most) {
        let seen = tally.most_reconnects();
        complaints.push(format!("{seen} reconnects within a second, and not {most} at the most"));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::ledger::Wrong;

    fn tally(endings: &[Ending]) -> Tally {
        let mut tally = Tally::default();
        for ending in endings {
            tally.opened(true, Instant::now());
            tally.cut(*ending, 0);
        }
        tally
    }

    #[test]
    fn continuity_is_that_nobody_was_disconnected() {
        assert!(complaints(&tally(&[]), Expect::Continuity, None).is_empty());
        for ending in [Ending::Closed(1012), Ending::Ended, Ending::Reset] {
            assert_eq!(complaints(&tally(&[ending]), Expect::Continuity, None).len(), 1);
        }
    }

    #[test]
    fn whoever_is_shed_is_told_why() {
        assert!(complaints(&tally(&PROPER), Expect::Shed, None).is_empty());
        let rude = [Ending::Closed(1006), Ending::ClosedWithoutCode, Ending::Ended, Ending::Reset];
        assert_eq!(complaints(&tally(&rude), Expect::Shed, None).len(), rude.len());
        assert!(complaints(&tally(&rude), Expect::Anything, None).is_empty());
    }

    #[test]
    fn reconnects_have_a_limit() {
        let tally = tally(&[PROPER[0]; 3]);
        assert!(complaints(&tally, Expect::Shed, Some(3)).is_empty());
        assert_eq!(complaints(&tally, Expect::Shed, Some(2)).len(), 1);
    }

    #[test]
    fn wrong_messages_are_never_expected() {
        let mut tally = Tally::default();
        tally.account(Wrong::default(), Wrong { doubled: 1, ..Wrong::default() });
        for expect in [Expect::Continuity, Expect::Shed] {
            assert_eq!(complaints(&tally, expect, None), ["1 wrong messages"]);
        }
    }
}
