//! Mutexes whose contents stay usable after a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. Nothing that this library does under a lock leaves it half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
