//! Sources of settings: flags override the environment, which overrides the file, which overrides
//! defaults.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use crate::settings::control::NO_TOKEN;
use crate::settings::output::NO_FILE;
use crate::settings::problems::{SettingsError, fail_if_any};
use crate::settings::table;
use crate::settings::units::words;

/// Variables of the environment that set a key.
const VARIABLES: [(&str, &str); 2] = [("port", "PORT"), ("workers", "WEB_CONCURRENCY")];

/// A flag that sets another one's key.
const NO_KEEPER: &str = "no_keeper";

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The default.
    Default,
    /// A line of the configuration file.
    File {
        /// The file's name as given.
        name: String,
        /// The line, from 1.
        line: usize,
    },
    /// This variable of the environment.
    Variable(&'static str),
    /// This flag on the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A setting with its values and origin.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) values: Vec<OsString>,
    pub(super) origin: Origin,
}

impl Entry {
    /// Relative paths start at `folder`.
    pub(super) fn new(setting: &Arg, values: Vec<OsString>, origin: Origin, folder: &Path) -> Self {
        let is_path = |value: &OsString| {
            // In `watch = true` the value is no path.
            let switch = setting.get_num_args().is_some_and(|range| range.min_values() == 0);
            let word = switch && (value == "true" || value == "false");
            let none = setting.get_id() == "admin_token_file" && value == NO_TOKEN
                || table::is_log_file(setting) && value == NO_FILE;
            table::is_path(setting) && !word && !none
        };
        let rooted = |value: OsString| {
            if is_path(&value) { plain(&folder.join(value)).into_os_string() } else { value }
        };
        let values = values.into_iter().map(rooted).collect();
        Self { key: setting.get_id().to_string(), values, origin }
    }
}

/// The path without the `.` in `folder/./file`.
pub(super) fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Settings on the command line.
pub(super) fn typed(matches: &ArgMatches, here: &Path) -> Result<Vec<Entry>, SettingsError> {
    let settings = table::settings();
    let mut entries = Vec::new();
    for setting in settings.get_arguments() {
        let id = setting.get_id().as_str();
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let flag = match setting.get_long() {
            Some(flag) => format!("--{flag}"),
            None => "COMMAND".to_owned(),
        };
        let mut values: Vec<_> =
            matches.get_raw(id).into_iter().flatten().map(ToOwned::to_owned).collect();
        if id == "args" {
            values = split(&values)
                .map_err(|text| SettingsError { lines: vec![format!("{flag}: {text}")] })?;
        }
        check_home(setting, &values)
            .map_err(|text| SettingsError { lines: vec![format!("{flag}: {text}")] })?;
        entries.push(Entry::new(setting, values, Origin::Flag(flag), here));
    }
    if matches.get_flag(NO_KEEPER) {
        let origin = Origin::Flag("--no-keeper".to_owned());
        entries.push(Entry { key: "keeper".to_owned(), values: vec!["false".into()], origin });
    }
    Ok(entries)
}

/// Refuses `~/file` where a path is expected: only a shell replaces it, and not in a file or behind `=`.
pub(super) fn check_home(setting: &Arg, values: &[OsString]) -> Result<(), String> {
    let is_home = |value: &OsString| value == "~" || value.as_encoded_bytes().starts_with(b"~/");
    if table::is_path(setting) && values.iter().any(is_home) {
        return Err("expected a path that is written out: ~ is for a shell".to_owned());
    }
    Ok(())
}

fn split(values: &[OsString]) -> Result<Vec<OsString>, String> {
    let words = values.iter().map(|value| words(&value.to_string_lossy()));
    let words = words.collect::<Result<Vec<_>, _>>()?;
    Ok(words.into_iter().flatten().map(OsString::from).collect())
}

/// The variable of the environment that sets this key, if one does.
pub(super) fn variable(key: &str) -> Option<&'static str> {
    VARIABLES.iter().find(|(name, _)| *name == key).map(|(_, variable)| *variable)
}

/// The settings of the environment. An empty variable is not set.
pub(super) fn variables(
    settings: &Command,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Entry>, SettingsError> {
    let mut entries = Vec::new();
    let mut lines = Vec::new();
    for (key, name) in VARIABLES {
        let value = variable(name).filter(|value| !value.is_empty());
        let Some((setting, value)) = table::find(settings, key).zip(value) else { continue };
        let entry = Entry::new(setting, vec![value], Origin::Variable(name), Path::new(""));
        match table::check(settings, setting, &entry.values) {
            Ok(()) => entries.push(entry),
            Err(text) => {
                lines.push(format!("{}: {text}, found {:?}", entry.origin, entry.values[0]));
            }
        }
    }
    fail_if_any(lines)?;
    Ok(entries)
}

/// Merges the layers; later ones override earlier ones.
pub(super) fn merge(layers: Vec<Vec<Entry>>) -> BTreeMap<String, Entry> {
    let mut merged = BTreeMap::new();
    for layer in layers {
        // Arguments belong to their command: a command of a later layer discards them.
        if layer.iter().any(|entry| entry.key == "command") {
            merged.remove("args");
        }
        merged.extend(layer.into_iter().map(|entry| (entry.key.clone(), entry)));
    }
    merged
}

/// The command-line arguments with the same meaning.
pub(super) fn arguments(settings: &Command, merged: &BTreeMap<String, Entry>) -> Vec<OsString> {
    let mut arguments = Vec::new();
    let mut command = Vec::new();
    for entry in merged.values() {
        match table::find(settings, &entry.key) {
            Some(setting) if setting.is_positional() => command = entry.values.clone(),
            Some(setting) => arguments.extend(table::typed(setting, &entry.values)),
            None => {}
        }
    }
    if !command.is_empty() {
        arguments.push("--".into());
        arguments.append(&mut command);
    }
    arguments
}
