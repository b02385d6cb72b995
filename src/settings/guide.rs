//! The guide's chapter on configuration, made of the table, so that it misses no setting and has no
//! other default.
//!
//! The chapter is written by hand up to the line [`BEGIN`]; the rest is made here. After a change of a
//! setting:
//!
//! ```text
//! STICKY_LB_WRITE_GUIDE=1 cargo test --lib settings::guide
//! ```

use std::fmt::Write;
use std::path::Path;

use toml::de::DeTable;

use crate::config::Config;
use crate::settings::problems::Problems;
use crate::settings::reference::{self, Setting};
use crate::settings::resolve::{Surroundings, resolve};
use crate::settings::{change, table};

const CHAPTER: &str = "src/guide/configuration.md";

/// The line after which the chapter is made.
const BEGIN: &str = "<!-- From here on made by src/settings/guide.rs. -->\n";

const HEAD: &str = "| key | default | meaning | example | changed by |\n|---|---|---|---|---|\n";

/// A table for each group of `--help`.
fn tables() -> String {
    let defaults = defaults();
    let mut text = String::new();
    let mut group = String::new();
    for setting in reference::settings() {
        if group != setting.group {
            group.clone_from(&setting.group);
            // Writing to a string cannot fail.
            let _ = write!(text, "\n### {group}\n\n{HEAD}");
        }
        text += &row(&setting, change::applied_by(&setting.key, &defaults));
    }
    text
}

fn row(setting: &Setting, changed: &str) -> String {
    let Setting { key, example, .. } = setting;
    let (default, meaning) = (cell(&default(setting)), cell(&meaning(setting)));
    format!("| `{key}` | {default} | {meaning} | `{example}` | {changed} |\n")
}

/// A value as code, words as they are.
fn default(setting: &Setting) -> String {
    let is_empty = ["\"\"", "[]"].contains(&setting.default.as_str());
    let format = format!("{} = {}", setting.key, setting.default);
    let is_value = DeTable::parse(&format).is_ok();
    match &setting.default {
        _ if is_empty => "none".to_owned(),
        value if is_value => format!("`{value}`"),
        words => words.clone(),
    }
}

/// The help, its values, and other ways to set it.
fn meaning(setting: &Setting) -> String {
    let mut text = setting.meaning.split_whitespace().collect::<Vec<_>>().join(" ");
    if !text.ends_with('.') {
        text.push('.');
    }
    let values = setting.values.iter().map(|(name, meaning)| (format!("`{name}`: "), meaning));
    // Some help texts have them.
    let values = values.filter(|(name, _)| !setting.meaning.contains(name.as_str()));
    let values: Vec<_> = values.map(|(name, meaning)| name + meaning).collect();
    if !values.is_empty() {
        text += &format!(" {}.", values.join("; "));
    }
    if let Some(variable) = setting.variable {
        text += &format!(" Also `${variable}`.");
    }
    // The keys of `[drain]` are in its settings' texts.
    for alias in setting.aliases.iter().filter(|alias| !alias.starts_with("drain_")) {
        text += &format!(" Also `{alias}`.");
    }
    text
}

/// Text that ends no cell and is no markup.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}

fn defaults() -> Config {
    let (table, _) = table::parse(table::settings(), Vec::new()).unwrap();
    let surroundings = Surroundings {
        here: Path::new("."),
        workers_given: false,
        memory: 1 << 30,
        environment: Vec::new(),
        before: None,
    };
    resolve(&table, surroundings, &mut Problems::default())
}

#[test]
fn the_chapter_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHAPTER);
    let text = std::fs::read_to_string(&path).unwrap();
    let (by_hand, made) = text.split_once(BEGIN).expect("the line that begins the tables");
    if std::env::var_os("STICKY_LB_WRITE_GUIDE").is_some() {
        std::fs::write(path, format!("{by_hand}{BEGIN}{}", tables())).unwrap();
        return;
    }
    assert!(
        made == tables(),
        "{CHAPTER} is out of date: STICKY_LB_WRITE_GUIDE=1 cargo test --lib settings::guide writes it"
    );
}
