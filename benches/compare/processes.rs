//! The processes that a comparison starts: each leads a process group of its
//! own, writes to files in the run's folder, and doesn't outlive its guard.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

use crate::{Result, interrupt, procfs};

/// How long a front may take until it serves.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A folder for the configurations and logs of one run.
pub(crate) struct RunFolder(PathBuf);

impl RunFolder {
    pub(crate) fn create() -> Result<Self> {
        let started = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_nanos();
        let name = format!("sticky-lb-bench-{}-{started}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)
            .map_err(|error| format!("failed to create {}: {error}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // A folder left behind in the temporary files harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One process; it and all its descendants end when this is dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
    output: PathBuf,
    errors: PathBuf,
}

impl Process {
    /// `name` must be unique within the run.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &RunFolder) -> Result<Self> {
        let output = folder.file(&format!("{name}.out"));
        let errors = folder.file(&format!("{name}.err"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("failed to start {name}: {error}"))?;
        Ok(Self { child, name: name.to_owned(), output, errors })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it wrote to standard output up to now.
    pub(crate) fn output(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.output)?)
    }

    /// # Errors
    ///
    /// If it ended; says what it left on standard error.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let said = fs::read_to_string(&self.errors)?;
        let last = said.lines().last().unwrap_or("nothing on standard error");
        Err(format!("{} ended by itself ({status}): {last}", self.name).into())
    }

    fn signal_group(&self, signal: Signal) {
        // An error means that nobody is left to be told.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Held by descriptor, so that no stranger is hit if a pid was reused.
        let descendants = procfs::descendants(self.pid())
            .into_iter()
            .filter_map(open_process)
            .collect::<Vec<_>>();
        self.signal_group(Signal::TERM);
        let deadline = Instant::now() + STOP_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
        self.signal_group(Signal::KILL);
        for descendant in descendants {
            // Some lead groups of their own. Most are gone by now.
            let _ = pidfd_send_signal(descendant, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn open_process(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Polls until it holds; gives up after [`START_LIMIT`].
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    while !holds()? {
        interrupt::check()?;
        if Instant::now() > deadline {
            return Err(format!("waited {START_LIMIT:?} for {what} in vain").into());
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// A port that nobody listens on just now.
pub(crate) fn free_port() -> io::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}
