//! Counts a connection's HTTP requests: whether one is owed an answer.
//!
//! Never sees an answer: the server says when it is made, and the library flushes when it is out.

/// The requests that were read, and their answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requests {
    /// Requests whose head was delivered.
    begun: u64,
    /// Requests whose answer was made.
    finished: u64,
    answers: Answers,
}

/// The facts known of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// Nothing says when they are made: only that something was written since a head was delivered.
    Observed { written: bool },
    /// The server says when they are made. Flushed: nothing was written or made since the library
    /// has flushed.
    Counted { flushed: bool },
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self { begun: 0, finished: 0, answers: Answers::Observed { written: false } }
    }

    /// A head is delivered.
    pub(crate) fn begin(&mut self) {
        self.begun += 1;
        if let Answers::Observed { written } = &mut self.answers {
            *written = false;
        }
    }

    /// The server will say when this request's answer is made.
    pub(crate) fn count(&mut self) {
        if let Answers::Observed { .. } = self.answers {
            self.answers = Answers::Counted { flushed: false };
        }
    }

    /// An answer is made. That is before it is written.
    pub(crate) fn finish(&mut self) {
        self.finished += 1;
        self.answers = Answers::Counted { flushed: false };
    }

    #[cfg(test)]
    pub(crate) fn finished(&self) -> u64 {
        self.finished
    }

    pub(crate) fn wrote(&mut self) {
        match &mut self.answers {
            Answers::Observed { written } => *written = true,
            Answers::Counted { flushed } => *flushed = false,
        }
    }

    /// The library has nothing left to write.
    pub(crate) fn flush(&mut self) {
        if let Answers::Counted { flushed } = &mut self.answers {
            *flushed = true;
        }
    }

    /// Nothing is owed for certain. If answers are not counted, that is so before the first request
    /// only.
    pub(crate) fn idle(&self) -> bool {
        self.begun == 0 || self.all_answered()
    }

    /// The next head may be read. If answers are not counted, one that has begun must do: it can't
    /// be mistaken for the answer to an upgrade that is read after it.
    pub(crate) fn answered(&self) -> bool {
        match self.answers {
            _ if self.begun == 0 => true,
            Answers::Observed { written } => written,
            Answers::Counted { .. } => self.all_answered(),
        }
    }

    fn all_answered(&self) -> bool {
        self.begun == self.finished && self.answers == Answers::Counted { flushed: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_owed_until_its_answer_is_made_and_flushed() {
        let mut requests = Requests::new();
        assert!(requests.idle() && requests.answered());
        requests.begin();
        requests.count();
        requests.wrote();
        requests.flush();
        assert!(!requests.idle() && !requests.answered(), "flushed, but not all of it was made");
        requests.finish();
        assert!(!requests.idle() && !requests.answered(), "made, but not flushed");
        requests.flush();
        assert!(requests.idle() && requests.answered());
        requests.begin();
        assert!(!requests.idle());
    }

    #[test]
    fn uncounted_it_is_idle_before_the_first_request_only() {
        let mut requests = Requests::new();
        requests.begin();
        assert!(!requests.answered());
        requests.wrote();
        requests.flush();
        assert!(requests.answered() && !requests.idle());
    }
}
