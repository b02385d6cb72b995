//! Reads settings from flags, environment and file, at the start and at each reload.
//!
//! # Pitfalls
//!
//! The physical directory of a program that was started in `/srv/app/current`, a symlink, stays that
//! of the release at that time. So the directory is kept by its logical name, `PWD`, and each reading
//! follows that name: after the symlink is switched, a reading finds the new release's configuration
//! file and runs workers there.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use crate::config::Config;
use crate::settings::before::Before;
use crate::settings::doubts::doubts;
use crate::settings::file::{File, USUAL_NAME, Variable};
use crate::settings::layers::{self, Entry, Origin};
use crate::settings::problems::{Problems, SettingsError};
use crate::settings::report::{self, Value};
use crate::settings::resolve::{Surroundings, resolve};
use crate::settings::table;
use crate::settings::user;
use crate::supervisor::pool::snapshot::After;
use crate::system::directory::current_directory;
use crate::system::limits::memory_limit;
use crate::system::place::Place;

/// The flags, and what it takes to read the rest again.
#[derive(Debug)]
pub struct Reader {
    typed: Vec<Entry>,
    config: Option<PathBuf>,
    profile: Option<String>,
    here: PathBuf,
    /// A file existed before: its absence is an error, not a choice of defaults.
    had_file: Cell<bool>,
}

/// The result of reading the settings.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The settings.
    pub config: Config,
    /// Each setting's value and origin.
    pub values: Vec<Value>,
    /// The configuration file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// Settings that are valid and hardly meant.
    pub warnings: Vec<String>,
}

impl Reading {
    /// Problems found by their keys, as an error that names the place of each.
    #[must_use]
    pub fn error(&self, problems: Vec<(&'static str, String)>) -> SettingsError {
        let place = |key: &str| {
            let found = self.values.iter().find(|value| value.key == key);
            place(found.map(|value| &value.origin), key)
        };
        let lines = problems.into_iter().map(|(key, text)| format!("{}: {text}", place(key)));
        SettingsError { lines: lines.collect() }
    }
}

impl Reader {
    /// A reader for the matches of a command with [`table::Arguments`].
    ///
    /// # Errors
    ///
    /// If the current directory does not exist, or `--args` are not valid words.
    pub fn new(matches: &ArgMatches) -> Result<Self, SettingsError> {
        let here = here()?;
        Ok(Self {
            typed: layers::typed(matches, &here)?,
            config: matches.get_one("config").cloned(),
            profile: matches.get_one("profile").cloned(),
            here,
            had_file: Cell::new(false),
        })
    }

    /// A reader for a file alone, which need not be there.
    ///
    /// # Errors
    ///
    /// If the current directory does not exist.
    pub fn of_file(file: &Path) -> Result<Self, SettingsError> {
        let (typed, profile, had_file) = (Vec::new(), None, Cell::new(true));
        Ok(Self { typed, config: Some(file.to_owned()), profile, here: here()?, had_file })
    }

    /// The number of the line of the file that this line of an error names, and what it says of it.
    #[must_use]
    pub fn line_of<'a>(&self, line: &'a str) -> Option<(usize, &'a str)> {
        let (_, name) = self.place();
        let (number, reason) = line.strip_prefix(&format!("{name}:"))?.split_once(": ")?;
        Some((number.parse().ok()?, reason))
    }

    /// Reads file and environment.
    ///
    /// # Errors
    ///
    /// If any setting is not valid; the error lists all of them with their places.
    pub fn read(&self) -> Result<Reading, SettingsError> {
        let source = self.source()?;
        let is_file = source.is_some();
        let reading = self.read_source(source, None)?;
        if is_file {
            self.check_file(&reading.config)?;
        }
        Ok(reading)
    }

    /// Workers' user must not be able to change what a primary of another user runs.
    fn check_file(&self, config: &Config) -> Result<(), SettingsError> {
        let user = config.workers.command.user.as_ref();
        let Some(user) = user.filter(|user| user::is_other(Some(user))) else { return Ok(()) };
        let groups: Vec<_> = user.groups.iter().copied().chain([user.gid]).collect();
        let (path, name) = self.place();
        Place::check_unchangeable(&path, user.uid, &groups).map_err(|error| SettingsError {
            lines: vec![format!(
                "{name}: workers run as user {}, who could change the configuration and so what the \
                 primary runs as root: {error}",
                user.name.clone().unwrap_or_else(|| user.uid.to_string()),
            )],
        })
    }

    /// As [`Self::read`], with the file's text of another process's reading.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn read_again(&self, source: Option<String>) -> Result<Reading, SettingsError> {
        self.had_file.set(source.is_some());
        self.read_source(source, None)
    }

    /// For the successor of a primary. After a crash, the file's text is as before, even if the file has
    /// changed since; with an upgrade, it is read again. If it is still the same, or the file cannot be read,
    /// things outside that are gone are as the primary before had them, with a note
    /// ([`Config::not_renewed`]).
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn read_after(&self, before: &Before) -> Result<Reading, SettingsError> {
        self.had_file.set(before.source.is_some());
        let found = match before.after {
            After::Crash => Ok(before.source.clone()),
            After::Upgrade => self.source(),
        };
        let note = match found {
            Ok(found) if found != before.source => return self.read(),
            Ok(_) => None,
            Err(error) if before.source.is_none() => return Err(error),
            Err(error) => Some(error.to_string()),
        };
        let mut reading = self.read_source(before.source.clone(), Some(before))?;
        reading.config.not_renewed.extend(note);
        Ok(reading)
    }

    fn read_source(
        &self,
        source: Option<String>,
        before: Option<&Before>,
    ) -> Result<Reading, SettingsError> {
        let (path, name) = self.place();
        let file = match &source {
            Some(text) => File::parse(text, &path, &name)?,
            None => File::default(),
        };
        let variables = self.variables(&file, &name)?;
        let settings = table::settings();
        let environment = layers::variables(&settings, |name| std::env::var_os(name))?;
        let merged = layers::merge(vec![file.entries, environment, self.typed.clone()]);
        let arguments = layers::arguments(&settings, &merged);
        let (table, matches) = table::parse(settings, arguments)
            .map_err(|error| SettingsError { lines: vec![error.to_string()] })?;

        let mut problems = Problems::default();
        let surroundings = Surroundings {
            here: &self.here,
            workers_given: merged.contains_key("workers"),
            memory: memory_limit().unwrap_or(u64::MAX),
            environment: variables.iter().map(pair).collect(),
            before,
        };
        let config = resolve(&table, surroundings, &mut problems);
        let not_renewed =
            problems.into_error(|key| place(merged.get(key).map(|entry| &entry.origin), key))?;
        let file = source.is_some().then_some(path);
        let config = Config { source, file: file.clone(), not_renewed, ..config };
        let values = report::values(&matches, &merged, &variables, &config);
        let warnings = doubts(&table::settings(), &merged, &variables, &config);
        Ok(Reading { config, values, file, warnings })
    }

    /// The file's path, and its name in messages.
    fn place(&self) -> (PathBuf, String) {
        let name = self.config.as_deref().unwrap_or_else(|| Path::new(USUAL_NAME));
        (self.here.join(name), name.display().to_string())
    }

    /// The file's text, if there is one.
    fn source(&self) -> Result<Option<String>, SettingsError> {
        let (path, name) = self.place();
        if self.config.is_none() && !self.had_file.get() && !path.exists() {
            return Ok(None);
        }
        let text = File::text(&path, &name, !self.had_file.get())?;
        self.had_file.set(true);
        Ok(Some(text))
    }

    /// The variables of all workers and of the profile.
    fn variables(&self, file: &File, name: &str) -> Result<Vec<Variable>, SettingsError> {
        let of = |wanted: &str| file.profiles.iter().find(|(profile, _)| profile == wanted);
        let mut variables = of("").map(|(_, variables)| variables.clone()).unwrap_or_default();
        let Some(profile) = &self.profile else { return Ok(variables) };
        let Some((_, more)) = of(profile).filter(|_| !profile.is_empty()) else {
            return Err(SettingsError { lines: vec![no_profile(profile, file, name)] });
        };
        variables.retain(|variable| more.iter().all(|other| other.name != variable.name));
        variables.extend_from_slice(more);
        Ok(variables)
    }
}

fn pair(variable: &Variable) -> (OsString, OsString) {
    (variable.name.as_str().into(), variable.value.as_str().into())
}

fn no_profile(profile: &str, file: &File, name: &str) -> String {
    let profiles = file.profiles.iter().map(|(profile, _)| profile);
    let known: Vec<_> = profiles.filter(|profile| !profile.is_empty()).cloned().collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("--env: {name} has no [env_{profile}]; its profiles: {known}")
}

/// The place of a setting, and its key.
fn place(origin: Option<&Origin>, key: &str) -> String {
    match origin {
        None | Some(Origin::Default) => key.to_owned(),
        Some(origin @ Origin::File { .. }) => format!("{origin}: {key}"),
        Some(origin) => origin.to_string(),
    }
}

fn here() -> Result<PathBuf, SettingsError> {
    current_directory().map_err(|error| SettingsError {
        lines: vec![format!("cannot open the current directory: {error}")],
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_reading_follows_a_symlink_that_was_switched() {
        let root = std::env::temp_dir().join(format!("sticky-lb-releases-{}", std::process::id()));
        let current = root.join("current");
        for release in ["one", "two"] {
            fs::create_dir_all(root.join(release)).unwrap();
            fs::write(root.join(release).join(USUAL_NAME), format!("name = {release:?}")).unwrap();
        }
        let reader = Reader {
            typed: Vec::new(),
            config: None,
            profile: None,
            here: current.clone(),
            had_file: Cell::new(false),
        };
        for release in ["one", "two"] {
            let _ = fs::remove_file(&current);
            symlink(release, &current).unwrap();
            let config = reader.read().unwrap().config;
            assert_eq!(config.name, release);
            let expected = root.join(release).canonicalize().unwrap();
            assert_eq!(config.workers.command.directory, Some(expected));
        }
        fs::remove_dir_all(root).unwrap();
        assert!(reader.read().is_err(), "a file that has gone is no choice of defaults");
    }
}
