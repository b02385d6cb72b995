//! A configuration file with every key, generated from the table.

use std::fmt::Write;

use clap::Arg;

use crate::settings::syntax::default_value;
use crate::settings::{reference, table};

const HEAD: &str = "\
# Settings of sticky-lb, each with its default. Remove the # to change one. An empty value, \"\",
# means that the setting is not set. Flags on the command line override this file: max_restarts is
# --max-restarts. `sticky-lb check` shows the resulting settings.
#
# Times: 250ms, 10s, 5m; a bare number is milliseconds. Sizes: 512K, 300M, 1G; a bare number is
# bytes. Paths are relative to this file's directory.
";

const TAIL: &str = "
## Environment of workers

# Variables that every worker gets.
#[env]
#NODE_ENV = \"development\"

# Further variables with `--env production`.
#[env_production]
#NODE_ENV = \"production\"
";

/// The text of a file in which everything is commented out.
#[must_use]
pub fn commented() -> String {
    let mut text = HEAD.to_owned();
    let mut heading = None;
    for setting in table::settings().get_arguments() {
        let name = setting.get_help_heading().unwrap_or(reference::FIRST_GROUP);
        if heading.as_deref() != Some(name) {
            heading = Some(name.to_owned());
            // Writing to a string cannot fail.
            let _ = write!(text, "\n## {name}\n");
        }
        let line = format!("#{} = {}", setting.get_id(), default_value(setting));
        text.push('\n');
        text.push_str(&described(setting, &line));
    }
    text + TAIL
}

/// A line below its description.
pub(super) fn described(setting: &Arg, line: &str) -> String {
    let mut text = String::new();
    for comment in wrapped(&help(setting)) {
        let _ = writeln!(text, "# {comment}");
    }
    text + line + "\n"
}

fn help(setting: &Arg) -> String {
    let help = setting.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<_> = setting
        .get_possible_values()
        .into_iter()
        .filter(|value| value.get_help().is_some())
        .map(|value| value.get_name().to_owned())
        .collect();
    if values.is_empty() || setting.is_hide_possible_values_set() {
        help
    } else {
        format!("{help} ({})", values.join(", "))
    }
}

fn wrapped(text: &str) -> Vec<String> {
    const WIDTH: usize = 96;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_there_once_with_a_comment() {
        let text = commented();
        for setting in table::settings().get_arguments() {
            let line = format!("\n#{} = ", setting.get_id());
            assert_eq!(text.matches(&line).count(), 1, "{line}");
            assert!(setting.get_help().is_some(), "{line}");
        }
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
