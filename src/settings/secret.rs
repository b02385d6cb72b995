//! Files that hold secrets: refused where somebody else could choose or learn what is in them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::process::geteuid;

use crate::settings::user;
use crate::supervisor::command::User;
use crate::system::place::Place;

/// The largest size of such a file in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// The content of a file that root or this process's user owns, and alone may write. Workers of
/// another `user` may not read it either.
///
/// # Errors
///
/// A text that says what is wrong.
pub(super) fn read(file: &Path, user: Option<&User>) -> Result<Vec<u8>, String> {
    let name = file.display();
    let failed = |error: io::Error| format!("cannot read {name}: {error}");
    let other = user.filter(|user| user::is_other(Some(user)));
    let open = if other.is_some() { Place::open_guarded(file) } else { open(file) };
    let open = open.map_err(failed)?;
    check(&open, other).map_err(|why| format!("{name} {why}"))?;
    let mut content = Vec::new();
    open.take(MAX_BYTES).read_to_end(&mut content).map_err(failed)?;
    if content.is_empty() {
        return Err(format!("{name} is empty: it would protect nothing"));
    }
    Ok(content)
}

/// A named pipe is no file to wait for.
fn open(file: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(file)
}

fn check(file: &File, other: Option<&User>) -> Result<(), String> {
    let found = file.metadata().map_err(|error| format!("cannot be examined: {error}"))?;
    let (owner, mode) = (found.uid(), found.mode());
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(format!("belongs to user {owner}: make it root's, or this user's (chown)"));
    }
    if mode & 0o022 != 0 {
        return Err(format!("can be written by others, mode {:o}: chmod 600", mode & 0o777));
    }
    let reads = |user: &User| {
        let in_group = user.gid == found.gid() || user.groups.contains(&found.gid());
        mode & 0o004 != 0 || (mode & 0o040 != 0 && in_group)
    };
    match other.filter(|user| reads(user)) {
        None => Ok(()),
        Some(user) => Err(format!(
            "can be read by user {}, as whom workers run, mode {:o}: chmod 600 (in Kubernetes: \
             defaultMode: 0400)",
            user.uid,
            mode & 0o777
        )),
    }
}
