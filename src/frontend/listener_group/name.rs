//! Names of members in the descriptor store.

use std::fmt;

use crate::protocol::ids::SlotId;

/// How they begin.
const PREFIX: &str = "group";

/// What a successor needs to know of a member: `group.3.5.4101` is of slot 3, at index 5. The kernel's name of the
/// socket makes it the only one while indices change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberName {
    pub(super) slot: SlotId,
    pub(super) index: usize,
    pub(super) cookie: u64,
}

impl MemberName {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.strip_prefix('.')?.split('.');
        let slot = SlotId(parts.next()?.parse().ok()?);
        let (index, cookie) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Self { slot, index, cookie })
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}.{}", self.slot, self.index, self.cookie)
    }
}
