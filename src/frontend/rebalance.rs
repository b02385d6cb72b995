//! Sessions that go home: workers count those that could move, those that are elsewhere than where
//! their clients belong are chosen, and ordered to move at a steady pace.
//!
//! Pure, and told the time. One at a time: a new one takes the place of what the one before has
//! still to do.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::frontend::pace::Pace;
use crate::frontend::session_route::MigrationTargets;
use crate::link::seam::WorkerId;
use crate::protocol::ids::{AffinityKey, ConnectionId, SlotId, Timestamp};

/// How long workers may count.
const CENSUS: Duration = Duration::from_secs(2);

/// Sessions that are counted at the most; the rest waits for the next time.
const MOST: usize = 1 << 20;

/// What there is to move, and what there may be.
#[derive(Debug)]
pub struct Rebalance {
    pace: Pace,
    census: Option<Census>,
    moves: VecDeque<(WorkerId, ConnectionId)>,
}

#[derive(Debug)]
struct Census {
    /// These still count.
    missing: Vec<WorkerId>,
    counted: Vec<Counted>,
    until: Timestamp,
}

/// A session that could move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Who has it.
    pub worker: WorkerId,
    /// Which.
    pub id: ConnectionId,
    /// Its client's.
    pub key: AffinityKey,
}

impl Rebalance {
    /// At so many sessions in a second.
    #[must_use]
    pub fn new(rate: f64) -> Self {
        Self { pace: Pace::new(rate), census: None, moves: VecDeque::new() }
    }

    /// Whether workers count.
    #[must_use]
    pub fn is_counting(&self) -> bool {
        self.census.is_some()
    }

    /// These workers begin to count.
    pub fn begin(&mut self, workers: Vec<WorkerId>, now: Timestamp) {
        let until = now + CENSUS;
        self.census = Some(Census { missing: workers, counted: Vec::new(), until });
    }

    /// A worker has counted some; with `all`, those were the last.
    pub fn count(
        &mut self,
        worker: WorkerId,
        keys: impl Iterator<Item = (ConnectionId, AffinityKey)>,
        all: bool,
    ) {
        let Some(census) = &mut self.census else { return };
        if !census.missing.contains(&worker) {
            return;
        }
        let room = MOST.saturating_sub(census.counted.len());
        census.counted.extend(keys.take(room).map(|(id, key)| Counted { worker, id, key }));
        if all {
            census.missing.retain(|missing| *missing != worker);
        }
    }

    /// Nothing is to be had of a worker any more.
    pub fn forget(&mut self, worker: WorkerId) {
        if let Some(census) = &mut self.census {
            census.missing.retain(|missing| *missing != worker);
            census.counted.retain(|counted| counted.worker != worker);
        }
        self.moves.retain(|(has, _)| *has != worker);
    }

    /// What was counted, once: when all have, or their time is over.
    pub fn take_counted(&mut self, now: Timestamp) -> Option<Vec<Counted>> {
        let census = self.census.take_if(|it| it.missing.is_empty() || now >= it.until)?;
        Some(census.counted)
    }

    /// From now on these move, and no others.
    pub fn begin_moves(&mut self, moves: VecDeque<(WorkerId, ConnectionId)>) {
        self.moves = moves;
    }

    /// How many are still to move.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.moves.len() as u64
    }

    /// When there is something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let census = self.census.as_ref().map(|census| match census.missing.is_empty() {
            true => Timestamp(0),
            false => census.until,
        });
        let next = (!self.moves.is_empty()).then(|| self.pace.free_at());
        [census, next].into_iter().flatten().min()
    }

    /// The next one that moves now; to be asked until there is none.
    pub fn next_move(&mut self, now: Timestamp) -> Option<(WorkerId, ConnectionId)> {
        if !self.pace.is_free(now) {
            return None;
        }
        let next = self.moves.pop_front()?;
        self.pace.step(now);
        Some(next)
    }
}

/// Those that belong elsewhere, where somebody takes them; of each worker one in turn.
pub fn choose(
    counted: &[Counted],
    ideal: impl Fn(AffinityKey) -> Option<SlotId>,
    slots: &impl MigrationTargets,
) -> VecDeque<(WorkerId, ConnectionId)> {
    let away = counted.iter().filter(|session| {
        ideal(session.key).is_some_and(|home| home != session.worker.slot && slots.is_open(home))
    });
    let mut turns = HashMap::new();
    let mut moves = Vec::new();
    for Counted { worker, id, .. } in away {
        let turn = turns.entry(*worker).or_insert(0_u32);
        moves.push((*turn, (*worker, *id)));
        *turn += 1;
    }
    moves.sort_by_key(|(turn, _)| *turn);
    moves.into_iter().map(|(_, session)| session).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::placement::Availability;
    use crate::frontend::placement::tests::open;
    use crate::protocol::ids::Generation;

    const NOW: Timestamp = Timestamp(5_000_000_000_000);

    fn worker(slot: u16) -> WorkerId {
        WorkerId { slot: SlotId(slot), generation: Generation(7) }
    }

    /// Of a client that belongs to slot `home`.
    fn counted(slot: u16, id: u64, home: u64) -> Counted {
        Counted { worker: worker(slot), id: ConnectionId(id), key: AffinityKey(home) }
    }

    fn home(key: AffinityKey) -> Option<SlotId> {
        u16::try_from(key.0).ok().map(SlotId)
    }

    #[test]
    fn whoever_is_elsewhere_and_is_taken_at_home_moves_in_turns() {
        let mut slots = open(&[1, 1, 0, 1]);
        slots.0[3].0 = Availability::Holding;
        let sessions = [
            counted(0, 1, 0),
            counted(0, 2, 1),
            counted(0, 3, 1),
            counted(0, 4, 2),
            counted(0, 5, 3),
            counted(0, 6, u64::MAX),
            counted(2, 7, 0),
        ];
        let chosen = choose(&sessions, home, &slots);
        let ids: Vec<_> = chosen.iter().map(|(worker, id)| (worker.slot.0, id.0)).collect();
        assert_eq!(ids, [(0, 2), (2, 7), (0, 3)]);
    }

    #[test]
    fn a_census_ends_with_the_last_or_with_its_time() {
        let mut rebalance = Rebalance::new(100.0);
        let key = |id| (ConnectionId(id), AffinityKey(1));
        rebalance.begin(vec![worker(0), worker(1), worker(2)], NOW);
        assert_eq!(rebalance.next_due(), Some(NOW + CENSUS));
        rebalance.count(worker(0), [key(1)].into_iter(), false);
        rebalance.count(worker(0), std::iter::empty(), true);
        rebalance.count(worker(0), [key(2)].into_iter(), false);
        rebalance.count(worker(1), [key(3)].into_iter(), false);
        assert_eq!(rebalance.take_counted(NOW), None);
        rebalance.forget(worker(1));
        rebalance.count(worker(2), std::iter::empty(), true);
        let all = rebalance.take_counted(NOW).unwrap();
        assert_eq!(all.iter().map(|session| session.id.0).collect::<Vec<_>>(), [1]);
        assert!(!rebalance.is_counting());

        rebalance.begin(vec![worker(0)], NOW);
        rebalance.count(worker(0), [key(4)].into_iter(), false);
        let late = rebalance.take_counted(NOW + CENSUS).unwrap();
        assert_eq!(late.len(), 1);
        rebalance.begin(Vec::new(), NOW);
        assert_eq!(rebalance.take_counted(NOW), Some(Vec::new()));
    }

    #[test]
    fn moves_are_paced_and_a_new_rebalance_replaces_them() {
        let mut rebalance = Rebalance::new(10.0);
        let moves =
            |ids: std::ops::Range<u64>| ids.map(|id| (worker(0), ConnectionId(id))).collect();
        rebalance.begin_moves(moves(0..100));
        let mut now = NOW;
        for id in 0..10 {
            now = now.max(rebalance.next_due().unwrap());
            assert_eq!(rebalance.next_move(now), Some((worker(0), ConnectionId(id))));
            assert_eq!(rebalance.next_move(now), None);
        }
        assert_eq!(now, NOW + Duration::from_millis(900));
        rebalance.begin_moves(moves(200..203));
        assert_eq!((rebalance.pending(), rebalance.next_move(now)), (3, None));
        rebalance.forget(worker(0));
        assert_eq!((rebalance.pending(), rebalance.next_due()), (0, None));
    }
}
