//! The primary's own log, on standard error: its levels, which can be changed while it runs, and
//! what its lines look like.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

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

/// The level below which lines are left out, for all parts and for single ones:
/// `info,frontend=debug`.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels {
    text: String,
    targets: Targets,
}

impl FromStr for Levels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let level = text
            .parse::<tracing::Level>()
            .map_err(|_| "expected error, warn, info, debug or trace".to_owned())?;
        Ok(Self { text: text.to_owned(), targets: Targets::new().with_default(level) })
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Changes the levels of the running log.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
    levels: Arc<Mutex<Levels>>,
}

impl LogHandle {
    /// Those that count now.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these levels count.
    pub fn change(&self, levels: &Levels) {
        // Fails only where there is no log any more.
        let _ = self.filter.reload(levels.targets.clone());
        *self.levels.lock().unwrap_or_else(PoisonError::into_inner) = levels.clone();
    }
}

/// Begins the log of this process.
#[must_use]
pub fn start(settings: &LogSettings) -> LogHandle {
    let (filter, handle) = reload::Layer::new(settings.levels.targets.clone());
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let lines = match settings.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    LogHandle { filter: handle, levels: Arc::new(Mutex::new(settings.levels.clone())) }
}
