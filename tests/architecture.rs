//! The map in `lib.rs` cannot drift: who imports whom, and where unsafe code, processes and flags
//! may be.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use sticky_lb::internals::log::PARTS;

/// Folders and files from the bottom up: each imports from those that stand beside it.
const FLOORS: [(&str, &str); 18] = [
    ("kernel", "kernel"),
    ("protocol", "kernel protocol"),
    ("handover", "kernel protocol handover"),
    ("link", "kernel protocol handover link"),
    ("frontend", "kernel protocol handover link frontend"),
    ("system", "kernel protocol handover system"),
    ("supervisor", "kernel protocol handover link system supervisor"),
    ("worker", "kernel protocol worker"),
    ("triggers", "triggers"),
    ("log", "log"),
    ("control", "kernel protocol handover link frontend system supervisor log control"),
    ("config", "frontend supervisor triggers control log"),
    ("upgrade", "kernel protocol handover link upgrade"),
    (
        "primary",
        "kernel protocol handover link frontend supervisor triggers system log control config upgrade primary",
    ),
    (
        "settings",
        "kernel protocol handover link frontend supervisor triggers system log control config settings",
    ),
    ("keeper", "kernel protocol handover link system log keeper"),
    ("demo", "worker demo"),
    (
        "cli",
        "kernel protocol handover link settings config primary upgrade keeper demo supervisor system log control cli",
    ),
];

/// Words and the files and folders that they belong to.
const BELONGS: [(&str, &[&str]); 5] = [
    ("unsafe ", &["kernel.rs"]),
    ("from_raw_fd", &["kernel.rs"]),
    (
        "Command::new",
        &[
            "supervisor/process.rs",
            "keeper/launch.rs",
            "settings/pm2/ecosystem.rs",
            "upgrade/check.rs",
        ],
    ),
    ("clap::", &["cli", "settings/"]),
    ("io::stdout()", &["cli.rs", "cli/", "supervisor/output", "worker/orphan.rs"]),
];

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");
            let name = path.to_str().unwrap().strip_prefix(root).unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

fn all_sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut found);
    assert!(found.len() > 20, "the sources are not where they were");
    found
}

/// Without comments, which may speak of anything.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn imports_go_one_way() {
    for (name, text) in all_sources() {
        let floor = name.split('/').next().unwrap().trim_end_matches(".rs");
        let Some((_, allowed)) = FLOORS.iter().find(|(part, _)| *part == floor) else {
            assert!(["lib", "main", "internals"].contains(&floor), "{name} is on no floor");
            continue;
        };
        for line in code(&text) {
            for path in line.split("crate::").skip(1) {
                let part: String = path.chars().take_while(|c| c.is_alphanumeric()).collect();
                let is_allowed = allowed.split(' ').any(|other| other == part);
                assert!(is_allowed, "{name} imports from {part}: {line}");
            }
        }
    }
}

#[test]
fn some_things_are_in_one_place_only() {
    for (name, text) in all_sources() {
        for (word, homes) in BELONGS {
            let stray = code(&text).find(|line| line.contains(word) && !line.contains("env!"));
            let at_home = homes.iter().any(|home| name.starts_with(home));
            assert!(at_home || stray.is_none(), "{word:?} in {name}: {stray:?}");
        }
    }
}

#[test]
fn files_stay_short() {
    for (name, text) in all_sources() {
        let lines = text.split("#[cfg(test)]").next().unwrap_or_default().lines().count();
        assert!(lines <= 420, "{name} has {lines} lines without its tests");
    }
}

#[test]
fn whatever_speaks_in_the_log_is_a_part_that_can_have_a_level() {
    // Workers have logs of their own, and panics are to be seen whatever the levels are.
    let others = ["worker", "demo", "log"];
    for part in PARTS {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).join(part);
        assert!(path.is_dir() || path.with_extension("rs").is_file(), "there is no {part}");
    }
    for (name, text) in all_sources() {
        let part = name.split('/').next().unwrap().trim_end_matches(".rs");
        let speaks = code(&text).any(|line| line.contains("tracing::"));
        assert!(!speaks || PARTS.contains(&part) || others.contains(&part), "{name} is of no part");
    }
}

#[test]
fn messages_of_the_log_are_constant() {
    let mut count = 0;
    for (name, text) in all_sources() {
        let code = code(&text).collect::<Vec<_>>().join("\n");
        for level in ["error", "warn", "info", "debug", "trace"] {
            for call in code.split(&format!("tracing::{level}!(")).skip(1) {
                let message = call.split('"').nth(1).unwrap();
                assert!(!message.contains('{'), "{name}: {message:?}");
                count += 1;
            }
        }
    }
    assert!(count > 50, "the log is not where it was: {count}");
}
