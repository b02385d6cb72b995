//! Whether output could go where it is wanted. Writes and creates nothing.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::supervisor::output::settings::{OutputError, OutputSettings};

/// The keys of settings that [`super::Output::start`] would refuse, and why.
#[must_use]
pub fn problems(settings: &OutputSettings) -> Vec<(&'static str, OutputError)> {
    let files = [
        ("out_file", &settings.out_file),
        ("error_file", &settings.error_file),
        ("log_file", &settings.log_file),
    ];
    let refused = files.into_iter().filter_map(|(key, path)| {
        let path = path.as_deref()?;
        let source = check_file(path).err()?;
        Some((key, OutputError::File { path: path.to_owned(), source }))
    });
    refused.collect()
}

/// Fails if the file could not be written, or created with the folders that are missing.
fn check_file(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(_) => Ok(access(path, Access::WRITE_OK)?),
        Err(error) if error.kind() == ErrorKind::NotFound => check_folder(path),
        Err(error) => Err(error),
    }
}

fn check_folder(path: &Path) -> io::Result<()> {
    let nearest = path.ancestors().skip(1).map(or_here).find(|folder| folder.exists());
    let Some(folder) = nearest else { return Ok(()) };
    if !folder.is_dir() {
        return Err(Errno::NOTDIR.into());
    }
    Ok(access(&folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

fn or_here(folder: &Path) -> PathBuf {
    if folder.as_os_str().is_empty() { ".".into() } else { folder.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_could_not_be_written_is_found_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let of =
            |path: PathBuf| OutputSettings { out_file: Some(path), ..OutputSettings::default() };
        let deep = folder.path().join("a/b/out.log");
        let keys = |settings: &OutputSettings| -> Vec<_> {
            problems(settings).into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(&of(deep.clone())), [""; 0]);
        assert!(!deep.parent().unwrap().exists());
        for wrong in ["", "/etc/passwd/out.log", "/proc/1/nonexistent/out.log"] {
            let wrong = folder.path().join(wrong);
            assert_eq!(keys(&of(wrong)), ["out_file"]);
        }
    }
}
