//! The times of a cron expression.

/// A cron expression in local time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    expression: String,
}

impl Schedule {
    /// What was written.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }
}
