//! README, guide and the pages beside them: their links lead somewhere, on a forge and in rustdoc, their
//! pictures are the same in both, and their metrics are those of the source.
//!
//! After a change of an image or a metric:
//!
//! ```text
//! STICKY_LB_WRITE_GUIDE=1 cargo test --test guide
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether what is made is written, and not compared.
fn writes() -> bool {
    std::env::var_os("STICKY_LB_WRITE_GUIDE").is_some()
}

/// The guide's chapters, without what only rustdoc reads.
fn chapters() -> Vec<PathBuf> {
    let files = fs::read_dir(root().join("src/guide")).expect("the guide is there");
    let files = files.map(|file| file.expect("it can be read").path());
    let is_chapter = |path: &PathBuf| {
        path.extension().is_some_and(|it| it == "md") && !path.ends_with("links.md")
    };
    files.filter(is_chapter).collect()
}

fn pages() -> Vec<PathBuf> {
    let others = [
        "README.md",
        "benches/README.md",
        "examples/deploy/README.md",
        "examples/python/README.md",
    ];
    chapters().into_iter().chain(others.map(|page| root().join(page))).collect()
}

/// Without blocks of code, in which brackets are something else.
fn prose(text: &str) -> String {
    let mut in_code = false;
    let lines = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands between `open` and `close`, each time.
fn between<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| Some(rest.split_once(close)?.0))
}

/// Names and targets of the reference definitions.
fn definitions(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).collect()
}

/// A block that is not compiled here is a part of an example, which is compiled and tested.
#[test]
fn code_that_is_not_compiled_in_the_guide_is_an_examples() {
    let example = read(&root().join("examples/shapes.rs"));
    let mut blocks = 0;
    for chapter in chapters() {
        let text = read(&chapter);
        for block in text.split("```rust,ignore\n").skip(1) {
            let code = block.split("```").next().expect("a block has an end");
            assert!(example.contains(code), "{}:\n{code}", chapter.display());
            blocks += 1;
        }
    }
    assert_eq!(blocks, 6);
}

#[test]
fn links_lead_to_files_and_headings() {
    for page in pages() {
        let text = prose(&read(&page));
        let inline = between(&text, "](", ')');
        let targets = inline.chain(definitions(&text).into_iter().map(|(_, target)| target));
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path =
                if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(path.exists(), "{}: {target}", page.display());
            let found = heading.is_empty() || headings(&read(&path)).contains(heading);
            assert!(found, "{}: {target}", page.display());
        }
    }
}

/// As they are called in links.
fn headings(text: &str) -> BTreeSet<String> {
    let text = prose(text);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let name = |line: &str| {
        let words = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        words.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect()
    };
    headings.map(name).collect()
}

#[test]
fn each_chapter_is_a_module_and_its_links_are_items() {
    let modules = read(&root().join("src/guide.rs"));
    let links = read(&root().join("src/guide/links.md"));
    let items: BTreeSet<_> = definitions(&links).into_iter().map(|(name, _)| name).collect();
    for chapter in chapters() {
        let name = chapter.file_name().unwrap().to_str().unwrap();
        assert!(modules.contains(&format!("\"guide/{name}\"")), "{name} is in no module");
        let text = read(&chapter);
        // Rustdoc would make a dead link of a path.
        assert!(!prose(&text).contains("]("), "{name}: links are references");
        let defined: BTreeSet<_> = definitions(&text).into_iter().map(|(name, _)| name).collect();
        for (link, target) in definitions(&text) {
            let image =
                target.starts_with("images/") && modules.contains(&format!("[{link}]: data:"));
            assert!(items.contains(link) || image, "{name}: [{link}] is not in links.md");
        }
        let text = prose(&text);
        let used: BTreeSet<_> = between(&text, "][", ']').collect();
        assert_eq!(used, defined, "{name}: links used and links defined");
    }
}

#[test]
fn images_are_the_same_in_rustdoc() {
    let mut count = 0;
    for image in fs::read_dir(root().join("src/guide/images")).unwrap() {
        let image = image.unwrap().path();
        if image.extension().is_some_and(|it| it == "base64") {
            continue;
        }
        count += 1;
        let bytes = fs::read(&image).unwrap();
        assert!(bytes.len() < 200_000, "{} is too large", image.display());
        let text = PathBuf::from(format!("{}.base64", image.display()));
        let encoded = BASE64.encode(&bytes) + "\n";
        if writes() {
            fs::write(text, encoded).unwrap();
        } else {
            let same = fs::read_to_string(&text).is_ok_and(|found| found == encoded);
            assert!(same, "{}: STICKY_LB_WRITE_GUIDE=1 cargo test --test guide", text.display());
        }
    }
    assert!(count > 0);
}

/// The line from which on the chapter on metrics is made.
const METRICS: &str = "<!-- From here on made by tests/guide.rs. -->\n";

#[test]
fn the_chapter_on_metrics_has_all_of_them() {
    let folder = root().join("src/control/metrics");
    let files = fs::read_dir(folder).unwrap().map(|file| file.expect("it can be read").path());
    let files = files.chain([root().join("src/control/metrics.rs")]);
    let rows: BTreeSet<_> = files.flat_map(|file| metrics(&read(&file))).collect();
    assert!(rows.len() > 40, "{rows:?}");
    let rows: String = rows.into_iter().collect();
    let table = format!("\n| metric | type | |\n|---|---|---|\n{rows}");
    let path = root().join("src/guide/metrics-and-alerts.md");
    let text = read(&path);
    let (by_hand, made) = text.split_once(METRICS).expect("the line that begins the table");
    if writes() {
        fs::write(path, format!("{by_hand}{METRICS}{table}")).unwrap();
    } else {
        assert!(made == table, "STICKY_LB_WRITE_GUIDE=1 cargo test --test guide\n{table}");
    }
}

/// A row for each metric of a file: in the source, what it means is the string behind its name.
fn metrics(source: &str) -> Vec<String> {
    let source = source.split("\n#[cfg(test)]").next().unwrap_or_default();
    let strings: Vec<_> = source.split('"').skip(1).step_by(2).collect();
    let named = strings.windows(2).filter(|pair| pair[0].starts_with("sticky_lb_"));
    let row = |pair: &[&str]| {
        let kind = match pair[0] {
            name if name.ends_with("_total") => "counter",
            "sticky_lb_handoff_seconds" => "histogram",
            _ => "gauge",
        };
        format!("| `{}` | {kind} | {} |\n", pair[0], pair[1])
    };
    named.map(row).collect()
}

#[test]
fn the_chapter_on_metrics_has_all_alerts() {
    let alerts = read(&root().join("examples/deploy/alerts.yml"));
    let defined: BTreeSet<_> = between(&alerts, "- alert: ", '\n').collect();
    let text = read(&root().join("src/guide/metrics-and-alerts.md"));
    let named: BTreeSet<_> = text.split('`').filter(|it| it.starts_with("StickyLb")).collect();
    assert_eq!(named, defined);
}

#[test]
fn the_face_is_short() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(lines <= 150, "README.md has {lines} lines");
}
