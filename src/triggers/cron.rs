//! The times of a cron expression.

/// A cron expression in local time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    expression: String,
}

/// Why an expression is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a cron expression such as \"0 3 * * *\"")]
pub struct CronError;

impl Schedule {
    /// Reads an expression.
    ///
    /// # Errors
    ///
    /// If it is empty.
    pub fn parse(expression: &str) -> Result<Self, CronError> {
        if expression.trim().is_empty() {
            return Err(CronError);
        }
        Ok(Self { expression: expression.to_owned() })
    }

    /// What was written.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }
}
