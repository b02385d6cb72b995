//! How many descriptors this process may have.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open descriptors as far as the kernel allows without privileges, and says how
/// far that is. Processes that are started later inherit it.
///
/// # Errors
///
/// If the kernel refuses.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}
