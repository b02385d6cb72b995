//! Ignored paths: names and patterns. Never looks at a file.

use std::path::{Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::WatchError;

/// Names at any depth, and paths.
#[derive(Clone, Debug)]
pub(super) struct Ignored {
    names: GlobSet,
    paths: GlobSet,
    /// Absolute ones as they are written: a folder's name may look like a pattern, right or wrong.
    literal: Vec<PathBuf>,
}

impl Ignored {
    pub(super) fn new(patterns: &[String]) -> Result<Self, WatchError> {
        let mut names = GlobSetBuilder::new();
        let mut paths = GlobSetBuilder::new();
        let mut literal = Vec::new();
        for written in patterns {
            let pattern = written.trim_end_matches('/');
            let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
            let set = if pattern.contains('/') { &mut paths } else { &mut names };
            let glob = glob(pattern).map_err(|error| refused(written, &error));
            if pattern.starts_with('/') {
                literal.push(PathBuf::from(pattern));
                glob.into_iter().for_each(|glob| _ = set.add(glob));
            } else {
                set.add(glob?);
            }
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|error| refused("", &error));
        Ok(Self { names: build(names)?, paths: build(paths)?, literal })
    }

    /// Whether a path in a watched folder is ignored, or a folder between the two is. The watched
    /// folder itself never is.
    pub(super) fn covers(&self, root: &Path, path: &Path) -> bool {
        let Ok(inside) = path.strip_prefix(root) else { return false };
        let upwards = inside.ancestors().take_while(|part| !part.as_os_str().is_empty());
        upwards.zip(path.ancestors()).any(|(relative, absolute)| {
            relative.file_name().is_some_and(|name| self.names.is_match(name))
                || self.paths.is_match(relative)
                || self.paths.is_match(absolute)
                || self.literal.iter().any(|literal| literal == absolute)
        })
    }
}

fn glob(pattern: &str) -> Result<Glob, globset::Error> {
    // In paths, `*` stays within a folder; `**` doesn't.
    GlobBuilder::new(pattern).literal_separator(true).build()
}

fn refused(pattern: &str, error: &globset::Error) -> WatchError {
    let pattern = error.glob().unwrap_or(pattern).to_owned();
    WatchError::Pattern { pattern, problem: error.kind().to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::IGNORED_BY_DEFAULT;
    use super::*;

    fn ignored(patterns: &[&str]) -> Ignored {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Ignored::new(&patterns).unwrap()
    }

    #[test]
    fn names_paths_and_patterns() {
        let table: [(&[&str], &[&str], &[&str]); 9] = [
            (
                &["node_modules"],
                &["node_modules", "node_modules/a/b.js", "x/y/node_modules/z"],
                &["node_modules.js", "my_node_modules/a", "a"],
            ),
            (&["*.log"], &["a.log", "deep/er/b.log"], &["a.log.js", "log"]),
            (&["logs/*.log"], &["logs/a.log"], &["x/logs/a.log", "logs/x/a.log", "a.log"]),
            (&["./public/uploads/"], &["public/uploads", "public/uploads/x/y.png"], &["public/x"]),
            (&["**/cache/*.tmp"], &["cache/a.tmp", "a/b/cache/c.tmp"], &["a/cache/b/c.tmp"]),
            (&["/srv/app/run"], &["run", "run/worker.pid"], &["a/run", "runner"]),
            (&["/srv/app/[x]/{log"], &["[x]/{log", "[x]/{log/a"], &["x/{log"]),
            (&["*.{log,pid}"], &["a.log", "a/b.pid"], &["a.js"]),
            (
                &IGNORED_BY_DEFAULT,
                &[".git", ".git/index", "src/.main.rs.swp", "main.rs~", "#main.rs#", "4913"],
                &["src/main.rs", "env", "a.b", "49130"],
            ),
        ];
        let root = Path::new("/srv/app");
        for (patterns, which, others) in table {
            let ignored = ignored(patterns);
            for path in which {
                assert!(ignored.covers(root, &root.join(path)), "{patterns:?}: {path}");
            }
            for path in others {
                assert!(!ignored.covers(root, &root.join(path)), "{patterns:?}: {path}");
            }
        }
    }

    #[test]
    fn what_is_watched_is_not_ignored_for_where_it_is() {
        let ignored = ignored(&[".*", "app", "/srv/.x/app"]);
        let root = Path::new("/srv/.x/app");
        assert!(!ignored.covers(root, root));
        assert!(!ignored.covers(root, &root.join("main.js")));
        assert!(ignored.covers(root, &root.join("app/main.js")));
    }

    #[test]
    fn a_wrong_pattern_is_named() {
        let error = Ignored::new(&["*.js".to_owned(), "[a-".to_owned()]).unwrap_err();
        let expected = "pattern \"[a-\" of what to ignore: unclosed character class";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
