//! The primary's own log, on standard error: its levels, which can be changed while it runs, and
//! what its lines look like. Messages are constant, what belongs to them are fields.
//!
//! # Which levels count
//!
//! Those of the configuration, until an operator orders others. The operator's count until they are
//! taken back, or until a reload finds others in the configuration than it had before: a reload that
//! finds the same changes nothing.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

mod json;
mod levels;

pub use levels::{Levels, PARTS};

use json::JsonLines;

/// The log, as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// What is left out.
    pub levels: Levels,
    /// What lines look like.
    pub format: LogFormat,
}

/// What lines of the log look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Changes the levels of the running log.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    current: Levels,
    configured: Levels,
}

impl LogHandle {
    /// From now on these levels count: an operator wants them.
    pub fn change(&self, levels: &Levels) {
        self.apply(&mut self.lock(), levels);
    }

    /// A reload has found these levels in the configuration. They count if they are others than it
    /// had before.
    pub fn configure(&self, levels: &Levels) {
        let mut state = self.lock();
        if state.configured != *levels {
            state.configured = levels.clone();
            self.apply(&mut state, levels);
        }
    }

    /// The levels that count now.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.lock().current.clone()
    }

    /// The levels of the configuration.
    #[must_use]
    pub fn configured(&self) -> Levels {
        self.lock().configured.clone()
    }

    fn apply(&self, state: &mut State, levels: &Levels) {
        // Fails only where there is no log any more.
        let _ = self.filter.reload(levels.targets());
        state.current = levels.clone();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins the log of this process, in which panics are lines too.
#[must_use]
pub fn start(settings: &LogSettings) -> LogHandle {
    let LogSettings { levels, format } = settings;
    let (filter, handle) = handle(levels);
    let lines = match format {
        LogFormat::Text => {
            let lines = fmt::layer().with_target(false).with_ansi(is_coloured());
            lines.with_writer(std::io::stderr).boxed()
        }
        LogFormat::Json => {
            let lines = fmt::layer().event_format(JsonLines).fmt_fields(JsonFields::new());
            lines.with_writer(std::io::stderr).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    log_panics(*format);
    handle
}

fn handle(levels: &Levels) -> (reload::Layer<Targets, Registry>, LogHandle) {
    let (layer, filter) = reload::Layer::new(levels.targets());
    let state = State { current: levels.clone(), configured: levels.clone() };
    (layer, LogHandle { filter, state: Arc::new(Mutex::new(state)) })
}

fn is_coloured() -> bool {
    // https://no-color.org
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !no_color
}

/// Panics of any thread are lines of the log; in text, what Rust says of them stands before.
fn log_panics(format: LogFormat) {
    let said = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if format == LogFormat::Text {
            said(info);
        }
        log_panic(info);
    }));
}

/// A thread that panics ends the process, once that is said.
pub fn abort_on_panic() {
    let said = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        said(info);
        std::process::abort();
    }));
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let location = info.location().map(ToString::to_string);
    let payload = info.payload();
    let reason = payload.downcast_ref::<&str>().copied();
    let reason = reason.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(thread = thread.name(), location, reason, backtrace, "thread panicked");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_an_operator_count_until_the_configuration_changes_its_own() {
        let levels = |text: &str| text.parse::<Levels>().unwrap();
        let (_filter, handle) = handle(&levels("info"));
        let counts =
            |handle: &LogHandle| (handle.levels().to_string(), handle.configured().to_string());
        let both = |current: &str, configured: &str| (current.to_owned(), configured.to_owned());
        assert_eq!(counts(&handle), both("info", "info"));
        handle.change(&levels("info,frontend=debug"));
        assert_eq!(counts(&handle), both("info,frontend=debug", "info"));
        handle.configure(&levels("info"));
        assert_eq!(counts(&handle), both("info,frontend=debug", "info"), "it says as before");
        handle.configure(&levels("warn"));
        assert_eq!(counts(&handle), both("warn", "warn"));
        handle.change(&levels("trace"));
        handle.change(&handle.configured());
        assert_eq!(counts(&handle), both("warn", "warn"), "taken back");
    }
}
