//! What is wrong with what was written: all of it at once.

/// Why there are no settings: everything that is wrong, a line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines.join("\n"))]
pub struct SettingsError {
    /// Each names where, which setting, what was expected and what was found.
    pub lines: Vec<String>,
}

/// Settings that cannot be had, by their keys.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<(&'static str, String)>);

impl Problems {
    pub(super) fn note(&mut self, key: &'static str, text: String) {
        self.0.push((key, text));
    }

    /// As an error, unless there are none. `place` says where a setting was written.
    pub(super) fn into_error(self, place: impl Fn(&str) -> String) -> Result<(), SettingsError> {
        let lines = self.0.into_iter().map(|(key, text)| format!("{}: {text}", place(key)));
        fail_if_any(lines.collect())
    }
}

pub(super) fn fail_if_any(lines: Vec<String>) -> Result<(), SettingsError> {
    if lines.is_empty() { Ok(()) } else { Err(SettingsError { lines }) }
}
