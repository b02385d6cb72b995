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

/// Node's own switch for what PM2 puts into the app.
const SOURCE_MAPS: &str = "--enable-source-maps";

/// The variable with the slot: the one that PM2 counts by default.
const SLOT: &str = "NODE_APP_INSTANCE";

/// The command of an app under its first names, without the app's own arguments, and what is to be said of it.
/// `base` is its directory.
pub(super) fn command(app: &App, base: &Path) -> Result<Command, String> {
    let mut command = plain(app, base)?;
    if app.get("source_map_support") == Some(&Value::Bool(true)) {
        add_source_maps(&mut command);
    }
    Ok(command)
}

fn add_source_maps(command: &mut Command) {
    let program = command.words.first().and_then(|program| program.rsplit('/').next());
    if program != Some("node") {
        let note = format!("source_map_support: Node does it itself: start it with {SOURCE_MAPS}");
        command.notes.push(note);
    } else if !command.words.iter().any(|word| word == SOURCE_MAPS) {
        command.words.insert(1, SOURCE_MAPS.to_owned());
    }
}

/// With the variables that PM2 counts through the instances: a shell makes them of the slot, and the command takes
/// the shell's place.
pub(super) fn counting(app: &App, words: Vec<String>, notes: &mut Vec<String>) -> Vec<String> {
    let mut exports = String::new();
    for key in ["instance_var", "increment_var"] {
        let Some(name) = app.get(key).filter(|it| !it.is_null() && **it != Value::Bool(false))
        else {
            continue;
        };
        match name.as_str() {
            Some(SLOT) => {}
            Some("PORT") => notes.push(format!(
                "{key}: PORT is the primary's port: workers share it, and the slot is in {SLOT}"
            )),
            Some(name) if is_variable(name) && key == "instance_var" => {
                exports.push_str(&format!("export {name}=${SLOT}; "));
            }
            // From the variable's own value on.
            Some(name) if is_variable(name) => {
                exports.push_str(&format!("export {name}=$((${{{name}:-0}} + {SLOT})); "));
            }
            _ => notes.push(format!("{key}: {name} is not the name of a variable")),
        }
    }
    if exports.is_empty() {
        return words;
    }
    let shell = ["sh".to_owned(), "-c".to_owned(), format!("{exports}exec \"$0\" \"$@\"")];
    shell.into_iter().chain(words).collect()
}

/// Whether a shell takes a name for that of a variable.
fn is_variable(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(is_part)
}

/// The command without what is put around it.
fn plain(app: &App, base: &Path) -> Result<Command, String> {
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
    let mut command = runner(interpreter);
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

/// The interpreter's own words. The program tsx starts another process of Node, which would be the one that listens,
/// so Node loads it as a module.
fn runner(interpreter: &str) -> Vec<String> {
    if interpreter.rsplit('/').next() == Some("tsx") {
        return ["node", "--import", "tsx"].map(str::to_owned).into();
    }
    vec![interpreter.to_owned()]
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
