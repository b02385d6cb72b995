//! Where this process is, by the name that people know the place by.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The current directory, by the name that the shell knows it by (`PWD`), if that is right: symlinks
/// in it are not followed.
///
/// # Errors
///
/// If the directory is not there any more.
pub fn current_directory() -> io::Result<PathBuf> {
    let identity = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
    let here = identity(Path::new("."));
    let logical = std::env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute());
    if let (Some(logical), Ok(here)) = (logical, here)
        && identity(&logical).is_ok_and(|found| found == here)
    {
        return Ok(logical);
    }
    std::env::current_dir()
}
