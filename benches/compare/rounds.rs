//! The order of things: all fronts are started, take turns round by round, so
//! that whatever else the machine does hits all of them, and at last hold idle
//! connections.

use std::thread;
use std::time::Duration;

use crate::fronts::{self, Front, Start};
use crate::machine::Machine;
use crate::options::{FrontName, Options};
use crate::processes::RunFolder;
use crate::statistics::Samples;
use crate::watchers::Watchers;
use crate::{Result, connection_load, echo_load, interrupt, procfs};

/// First connections after the start are slower, and not what is measured.
const WARM_UP: Duration = Duration::from_millis(200);
/// Until a front has tidied up after the last connections.
const SETTLE: Duration = Duration::from_millis(300);

/// Whether a row has figures.
pub(crate) enum Outcome {
    Measured,
    Skipped(String),
    Failed(String),
}

/// All that is found out about a front.
pub(crate) struct Row {
    pub(crate) name: FrontName,
    pub(crate) outcome: Outcome,
    pub(crate) connections: Samples,
    /// CPU µs of the front per connection; empty for `direct`.
    pub(crate) cpu: Samples,
    /// CPU µs of all processes per connection: load, front and workers.
    pub(crate) all_cpu: Samples,
    pub(crate) echoes: Samples,
    pub(crate) idle: Option<Idle>,
    pub(crate) failed_connections: u64,
    pub(crate) first_failure: Option<String>,
}

/// What one idle connection costs the front.
#[derive(Clone, Copy)]
pub(crate) struct Idle {
    pub(crate) bytes: f64,
    pub(crate) descriptors: f64,
}

impl Row {
    fn new(name: FrontName) -> Self {
        Self {
            name,
            outcome: Outcome::Measured,
            connections: Samples::default(),
            cpu: Samples::default(),
            all_cpu: Samples::default(),
            echoes: Samples::default(),
            idle: None,
            failed_connections: 0,
            first_failure: None,
        }
    }

    pub(crate) fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}

/// A row with its front, while that runs.
struct Entry {
    row: Row,
    front: Option<Front>,
}

/// What a run comes to.
pub(crate) struct Findings {
    pub(crate) rows: Vec<Row>,
    /// The share of the machine that other programs used during the rounds.
    pub(crate) used_by_others: f64,
}

pub(crate) fn measure(options: &Options) -> Result<Findings> {
    let folder = RunFolder::create()?;
    let mut entries = Vec::new();
    for name in options.fronts() {
        eprintln!("starting {}", name.title());
        entries.push(Entry::start(name, options.workers, &folder)?);
    }
    let machine = Machine::look()?;
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        for entry in &mut entries {
            entry.step(|row, front| take_turn(row, front, options.seconds))?;
        }
        // Nobody shall always come right after the top_client one.
        entries.rotate_left(1);
    }
    let used_by_others = machine.used_by_others()?;
    eprintln!("holding idle connections");
    for entry in &mut entries {
        entry.step(|row, front| hold_idle(row, front, options.idle_connections()))?;
    }
    let mut rows: Vec<_> = entries.into_iter().map(|entry| entry.row).collect();
    rows.sort_by_key(|row| row.name as u8);
    Ok(Findings { rows, used_by_others })
}

impl Entry {
    fn start(name: FrontName, workers: u16, folder: &RunFolder) -> Result<Self> {
        let mut entry = Self { row: Row::new(name), front: None };
        match fronts::start(name, workers, folder) {
            Ok(Start::Serves(front)) => entry.front = Some(front),
            Ok(Start::Skipped(reason)) => entry.row.outcome = Outcome::Skipped(reason),
            Err(error) => entry.row.outcome = Outcome::Failed(error.to_string()),
        }
        entry.step(|_, front| connection_load::run(front.port, WARM_UP).map(drop))?;
        Ok(entry)
    }

    /// Does something with the front if it runs. If that fails, the front is
    /// stopped and the others go on.
    fn step(&mut self, act: impl FnOnce(&mut Row, &Front) -> Result<()>) -> Result<()> {
        if let Some(front) = &self.front
            && let Err(error) = act(&mut self.row, front)
        {
            self.row.outcome = Outcome::Failed(error.to_string());
            self.front = None;
        }
        interrupt::check()
    }
}

fn take_turn(row: &mut Row, front: &Front, length: Duration) -> Result<()> {
    let watchers = front.admin.map(Watchers::start).transpose()?;
    let all_pids = front.all_pids();
    let (before, all_before) = (procfs::cpu_time(&front.pids)?, procfs::cpu_time(&all_pids)?);
    let turn = connection_load::run(front.port, length)?;
    let all_spent = procfs::cpu_time(&all_pids)?.saturating_sub(all_before);
    let spent = procfs::cpu_time(&front.pids)?.saturating_sub(before);
    row.failed_connections += turn.failed;
    row.first_failure = row.first_failure.take().or(turn.first_failure);
    if turn.served == 0 {
        let reason = row.first_failure.clone().unwrap_or_default();
        return Err(format!("no connection was served: {reason}").into());
    }
    let served = turn.served as f64;
    row.connections.push(served / turn.took.as_secs_f64());
    if !front.pids.is_empty() {
        row.cpu.push(spent.as_secs_f64() * 1e6 / served);
    }
    row.all_cpu.push(all_spent.as_secs_f64() * 1e6 / served);
    row.echoes.push(echo_load::round_trips(front.port, length)?);
    drop(watchers);
    Ok(())
}

fn hold_idle(row: &mut Row, front: &Front, count: usize) -> Result<()> {
    if front.pids.is_empty() {
        return Ok(());
    }
    thread::sleep(SETTLE);
    let memory = procfs::memory(&front.pids)?;
    let descriptors = procfs::descriptors(&front.pids)?;
    let held = echo_load::open(front.port, count)?;
    thread::sleep(SETTLE);
    let per_connection = |before: u64, after: u64| (after as f64 - before as f64) / count as f64;
    row.idle = Some(Idle {
        bytes: per_connection(memory, procfs::memory(&front.pids)?),
        descriptors: per_connection(descriptors, procfs::descriptors(&front.pids)?),
    });
    drop(held);
    Ok(())
}
