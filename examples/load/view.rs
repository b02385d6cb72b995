//! Progress and live rates: a bar on a terminal, elsewhere a line from time to time.

use std::rc::Rc;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, interval};

use crate::client::Shared;
use crate::latencies::words;

/// Between two drawings on a terminal.
const REDRAW: Duration = Duration::from_millis(250);
/// Between two lines elsewhere.
const LINE: Duration = Duration::from_secs(5);
/// Parts of the bar.
const PARTS: u64 = 1_000;

const TEMPLATE: &str = "{bar:12} {wide_msg}";

/// Shows progress until it is told to end.
#[derive(Debug)]
pub(crate) struct View {
    bar: ProgressBar,
    task: JoinHandle<()>,
}

/// Counts at a moment, for rates.
struct Past {
    at: Instant,
    sent: u64,
    answered: u64,
}

impl View {
    pub(crate) fn follow(shared: &Rc<Shared>) -> Self {
        let style = ProgressStyle::with_template(TEMPLATE);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("#>-");
        let quiet = shared.options.quiet;
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(PARTS) };
        let bar = bar.with_style(style);
        let task = if quiet {
            tokio::task::spawn_local(async {})
        } else {
            tokio::task::spawn_local(show(Rc::clone(shared), bar.clone()))
        };
        Self { bar, task }
    }

    pub(crate) fn end(&self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

async fn show(shared: Rc<Shared>, bar: ProgressBar) {
    let mut ticks = interval(if bar.is_hidden() { LINE } else { REDRAW });
    let mut past = Past { at: ticks.tick().await, sent: 0, answered: 0 };
    loop {
        let now = ticks.tick().await;
        let start = *shared.start.borrow();
        let text = match start {
            None => opening(&shared),
            Some(start) => running(&shared, start, &mut past, now),
        };
        if bar.is_hidden() {
            eprintln!("{text}");
            continue;
        }
        bar.set_position(parts(&shared, start, now));
        bar.set_message(text);
    }
}

/// How far the bar is: open connections at first, then time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1,000")]
fn parts(shared: &Shared, start: Option<Instant>, now: Instant) -> u64 {
    let all = u64::from(shared.options.connections);
    let Some(start) = start else { return shared.figures.borrow().open * PARTS / all };
    let passed = now.saturating_duration_since(start).as_secs_f64();
    ((passed / shared.options.seconds).min(1.0) * PARTS as f64) as u64
}

fn opening(shared: &Shared) -> String {
    let open = shared.figures.borrow().open;
    format!("{open} of {} connections open", shared.options.connections)
}

fn running(shared: &Shared, start: Instant, past: &mut Past, now: Instant) -> String {
    let figures = shared.figures.borrow();
    let seconds = now.saturating_duration_since(past.at).as_secs_f64().max(0.001);
    let rate = |count: u64, before: u64| (count - before) as f64 / seconds;
    let p99 = words(figures.latencies.quantile(0.99));
    let text = format!(
        "{:.0} of {} s, {} open, {:.0}/s sent, {:.0}/s answered, {} lost, p99 {p99}",
        now.saturating_duration_since(start).as_secs_f64(),
        shared.options.seconds,
        figures.open,
        rate(figures.sent, past.sent),
        rate(figures.answered, past.answered),
        figures.lost,
    );
    *past = Past { at: now, sent: figures.sent, answered: figures.answered };
    text
}
