//! Which worker is replaced next: rolling restarts over all slots, and single slots that want it.
//!
//! Pure: facts in, slots to replace and outcomes out.

/// How replacements are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutSettings {
    /// Slots of a rolling restart that are replaced at the same time, 1 at least.
    pub parallel: u16,
    /// Draining workers may take so many bytes of memory together; beyond, the oldest ends.
    pub max_draining_memory: Option<u64>,
}

impl Default for RolloutSettings {
    fn default() -> Self {
        Self { parallel: 1, max_draining_memory: None }
    }
}
