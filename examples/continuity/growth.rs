//! Pictures of what grows with the number of sessions and of slots, and of what doesn't.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};

use crate::arrivals::page;
use crate::chart::{Chart, Line};
use crate::load::{Load, LoadOptions};
use crate::memory::cpu_time;
use crate::primary::Primary;
use crate::scale::{Findings, Plan, measure, own_binary, start};
use crate::times::{Durations, milliseconds};

/// The role `growth`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Numbers of sessions, of which memory, pause and take-over are measured.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    sessions: Option<Vec<u32>>,
    /// Numbers of protected sessions, whose workers are killed.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    protected: Option<Vec<u32>>,
    /// Numbers of slots, of which the processor time of a connection is measured.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    slots: Option<Vec<u16>>,
    /// Measures nothing, and draws what was measured before.
    #[arg(long, conflicts_with_all = ["sessions", "protected", "slots"])]
    draw: bool,
    /// Where figures are kept. Those that were there and are not measured now stay.
    #[arg(long, value_name = "FILE", default_value = "benches/growth.json")]
    figures: PathBuf,
    /// Where pictures are written.
    #[arg(long, value_name = "FOLDER", default_value = "src/guide/images")]
    pictures: PathBuf,
}

/// Without any of the three.
const SESSIONS: [u32; 5] = [1_000, 5_000, 20_000, 50_000, 100_000];
/// The primary has a descriptor of each, and uses no more than half of its 20,000 for them.
const PROTECTED: [u32; 4] = [1_000, 2_500, 5_000, 10_000];
const SLOTS: [u16; 4] = [2, 8, 64, 512];

impl Options {
    /// Those that were asked for, or all if nothing was.
    fn numbers<N: Copy>(&self, asked: Option<&Vec<N>>, all: &[N]) -> Vec<N> {
        let none = self.sessions.is_none() && self.protected.is_none() && self.slots.is_none();
        match asked {
            Some(asked) => asked.clone(),
            None if none && !self.draw => all.to_vec(),
            None => Vec::new(),
        }
    }
}

/// What was measured.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Figures {
    sessions: Vec<Findings>,
    protected: Vec<TakeOver>,
    slots: Vec<HandOff>,
}

/// From the kill -9 of a worker to the first message of those that have its sessions then.
#[derive(Debug, Deserialize, Serialize)]
struct TakeOver {
    /// Of all workers.
    sessions: u32,
    /// That went on.
    count: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// The primary's processor time of a connection.
#[derive(Debug, Deserialize, Serialize)]
struct HandOff {
    slots: u16,
    /// In each round, the least first.
    micros: Vec<f64>,
}

pub(crate) async fn run(options: Options) -> Result<bool, Box<dyn Error>> {
    let mut figures: Figures = match fs::read_to_string(&options.figures) {
        Ok(text) => serde_json::from_str(&text)?,
        Err(_) => Figures::default(),
    };
    let binary = own_binary()?;
    for connections in options.numbers(options.sessions.as_ref(), &SESSIONS) {
        let found = measure(&binary, &plan(connections)).await?;
        if !found.complaints.is_empty() {
            return Err(found.complaints.join(", ").into());
        }
        put(&mut figures.sessions, found, |it| it.connections);
        figures.write(&options)?;
    }
    for sessions in options.numbers(options.protected.as_ref(), &PROTECTED) {
        let found = take_over(&binary, sessions).await?;
        put(&mut figures.protected, found, |it| it.sessions);
        figures.write(&options)?;
    }
    for slots in options.numbers(options.slots.as_ref(), &SLOTS) {
        let found = hand_off(&binary, slots).await?;
        put(&mut figures.slots, found, |it| it.slots.into());
        figures.write(&options)?;
    }
    for (name, chart) in figures.charts() {
        let path = options.pictures.join(format!("growth-{name}.svg"));
        fs::write(&path, chart.svg())?;
        println!("{}", path.display());
    }
    Ok(true)
}

/// In its place, and instead of one of the same size.
fn put<F>(figures: &mut Vec<F>, found: F, size: impl Fn(&F) -> u32) {
    figures.retain(|it| size(it) != size(&found));
    figures.push(found);
    figures.sort_by_key(size);
}

/// Few sessions migrate often, so that enough messages meet them.
fn plan(connections: u32) -> Plan {
    Plan {
        connections,
        frequent: None,
        workers: WORKERS,
        silence: 0,
        restarts: if connections < 10_000 { 10 } else { 3 },
        brief: true,
    }
}

/// Slots, where sessions are counted.
const WORKERS: u16 = 8;

/// Workers that are killed, one after the other.
const KILLED: u64 = 5;

/// Between two of them: time enough for another spare to be ready.
const PAUSE: Duration = Duration::from_secs(3);

/// How long nothing may be settled.
const SETTLE: Duration = Duration::from_secs(60);

async fn take_over(binary: &Path, sessions: u32) -> Result<TakeOver, Box<dyn Error>> {
    let primary = start(binary, WORKERS, true).await?;
    // A few say something: the others are at rest, as most are at most times.
    let options = LoadOptions { connections: sessions, opening: 10_000, ..LoadOptions::silent() };
    eprintln!("{sessions} protected WebSockets are opened");
    let mut load = Load::start(primary.address(), options);
    load.opened().await;
    sleep(PAUSE).await;
    let stats = Rc::clone(&load.shared);
    for slot in 0..KILLED {
        let killed = primary.crash_worker(slot, |at| stats.stats.borrow_mut().killed = Some(at));
        killed.await?;
        sleep(PAUSE).await;
        primary.settled(SETTLE).await?;
    }
    load.finish().await;
    primary.stop().await?;
    let times: Durations = stats.stats.borrow().after_deaths.clone();
    eprintln!("{} went on: {}", times.count(), times.words());
    let [p50_ms, p99_ms, max_ms] =
        [0.5, 0.99, 1.0].map(|share| milliseconds(times.quantile(share)));
    Ok(TakeOver { sessions, count: times.count(), p50_ms, p99_ms, max_ms })
}

/// Clients that ask for a page at a time.
const AT_ONCE: u32 = 16;

/// How often processor time is measured, and for how long.
const ROUNDS: u32 = 7;
const ROUND: Duration = Duration::from_secs(2);

async fn hand_off(binary: &Path, slots: u16) -> Result<HandOff, Box<dyn Error>> {
    eprintln!("{slots} workers are started");
    let primary = start(binary, slots, false).await?;
    // The first ones need more.
    pages(&primary, ROUND).await?;
    let mut micros = Vec::new();
    for _ in 0..ROUNDS {
        micros.push(pages(&primary, ROUND).await?);
    }
    micros.sort_by(f64::total_cmp);
    primary.stop().await?;
    eprintln!("microseconds of the primary a connection: {micros:?}");
    Ok(HandOff { slots, micros })
}

/// Asks for pages for so long, each from another address. Microseconds of the primary for each.
async fn pages(primary: &Primary, length: Duration) -> Result<f64, Box<dyn Error>> {
    let pid = primary.status().await?["primary_pid"].as_u64().ok_or("no primary")?;
    let (before, until) = (cpu_time(pid)?, Instant::now() + length);
    let mut clients = JoinSet::new();
    for number in 0..AT_ONCE {
        clients.spawn_local(ask(number, primary.address(), until));
    }
    let mut served = 0;
    while let Some(asked) = clients.join_next().await {
        served += asked??;
    }
    let cpu = cpu_time(pid)? - before;
    Ok((cpu.as_secs_f64() * 1e8 / f64::from(served)).round() / 1e2)
}

/// One page after the other. How many.
async fn ask(first: u32, address: SocketAddr, until: Instant) -> std::io::Result<u32> {
    let mut served = 0;
    while Instant::now() < until {
        let answer = page(first + served * AT_ONCE, address, LoadOptions::silent().sources).await?;
        if !answer.starts_with(b"HTTP/1.1 200") {
            return Err(std::io::Error::other("no page"));
        }
        served += 1;
    }
    Ok(served)
}

impl Figures {
    fn write(&self, options: &Options) -> Result<(), Box<dyn Error>> {
        Ok(fs::write(&options.figures, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// All pictures, and their names.
    fn charts(&self) -> [(&'static str, Chart<'_>); 4] {
        let of_sessions = |name, value: fn(&Findings) -> f64| {
            let points = self.sessions.iter().map(|it| (it.connections.into(), value(it)));
            Line { name, points: points.collect() }
        };
        let of_protected = |name, value: fn(&TakeOver) -> f64| {
            let points = self.protected.iter().map(|it| (it.sessions.into(), value(it)));
            Line { name, points: points.collect() }
        };
        let of_slots = |it: &HandOff| (it.slots.into(), it.micros[it.micros.len() / 2]);
        let slots = Line { name: "primary", points: self.slots.iter().map(of_slots).collect() };
        let memory = Chart {
            title: "Memory of an idle WebSocket",
            across: "WebSockets, on 8 workers",
            up: "bytes each",
            lines: vec![
                of_sessions("kernel, both ends", |it| it.memory.kernel),
                of_sessions("its worker", |it| it.memory.workers),
                of_sessions("primary and keeper", |it| it.memory.front.max(0.0)),
            ],
        };
        let pause = Chart {
            title: "Answers to messages that meet a migration",
            across: "WebSockets, on 8 workers",
            up: "milliseconds",
            lines: vec![
                of_sessions("99 of 100 within", |it| it.pause.p99_ms),
                of_sessions("half within", |it| it.pause.p50_ms),
            ],
        };
        let take_over = Chart {
            title: "Take-over after a kill -9",
            across: "WebSockets, on 8 workers",
            up: "milliseconds",
            lines: vec![
                of_protected("of a worker: 99 of 100", |it| it.p99_ms),
                of_protected("half of its sessions", |it| it.p50_ms),
                of_sessions("of the primary", |it| it.take_over_ms),
            ],
        };
        let hand_off = Chart {
            title: "The primary's processor time of a connection",
            across: "slots",
            up: "microseconds",
            lines: vec![slots],
        };
        [("memory", memory), ("pause", pause), ("take-over", take_over), ("hand-off", hand_off)]
    }
}
