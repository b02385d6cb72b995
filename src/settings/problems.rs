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
pub(super) struct Problems(Vec<(&'static str, String)>);

impl Problems {
    pub(super) fn note(&mut self, key: &'static str, text: String) {
        self.0.push((key, text));
    }

    /// Fails if there are any. `place` returns the place of a setting.
    pub(super) fn into_error(self, place: impl Fn(&str) -> String) -> Result<(), SettingsError> {
        let lines = self.0.into_iter().map(|(key, text)| format!("{}: {text}", place(key)));
        fail_if_any(lines.collect())
    }
}

pub(super) fn fail_if_any(lines: Vec<String>) -> Result<(), SettingsError> {
    if lines.is_empty() { Ok(()) } else { Err(SettingsError { lines }) }
}
