//! The last events, under a line that says which workers are seen.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span, Text};

use super::wrap::wrapped;
use crate::cli::top::state::State;
use crate::cli::top::theme::Look;
use crate::control::report::Event;

/// Characters that the time takes, with the space behind it.
const TIME: usize = 9;

/// `rows` are those of the table that are seen.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, rows: usize, state: &State, look: Look) {
    let parts = [Constraint::Length(1), Constraint::Min(0)];
    let [title, list] = Layout::vertical(parts).areas(area);
    let hidden = state.rows.len().saturating_sub(rows);
    let more = if hidden > 0 {
        format!("  ({hidden} more workers above or below)")
    } else {
        String::new()
    };
    let heading = Span::styled("events", Modifier::BOLD | Modifier::UNDERLINED);
    frame.render_widget(Line::from(vec![heading, Span::raw(more)]), title);
    let zone = TimeZone::system();
    let (width, height) = (usize::from(list.width), usize::from(list.height));
    // As many lines as fit, from the last one up.
    let mut fitting = Vec::new();
    for event in state.events.iter().rev() {
        let lines = lines(event, &zone, width, look);
        if !fitting.is_empty() && fitting.len() + lines.len() > height {
            break;
        }
        fitting.splice(..0, lines);
    }
    frame.render_widget(Text::from(fitting), list);
}

/// The text in as many lines as it takes, the time beside the first.
fn lines(event: &Event, zone: &TimeZone, width: usize, look: Look) -> Vec<Line<'static>> {
    let time = Timestamp::from_millisecond(event.time_ms).ok();
    let time = time.map(|time| time.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string());
    let slot = event.slot.map(|slot| format!("slot {slot}: ")).unwrap_or_default();
    let style = look.event(&event.kind);
    let texts = wrapped(&format!("{slot}{}", event.text), width.saturating_sub(TIME));
    let times = time.into_iter().chain(std::iter::repeat(String::new()));
    let line = |(text, time)| {
        Line::from(vec![Span::raw(format!("{time:TIME$}")), Span::styled(text, style)])
    };
    texts.into_iter().zip(times).map(line).collect()
}
