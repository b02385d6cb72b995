//! The resulting value of each setting, and its origin: the output of `sticky-lb check`.

use std::collections::BTreeMap;

use clap::ArgMatches;

use crate::config::Config;
use crate::settings::file::Variable;
use crate::settings::layers::{Entry, Origin};
use crate::settings::{syntax, table};

/// A setting's resulting value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its key in a file.
    pub key: String,
    /// Its value in the syntax of a file; `None` if it is not set.
    pub text: Option<String>,
    /// Its origin.
    pub origin: Origin,
}

pub(super) fn values(
    matches: &ArgMatches,
    merged: &BTreeMap<String, Entry>,
    variables: &[Variable],
    config: &Config,
) -> Vec<Value> {
    let settings = table::settings();
    let derived = derived(config);
    let value = |setting: &clap::Arg| {
        let key = setting.get_id().to_string();
        let derived = derived.iter().find(|(name, _)| *name == key);
        let text = derived.map(|(_, text)| text.clone()).or_else(|| {
            let values = matches.get_raw(&key)?.map(|value| value.to_string_lossy().into_owned());
            Some(syntax::written(setting, &values.collect::<Vec<_>>()))
        });
        let origin = merged.get(&key).map_or(Origin::Default, |entry| entry.origin.clone());
        Value { key, text, origin }
    };
    let settings = settings.get_arguments().map(value);
    // Their values are often secrets, and this output is often public.
    let variables = variables.iter().map(|variable| Value {
        key: format!("env.{}", variable.name),
        text: None,
        origin: variable.origin.clone(),
    });
    settings.chain(variables).collect()
}

/// Values that depend on other settings or on the environment.
fn derived(config: &Config) -> Vec<(&'static str, String)> {
    let mut derived = vec![
        ("workers", config.workers.count.to_string()),
        ("ipv6_prefix", config.frontend.affinity.prefixes.v6.to_string()),
        (
            "lameduck",
            syntax::quoted(&humantime::format_duration(config.workers.lameduck).to_string()),
        ),
    ];
    if let Some(directory) = &config.workers.command.directory {
        derived.push(("cwd", syntax::quoted(&directory.to_string_lossy())));
    }
    if let Some(autoscale) = config.workers.autoscale {
        derived.push(("min_workers", autoscale.min_workers.to_string()));
        derived.push(("scale_up_load", autoscale.scale_up_load.to_string()));
    }
    let sizes = [
        ("max_memory_restart", config.workers.limits.max_memory_restart),
        ("max_memory_kill", config.workers.limits.max_memory_kill),
        ("max_draining_memory", config.workers.rollout.max_draining_memory),
    ];
    derived.extend(sizes.into_iter().filter_map(|(key, size)| Some((key, size?.to_string()))));
    derived
}
