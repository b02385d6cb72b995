//! Counts a connection's HTTP requests: whether one is owed an answer.
//!
//! Never sees an answer: that it is made, its owner says; that it is out, the library does by
//! flushing.

/// What was read, and what became of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requests {
    /// Whose head was delivered.
    begun: u64,
    /// Whose answer was made.
    finished: u64,
    /// Somebody says when answers are made.
    counted: bool,
    /// Something was written since a head was delivered.
    written: bool,
    /// Nothing was written or made since the library flushed.
    flushed: bool,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self { begun: 0, finished: 0, counted: false, written: false, flushed: true }
    }

    /// A head is delivered.
    pub(crate) fn begin(&mut self) {
        self.begun += 1;
        self.written = false;
    }

    /// Somebody will say when this request's answer is made.
    pub(crate) fn count(&mut self) {
        self.counted = true;
    }

    /// An answer is made. That is before it is written.
    pub(crate) fn finish(&mut self) {
        self.finished += 1;
        self.flushed = false;
    }

    #[cfg(test)]
    pub(crate) fn finished(&self) -> u64 {
        self.finished
    }

    pub(crate) fn wrote(&mut self) {
        self.written = true;
        self.flushed = false;
    }

    /// The library has nothing left to write.
    pub(crate) fn flush(&mut self) {
        self.flushed = true;
    }

    /// Nothing is owed for certain. If nobody counts, that is so before the first request only.
    pub(crate) fn idle(&self) -> bool {
        self.begun == 0 || self.counted && self.all_answered()
    }

    /// The next head may be read. If nobody counts, an answer that has begun must do: what an
    /// answer to an upgrade would be mistaken for is one that was begun after it was read.
    pub(crate) fn answered(&self) -> bool {
        self.begun == 0 || if self.counted { self.all_answered() } else { self.written }
    }

    fn all_answered(&self) -> bool {
        self.begun == self.finished && self.flushed
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
    fn where_nobody_counts_it_is_idle_before_the_first_request_only() {
        let mut requests = Requests::new();
        requests.begin();
        assert!(!requests.answered());
        requests.wrote();
        requests.flush();
        assert!(requests.answered() && !requests.idle());
    }
}
