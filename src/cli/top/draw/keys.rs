//! The last line: keys that do something.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Stylize;
use ratatui::text::{Line, Span};

/// Those that matter most first: what doesn't fit is left out.
const KEYS: [(&str, &str); 9] = [
    ("q", "quit"),
    ("?", "help"),
    ("r", "reload"),
    ("d", "drain"),
    ("u", "undrain"),
    ("R", "restart"),
    ("+/-", "scale"),
    ("s", "sort"),
    ("e", "events"),
];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect) {
    let mut line = Line::default();
    for (key, what) in KEYS {
        let begin = if line.spans.is_empty() { "" } else { " " };
        let spans = [Span::raw(begin), key.reversed(), Span::raw(format!(" {what}"))];
        let width = line.width() + spans.iter().map(Span::width).sum::<usize>();
        if width > usize::from(area.width) {
            break;
        }
        line.spans.extend(spans);
    }
    frame.render_widget(line, area);
}
