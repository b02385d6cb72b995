//! The one table of everything that can be set: each setting's name, help, default and check.
//!
//! A flag `--max-restarts` is the key `max_restarts`. What a file says is checked by the flag of
//! the same name, so that there is one check for both.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, ValueHint};

use crate::settings::control::Control;
use crate::settings::drain::Drain;
use crate::settings::general::General;
use crate::settings::hand_off::HandOff;
use crate::settings::lifecycle::{Lifecycle, Restarts};
use crate::settings::limits::Limits;
use crate::settings::output::Output;
use crate::settings::placement::PlacementArgs;
use crate::settings::scaling::Scaling;
use crate::settings::triggers::Triggers;
use crate::settings::worker::Worker;

/// What may be typed: where settings are, and settings.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Configuration file [default: sticky-lb.toml in the current directory, if there is one].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Profile of the configuration file: workers get the variables of its `[env_NAME]` too.
    #[arg(long = "env", value_name = "NAME")]
    pub profile: Option<String>,
    /// The same as --keeper=false.
    #[arg(long, overrides_with = "keeper")]
    pub no_keeper: bool,
    /// Write events (listening, ready, reloaded, stopped and others), a line of JSON each, to this
    /// descriptor, which must be open for writing [default: none].
    #[arg(long, value_name = "N")]
    pub events_fd: Option<i32>,
    /// The settings.
    #[command(flatten)]
    pub table: Table,
}

/// Everything that can be set.
#[derive(Clone, Debug, Args)]
#[expect(missing_docs, reason = "each part says what it is")]
pub struct Table {
    #[command(flatten)]
    pub general: General,
    #[command(flatten)]
    pub worker: Worker,
    #[command(flatten)]
    pub lifecycle: Lifecycle,
    #[command(flatten)]
    pub drain: Drain,
    #[command(flatten)]
    pub restarts: Restarts,
    #[command(flatten)]
    pub scaling: Scaling,
    #[command(flatten)]
    pub limits: Limits,
    #[command(flatten)]
    pub triggers: Triggers,
    #[command(flatten)]
    pub placement: PlacementArgs,
    #[command(flatten)]
    pub hand_off: HandOff,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub control: Control,
}

/// The table, to be asked for its settings.
pub(super) fn settings() -> Command {
    Table::augment_args(Command::default().no_binary_name(true))
}

/// The setting that a key of a file stands for.
pub(super) fn find<'a>(settings: &'a Command, key: &str) -> Option<&'a Arg> {
    settings.get_arguments().find(|setting| names(setting).any(|name| name == key))
}

/// The keys of a setting: its own first, then those that other programs have for it.
pub(super) fn names(setting: &Arg) -> impl Iterator<Item = String> {
    let aliases = setting.get_all_aliases().unwrap_or_default().into_iter();
    let aliases = aliases.map(|alias| alias.replace('-', "_"));
    std::iter::once(setting.get_id().to_string()).chain(aliases)
}

/// Whether its values are paths, which start where they were written.
pub(super) fn is_path(setting: &Arg) -> bool {
    setting.get_value_hint() == ValueHint::AnyPath
}

/// Whether it may have several values.
pub(super) fn is_list(setting: &Arg) -> bool {
    matches!(setting.get_action(), clap::ArgAction::Append)
}

/// What would have to be typed to set it.
pub(super) fn typed(setting: &Arg, values: &[OsString]) -> Vec<OsString> {
    let Some(flag) = setting.get_long() else { return values.to_vec() };
    // An empty list where there is a longer one by default.
    if values.is_empty() && setting.get_default_values().len() > 1 {
        return vec![format!("--{flag}").into()];
    }
    let value = |value: &OsString| {
        let mut argument = OsString::from(format!("--{flag}="));
        argument.push(value);
        argument
    };
    values.iter().map(value).collect()
}

/// Whether a setting may have these values; if not, what was expected.
pub(super) fn check(settings: &Command, setting: &Arg, values: &[OsString]) -> Result<(), String> {
    let mut arguments = typed(setting, values);
    if setting.is_positional() {
        arguments.insert(0, "--".into());
    }
    let result = settings.clone().try_get_matches_from(arguments);
    result.map(drop).map_err(|error| expected(&error))
}

/// All settings together.
pub(super) fn parse(
    settings: Command,
    arguments: Vec<OsString>,
) -> Result<(Table, ArgMatches), Error> {
    let matches = settings.try_get_matches_from(arguments)?;
    Ok((Table::from_arg_matches(&matches)?, matches))
}

/// What a check says, without what it says about flags.
fn expected(error: &Error) -> String {
    match (error.kind(), error.get(ContextKind::ValidValue)) {
        (ErrorKind::InvalidValue, Some(ContextValue::Strings(valid))) => {
            let valid: Vec<_> = valid.iter().map(|value| format!("`{value}`")).collect();
            format!("expected {}", valid.join(" or "))
        }
        _ => match std::error::Error::source(error) {
            Some(source) => source.to_string(),
            None => error.to_string().lines().next().unwrap_or_default().to_owned(),
        },
    }
}
