//! Proves that many WebSockets take no more of everything each than few, and that nobody is cut: up to
//! 100,000 are open while workers are replaced, added and taken away, and the primary is upgraded and
//! killed.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Duration, Instant, sleep};

use crate::load::{Load, LoadOptions};
use crate::load_processes::{LoadProcesses, Order};
use crate::memory::{Memory, cpu_time};
use crate::primary::{Primary, binary_beside};
use crate::stats::Stats;
use crate::times::milliseconds;
use crate::verdict::{Excuses, Expect, complaints};

/// How long an act may take to be over, its last drained worker included.
const SETTLE: Duration = Duration::from_secs(180);

/// After the last answer, and between two acts.
const BREATH: Duration = Duration::from_secs(2);

/// For each worker, what comes before all others: memory that any first connection takes is no
/// connection's.
const FIRST: u32 = 8;

/// Client addresses at the most.
const ADDRESSES: u32 = 60_000;

/// Messages a minute of most clients.
const MESSAGES: f64 = 1.0;

/// Restarts and crashes follow each other closely here, and a rebalance has many to migrate.
const FLAGS: [&str; 10] = [
    "--drain",
    "migrate",
    "--max-restarts",
    "100000",
    "--keeper-min-uptime",
    "0",
    "--min-uptime",
    "100ms",
    "--rebalance-rate",
    "5000",
];

/// The role `scale`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    plan: Plan,
    /// The figures as a line of JSON.
    #[arg(long)]
    json: bool,
    /// The `sticky-lb` to run, if not the one that was built with this program.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// What is opened, and what is done to it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// WebSockets that are open at a time.
    #[arg(long, default_value_t = 100_000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,
    /// Of them, so many send five messages in a second, so that enough meet a migration, and the others one
    /// in a minute. By default 1,000, and no more than half.
    #[arg(long, value_name = "N")]
    pub(crate) frequent: Option<u32>,
    /// Workers at first.
    #[arg(long, default_value_t = 8, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(crate) workers: u16,
    /// Seconds in which nobody says anything; 0 for none.
    #[arg(long, default_value_t = 60, value_name = "S")]
    pub(crate) silence: u64,
    /// Rolling restarts, one after the other.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) restarts: u32,
    /// No upgrade, and as many workers as at first; only the restarts, and the primary's kill.
    #[arg(long, hide = true)]
    pub(crate) brief: bool,
}

impl Plan {
    fn load(&self) -> LoadOptions {
        let few = (self.connections / 2).min(1_000);
        LoadOptions {
            connections: self.connections,
            first: FIRST * u32::from(self.workers),
            rate: MESSAGES / 60.0,
            frequent: self.frequent.unwrap_or(few).min(self.connections),
            sources: self.connections.min(ADDRESSES),
            opening: 100_000,
            ..LoadOptions::silent()
        }
    }
}

/// All that was found.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Findings {
    pub(crate) connections: u32,
    /// Those that send five messages in a second.
    frequent: u32,
    workers: u16,
    open_s: f64,
    /// Bytes of each connection, before the first act.
    pub(crate) memory: Memory,
    /// The same after the last one.
    memory_afterwards: Memory,
    /// Percent of a core that the primary takes while nobody says anything.
    silent_cpu_percent: Option<f64>,
    restarts_s: Vec<f64>,
    /// From the primary's death to the next page.
    pub(crate) take_over_ms: f64,
    /// Of messages that met a migration.
    pub(crate) pause: Pause,
    migrations: u64,
    answered: u64,
    disconnects: u64,
    wrong_messages: u64,
    pub(crate) complaints: Vec<String>,
}

/// From a message to its answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Pause {
    count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    max_ms: f64,
}

impl Pause {
    fn of(stats: &Stats) -> Self {
        let times = &stats.across_moves;
        let [p50_ms, p99_ms, max_ms] =
            [0.5, 0.99, 1.0].map(|share| milliseconds(times.quantile(share)));
        Self { count: times.count(), p50_ms, p99_ms, max_ms }
    }
}

pub(crate) async fn run(options: Options) -> Result<bool, Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let binary = options.binary.map_or_else(own_binary, Ok)?;
    let findings = tokio::select! {
        findings = measure(&binary, &options.plan) => findings?,
        _ = tokio::signal::ctrl_c() => return Err("interrupted".into()),
        _ = terminate.recv() => return Err("interrupted".into()),
    };
    if options.json {
        println!("{}", serde_json::to_string(&findings)?);
    } else {
        findings.print();
    }
    Ok(findings.complaints.is_empty())
}

/// The `sticky-lb` that was built with this program.
pub(crate) fn own_binary() -> Result<PathBuf, Box<dyn Error>> {
    Ok(binary_beside(&std::env::current_exe()?))
}

/// The flags of all primaries here, and the command of their workers.
pub(crate) async fn start(
    binary: &Path,
    workers: u16,
    protect: bool,
) -> Result<Primary, Box<dyn Error>> {
    let mut flags: Vec<OsString> = FLAGS.map(Into::into).into();
    flags.extend(["--workers".into(), workers.to_string().into()]);
    let mut worker = vec![std::env::current_exe()?.into(), "worker".into()];
    if protect {
        flags.extend(["--protect", "--spares", "1"].map(Into::into));
        worker.push("--protect".into());
    }
    Primary::start(binary, &flags, &worker).await
}

/// Plays everything, from the first connection to the last.
pub(crate) async fn measure(binary: &Path, plan: &Plan) -> Result<Findings, Box<dyn Error>> {
    let primary = start(binary, plan.workers, false).await?;
    let mut first = Load::start(
        primary.address(),
        LoadOptions { connections: FIRST * u32::from(plan.workers), ..LoadOptions::silent() },
    );
    first.opened().await;
    first.finish().await;
    sleep(BREATH).await;

    let load = plan.load();
    let before = Memory::now(&primary, None).await?;
    say(&format!("{} WebSockets are opened, on {} workers", plan.connections, plan.workers));
    let start = Instant::now();
    let clients = LoadProcesses::open(primary.address(), &load).await?;
    let mut findings = Findings {
        connections: plan.connections,
        frequent: load.frequent,
        workers: plan.workers,
        open_s: seconds(start.elapsed()),
        ..Findings::default()
    };
    let mut harness = Harness { primary: &primary, clients, findings: &mut findings };
    harness.hold(Duration::from_secs(plan.silence)).await?;
    let memory = Memory::now(&primary, Some(&harness.clients)).await?;
    harness.findings.memory = memory.each_since(before, plan.connections);
    harness.clients.order(Order::Resume).await?;
    harness.play(plan).await?;
    harness.hold(Duration::ZERO).await?;
    let memory = Memory::now(&primary, Some(&harness.clients)).await?;
    harness.findings.memory_afterwards = memory.each_since(before, plan.connections);
    let stats = harness.clients.order(Order::Finish).await?;
    let stopped = primary.stop().await?;
    findings.conclude(&stats, &stopped);
    Ok(findings)
}

fn say(text: &str) {
    eprintln!("{text}");
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

/// Where acts are played.
struct Harness<'a> {
    primary: &'a Primary,
    clients: LoadProcesses,
    findings: &'a mut Findings,
}

impl Harness<'_> {
    /// Nobody says anything any more. What the primary does then for so long.
    async fn hold(&mut self, length: Duration) -> Result<(), Box<dyn Error>> {
        self.clients.order(Order::Hold).await?;
        sleep(BREATH).await;
        if length.is_zero() {
            return Ok(());
        }
        say(&format!("Nobody says anything for {} s", length.as_secs()));
        let pid = self.primary.status().await?["primary_pid"].as_u64().ok_or("no primary")?;
        let said = self.clients.order(Order::Report).await?.counts.said;
        // The answer to the last question is no part of it.
        sleep(BREATH).await;
        let (before, start) = (cpu_time(pid)?, Instant::now());
        sleep(length).await;
        let (cpu, took) = (cpu_time(pid)? - before, start.elapsed());
        if self.clients.order(Order::Report).await?.counts.said != said {
            return Err("somebody has said something in the silence".into());
        }
        let percent = 100.0 * cpu.as_secs_f64() / took.as_secs_f64();
        self.findings.silent_cpu_percent = Some((percent * 1e4).round() / 1e4);
        Ok(())
    }

    /// Plays all acts.
    async fn play(&mut self, plan: &Plan) -> Result<(), Box<dyn Error>> {
        for number in 1..=plan.restarts {
            let title = format!("Rolling restart {number} of {}", plan.restarts);
            let took = self.order(&title, "reload").await?;
            self.findings.restarts_s.push(seconds(took));
        }
        if !plan.brief {
            let start = Instant::now();
            self.primary.upgrade().await?;
            self.tell("Upgrade of the primary", start).await?;
        }
        let start = Instant::now();
        self.findings.take_over_ms = milliseconds(self.primary.crash().await?);
        self.tell("kill -9 of the primary", start).await?;
        if !plan.brief {
            let more = plan.workers + (plan.workers / 4).max(1);
            self.order(&format!("{more} workers"), &format!("scale {more}")).await?;
            self.order("Each client to the worker that it would have now", "rebalance").await?;
            let title = format!("{} workers again", plan.workers);
            self.order(&title, &format!("scale {}", plan.workers)).await?;
        }
        Ok(())
    }

    /// An operator's command, until it is done. How long that took.
    async fn order(&mut self, title: &str, command: &str) -> Result<Duration, Box<dyn Error>> {
        let words: Vec<_> = command.split(' ').map(str::to_owned).collect();
        let start = Instant::now();
        self.primary.order(&words).await?;
        if !self.primary.settled(SETTLE).await? {
            self.findings.complaints.push(format!("workers still drain after: {command}"));
        }
        let took = start.elapsed();
        self.tell(title, start).await?;
        Ok(took)
    }

    async fn tell(&mut self, title: &str, start: Instant) -> Result<(), Box<dyn Error>> {
        let took = start.elapsed();
        sleep(BREATH).await;
        let stats = self.clients.order(Order::Report).await?;
        say(&format!(
            "{title}: {:.1} s · migrations so far {} · disconnects {} · wrong {}",
            took.as_secs_f64(),
            stats.counts.moves,
            stats.counts.disconnects,
            stats.wrong.count()
        ));
        Ok(())
    }
}

impl Findings {
    fn conclude(&mut self, stats: &Stats, stopped: &Value) {
        self.pause = Pause::of(stats);
        self.migrations = stats.counts.moves;
        self.answered = stats.counts.answered;
        self.disconnects = stats.counts.disconnects;
        self.wrong_messages = stats.wrong.count();
        self.complaints.extend(complaints(stats, Expect::Continuity, None, Excuses::default()));
        for what in ["killed_workers", "lost", "cut_connections"] {
            if stopped[what] != 0 {
                self.complaints.push(format!("the primary counts {what}: {}", stopped[what]));
            }
        }
    }

    fn print(&self) {
        let bytes = |it: f64| format!("{it} bytes");
        let restarts: Vec<_> = self.restarts_s.iter().map(|it| format!("{it:.1} s")).collect();
        let silent = self.silent_cpu_percent;
        println!();
        for (what, found) in [
            ("WebSockets", format!("{} on {} workers", self.connections, self.workers)),
            ("of which send 5 a second", format!("{}, the others 1 a minute", self.frequent)),
            ("all open within", format!("{:.1} s", self.open_s)),
            ("each in its worker", bytes(self.memory.workers)),
            ("each in primary and keeper", bytes(self.memory.front)),
            ("each in the kernel, both ends", bytes(self.memory.kernel)),
            ("each in its client", bytes(self.memory.clients)),
            ("in its worker after all acts", bytes(self.memory_afterwards.workers)),
            ("the primary while all are silent", words(silent, |it| format!("{it} % of a core"))),
            ("rolling restarts", restarts.join(", ")),
            ("from primary's death to page", format!("{:.1} ms", self.take_over_ms)),
            ("migrations", self.migrations.to_string()),
            ("messages that met one", self.pause.count.to_string()),
            (
                "and their answers",
                format!(
                    "p50 {:.1} ms · p99 {:.1} ms · max {:.1} ms, of both kinds of senders",
                    self.pause.p50_ms, self.pause.p99_ms, self.pause.max_ms
                ),
            ),
            ("messages answered", self.answered.to_string()),
            ("wrong messages", self.wrong_messages.to_string()),
            ("disconnects", self.disconnects.to_string()),
        ] {
            println!("{what:>32}  {found}");
        }
        for complaint in &self.complaints {
            println!("not as expected: {complaint}");
        }
        if self.complaints.is_empty() {
            println!("Nobody was disconnected, and no message was lost, doubled or out of order.");
        }
    }
}

fn words(found: Option<f64>, said: impl Fn(f64) -> String) -> String {
    found.map_or_else(|| "not measured".to_owned(), said)
}
