//! Converts an app of PM2 to a configuration file. Every value is checked by the table; notes list
//! what is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Command;
use serde_json::Value;

use crate::settings::pm2::command::{self, list};
use crate::settings::pm2::ecosystem::App;
use crate::settings::pm2::keys;
use crate::settings::{layers, syntax, table};

/// A configuration file converted from an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The file.
    pub text: String,
    /// Settings of PM2 that are lost or changed, and the reasons.
    pub notes: Vec<String>,
    /// Variables for workers are in it, passwords perhaps.
    pub has_variables: bool,
}

/// Converts an app of the file `source` to a file that will be in `folder`.
#[must_use]
pub fn convert(app: &App, source: &Path, folder: &Path) -> Converted {
    let directory = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    };
    let own = app.get("cwd").and_then(Value::as_str).unwrap_or_default();
    let base = directory(&directory(source.parent().unwrap_or(folder)).join(own));
    let elsewhere = (base != directory(folder)).then(|| base.clone());
    let mut conversion = Conversion {
        settings: table::settings(),
        elsewhere,
        values: BTreeMap::new(),
        variables: BTreeMap::new(),
        notes: Vec::new(),
    };
    conversion.app(app, &base);
    conversion.finish(source)
}

struct Conversion {
    settings: Command,
    /// The start of relative paths, if it is not the new file's directory.
    elsewhere: Option<PathBuf>,
    values: BTreeMap<String, String>,
    variables: BTreeMap<String, BTreeMap<String, String>>,
    notes: Vec<String>,
}

impl Conversion {
    fn app(&mut self, app: &App, base: &Path) {
        let cwd = self.elsewhere.as_deref().unwrap_or_else(|| Path::new(".")).to_string_lossy();
        self.values.insert("cwd".to_owned(), syntax::quoted(&cwd));
        match command::command(app, base) {
            Ok(words) => self.set("command", &words.into()),
            Err(text) => self.notes.push(text),
        }
        self.instances(app);
        self.port(app);
        for (key, value) in app {
            if let Some(profile) = key.strip_prefix("env_") {
                self.variables(profile, value);
            } else if key == "env" {
                self.variables("", value);
            } else if let Some(name) = keys::same(key) {
                self.set(name, value);
            } else if let Some(reason) = keys::left_out(key, value) {
                self.notes.push(format!("{key}: {reason}"));
            }
        }
        if app.get("time") == Some(&Value::Bool(true)) {
            let format = "\"YYYY-MM-DDTHH:mm:ss\"".to_owned();
            self.values.entry("log_date_format".to_owned()).or_insert(format);
        }
        if !self.values.contains_key("wait_ready") {
            self.values.insert("wait_ready".to_owned(), "false".to_owned());
        }
    }

    /// The number of workers that PM2 starts.
    fn instances(&mut self, app: &App) {
        match app.get("instances") {
            None | Some(Value::Null) => self.set("workers", &Value::from(1)),
            Some(count) if *count == 0 || *count == "0" => self.set("workers", &"max".into()),
            Some(count) => self.set("workers", count),
        }
        let mode = app.get("exec_mode").and_then(Value::as_str).unwrap_or("fork");
        if mode.starts_with("fork") {
            let text = "exec_mode: fork: in PM2, each instance listens on a port of its own; here, \
                        workers share the primary's";
            self.notes.push(text.to_owned());
        }
    }

    /// PM2's `port` sets PORT for the app; here it is the primary's port.
    fn port(&mut self, app: &App) {
        let variable = || app.get("env")?.get("PORT");
        if let Some(port) = app.get("port").or_else(variable) {
            self.set("port", port);
        }
    }

    fn variables(&mut self, profile: &str, value: &Value) {
        let Value::Object(variables) = value else {
            return self.notes.push(format!("env_{profile}: expected variables, found {value}"));
        };
        self.variables.entry(profile.to_owned()).or_default();
        for (name, value) in variables {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => syntax::quoted(text),
                Value::Number(number) if number.as_i64().is_some() => number.to_string(),
                Value::Bool(switch) => switch.to_string(),
                other => syntax::quoted(&other.to_string()),
            };
            if name != "PORT" {
                let table = self.variables.entry(profile.to_owned()).or_default();
                table.insert(name.clone(), text);
            } else if self.values.get("port") != Some(&text.trim_matches('"').to_owned()) {
                let note = "a profile has no port of its own: set `port`, or start the primary with \
                            PORT or --port";
                self.notes.push(format!("env_{profile}: PORT = {text}: {note}"));
            }
        }
    }

    /// Sets a key if the value is valid.
    fn set(&mut self, key: &str, value: &Value) {
        let Some(setting) = table::find(&self.settings, key) else { return };
        let Some(values) = list(value) else {
            if !value.is_null() {
                self.notes.push(format!("{key}: {value} is not possible here"));
            }
            return;
        };
        if values == [""] {
            return;
        }
        let values: Vec<_> = values.into_iter().map(|value| self.rooted(setting, value)).collect();
        let arguments: Vec<_> = values.iter().map(Into::into).collect();
        match table::check(&self.settings, setting, &arguments) {
            Ok(()) => {
                let text = match (value, &values[..]) {
                    (Value::String(_), [value]) => syntax::plain(value),
                    _ => syntax::written(setting, &values),
                };
                self.values.insert(setting.get_id().to_string(), text);
            }
            Err(text) => self.notes.push(format!("{key}: {text}, found {value}")),
        }
    }

    /// Paths of PM2 start at its `cwd`.
    fn rooted(&self, setting: &clap::Arg, value: String) -> String {
        match &self.elsewhere {
            Some(base) if table::is_path(setting) && value != "true" && value != "false" => {
                layers::plain(&base.join(value)).to_string_lossy().into_owned()
            }
            _ => value,
        }
    }

    fn finish(self, source: &Path) -> Converted {
        let mut text = format!("# Converted from PM2's {}.\n", source.display());
        if !self.notes.is_empty() {
            text.push_str("#\n# Lost or changed:\n");
            for note in &self.notes {
                text.push_str(&comment(note));
            }
        }
        for setting in self.settings.get_arguments() {
            let key = setting.get_id().as_str();
            if let Some(value) = self.values.get(key) {
                let about = keys::about(key, value).map(|about| format!("# {about}\n"));
                text.push_str(&format!("\n{}{key} = {value}", about.unwrap_or_default()));
            }
        }
        text.push('\n');
        let has_variables = self.variables.values().any(|variables| !variables.is_empty());
        for (profile, variables) in self.variables {
            let table =
                if profile.is_empty() { "env".to_owned() } else { format!("env_{profile}") };
            text.push_str(&format!("\n[{}]\n", syntax::key(&table)));
            for (name, value) in variables {
                text.push_str(&format!("{} = {value}\n", syntax::key(&name)));
            }
        }
        Converted { text, notes: self.notes, has_variables }
    }
}

fn comment(note: &str) -> String {
    let lines: Vec<_> = note.lines().collect();
    format!("# * {}\n", lines.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn converted(app: &Value) -> Converted {
        convert(app.as_object().unwrap(), Path::new("eco.json"), Path::new(""))
    }

    /// The lines with settings.
    fn lines(app: &Value) -> Vec<String> {
        let text = converted(app).text;
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn script_interpreter_and_arguments_become_a_command() {
        for (app, expected) in [
            (json!({"script": "a.js"}), r#"["node", "a.js"]"#),
            (json!({"script": "./a"}), r#"["./a"]"#),
            (json!({"script": "npm start"}), r#"["npm", "start"]"#),
            (json!({"script": "Cargo.toml", "interpreter": "none"}), r#"["./Cargo.toml"]"#),
            (json!({"script": "a.py", "interpreter": "pypy3"}), r#"["pypy3", "a.py"]"#),
            (
                json!({"script": "a.mjs", "node_args": "--inspect --title='x y'"}),
                r#"["node", "--inspect", "--title=x y", "a.mjs"]"#,
            ),
            (
                json!({"script": "a.js", "interpreter_args": ["--inspect"]}),
                r#"["node", "--inspect", "a.js"]"#,
            ),
        ] {
            let lines = lines(&app);
            assert!(lines.contains(&format!("command = {expected}")), "{app}: {lines:?}");
        }
    }

    #[test]
    fn instances_mean_the_number_that_pm2_starts() {
        for (instances, expected) in [
            (json!(null), "1"),
            (json!(0), "\"max\""),
            (json!("max"), "\"max\""),
            (json!(-1), "-1"),
            (json!("4"), "4"),
        ] {
            let lines = lines(&json!({"script": "a.js", "instances": instances}));
            assert!(lines.contains(&format!("workers = {expected}")), "{lines:?}");
        }
    }

    #[test]
    fn the_port_is_taken_from_the_environment() {
        let lines = lines(&json!({
            "script": "a.js",
            "env": {"PORT": "81", "A": 1, "B": null, "C": "c"},
            "env_test": {"PORT": 81, "A": true},
        }));
        let expected = ["port = 81", "[env]", "A = 1", "C = \"c\"", "[env_test]", "A = true"]
            .map(str::to_owned);
        for line in &expected {
            assert!(lines.contains(line), "{line} in {lines:?}");
        }
        assert!(!lines.iter().any(|line| line.starts_with("PORT") || line.starts_with("B =")));
    }

    #[test]
    fn losses_are_noted_with_a_reason() {
        let app = json!({
            "script": "a.js", "exec_mode": "cluster", "source_map_support": true, "pmx": false,
            "vizion": true, "max_restarts": 0, "unheard_of": 1, "env_test": {"PORT": 82},
        });
        let Converted { text, notes, .. } = converted(&app);
        let keys: Vec<_> = notes.iter().map(|note| note.split(':').next().unwrap()).collect();
        assert_eq!(
            keys,
            ["env_test", "max_restarts", "source_map_support", "unheard_of", "vizion"],
            "{notes:?}"
        );
        for note in notes {
            assert!(text.contains(&format!("# * {note}\n")), "{note} in {text}");
        }
    }

    #[test]
    fn second_names_of_keys_are_known() {
        let lines = lines(&json!({
            "script": "a.js", "error": "e.log", "output": "o.log", "uid": 0, "time": true,
            "log_type": "json", "combine_logs": true,
        }));
        for line in [
            "error_file = \"e.log\"",
            "out_file = \"o.log\"",
            "user = 0",
            "log_date_format = \"YYYY-MM-DDTHH:mm:ss\"",
            "log_format = \"json\"",
            "merge_logs = true",
        ] {
            assert!(lines.contains(&line.to_owned()), "{line} in {lines:?}");
        }
    }
}
