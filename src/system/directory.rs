//! Where this process is, by the name that people know the place by.

use std::env;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Names the directory of the process before to its successor: that goes on there, even if the directory was
/// removed meanwhile, or its name leads to another one.
pub const VARIABLE: &str = "STICKY_LB_DIRECTORY";

/// The directory in which the first of these processes was started, by the name that the shell knew it by
/// (`PWD`), if that was right: symlinks in it are not followed. It is looked for once.
///
/// # Errors
///
/// If the directory is not there any more, and no process before has named it.
pub fn current_directory() -> io::Result<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let found = find()?;
    Ok(FOUND.get_or_init(|| found).clone())
}

fn find() -> io::Result<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(named) = absolute(VARIABLE) {
        return Ok(named);
    }
    let identity = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
    let here = identity(Path::new("."));
    if let (Some(logical), Ok(here)) = (absolute("PWD"), here)
        && identity(&logical).is_ok_and(|found| found == here)
    {
        return Ok(logical);
    }
    env::current_dir()
}
