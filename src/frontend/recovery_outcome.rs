//! Whether a session goes on whose worker has died: only if nothing has passed since it was last at
//! rest, which the kernel's counters prove.
//!
//! Never does I/O: a function of what the worker had written down and what the kernel has counted.

use crate::protocol::tcp_progress::Usage;

/// What becomes of a session whose worker has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on in another worker.
    Survives,
    /// It is closed.
    Ends(End),
}

/// Why a session doesn't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Something was read or written since it was at rest.
    Busy,
    /// Its client has gone, or its worker had closed it.
    ClientGone,
    /// What was written down is nothing, or nonsense, or the kernel cannot tell.
    Unverified,
    /// It was at rest, and nobody has taken it.
    NoTarget,
}

/// What becomes of a session. `published` is what its worker wrote down, if that is anything;
/// `counted` what the kernel has counted: nothing if the client is gone, an error if it can't tell.
pub fn fate<E>(published: Option<Usage>, counted: Result<Option<Usage>, E>) -> Fate {
    match (published, counted) {
        (_, Ok(None)) => Fate::Ends(End::ClientGone),
        (None, _) | (_, Err(_)) => Fate::Ends(End::Unverified),
        (Some(published), Ok(Some(counted))) if published == counted => Fate::Survives,
        (Some(_), Ok(Some(_))) => Fate::Ends(End::Busy),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_proven_goes_on() {
        use End::{Busy, ClientGone, Unverified};
        let usage = |consumed, written| Some(Usage::new(consumed, written));
        type Counted = Result<Option<Usage>, ()>;
        let table: [(&str, Option<Usage>, Counted, Fate); 8] = [
            ("at rest", usage(10, 20), Ok(usage(10, 20)), Fate::Survives),
            ("a message was read", usage(10, 20), Ok(usage(11, 20)), Fate::Ends(Busy)),
            ("an answer was written", usage(10, 20), Ok(usage(10, 21)), Fate::Ends(Busy)),
            ("what came is not what went", usage(10, 20), Ok(usage(20, 10)), Fate::Ends(Busy)),
            ("its client has gone", usage(10, 20), Ok(None), Fate::Ends(ClientGone)),
            ("nothing was written down", None, Ok(usage(10, 20)), Fate::Ends(Unverified)),
            ("nor is anybody there", None, Ok(None), Fate::Ends(ClientGone)),
            ("the kernel cannot tell", usage(10, 20), Err(()), Fate::Ends(Unverified)),
        ];
        for (what, published, counted, expected) in table {
            assert_eq!(fate(published, counted), expected, "{what}");
        }
    }

    proptest! {
        #[test]
        fn nobody_goes_on_of_whom_a_byte_is_unaccounted_for(
            published: Option<(u64, u64)>, counted: Option<(u64, u64)>, fails: bool,
        ) {
            let usage = |(consumed, written)| Usage::new(consumed, written);
            let kernel = if fails { Err(()) } else { Ok(counted.map(usage)) };
            let survives = fate(published.map(usage), kernel) == Fate::Survives;
            prop_assert_eq!(survives, published.is_some() && published == counted && !fails);
        }
    }
}
