//! A run: this process as keeper or as primary, until the end; what is to be said of it, a line of JSON
//! each.

use std::collections::BTreeMap;
use std::error::Error;

use serde_json::json;

use crate::cli::Logged;
use crate::cli::role::{self, Role};
use crate::config::Config;
use crate::keeper;
use crate::log::{LogFormat, LogHandle};
use crate::primary::{Primary, PrimaryEnd, Startup, StatusEvent};
use crate::settings::change::{needs_restart, renames_control};
use crate::settings::reader::{Reader, Reading};
use crate::supervisor::output::Output;
use crate::supervisor::pool::snapshot::After;
use crate::supervisor::pool::{Summary, chain};
use crate::supervisor::rollout::{Outcome, Report};
use crate::system::keeper::main_pid;

/// How long tasks may take to end that block.
const BLOCKED: std::time::Duration = std::time::Duration::from_millis(200);

/// Runs as keeper or as primary. What is wrong with the configuration is said by the keeper alone:
/// without one that is right, it starts no primary.
pub(super) fn run(reader: &Reader) -> Result<u8, Box<dyn Error>> {
    // Before the configuration is read: a successor may have to go on by another one.
    let left = role::may_be_successor().then(Startup::find).transpose()?;
    let config = read(reader, left.as_ref())?;
    let log = crate::log::start(&config.log);
    let format = config.log.format;
    let role = Role::of(&config);
    let result = match role {
        Role::Keeper(settings) => {
            keeper::run(settings, config.source.as_deref()).map_err(Into::into)
        }
        Role::KeptPrimary | Role::Primary => {
            if role == Role::KeptPrimary {
                role::be_kept();
            }
            left.map_or_else(Startup::find, Ok)
                .map_err(Into::into)
                .and_then(|startup| run_primary(reader, &config, startup, &log))
                .map(|()| super::DONE)
        }
    };
    result.map_err(|error: Box<dyn Error>| match format {
        LogFormat::Text => error,
        // Whoever reads the log as JSON reads nothing else.
        LogFormat::Json => {
            tracing::error!(error = chain(&*error), "primary failed");
            Logged.into()
        }
    })
}

/// A kept primary has the configuration that its keeper has read; after a crash the primary goes on by
/// the one that the one before ran on, whatever has become of the file; unless that cannot be.
fn read(reader: &Reader, left: Option<&Startup>) -> Result<Config, Box<dyn Error>> {
    let again = left.and_then(Startup::source).map(|source| reader.read_again(source));
    let Reading { config, .. } = match again {
        Some(Ok(reading)) => reading,
        Some(Err(_)) | None => reader.read()?,
    };
    Ok(config)
}

/// Runs a primary, and again in the same process where it was to become its successor and couldn't.
fn run_primary(
    reader: &Reader,
    config: &Config,
    mut startup: Startup,
    log: &LogHandle,
) -> Result<(), Box<dyn Error>> {
    loop {
        let output = startup.start_output(config.output.clone())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let end = runtime.block_on(run_once(reader, config, startup, &output, log))?;
        runtime.shutdown_timeout(BLOCKED);
        let PrimaryEnd::HandedOver(handover, program) = end else { return Ok(()) };
        // Its threads have ended.
        drop(output);
        let Err(refused) = handover.become_successor(&program);
        startup = Startup::after_refusal(*refused)?;
    }
}

async fn run_once(
    reader: &Reader,
    config: &Config,
    startup: Startup,
    output: &Output,
    log: &LogHandle,
) -> Result<PrimaryEnd, Box<dyn Error>> {
    let reread = || reread(reader, config);
    let report = |milestone| say(output, milestone);
    let result = match Primary::listen(config.clone(), startup) {
        Ok(primary) => primary.run(output.clone(), log.clone(), reread, report).await,
        Err(error) => Err(error),
    };
    match &result {
        Ok(PrimaryEnd::HandedOver(..)) => return Ok(result?),
        Ok(PrimaryEnd::Ended(summary)) => say_stopped(output, summary),
        Err(_) => {}
    }
    // Also where it has failed: workers may have said why.
    output.clone().finish().await;
    Ok(result?)
}

/// What a running primary cannot change is said, and stays as it is.
fn reread(reader: &Reader, begun_with: &Config) -> Result<Config, String> {
    let Reading { config, .. } = reader.read().map_err(|error| error.to_string())?;
    let settings = needs_restart(begun_with, &config);
    if !settings.is_empty() {
        let settings = settings.join(", ");
        tracing::warn!(settings, "only a new primary can change these, they stay as they are");
    }
    if renames_control(begun_with, &config) {
        let name = &begun_with.name;
        tracing::warn!(name, "control socket keeps the old name, workers' lines have the new one");
    }
    Ok(config)
}

/// One line of JSON on standard output for whoever waits for it.
fn say(output: &Output, milestone: StatusEvent) {
    let pid = main_pid();
    let line = match milestone {
        StatusEvent::Listening(address) => json!({
            "event": "listening", "address": address.to_string(), "port": address.port(), "pid": pid,
        }),
        StatusEvent::Ready(workers) => json!({"event": "ready", "workers": workers, "pid": pid}),
        StatusEvent::RolledOut(report) => rolled_out(&report),
        StatusEvent::ReloadRefused(error) => {
            json!({"event": "reloaded", "result": "refused", "reason": error})
        }
        StatusEvent::Scaled(workers) => json!({"event": "scaled", "workers": workers}),
        StatusEvent::Resumed(workers, after) => {
            let event = match after {
                After::Upgrade => "upgraded",
                After::Crash => "recovered",
            };
            let version = env!("CARGO_PKG_VERSION");
            json!({"event": event, "result": "done", "workers": workers, "pid": pid, "version": version})
        }
        StatusEvent::UpgradeRefused(reason) => {
            json!({"event": "upgraded", "result": "refused", "reason": reason})
        }
    };
    output.say(line.to_string());
}

fn rolled_out(report: &Report) -> serde_json::Value {
    let (result, reason) = match &report.outcome {
        Outcome::Done => ("done", String::new()),
        Outcome::Aborted(slot, reason) => ("aborted", format!("worker in slot {slot} {reason}")),
        Outcome::Superseded => ("superseded", "a newer one was ordered".to_owned()),
        Outcome::Stopped => ("stopped", "everything is to end".to_owned()),
    };
    json!({
        "event": "reloaded", "result": result, "reason": reason, "rollout": report.number,
        "trigger": report.trigger.to_string(), "replaced": report.replaced, "of": report.of,
    })
}

fn say_stopped(output: &Output, summary: &Summary) {
    let counters = &summary.counters;
    let recovery_failures: BTreeMap<_, _> = counters.survival.recovery_failures().into();
    let line = json!({
        "event": "stopped", "how": if summary.at_once { "at once" } else { "graceful" },
        "killed_workers": summary.killed, "cut_connections": summary.cut,
        "accepted": counters.accepted, "acknowledged": counters.acknowledged,
        "redispatched": counters.redispatched, "fallbacks": counters.fallbacks,
        "refused": counters.refused, "stalls": counters.stalls, "lost": counters.lost,
        "accept_errors": counters.accept_errors, "sessions_moved": counters.moved,
        "sessions_returned": counters.returned, "sessions_lost": counters.sessions_lost,
        "clients_closed": counters.shed, "sessions_recovered": counters.survival.recovered,
        "session_recovery_failures": recovery_failures,
    });
    output.say(line.to_string());
}
