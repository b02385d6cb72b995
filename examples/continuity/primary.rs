//! The primary that the demo acts on: a process of its own, in a directory of its own, steered by
//! the commands that an operator types.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::{Duration, sleep, timeout};

/// How long it may take to come up, and to end.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The descriptor that it writes its events to.
const EVENTS_FD: i32 = 3;

/// Between two looks at its workers.
const LOOK: Duration = Duration::from_millis(250);

/// A running primary. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Primary {
    binary: PathBuf,
    directory: TempDir,
    process: Child,
    events: Lines<BufReader<pipe::Receiver>>,
    address: SocketAddr,
}

/// The program's name, in the primary's directory.
const NAME: &str = "sticky-lb";

/// Puts a program where another may run still, which goes on as it was.
fn install(binary: &Path, program: &Path) -> Result<(), Box<dyn Error>> {
    // Not written over: it may be the same file by another name.
    let _ = fs::remove_file(program);
    if fs::hard_link(binary, program).is_err() {
        fs::copy(binary, program)?;
    }
    Ok(())
}

/// What `sticky-lb` is beside an example.
pub(crate) fn binary_beside(example: &Path) -> PathBuf {
    let target = example.parent().and_then(Path::parent).unwrap_or_else(|| Path::new("."));
    target.join("sticky-lb")
}

impl Primary {
    /// Starts it and waits until its workers serve.
    pub(crate) async fn start(
        binary: &Path,
        flags: &[OsString],
        worker: &[OsString],
    ) -> Result<Self, Box<dyn Error>> {
        let directory = TempDir::with_prefix("continuity-")?;
        let program = directory.path().join(NAME);
        install(binary, &program)?;
        let (events, events_end) = std::io::pipe()?;
        let mut command = std::process::Command::new(program);
        let mapping = FdMapping { parent_fd: events_end.into(), child_fd: EVENTS_FD };
        command.fd_mappings(vec![mapping])?;
        let mut command = Command::from(command);
        command.args(["--events-fd", &EVENTS_FD.to_string()]);
        command.args(["--port", "0"]).args(flags).arg("--").args(worker);
        command.current_dir(&directory).env("STICKY_LB_RUNTIME_DIR", directory.path());
        command.stdin(Stdio::null()).stdout(File::create(directory.path().join("output"))?);
        command.stderr(File::create(directory.path().join("log"))?);
        // Ctrl-C is for the demo, which ends it after its clients.
        command.process_group(0).kill_on_drop(true);
        let process =
            command.spawn().map_err(|error| format!("cannot run {}: {error}", binary.display()))?;
        // Holds its end of the pipe.
        drop(command);
        let events = pipe::Receiver::from_owned_fd(OwnedFd::from(events))?;
        let events = BufReader::new(events).lines();
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let mut primary = Self { binary: binary.to_owned(), directory, process, events, address };
        let port = primary.event("listening").await?["port"].as_u64().ok_or("it has no port")?;
        primary.address.set_port(port.try_into()?);
        primary.event("ready").await?;
        Ok(primary)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it has its files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The program that an upgrade runs.
    pub(crate) fn program(&self) -> PathBuf {
        self.directory.path().join(NAME)
    }

    /// What that is a copy of.
    pub(crate) fn original(&self) -> &Path {
        &self.binary
    }

    /// After somebody has replaced it.
    pub(crate) fn restore_program(&self) -> Result<(), Box<dyn Error>> {
        install(&self.binary, &self.program())
    }

    /// Its workers.
    pub(crate) async fn workers(&self) -> Result<Vec<Value>, Box<dyn Error>> {
        let workers = self.order(&["workers".to_owned(), "--json".to_owned()]).await?;
        Ok(workers.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// Waits for an event.
    async fn event(&mut self, event: &str) -> Result<Value, Box<dyn Error>> {
        let found = async {
            while let Ok(Some(line)) = self.events.next_line().await {
                match serde_json::from_str::<Value>(&line) {
                    Ok(line) if line["event"] == event => return Some(line),
                    _ => {}
                }
            }
            None
        };
        let problem = match timeout(TIMEOUT, found).await {
            Ok(Some(line)) => return Ok(line),
            Ok(None) => "it has ended",
            Err(_) => "it takes too long",
        };
        Err(format!("the primary is not {event}, {problem}; its log:\n{}", self.log()).into())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Runs a command of an operator, and waits for what it says.
    pub(crate) async fn order(&self, words: &[String]) -> Result<String, Box<dyn Error>> {
        let mut command = Command::new(&self.binary);
        command.args(words).env("STICKY_LB_RUNTIME_DIR", self.directory.path());
        let done = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(format!("sticky-lb {} failed: {said}", words.join(" ")).into());
        }
        Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    /// Waits until no worker starts or drains and no session is to move any more; no longer than `limit`. Whether it is so.
    pub(crate) async fn settled(&self, limit: Duration) -> Result<bool, Box<dyn Error>> {
        let settled = async {
            loop {
                let workers = self.workers().await?;
                let moving = ["spawning", "standby", "draining", "aborted", "killed"];
                let status = self.status().await?;
                let is_moving = |worker: &Value| moving.iter().any(|it| worker["state"] == *it);
                if !workers.iter().any(is_moving) && status["rebalance_pending"] == 0 {
                    return Ok(());
                }
                sleep(LOOK).await;
            }
        };
        timeout(limit, settled).await.map_or(Ok(false), |settled| settled.map(|()| true))
    }

    /// Ends it as an operator does: what it says in the end.
    pub(crate) async fn stop(mut self) -> Result<Value, Box<dyn Error>> {
        let pid = self.process.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        kill_process(pid.ok_or("the primary has ended")?, Signal::TERM)?;
        let stopped = self.event("stopped").await?;
        timeout(TIMEOUT, self.process.wait()).await??;
        Ok(stopped)
    }
}
