//! Clients in processes of their own, as one may not have as many descriptors as there are clients.

use std::error::Error;
use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Duration, timeout};

use crate::load::LoadOptions;
use crate::stats::Stats;

/// Clients of a process: it may have 20,000 descriptors, or somewhat less.
const EACH: u32 = 12_500;

/// How long they may take to open, and to do what they are ordered to.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What all of them do at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nobody says anything new.
    Hold,
    /// They do again.
    Resume,
    /// They go on, and say what they have seen so far.
    Report,
    /// When all is answered, everybody goes.
    Finish,
}

impl Order {
    fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Resume => "resume",
            Self::Report => "report",
            Self::Finish => "finish",
        }
    }
}

/// Processes of clients at work. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct LoadProcesses(Vec<LoadProcess>);

#[derive(Debug)]
struct LoadProcess {
    process: Child,
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
}

impl LoadProcesses {
    /// Lets all clients come, and waits until they are there.
    pub(crate) async fn open(
        address: SocketAddr,
        options: &LoadOptions,
    ) -> Result<Self, Box<dyn Error>> {
        let count = options.connections.div_ceil(EACH).max(1);
        // Evenly, and the frequent ones as well.
        let share = |whole: u32, nth: u32| whole * (nth + 1) / count - whole * nth / count;
        let mut first = options.first;
        let mut processes = Vec::new();
        for nth in 0..count {
            let own = LoadOptions {
                connections: share(options.connections, nth),
                frequent: share(options.frequent, nth),
                opening: (options.opening / count).max(1),
                first,
                ..options.clone()
            };
            first += own.connections;
            processes.push(LoadProcess::start(address, &own)?);
        }
        let mut processes = Self(processes);
        processes.reports().await?;
        Ok(processes)
    }

    /// What all clients have seen, once they have done what they were ordered to.
    pub(crate) async fn order(&mut self, order: Order) -> Result<Stats, Box<dyn Error>> {
        for it in &mut self.0 {
            it.orders.write_all(format!("{}\n", order.word()).as_bytes()).await?;
        }
        self.reports().await
    }

    async fn reports(&mut self) -> Result<Stats, Box<dyn Error>> {
        let mut all = Stats::default();
        for process in &mut self.0 {
            let line = timeout(TIMEOUT, process.reports.next_line());
            let line = line.await.map_err(|_| "clients take too long")??;
            all.add(serde_json::from_str(&line.ok_or("a process of clients has ended")?)?);
        }
        Ok(all)
    }

    /// Their process ids.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u64> {
        self.0.iter().filter_map(|it| it.process.id().map(u64::from))
    }
}

impl LoadProcess {
    fn start(address: SocketAddr, options: &LoadOptions) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["client", "--orders", "--address", &address.to_string()]);
        for (flag, value) in options.flags() {
            command.args([flag, &value]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is for the process that orders, which ends these.
        command.process_group(0).kill_on_drop(true);
        let mut process = command.spawn()?;
        let orders = process.stdin.take().ok_or("no orders")?;
        let reports = process.stdout.take().ok_or("no reports")?;
        Ok(Self { process, orders, reports: BufReader::new(reports).lines() })
    }
}
