//! The primary's own log, on standard error: its levels, which can be changed while it runs, and its
//! formats. Messages are constant, their values are fields. On a terminal lines begin with the time of
//! day, elsewhere with date and time in UTC.
//!
//! # Levels
//!
//! The configured levels apply until an operator sets others. Those apply until they are reset, or until
//! a reload finds other levels in the configuration than before.
//!
//! # Floods
//!
//! Lines that workers and clients can provoke are limited by rate, and a reader of standard error that
//! doesn't read stops nothing: what is left out is counted, and said.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

mod json;
mod levels;
mod limit;
mod writer;

pub use levels::{Levels, PARTS};

use json::JsonLines;
use limit::LimitLayer;
use writer::LogWriter;
#[cfg(feature = "demo")]
pub(crate) use writer::write_all;
#[cfg(feature = "demo")]
pub(crate) use writer::write_to_people;

/// How long the end waits for lines that are not written yet.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// The levels below which lines are left out.
    pub levels: Levels,
    /// The format of lines.
    pub format: LogFormat,
}

/// The format of the log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

/// The running log: changes its levels and where it is written.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
    state: Arc<Mutex<State>>,
    writer: LogWriter,
}

#[derive(Debug)]
struct State {
    current: Levels,
    configured: Levels,
}

impl LogHandle {
    /// Sets the levels that an operator has ordered.
    pub fn change(&self, levels: &Levels) {
        self.apply(&mut self.lock(), levels);
    }

    /// Takes the levels that a reload has found in the configuration. They apply if they differ from
    /// the ones before.
    pub fn configure(&self, levels: &Levels) {
        let mut state = self.lock();
        if state.configured != *levels {
            state.configured = levels.clone();
            self.apply(&mut state, levels);
        }
    }

    /// The levels that apply now.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.lock().current.clone()
    }

    /// The levels of the configuration.
    #[must_use]
    pub fn configured(&self) -> Levels {
        self.lock().configured.clone()
    }

    /// Has a thread write the log from now on, so that no other thread waits for standard error. To be
    /// followed by [`Self::flush`] before the process ends or runs another program.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a thread.
    pub fn start_thread(&self) -> std::io::Result<()> {
        self.writer.start_thread()
    }

    /// Waits until all lines so far are written, for 2 s at most.
    pub fn flush(&self) {
        self.flush_within(FLUSH_TIMEOUT);
    }

    /// As [`Self::flush`], for `timeout` at most.
    pub fn flush_within(&self, timeout: Duration) {
        self.writer.flush(timeout);
    }

    /// Prints a line for people between the log's.
    pub fn print(&self, line: &str) {
        self.writer.write_lines(format!("{line}\n").as_bytes());
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

/// Starts the log of this process, in which panics are lines too.
#[must_use]
pub fn start(settings: &LogSettings) -> LogHandle {
    let LogSettings { levels, format } = settings;
    let (filter, handle) = handle(levels);
    let writer = handle.writer.clone();
    let lines = match format {
        LogFormat::Text => {
            let lines =
                fmt::layer().with_target(false).with_ansi(is_coloured()).with_writer(writer);
            if std::io::stderr().is_terminal() {
                lines.with_timer(TimeOfDay).boxed()
            } else {
                lines.boxed()
            }
        }
        LogFormat::Json => {
            let lines = fmt::layer().event_format(JsonLines).fmt_fields(JsonFields::new());
            lines.with_writer(writer).boxed()
        }
    };
    let (limit, waker) = (handle.writer.limit().clone(), handle.writer.clone());
    let limit = LimitLayer { limit, wake: move || waker.wake() };
    tracing_subscriber::registry().with(filter).with(limit).with(lines).init();
    log_panics(*format, handle.clone());
    handle
}

/// `14:03:59`, in the local zone.
#[derive(Debug)]
struct TimeOfDay;

impl FormatTime for TimeOfDay {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{}", jiff::Zoned::now().strftime("%H:%M:%S"))
    }
}

fn handle(levels: &Levels) -> (reload::Layer<Targets, Registry>, LogHandle) {
    let (layer, filter) = reload::Layer::new(levels.targets());
    let state = State { current: levels.clone(), configured: levels.clone() };
    let state = Arc::new(Mutex::new(state));
    (layer, LogHandle { filter, state, writer: LogWriter::default() })
}

fn is_coloured() -> bool {
    // https://no-color.org
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stderr().is_terminal() && !no_color && !is_dumb
}

/// Logs panics of any thread; in text and without the log's thread, Rust's own message comes first.
fn log_panics(format: LogFormat, handle: LogHandle) {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // Writes by itself, which might never end; the thread waits for nobody.
        if format == LogFormat::Text && !handle.writer.has_thread() {
            default(info);
        }
        log_panic(info);
        handle.flush();
    }));
}

/// From now on a thread that panics ends the process, once the panic is logged.
pub fn abort_on_panic() {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        hook(info);
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
