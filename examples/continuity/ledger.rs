//! What one client has said and heard, and whether that was right. Pure, and told the time.
//!
//! Numbers count from zero. One that is higher than expected leaves a *gap*: those in between are
//! missing. A missing one that comes yet has come *late*: it is not lost, but out of order. One that
//! has been there before has come *double*. An answer to what was never said is *invented*.

use std::collections::VecDeque;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};

/// How a number came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Right,
    /// So many are missing before it.
    Gap(u64),
    Late,
    Double,
}

/// Numbers as they have come.
#[derive(Debug, Default)]
struct Sequence {
    next: u64,
    /// What is missing below `next`, rising.
    missing: Vec<Range<u64>>,
}

impl Sequence {
    fn take(&mut self, number: u64) -> Order {
        if number >= self.next {
            let order = self.skip_to(number);
            self.next = number + 1;
            return order;
        }
        let Some(index) = self.missing.iter().position(|gap| gap.contains(&number)) else {
            return Order::Double;
        };
        let gap = self.missing.remove(index);
        let rest = [gap.start..number, number + 1..gap.end];
        self.missing.splice(index..index, rest.into_iter().filter(|gap| !gap.is_empty()));
        Order::Late
    }

    /// All below `next` should have come by now.
    fn skip_to(&mut self, next: u64) -> Order {
        let gap = self.next..next;
        if gap.is_empty() {
            return Order::Right;
        }
        self.next = next;
        self.missing.push(gap.clone());
        Order::Gap(gap.end - gap.start)
    }
}

/// What is wrong with messages: how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Wrong {
    /// Answers and pushes that have not come.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    /// Answers to what nobody had said, or that know nothing of pushes that have come.
    pub(crate) invented: u64,
    /// Messages of the client that came to the worker as they must not.
    pub(crate) breaches: u64,
}

impl Wrong {
    /// All of them.
    pub(crate) fn count(self) -> u64 {
        self.lost + self.doubled + self.reordered + self.invented + self.breaches
    }

    fn note(&mut self, order: Order) {
        match order {
            Order::Right => {}
            Order::Gap(missing) => self.lost += missing,
            Order::Late => {
                self.lost -= 1;
                self.reordered += 1;
            }
            Order::Double => self.doubled += 1,
        }
    }
}

/// One client's numbers, both ways.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Those that have no answer yet: when they were said.
    waiting: VecDeque<Instant>,
    answers: Sequence,
    pushes: Sequence,
    wrong: Wrong,
}

impl Ledger {
    /// The number of what is said now.
    pub(crate) fn say(&mut self, now: Instant) -> u64 {
        self.waiting.push_back(now);
        self.said() - 1
    }

    fn said(&self) -> u64 {
        self.answers.next + self.waiting.len() as u64
    }

    /// How many have no answer yet.
    pub(crate) fn unanswered(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// An answer has come: how long it took, if it is the first one. Before it, the worker had sent
    /// `pushed` pushes.
    pub(crate) fn answered(&mut self, number: u64, pushed: u64, now: Instant) -> Option<Duration> {
        if number >= self.said() {
            self.wrong.invented += 1;
            return None;
        }
        if pushed < self.pushes.next {
            // It knows less than what has been heard from it.
            self.wrong.invented += 1;
        }
        self.wrong.note(self.pushes.skip_to(pushed));
        let skipped = number.checked_sub(self.answers.next);
        self.wrong.note(self.answers.take(number));
        let said = self.waiting.drain(..=usize::try_from(skipped?).ok()?).next_back()?;
        Some(now.duration_since(said))
    }

    /// A push has come.
    pub(crate) fn pushed(&mut self, number: u64) {
        self.wrong.note(self.pushes.take(number));
    }

    /// The worker says that this client's numbers came as they must not.
    pub(crate) fn breached(&mut self) {
        self.wrong.breaches += 1;
    }

    /// No more answers come, though the connection is open: those that are missing are lost.
    pub(crate) fn give_up(&mut self) {
        self.wrong.lost += self.unanswered();
        self.waiting.clear();
    }

    /// What was wrong so far.
    pub(crate) fn wrong(&self) -> Wrong {
        self.wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(numbers: &[u64]) -> (Vec<Order>, Sequence) {
        let mut sequence = Sequence::default();
        let orders = numbers.iter().map(|number| sequence.take(*number)).collect();
        (orders, sequence)
    }

    /// One that has said so many.
    fn ledger(said: u64) -> (Ledger, Instant) {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        assert!((0..said).eq((0..said).map(|_| ledger.say(now))));
        (ledger, now)
    }

    #[test]
    fn numbers_in_order_are_right() {
        assert_eq!(taken(&[0, 1, 2]).0, [Order::Right; 3]);
    }

    #[test]
    fn a_number_too_high_leaves_a_gap() {
        let (orders, sequence) = taken(&[0, 4, 5]);
        assert_eq!(orders, [Order::Right, Order::Gap(3), Order::Right]);
        assert!(sequence.missing.into_iter().flatten().eq(1..4));
    }

    #[test]
    fn what_was_missing_comes_late_and_once() {
        let (orders, sequence) = taken(&[4, 2, 2, 0, 1, 3, 5]);
        let late = Order::Late;
        assert_eq!(orders, [Order::Gap(4), late, Order::Double, late, late, late, Order::Right]);
        assert!(sequence.missing.is_empty());
    }

    #[test]
    fn what_has_come_before_is_double() {
        assert_eq!(taken(&[0, 1, 0, 1]).0[2..], [Order::Double; 2]);
    }

    #[test]
    fn answers_in_order_tell_how_long_they_took() {
        let (mut ledger, now) = ledger(2);
        let later = now + Duration::from_millis(5);
        assert_eq!(ledger.answered(0, 0, later), Some(Duration::from_millis(5)));
        assert_eq!(ledger.unanswered(), 1);
        assert_eq!(ledger.wrong(), Wrong::default());
    }

    #[test]
    fn a_lost_answer_is_seen_at_the_next_one() {
        let (mut ledger, now) = ledger(3);
        ledger.answered(0, 0, now);
        assert!(ledger.answered(2, 0, now).is_some());
        assert_eq!(ledger.wrong(), Wrong { lost: 1, ..Wrong::default() });
        assert_eq!(ledger.unanswered(), 0);
        assert_eq!(ledger.say(now), 3);
    }

    #[test]
    fn answers_that_changed_places_are_reordered_and_not_lost() {
        let (mut ledger, now) = ledger(2);
        ledger.answered(1, 0, now);
        assert_eq!(ledger.answered(0, 0, now), None);
        assert_eq!(ledger.wrong(), Wrong { reordered: 1, ..Wrong::default() });
    }

    #[test]
    fn an_answer_that_comes_twice_is_doubled() {
        let (mut ledger, now) = ledger(1);
        ledger.answered(0, 0, now);
        ledger.answered(0, 0, now);
        assert_eq!(ledger.wrong(), Wrong { doubled: 1, ..Wrong::default() });
    }

    #[test]
    fn an_answer_to_nothing_is_invented() {
        let (mut ledger, now) = ledger(1);
        assert_eq!(ledger.answered(1, 0, now), None);
        assert_eq!(ledger.wrong(), Wrong { invented: 1, ..Wrong::default() });
    }

    #[test]
    fn an_answer_shows_that_pushes_before_it_are_lost() {
        let (mut ledger, now) = ledger(2);
        ledger.pushed(0);
        ledger.answered(0, 3, now);
        assert_eq!(ledger.wrong(), Wrong { lost: 2, ..Wrong::default() });
        // Each is counted once, and may come late.
        ledger.pushed(2);
        ledger.pushed(3);
        ledger.answered(1, 4, now);
        assert_eq!(ledger.wrong(), Wrong { lost: 1, reordered: 1, ..Wrong::default() });
    }

    #[test]
    fn an_answer_that_knows_nothing_of_a_push_shows_that_it_came_twice() {
        let (mut ledger, now) = ledger(1);
        ledger.pushed(0);
        ledger.answered(0, 0, now);
        assert_eq!(ledger.wrong(), Wrong { invented: 1, ..Wrong::default() });
    }

    #[test]
    fn whoever_gives_up_has_lost_what_was_not_answered() {
        let (mut ledger, now) = ledger(3);
        ledger.answered(0, 0, now);
        ledger.give_up();
        assert_eq!(ledger.wrong(), Wrong { lost: 2, ..Wrong::default() });
    }
}
