//! The workers: as many rows and columns as fit.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Rect};
use ratatui::style::Modifier;
use ratatui::text::Text;
use ratatui::widgets::{Cell, Row, Table};

use super::columns::{Column, Content, that_fit};
use crate::cli::top::rows::Rows;
use crate::cli::top::theme::Look;
use crate::control::report::Worker;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, rows: &Rows, look: Look) {
    let columns = that_fit(area.width);
    let titles = columns.iter().map(|column| {
        let is_sorted = column.sort == Some(rows.sort());
        let underlined = if is_sorted { Modifier::UNDERLINED } else { Modifier::empty() };
        Cell::new(aligned(column, column.title.to_owned())).style(underlined)
    });
    let header = Row::new(titles).style(Modifier::BOLD);
    let height = usize::from(area.height.saturating_sub(1));
    let most = rows.most_connections();
    let seen = rows.seen(height).map(|(place, worker)| {
        let is_selected = rows.is_selected(place);
        let cells = columns.iter().map(|column| cell(column, worker, is_selected, most, look));
        let selected = if is_selected { Modifier::REVERSED } else { Modifier::empty() };
        Row::new(cells).style(selected)
    });
    let widths = columns.iter().map(|column| Constraint::Length(column.width));
    frame.render_widget(Table::new(seen, widths).header(header).column_spacing(1), area);
}

fn cell(
    column: &Column,
    worker: &Worker,
    is_selected: bool,
    most: u64,
    look: Look,
) -> Cell<'static> {
    match column.content {
        Content::Load => {
            // Never reversed: an empty bar would look full.
            let style = look.line().remove_modifier(Modifier::REVERSED);
            Cell::new(bar(worker.connections, most, column.width, look)).style(style)
        }
        Content::Number(text) => Cell::new(aligned(column, text(worker))),
        Content::Slot => {
            let mark = if is_selected { '>' } else { ' ' };
            Cell::new(format!("{mark}{:>4}", worker.slot))
        }
        Content::State => Cell::new(worker.state.clone()).style(look.state(&worker.state)),
    }
}

fn aligned(column: &Column, text: String) -> Text<'static> {
    match column.content {
        Content::Number(_) => Text::from(text).alignment(Alignment::Right),
        Content::Slot => Text::from(format!("{text:>5}")),
        Content::Load | Content::State => Text::from(text),
    }
}

/// So much of `width` as `part` is of `most`, to an eighth of a character.
fn bar(part: u64, most: u64, width: u16, look: Look) -> String {
    let set = look.lying();
    let parts = [
        set.empty,
        set.one_eighth,
        set.one_quarter,
        set.three_eighths,
        set.half,
        set.five_eighths,
        set.three_quarters,
        set.seven_eighths,
    ];
    let all = u128::from(width) * 8;
    let eighths = u128::from(part.min(most)) * all / u128::from(most.max(1));
    let eighths = usize::try_from(eighths).unwrap_or_default();
    format!("{}{}", set.full.repeat(eighths / 8), parts[eighths % 8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::theme::Characters;

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        let bar = |part, most, characters| bar(part, most, 4, Look::new(true, characters));
        let unicode = Characters::Unicode;
        for (part, most, expected) in [
            (0, 0, " "),
            (0, 9, " "),
            (9, 9, "████ "),
            (1, 2, "██ "),
            (5, 32, "▋"),
            (u64::MAX, 1, "████ "),
        ] {
            assert_eq!(bar(part, most, unicode), expected, "{part} of {most}");
        }
        assert_eq!(bar(3, 8, Characters::Ascii), "#-");
        assert_eq!(bar(3, 8, Characters::Console), "█▌");
    }
}
