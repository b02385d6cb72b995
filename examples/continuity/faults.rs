//! What is done to the primary itself: it is upgraded, its successor is broken, it is killed; and its
//! workers are.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::primary::Primary;
use crate::scenario::Broken;

/// How long anything may take to be as it was.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// A configuration that nobody can read.
const NONSENSE: &str = "workers = \"many\"\nno such key";

impl Primary {
    /// How everything is.
    pub(crate) async fn status(&self) -> Result<Value, Box<dyn Error>> {
        let status = self.order(&["status".to_owned(), "--json".to_owned()]).await?;
        Ok(serde_json::from_str(&status)?)
    }

    /// Becomes its successor; the same process, as far as anybody sees.
    pub(crate) async fn upgrade(&self) -> Result<(), Box<dyn Error>> {
        let before = self.status().await?;
        self.order(&["upgrade".to_owned()]).await?;
        let after = self.status().await?;
        for what in ["pid", "primary_pid"] {
            if after[what] != before[what] {
                return Err(format!("upgrade has changed {what}: {before} {after}").into());
            }
        }
        Ok(())
    }

    /// Orders an upgrade that must come to nothing. What the command said.
    pub(crate) async fn refuse_upgrade(&self, broken: Broken) -> Result<String, Box<dyn Error>> {
        let before = self.status().await?;
        let program = self.program();
        let configuration = self.directory().join("sticky-lb.toml");
        match broken {
            Broken::Program => replace(&program, "#!/bin/false\n")?,
            Broken::Configuration => fs::write(&configuration, NONSENSE)?,
            Broken::State => replace(&program, &fake_admin(self.original())?)?,
        }
        let refused = self.order(&["upgrade".to_owned()]).await;
        let _ = fs::remove_file(&configuration);
        self.restore_program()?;
        let Err(reason) = refused else {
            return Err(format!("an upgrade that must be refused was done: {broken:?}").into());
        };
        let after = self.status().await?;
        if (&after["upgrades"], &after["pid"]) != (&before["upgrades"], &before["pid"]) {
            return Err(format!("a refused upgrade was done all the same: {after}").into());
        }
        Ok(reason.to_string())
    }

    /// Kills the primary. How long until a client that has come meanwhile is served.
    pub(crate) async fn crash(&self) -> Result<Duration, Box<dyn Error>> {
        let before = self.status().await?;
        kill(&before["primary_pid"])?;
        let killed = Instant::now();
        timeout(TIMEOUT, served(self.address())).await.map_err(|_| "no client is served")??;
        let took = killed.elapsed();
        self.until("a new primary", |status| {
            status["recoveries"].as_u64() > before["recoveries"].as_u64()
        })
        .await?;
        Ok(took)
    }

    /// Kills the worker that serves a slot, and waits until another one serves there. How many sessions
    /// it had; `killed` hears when.
    pub(crate) async fn crash_worker(
        &self,
        slot: u64,
        killed: impl FnOnce(Instant),
    ) -> Result<u64, Box<dyn Error>> {
        let serving = |workers: &[Value]| {
            let found = workers.iter().find(|it| it["slot"] == slot && it["state"] == "serving");
            found.cloned()
        };
        let worker = serving(&self.workers().await?).ok_or("nobody serves in the slot")?;
        let at = Instant::now();
        killed(at);
        kill(&worker["pid"])?;
        let generation = &worker["generation"];
        loop {
            let next = serving(&self.workers().await?);
            if next.is_some_and(|next| next["generation"] != *generation) {
                return Ok(worker["sessions"].as_u64().unwrap_or_default());
            }
            if at.elapsed() > TIMEOUT {
                return Err("no worker follows the one that was killed".into());
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until everything is so.
    pub(crate) async fn until(
        &self,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        let found = async {
            loop {
                // Between two primaries nobody answers.
                if self.status().await.is_ok_and(|status| is_so(&status)) {
                    return;
                }
                sleep(LOOK).await;
            }
        };
        Ok(timeout(TIMEOUT, found).await.map_err(|_| format!("never came: {what}"))?)
    }
}

/// Whoever runs it meanwhile goes on with what it was.
fn replace(program: &Path, script: &str) -> Result<(), Box<dyn Error>> {
    let fresh = program.with_extension("new");
    fs::write(&fresh, script)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    Ok(fs::rename(&fresh, program)?)
}

/// A successor that finds a state of another version.
fn fake_admin(original: &Path) -> Result<String, Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let (own, original) = (own.display(), original.display());
    Ok(format!("#!/bin/sh\nexec '{own}' newer-state '{original}' -- \"$@\"\n"))
}

fn kill(pid: &Value) -> Result<(), Box<dyn Error>> {
    let pid = pid.as_i64().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    Ok(kill_process(pid.ok_or("no such process")?, Signal::KILL)?)
}

/// Waits until a client is served.
async fn served(address: SocketAddr) -> std::io::Result<()> {
    loop {
        let mut stream = TcpStream::connect(address).await?;
        let request = b"GET / HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        // One that the old primary had accepted and not handed over ends.
        if stream.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 200") {
            return Ok(());
        }
    }
}
