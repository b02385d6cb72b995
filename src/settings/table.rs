//! The one table of all settings: name, help, default and check of each.
//!
//! The flag `--max-restarts` is the key `max_restarts`. A value in a file is checked by the flag of
//! the same name.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, ValueHint};

use crate::settings::control::Control;
use crate::settings::drain::Drain;
use crate::settings::general::General;
use crate::settings::hand_off::HandOff;
use crate::settings::interface::InterfaceArgs;
use crate::settings::lifecycle::{Lifecycle, Restarts};
use crate::settings::limits::Limits;
use crate::settings::output::Output;
use crate::settings::placement::PlacementArgs;
use crate::settings::scaling::Scaling;
use crate::settings::triggers::Triggers;
use crate::settings::worker::Worker;

/// Arguments on the command line: the settings, and where to read more of them.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Read settings from this file [default: sticky-lb.toml in the current directory, if it exists].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Use this profile of the configuration file: workers also get the variables in `[env_NAME]`.
    #[arg(long = "env", value_name = "NAME")]
    pub profile: Option<String>,
    /// Same as --keeper=false.
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

/// All settings.
#[derive(Clone, Debug, Args)]
#[expect(missing_docs, reason = "each part has its own documentation")]
pub struct Table {
    #[command(flatten)]
    pub general: General,
    #[command(flatten)]
    pub worker: Worker,
    #[command(flatten)]
    pub interface: InterfaceArgs,
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

/// The table as a command, which lists and parses the settings.
pub(super) fn settings() -> Command {
    Table::augment_args(Command::default().no_binary_name(true))
}

/// The setting with this key in a file.
pub(super) fn find<'a>(settings: &'a Command, key: &str) -> Option<&'a Arg> {
    settings.get_arguments().find(|setting| names(setting).any(|name| name == key))
}

/// The keys of a setting: its own first, then its second names.
pub(super) fn names(setting: &Arg) -> impl Iterator<Item = String> {
    let aliases = setting.get_all_aliases().unwrap_or_default().into_iter();
    let aliases = aliases.map(|alias| alias.replace('-', "_"));
    std::iter::once(setting.get_id().to_string()).chain(aliases)
}

/// Whether its values are paths, relative to the place where they are written.
pub(super) fn is_path(setting: &Arg) -> bool {
    setting.get_value_hint() == ValueHint::AnyPath
}

/// Whether it names a file for workers' lines.
pub(super) fn is_log_file(setting: &Arg) -> bool {
    ["out_file", "error_file", "log_file"].contains(&setting.get_id().as_str())
}

/// Whether it may have several values.
pub(super) fn is_list(setting: &Arg) -> bool {
    matches!(setting.get_action(), clap::ArgAction::Append)
}

/// The command-line arguments that set it.
pub(super) fn typed(setting: &Arg, values: &[OsString]) -> Vec<OsString> {
    let Some(flag) = setting.get_long() else { return values.to_vec() };
    // An empty list replaces a default of several values.
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

/// Checks a setting's values. The error says what was expected.
pub(super) fn check(settings: &Command, setting: &Arg, values: &[OsString]) -> Result<(), String> {
    let mut arguments = typed(setting, values);
    if setting.is_positional() {
        arguments.insert(0, "--".into());
    }
    let result = settings.clone().try_get_matches_from(arguments);
    result.map(drop).map_err(|error| expected(&error))
}

/// Parses all settings together.
pub(super) fn parse(
    settings: Command,
    arguments: Vec<OsString>,
) -> Result<(Table, ArgMatches), Error> {
    let matches = settings.try_get_matches_from(arguments)?;
    Ok((Table::from_arg_matches(&matches)?, matches))
}

/// A check's message without its text about flags.
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
