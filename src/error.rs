//! Errors as text for people: with their causes, in one line.

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start")]
    struct Outer(#[source] io::Error);

    #[test]
    fn every_cause_is_named() {
        let error = Outer(io::Error::other("no memory"));
        assert_eq!(chain(&error), "cannot start: no memory");
        assert_eq!(chain(&io::Error::other("alone")), "alone");
    }
}
