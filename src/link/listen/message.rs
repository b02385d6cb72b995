//! A notification of `sd_notify`, read: lines, each an assignment.
//!
//! Pure.

/// The longest notification that counts, in bytes, as service managers have it.
pub(super) const MAX_MESSAGE: usize = 4096;

/// Whether it says that the worker takes connections.
pub(super) fn says_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_its_own_says_ready() {
        for ready in ["READY=1", "READY=1\n", "STATUS=up\nREADY=1\nMAINPID=7", "\n\nREADY=1"] {
            assert!(says_ready(ready.as_bytes()), "{ready:?}");
        }
        let others =
            ["", "READY=0", "READY=11", "XREADY=1", "STATUS=READY=1", "READY=1\r", "\0READY=1"];
        for other in others {
            assert!(!says_ready(other.as_bytes()), "{other:?}");
        }
    }
}
