//! Errors in settings, all reported together.

/// Settings that are not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines.join("\n"))]
pub struct SettingsError {
    /// One line for each error: place, setting, expected and found value.
    pub lines: Vec<String>,
}

/// Errors by the keys of their settings.
#[derive(Debug, Default)]
pub(super) struct Problems {
    errors: Vec<(&'static str, String)>,
    not_renewed: Vec<(&'static str, String)>,
}

impl Problems {
    pub(super) fn note(&mut self, key: &'static str, text: String) {
        self.errors.push((key, text));
    }

    /// A thing outside cannot be had: an error, unless a predecessor had it `before`.
    pub(super) fn or_before<T>(
        &mut self,
        key: &'static str,
        text: String,
        before: Option<T>,
    ) -> Option<T> {
        if before.is_some() {
            self.not_renewed.push((key, text));
        } else {
            self.note(key, text);
        }
        before
    }

    /// Fails if there are any. `place` returns the place of a setting. Else returns a line for each thing
    /// that is as before.
    pub(super) fn into_error(
        self,
        place: impl Fn(&str) -> String,
    ) -> Result<Vec<String>, SettingsError> {
        let line = |(key, text): (&str, String)| format!("{}: {text}", place(key));
        fail_if_any(self.errors.into_iter().map(line).collect())?;
        Ok(self.not_renewed.into_iter().map(line).collect())
    }
}

pub(super) fn fail_if_any(lines: Vec<String>) -> Result<(), SettingsError> {
    if lines.is_empty() { Ok(()) } else { Err(SettingsError { lines }) }
}
