//! The configuration file: keys with values and lines. Knows the keys, not their meaning.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use clap::{Arg, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::settings::layers::{self, Entry, Origin};
use crate::settings::problems::{SettingsError, fail_if_any};
use crate::settings::table;
use crate::settings::units::words;

/// The default configuration file.
pub const USUAL_NAME: &str = "sticky-lb.toml";

/// The table `[drain]`: its key `reload` is the second name `drain_reload` of a setting.
const DRAIN: &str = "drain";

/// The table `[node_messages]`: a key is a message's type, its value what the message does.
const MESSAGES: &str = "node_messages";

/// The key in it that holds words of the setting.
const PRESET: &str = "preset";

/// Bytes of the longest file.
const MAX_BYTES: u64 = 16 << 20;

/// The content of a file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) entries: Vec<Entry>,
    /// Variables of workers: `[env]` under the name "", `[env_NAME]` under NAME.
    pub(super) profiles: Vec<(String, Vec<Variable>)>,
}

/// A variable of a worker's environment.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) origin: Origin,
}

impl File {
    /// The text of the file at `path`; `name` is its name in messages. At the start that may be a pipe, whose
    /// writer is waited for; else nothing is.
    pub(super) fn text(path: &Path, name: &str, is_start: bool) -> Result<String, SettingsError> {
        read(path, is_start).map_err(|error| SettingsError {
            lines: vec![format!("cannot read configuration file {name}: {error}")],
        })
    }

    /// Parses the `text` of the file at `path`.
    pub(super) fn parse(text: &str, path: &Path, name: &str) -> Result<Self, SettingsError> {
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        Reading { text, name, folder, settings: &table::settings(), lines: Vec::new() }.file()
    }
}

fn read(path: &Path, is_start: bool) -> io::Result<String> {
    let flags = if is_start { libc::O_NOCTTY } else { libc::O_NONBLOCK | libc::O_NOCTTY };
    let file = fs::File::options().read(true).custom_flags(flags).open(path)?;
    if !is_start && !file.metadata()?.is_file() {
        return Err(io::Error::other(
            "it is no regular file: a pipe can be read at the start alone",
        ));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it has more than {} MiB", MAX_BYTES >> 20)));
    }
    Ok(text)
}

struct Reading<'a> {
    text: &'a str,
    name: &'a str,
    folder: PathBuf,
    settings: &'a Command,
    lines: Vec<String>,
}

impl Reading<'_> {
    fn line_at(&self, at: usize) -> &str {
        let before = self.text.get(..at).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        self.text[start..].lines().next().unwrap_or_default()
    }

    fn value_at(&self, at: usize) -> &str {
        self.line_at(at).split_once('=').map_or("", |(_, value)| value.trim())
    }

    /// What stands before the value in that line, which may be a secret.
    fn name_at(&self, at: usize) -> &str {
        let is_name =
            |text: &str| !text.is_empty() && text.len() < 60 && !text.contains(['"', '\'']);
        let name = self.line_at(at).split('=').next().unwrap_or_default().trim();
        if is_name(name) { name } else { "" }
    }

    fn file(mut self) -> Result<File, SettingsError> {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        // What follows in the same line are riddles.
        let mut said = Vec::new();
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            if said.contains(&line(self.text, at)) {
                continue;
            }
            said.push(line(self.text, at));
            let message = match self.value_at(at) {
                value if is_bare(value) => "a text has to be in quotes",
                _ => error.message().trim(),
            };
            match self.name_at(at) {
                "" => self.problem(at, message),
                name => self.problem(at, &format!("{name}: {message}")),
            }
        }
        fail_if_any(std::mem::take(&mut self.lines))?;
        let mut file = File::default();
        for (key, value) in in_order(document.get_ref()) {
            self.take(&key, value, &mut file);
        }
        fail_if_any(self.lines)?;
        Ok(file)
    }

    fn take(&mut self, key: &Spanned<&str>, value: &Spanned<DeValue<'_>>, file: &mut File) {
        let (at, key) = (key.span().start, *key.get_ref());
        if let (DRAIN, DeValue::Table(table)) = (key, value.get_ref()) {
            for (key, value) in in_order(table) {
                let at = key.span().start;
                let written = format!("{DRAIN}.{}", key.get_ref());
                self.take_setting(at, &written, &written.replacen('.', "_", 1), value, file);
            }
            return;
        }
        if let (MESSAGES, DeValue::Table(table)) = (key, value.get_ref()) {
            self.take_messages(at, table, file);
            return;
        }
        let profile = if key == "env" { Some("") } else { key.strip_prefix("env_") };
        if let Some(profile) = profile {
            let variables = self.variables(at, value);
            file.profiles.push((profile.to_owned(), variables));
            return;
        }
        self.take_setting(at, key, key, value, file);
    }

    /// `type = "action"` is the word `type=action` of the setting; `preset` has words as they are.
    fn take_messages(&mut self, at: usize, table: &DeTable<'_>, file: &mut File) {
        let Some(setting) = table::find(self.settings, MESSAGES) else { return };
        let mut words = Vec::new();
        for (key, value) in in_order(table) {
            let (at, kind) = (key.span().start, *key.get_ref());
            let (begin, found) = match (kind, value.get_ref()) {
                (PRESET, DeValue::Array(items)) => {
                    (String::new(), items.iter().map(|item| scalar(item.get_ref())).collect())
                }
                (PRESET, value) => (String::new(), scalar(value).map(|word| vec![word])),
                (kind, value) => (format!("{kind}="), scalar(value).map(|word| vec![word])),
            };
            let found: Option<Vec<String>> = found;
            let found =
                found.into_iter().flatten().map(|word| OsString::from(begin.clone() + &word));
            let found: Vec<_> = found.collect();
            match table::check(self.settings, setting, &found) {
                Ok(()) if !found.is_empty() => words.extend(found),
                Ok(()) => self.problem(at, &format!("{MESSAGES}.{kind}: expected a text")),
                Err(text) => self.problem(at, &format!("{MESSAGES}.{kind}: {text}")),
            }
        }
        if words.is_empty() {
            return;
        }
        let entry = Entry::new(setting, words, self.origin(at), &self.folder);
        file.entries.push(entry);
    }

    fn take_setting(
        &mut self,
        at: usize,
        written: &str,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        file: &mut File,
    ) {
        match self.entry(at, written, key, value) {
            Ok(None) => {}
            Ok(Some(entry)) => match file.entries.iter().find(|earlier| earlier.key == entry.key) {
                None => file.entries.push(entry),
                Some(earlier) => {
                    let text =
                        format!("{written}: {} is set already, in {}", earlier.key, earlier.origin);
                    self.problem(at, &text);
                }
            },
            Err(text) => self.problem(at, &text),
        }
    }

    /// `None` if the value is `""`, which means not set.
    fn entry(
        &self,
        at: usize,
        written: &str,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Option<Entry>, String> {
        let setting = table::find(self.settings, key);
        let setting = setting.ok_or_else(|| unknown(self.settings, written))?;
        if value.get_ref().as_str() == Some("") {
            return Ok(None);
        }
        let entry = values(setting, value.get_ref()).and_then(|values| {
            let mut values: Vec<_> = values.into_iter().map(OsString::from).collect();
            layers::check_home(setting, &values)?;
            if let Some(program) = values.first_mut().filter(|_| setting.get_id() == "command") {
                self.root_program(program);
            }
            let entry = Entry::new(setting, values, self.origin(at), &self.folder);
            table::check(self.settings, setting, &entry.values)?;
            Ok(entry)
        });
        entry.map(Some).map_err(|text| {
            let found = self.text[value.span()].lines().next().unwrap_or_default();
            let found = Some(found).filter(|_| text.starts_with("expected"));
            let found = found.map(|found| format!(", found {found}")).unwrap_or_default();
            format!("{written}: {text}{found}")
        })
    }

    /// As other paths, a program with a slash starts at the file's folder: at the physical one, so that a
    /// worker that is started after a symlink is switched still runs the release that was read.
    fn root_program(&self, program: &mut OsString) {
        let path = Path::new(program);
        let Some(Component::Normal(first)) = path.components().find(|it| *it != Component::CurDir)
        else {
            if path.starts_with("..") {
                *program = self.physical_folder().join(path).into_os_string();
            }
            return;
        };
        // What only a shell would take for a path stays as it is, to be refused as such.
        let is_shells = first.to_string_lossy().contains(['~', '=', '$', '`']);
        if program.as_encoded_bytes().contains(&b'/') && !is_shells {
            let rooted = self.physical_folder().join(&*program);
            *program = layers::plain(&rooted).into_os_string();
        }
    }

    fn physical_folder(&self) -> PathBuf {
        self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone())
    }

    fn variables(&mut self, at: usize, value: &Spanned<DeValue<'_>>) -> Vec<Variable> {
        let DeValue::Table(table) = value.get_ref() else {
            self.problem(at, "expected a table of variables, such as [env]");
            return Vec::new();
        };
        let mut variables = Vec::new();
        for (name, value) in in_order(table) {
            let (at, name) = (name.span().start, name.get_ref().to_string());
            match scalar(value.get_ref()) {
                _ if name.is_empty() || name.contains(['=', '\0']) => {
                    self.problem(at, &format!("{name:?} is not a valid name of a variable"));
                }
                Some(value) if !value.contains('\0') => {
                    variables.push(Variable { name, value, origin: self.origin(at) });
                }
                _ => {
                    let text = format!("variable {name}: expected a string, number or bool");
                    self.problem(at, &text);
                }
            }
        }
        variables
    }

    fn origin(&self, at: usize) -> Origin {
        Origin::File { name: self.name.to_owned(), line: line(self.text, at) }
    }

    fn problem(&mut self, at: usize, text: &str) {
        let text = text.replace('\n', ", ");
        self.lines.push(format!("{}:{}: {text}", self.name, line(self.text, at)));
    }
}

/// Whether this begins no value that TOML knows: a text without quotes.
fn is_bare(value: &str) -> bool {
    let is_text = |first: char| first.is_alphabetic() || ['.', '/', '~', '$'].contains(&first);
    value.starts_with(is_text) && !["true", "false", "inf", "nan"].contains(&value)
}

/// The values of a setting as on the command line.
fn values(setting: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let is_words = ["command", "args"].contains(&setting.get_id().as_str());
    let values = match value {
        DeValue::String(text) if is_words => words(text)?,
        DeValue::Array(items) if table::is_list(setting) => {
            let items = items.iter().map(|item| scalar(item.get_ref()));
            items.collect::<Option<_>>().ok_or("expected a list of strings or numbers")?
        }
        value => vec![scalar(value).ok_or("expected a string or number")?],
    };
    // Neither programs nor paths can contain it.
    if values.iter().any(|value| value.contains('\0')) {
        return Err("expected no NUL character".to_owned());
    }
    Ok(values)
}

type Pair<'a, 'i> = (Spanned<&'a str>, &'a Spanned<DeValue<'i>>);

/// Pairs in the order of lines, which is the order of messages.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Pair<'a, 'i>> {
    let pairs =
        table.iter().map(|(key, value)| (Spanned::new(key.span(), key.get_ref().as_ref()), value));
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    pairs
}

/// `None` if the value is a list or a table.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 8 => Some(format!("0o{}", number.as_str())),
        DeValue::Integer(number) => {
            let digits = i128::from_str_radix(number.as_str(), number.radix());
            digits.ok().map(|digits| digits.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(switch) => Some(switch.to_string()),
        DeValue::Datetime(time) => Some(time.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// The message for an unknown key, with the nearest key; inside a table, the nearest of that table.
fn unknown(settings: &Command, key: &str) -> String {
    let names = settings.get_arguments().flat_map(table::names).chain(["env".to_owned()]);
    let (within, names, part): (_, Vec<_>, _) = match key.split_once('.') {
        None => ("", names.collect(), key),
        Some((_, part)) => {
            let names = names.filter_map(|name| Some(name.strip_prefix("drain_")?.to_owned()));
            ("drain.", names.collect(), part)
        }
    };
    let near = names.iter().map(|name| (strsim::jaro_winkler(name, part), name));
    match near.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((nearness, name)) if nearness > 0.8 => {
            format!("unknown key {key:?}, did you mean \"{within}{name}\"?")
        }
        _ => format!("unknown key {key:?}: `sticky-lb init` writes a file with all keys"),
    }
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<File, SettingsError> {
        let settings = table::settings();
        let folder = PathBuf::from("/srv");
        Reading { text, name: "x.toml", folder, settings: &settings, lines: Vec::new() }.file()
    }

    fn values(text: &str) -> Vec<String> {
        let entries = read(text).unwrap().entries.into_iter();
        entries.flat_map(|entry| entry.values).map(|value| value.into_string().unwrap()).collect()
    }

    #[test]
    fn values_have_several_notations() {
        for (text, expected) in [
            ("port = 80", &["80"][..]),
            ("port = '80'", &["80"]),
            ("port = 0x50", &["80"]),
            ("backlog = 10_000", &["10000"]),
            ("workers = 'max'", &["max"]),
            ("instances = -1", &["-1"]),
            ("kill_timeout = 1600", &["1600"]),
            ("umask = 0o27", &["0o27"]),
            ("weights = [1, 2.5]", &["1", "2.5"]),
            ("stop_exit_codes = 3", &["3"]),
            ("command = 'node \"a b.js\"'", &["node", "a b.js"]),
            ("command = ['node', 'a b.js']", &["node", "a b.js"]),
            ("args = '--x=1 -y'", &["--x=1", "-y"]),
            ("out_file = './logs/out.log'", &["/srv/logs/out.log"]),
            ("out_file = '/var/log/out.log'", &["/var/log/out.log"]),
            ("watch = true", &["true"]),
            ("watch = ['src', 'lib']", &["/srv/src", "/srv/lib"]),
            ("wait_ready = false", &["false"]),
            ("host = ''", &[]),
            ("ignore_watch = []", &[]),
            ("drain = 'close'", &["close"]),
            ("drain.mode = 'close'", &["close"]),
            ("[drain]\nreload = '5m'\nshutdown = 3_000\nrate = 2.5", &["5m", "3000", "2.5"]),
        ] {
            assert_eq!(values(text), expected, "{text}");
        }
    }

    #[test]
    fn messages_may_be_a_table_of_types() {
        for (text, expected) in [
            ("node_messages = 'guide'", &["guide"][..]),
            ("node_messages = ['guide', 'a=replace']", &["guide", "a=replace"]),
            (
                "[node_messages]\nhit = 'increment:hits'\n'a b' = 'load'",
                &["hit=increment:hits", "a b=load"],
            ),
            ("[node_messages]\npreset = 'guide'\nx = 'ignore'", &["guide", "x=ignore"]),
            ("[node_messages]\npreset = ['off', 'guide']", &["off", "guide"]),
            ("[node_messages]", &[]),
        ] {
            assert_eq!(values(text), expected, "{text}");
        }
        let wrong = "[node_messages]\nx = 'away'\ny = []\npreset = 'all'";
        let lines = read(wrong).unwrap_err().lines;
        assert!(
            lines[0].starts_with("x.toml:2: node_messages.x: expected `increment`"),
            "{lines:?}"
        );
        assert_eq!(lines[1], "x.toml:3: node_messages.y: expected a text");
        assert!(
            lines[2].starts_with("x.toml:4: node_messages.preset: expected `guide`"),
            "{lines:?}"
        );
    }

    #[test]
    fn drain_may_be_a_table_of_second_names() {
        let file =
            read("[drain]\nmode = 'wait'\nreload = '5m'\nshutdown = '3s'\nrate = 7").unwrap();
        let keys: Vec<_> = file.entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["drain", "drain_timeout", "kill_timeout", "close_rate"]);
        let wrong = "kill_timeout = '9s'\n[drain]\nshutdown = '3s'\nrelod = '5m'\nrate = 0\n\
                     mode = 'away'\nzzz = 1";
        let expected = [
            "x.toml:3: drain.shutdown: kill_timeout is set already, in x.toml:1",
            "x.toml:4: unknown key \"drain.relod\", did you mean \"drain.reload\"?",
            "x.toml:5: drain.rate: expected a number above 0, found 0",
            "x.toml:6: drain.mode: expected `wait` or `close` or `migrate`, found 'away'",
            "x.toml:7: unknown key \"drain.zzz\": `sticky-lb init` writes a file with all keys",
        ];
        assert_eq!(read(wrong).unwrap_err().lines, expected);
    }

    #[test]
    fn names_of_earlier_drafts_are_unknown_keys() {
        let settings = table::settings();
        for (old, new) in [
            ("crash_safe", "protect"),
            ("move_timeout", "migrate_timeout"),
            ("orphan_grace", "orphan_timeout"),
            ("own_log_format", "primary_log_format"),
            ("shed_rate", "close_rate"),
            ("spill_memory", "fallback_ttl"),
            ("spill_table", "fallback_entries"),
            ("stall_after", "ack_timeout"),
            ("stall_timeout", "watchdog_timeout"),
        ] {
            let error = read(&format!("{old} = 1")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("x.toml:1: unknown key {old:?}")), "{error}");
            assert!(table::find(&settings, new).is_some(), "{new}");
        }
        for old in ["ride", "shed"] {
            let error = read(&format!("drain = {old:?}")).unwrap_err().to_string();
            let expected = "x.toml:1: drain: expected `wait` or `close` or `migrate`";
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn all_problems_are_reported_in_the_order_of_lines() {
        let text = "max_memry_restart = '1G'\nport = 70000\n\nworkers = 'many'\nplacement = 1\n\
                    wait_ready = 'yes'\ncommand = \"node 'a\"\nname = ['a']\ninstances = 3\nzzz = 1\n\
                    workers_ = {}\nenv = 3\n[env_test]\nA = []\n'B=' = 1\n";
        let expected = [
            "x.toml:1: unknown key \"max_memry_restart\", did you mean \"max_memory_restart\"?",
            "x.toml:2: port: expected a number from 0 to 65535, found 70000",
            "x.toml:4: workers: expected a number, `max` or -K, found 'many'",
            "x.toml:5: placement: expected `rendezvous` or `modulo` or `least-connections` or \
             `round-robin` or `random`, found 1",
            "x.toml:6: wait_ready: expected `true` or `false`, found 'yes'",
            "x.toml:7: command: expected words as in a shell, with quotes closed, found \"node 'a\"",
            "x.toml:8: name: expected a string or number, found ['a']",
            "x.toml:10: unknown key \"zzz\": `sticky-lb init` writes a file with all keys",
            "x.toml:11: unknown key \"workers_\", did you mean \"workers\"?",
            "x.toml:12: expected a table of variables, such as [env]",
            "x.toml:14: variable A: expected a string, number or bool",
            "x.toml:15: \"B=\" is not a valid name of a variable",
        ];
        assert_eq!(read(text).unwrap_err().lines, expected);
        let nul = read("name = \"a\\u0000\"").unwrap_err();
        assert_eq!(nul.lines, ["x.toml:1: name: expected no NUL character, found \"a\\u0000\""]);
        let twice = read("workers = 1\ninstances = 2").unwrap_err();
        assert_eq!(twice.lines, ["x.toml:2: instances: workers is set already, in x.toml:1"]);
    }

    #[test]
    fn syntax_errors_are_reported_with_their_line() {
        let lines = read("port = 1\nname = \n\nport = 2\n").unwrap_err().lines;
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("x.toml:2: "), "{lines:?}");
        assert!(lines[1].starts_with("x.toml:4: "), "{lines:?}");
        let twice = read("workers = 2\nworkers = 3\n").unwrap_err().lines;
        assert_eq!(twice, ["x.toml:2: workers: duplicate key"]);
        for bare in ["./server", "node app.js", "/srv/run", "~/x"] {
            let lines = read(&format!("command = {bare}\n")).unwrap_err().lines;
            assert_eq!(lines, ["x.toml:1: command: a text has to be in quotes"], "{bare}");
        }
        let broken = read("env = { TOKEN = \"a\" \n").unwrap_err().lines;
        assert!(broken.iter().all(|line| !line.contains("\"a\"")), "{broken:?}");
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(text: String, key in "[a-z_]{1,12}", value in r#"[0-9a-z"'\[\]{},.=]{0,12}"#) {
            let _ = read(&text);
            let _ = read(&format!("{key} = {value}\nport = {value}\nargs = {value}\nenv = {value}"));
        }
    }
}
