//! The role of a process that runs: the keeper, which starts another process of the same arguments, or the
//! primary.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use crate::config::Config;
use crate::keeper::KeeperSettings;
use crate::log;
use crate::system::{keeper, program, store};
use crate::upgrade;

/// The role of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The parent of primaries.
    Keeper(KeeperSettings),
    /// The primary of a keeper.
    KeptPrimary,
    /// A primary without a keeper.
    Primary,
}

impl Role {
    /// From settings and environment. Where systemd keeps descriptors, systemd is the keeper.
    pub(super) fn of(config: &Config) -> Self {
        decide(settings(config), keeper::is_kept(), store::is_systemd())
    }
}

/// Whether this process may follow another primary: after an upgrade, under a keeper, or under a systemd that
/// keeps descriptors.
pub(super) fn may_be_successor() -> bool {
    let is_upgrade = std::env::var_os(upgrade::VARIABLE).is_some();
    is_upgrade || keeper::is_kept() || store::is_systemd()
}

fn settings(config: &Config) -> Option<KeeperSettings> {
    let kill_timeout = config.workers.lifecycle.kill_timeout;
    config.keeper.map(|min_uptime| KeeperSettings { min_uptime, kill_timeout })
}

fn decide(wanted: Option<KeeperSettings>, is_kept: bool, is_systemd: bool) -> Role {
    match wanted {
        _ if is_kept => Role::KeptPrimary,
        Some(settings) if !is_systemd => Role::Keeper(settings),
        _ => Role::Primary,
    }
}

/// Sets up a primary under a keeper: a thread that panics ends the process, and its name is the program's, even
/// if the keeper has started it by a descriptor's number.
pub(super) fn be_kept() {
    log::abort_on_panic();
    let path = program::path().unwrap_or_default();
    let name = path.file_name().and_then(|name| CString::new(name.as_bytes()).ok());
    if let Some(name) = name {
        // A name is for people only.
        let _ = rustix::thread::set_name(&name);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn there_is_one_keeper_at_most() {
        let second = Duration::from_secs(1);
        let settings = KeeperSettings { min_uptime: second, kill_timeout: second };
        for (wanted, is_kept, is_systemd, expected) in [
            (Some(settings), false, false, Role::Keeper(settings)),
            (Some(settings), true, false, Role::KeptPrimary),
            (Some(settings), false, true, Role::Primary),
            (Some(settings), true, true, Role::KeptPrimary),
            (None, false, false, Role::Primary),
            (None, false, true, Role::Primary),
            // The configuration has changed since its keeper was started.
            (None, true, false, Role::KeptPrimary),
        ] {
            assert_eq!(decide(wanted, is_kept, is_systemd), expected);
        }
    }
}
