//! Reads the apps of a configuration file of PM2: JavaScript, JSON or YAML.

use std::path::Path;
use std::process::{Command, Stdio};

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};

/// Prints a module's exports: the default export of an ES module.
const PRINT: &str = "\
    import(require('node:url').pathToFileURL(process.argv[1]).href).then(module => {\
        const text = JSON.stringify(module.default ?? module);\
        require('node:fs').writeSync(1, '\\0' + text);\
        process.exit(0);\
    }).catch(error => {\
        console.error(String(error?.stack ?? error));\
        process.exit(1);\
    })";

/// The names of an app's script.
const SCRIPT: [&str; 4] = ["script", "exec", "cmd", "command"];

/// An app's keys and values.
pub type App = Map<String, Value>;

/// Reads a file's apps: the value of `apps`, or the file itself if it is a list or a single app.
///
/// # Errors
///
/// If the file cannot be read, or describes no app.
pub fn read(file: &Path) -> Result<Vec<App>, String> {
    let name = file.display();
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let value = match extension {
        "js" | "cjs" | "mjs" => run(file),
        // PM2 evaluates it as JavaScript: comments, bare keys and commas at the end are usual.
        "json" | "json5" => text(file).and_then(|text| {
            json5::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
                format!("{name} is not JSON5: {error}; JavaScript belongs into a .js file")
            })
        }),
        "yaml" | "yml" => {
            text(file).and_then(|text| yaml(&text).map_err(|error| format!("{name}: {error}")))
        }
        _ => Err(format!(
            "unknown type of file {name}: expected .js, .cjs, .mjs, .json, .json5 or .yaml"
        )),
    }?;
    let apps = match value {
        Value::Object(mut whole) => whole.remove("apps").unwrap_or(Value::Object(whole)),
        other => other,
    };
    let apps = match apps {
        Value::Array(apps) => apps,
        app => vec![app],
    };
    let apps: Vec<App> = apps
        .into_iter()
        .filter_map(|app| match app {
            Value::Object(app) if SCRIPT.iter().any(|key| app.contains_key(*key)) => Some(app),
            _ => None,
        })
        .collect();
    if apps.is_empty() {
        return Err(format!("{name} describes no app: expected `apps`, each with a `script`"));
    }
    Ok(apps)
}

fn text(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// Runs a file with Node, as PM2 does.
fn run(file: &Path) -> Result<Value, String> {
    let name = file.display();
    let path = file.canonicalize().map_err(|error| format!("cannot read {name}: {error}"))?;
    let mut node = Command::new("node");
    node.arg("-e").arg(PRINT).arg(&path).stdin(Stdio::null());
    let output = node.output().map_err(|error| {
        format!("cannot run node to read {name}: {error}; use a .json file instead")
    })?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        let first: Vec<_> = error.trim().lines().take(5).collect();
        let hint = module_hint(&error).map(|hint| format!("\n{hint}")).unwrap_or_default();
        return Err(format!("{name} throws: {}{hint}", first.join("\n")));
    }
    // The file's own output comes first.
    let printed = String::from_utf8_lossy(&output.stdout);
    let exported = printed.rsplit_once('\0').map_or("", |(_, exported)| exported);
    let exported = serde_json::from_str(exported).map_err(|_| format!("{name} exports nothing"))?;
    // An ES module finds the `module` of the script that reads it, and exports nothing by that.
    if exported == Value::Object(App::new()) && text(file)?.contains("module.exports") {
        return Err(format!("{name} exports nothing: {IS_COMMON_JS}"));
    }
    Ok(exported)
}

const IS_COMMON_JS: &str =
    "it is CommonJS, and package.json beside it says \"type\": \"module\": name it .cjs";

/// What to do about a file that is a module of the other kind than Node takes it for.
fn module_hint(error: &str) -> Option<&'static str> {
    let is_module = ["module is not defined in ES module", "exports is not defined in ES module"]
        .into_iter()
        .chain(["require is not defined in ES module"])
        .any(|text| error.contains(text));
    if is_module {
        return Some(IS_COMMON_JS);
    }
    let is_script =
        error.contains("Unexpected token 'export'") || error.contains("import statement outside");
    is_script.then_some("it is an ES module: name it .mjs")
}

fn yaml(text: &str) -> Result<Value, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| format!("is not YAML: {error}"))?;
    documents.first().map(json).ok_or_else(|| "is empty".to_owned())
}

fn json(node: &Yaml<'_>) -> Value {
    match node {
        Yaml::Value(Scalar::Boolean(switch)) => Value::from(*switch),
        Yaml::Value(Scalar::Integer(number)) => Value::from(*number),
        Yaml::Value(Scalar::FloatingPoint(number)) => Value::from(number.into_inner()),
        Yaml::Value(Scalar::String(text)) => Value::from(text.as_ref()),
        Yaml::Sequence(items) => items.iter().map(json).collect(),
        Yaml::Mapping(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| (key_text(key), json(value)));
            merged(pairs.collect())
        }
        Yaml::Tagged(_, node) => json(node),
        _ => Value::Null,
    }
}

/// With what `<<` names: one mapping or several, of which the first counts, and less than the own keys.
fn merged(mut own: App) -> Value {
    let others = match own.remove("<<") {
        Some(Value::Array(others)) => others,
        Some(other) => vec![other],
        None => Vec::new(),
    };
    for other in others {
        if let Value::Object(other) = other {
            for (key, value) in other {
                own.entry(key).or_insert(value);
            }
        }
    }
    Value::Object(own)
}

fn key_text(key: &Yaml<'_>) -> String {
    match json(key) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_is_read_as_pm2_reads_it() {
        let text =
            "apps:\n- script: a.js\n  instances: 2\n  env: {A: 1.5, B: 'x', C: true, D: ~}\n";
        let env = json!({"A": 1.5, "B": "x", "C": true, "D": null});
        let expected = json!({"apps": [{"script": "a.js", "instances": 2, "env": env}]});
        assert_eq!(yaml(text), Ok(expected));
        assert_eq!(yaml("a: &x [1]\nb: *x"), Ok(json!({"a": [1], "b": [1]})));
        let merges = "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\n\
                      one: {<<: *base, b: 5}\ntwo: {<<: [*more, *base]}";
        let merged = yaml(merges).unwrap();
        assert_eq!(merged["one"], json!({"a": 1, "b": 5}));
        assert_eq!(merged["two"], json!({"a": 1, "b": 3, "c": 4}));
        assert!(yaml("a: [").is_err());
        assert!(yaml("").is_err());
    }
}
