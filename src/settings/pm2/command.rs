//! PM2's script, interpreter and arguments of both as one command.

use std::path::Path;

use serde_json::Value;

use crate::settings::pm2::ecosystem::App;
use crate::settings::units;

/// PM2's interpreter for a script's extension.
const INTERPRETERS: [(&str, &str); 9] = [
    ("js", "node"),
    ("cjs", "node"),
    ("mjs", "node"),
    ("ts", "node"),
    ("py", "python3"),
    ("rb", "ruby"),
    ("pl", "perl"),
    ("php", "php"),
    ("sh", "bash"),
];

/// The command without the app's own arguments. `base` is its directory.
pub(super) fn command(app: &App, base: &Path) -> Result<Vec<String>, String> {
    let first = |keys: &[&str]| keys.iter().find_map(|key| app.get(*key)).filter(|v| !v.is_null());
    let script = first(&["script", "cmd"]).and_then(Value::as_str);
    let script = script.ok_or("script: expected a string")?;
    let interpreter = first(&["interpreter", "exec_interpreter"]).and_then(Value::as_str);
    let interpreter = interpreter.or_else(|| usual(script)).filter(|name| *name != "none");
    let Some(interpreter) = interpreter else { return Ok(program(script, base)) };
    let mut command = vec![interpreter.to_owned()];
    if let Some(value) = first(&["node_args", "interpreter_args"]) {
        command.extend(words(value).map_err(|text| format!("node_args: {text}"))?);
    }
    command.push(script.to_owned());
    Ok(command)
}

fn usual(script: &str) -> Option<&'static str> {
    let extension = Path::new(script).extension()?;
    INTERPRETERS.iter().find(|(known, _)| extension == *known).map(|(_, program)| *program)
}

/// A program in the app's own directory precedes one in `PATH`, as in PM2. A script may be several
/// words: `npm start`.
fn program(script: &str, base: &Path) -> Vec<String> {
    let own = base.join(script);
    match words(&Value::from(script)) {
        Ok(words) if words.len() > 1 && !own.exists() => words,
        _ if !script.contains('/') && own.is_file() => vec![format!("./{script}")],
        _ => vec![script.to_owned()],
    }
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
