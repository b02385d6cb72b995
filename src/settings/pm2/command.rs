//! PM2's script, interpreter and arguments of both as one command.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::settings::pm2::ecosystem::App;
use crate::settings::units;
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::shell;

/// PM2's interpreter for a script's extension.
const INTERPRETERS: [(&str, &str); 10] = [
    ("js", "node"),
    ("cjs", "node"),
    ("mjs", "node"),
    ("ts", "node"),
    ("tsx", "node"),
    ("py", "python3"),
    ("rb", "ruby"),
    ("pl", "perl"),
    ("php", "php"),
    ("sh", "bash"),
];

/// The command of an app under its first names, without the app's own arguments, and what is to be said of it.
/// `base` is its directory.
pub(super) fn command(app: &App, base: &Path) -> Result<Command, String> {
    let value = |key: &str| app.get(key).filter(|value| !value.is_null());
    let script = value("script").and_then(Value::as_str);
    let script = script.ok_or("script: expected a string")?;
    let mut notes = Vec::new();
    let given = value("interpreter").and_then(Value::as_str);
    if given.is_none() && is_line(script, base) {
        let words = match words(&script.into()) {
            Ok(words) if !needs_shell(script, &words) => words,
            // As PM2 runs it.
            _ => {
                if value("args").is_some() {
                    notes.push(
                        "args: PM2 drops them where the script is a line for a shell".to_owned(),
                    );
                }
                return Ok(Command {
                    words: by_bash(script),
                    has_args: false,
                    is_node: false,
                    notes,
                });
            }
        };
        return Ok(Command { words, has_args: true, is_node: false, notes });
    }
    let interpreter = match given {
        Some("none") => None,
        Some(given) => Some(without_version(given, &mut notes)),
        None => usual(script, base),
    };
    let Some(interpreter) = interpreter else {
        return Ok(Command { words: program(script, base), has_args: true, is_node: false, notes });
    };
    if given.is_none() && Path::new(script).extension().is_some_and(|it| it == "ts" || it == "tsx")
    {
        notes.push(
            "script: PM2 runs TypeScript by bun, before version 6 by ts-node; here it is run by node, \
             which can from 22.18 on"
                .to_owned(),
        );
    }
    let is_node = interpreter.rsplit('/').next().is_some_and(|name| name.ends_with("node"));
    let mut command = vec![interpreter.to_owned()];
    if let Some(value) = value("node_args") {
        command.extend(words(value).map_err(|text| format!("node_args: {text}"))?);
    }
    command.push(script.to_owned());
    Ok(Command { words: command, has_args: true, is_node, notes })
}

/// Words of a command.
#[derive(Debug)]
pub(super) struct Command {
    /// The program and its arguments.
    pub(super) words: Vec<String>,
    /// The app's own arguments follow.
    pub(super) has_args: bool,
    /// It is run by Node.
    pub(super) is_node: bool,
    /// What is to be said of it.
    pub(super) notes: Vec<String>,
}

/// `node@18` is a version that PM2 takes from nvm.
fn without_version<'a>(interpreter: &'a str, notes: &mut Vec<String>) -> &'a str {
    let Some((name, version)) = interpreter.split_once('@') else { return interpreter };
    notes.push(format!(
        "interpreter: PM2 takes version {version} of {name} from nvm: write that one's path into command"
    ));
    name
}

/// Whether PM2 takes a script for a line of several words.
fn is_line(script: &str, base: &Path) -> bool {
    script.contains(' ') && !base.join(script).exists()
}

/// Whether a shell has to take the line apart.
fn needs_shell(line: &str, words: &[String]) -> bool {
    const SHELLS: [char; 16] =
        ['&', '|', ';', '<', '>', '(', ')', '$', '`', '*', '?', '[', '{', '~', '!', '\n'];
    let mut all = words.iter().map(Into::into);
    let program = all.next().unwrap_or_default();
    let command = WorkerCommand { program, arguments: all.collect(), ..WorkerCommand::default() };
    line.contains(SHELLS) || shell::hint(&command).is_some()
}

fn by_bash(line: &str) -> Vec<String> {
    ["bash", "-c", line].map(str::to_owned).into()
}

/// PM2's interpreter where none is given. A text of another kind is for Node, as Express's `bin/www`.
fn usual(script: &str, base: &Path) -> Option<&'static str> {
    let extension = Path::new(script).extension();
    let known = INTERPRETERS.iter().find(|(known, _)| extension.is_some_and(|it| it == *known));
    if let Some((_, program)) = known {
        return Some(program);
    }
    let mut begin = Vec::new();
    let file = std::fs::File::open(base.join(script)).ok()?;
    file.take(512).read_to_end(&mut begin).ok()?;
    // PM2 counts strange bytes; a program has zero bytes, a text has none.
    (!begin.is_empty() && !begin.contains(&0)).then_some("node")
}

/// A program in the app's own directory precedes one in `PATH`, as in PM2.
fn program(script: &str, base: &Path) -> Vec<String> {
    let own = base.join(script);
    vec![if !script.contains('/') && own.is_file() {
        format!("./{script}")
    } else {
        script.to_owned()
    }]
}

/// Words: a string that is split, or a list.
fn words(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) => units::words(text),
        value => list(value).ok_or_else(|| format!("expected words, found {value}")),
    }
}

/// The values of a scalar or a list; `None` for a table or null.
pub(super) fn list(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(scalar).collect(),
        value => scalar(value).map(|value| vec![value]),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(switch) => Some(switch.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
