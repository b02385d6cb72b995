//! Whether a session whose worker has died goes on: only if the kernel's counters prove that nothing has
//! passed since it was last at rest.
//!
//! Never does I/O: a function of the worker's checkpoint and of the kernel's counters.

use crate::protocol::tcp_progress::TcpProgress;

/// The outcome for a session whose worker has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryOutcome {
    /// It goes on in another worker.
    Recovered,
    /// It is closed.
    Failed(RecoveryFailure),
}

/// Why a session doesn't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryFailure {
    /// Bytes were read or written since it was at rest.
    Busy,
    /// Its client has gone, or its worker had closed it.
    ClientGone,
    /// Its checkpoint is missing or damaged, or the kernel cannot tell.
    Unverified,
    /// It was at rest, and no worker has taken it.
    NoTarget,
}

impl RecoveryFailure {
    /// Its name in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::ClientGone => "client-gone",
            Self::Unverified => "unverified",
            Self::NoTarget => "no-target",
        }
    }
}

/// The outcome for a session. `published` is its entry in the worker's checkpoint, if that is valid;
/// `counted` the kernel's counters: none if the client is gone, an error if the kernel can't tell.
pub fn recovery_outcome<E>(
    published: Option<TcpProgress>,
    counted: Result<Option<TcpProgress>, E>,
) -> RecoveryOutcome {
    match (published, counted) {
        (_, Ok(None)) => RecoveryOutcome::Failed(RecoveryFailure::ClientGone),
        (None, _) | (_, Err(_)) => RecoveryOutcome::Failed(RecoveryFailure::Unverified),
        (Some(published), Ok(Some(counted))) if published == counted => RecoveryOutcome::Recovered,
        (Some(_), Ok(Some(_))) => RecoveryOutcome::Failed(RecoveryFailure::Busy),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_proven_goes_on() {
        use RecoveryFailure::{Busy, ClientGone, Unverified};
        let usage = |consumed, written| Some(TcpProgress::new(consumed, written));
        type Counted = Result<Option<TcpProgress>, ()>;
        let table: [(&str, Option<TcpProgress>, Counted, RecoveryOutcome); 8] = [
            ("at rest", usage(10, 20), Ok(usage(10, 20)), RecoveryOutcome::Recovered),
            ("a message was read", usage(10, 20), Ok(usage(11, 20)), RecoveryOutcome::Failed(Busy)),
            (
                "an answer was written",
                usage(10, 20),
                Ok(usage(10, 21)),
                RecoveryOutcome::Failed(Busy),
            ),
            (
                "what came is not what went",
                usage(10, 20),
                Ok(usage(20, 10)),
                RecoveryOutcome::Failed(Busy),
            ),
            ("its client has gone", usage(10, 20), Ok(None), RecoveryOutcome::Failed(ClientGone)),
            (
                "nothing was written down",
                None,
                Ok(usage(10, 20)),
                RecoveryOutcome::Failed(Unverified),
            ),
            ("nor is anybody there", None, Ok(None), RecoveryOutcome::Failed(ClientGone)),
            ("the kernel cannot tell", usage(10, 20), Err(()), RecoveryOutcome::Failed(Unverified)),
        ];
        for (what, published, counted, expected) in table {
            assert_eq!(recovery_outcome(published, counted), expected, "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_session_goes_on_with_an_unaccounted_byte(
            published: Option<(u64, u64)>, counted: Option<(u64, u64)>, fails: bool,
        ) {
            let usage = |(consumed, written)| TcpProgress::new(consumed, written);
            let kernel = if fails { Err(()) } else { Ok(counted.map(usage)) };
            let survives = recovery_outcome(published.map(usage), kernel) == RecoveryOutcome::Recovered;
            prop_assert_eq!(survives, published.is_some() && published == counted && !fails);
        }
    }
}
