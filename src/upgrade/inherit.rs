//! The state that the program before this one, in the same process, has left.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::handover::descriptors::{Descriptors, RestoreError};
use crate::handover::{StateError, StateFile};
use crate::kernel::{adopt, adopt_if};
use crate::protocol::sealed::is_sealed;
use crate::upgrade::VARIABLE;

/// The state that was left to this process, if this is an upgrade. It can be taken once.
///
/// # Errors
///
/// If it isn't understood, or one of its descriptors was not inherited: nothing of it can be used then.
/// After the check of the new program that is not to be expected.
pub fn inherited() -> Result<Option<(StateFile, Descriptors)>, StateError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let Some(number) = memory_of(std::env::var(VARIABLE).ok(), std::process::id()) else {
        return Ok(None);
    };
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(None);
    }
    let file = StateFile::from_memory(adopt_if(number, sealed)?)?;
    let mut descriptors = Descriptors::default();
    for (name, number) in &file.descriptors {
        let descriptor = adopt(*number).map_err(|source| {
            StateError::from(RestoreError::Unusable { name: name.clone(), source })
        })?;
        descriptors.insert(name, descriptor);
    }
    Ok(Some((file, descriptors)))
}

fn sealed(memory: BorrowedFd<'_>) -> io::Result<()> {
    if is_sealed(memory) { Ok(()) } else { Err(io::Error::other("not sealed memory")) }
}

/// The memfd, where it is meant for this process: a program that it has started inherits the variable.
fn memory_of(variable: Option<String>, own: u32) -> Option<i32> {
    let variable = variable?;
    let (number, process) = variable.split_once(':')?;
    (process.parse() == Ok(own)).then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_for_another_process_is_left_alone() {
        let of = |text: &str| memory_of(Some(text.to_owned()), 42);
        assert_eq!(of("7:42"), Some(7));
        for wrong in ["7:43", "7", ":42", "x:42", "7:", ""] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(memory_of(None, 42), None);
    }
}
