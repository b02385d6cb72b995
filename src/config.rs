//! What the program runs on: the settings of its parts, gathered.
//!
//! Nothing here can be wrong any more: what was typed is checked in `cli`.

use crate::frontend::affinity::{DigestKind, Prefixes};
use crate::frontend::listener::ListenerSettings;
use crate::frontend::router::RouterSettings;
use crate::frontend::slot_table::SlotSettings;
use crate::supervisor::lifecycle::LifecycleSettings;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many slots, 1 at least.
    pub workers: u16,
    /// The workers' program and its arguments.
    pub command: Vec<std::ffi::OsString>,
    /// Where to listen.
    pub listener: ListenerSettings,
    /// What names a client.
    pub affinity: AffinitySettings,
    /// How clients find their slots.
    pub router: RouterSettings,
    /// How long slots are patient.
    pub slots: SlotSettings,
    /// Connections that a worker may have unacknowledged.
    pub credits: usize,
    /// How long each phase of a worker may take.
    pub lifecycle: LifecycleSettings,
}

/// What names a client.
#[derive(Clone)]
pub struct AffinitySettings {
    /// The digest.
    pub digest: DigestKind,
    /// What nobody outside knows; may be empty.
    pub secret: Vec<u8>,
    /// How much of an address counts.
    pub prefixes: Prefixes,
}

impl std::fmt::Debug for AffinitySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the secret.
        f.debug_struct("AffinitySettings")
            .field("digest", &self.digest)
            .field("prefixes", &self.prefixes)
            .finish_non_exhaustive()
    }
}
