//! The map in `lib.rs` cannot drift: which part imports which, where unsafe code, processes and flags may
//! be, how many fields a struct has, and that no files import each other in a circle.

mod sources;

use std::collections::BTreeSet;
use std::path::Path;

use sources::{Source, all, circles, imports, without_tests};
use sticky_lb::internals::log::PARTS;

/// Folders and files from the bottom up: each imports from those that stand beside it.
const FLOORS: [(&str, &str); 23] = [
    ("error", "error"),
    ("kernel", "kernel"),
    ("protocol", "kernel protocol"),
    ("closing", "kernel protocol closing"),
    ("handover", "kernel protocol closing handover"),
    ("link", "kernel protocol closing handover link"),
    ("sessions", "kernel protocol closing handover link sessions"),
    ("frontend", "error kernel protocol closing handover link sessions frontend"),
    ("system", "kernel protocol handover system"),
    ("supervisor", "error kernel protocol handover link system supervisor"),
    ("bus", "protocol link supervisor bus"),
    ("worker", "kernel protocol worker"),
    ("triggers", "triggers"),
    ("log", "protocol log"),
    (
        "control",
        "kernel protocol handover link sessions frontend system supervisor bus log control",
    ),
    ("config", "link sessions frontend supervisor bus triggers control log"),
    ("upgrade", "kernel protocol closing handover link system upgrade"),
    (
        "primary",
        "error kernel protocol handover link sessions frontend supervisor bus triggers system log control config upgrade primary",
    ),
    (
        "settings",
        "kernel protocol handover link sessions frontend supervisor bus triggers system log control config settings",
    ),
    ("keeper", "kernel protocol closing handover link system log keeper"),
    ("conformance", "kernel protocol closing link frontend supervisor conformance"),
    ("demo", "worker demo"),
    (
        "cli",
        "error kernel protocol handover link settings config primary upgrade keeper conformance demo supervisor system log control cli",
    ),
];

/// Structs of more than [`MAX_FIELDS`] fields, and why they are whole.
const LARGE_STRUCTS: [(&str, &str, &str); 5] = [
    ("control/report.rs", "Status", "a document: its fields are the keys of its JSON"),
    ("control/report.rs", "Worker", "a document: its fields are the keys of its JSON"),
    ("control/report.rs", "Slot", "a document: its fields are the keys of its JSON"),
    ("handover/settings.rs", "PoolSettingsSnapshot", "a document, of the pool's settings"),
    ("supervisor/pool/settings.rs", "PoolSettings", "settings of the pool"),
];

/// No other struct has more fields than that: a component owns its own.
const MAX_FIELDS: usize = 15;

/// Structs whose inherent impls still stand in several files.
const SPREAD_IMPLS: [&str; 3] = ["ClientArgs", "Control", "Scale"];

/// Words and the files and folders that they belong to.
const BELONGS: [(&str, &[&str]); 5] = [
    ("unsafe ", &["kernel.rs"]),
    ("from_raw_fd", &["kernel.rs"]),
    (
        "Command::new",
        &[
            "supervisor/process",
            "keeper/launch.rs",
            "settings/pm2/ecosystem.rs",
            "upgrade/check.rs",
            "link/tests.rs",
            "conformance/descriptors.rs",
        ],
    ),
    ("clap::", &["cli", "settings/"]),
    ("io::stdout()", &["cli.rs", "cli/", "supervisor/output", "worker/orphan.rs"]),
];

#[test]
fn imports_go_one_way() {
    for source in all() {
        let (name, floor) = (&source.name, source.part());
        let Some((_, allowed)) = FLOORS.iter().find(|(part, _)| *part == floor) else {
            assert!(
                ["lib", "main", "internals", "guide"].contains(&floor),
                "{name} is on no floor"
            );
            continue;
        };
        for line in source.code() {
            for path in line.split("crate::").skip(1) {
                let part: String = path.chars().take_while(|c| c.is_alphanumeric()).collect();
                let is_allowed = allowed.split(' ').any(|other| other == part);
                assert!(is_allowed, "{name} imports from {part}: {line}");
            }
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = without_tests();
    let imports = imports(&sources);
    let count: usize = imports.values().map(|targets| targets.len()).sum();
    assert!(count > 1_000, "imports are not read: {count}");
    let explained = circles(&imports).into_iter().map(|circle| {
        let within = |file: &&str| {
            let targets = imports[file].iter().filter(|target| circle.contains(target));
            format!("{file} imports {:?}", targets.collect::<Vec<_>>())
        };
        circle.iter().map(within).collect::<Vec<_>>()
    });
    assert_eq!(explained.collect::<Vec<_>>(), [[""; 0]; 0]);
}

#[test]
fn a_circle_is_found() {
    let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    let sources = [
        source("part.rs", "mod a;\nmod b;\nmod c;\npub struct P;\nuse a::A;\n"),
        source("part/a.rs", "use crate::part::{P, b::{self, B}};\nuse super::c::C;\n"),
        source("part/b.rs", "fn f() {\n    crate::part::c::g();\n}\n"),
        source("part/c.rs", "use super::a;\n// use super::b;\n"),
        source(
            "part/d.rs",
            "use crate::part::a::A;\n#[cfg(test)]\nmod tests {\nuse crate::e;\n}\n",
        ),
        source("e.rs", "use crate::part::d::D as E;\n"),
    ];
    let found = circles(&imports(&sources));
    assert_eq!(found, [["part/a.rs", "part/b.rs", "part/c.rs"]]);
}

#[test]
fn no_struct_has_too_many_fields() {
    let mut count = 0;
    let mut large = Vec::new();
    for source in without_tests() {
        for (name, fields) in source.structs() {
            if fields > MAX_FIELDS {
                large.push((source.name.clone(), name));
            }
            count += fields;
        }
    }
    large.sort();
    let mut expected = LARGE_STRUCTS.map(|(file, name, _)| (file.to_owned(), name.to_owned()));
    expected.sort();
    assert_eq!(large, expected);
    assert!(count > 1_000, "fields are not read: {count}");
}

#[test]
fn all_inherent_impls_of_a_struct_are_in_its_file() {
    let mut spread = BTreeSet::new();
    for source in without_tests() {
        for name in source.foreign_impls() {
            let is_known = SPREAD_IMPLS.contains(&name.as_str());
            assert!(is_known, "{} has an impl of {name}, which is declared elsewhere", source.name);
            spread.insert(name);
        }
    }
    assert!(spread.iter().eq(SPREAD_IMPLS), "an exception is of no struct any more: {spread:?}");
}

#[test]
fn some_things_are_in_one_place_only() {
    for source in all() {
        let name = &source.name;
        for (word, homes) in BELONGS {
            let stray = source.code().find(|line| line.contains(word) && !line.contains("env!"));
            let at_home = homes.iter().any(|home| name.starts_with(home));
            assert!(at_home || stray.is_none(), "{word:?} in {name}: {stray:?}");
        }
    }
}

#[test]
fn a_part_that_logs_can_have_a_level() {
    // Workers have logs of their own, and panics are to be seen whatever the levels are.
    let others = ["worker", "demo", "log"];
    for part in PARTS {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).join(part);
        assert!(path.is_dir() || path.with_extension("rs").is_file(), "there is no {part}");
    }
    for source in all() {
        let part = source.part();
        let logs = source.code().any(|line| line.contains("tracing::"));
        let is_part = PARTS.contains(&part) || others.contains(&part);
        assert!(!logs || is_part, "{} is of no part", source.name);
    }
}

#[test]
fn messages_of_the_log_are_constant() {
    let mut count = 0;
    for source in all() {
        let (name, code) = (&source.name, source.code().collect::<Vec<_>>().join("\n"));
        for level in ["error", "warn", "info", "debug", "trace"] {
            for call in code.split(&format!("tracing::{level}!(")).skip(1) {
                let message = call.split('"').nth(1).expect("a text");
                assert!(!message.contains('{'), "{name}: {message:?}");
                count += 1;
            }
        }
    }
    assert!(count > 50, "the log is not where it was: {count}");
}
