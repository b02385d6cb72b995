//! Live counters: a block of lines at the foot of a terminal, drawn again and again; elsewhere a
//! line from time to time.

use std::rc::Rc;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, interval};

use crate::client::Shared;

/// Between two drawings on a terminal.
const REDRAW: Duration = Duration::from_millis(200);

/// Between two lines elsewhere.
const LINE: Duration = Duration::from_secs(5);

/// Shows counters until it is told to end.
#[derive(Debug)]
pub(crate) struct View {
    block: MultiProgress,
    quiet: bool,
    task: JoinHandle<()>,
}

impl View {
    pub(crate) fn follow(shared: &Rc<Shared>) -> Self {
        let (block, quiet) = (MultiProgress::new(), shared.options.quiet);
        let shared = Rc::clone(shared);
        let task = match (quiet, block.is_hidden()) {
            (true, _) => tokio::task::spawn_local(async {}),
            (false, true) => tokio::task::spawn_local(print_lines(shared)),
            (false, false) => tokio::task::spawn_local(draw(shared, block.clone())),
        };
        Self { block, quiet, task }
    }

    /// A line above the counters.
    pub(crate) fn say(&self, text: &str) {
        if self.quiet {
            return;
        }
        // Hidden, where there is no terminal, it would say nothing.
        if self.block.is_hidden() || self.block.println(text).is_err() {
            eprintln!("{text}");
        }
    }

    pub(crate) fn end(&self) {
        self.task.abort();
        // A terminal that is gone has no more to show.
        let _ = self.block.clear();
    }
}

async fn draw(shared: Rc<Shared>, block: MultiProgress) {
    let start = Instant::now();
    let style =
        ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let mut drawn: Vec<ProgressBar> = Vec::new();
    let mut redraw = interval(REDRAW);
    loop {
        redraw.tick().await;
        for (index, line) in lines(&shared, start).into_iter().enumerate() {
            if drawn.len() == index {
                drawn.push(block.add(ProgressBar::no_length().with_style(style.clone())));
            }
            drawn[index].set_message(line);
        }
    }
}

async fn print_lines(shared: Rc<Shared>) {
    let (start, mut next) = (Instant::now(), interval(LINE));
    loop {
        next.tick().await;
        eprintln!("{}", lines(&shared, start)[..3].join(" · "));
    }
}

fn lines(shared: &Shared, start: Instant) -> [String; 5] {
    let stats = shared.stats.borrow();
    let (counts, wrong) = (stats.counts, stats.wrong);
    let reconnects = match stats.most_reconnects() {
        0 => String::new(),
        most => format!(" · {} came back, {most} within a second at the most", counts.reconnects),
    };
    [
        format!(
            "{:5.1} s  {} of {} WebSockets open",
            start.elapsed().as_secs_f64(),
            stats.open,
            shared.options.connections
        ),
        format!("disconnects {}{reconnects}", counts.disconnects),
        format!(
            "wrong {} (lost {}, doubled {}, out of order {}, invented {}, breaches {})",
            wrong.count(),
            wrong.lost,
            wrong.doubled,
            wrong.reordered,
            wrong.invented,
            wrong.breaches
        ),
        format!(
            "said {} · answered {} · pushed {} · moved {} · workers seen {}",
            counts.said,
            counts.answered,
            counts.pushes,
            counts.moves,
            stats.workers()
        ),
        format!("from number to answer: {}", stats.round_trips.words()),
    ]
}
