//! Figures of all workers together, three beside each other: name, number, a sparkline.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{RenderDirection, Sparkline};

use crate::cli::top::figures::Figure;
use crate::cli::top::state::State;
use crate::cli::top::theme::Look;

const COLUMNS: usize = 3;

/// Lines that it takes.
pub(super) const HEIGHT: u16 = 5;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    if area.is_empty() {
        return;
    }
    let lines = Layout::vertical([Constraint::Length(1); HEIGHT as usize]).split(area);
    for (line, figures) in lines.iter().zip(Figure::ALL.chunks(COLUMNS)) {
        let cells = Layout::horizontal([Constraint::Fill(1); COLUMNS]).spacing(1).split(*line);
        for (cell, figure) in cells.iter().zip(figures) {
            match figure {
                // An address needs all the room that is left.
                Figure::TopClient => draw_top_client(frame, cell.union(cells[COLUMNS - 1]), state),
                figure => draw_figure(frame, *cell, *figure, state, look),
            }
        }
    }
}

fn draw_figure(frame: &mut Frame<'_>, area: Rect, figure: Figure, state: &State, look: Look) {
    let text = figure.text(&state.status);
    let is_bad = figure.is_bad(&state.status);
    let style = if is_bad { look.warning() } else { Style::new() };
    let text = Span::styled(text, style.add_modifier(Modifier::BOLD));
    let parts = [Constraint::Length(12), Constraint::Length(6), Constraint::Min(0)];
    let [name, number, line] = Layout::horizontal(parts).areas(area);
    frame.render_widget(figure.name(), name);
    frame.render_widget(Line::from(text).right_aligned(), number);
    let line = Rect { x: line.x.saturating_add(1), width: line.width.saturating_sub(1), ..line };
    let sparkline = Sparkline::default()
        .data(state.trends.newest(figure, usize::from(line.width)))
        .direction(RenderDirection::RightToLeft)
        .bar_set(look.upright())
        .style(look.line());
    frame.render_widget(sparkline, line);
}

fn draw_top_client(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let text = Figure::TopClient.text(&state.status);
    frame.render_widget(Line::from(vec![Span::raw("top client  "), text.bold()]), area);
}
