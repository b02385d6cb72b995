//! The first lines: which primary it is, how it is, and what there is to know beside it: a rolling
//! restart that is under way, an address that has nearly all connections,
//! connections that take far too much memory.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Stylize;
use ratatui::text::{Line, Span, Text};

use super::wrap::wrapped;
use crate::cli::notices::{dominance, heaviness};
use crate::cli::top::format::{count, duration};
use crate::cli::top::state::State;
use crate::cli::top::theme::Look;
use crate::cli::units::clean;
use crate::control::report::{Rollout, Status};

/// Snapshots come each second; if none has come for so many, it is said.
const SILENT: u64 = 3;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let (who, how) = (who(&state.status), how(state, look));
    // Where there is room for one line, a loss is what counts.
    let mut lines =
        if area.height == 1 && state.lost.is_some() { vec![how] } else { vec![who, how] };
    let notes = notes(&state.status, area.width).into_iter();
    lines.extend(notes.map(|note| Line::styled(note, look.warning())));
    frame.render_widget(Text::from(lines), area);
}

/// Lines below the first two.
pub(super) fn notes(status: &Status, width: u16) -> Vec<String> {
    let rollout = status.rollout.iter().map(progress);
    let dominant = status.dominant_client.iter();
    let dominant = dominant.flat_map(|it| [dominance(it), format!("see {}", clean(&it.guide))]);
    let heavy = status.heavy_connections.iter();
    let heavy = heavy.flat_map(|it| [heaviness(it), format!("see {}", clean(&it.guide))]);
    let failed = status.last_rollout.iter();
    let failed = failed.filter(|it| status.rollout.is_none() && it.is_aborted());
    let failed = failed.map(|it| {
        let reason = it.reason.as_deref().map_or_else(|| "no reason known".to_owned(), clean);
        format!("rolling restart {} aborted: {reason}; `sticky-lb status` has more", it.number)
    });
    let notes = rollout.chain(failed).chain(dominant).chain(heavy);
    notes.flat_map(|note| wrapped(&note, width.into())).collect()
}

fn who(status: &Status) -> Line<'_> {
    let rest = format!(
        "  sticky-lb {}  {}  pid {}  up {}  {}",
        status.version,
        status.listening.join(" "),
        status.pid,
        duration(status.uptime_s),
        status.placement,
    );
    Line::from(vec![status.name.as_str().bold(), Span::raw(rest)])
}

fn how(state: &State, look: Look) -> Line<'_> {
    if let Some(reason) = &state.lost {
        let text = format!("lost the primary, trying again (q quits): {reason}");
        return Line::styled(text, look.alarm());
    }
    let status = &state.status;
    let mut spans = vec![serving(status, look), Span::raw("  "), doing(status, look)];
    if state.silence.as_secs() >= SILENT {
        let text = format!("no news for {} s", state.silence.as_secs());
        spans.extend([Span::raw("  "), Span::styled(text, look.alarm())]);
    }
    if status.waiting > 0 {
        let (noun, verb) =
            if status.waiting == 1 { ("connection", "waits") } else { ("connections", "wait") };
        let text = format!("  {} {noun} {verb} for a worker", count(status.waiting));
        spans.push(Span::styled(text, look.warning()));
    }
    Line::from(spans)
}

fn serving(status: &Status, look: Look) -> Span<'static> {
    let (serving, workers) = (status.serving, status.workers);
    let by_load = status.autoscale.map(|(least, most)| format!(" ({least} to {most} by load)"));
    let text = format!("serving {serving}/{workers}{}", by_load.unwrap_or_default());
    let style = match serving {
        0 => look.bad(),
        _ if serving < workers => look.warning(),
        _ => look.good(),
    };
    Span::styled(text, style)
}

fn doing(status: &Status, look: Look) -> Span<'static> {
    match (status.stopping, status.accepting) {
        (true, _) => Span::styled("stopping", look.bad()),
        (_, true) => Span::styled("accepting", look.good()),
        _ => Span::styled("not accepting", look.bad()),
    }
}

fn progress(rollout: &Rollout) -> String {
    let Rollout { number, replaced, of, under_way, .. } = rollout;
    let mut text = format!("rolling restart {number}: {replaced} of {of}");
    for (slot, waits_for) in under_way.iter().take(2) {
        text += &format!(", slot {slot} waits for {waits_for}");
    }
    if under_way.len() > 2 {
        text += &format!(", {} more wait", under_way.len() - 2);
    }
    text
}
