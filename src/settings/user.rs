//! The user and group of workers, by name or number.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User as Entry, getegid, geteuid, getgrouplist};

use crate::supervisor::command::User;

/// The key of a setting, and its error.
type Refusal = (&'static str, String);

/// The user and groups with these names; `None` without names.
///
/// # Errors
///
/// If there is no such user or group, or this process may not change to it.
pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<User>, Refusal> {
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let (uid, entry) = match user {
        Some(name) => user_of(name)?,
        None => (geteuid(), Entry::from_uid(geteuid()).ok().flatten()),
    };
    let gid = match group {
        Some(name) => group_of(name)?,
        None => entry.as_ref().map(|entry| entry.gid).ok_or_else(|| {
            ("user", format!("user {uid} has no entry on this machine: set group too"))
        })?,
    };
    may_become(user.unwrap_or_default(), uid, group.unwrap_or_default(), gid)?;
    Ok(Some(User {
        groups: supplementary(entry.as_ref(), gid),
        name: entry.as_ref().map(|entry| entry.name.clone()),
        home: entry.map(|entry| entry.dir),
        uid: uid.as_raw(),
        gid: gid.as_raw(),
    }))
}

/// Whether workers run as another user than this process.
#[must_use]
pub fn is_other(user: Option<&User>) -> bool {
    user.is_some_and(|user| user.uid != geteuid().as_raw())
}

fn user_of(name: &str) -> Result<(Uid, Option<Entry>), Refusal> {
    let failed = |error| ("user", format!("cannot look up user {name:?}: {error}"));
    if let Some(entry) = Entry::from_name(name).map_err(failed)? {
        return Ok((entry.uid, Some(entry)));
    }
    let number = name.parse().map_err(|_| ("user", format!("there is no user {name:?}")))?;
    let uid = Uid::from_raw(number);
    Ok((uid, Entry::from_uid(uid).map_err(failed)?))
}

fn group_of(name: &str) -> Result<Gid, Refusal> {
    let failed = |error| ("group", format!("cannot look up group {name:?}: {error}"));
    if let Some(entry) = Group::from_name(name).map_err(failed)? {
        return Ok(entry.gid);
    }
    let number = name.parse().map_err(|_| ("group", format!("there is no group {name:?}")))?;
    Ok(Gid::from_raw(number))
}

fn may_become(user: &str, uid: Uid, group: &str, gid: Gid) -> Result<(), Refusal> {
    let (own_uid, own_gid) = (geteuid(), getegid());
    if own_uid.is_root() || (uid == own_uid && gid == own_gid) {
        return Ok(());
    }
    let (key, name) = if uid == own_uid { ("group", group) } else { ("user", user) };
    let own = format!("this is {own_uid}:{own_gid}");
    Err((key, format!("cannot become {key} {name}: run as root ({own})")))
}

/// The user's groups; a user without an entry has only its primary group.
fn supplementary(entry: Option<&Entry>, gid: Gid) -> Vec<u32> {
    let name = entry.and_then(|entry| CString::new(entry.name.as_str()).ok());
    let groups = name.and_then(|name| getgrouplist(&name, gid).ok());
    groups.unwrap_or_else(|| vec![gid]).into_iter().map(Gid::as_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_user_by_default() {
        assert_eq!(find(None, None), Ok(None));
    }

    #[test]
    fn names_and_numbers_are_the_same_user() {
        let own = geteuid().as_raw().to_string();
        let group = getegid().as_raw().to_string();
        let found = find(Some(&own), Some(&group)).unwrap().unwrap();
        assert_eq!((found.uid, found.gid), (geteuid().as_raw(), getegid().as_raw()));
        if let Some(name) = &found.name {
            assert_eq!(find(Some(name), Some(&group)).unwrap().as_ref(), Some(&found));
        }
        assert!(found.groups.contains(&found.gid), "{found:?}");
    }

    #[test]
    fn a_user_that_does_not_exist_is_named() {
        let (key, text) = find(Some("no such user"), None).unwrap_err();
        assert_eq!((key, text.as_str()), ("user", "there is no user \"no such user\""));
        let (key, _) = find(None, Some("no such group")).unwrap_err();
        assert_eq!(key, "group");
    }
}
