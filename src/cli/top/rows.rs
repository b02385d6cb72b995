//! The rows of the table: workers in an order, one of them selected. Pure.

use std::cmp::Ordering;

use crate::control::report::Worker;

/// The key that rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Slot,
    Connections,
    Cpu,
    Memory,
    HandOffs,
}

impl Sort {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Slot => "slot",
            Self::Connections => "connections",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::HandOffs => "hand-offs",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Slot => Self::Connections,
            Self::Connections => Self::Cpu,
            Self::Cpu => Self::Memory,
            Self::Memory => Self::HandOffs,
            Self::HandOffs => Self::Slot,
        }
    }

    /// The most first; where that is the same, by slot.
    fn compare(self, a: &Worker, b: &Worker) -> Ordering {
        let cpu = |worker: &Worker| worker.cpu.unwrap_or_default();
        let by_figure = match self {
            Self::Slot => Ordering::Equal,
            Self::Connections => b.connections.cmp(&a.connections),
            Self::Cpu => cpu(b).total_cmp(&cpu(a)),
            Self::Memory => b.memory.cmp(&a.memory),
            Self::HandOffs => b.handoffs_per_second.total_cmp(&a.handoffs_per_second),
        };
        by_figure.then_with(|| (a.slot, a.generation).cmp(&(b.slot, b.generation)))
    }
}

/// The rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    /// In order.
    workers: Vec<Worker>,
    sort: Sort,
    /// Index of the selected one, if there is any.
    selected: usize,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn sort(&self) -> Sort {
        self.sort
    }

    pub(super) fn selected(&self) -> Option<&Worker> {
        self.workers.get(self.selected)
    }

    /// The most connections that a worker has.
    pub(super) fn most_connections(&self) -> u64 {
        self.workers.iter().map(|worker| worker.connections).max().unwrap_or_default()
    }

    /// Takes new rows. The selection stays on its worker; if that has gone, on the one in its slot; else at
    /// its place.
    pub(super) fn replace(&mut self, workers: Vec<Worker>) {
        let before = self.selected().map(|worker| (worker.slot, worker.generation));
        self.workers = workers;
        self.arrange(before);
    }

    /// Sorts by what comes next.
    pub(super) fn sort_by_next(&mut self) {
        let before = self.selected().map(|worker| (worker.slot, worker.generation));
        self.sort = self.sort.next();
        self.arrange(before);
    }

    /// Selects a row further down, or up.
    pub(super) fn step(&mut self, by: isize) {
        self.selected = self.selected.saturating_add_signed(by).min(self.last());
    }

    /// The rows that are seen where `height` of them fit, with their places: the selected one in
    /// the middle, but at both ends.
    pub(super) fn seen(&self, height: usize) -> impl Iterator<Item = (usize, &Worker)> {
        let first = self.selected.saturating_sub(height / 2);
        let first = first.min(self.len().saturating_sub(height));
        self.workers.iter().enumerate().skip(first).take(height)
    }

    pub(super) fn is_selected(&self, place: usize) -> bool {
        self.selected == place
    }

    fn arrange(&mut self, selected: Option<(u16, Option<u32>)>) {
        let sort = self.sort;
        self.workers.sort_by(|a, b| sort.compare(a, b));
        let found = selected.and_then(|(slot, generation)| {
            let its = self.workers.iter().enumerate().filter(|(_, worker)| worker.slot == slot);
            its.max_by_key(|(_, it)| (it.generation == generation, it.generation))
        });
        let place = found.map(|(place, _)| place);
        self.selected = place.unwrap_or(self.selected).min(self.last());
    }

    fn last(&self) -> usize {
        self.len().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(slot: u16, generation: u32) -> Worker {
        Worker { slot, generation: Some(generation), ..Worker::default() }
    }

    fn selected(rows: &Rows) -> (u16, Option<u32>) {
        rows.selected().map(|worker| (worker.slot, worker.generation)).unwrap()
    }

    #[test]
    fn who_is_selected_stays_selected() {
        let mut rows = Rows::default();
        rows.replace((0..5).map(|slot| worker(slot, 1)).collect());
        rows.step(3);
        let others = |new: &[(u16, u32)]| new.iter().map(|(s, g)| worker(*s, *g)).collect();
        for (what, now, expected) in [
            ("a successor beside it", &[(0, 1), (3, 1), (3, 2), (4, 1)][..], (3, 1)),
            ("it has gone, its successor is there", &[(0, 1), (3, 2), (4, 1)], (3, 2)),
            ("others come before it", &[(0, 1), (1, 1), (2, 1), (2, 2), (3, 2)], (3, 2)),
            ("its slot has gone", &[(0, 1), (1, 1), (2, 1), (2, 2)], (2, 2)),
            ("nearly all have gone", &[(0, 1)], (0, 1)),
        ] {
            rows.replace(others(now));
            assert_eq!(selected(&rows), (expected.0, Some(expected.1)), "{what}");
        }
        rows.replace(Vec::new());
        assert_eq!(rows.selected(), None);
        rows.step(1);
        rows.replace(others(&[(7, 1)]));
        assert_eq!(selected(&rows), (7, Some(1)));
    }

    #[test]
    fn the_most_comes_first() {
        let mut rows = Rows::default();
        let workers = [(0, 5, 1.0, 30, 9.0), (1, 7, 3.0, 10, 9.0), (2, 6, 2.0, 20, 10.0)];
        let full = workers.map(|(slot, connections, cpu, memory, handoffs_per_second)| Worker {
            connections,
            cpu: Some(cpu),
            memory: Some(memory),
            handoffs_per_second,
            ..worker(slot, 1)
        });
        let without = Worker { slot: 3, ..Worker::default() };
        rows.replace(full.into_iter().chain([without]).collect());
        rows.step(2);
        for (sort, order) in [
            (Sort::Slot, [0, 1, 2, 3]),
            (Sort::Connections, [1, 2, 0, 3]),
            (Sort::Cpu, [1, 2, 0, 3]),
            (Sort::Memory, [0, 2, 1, 3]),
            (Sort::HandOffs, [2, 0, 1, 3]),
            (Sort::Slot, [0, 1, 2, 3]),
        ] {
            let slots: Vec<_> = rows.seen(9).map(|(_, worker)| worker.slot).collect();
            assert_eq!((rows.sort(), &slots[..]), (sort, &order[..]));
            assert_eq!(selected(&rows).0, 2, "selected by {}", sort.name());
            rows.sort_by_next();
        }
    }

    #[test]
    fn the_selected_row_is_always_seen() {
        let mut rows = Rows::default();
        rows.replace((0..1_000).map(|slot| worker(slot, 1)).collect());
        for (step, first) in
            [(0, 0), (-1, 0), (4, 0), (1, 0), (1, 1), (500, 501), (9_999, 990), (isize::MIN, 0)]
        {
            rows.step(step);
            let seen: Vec<_> = rows.seen(10).map(|(place, _)| place).collect();
            assert_eq!((seen.len(), seen[0]), (10, first), "after {step}");
            assert!(seen.iter().any(|place| rows.is_selected(*place)), "after {step}");
        }
        assert_eq!(rows.seen(0).count(), 0);
        assert_eq!(rows.seen(2_000).count(), 1_000);
    }
}
