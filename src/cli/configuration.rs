//! `sticky-lb check` and `sticky-lb init`: configuration shown, and written.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::cli::failure::Failure;
use crate::cli::flags::{Check, Init};
use crate::cli::screen::{Screen, complain};
use crate::primary::preflight;
use crate::settings::file::USUAL_NAME;
use crate::settings::layers::Origin;
use crate::settings::pm2::convert;
use crate::settings::pm2::ecosystem::{self, App};
use crate::settings::reader::{Reader, Reading};
use crate::settings::report::Value;
use crate::settings::template;

/// The mode of a file with settings alone, less the mask of the process.
const PUBLIC: u32 = 0o666;
/// The mode of a file that may hold secrets.
const PRIVATE: u32 = 0o600;

/// Prints the resulting settings, unless a start would refuse them.
pub(super) fn check(reading: &Reading, check: &Check) -> Result<(), Box<dyn Error>> {
    let print = |text: &str| Screen::new().print(text).map_err(Failure::Print);
    let problems = preflight::problems(&reading.config);
    if !problems.is_empty() {
        return Err(reading.error(problems).into());
    }
    reading.warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    if check.json {
        return Ok(Screen::new().json(&json(&reading.values)).map_err(Failure::Print)?);
    }
    let read = match &reading.file {
        Some(file) => format!("read {}", file.display()),
        None => format!("there is no {USUAL_NAME} here"),
    };
    Ok(print(&format!("{}\n# ok: {read}\n", text(&reading.values)))?)
}

/// All values, as a file that says the same, with where each was written beside it.
fn text(values: &[Value]) -> String {
    let lines: Vec<_> = values
        .iter()
        .map(|value| match &value.text {
            Some(text) => format!("{} = {text}", value.key),
            None if value.key.starts_with("env.") => format!("# {} is set", value.key),
            None => format!("# {} is not set", value.key),
        })
        .collect();
    let width = lines.iter().map(|line| line.chars().count()).filter(|width| *width < 60).max();
    let width = width.unwrap_or(0);
    let beside = |(line, value): (&String, &Value)| match (&value.text, &value.origin) {
        (None, Origin::Default) => format!("{line}\n"),
        (_, origin) => format!("{line:width$}  # {origin}\n"),
    };
    lines.iter().zip(values).map(beside).collect()
}

/// All values, by their keys.
fn json(values: &[Value]) -> Json {
    let value = |value: &Value| {
        let plain = value.text.as_ref().map(|text| {
            // What a file says is JSON, but for octal numbers, which nothing here is written as.
            serde_json::from_str(text).unwrap_or_else(|_| Json::from(text.as_str()))
        });
        (value.key.clone(), json!({"value": plain, "from": value.origin.to_string()}))
    };
    Json::Object(values.iter().map(value).collect())
}

/// The file that is written.
pub(super) fn written(init: &Init) -> &Path {
    init.file.as_deref().unwrap_or_else(|| USUAL_NAME.as_ref())
}

/// Writes a file, and returns what it doesn't say of what it was made from.
pub(super) fn init(init: &Init) -> Result<Vec<String>, Box<dyn Error>> {
    let file = written(init);
    let Some(source) = &init.from_pm2 else {
        write(file, &template::commented(), PUBLIC, init.force)?;
        return Ok(Vec::new());
    };
    let apps = ecosystem::read(source)?;
    let app = choose(&apps, init.app.as_deref(), source)?;
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    let reader = Reader::of_file(file)?;
    let check = |text: &str| refused(&reader, text);
    let converted = convert::convert(app, source, folder, check);
    let mode = if converted.has_variables || is_private(source) { PRIVATE } else { PUBLIC };
    write(file, &converted.text, mode, init.force)?;
    let mut notes = converted.notes;
    // What is written is right; what it names may still be missing here.
    match reader.read_again(Some(converted.text)) {
        Ok(reading) => notes.extend(reading.error(preflight::problems(&reading.config)).lines),
        Err(error) => notes.extend(error.lines),
    }
    Ok(notes)
}

/// The settings in this text that are refused when it is read, by the lines that the errors name.
fn refused(reader: &Reader, text: &str) -> Vec<(String, String)> {
    let Err(error) = reader.read_again(Some(text.to_owned())) else { return Vec::new() };
    let key_and_reason = |line: &String| {
        let (number, reason) = reader.line_of(line)?;
        let (key, _) = text.lines().nth(number.checked_sub(1)?)?.split_once(" = ")?;
        let reason = reason.strip_prefix(&format!("{key}: ")).unwrap_or(reason);
        Some((key.to_owned(), reason.to_owned()))
    };
    error.lines.iter().filter_map(key_and_reason).collect()
}

/// One primary runs one app.
fn choose<'a>(apps: &'a [App], name: Option<&str>, source: &Path) -> Result<&'a App, String> {
    let names: Vec<_> = apps.iter().map(name_of).collect();
    let found = match (apps, name) {
        ([only], None) => Some(only),
        (_, None) => None,
        (_, name) => apps.iter().zip(&names).find(|(_, other)| **other == name).map(|(app, _)| app),
    };
    found.ok_or_else(|| {
        let known = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let wanted = name.map(|name| format!("no app {name:?}: ")).unwrap_or_default();
        let source = source.display();
        format!("{wanted}{source} describes {known}: choose by --app, one for each primary")
    })
}

/// An app's name: one without is called by its script, as in PM2.
fn name_of(app: &App) -> Option<&str> {
    let text = |key: &str| app.get(key).and_then(Json::as_str);
    let script = || Path::new(text("script").or_else(|| text("exec"))?).file_stem()?.to_str();
    text("name").or_else(script)
}

/// Whether its owner alone can read it.
fn is_private(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.permissions().mode() & 0o077 == 0)
}

/// Writes a file that must not be there yet, unless it may be replaced.
fn write(file: &Path, text: &str, mode: u32, force: bool) -> Result<(), Box<dyn Error>> {
    let result = if force { replace(file, text, mode) } else { create(file, text, mode) };
    let name = file.display();
    result.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => format!("{name} is there already: --force replaces it").into(),
        _ => format!("cannot write {name}: {error}").into(),
    })
}

fn create(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut open = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
    open.write_all(text.as_bytes())
}

/// A new file takes the place of the old one, whose mode and other names it doesn't have.
fn replace(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(format!(".{}.new", std::process::id()));
    let fresh = Path::new(&fresh);
    let replaced = create(fresh, text, mode).and_then(|()| fs::rename(fresh, file));
    if replaced.is_err() {
        let _ = fs::remove_file(fresh);
    }
    replaced
}
