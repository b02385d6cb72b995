//! Converts an app of PM2 to a configuration file. Every value is checked by the table; notes list
//! what is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Command;
use serde_json::Value;

use crate::settings::output::NO_FILE;
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

/// A setting that a check refuses, and why.
pub type Refused = (String, String);

/// Converts an app of the file `source` to a file that will be in `folder`. Settings that `check` refuses in its
/// text are lost.
#[must_use]
pub fn convert(
    app: &App,
    source: &Path,
    folder: &Path,
    check: impl Fn(&str) -> Vec<Refused>,
) -> Converted {
    let app = &keys::canonical(app);
    let directory = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    };
    let own = home(app.get("cwd").and_then(Value::as_str).unwrap_or_default());
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
    // One that is lost may be what another one needs.
    loop {
        let converted = conversion.written(source);
        let refused = check(&converted.text);
        if !conversion.leave_out(refused) {
            return converted;
        }
    }
}

/// PM2 takes `~` for the home directory.
fn home(path: &str) -> String {
    let rest = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
    match rest.zip(std::env::var("HOME").ok()) {
        Some((rest, home)) => home + rest,
        None => path.to_owned(),
    }
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
        let (mut has_args, mut is_node) = (true, false);
        match command::command(app, base) {
            Ok(command) => {
                (has_args, is_node) = (command.has_args, command.is_node);
                self.notes.extend(command.notes);
                let words = self.rooted_program(command.words);
                let words = command::counting(app, words, &mut self.notes);
                self.set("command", &words.into());
            }
            Err(text) => self.notes.push(text),
        }
        self.instances(app, is_node);
        self.port(app);
        for (key, value) in app {
            if let Some(profile) = key.strip_prefix("env_") {
                self.variables(profile, value);
            } else if key == "env" {
                self.variables("", value);
            } else if key == "args" && !has_args || key == "cron_restart" && is_zero(value) {
                // As PM2 takes it.
            } else if let Some(name) = keys::same(key) {
                self.set(name, value);
            } else if let Some(reason) = keys::left_out(key, value) {
                self.notes.push(format!("{key}: {reason}"));
            }
        }
        self.notes.extend(secrets(app, |name| std::env::var(name).ok()));
        if app.get("time") == Some(&Value::Bool(true)) {
            let format = "\"YYYY-MM-DDTHH:mm:ss\"".to_owned();
            self.values.entry("log_date_format".to_owned()).or_insert(format);
        }
        if !self.values.contains_key("wait_ready") {
            self.values.insert("wait_ready".to_owned(), "false".to_owned());
        }
    }

    /// The number of workers that PM2 starts, and how it starts them: several of Node are a cluster, unless it
    /// is said otherwise.
    fn instances(&mut self, app: &App, is_node: bool) {
        match app.get("instances") {
            None | Some(Value::Null) => self.set("workers", &Value::from(1)),
            Some(count) if *count == 0 || *count == "0" => self.set("workers", &"max".into()),
            Some(count) => self.set("workers", count),
        }
        let has_instances = app.get("instances").is_some_and(|value| !value.is_null());
        let usual = if has_instances && is_node { "cluster" } else { "fork" };
        let mode = app.get("exec_mode").and_then(Value::as_str).unwrap_or(usual);
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

    /// A program with a slash starts at PM2's directory of the app.
    fn rooted_program(&self, mut words: Vec<String>) -> Vec<String> {
        if let (Some(base), Some(program)) = (&self.elsewhere, words.first_mut())
            && program.contains('/')
        {
            *program = layers::plain(&base.join(&*program)).to_string_lossy().into_owned();
        }
        words
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
        let is_no_file =
            table::is_log_file(setting) && (values == [NO_FILE] || values == ["/dev/null"]);
        if values == [""] || is_no_file {
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
                layers::plain(&base.join(home(&value))).to_string_lossy().into_owned()
            }
            _ if table::is_path(setting) => home(&value),
            _ => value,
        }
    }

    /// Leaves out what was refused, and says whether there was anything.
    fn leave_out(&mut self, refused: Vec<Refused>) -> bool {
        let before = self.values.len();
        for (key, text) in refused {
            if self.values.remove(&key).is_some() {
                self.notes.push(format!("{key}: {text}"));
            }
        }
        self.values.len() < before
    }

    fn written(&self, source: &Path) -> Converted {
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
        for (profile, variables) in &self.variables {
            let table =
                if profile.is_empty() { "env".to_owned() } else { format!("env_{profile}") };
            text.push_str(&format!("\n[{}]\n", syntax::key(&table)));
            for (name, value) in variables {
                text.push_str(&format!("{} = {value}\n", syntax::key(name)));
            }
        }
        Converted { text, notes: self.notes.clone(), has_variables }
    }
}

/// What is to be said of variables that are secret, or that may be: they are in the new file, too.
fn secrets(app: &App, own: impl Fn(&str) -> Option<String>) -> Option<String> {
    const SECRET: [&str; 6] = ["SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL", "KEY"];
    let tables = app.iter().filter(|(key, _)| *key == "env" || key.starts_with("env_"));
    let variables = tables.filter_map(|(_, table)| table.as_object()).flatten();
    let variables: Vec<_> = variables.collect();
    let is_own = |(name, value): &&(&String, &Value)| {
        value.as_str().is_some_and(|value| own(name).as_deref() == Some(value))
    };
    let own = variables.iter().filter(is_own).count();
    if variables.iter().filter(is_own).any(|(name, _)| *name == "PATH") && own > 2 {
        return Some(format!(
            "env: {own} variables are those of this shell, as by ...process.env: the file has its secrets \
             now; workers inherit the primary's environment without it"
        ));
    }
    let is_secret = |name: &str| SECRET.iter().any(|word| name.to_uppercase().contains(word));
    let mut names: Vec<_> =
        variables.iter().map(|(name, _)| name.as_str()).filter(|name| is_secret(name)).collect();
    names.dedup();
    (!names.is_empty()).then(|| {
        format!("env: {} may be secret: the file is for its owner alone", names.join(", "))
    })
}

fn is_zero(value: &Value) -> bool {
    *value == 0 || *value == "0"
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
        convert(app.as_object().unwrap(), Path::new("eco.json"), Path::new(""), |_| Vec::new())
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
            (
                json!({"script": "cd api && node a.js", "args": "-x"}),
                r#"["bash", "-c", "cd api && node a.js"]"#,
            ),
            (
                json!({"script": "NODE_ENV=x node a.js"}),
                r#"["bash", "-c", "NODE_ENV=x node a.js"]"#,
            ),
            (json!({"exec": "Cargo.toml"}), r#"["node", "Cargo.toml"]"#),
            (json!({"script": "LICENSE"}), r#"["node", "LICENSE"]"#),
            (json!({"cmd": "a.js", "interpreterArgs": "-x"}), r#"["node", "-x", "a.js"]"#),
            (json!({"script": "a.js", "interpreter": "node@18"}), r#"["node", "a.js"]"#),
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
            (
                json!({"script": "a.js", "source_map_support": true, "node_args": "-x"}),
                r#"["node", "--enable-source-maps", "-x", "a.js"]"#,
            ),
            (
                json!({"script": "a.ts", "interpreter": "node_modules/.bin/tsx"}),
                r#"["node", "--import", "tsx", "a.ts"]"#,
            ),
        ] {
            let lines = lines(&app);
            assert!(lines.contains(&format!("command = {expected}")), "{app}: {lines:?}");
        }
    }

    #[test]
    fn variables_that_pm2_counts_are_made_of_the_slot() {
        for (app, expected) in [
            (json!({"instance_var": "NODE_APP_INSTANCE"}), None),
            (json!({"instance_var": "N"}), Some("export N=$NODE_APP_INSTANCE; ")),
            (json!({"increment_var": "AT"}), Some("export AT=$((${AT:-0} + NODE_APP_INSTANCE)); ")),
        ] {
            let mut notes = Vec::new();
            let words =
                command::counting(app.as_object().unwrap(), vec!["a".to_owned()], &mut notes);
            let line = expected.map(|exports| format!("{exports}exec \"$0\" \"$@\""));
            match line {
                Some(line) => assert_eq!(words, ["sh", "-c", &line, "a"]),
                None => assert_eq!(words, ["a"]),
            }
            assert!(notes.is_empty(), "{notes:?}");
        }
        for (app, expected) in [
            (json!({"increment_var": "PORT"}), "increment_var: PORT is the primary's port"),
            (json!({"instance_var": "A;B"}), "instance_var: \"A;B\" is not the name of a variable"),
        ] {
            let mut notes = Vec::new();
            let words =
                command::counting(app.as_object().unwrap(), vec!["a".to_owned()], &mut notes);
            assert_eq!(words, ["a"]);
            assert!(notes[0].starts_with(expected), "{notes:?}");
        }
    }

    #[test]
    fn the_message_to_shut_down_is_kept() {
        let lines = lines(&json!({"script": "a.js", "shutdown_with_message": true}));
        assert!(lines.contains(&"shutdown_with_message = true".to_owned()), "{lines:?}");
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
            "script": "a.py", "exec_mode": "cluster", "source_map_support": true, "pmx": false,
            "vizion": true, "max_restarts": 0, "unheard_of": 1, "env_test": {"PORT": 82},
        });
        let Converted { text, notes, .. } = converted(&app);
        let keys: Vec<_> = notes.iter().map(|note| note.split(':').next().unwrap()).collect();
        assert_eq!(
            keys,
            ["source_map_support", "env_test", "max_restarts", "unheard_of", "vizion"],
            "{notes:?}"
        );
        for note in notes {
            assert!(text.contains(&format!("# * {note}\n")), "{note} in {text}");
        }
    }

    #[test]
    fn secrets_are_warned_of() {
        let own = |name: &str| {
            let known = [("PATH", "/bin"), ("HOME", "/root"), ("AWS_X", "y")];
            known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let said = |env: Value| secrets(json!({"env": env}).as_object().unwrap(), own);
        let spread = said(json!({"PATH": "/bin", "HOME": "/root", "AWS_X": "y", "PORT": 1}));
        assert!(spread.unwrap().contains("3 variables are those of this shell"));
        let named = said(json!({"DB_PASSWORD": "x", "NODE_ENV": "production"}));
        assert!(named.unwrap().starts_with("env: DB_PASSWORD may be secret"));
        assert_eq!(said(json!({"NODE_ENV": "production", "HOME": "/root"})), None);
    }

    #[test]
    fn several_of_node_are_a_cluster_unless_it_is_said_otherwise() {
        for (app, is_fork) in [
            (json!({"script": "a.js", "instances": 2}), false),
            (json!({"script": "a.js", "instances": 2, "execMode": "fork"}), true),
            (json!({"script": "a.py", "instances": 2}), true),
            (json!({"script": "a.js"}), true),
        ] {
            let notes = converted(&app).notes;
            assert_eq!(notes.iter().any(|it| it.starts_with("exec_mode: fork")), is_fork, "{app}");
        }
    }

    #[test]
    fn what_a_check_refuses_is_left_out_with_the_reason() {
        let app = json!({"script": "a.js", "uid": "nobody-there", "nice": 5});
        let check = |text: &str| match text.contains("\nuser = ") {
            true => vec![("user".to_owned(), "there is no such user".to_owned())],
            false => Vec::new(),
        };
        let app = app.as_object().unwrap();
        let converted = convert(app, Path::new("eco.json"), Path::new(""), check);
        assert!(!converted.text.contains("\nuser = "), "{}", converted.text);
        assert!(converted.notes.contains(&"user: there is no such user".to_owned()));
    }

    #[test]
    fn no_log_file_is_none() {
        for none in ["NULL", "/dev/null", ""] {
            let lines = lines(&json!({"script": "a.js", "out_file": none, "error": none}));
            assert!(!lines.iter().any(|line| line.contains("_file")), "{lines:?}");
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
