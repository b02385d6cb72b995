//! Files that the primary itself writes. Their changes are no reason for a rolling restart, which writes to them
//! again.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The bit of a descriptor's link in `/proc/self/fd` that says that it is open for writing (proc(5)).
const WRITABLE: u32 = 0o200;

/// A file, whatever its name: device and inode.
type Identity = (u64, u64);

/// Named files, and those that are open.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnFiles {
    /// Without symlinks in their folders. Each stands for its rotated ones and those of single slots.
    paths: Vec<PathBuf>,
    /// Also after somebody else has renamed them.
    open: HashSet<Identity>,
}

impl OwnFiles {
    /// These, and all files that this process has open for writing: standard output and standard error, which
    /// its keeper writes to as well, and events.
    pub(super) fn find(paths: &[PathBuf]) -> Self {
        let mut own =
            Self { paths: paths.iter().map(|path| real(path)).collect(), ..Self::default() };
        for link in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
            let link = link.path();
            let Ok(Some(identity)) = written_file(&link) else { continue };
            own.open.insert(identity);
            let path = fs::read_link(&link).unwrap_or_default();
            if identity_of(&path).is_some_and(|it| it == identity) {
                own.paths.push(real(&path));
            }
        }
        own
    }

    /// Whether the primary writes this file, or has made this folder for one.
    pub(super) fn cover(&self, path: &Path) -> bool {
        let path = real(path);
        let is_open = || identity_of(&path).is_some_and(|it| self.open.contains(&it));
        self.are_named(&path) || is_open() || self.are_all_in(&path)
    }

    fn are_named(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        self.paths.iter().any(|own| {
            own.parent() == path.parent() && is_of_family(own.file_name().unwrap_or_default(), name)
        })
    }

    /// Whether this folder leads to such a file and has nothing else in it.
    fn are_all_in(&self, folder: &Path) -> bool {
        let lead_through = |path: &Path| self.paths.iter().any(|own| own.starts_with(path));
        let entries = || fs::read_dir(folder);
        lead_through(folder)
            && entries().is_ok_and(|mut entries| {
                entries.all(|entry| {
                    let is_own = |path: &Path| self.are_named(path) || lead_through(path);
                    entry.is_ok_and(|entry| is_own(&entry.path()))
                })
            })
    }
}

/// Without symlinks in the way to its folder.
fn real(path: &Path) -> PathBuf {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

fn identity_of(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// The regular file that a descriptor is open for writing to.
fn written_file(link: &Path) -> io::Result<Option<Identity>> {
    let is_writable = fs::symlink_metadata(link)?.mode() & WRITABLE != 0;
    let found = fs::metadata(link)?;
    Ok((is_writable && found.is_file()).then(|| (found.dev(), found.ino())))
}

/// Whether `name` is `own`, or a rotated one (`out.log.1`, `out.log-20260101.gz`), or that of a slot
/// (`out-3.log`).
fn is_of_family(own: &OsStr, name: &OsStr) -> bool {
    let (own, name) = (Path::new(own), name.as_bytes());
    let is_rest = |rest: &[u8]| match rest {
        [] => true,
        [b'.' | b'-', digit, ..] => digit.is_ascii_digit(),
        _ => false,
    };
    let whole = own.as_os_str().as_bytes();
    if name.strip_prefix(whole).is_some_and(is_rest) {
        return true;
    }
    let stem = own.file_stem().unwrap_or_default().as_bytes();
    let Some(slot) = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix(b"-")) else {
        return false;
    };
    let digits = slot.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let extension = &whole[stem.len()..];
    digits > 0 && slot[digits..].strip_prefix(extension).is_some_and(is_rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stands_for_its_rotated_ones_and_those_of_slots() {
        for (own, name, expected) in [
            ("out.log", "out.log", true),
            ("out.log", "out.log.1", true),
            ("out.log", "out.log.2.gz", true),
            ("out.log", "out.log-20260101", true),
            ("out.log", "out-0.log", true),
            ("out.log", "out-12.log.1", true),
            ("out", "out-3", true),
            (".hidden", ".hidden-3", true),
            ("app.log", "app.js", false),
            ("app.log", "app", false),
            ("app.log", "app-server.js", false),
            ("app.log", "app-1.js", false),
            ("app.log", "app.log.js", false),
            ("out", "output.js", false),
            ("out", "out-x", false),
        ] {
            assert_eq!(is_of_family(OsStr::new(own), OsStr::new(name)), expected, "{own}: {name}");
        }
    }

    #[test]
    fn an_open_file_is_known_by_any_name_and_so_is_a_folder_for_one() {
        let base = std::env::temp_dir().join(format!("sticky-lb-own-{}", std::process::id()));
        fs::create_dir_all(base.join("logs")).unwrap();
        let open = fs::File::create(base.join("events")).unwrap();
        let own = OwnFiles::find(&[base.join("logs/deep/out.log")]);
        fs::rename(base.join("events"), base.join("another")).unwrap();
        fs::write(base.join("main.js"), "1").unwrap();
        for (name, expected) in [
            ("events", true),
            ("another", true),
            ("main.js", false),
            ("logs", true),
            ("logs/deep/out.log", true),
            ("gone", false),
        ] {
            assert_eq!(own.cover(&base.join(name)), expected, "{name}");
        }
        fs::write(base.join("logs/other.js"), "1").unwrap();
        assert!(!own.cover(&base.join("logs")), "there is something else in it");
        assert!(!own.cover(&base));
        drop(open);
        fs::remove_dir_all(base).unwrap();
    }
}
