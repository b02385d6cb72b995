//! A run: this process as keeper or as primary, until the end. Scripts get its events as lines of JSON,
//! a person at a terminal a line and a sentence.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::events::{EventWriter, EventsFile};
use crate::cli::failure::{DONE, Logged};
use crate::cli::greeting::{Terminal, summary};
use crate::cli::role::{self, Role};
use crate::config::Config;
use crate::control::report::NotApplied;
use crate::error::chain;
use crate::keeper;
use crate::log::{LogFormat, LogHandle};
use crate::primary::{Occasion, Primary, PrimaryEnd, Reread, Startup, StatusEvent};
use crate::protocol::ids::Timestamp;
use crate::settings::before::Before;
use crate::settings::change::{left_by_reload, left_by_upgrade, needs_restart, renames_control};
use crate::settings::reader::{Reader, Reading};
use crate::supervisor::output::Output;
use crate::supervisor::pool::Summary;
use crate::supervisor::pool::snapshot::After;
use crate::supervisor::rollout::{Outcome, Report};
use crate::system::keeper::{is_kept, main_pid};

/// How long blocking tasks may take to end.
const BLOCKING_TIMEOUT: Duration = Duration::from_millis(200);

/// How long an event waits for the log.
const LOG_TIMEOUT: Duration = Duration::from_millis(200);

/// How long the end waits for the readers of all that is printed, together.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The last event waits at least so long for its reader, when others have taken all the time.
const LAST_EVENT_TIMEOUT: Duration = Duration::from_millis(300);

/// Runs as keeper or as primary. The keeper alone reports errors of the configuration: with a wrong one
/// it starts no primary.
pub(super) fn run(reader: &Reader, events: Option<RawFd>) -> Result<u8, Box<dyn Error>> {
    // Before anything else takes descriptors.
    let events = events.map(EventsFile::take).transpose()?;
    // Before the configuration is read: a successor may have to go on by another one.
    let left = role::may_be_successor().then(Startup::find).transpose()?;
    // Before: a file that was not there then may be there now.
    let workers = left.as_ref().and_then(Startup::workers_source);
    let workers = workers.and_then(|source| reader.read_again(source).ok());
    let reading = read(reader, left.as_ref())?;
    let applied = RefCell::new(workers.unwrap_or_else(|| reading.clone()));
    let Reading { config, warnings, .. } = reading;
    let log = crate::log::start(&config.log);
    let format = config.log.format;
    let role = Role::of(&config);
    let result = match role {
        Role::Keeper(settings) => {
            log.start_thread()?;
            log_warnings(&warnings);
            let events = events.map(|it| it.as_fd().try_clone_to_owned()).transpose()?;
            keeper::run(settings, config.source.as_deref(), events).map_err(Into::into)
        }
        Role::KeptPrimary | Role::Primary => {
            if role == Role::KeptPrimary {
                role::be_kept();
            }
            left.map_or_else(Startup::find, Ok)
                .map_err(Into::into)
                .and_then(|startup| {
                    log.start_thread()?;
                    if role == Role::Primary {
                        log_warnings(&warnings);
                    }
                    let (config, events) = (&config, events.as_ref());
                    Run { reader, config, applied: &applied, events, log: &log }.primary(startup)
                })
                .map(|()| DONE)
        }
    };
    let result = result.map_err(|error: Box<dyn Error>| match format {
        LogFormat::Text => error,
        // A reader of JSON lines takes no other text.
        LogFormat::Json => {
            tracing::error!(error = chain(&*error), "primary failed");
            Logged.into()
        }
    });
    log.flush();
    result
}

/// A kept primary has the configuration that its keeper has read. A successor goes on with what the one before
/// has had; if that is refused now, everything is read again.
fn read(reader: &Reader, left: Option<&Startup>) -> Result<Reading, Box<dyn Error>> {
    let before = left.and_then(Startup::before);
    let again = match before.map(|(primary, pool, after)| Before::new(primary, pool, after)) {
        Some(before) => Some(reader.read_after(&before)),
        None => left.and_then(Startup::source).map(|source| reader.read_again(Some(source))),
    };
    Ok(match again {
        Some(Ok(reading)) => reading,
        Some(Err(_)) | None => reader.read()?,
    })
}

fn log_warnings(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!(warning, "setting is hardly meant");
    }
}

/// The surroundings of all primaries of this process.
#[derive(Clone, Copy, Debug)]
struct Run<'a> {
    reader: &'a Reader,
    config: &'a Config,
    /// Workers run with these settings.
    applied: &'a RefCell<Reading>,
    events: Option<&'a EventsFile>,
    log: &'a LogHandle,
}

impl Run<'_> {
    /// Runs a primary, and again in the same process where an upgrade has failed in its last step.
    fn primary(self, mut startup: Startup) -> Result<(), Box<dyn Error>> {
        loop {
            let mut config = self.config.clone();
            let output = startup.start_output(&mut config)?;
            let log = self.log.clone();
            let flush_log = move || log.flush_within(LOG_TIMEOUT);
            let events = EventWriter::start(self.events, flush_log)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (end, flush_by) = runtime.block_on(self.once(config, startup, &output, &events));
            runtime.shutdown_timeout(BLOCKING_TIMEOUT);
            let left = || flush_by.since(Timestamp::now());
            events.finish(left().max(LAST_EVENT_TIMEOUT));
            self.log.flush_within(left());
            let PrimaryEnd::HandedOver { handover, program, .. } = end? else { return Ok(()) };
            // Its threads have ended.
            drop(output);
            self.set_events_inherited(true);
            let Err(refused) = handover.become_successor(&program);
            self.set_events_inherited(false);
            startup = Startup::after_refusal(*refused)?;
        }
    }

    /// Runs one primary to its end. Returns until when the readers of what it has printed have time.
    async fn once(
        self,
        config: Config,
        startup: Startup,
        output: &Output,
        events: &EventWriter,
    ) -> (Result<PrimaryEnd, Box<dyn Error>>, Timestamp) {
        let reread = |occasion| reread(self, occasion);
        let terminal = Terminal::find();
        let mut address = None;
        let report = |event| {
            events.write(&event_line(&event));
            if let Some((address, workers)) = all_ready(&event, &mut address)
                && let Some(terminal) = terminal
            {
                self.log.print(&terminal.ready(address, workers));
            }
        };
        let mut started = Timestamp::now();
        let result = match Primary::listen(config, startup) {
            Ok(primary) => {
                started = primary.started();
                primary.run(output.clone(), self.log.clone(), reread, report).await
            }
            Err(error) => Err(error),
        };
        if let Ok(PrimaryEnd::HandedOver { flush_by, .. }) = result {
            return (result.map_err(Into::into), flush_by);
        }
        let flush_by = Timestamp::now() + FLUSH_TIMEOUT;
        // Also where it has failed: workers may have printed why.
        output.clone().finish(FLUSH_TIMEOUT).await;
        if let Ok(PrimaryEnd::Ended(ended)) = &result {
            events.write(&stopped_line(ended));
            if terminal.is_some() {
                let uptime = Timestamp::now().since(started).as_secs_f64();
                self.log.print(&summary(ended, uptime));
            }
        }
        (result.map_err(Into::into), flush_by)
    }

    fn set_events_inherited(self, inherited: bool) {
        self.events.iter().for_each(|it| it.set_inherited(inherited));
    }
}

/// The address and the number of workers, once all of them are ready.
fn all_ready(event: &StatusEvent, address: &mut Option<SocketAddr>) -> Option<(SocketAddr, u16)> {
    match event {
        StatusEvent::Listening(listening) => {
            *address = Some(*listening);
            None
        }
        StatusEvent::Ready(workers) => address.take().map(|address| (address, *workers)),
        _ => None,
    }
}

/// Reads the configuration again. Settings that the occasion doesn't change keep their values; log lines
/// name them.
fn reread(run: Run<'_>, occasion: Occasion) -> Result<Reread, String> {
    let reading = run.reader.read().map_err(|error| error.to_string())?;
    let (begun_with, config) = (run.config, reading.config.clone());
    if occasion == Occasion::Upgrade {
        let not_applied = left_by_upgrade(begun_with, &run.applied.borrow(), &reading);
        return Ok(Reread { config, not_applied });
    }
    log_warnings(&reading.warnings);
    let mut not_applied = left_by_reload(begun_with, &config);
    // A primary that was upgraded has read that it has none, and has one still.
    if is_kept() && begun_with.keeper.is_none() && config.keeper.is_none() {
        let (setting, applied_by) = ("keeper".to_owned(), "restart".to_owned());
        not_applied.push(NotApplied { setting, applied_by });
    }
    let settings = needs_restart(begun_with, &config);
    if !settings.is_empty() {
        let settings = settings.join(", ");
        tracing::warn!(settings, "only a new primary can change these, they stay as they are");
    }
    if renames_control(begun_with, &config) {
        let name = &begun_with.name;
        tracing::warn!(name, "control socket keeps the old name, workers' lines have the new one");
    }
    run.applied.replace(reading);
    Ok(Reread { config, not_applied })
}

fn event_line(event: &StatusEvent) -> Value {
    let pid = main_pid();
    match event {
        StatusEvent::Listening(address) => json!({
            "event": "listening", "address": address.to_string(), "port": address.port(), "pid": pid,
        }),
        StatusEvent::Ready(workers) => json!({"event": "ready", "workers": workers, "pid": pid}),
        StatusEvent::RolledOut(report) => rolled_out(report),
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
    }
}

fn rolled_out(report: &Report) -> Value {
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

fn stopped_line(summary: &Summary) -> Value {
    let (counters, ended) = (&summary.counters, &summary.ended);
    let recovery_failures: BTreeMap<_, _> = counters.survival.recovery_failures().into();
    json!({
        "event": "stopped", "pid": main_pid(), "how": if summary.at_once { "forced" } else { "graceful" },
        "killed_workers": summary.killed, "cut_connections": ended.cut,
        "finished_connections": ended.finished, "migrated_connections": ended.migrated,
        "closed_connections": ended.closed, "protected_connections": ended.protected,
        "accepted": counters.accepted, "acknowledged": counters.acknowledged,
        "redispatched": counters.redispatched, "fallbacks": counters.fallbacks,
        "refused": counters.refused, "stalls": counters.stalls, "lost": counters.lost,
        "accept_errors": counters.accept_errors, "sessions_migrated": counters.moved,
        "migrations_failed": counters.returned, "sessions_lost": counters.sessions_lost,
        "clients_closed": counters.closed, "sessions_recovered": counters.survival.recovered,
        "session_recovery_failures": recovery_failures,
    })
}
