//! A rebalance: workers list the sessions that could migrate; those that are in another slot than their
//! client's own are chosen and ordered to migrate at a steady pace.
//!
//! Pure but for the replies: the caller passes the time. One at a time: a new rebalance replaces the
//! rest of the one before.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::link::seam::WorkerId;
use crate::protocol::ids::{AffinityKey, ConnectionId, Timestamp};
use crate::sessions::host::MigrationTargets;
use crate::sessions::pace::Pace;

/// How long workers may take to list their sessions.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);

/// Sessions that are listed at most; the rest waits for the next rebalance.
const MAX_LISTED: usize = 1 << 20;

/// The outcome of a rebalance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebalanced {
    /// So many clients had gone elsewhere, and come back with their next connection.
    pub forgotten: u64,
    /// So many sessions begin to migrate.
    pub sessions: u64,
}

/// Operators that wait for the outcome of a rebalance.
#[derive(Debug, Default)]
pub struct RebalanceReplies {
    forgotten: u64,
    replies: Vec<oneshot::Sender<Rebalanced>>,
}

impl RebalanceReplies {
    /// One more asks; so many clients were forgotten for it.
    pub fn add(&mut self, reply: oneshot::Sender<Rebalanced>, forgotten: u64) {
        self.forgotten += forgotten;
        self.replies.push(reply);
    }

    /// Answers all of them: so many sessions begin to migrate.
    pub fn answer(&mut self, sessions: u64) {
        let Self { forgotten, replies } = std::mem::take(self);
        tracing::info!(forgotten, sessions, "rebalance started");
        for reply in replies {
            // The one that has asked may not wait any more.
            let _ = reply.send(Rebalanced { forgotten, sessions });
        }
    }
}

/// Sessions that are to migrate, and the lists that workers are asked for.
#[derive(Debug)]
pub struct Rebalance {
    pace: Pace,
    lists: Option<Lists>,
    moves: VecDeque<(WorkerId, ConnectionId)>,
}

#[derive(Debug)]
struct Lists {
    /// The lists of these are not complete.
    missing: Vec<WorkerId>,
    listed: Vec<Listed>,
    until: Timestamp,
}

/// A session that could migrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its worker.
    pub worker: WorkerId,
    /// Its id.
    pub id: ConnectionId,
    /// Its client's key.
    pub key: AffinityKey,
}

impl Rebalance {
    /// At so many sessions in a second.
    #[must_use]
    pub fn new(rate: f64) -> Self {
        Self { pace: Pace::new(rate), lists: None, moves: VecDeque::new() }
    }

    /// Whether lists are awaited.
    #[must_use]
    pub fn is_listing(&self) -> bool {
        self.lists.is_some()
    }

    /// These workers are asked for their lists.
    pub fn begin(&mut self, workers: Vec<WorkerId>, now: Timestamp) {
        let until = now + LIST_TIMEOUT;
        self.lists = Some(Lists { missing: workers, listed: Vec::new(), until });
    }

    /// A part of a worker's list; with `complete`, the last one.
    pub fn add(
        &mut self,
        worker: WorkerId,
        keys: impl Iterator<Item = (ConnectionId, AffinityKey)>,
        complete: bool,
    ) {
        let Some(lists) = &mut self.lists else { return };
        if !lists.missing.contains(&worker) {
            return;
        }
        let room = MAX_LISTED.saturating_sub(lists.listed.len());
        lists.listed.extend(keys.take(room).map(|(id, key)| Listed { worker, id, key }));
        if complete {
            lists.missing.retain(|missing| *missing != worker);
        }
    }

    /// A worker is gone: its sessions are not rebalanced.
    pub fn forget(&mut self, worker: WorkerId) {
        if let Some(lists) = &mut self.lists {
            lists.missing.retain(|missing| *missing != worker);
            lists.listed.retain(|listed| listed.worker != worker);
        }
        self.moves.retain(|(has, _)| *has != worker);
    }

    /// All lists, once: when they are complete, or their time is over.
    pub fn take_lists(&mut self, now: Timestamp) -> Option<Vec<Listed>> {
        let lists = self.lists.take_if(|it| it.missing.is_empty() || now >= it.until)?;
        Some(lists.listed)
    }

    /// From now on these sessions migrate, and no others.
    pub fn begin_moves(&mut self, moves: VecDeque<(WorkerId, ConnectionId)>) {
        self.moves = moves;
    }

    /// How many sessions are still to migrate.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.moves.len() as u64
    }

    /// When the next step is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let lists = self.lists.as_ref().map(|lists| match lists.missing.is_empty() {
            true => Timestamp(0),
            false => lists.until,
        });
        let next = (!self.moves.is_empty()).then(|| self.pace.free_at());
        [lists, next].into_iter().flatten().min()
    }

    /// The next session that migrates now. To be called until there is none.
    pub fn next_move(&mut self, now: Timestamp) -> Option<(WorkerId, ConnectionId)> {
        if !self.pace.is_free(now) {
            return None;
        }
        let next = self.moves.pop_front()?;
        self.pace.step(now);
        Some(next)
    }
}

/// Sessions that belong to another slot which is open; of each worker one in turn.
pub fn choose(
    listed: &[Listed],
    targets: &impl MigrationTargets,
) -> VecDeque<(WorkerId, ConnectionId)> {
    let away = listed.iter().filter(|session| {
        let ideal = targets.ideal(session.key);
        ideal.is_some_and(|home| home != session.worker.slot && targets.is_open(home))
    });
    let mut turns = HashMap::new();
    let mut moves = Vec::new();
    for Listed { worker, id, .. } in away {
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
    use crate::protocol::ids::{Generation, SlotId};
    use crate::sessions::host::TargetState;

    const NOW: Timestamp = Timestamp(5_000_000_000_000);

    fn worker(slot: u16) -> WorkerId {
        WorkerId { slot: SlotId(slot), generation: Generation(7) }
    }

    /// Slots in these states, where each client's key is the slot that it belongs to.
    struct States<'a>(&'a [TargetState]);

    impl MigrationTargets for States<'_> {
        fn state(&self, slot: SlotId) -> TargetState {
            self.0[slot.index()]
        }

        fn is_any_expected(&self) -> bool {
            false
        }

        fn ideal(&self, key: AffinityKey) -> Option<SlotId> {
            u16::try_from(key.0).ok().map(SlotId)
        }

        fn choose(&mut self, _: AffinityKey, _: &[SlotId]) -> Option<SlotId> {
            None
        }

        fn stay(&mut self, _: AffinityKey, _: SlotId) {}
    }

    /// Of a client that belongs to slot `home`.
    fn listed(slot: u16, id: u64, home: u64) -> Listed {
        Listed { worker: worker(slot), id: ConnectionId(id), key: AffinityKey(home) }
    }

    #[test]
    fn sessions_that_belong_to_an_open_slot_migrate_in_turns() {
        let (open, without) = (TargetState::Open, TargetState::WithoutSessions);
        let slots = [open, open, without, TargetState::Awaited];
        let sessions = [
            listed(0, 1, 0),
            listed(0, 2, 1),
            listed(0, 3, 1),
            listed(0, 4, 2),
            listed(0, 5, 3),
            listed(0, 6, u64::MAX),
            listed(2, 7, 0),
        ];
        let chosen = choose(&sessions, &States(&slots));
        let ids: Vec<_> = chosen.iter().map(|(worker, id)| (worker.slot.0, id.0)).collect();
        assert_eq!(ids, [(0, 2), (2, 7), (0, 3)]);
    }

    #[test]
    fn lists_end_with_the_last_one_or_with_their_time() {
        let mut rebalance = Rebalance::new(100.0);
        let key = |id| (ConnectionId(id), AffinityKey(1));
        rebalance.begin(vec![worker(0), worker(1), worker(2)], NOW);
        assert_eq!(rebalance.next_due(), Some(NOW + LIST_TIMEOUT));
        rebalance.add(worker(0), [key(1)].into_iter(), false);
        rebalance.add(worker(0), std::iter::empty(), true);
        rebalance.add(worker(0), [key(2)].into_iter(), false);
        rebalance.add(worker(1), [key(3)].into_iter(), false);
        assert_eq!(rebalance.take_lists(NOW), None);
        rebalance.forget(worker(1));
        rebalance.add(worker(2), std::iter::empty(), true);
        let all = rebalance.take_lists(NOW).unwrap();
        assert_eq!(all.iter().map(|session| session.id.0).collect::<Vec<_>>(), [1]);
        assert!(!rebalance.is_listing());

        rebalance.begin(vec![worker(0)], NOW);
        rebalance.add(worker(0), [key(4)].into_iter(), false);
        let late = rebalance.take_lists(NOW + LIST_TIMEOUT).unwrap();
        assert_eq!(late.len(), 1);
        rebalance.begin(Vec::new(), NOW);
        assert_eq!(rebalance.take_lists(NOW), Some(Vec::new()));
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
