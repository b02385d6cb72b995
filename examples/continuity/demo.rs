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
use crate::resource_usage::ResourceUsage;
use crate::scenario::{Deed, Numbers};
use crate::stats::Stats;
use crate::times::milliseconds;
use crate::verdict::{Excuses, Expect, complaints};
use crate::view::View;

/// How long an act may take to be over, its last drained worker included.
const SETTLE: Duration = Duration::from_secs(60);

/// Between two acts: time enough for everybody to say something.
const BREATH: Duration = Duration::from_secs(2);
const QUICK_BREATH: Duration = Duration::from_millis(500);

/// The role `demo`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    numbers: Numbers,
    /// At most 300 connections, and little of everything.
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
    Close,
    /// They stay for as long as a worker may drain, and are closed then.
    Wait,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Migrate => "migrate",
            Self::Close => "close",
            Self::Wait => "wait",
        }
    }

    /// How long workers may drain, and how many clients they may send away in a second: as much as
    /// fits a demonstration.
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Migrate => &["--rebalance-rate", "1000"],
            Self::Close => &["--drain-timeout", "20s", "--close-rate", "500"],
            Self::Wait => &["--drain-timeout", "5s", "--close-rate", "500"],
        }
    }

    /// Reconnects within a second, with some room for clients that hear of it late.
    fn most_reconnects(self) -> Option<usize> {
        (self == Self::Close).then_some(650)
    }

    fn promises(self) -> Expect {
        match self {
            Self::Migrate => Expect::Continuity,
            Self::Close | Self::Wait => Expect::Close,
        }
    }
}

/// Workers at first.
const WORKERS: u16 = 4;

/// Restarts and crashes follow each other closely here.
const NO_CRASH_LOOP: [&str; 4] = ["--max-restarts", "100000", "--keeper-min-uptime", "0"];

/// For those whose workers are killed: their sessions are to go on, and that is no crash loop.
const PROTECT: [&str; 3] = ["--protect", "--spares", "1"];

/// What `--quick` does at the most.
const QUICK: Numbers = Numbers { restarts: 2, upgrades: 3, crashes: 3, worker_crashes: 8 };

pub(crate) async fn run(mut options: Options) -> Result<bool, Box<dyn Error>> {
    if options.quick {
        options.numbers.at_most(QUICK);
        options.load.connections = options.load.connections.min(300);
    }
    let own = std::env::current_exe()?;
    let binary = options.binary.clone().unwrap_or_else(|| binary_beside(&own));
    let workers = WORKERS.to_string();
    let mode = options.mode.name();
    let mut flags: Vec<OsString> = ["--workers", &workers, "--drain", mode].map(Into::into).into();
    flags.extend(NO_CRASH_LOOP.map(Into::into));
    // What happens in the middle of a rolling restart has to meet it.
    let meets = options.numbers.upgrades + options.numbers.crashes > 0;
    flags.extend(["--min-uptime", if meets { "100ms" } else { "0" }].map(Into::into));
    flags.extend(options.mode.flags().iter().map(Into::into));
    let mut worker = vec![own.into(), "worker".into()];
    worker.extend(options.stay.then(|| "--stay".into()));
    worker.extend(options.hasty.then(|| "--hasty".into()));
    if options.numbers.worker_crashes > 0 {
        flags.extend(PROTECT.map(Into::into));
        worker.push("--protect".into());
    }
    flags.append(&mut options.flags);
    let primary = Primary::start(&binary, &flags, &worker).await?;
    let mut load = Load::start(primary.address(), options.load.clone());
    let view = View::follow(&load.shared);
    let mut terminate = signal(SignalKind::terminate())?;
    let played = tokio::select! {
        played = play(&options, &primary, &load, &view) => played,
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
    let left = played?;
    Ok(conclude(&options, &shared.stats.borrow(), left, &stopped?))
}

/// Plays all acts. What is then otherwise than before.
async fn play(
    options: &Options,
    primary: &Primary,
    load: &Load,
    view: &View,
) -> Result<Vec<String>, Box<dyn Error>> {
    let breath = options.breath();
    let address = primary.address();
    view.say(&format!("A page that counts as well: http://{address}/"));
    view.say(&format!("{} WebSockets are opened", load.shared.options.connections));
    load.opened().await;
    sleep(breath).await;
    let spares = options.numbers.worker_crashes > 0;
    let workers = usize::from(WORKERS) * if spares { 2 } else { 1 };
    let before = ResourceUsage::of(primary, workers).await?;
    view.say(&format!("Before: {}", before.words()));
    for act in options.numbers.acts() {
        let times = if act.times > 1 { format!(" × {}", act.times) } else { String::new() };
        view.say(&format!("\n{}: {}{times}", act.title, act.deed.words()));
        let (before, start) = (Seen::of(&mut load.shared.stats.borrow_mut()), Instant::now());
        load.shared.stats.borrow_mut().act.clone_from(&act.title);
        for number in 0..act.times {
            Harness { primary, load, view }.play(&act.deed, number).await?;
        }
        let settled = primary.settled(SETTLE).await?;
        let took = start.elapsed();
        sleep(breath).await;
        let after = Seen::of(&mut load.shared.stats.borrow_mut());
        view.say(&format!("  {} · {:.1} s", after.since(&before), took.as_secs_f64()));
        if !settled {
            view.say("  workers are still draining");
        }
    }
    let after = ResourceUsage::of(primary, workers).await?;
    view.say(&format!("\nAfterwards: {}", after.words()));
    Ok(after.complaints(&before))
}

/// Where acts are played.
struct Harness<'a> {
    primary: &'a Primary,
    load: &'a Load,
    view: &'a View,
}

/// Between two crashes: clients say something meanwhile.
const PAUSE: Duration = Duration::from_millis(200);

impl Harness<'_> {
    /// A deed for the how-manieth time.
    async fn play(&self, deed: &Deed, number: u32) -> Result<(), Box<dyn Error>> {
        let Self { primary, load, .. } = self;
        match deed {
            Deed::Order(words) => drop(primary.order(words).await?),
            Deed::Upgrade => primary.upgrade().await?,
            Deed::RefusedUpgrade(broken) => {
                let reason = primary.refuse_upgrade(*broken).await?;
                self.view.say(&format!("  {}", reason.trim()));
            }
            Deed::Crash => {
                let took = primary.crash().await?;
                load.shared.stats.borrow_mut().after_crashes.record(took);
                sleep(PAUSE).await;
            }
            Deed::During(words, deed) => {
                let begun = async {
                    // What follows may cut off whoever waits for it.
                    let _ = primary.order(words).await;
                };
                let meanwhile = async {
                    let under_way = |status: &Value| !status["rollout"].is_null();
                    primary.until("a rolling restart", under_way).await?;
                    Box::pin(self.play(deed, number)).await
                };
                let ((), done) = tokio::join!(begun, meanwhile);
                done?;
                let over = |status: &Value| status["rollout"].is_null();
                primary.until("the end of a rolling restart", over).await?;
            }
            Deed::WorkerCrash => {
                let slot = u64::from(number % u32::from(WORKERS));
                let killed = primary.crash_worker(slot, |at| {
                    load.shared.stats.borrow_mut().killed = Some(at);
                });
                load.shared.stats.borrow_mut().orphaned += killed.await?;
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}

/// Counters at the end of an act.
struct Seen {
    moves: u64,
    disconnects: u64,
    wrong: u64,
    longest: Duration,
}

impl Seen {
    fn of(stats: &mut Stats) -> Self {
        Self {
            moves: stats.counts.moves,
            disconnects: stats.counts.disconnects,
            wrong: stats.wrong.count(),
            longest: stats.longest_lately(),
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

/// What may have gone wrong, since the primary or its workers were killed.
fn excuses(options: &Options, stopped: &Value) -> Excuses {
    let counted = |what: &str, times: u32| match times {
        0 => 0,
        // By reason, or altogether.
        _ => match &stopped[what] {
            Value::Object(reasons) => reasons.values().filter_map(Value::as_u64).sum(),
            number => number.as_u64().unwrap_or_default(),
        },
    };
    Excuses {
        not_at_rest: counted("session_recovery_failures", options.numbers.worker_crashes),
        lost: counted("lost", options.numbers.crashes),
    }
}

/// The balance. Whether it is as expected.
fn conclude(options: &Options, stats: &Stats, left: Vec<String>, stopped: &Value) -> bool {
    let expect = options.expect.unwrap_or_else(|| options.mode.promises());
    let most = options.most_reconnects.or_else(|| options.mode.most_reconnects());
    let excuses = excuses(options, stopped);
    let mut complaints = complaints(stats, expect, most, excuses);
    complaints.extend(left);
    if stopped["killed_workers"] != 0 {
        complaints.push(format!("{} workers killed by the primary", stopped["killed_workers"]));
    }
    let lost = stopped["lost"].as_u64().unwrap_or_default();
    if lost > excuses.lost {
        complaints.push(format!("{lost} connections lost by the primary"));
    }
    if options.json {
        let mut report = stats.report();
        report["primary"] = stopped.clone();
        report["complaints"] = complaints.as_slice().into();
        println!("{report}");
    } else {
        print_balance(stats, &complaints);
    }
    complaints.is_empty()
}

fn print_balance(stats: &Stats, complaints: &[String]) {
    let counts = stats.counts;
    let turned_away = stats.turned_away.iter().map(|(when, count)| format!("{count} {when}"));
    let endings = stats.endings.iter().map(|(ending, count)| format!("{count} {ending}"));
    println!();
    for (what, found) in [
        ("WebSockets opened", counts.opened.to_string()),
        ("numbers said", counts.said.to_string()),
        ("numbers answered", counts.answered.to_string()),
        ("pushes", counts.pushes.to_string()),
        ("workers seen", stats.workers().to_string()),
        ("moves", counts.moves.to_string()),
        ("wrong messages", stats.wrong.count().to_string()),
        ("disconnects", counts.disconnects.to_string()),
        ("how they ended", endings.collect::<Vec<_>>().join(", ")),
        ("most back within a second", stats.most_reconnects().to_string()),
        ("from number to answer", stats.round_trips.words()),
        ("the same, across a move", stats.across_moves.words()),
        ("pages for those who come once", stats.arrivals.words()),
        ("who got none", stats.turned_away.values().sum::<u64>().to_string()),
        ("and when", turned_away.collect::<Vec<_>>().join(", ")),
        ("cut off as a worker was killed", stats.cut_off.to_string()),
        ("sessions of killed workers", stats.orphaned.to_string()),
        ("from death to next worker", stats.after_deaths.words()),
        ("from primary's death to page", stats.after_crashes.words()),
    ] {
        println!("{what:>30}  {found}");
    }
    for complaint in complaints {
        println!("not as expected: {complaint}");
    }
}
