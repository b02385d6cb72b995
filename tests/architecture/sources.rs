//! The sources, and what is read out of them: modules, imports, fields, impls.
//!
//! Reads code as rustfmt writes it, and no more of the language than that needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A file of `src/`.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its path below `src/`.
    pub name: String,
    /// All of it.
    pub text: String,
}

impl Source {
    /// Its lines without comments, which may speak of anything.
    pub(crate) fn code(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter(|line| !line.trim_start().starts_with("//"))
    }

    /// The same, without its unit tests.
    fn own_code(&self) -> impl Iterator<Item = &str> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        self.text[..tests].lines().filter(|line| !line.trim_start().starts_with("//"))
    }

    /// The part of the crate that it belongs to: a folder or file right below `src/`.
    pub(crate) fn part(&self) -> &str {
        self.name.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// Its module, `frontend router` for `frontend/router.rs`.
    fn module(&self) -> Vec<String> {
        let path = self.name.trim_end_matches(".rs").split('/').map(str::to_owned);
        path.filter(|part| part != "lib" && part != "main").collect()
    }

    /// Paths of its `use` items, and paths that begin with `crate::` anywhere else, as segments.
    fn paths(&self) -> BTreeSet<Vec<String>> {
        let code = self.own_code().map(str::trim).collect::<Vec<_>>().join(" ");
        let mut found = BTreeSet::new();
        for item in code.split("use ").skip(1) {
            let Some((tree, _)) = item.split_once(';') else { continue };
            flatten(&[], tree, &mut found);
        }
        for path in code.split("crate::").skip(1) {
            let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let path = path[..end.unwrap_or(path.len())].split("::").map(str::to_owned);
            let path = std::iter::once("crate".to_owned()).chain(path);
            found.insert(path.filter(|part| !part.is_empty()).collect());
        }
        found
    }

    /// Structs with the number of their fields.
    pub(crate) fn structs(&self) -> Vec<(String, usize)> {
        let lines: Vec<_> = self.own_code().collect();
        let mut found = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            let Some(name) = declared("struct", line).filter(|_| line.ends_with('{')) else {
                continue;
            };
            let indent = line.len() - line.trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            let body = lines[number + 1..].iter().take_while(|line| **line != end);
            let fields = body.filter(|line| is_field(line, indent + 4)).count();
            found.push((name, fields));
        }
        found
    }

    /// Types with an inherent impl here that are declared in another file.
    pub(crate) fn foreign_impls(&self) -> Vec<String> {
        let declared: BTreeSet<_> = self
            .own_code()
            .flat_map(|line| ["struct", "enum"].map(|kind| declared(kind, line)))
            .flatten()
            .collect();
        let impls = self.own_code().filter_map(|line| {
            let rest = line.strip_prefix("impl").filter(|_| !line.contains(" for "))?;
            let rest =
                if rest.starts_with('<') { rest.split_once("> ")?.1 } else { rest.trim_start() };
            Some(identifier(rest))
        });
        impls.filter(|name| !name.is_empty() && !declared.contains(name)).collect()
    }
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The name of the item of this kind that a line declares.
fn declared(kind: &str, line: &str) -> Option<String> {
    let (before, after) = line.split_once(&format!("{kind} "))?;
    let before = before.trim();
    (before.is_empty() || before.starts_with("pub")).then(|| identifier(after))
}

fn is_field(line: &str, indent: usize) -> bool {
    let text = line.trim_start();
    let text = match text.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or("", |(_, rest)| rest),
        Some(rest) if rest.starts_with(' ') => rest.trim_start(),
        _ => text,
    };
    let name = identifier(text);
    line.len() - line.trim_start().len() == indent
        && !name.is_empty()
        && text[name.len()..].starts_with(": ")
}

/// Takes a `use` tree apart: `a::{b, c::D}` is `a::b` and `a::c::D`.
fn flatten(prefix: &[String], tree: &str, found: &mut BTreeSet<Vec<String>>) {
    let tree = tree.trim();
    let tree = tree.split(" as ").next().unwrap_or_default();
    if let Some((head, group)) = tree.split_once('{') {
        let mut path = prefix.to_vec();
        path.extend(head.split("::").filter(|part| !part.is_empty()).map(str::to_owned));
        let group = group.rsplit_once('}').map_or(group, |(group, _)| group);
        top_level(group).into_iter().for_each(|part| flatten(&path, part, found));
        return;
    }
    let mut path = prefix.to_vec();
    path.extend(tree.split("::").filter(|part| !part.is_empty()).map(str::to_owned));
    found.insert(path);
}

/// The parts of a list that are separated by commas outside of braces.
fn top_level(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

/// All files of `src/`.
pub(crate) fn all() -> Vec<Source> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut found = Vec::new();
    read(root, root, &mut found);
    assert!(found.len() > 100, "the sources are not where they were");
    found
}

/// All files of `src/` but those that are compiled for unit tests only.
pub(crate) fn without_tests() -> Vec<Source> {
    let mut found = all();
    let tests: Vec<_> = found.iter().flat_map(test_files).collect();
    let is_test = |name: &str| {
        tests
            .iter()
            .any(|test| name == format!("{test}.rs") || name.starts_with(&format!("{test}/")))
    };
    found.retain(|source| !is_test(&source.name));
    found
}

fn read(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("the sources").map(|it| it.expect("the sources")) {
        let path = entry.path();
        if path.is_dir() {
            read(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below src").to_str().expect("a plain name");
            let text = fs::read_to_string(&path).expect("the sources");
            found.push(Source { name: name.to_owned(), text });
        }
    }
}

/// Modules that a file declares for unit tests.
fn test_files(source: &Source) -> Vec<String> {
    let folder = source.module().join("/");
    let declared = source.text.split("#[cfg(test)]\n").skip(1).filter_map(|rest| {
        let (_, module) = rest.lines().next()?.split_once("mod ")?;
        module.strip_suffix(';')
    });
    declared.map(|module| format!("{folder}/{module}").trim_start_matches('/').to_owned()).collect()
}

/// Which file imports from which. A module's imports from its own parents are left out: a module and
/// its parents are one.
pub(crate) fn imports(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let modules: BTreeMap<_, _> =
        sources.iter().map(|source| (source.module(), source.name.as_str())).collect();
    let mut imports = BTreeMap::new();
    for source in sources {
        let own = source.module();
        let paths = source.paths();
        let targets = paths.iter().filter_map(|path| target(&own, path, &modules));
        let targets = targets.filter(|(module, _)| !own.starts_with(module));
        imports.insert(source.name.as_str(), targets.map(|(_, name)| name).collect());
    }
    imports
}

/// The file that a path leads to: that of the longest module in it.
fn target<'a>(
    own: &[String],
    path: &[String],
    modules: &BTreeMap<Vec<String>, &'a str>,
) -> Option<(Vec<String>, &'a str)> {
    let mut absolute = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "super" | "self" => own.to_vec(),
        first => {
            let child: Vec<_> = own.iter().cloned().chain([first.to_owned()]).collect();
            modules.contains_key(&child).then_some(child)?
        }
    };
    for part in &path[1..] {
        absolute.push(part.clone());
    }
    if path[0] == "super" {
        let parents = path.iter().take_while(|part| *part == "super").count();
        absolute = own[..own.len().saturating_sub(parents)].to_vec();
        absolute.extend(path[parents..].iter().cloned());
    }
    (1..=absolute.len()).rev().find_map(|length| {
        let module = &absolute[..length];
        modules.get(module).map(|name| (module.to_vec(), *name))
    })
}

/// Files that import each other in a circle, each circle once.
pub(crate) fn circles<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let reached: BTreeMap<_, _> =
        imports.keys().map(|from| (*from, reach(from, imports))).collect();
    let mut found = BTreeSet::new();
    for from in imports.keys() {
        let circle: Vec<_> =
            reached[from].iter().copied().filter(|to| reached[to].contains(from)).collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

fn reach<'a>(from: &'a str, imports: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        next.extend(imports[file].iter().filter(|to| reached.insert(**to)));
    }
    reached
}
