//! The times of a cron expression, in local time, and waiting for them.
//!
//! When a time has come is decided from given times alone; the clock is read in one place. Never
//! says what is to happen then.
//!
//! # Promises
//!
//! * A time that the clock jumps over fires once, as soon as that is noticed: within a minute.
//! * The same time never fires twice in a row, however often the clock is set back across it.

use std::time::Duration;

use croner::parser::{CronParser, Year};
use croner::{Cron, errors::CronError as Refusal};
use jiff::Zoned;

/// A cron expression in local time: five fields, or six with seconds in front, or a name such as
/// `@daily`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    expression: String,
    cron: Cron,
}

/// Why an expression is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CronError {
    /// It has too few fields or too many.
    #[error(
        "{0} fields, expected 5 (minute, hour, day of month, month, day of week) or 6 with seconds in front"
    )]
    Count(usize),
    /// One of its fields is wrong.
    #[error("{field} {text:?}: {problem}; it takes {takes}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// The text.
        text: String,
        /// The reason.
        problem: String,
        /// An example that is right.
        takes: &'static str,
    },
    /// No day is like that.
    #[error("no such time ever comes")]
    Never,
    /// It begins with `@` and is not known.
    #[error("{0:?} is none of @yearly, @monthly, @weekly, @daily, @hourly")]
    UnknownName(String),
}

/// Each field's name, and what it takes.
const FIELDS: [(&str, &str); 6] = [
    ("second", "0-59"),
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of month", "1-31 or L for the last"),
    ("month", "1-12 or JAN-DEC"),
    ("day of week", "0-7 or SUN-SAT, where 0 and 7 are Sunday"),
];

impl Schedule {
    /// Reads an expression.
    ///
    /// # Errors
    ///
    /// If it is wrong: the error names the field.
    pub fn parse(expression: &str) -> Result<Self, CronError> {
        let expression = expression.trim();
        let cron = read(expression).map_err(|refusal| explain(expression, &refusal))?;
        let schedule = Self { expression: expression.to_owned(), cron };
        // From any day on: if it comes at all, it comes again.
        match schedule.next(&Zoned::default()) {
            Some(_) => Ok(schedule),
            None => Err(CronError::Never),
        }
    }

    /// The text.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The first time after `after`, in its time zone. A time of day that is skipped when the clocks
    /// go forward comes right after; one that there is twice comes once.
    #[must_use]
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        self.cron.find_next_occurrence(after, false).ok()
    }

    /// The last time until `now`.
    fn latest(&self, now: &Zoned) -> Option<Zoned> {
        self.cron.find_previous_occurrence(now, true).ok()
    }
}

/// Waits for one time of a schedule after the other.
#[derive(Clone, Debug)]
pub struct Alarm {
    schedule: Schedule,
    /// The clock at the last look.
    seen: Zoned,
    /// The time that fired last.
    fired: Option<Zoned>,
}

impl Alarm {
    /// The clock is looked at so often, since nothing tells that it was set.
    const LONGEST_SLEEP: Duration = Duration::from_secs(60);

    /// Set from now on.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        Self::set(schedule, Zoned::now())
    }

    fn set(schedule: Schedule, now: Zoned) -> Self {
        Self { schedule, seen: now, fired: None }
    }

    /// Returns when the next time has come. A time that comes between two calls counts, once. May be
    /// dropped and called again without missing anything.
    pub async fn due(&mut self) {
        loop {
            let now = Zoned::now();
            if self.look(&now) {
                return;
            }
            tokio::time::sleep(self.sleep(&now)).await;
        }
    }

    /// Whether a time has come since the last look.
    fn look(&mut self, now: &Zoned) -> bool {
        let seen = std::mem::replace(&mut self.seen, now.clone());
        let Some(next) = self.schedule.next(&seen).filter(|next| next <= now) else {
            return false;
        };
        // Of several that were jumped over only the last one is remembered, since all are done.
        let latest = self.schedule.latest(now).unwrap_or(next);
        let again = self.fired.as_ref() == Some(&latest);
        self.fired = Some(latest);
        !again
    }

    fn sleep(&self, now: &Zoned) -> Duration {
        let next = self.schedule.next(now).map(|next| now.duration_until(&next).unsigned_abs());
        next.unwrap_or(Self::LONGEST_SLEEP).min(Self::LONGEST_SLEEP)
    }
}

fn read(expression: &str) -> Result<Cron, Refusal> {
    CronParser::builder().year(Year::Disallowed).build().parse(expression)
}

/// Finds the field that is to blame: the one that is refused among stars.
fn explain(expression: &str, refusal: &Refusal) -> CronError {
    if expression.starts_with('@') {
        return CronError::UnknownName(expression.to_owned());
    }
    let written: Vec<&str> = expression.split_whitespace().collect();
    let names = match written.len() {
        5 => &FIELDS[1..],
        6 => &FIELDS[..],
        count => return CronError::Count(count),
    };
    let alone = |index: usize| {
        let mut fields = vec!["*"; written.len()];
        fields[index] = written[index];
        read(&fields.join(" ")).err()
    };
    let blamed = (0..written.len()).find_map(|index| Some((index, alone(index)?)));
    match blamed {
        Some((index, refusal)) => {
            let (field, takes) = names[index];
            let text = written[index].to_owned();
            CronError::Field { field, text, problem: problem(&refusal), takes }
        }
        // Each is right for itself. There is no such case, but then there is something to say.
        None => CronError::Field {
            field: "expression",
            text: expression.to_owned(),
            problem: problem(refusal),
            takes: "5 or 6 fields",
        },
    }
}

/// The parser's words as part of a sentence.
fn problem(refusal: &Refusal) -> String {
    let text = match refusal {
        Refusal::IllegalCharacters(_) => "contains what doesn't belong there",
        Refusal::ComponentError(text) | Refusal::InvalidPattern(text) => text.trim_end_matches('.'),
        _ => "not understood",
    };
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests;
