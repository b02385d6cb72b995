//! The columns of the table: what stands in them, and which of them fit. Pure.

use crate::cli::top::format::{count, duration, memory, millis, percent, rate, whole};
use crate::cli::top::rows::Sort;
use crate::control::report::Worker;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Characters that its texts have at the most.
    pub(super) width: u16,
    /// Where room is short, those of low rank stay.
    rank: u8,
    pub(super) content: Content,
    /// It is what rows may be sorted by.
    pub(super) sort: Option<Sort>,
}

/// The content of a column.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// A bar: connections beside the most that a worker has.
    Load,
    Number(fn(&Worker) -> String),
    Slot,
    State,
}

use Content::{Load, Number, Slot, State};

/// All of them, as they stand. In 80 characters those fit whose rank is 12 at the most.
const ALL: [Column; 18] = [
    column("slot", 5, 0, Slot).sorted(Sort::Slot),
    column("gen", 5, 9, Number(|it| or_none(it.generation, |number| number.to_string()))),
    column("pid", 7, 2, Number(|it| or_none(it.pid, |pid| pid.to_string()))),
    column("state", 8, 1, State),
    column("uptime", 6, 8, Number(|it| or_none(it.uptime_s, duration))),
    column("conns", 5, 3, Number(|it| count(it.connections))).sorted(Sort::Connections),
    column("load", 6, 10, Load),
    column("share", 5, 14, Number(|it| format!("{}%", whole(it.share * 100.0)))),
    column("taken", 6, 16, Number(|it| count(it.connections_total))),
    column("reqs", 6, 13, Number(|it| count(it.requests))),
    column("answered", 8, 17, Number(|it| count(it.requests_total))),
    column("hand/s", 6, 4, Number(|it| rate(it.handoffs_per_second))).sorted(Sort::HandOffs),
    column("p50 ms", 6, 15, Number(|it| millis(it.handoff_p50_ms))),
    column("p99 ms", 6, 11, Number(|it| millis(it.handoff_p99_ms))),
    column("stalls", 6, 12, Number(|it| count(it.stalls))),
    column("mem", 5, 5, Number(|it| or_none(it.memory, memory))).sorted(Sort::Memory),
    column("cpu %", 5, 6, Number(|it| or_none(it.cpu, percent))).sorted(Sort::Cpu),
    column("crash", 5, 7, Number(|it| count(it.crashes))),
];

const fn column(title: &'static str, width: u16, rank: u8, content: Content) -> Column {
    Column { title, width, rank, content, sort: None }
}

impl Column {
    const fn sorted(self, sort: Sort) -> Self {
        Self { sort: Some(sort), ..self }
    }
}

fn or_none<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

/// Those that fit, with a space between them. The bar gets what is left.
pub(super) fn that_fit(width: u16) -> Vec<Column> {
    let needed = |rank: u8| {
        let widths = ALL.iter().filter(|it| it.rank <= rank).map(|it| it.width + 1);
        widths.sum::<u16>().saturating_sub(1)
    };
    let ranks = 0..u8::try_from(ALL.len()).unwrap_or(u8::MAX);
    let Some(last) = ranks.take_while(|rank| needed(*rank) <= width).last() else {
        return Vec::new();
    };
    let left = width - needed(last);
    let fitting = ALL.into_iter().filter(|it| it.rank <= last);
    let wider = |it: Column| match it.content {
        Load => Column { width: it.width + left, ..it },
        _ => it,
    };
    fitting.map(wider).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_all_different() {
        let mut ranks = ALL.map(|column| column.rank);
        ranks.sort_unstable();
        assert!(ranks.into_iter().eq(0..18));
    }

    #[test]
    fn the_more_room_the_more_columns() {
        for (width, expected) in [
            (0, ""),
            (4, ""),
            (5, "slot"),
            (20, "slot state"),
            (60, "slot pid state uptime conns hand/s mem cpu % crash"),
            (80, "slot gen pid state uptime conns load hand/s p99 ms mem cpu % crash"),
        ] {
            let columns = that_fit(width);
            let titles: Vec<_> = columns.iter().map(|column| column.title).collect();
            assert_eq!(titles.join(" "), expected, "{width}");
        }
        assert_eq!(that_fit(200).len(), ALL.len());
    }

    #[test]
    fn the_bar_gets_what_is_left() {
        for width in 73..=250 {
            let columns = that_fit(width);
            let used: u16 = columns.iter().map(|column| column.width + 1).sum();
            assert_eq!(used - 1, width);
        }
    }
}
