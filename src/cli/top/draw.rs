//! Draws everything, from the top down: the primary, figures, workers, events, a line of text, keys. On
//! small terminals parts are left out, the workers last.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

use super::state::State;
use super::theme::Look;

mod columns;
mod events;
mod head;
mod keys;
mod popup;
mod table;
mod totals;
mod wrap;

/// Draws it all. Returns how many rows of the table fit.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, look: Look) -> usize {
    let rows = u16::try_from(state.rows.len()).unwrap_or(u16::MAX);
    let notes = head::notes(&state.status, frame.area().width).len();
    let heights = heights(frame.area().height, rows, notes, state.more_events);
    let constraints = heights.map(Constraint::Length);
    let [head, totals, table, events, said, keys] =
        Layout::vertical(constraints).areas(frame.area());
    let page = usize::from(table.height.saturating_sub(1));
    head::draw(frame, head, state, look);
    totals::draw(frame, totals, state, look);
    table::draw(frame, table, &state.rows, look);
    events::draw(frame, events, page, state, look);
    draw_said(frame, said, state, look);
    keys::draw(frame, keys);
    if let Some(popup) = state.popup {
        popup::draw(frame, popup, look);
    }
    page
}

/// Lines for each part, where there are so many in all.
fn heights(all: u16, rows: u16, notes: usize, more_events: bool) -> [u16; 6] {
    let head = match all {
        0..8 => all.min(1),
        _ => 2 + u16::try_from(notes).unwrap_or(u16::MAX).min(all / 4),
    };
    let totals = if all >= 17 { totals::HEIGHT } else { 0 };
    let said = u16::from(all >= 7);
    let keys = u16::from(all >= 4);
    let body = all - head - totals - said - keys;
    let fewest = match body {
        0..6 => 0,
        6..12 => 3,
        _ => (body / 4).max(5),
    };
    // A few workers leave the rest to events.
    let table = rows.saturating_add(1).min(body - fewest);
    let events = if more_events { (body / 2).max(body - table) } else { body - table };
    [head, totals, body - events, events, said, keys]
}

/// The result of the last order, and orders that are under way.
fn draw_said(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let mut line = Line::default();
    if let Some(said) = &state.said {
        let style = if said.is_bad { look.bad() } else { look.good() };
        line.push_span(Span::styled(said.text.as_str(), style));
    }
    if !state.under_way.is_empty() {
        let orders: Vec<_> = state.under_way.iter().map(ToString::to_string).collect();
        let begin = if line.spans.is_empty() { "" } else { "  " };
        let text = format!("{begin}under way: {}", orders.join(", "));
        line.push_span(Span::styled(text, look.warning()));
    }
    frame.render_widget(line, area);
}

#[cfg(test)]
mod tests;
