//! Levels of the log, for all parts and for single ones: lines below are left out.
//!
//! Pure. Parts are the folders of this crate, as the map in `lib.rs` has them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// The parts that may have a level of their own.
pub const PARTS: [&str; 12] = [
    "bus",
    "cli",
    "control",
    "frontend",
    "keeper",
    "link",
    "primary",
    "sessions",
    "settings",
    "supervisor",
    "system",
    "triggers",
];

/// From the fewest lines to all of them.
const LEVELS: [(&str, LevelFilter); 6] = [
    (OFF, LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];
const OFF: &str = "off";

/// The level below which lines are left out, for all parts and for single ones:
/// `info,frontend=debug,supervisor=off`. Without one for all, that is `info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    all: LevelFilter,
    parts: BTreeMap<&'static str, LevelFilter>,
}

impl Default for Levels {
    fn default() -> Self {
        Self { all: LevelFilter::INFO, parts: BTreeMap::new() }
    }
}

impl Levels {
    /// For the log's filter.
    pub(super) fn targets(&self) -> Targets {
        let part = |(part, level): (&&str, &LevelFilter)| (target(part), *level);
        Targets::new().with_default(self.all).with_targets(self.parts.iter().map(part))
    }
}

/// The prefix of the targets of a part's lines.
fn target(part: &str) -> String {
    format!("{}::{part}", env!("CARGO_CRATE_NAME"))
}

/// The part that a target belongs to; of other crates, the crate.
pub(super) fn part(target: &str) -> &str {
    let mut names = target.split("::");
    let first = names.next().unwrap_or(target);
    if first == env!("CARGO_CRATE_NAME") { names.next().unwrap_or(first) } else { first }
}

impl FromStr for Levels {
    type Err = String;

    /// Ignores case and spaces. Errors name the known parts and levels.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut levels = Self::default();
        for (index, entry) in text.split(',').enumerate() {
            let Some((part, level)) = entry.split_once('=') else {
                if index > 0 {
                    return Err(format!(
                        "{:?} has no part: only the first level may",
                        entry.trim()
                    ));
                }
                levels.all = for_all(entry)?;
                continue;
            };
            let part = known_part(part)?;
            if levels.parts.insert(part, level_of(level)?).is_some() {
                return Err(format!("{part} has two levels"));
            }
        }
        Ok(levels)
    }
}

fn for_all(text: &str) -> Result<LevelFilter, String> {
    match level_of(text)? {
        LevelFilter::OFF => Err("off is for parts only: error is the least for all".to_owned()),
        level => Ok(level),
    }
}

fn level_of(text: &str) -> Result<LevelFilter, String> {
    let name = text.trim().to_ascii_lowercase();
    let found = LEVELS.iter().find(|(known, _)| *known == name);
    found.map(|(_, level)| *level).ok_or_else(|| {
        let known = LEVELS.map(|(known, _)| known);
        format!("no level {:?}, expected one of {}", text.trim(), known[1..].join(", "))
            + ", or off for a part"
    })
}

fn known_part(text: &str) -> Result<&'static str, String> {
    let name = text.trim().to_ascii_lowercase();
    PARTS
        .into_iter()
        .find(|known| *known == name)
        .ok_or_else(|| format!("no part {:?}, expected one of {}", text.trim(), PARTS.join(", ")))
}

impl fmt::Display for Levels {
    /// The level for all, then those of parts by their names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.all)?;
        self.parts.iter().try_for_each(|(part, level)| write!(f, ",{part}={level}"))
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_are_read_and_given_back_as_all_would_write_them() {
        for (text, expected) in [
            ("info", "info"),
            ("trace", "trace"),
            ("WARN", "warn"),
            ("frontend=debug", "info,frontend=debug"),
            ("info,frontend=debug,supervisor=warn", "info,frontend=debug,supervisor=warn"),
            (" error , supervisor = off,cli=INFO", "error,cli=info,supervisor=off"),
        ] {
            let levels: Levels = text.parse().unwrap();
            assert_eq!(levels.to_string(), expected, "{text}");
            assert_eq!(expected.parse(), Ok(levels));
        }
        assert_eq!(Levels::default().to_string(), "info");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_known() {
        const LEVELS: &str = "expected one of error, warn, info, debug, trace, or off for a part";
        const PARTS: &str = "expected one of bus, cli, control, frontend, keeper, link, primary, \
                             sessions, settings, supervisor, system, triggers";
        for (text, expected) in [
            ("loud", format!("no level \"loud\", {LEVELS}")),
            ("", format!("no level \"\", {LEVELS}")),
            ("3", format!("no level \"3\", {LEVELS}")),
            ("info,", "\"\" has no part: only the first level may".to_owned()),
            ("info,debug", "\"debug\" has no part: only the first level may".to_owned()),
            ("frontend=debug,warn", "\"warn\" has no part: only the first level may".to_owned()),
            ("info,backend=debug", format!("no part \"backend\", {PARTS}")),
            ("=debug", format!("no part \"\", {PARTS}")),
            ("info,cli=", format!("no level \"\", {LEVELS}")),
            ("info,cli=debug=trace", format!("no level \"debug=trace\", {LEVELS}")),
            ("cli=debug,cli=debug", "cli has two levels".to_owned()),
            ("off", "off is for parts only: error is the least for all".to_owned()),
        ] {
            assert_eq!(text.parse::<Levels>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_level_is_that_of_its_part_alone() {
        let levels: Levels = "warn,frontend=debug,supervisor=off".parse().unwrap();
        let targets = levels.targets();
        for (target, level, expected) in [
            ("sticky_lb::frontend::acceptor", Level::DEBUG, true),
            ("sticky_lb::frontend::acceptor", Level::TRACE, false),
            ("sticky_lb::supervisor", Level::ERROR, false),
            ("sticky_lb::supervisor::pool::health", Level::ERROR, false),
            ("sticky_lb::primary", Level::INFO, false),
            ("sticky_lb::primary", Level::WARN, true),
            ("hyper_util::server", Level::WARN, true),
        ] {
            assert_eq!(targets.would_enable(target, &level), expected, "{target} {level}");
        }
    }

    #[test]
    fn targets_have_parts() {
        for (target, expected) in [
            ("sticky_lb::supervisor::pool::health", "supervisor"),
            ("sticky_lb::cli", "cli"),
            ("sticky_lb", "sticky_lb"),
            ("hyper_util::server", "hyper_util"),
        ] {
            assert_eq!(part(target), expected);
        }
    }
}
