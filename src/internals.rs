//! The primary's parts, for the binary, the tests and the benches of this package. They change without notice.

/// What an upgrade or a crash carries over.
#[cfg(feature = "cli")]
pub mod handover {
    pub use crate::handover::*;
}

/// See `src/closing`.
#[cfg(feature = "cli")]
pub mod closing {
    pub use crate::closing::*;
}

/// The primary's end to one worker.
#[cfg(feature = "cli")]
pub mod link {
    pub use crate::link::*;
}

/// See `src/bus`.
#[cfg(feature = "cli")]
pub mod bus {
    pub use crate::bus::*;
}

/// The flags and commands.
#[cfg(all(feature = "cli", feature = "demo"))]
pub mod cli {
    pub use crate::cli::*;
}

/// The built-in worker.
#[cfg(feature = "demo")]
pub mod demo {
    pub use crate::demo::*;
}

/// See `src/config`.
#[cfg(feature = "cli")]
pub mod config {
    pub use crate::config::*;
}

/// See `src/conformance`.
#[cfg(feature = "cli")]
pub mod conformance {
    pub use crate::conformance::*;
}

/// See `src/control`.
#[cfg(feature = "cli")]
pub mod control {
    pub use crate::control::*;
}

/// See `src/frontend`.
#[cfg(feature = "cli")]
pub mod frontend {
    pub use crate::frontend::*;
}

/// See `src/keeper`.
#[cfg(feature = "cli")]
pub mod keeper {
    pub use crate::keeper::*;
}

/// See `src/log`.
#[cfg(feature = "cli")]
pub mod log {
    pub use crate::log::*;
}

/// See `src/primary`.
#[cfg(feature = "cli")]
pub mod primary {
    pub use crate::primary::*;
}

/// See `src/sessions`.
#[cfg(feature = "cli")]
pub mod sessions {
    pub use crate::sessions::*;
}

/// See `src/settings`.
#[cfg(feature = "cli")]
pub mod settings {
    pub use crate::settings::*;
}

/// See `src/supervisor`.
#[cfg(feature = "cli")]
pub mod supervisor {
    pub use crate::supervisor::*;
}

/// See `src/system`.
#[cfg(feature = "cli")]
pub mod system {
    pub use crate::system::*;
}

/// See `src/triggers`.
#[cfg(feature = "cli")]
pub mod triggers {
    pub use crate::triggers::*;
}

/// See `src/upgrade`.
#[cfg(feature = "cli")]
pub mod upgrade {
    pub use crate::upgrade::*;
}

/// Shared memory and the like; what makes a descriptor of a number is not public.
pub mod kernel {
    pub use crate::kernel::*;
}
