//! Where this program's file is: the path by which it was started, which may lead to another file by
//! now. What runs already is `/proc/self/exe`, whatever became of the path.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::system::directory::current_directory;

/// Says where the program is, and wins over everything else.
pub const VARIABLE: &str = "STICKY_LB_PROGRAM";

/// The path by which this program was started, with its symlinks as they are, so that a release that
/// was switched meanwhile is found by it: what `STICKY_LB_PROGRAM` says; else the first argument, as
/// a shell takes it; else the file that runs.
///
/// To be asked before the current directory is changed.
///
/// # Errors
///
/// If nothing of that is known.
pub fn path() -> io::Result<PathBuf> {
    if let Some(given) = env::var_os(VARIABLE).filter(|given| !given.is_empty()) {
        return Ok(given.into());
    }
    let word = env::args_os().next().unwrap_or_default();
    let folders = env::var_os("PATH").unwrap_or_default();
    let here = current_directory()?;
    match find(&word, &folders, &here, is_program) {
        Some(path) => Ok(path),
        None => env::current_exe(),
    }
}

/// The program that a shell in the folder `here` would run for `word`.
fn find(
    word: &OsStr,
    folders: &OsStr,
    here: &Path,
    is_program: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    if word.is_empty() {
        return None;
    }
    if word.as_bytes().contains(&b'/') {
        // `./it` is the same file without the dot.
        let path = here.join(word).components().collect::<PathBuf>();
        return Some(path).filter(|path| is_program(path));
    }
    let paths = env::split_paths(folders).map(|folder| here.join(folder).join(word));
    paths.into_iter().find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        let there = ["/srv/current/it", "/opt/it", "/usr/bin/it", "/srv/current/bin/it"];
        let found = |word: &str, folders: &str| {
            let is_program = |path: &Path| there.iter().any(|it| Path::new(it) == path);
            let found = find(word.as_ref(), folders.as_ref(), "/srv/current".as_ref(), is_program)?;
            Some(found.to_str().unwrap().to_owned())
        };
        for (word, folders, expected) in [
            ("/opt/it", "", Some("/opt/it")),
            ("./it", "/usr/bin", Some("/srv/current/it")),
            ("bin/it", "/usr/bin", Some("/srv/current/bin/it")),
            ("it", "/usr/bin", Some("/usr/bin/it")),
            ("it", "/bin:/opt:/usr/bin", Some("/opt/it")),
            ("it", "bin", Some("/srv/current/bin/it")),
            // The name that another program gives it.
            ("worker", "/usr/bin", None),
            ("/nonexistent/it", "/usr/bin", None),
            ("", "/usr/bin", None),
        ] {
            assert_eq!(found(word, folders).as_deref(), expected, "{word:?} in {folders:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_run_is_no_program() {
        assert!(is_program(Path::new("/bin/sh")));
        assert!(!is_program(Path::new("/")) && !is_program(Path::new("/nonexistent")));
        assert!(path().unwrap().is_absolute());
    }
}
