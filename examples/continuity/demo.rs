//! The demo: thousands of WebSockets, and everything that operators do to the workers under them.

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;

use clap::{Args, ValueEnum};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Duration, Instant, sleep};

use crate::load::{Load, LoadOptions};
use crate::primary::{Primary, binary_beside};
use crate::tally::Tally;
use crate::times::milliseconds;
use crate::verdict::{Expect, complaints};
use crate::view::View;

/// How long an act may take to be over, its last drained worker included.
const SETTLE: Duration = Duration::from_secs(60);

/// Between two acts: time enough for everybody to say something.
const BREATH: Duration = Duration::from_secs(2);
const QUICK_BREATH: Duration = Duration::from_millis(500);

/// The role `demo`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rolling restarts, one after the other.
    #[arg(long, default_value_t = 20, value_name = "N")]
    restarts: u32,
    /// At most 300 connections and 2 rolling restarts.
    #[arg(long)]
    quick: bool,
    /// Workers that move nobody: for those who want to see what clients are spared.
    #[arg(long)]
    stay: bool,
    /// Workers that leave too early: a control, to see that wrong numbers are seen.
    #[arg(long)]
    hasty: bool,
    /// What becomes of clients whose worker goes.
    #[arg(long, value_enum, default_value = "migrate")]
    mode: Mode,
    /// What clients should see, if not what the mode promises.
    #[arg(long, value_enum)]
    expect: Option<Expect>,
    /// Reconnects that there may be within a second.
    #[arg(long, value_name = "N")]
    most_reconnects: Option<usize>,
    /// The balance as a line of JSON.
    #[arg(long)]
    json: bool,
    /// The `sticky-lb` to run, if not the one that was built with this program.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    #[command(flatten)]
    load: LoadOptions,
    /// More flags for `sticky-lb`.
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<OsString>,
}

impl Options {
    fn breath(&self) -> Duration {
        if self.quick { QUICK_BREATH } else { BREATH }
    }
}

/// The modes of `sticky-lb --drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// They move; nobody notices.
    Migrate,
    /// They are closed, one after the other, and told why.
    Shed,
    /// They stay for as long as a worker may drain, and are closed then.
    Ride,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Migrate => "migrate",
            Self::Shed => "shed",
            Self::Ride => "ride",
        }
    }

    /// How long workers may drain, and how many clients they may send away in a second: as much as
    /// fits a demonstration.
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Migrate => &["--rebalance-rate", "1000"],
            Self::Shed => &["--drain-timeout", "20s", "--shed-rate", "500"],
            Self::Ride => &["--drain-timeout", "5s", "--shed-rate", "500"],
        }
    }

    /// Reconnects within a second, with some room for clients that hear of it late.
    fn most_reconnects(self) -> Option<usize> {
        (self == Self::Shed).then_some(650)
    }

    fn promises(self) -> Expect {
        match self {
            Self::Migrate => Expect::Continuity,
            Self::Shed | Self::Ride => Expect::Shed,
        }
    }
}

/// Something that an operator does.
struct Act {
    title: String,
    /// What is typed after `sticky-lb`.
    command: Vec<String>,
}

impl Act {
    fn new(title: impl Into<String>, command: &str) -> Self {
        let command = command.split(' ').map(str::to_owned).collect();
        Self { title: title.into(), command }
    }
}

/// Workers at first.
const WORKERS: u16 = 4;

fn acts(restarts: u32) -> Vec<Act> {
    let restart = |n| Act::new(format!("Rolling restart {n} of {restarts}"), "reload");
    let mut acts: Vec<Act> = (1..=restarts).map(restart).collect();
    acts.extend([
        Act::new("Twice as many workers", "scale 8"),
        Act::new("Everybody to the worker that they would have now", "rebalance"),
        Act::new("Few workers", "scale 2"),
        Act::new("As many as at first", "scale 4"),
        Act::new("Everybody to the worker that they would have now", "rebalance"),
        Act::new("Slot 1 out of service", "drain 1 --wait"),
        Act::new("Slot 1 back into service", "undrain 1"),
        Act::new("One slot restarted", "restart 2"),
    ]);
    acts
}

pub(crate) async fn run(mut options: Options) -> Result<bool, Box<dyn Error>> {
    if options.quick {
        options.restarts = options.restarts.min(2);
        options.load.connections = options.load.connections.min(300);
    }
    let own = std::env::current_exe()?;
    let binary = options.binary.clone().unwrap_or_else(|| binary_beside(&own));
    let workers = WORKERS.to_string();
    // Restarts follow each other closely here; that is no crash loop.
    let mode = options.mode.name();
    let mut flags: Vec<OsString> =
        ["--workers", &workers, "--min-uptime", "0", "--drain", mode].map(Into::into).into();
    flags.extend(options.mode.flags().iter().map(Into::into));
    flags.append(&mut options.flags);
    let mut worker = vec![own.into(), "worker".into()];
    worker.extend(options.stay.then(|| "--stay".into()));
    worker.extend(options.hasty.then(|| "--hasty".into()));
    let primary = Primary::start(&binary, &flags, &worker).await?;
    let mut load = Load::start(primary.address(), options.load.clone());
    let view = View::follow(&load.shared);
    let mut terminate = signal(SignalKind::terminate())?;
    let acts = acts(options.restarts);
    let played = tokio::select! {
        played = play(&acts, options.breath(), &primary, &load, &view) => played,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminate.recv() => Err("interrupted".into()),
    };
    if played.is_ok() {
        load.finish().await;
    }
    view.end();
    let shared = Rc::clone(&load.shared);
    // Whoever is left is of no more interest.
    drop(load);
    let stopped = primary.stop().await;
    played?;
    Ok(conclude(&options, &shared.tally.borrow(), &stopped?))
}

async fn play(
    acts: &[Act],
    breath: Duration,
    primary: &Primary,
    load: &Load,
    view: &View,
) -> Result<(), Box<dyn Error>> {
    let address = primary.address();
    view.say(&format!("A page that counts as well: http://{address}/"));
    view.say(&format!("{} WebSockets are opened", load.shared.options.connections));
    load.opened().await;
    sleep(breath).await;
    for act in acts {
        view.say(&format!("\n{}: sticky-lb {}", act.title, act.command.join(" ")));
        let (before, start) = (Seen::of(&mut load.shared.tally.borrow_mut()), Instant::now());
        primary.order(&act.command).await?;
        let settled = primary.settled(SETTLE).await?;
        let took = start.elapsed();
        sleep(breath).await;
        let after = Seen::of(&mut load.shared.tally.borrow_mut());
        view.say(&format!("  {} · {:.1} s", after.since(&before), took.as_secs_f64()));
        if !settled {
            view.say("  workers are still draining");
        }
    }
    Ok(())
}

/// Counters at the end of an act.
struct Seen {
    moves: u64,
    disconnects: u64,
    wrong: u64,
    longest: Duration,
}

impl Seen {
    fn of(tally: &mut Tally) -> Self {
        Self {
            moves: tally.counts.moves,
            disconnects: tally.counts.disconnects,
            wrong: tally.wrong.count(),
            longest: tally.longest_lately(),
        }
    }

    fn since(&self, before: &Self) -> String {
        format!(
            "moved {} · disconnects {} · wrong {} · longest answer {:.1} ms",
            self.moves - before.moves,
            self.disconnects - before.disconnects,
            self.wrong.saturating_sub(before.wrong),
            milliseconds(self.longest)
        )
    }
}

/// The balance. Whether it is as expected.
fn conclude(options: &Options, tally: &Tally, stopped: &Value) -> bool {
    let expect = options.expect.unwrap_or_else(|| options.mode.promises());
    let most = options.most_reconnects.or_else(|| options.mode.most_reconnects());
    let mut complaints = complaints(tally, expect, most);
    for (what, words) in [("lost", "connections lost"), ("killed_workers", "workers killed")] {
        if stopped[what] != 0 {
            complaints.push(format!("{} {words} by the primary", stopped[what]));
        }
    }
    if options.json {
        let mut report = tally.report();
        report["primary"] = stopped.clone();
        report["complaints"] = complaints.as_slice().into();
        println!("{report}");
    } else {
        print_balance(tally, &complaints);
    }
    complaints.is_empty()
}

fn print_balance(tally: &Tally, complaints: &[String]) {
    let counts = tally.counts;
    let endings = tally.endings.iter().map(|(ending, count)| format!("{count} {ending}"));
    println!();
    for (what, found) in [
        ("WebSockets opened", counts.opened.to_string()),
        ("numbers said", counts.said.to_string()),
        ("numbers answered", counts.answered.to_string()),
        ("pushes", counts.pushes.to_string()),
        ("workers seen", tally.workers().to_string()),
        ("moves", counts.moves.to_string()),
        ("wrong messages", tally.wrong.count().to_string()),
        ("disconnects", counts.disconnects.to_string()),
        ("how they ended", endings.collect::<Vec<_>>().join(", ")),
        ("most back within a second", tally.most_reconnects().to_string()),
        ("from number to answer", tally.round_trips.words()),
        ("the same, across a move", tally.across_moves.words()),
    ] {
        println!("{what:>26}  {found}");
    }
    for complaint in complaints {
        println!("not as expected: {complaint}");
    }
}
