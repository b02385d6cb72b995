//! Settings that are valid and hardly meant: warnings, each with its place.
//!
//! Pure: refuses nothing.

use std::collections::BTreeMap;

use clap::Command;

use crate::config::Config;
use crate::settings::file::Variable;
use crate::settings::layers::{Entry, Origin};
use crate::settings::table;
use crate::supervisor::shell;

/// Times below are more likely meant in seconds.
const SHORT_MILLIS: u64 = 100;

/// Sizes below are more likely meant in a larger unit.
const SMALL_BYTES: u64 = 1 << 20;

/// All warnings, in the order of keys, then of variables.
pub(super) fn doubts(
    settings: &Command,
    merged: &BTreeMap<String, Entry>,
    variables: &[Variable],
    config: &Config,
) -> Vec<String> {
    let units = merged.values().filter_map(|entry| Some(at(entry, &unit(settings, entry)?)));
    let command = merged.get("command").and_then(|entry| {
        let word = shell::operator(&config.workers.command)?;
        let hint = shell::hint(&config.workers.command)?;
        Some(at(entry, &format!("the program gets {word:?} as an argument: {hint}")))
    });
    let port = config.listener.port;
    let variables = variables.iter().filter_map(|it| {
        Some(format!("{}: variable {}: {}", it.origin, it.name, of_variable(settings, it, port)?))
    });
    units.chain(command).chain(variables).collect()
}

fn at(entry: &Entry, text: &str) -> String {
    match &entry.origin {
        origin @ Origin::File { .. } => format!("{origin}: {}: {text}", entry.key),
        origin => format!("{origin}: {text}"),
    }
}

/// A bare number whose unit is smaller than anybody means.
fn unit(settings: &Command, entry: &Entry) -> Option<String> {
    let [value] = &entry.values[..] else { return None };
    let number: u64 = value.to_str()?.parse().ok().filter(|number| *number > 0)?;
    let names = table::find(settings, &entry.key)?.get_value_names()?;
    match names.first()?.as_str() {
        "TIME" if number < SHORT_MILLIS => Some(format!(
            "{number} is {number} ms, for {number} seconds write {number}s, and {number}ms if it is meant"
        )),
        "SIZE" if number < SMALL_BYTES => Some(format!(
            "{number} is {number} bytes, for megabytes write {number}M, and {number}B if it is meant"
        )),
        _ => None,
    }
}

fn of_variable(settings: &Command, variable: &Variable, port: u16) -> Option<String> {
    match &*variable.name {
        "PORT" if variable.value == port.to_string() => None,
        "PORT" => Some(
            "has no effect: workers get the port that clients connect to, which `port` sets, above \
             the first table"
                .to_owned(),
        ),
        "STICKY_LB_LOG" => None,
        name if name == "NODE_APP_INSTANCE" || name.starts_with("STICKY_LB_") => {
            Some("has no effect: the primary sets it for each worker".to_owned())
        }
        name => {
            table::find(settings, &name.replace('-', "_"))?;
            Some(format!(
                "is one of workers here: the setting {name} stands above the first table, such as [env]"
            ))
        }
    }
}
