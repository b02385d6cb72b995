//! Settings from flags, environment and file; errors name their place.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Primary, own_directory, process, tools};
use serde_json::Value;

/// A directory with files, in which the program runs to its end.
struct Place(PathBuf);

impl Place {
    fn with(files: &[(&str, &str)]) -> Self {
        let directory = own_directory().canonicalize().unwrap();
        for (name, text) in files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            if text.starts_with("#!") {
                fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
            }
        }
        Self(directory)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
        command.current_dir(&self.0).env("PWD", &self.0).args(arguments);
        for variable in ["PORT", "WEB_CONCURRENCY", "KUBERNETES_SERVICE_HOST"] {
            command.env_remove(variable);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The output of `check --json` with these flags.
    fn check(&self, arguments: &[&str]) -> Value {
        checked(&mut self.command(&[&["check", "--json"], arguments].concat()))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn checked(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Value and origin of a setting.
fn setting(checked: &Value, key: &str) -> (String, String) {
    let setting = &checked[key];
    (setting["value"].to_string(), setting["from"].as_str().unwrap().to_owned())
}

fn fails(output: &Output, code: i32, lines: &[&str]) {
    let error = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(error.lines().collect::<Vec<_>>(), lines);
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let place = Place::with(&[(
        "sticky-lb.toml",
        "port = 81\nworkers = 2\nname = 'chat'\nkill_timeout = 1600\nhost = ''\n",
    )]);
    let mut command = place.command(&["check", "--json", "--port", "83"]);
    let found = checked(command.env("PORT", "82").env("WEB_CONCURRENCY", "3"));
    for (key, value, from) in [
        ("port", "83", "--port"),
        ("workers", "3", "environment variable WEB_CONCURRENCY"),
        ("name", "\"chat\"", "sticky-lb.toml:3"),
        ("kill_timeout", "1600", "sticky-lb.toml:4"),
        ("host", "null", "default"),
        ("slot_wait", "\"1s\"", "default"),
        ("listen_timeout", "null", "default"),
    ] {
        assert_eq!(setting(&found, key), (value.to_owned(), from.to_owned()), "{key}");
    }
    let mut command = place.command(&["check", "--json"]);
    let found = checked(command.env("PORT", "82").env("WEB_CONCURRENCY", ""));
    assert_eq!(setting(&found, "port").1, "environment variable PORT");
    assert_eq!(setting(&found, "workers").1, "sticky-lb.toml:2");
}

#[test]
fn drain_is_a_mode_or_a_table() {
    let table = "[drain]\nmode = 'close'\nreload = '5m'\nshutdown = '3s'\nrate = 20\n";
    let place = Place::with(&[("sticky-lb.toml", table), ("mode.toml", "drain = 'wait'\n")]);
    let found = place.check(&["--drain-reload", "9m"]);
    for (key, value, from) in [
        ("drain", "\"close\"", "sticky-lb.toml:2"),
        ("drain_timeout", "\"9m\"", "--drain-timeout"),
        ("kill_timeout", "\"3s\"", "sticky-lb.toml:4"),
        ("close_rate", "20", "sticky-lb.toml:5"),
        ("migrate_timeout", "\"10s\"", "default"),
        ("rebalance_rate", "100", "default"),
    ] {
        assert_eq!(setting(&found, key), (value.to_owned(), from.to_owned()), "{key}");
    }
    let found = place.check(&["--config", "mode.toml"]);
    assert_eq!(setting(&found, "drain").0, "\"wait\"");
    let twice = format!("kill_timeout = '9s'\n{table}");
    fails(
        &Place::with(&[("sticky-lb.toml", &twice)]).run(&["check"]),
        2,
        &["sticky-lb: sticky-lb.toml:5: drain.shutdown: kill_timeout is set already, in \
           sticky-lb.toml:1"],
    );
}

#[test]
fn the_primary_runs_on_its_file() {
    let place =
        Place::with(&[("conf/app.toml", "workers = 2\nport = 0\nmigrate_timeout = '3s'\n")]);
    let config = place.0.join("conf/app.toml");
    let primary = Primary::with_workers(3).arguments(&["--config", config.to_str().unwrap()]);
    let primary = primary.start();
    assert_eq!(primary.workers().len(), 3, "the flag wins");
    let told = process::variable(primary.worker(0), "STICKY_LB_MIGRATE_TIMEOUT");
    assert_eq!(told.as_deref(), Some("3000"));
    primary.stop();
}

#[test]
fn workers_get_the_environment_of_the_profile() {
    let text = "[env]\nCOLOUR = 'red'\nSIZE = 7\n[env_production]\nCOLOUR = 'blue'\nFAST = true\n";
    let place = Place::with(&[("app.toml", text)]);
    let config = place.0.join("app.toml");
    let config = config.to_str().unwrap();
    for (profile, expected) in [
        (&[][..], [Some("red"), Some("7"), None]),
        (&["--env", "production"], [Some("blue"), Some("7"), Some("true")]),
    ] {
        let primary = Primary::with_workers(1).arguments(&["--config", config]).arguments(profile);
        let primary = primary.start();
        let worker = primary.worker(0);
        let found = ["COLOUR", "SIZE", "FAST"].map(|name| process::variable(worker, name));
        assert_eq!(found, expected.map(|value| value.map(str::to_owned)));
        primary.stop();
    }
}

#[test]
fn workers_run_in_their_directory_relative_to_the_file() {
    let place = Place::with(&[("conf/app.toml", "cwd = '../data'\n"), ("data/x", "")]);
    let config = place.0.join("conf/app.toml");
    let primary = Primary::with_workers(1).arguments(&["--config", config.to_str().unwrap()]);
    let primary = primary.start();
    let cwd = fs::read_link(format!("/proc/{}/cwd", primary.worker(0))).unwrap();
    assert_eq!(cwd, place.0.join("data"));
    primary.stop();
}

#[test]
fn an_unknown_profile_lists_the_known_ones() {
    let place = Place::with(&[("sticky-lb.toml", "[env]\nA = 1\n[env_test]\n[env_production]\n")]);
    fails(
        &place.run(&["--env", "prod"]),
        2,
        &["sticky-lb: --env: sticky-lb.toml has no [env_prod]; its profiles: test, production"],
    );
    fails(
        &Place::with(&[]).run(&["--env", "prod"]),
        2,
        &["sticky-lb: --env: sticky-lb.toml has no [env_prod]; its profiles: none"],
    );
}

#[test]
fn all_errors_are_reported_with_their_lines() {
    let place = Place::with(&[(
        "sticky-lb.toml",
        "# comment\nport = 80\nworkers = \"many\"\n\nmax_memry_restart = \"1G\"\n",
    )]);
    let expected = [
        "sticky-lb: sticky-lb.toml:3: workers: expected a number, `max` or -K, found \"many\"",
        "sticky-lb: sticky-lb.toml:5: unknown key \"max_memry_restart\", did you mean \
         \"max_memory_restart\"?",
    ];
    fails(&place.run(&[]), 2, &expected);
    fails(&place.run(&["check"]), 2, &expected);
}

#[test]
fn contradictory_settings_name_the_place_of_the_wrong_one() {
    let place = Place::with(&[("sticky-lb.toml", "weights = [1, 2]\nmin_workers = 3\n")]);
    fails(
        &place.run(&["check", "--workers", "3", "--watchdog-timeout=2s", "--cwd=none"]),
        2,
        &[
            "sticky-lb: sticky-lb.toml:2: min_workers: does nothing without max_workers: set both",
            &format!(
                "sticky-lb: --cwd: cannot open directory {}: No such file or directory (os error 2)",
                place.0.join("none").display()
            ),
            "sticky-lb: sticky-lb.toml:1: weights: 2 weights given for 3 workers",
        ],
    );
    let mut command = place.command(&["check"]);
    let output = command.env("PORT", "many").output().unwrap();
    let expected = "sticky-lb: environment variable PORT: expected a number from 0 to 65535, found \
                    \"many\"";
    fails(&output, 2, &[expected]);
}

#[test]
fn a_named_file_must_exist() {
    let expected =
        "sticky-lb: cannot read configuration file x.toml: No such file or directory (os error 2)";
    fails(&Place::with(&[]).run(&["check", "--config", "x.toml"]), 2, &[expected]);
}

#[test]
fn relative_paths_start_at_the_place_of_their_setting() {
    let place = Place::with(&[
        ("conf/app.toml", "out_file = 'out.log'\nwatch = ['src']\ncwd = '..'\nsecret_file = 'x'\n"),
        ("conf/src/x", ""),
        ("conf/x", "secret"),
    ]);
    let found = place.check(&["--config", "conf/app.toml", "--error-file", "./err.log"]);
    let under = |path: &str| place.0.join(path).to_str().unwrap().to_owned();
    for (key, expected) in [
        ("out_file", Value::from(under("conf/out.log"))),
        ("error_file", Value::from(under("err.log"))),
        ("watch", Value::from(vec![under("conf/src")])),
        ("cwd", Value::from(place.0.to_str().unwrap())),
    ] {
        assert_eq!(found[key]["value"], expected, "{key}");
    }
}

#[test]
fn the_directory_follows_pwd() {
    let place = Place::with(&[("one/sticky-lb.toml", "name = 'one'\n")]);
    symlink("one", place.0.join("current")).unwrap();
    let current = place.0.join("current");
    let mut command = place.command(&["check", "--json"]);
    let found = checked(command.current_dir(&current).env("PWD", &current));
    assert_eq!(found["name"]["value"], "one");
    assert_eq!(found["cwd"]["value"], place.0.join("one").to_str().unwrap());
    // A wrong PWD is ignored.
    let mut command = place.command(&["check", "--json"]);
    let found = checked(command.env("PWD", "/etc"));
    assert_eq!(found["cwd"]["value"], place.0.to_str().unwrap());
}

#[test]
fn under_kubernetes_there_is_a_lame_duck_period() {
    let place = Place::with(&[]);
    let mut command = place.command(&["check", "--json"]);
    let found = checked(command.env("KUBERNETES_SERVICE_HOST", "10.0.0.1"));
    assert_eq!(found["lameduck"]["value"], "5s");
    assert_eq!(place.check(&[])["lameduck"]["value"], "0s");
}

#[test]
fn a_command_on_the_command_line_replaces_the_files_command_and_arguments() {
    let file = "command = 'node app.js'\nargs = '--fast'\n";
    let place = Place::with(&[("sticky-lb.toml", file), ("worker", "#!/bin/sh\n")]);
    let words = |found: &Value| (found["command"]["value"].clone(), found["args"]["value"].clone());
    let found = place.check(&[]);
    assert_eq!(words(&found), (vec!["node", "app.js"].into(), vec!["--fast"].into()));
    let found = place.check(&["--", "./worker", "-v"]);
    assert_eq!(words(&found), (vec!["./worker", "-v"].into(), Value::Null));
    let found = place.check(&["--args", "--slow 'two words'"]);
    assert_eq!(words(&found).1, Value::from(vec!["--slow", "two words"]));
}

#[test]
fn check_prints_the_same_as_text() {
    let place = Place::with(&[("sticky-lb.toml", "port = 81\n[env]\nTOKEN = 'confidential'\n")]);
    let output = place.run(&["check", "--workers", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("port"), "port = 81 # sticky-lb.toml:1");
    assert_eq!(line("workers"), "workers = 2 # --workers");
    assert_eq!(line("kill_timeout"), "kill_timeout = \"10s\" # default");
    assert_eq!(line("# host"), "# host is not set");
    assert_eq!(line("# env"), "# env.TOKEN is set # sticky-lb.toml:3");
    assert!(!text.contains("confidential"), "{text}");
    // The text is a configuration file with the same result.
    let again = Place::with(&[("sticky-lb.toml", &text)]);
    let found = place.check(&["--workers", "2"]);
    for (key, value) in again.check(&[]).as_object().unwrap() {
        assert_eq!(value["value"], found[key]["value"], "{key}");
    }
}

#[test]
fn check_refuses_what_the_start_refuses() {
    let place = Place::with(&[("plain", ""), ("script", "#!/nonexistent/node\n")]);
    let shell = "a line for a shell is run by sh -c 'cd /srv && node app.js'";
    for (file, key, expected) in [
        ("command = 'no-such-program'", "command", "no such file in PATH"),
        ("command = './no-such-program'", "command", "No such file or directory"),
        ("command = './plain'", "command", "Permission denied"),
        (
            "command = './script'",
            "command",
            "the interpreter or loader that it names does not exist",
        ),
        ("command = 'cd /srv && node app.js'", "command", shell),
        (
            "command = 'NODE_ENV=production node app.js'",
            "command",
            "variables belong into [env] of the configuration file",
        ),
        ("command = '~/bin/x'", "command", "~ is for a shell: write the folder out"),
        ("host = '0.0.0.0:3000'", "host", "host = \"0.0.0.0\", port = 3000"),
        ("host = 'no such host'", "host", "expected an address or a name"),
        ("host = '203.0.113.9'", "host", "cannot listen on 203.0.113.9:"),
        ("host = 'nowhere.invalid'", "host", "cannot resolve host \"nowhere.invalid\""),
        ("out_file = '/etc/passwd/out.log'", "out_file", "cannot open log file"),
        ("log_date_format = '%!'", "log_date_format", "date format \"%!\" is wrong"),
        ("watch = true\nignore_watch = ['[']", "ignore_watch", "pattern \"[\""),
        ("control = '/nonexistent/x.sock'", "control", "cannot open control socket"),
        ("admin = '203.0.113.9:1'\nadmin_token_file = 'none'", "admin", "203.0.113.9:1"),
        ("out_file = '~/out.log'", "out_file", "~ is for a shell"),
        ("max_memory_restart = 300", "max_memory_restart", "no worker can do with 300 bytes"),
    ] {
        fs::write(place.0.join("sticky-lb.toml"), file).unwrap();
        let output = place.run(&["check"]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{file}: {error}");
        assert!(output.stdout.is_empty(), "{file}");
        let line = error.lines().next().unwrap_or_default();
        let place_of_it = format!("sticky-lb: sticky-lb.toml:{}: {key}: ", file.lines().count());
        let of_first = format!("sticky-lb: sticky-lb.toml:1: {key}: ");
        assert!(line.starts_with(&place_of_it) || line.starts_with(&of_first), "{file}: {error}");
        assert!(line.contains(expected), "{file}: {error}");
        // The start says the same of it.
        let output = place.run(&["--port", "0"]);
        assert!(stderr(&output).contains(expected), "{file}: {}", stderr(&output));
        assert!(!output.status.success(), "{file}");
    }
    fails(
        &place.run(&["check", "--config", "/dev/null", "--error-file=~/x"]),
        2,
        &["sticky-lb: --error-file: expected a path that is written out: ~ is for a shell"],
    );
}

#[test]
fn check_does_not_mind_the_primary_that_runs() {
    let primary = Primary::with_workers(1).arguments(&["--admin", "127.0.0.1:0"]).start();
    let admin = primary.status()["admin"].as_str().unwrap().to_owned();
    let (port, control) = (primary.port().to_string(), primary.control());
    let place = Place::with(&[]);
    let arguments = ["--port", &port, "--admin", &admin, "--control", control.to_str().unwrap()];
    place.check(&arguments);
    primary.stop();
}

#[test]
fn check_says_which_file_it_has_read() {
    let place = Place::with(&[("sticky-lb.toml", "port = 81\n"), ("conf/app.toml", "port = 82\n")]);
    let last = |arguments: &[&str]| {
        let output = place.run(&[&["check"], arguments].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(last(&[]), format!("# ok: read {}", place.0.join("sticky-lb.toml").display()));
    let read = format!("# ok: read {}", place.0.join("conf/app.toml").display());
    assert_eq!(last(&["--config", "conf/app.toml"]), read);
    fs::remove_file(place.0.join("sticky-lb.toml")).unwrap();
    assert_eq!(last(&[]), "# ok: there is no sticky-lb.toml here");
}

#[test]
fn what_cannot_be_printed_is_a_failure() {
    let place = Place::with(&[]);
    for arguments in [&["check"][..], &["check", "--json"], &["--help"], &["--version"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = place.command(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains("cannot write to standard output"), "{arguments:?}");
    }
}

#[test]
fn a_setting_that_is_hardly_meant_is_warned_of() {
    let place = Place::with(&[("worker", "#!/bin/sh\n")]);
    for (file, expected) in [
        ("port = 81\n[env]\nPORT = 8088", "3: variable PORT: has no effect: workers get the port"),
        ("[env]\nport = 8088", "2: variable port: is one of workers here"),
        ("[env_live]\nmax-restarts = 3", "2: variable max-restarts: is one of workers here"),
        ("[env]\nNODE_APP_INSTANCE = 1", "2: variable NODE_APP_INSTANCE: has no effect"),
        ("[env]\nSTICKY_LB_SLOT = 1", "2: variable STICKY_LB_SLOT: has no effect"),
        ("kill_timeout = 10", "1: kill_timeout: 10 is 10 ms, for 10 seconds write 10s"),
        ("log_rotate_size = 10", "1: log_rotate_size: 10 is 10 bytes, for megabytes write 10M"),
        ("command = './worker a && ./worker b'", "1: command: the program gets \"&&\""),
    ] {
        fs::write(place.0.join("sticky-lb.toml"), file).unwrap();
        let output =
            place.run(&["check", "--env", "live"][..if file.contains("live") { 3 } else { 1 }]);
        assert!(output.status.success(), "{file}: {}", stderr(&output));
        let expected = format!("sticky-lb: warning: sticky-lb.toml:{expected}");
        let warnings: Vec<_> = stderr(&output).lines().map(str::to_owned).collect();
        assert_eq!(warnings.len(), 1, "{file}: {warnings:?}");
        assert!(warnings[0].starts_with(&expected), "{file}: {warnings:?}");
    }
    let fine = "port = 81\nkill_timeout = '10s'\nack_timeout = 250\n[env]\nPORT = 81\nSTICKY_LB_LOG = 'debug'";
    fs::write(place.0.join("sticky-lb.toml"), fine).unwrap();
    assert_eq!(stderr(&place.run(&["check"])), "");
    // The log of a start has them too, once.
    fs::write(place.0.join("sticky-lb.toml"), "[env]\nPORT = 8088").unwrap();
    let config = place.0.join("sticky-lb.toml");
    let primary = Primary::with_workers(1).arguments(&["--config", config.to_str().unwrap()]);
    let primary = primary.start();
    assert_eq!(primary.log().matches("variable PORT: has no effect").count(), 1);
    primary.stop();
}

#[test]
fn a_program_in_a_file_starts_at_its_folder() {
    let demo = env!("CARGO_BIN_EXE_sticky-lb");
    let script = format!("#!/bin/sh\nexec {demo} demo-worker\n");
    let files = [
        ("conf/app.toml", "command = './bin/worker'\ncwd = '..'\n"),
        ("conf/bin/worker", &*script),
    ];
    let place = Place::with(&files);
    let program = place.0.join("conf/bin/worker");
    let found = place.check(&["--config", "conf/app.toml"]);
    assert_eq!(found["command"]["value"], Value::from(vec![program.to_str().unwrap()]));
    // A program without a slash is looked for in PATH, and one on the command line starts where workers do.
    fs::write(place.0.join("conf/app.toml"), "command = 'sh worker'\n").unwrap();
    let found = place.check(&["--config", "conf/app.toml"]);
    assert_eq!(found["command"]["value"], Value::from(vec!["sh", "worker"]));
    let found = place.check(&["--config", "conf/app.toml", "--", "./conf/bin/worker"]);
    assert_eq!(found["command"]["value"], Value::from(vec!["./conf/bin/worker"]));
    fs::write(place.0.join("conf/app.toml"), "command = './bin/worker'\n").unwrap();
    let config = place.0.join("conf/app.toml");
    let primary = Primary::with_workers(1).arguments(&["--config", config.to_str().unwrap()]);
    primary.start().stop();
}

#[test]
fn the_admin_address_may_be_a_port_alone() {
    let place = Place::with(&[]);
    for (text, expected) in [("5403", "5403"), ("localhost:5403", "\"localhost:5403\"")] {
        let found = place.check(&["--admin", text]);
        assert_eq!(found["admin"]["value"].to_string(), expected);
    }
    let primary = Primary::with_workers(1).arguments(&["--admin", "0"]).start();
    let address = primary.status()["admin"].as_str().unwrap().to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    primary.wait_for_log(&format!("url=http://{address}/"));
    primary.stop();
}

#[test]
fn init_writes_a_file_with_all_defaults() {
    let place = Place::with(&[]);
    let defaults = place.check(&[]);
    let output = place.run(&["init"]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "wrote sticky-lb.toml: sticky-lb check reads it, sticky-lb runs it\n");
    assert_eq!(place.check(&[]), defaults, "all of it is a comment");
    let text = place.read("sticky-lb.toml");
    let said: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("# ") && !line.starts_with("##") && *line != "#")
        .map(|line| line.trim_start_matches('#'))
        .take_while(|line| *line != "[env]")
        .collect();
    fs::write(place.0.join("sticky-lb.toml"), said.join("\n")).unwrap();
    let found = place.check(&[]);
    for (key, value) in defaults.as_object().unwrap() {
        assert_eq!(found[key]["value"], value["value"], "{key}");
    }
    assert!(said.iter().filter(|line| line.contains('=')).count() >= 60, "{said:?}");
}

#[test]
fn init_overwrites_nothing_unless_forced() {
    let place = Place::with(&[("sticky-lb.toml", "mine")]);
    let expected = "sticky-lb: sticky-lb.toml is there already: --force replaces it";
    fails(&place.run(&["init"]), 1, &[expected]);
    assert_eq!(place.read("sticky-lb.toml"), "mine");
    assert!(place.run(&["init", "other.toml"]).status.success());
    assert!(place.run(&["init", "--force"]).status.success());
    assert_eq!(place.read("sticky-lb.toml"), place.read("other.toml"));
}

#[test]
fn init_keeps_secrets_to_their_owner() {
    let plain = r#"{"script": "a.js"}"#;
    let secret = r#"{"script": "a.js", "env": {"PASSWORD": "x"}}"#;
    let place = Place::with(&[("plain.json", plain), ("own.json", plain), ("env.json", secret)]);
    let path = |name: &str| place.0.join(name);
    fs::set_permissions(path("own.json"), Permissions::from_mode(0o600)).unwrap();
    for (source, others) in [("plain.json", true), ("own.json", false), ("env.json", false)] {
        // A file that is replaced, and what a link leads to, keep neither mode nor content.
        fs::write(path("before"), "before").unwrap();
        let _ = fs::remove_file(path("forced.toml"));
        symlink("before", path("forced.toml")).unwrap();
        for words in [&["new.toml"][..], &["forced.toml", "--force"]] {
            let words = [&["init", "--from-pm2", source][..], words].concat();
            let output = place.run(&words);
            assert!(output.status.success(), "{}", stderr(&output));
        }
        for name in ["new.toml", "forced.toml"] {
            let mode = fs::symlink_metadata(path(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077 != 0, others, "{name} from {source}: {mode:o}");
        }
        assert_eq!(place.read("before"), "before");
        fs::remove_file(path("new.toml")).unwrap();
    }
}

const ECOSYSTEM_JS: &str = "
console.log('something of its own');
module.exports = {
  apps: [{
    name: 'shop',
    script: 'build/main.js',
    instances: 3,
    exec_mode: 'cluster',
    env: { NODE_ENV: 'test', PORT: 4100 },
    env_live: { NODE_ENV: 'live', PORT: 4100 },
    max_memory_restart: '700M',
    restart_delay: 250,
    max_restarts: 7,
    min_uptime: '20s',
    log_file: 'log/both.log',
    error_file: 'log/err.log',
    out_file: 'log/out.log',
    log_date_format: 'HH:mm:ss',
    merge_logs: true,
    kill_timeout: 4000,
    wait_ready: true,
    listen_timeout: 9000,
    watch: false,
    ignore_watch: ['log'],
    node_args: '--max-old-space-size=512',
    source_map_support: true,
  }],
};
";

#[test]
fn a_javascript_file_of_pm2_is_converted() {
    let place = Place::with(&[("ecosystem.config.js", ECOSYSTEM_JS)]);
    let output = place.run(&["init", "--from-pm2", "ecosystem.config.js"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let found = place.check(&["--env", "live"]);
    for (key, expected) in [
        ("name", "\"shop\""),
        ("workers", "3"),
        ("port", "4100"),
        (
            "command",
            r#"["node","--enable-source-maps","--max-old-space-size=512","build/main.js"]"#,
        ),
        ("max_memory_restart", &(700 << 20).to_string()),
        ("restart_delay", "250"),
        ("max_restarts", "7"),
        ("min_uptime", "\"20s\""),
        ("log_date_format", "\"HH:mm:ss\""),
        ("merge_logs", "true"),
        ("kill_timeout", "4000"),
        ("wait_ready", "true"),
        ("listen_timeout", "9000"),
        ("watch", "false"),
        ("ignore_watch", "[\"log\"]"),
    ] {
        let (value, from) = setting(&found, key);
        assert_eq!(value, expected, "{key}");
        assert!(from.starts_with("sticky-lb.toml:"), "{key}: {from}");
    }
    let out = place.0.join("log/out.log");
    assert_eq!(found["out_file"]["value"], out.to_str().unwrap());
    assert!(found.get("env.NODE_ENV").is_some());
}

#[test]
fn json_and_yaml_of_pm2_are_converted_like_javascript() {
    let json =
        r#"{"apps": [{"name": "a", "script": "./run", "args": ["-x"], "instances": "max"}]}"#;
    let yaml = "apps:\n  - name: a\n    script: ./run\n    args: ['-x']\n    instances: max\n";
    let module =
        "export default {apps: [{name: 'a', script: './run', args: ['-x'], instances: 0}]}";
    let place = Place::with(&[("e.json", json), ("e.yaml", yaml), ("e.mjs", module)]);
    let converted = |name: &str| {
        let output = place.run(&["init", "--force", "--from-pm2", name]);
        assert!(output.status.success(), "{}", stderr(&output));
        let text = place.read("sticky-lb.toml");
        text.split_once('\n').map(|(_, text)| text.to_owned()).unwrap()
    };
    let first = converted("e.json");
    assert!(first.contains("\ncommand = [\"./run\"]\nargs = [\"-x\"]\n"), "{first}");
    assert!(first.contains("\nworkers = \"max\"\n"), "{first}");
    assert_eq!(converted("e.yaml"), first);
    assert_eq!(converted("e.mjs"), first);
}

/// Each is what people have, and what the primary is to run.
#[test]
fn files_of_pm2_as_they_are_found_are_converted() {
    let js = "const base = { script: './app.js' };\n\
              module.exports = { apps: [{ ...base, name: 'x', env: { ...process.env } }] };\n";
    let place = Place::with(&[
        ("app.js", ""),
        ("bin/www", "#!/usr/bin/env node\n"),
        ("tool", "#!/bin/sh\n"),
        (
            "pm2.json",
            "\u{feff}{\n  // the one app\n  apps: [{\n    name: 'x', script: './app.js', /* two */\n    \
             instances: 2, maxMemoryRestart: '300M', env: { A: 1, },\n  },],\n}\n",
        ),
        ("exec.json5", "{exec: 'app.js', interpreterArgs: ['--trace-warnings'], err_log: 'e.log'}"),
        ("line.json", "{script: 'cd bin && exec node www', args: ['-x']}"),
        ("npm.json", "{script: 'npm start -- --x=1'}"),
        ("www.json", "{script: 'bin/www', instances: 'max'}"),
        (
            "cmd.yaml",
            "base: &base {script: app.js, env: &env {A: 1}}\napps:\n- <<: *base\n  env:\n    <<: *env\n    B: 2\n",
        ),
        ("spread.config.js", js),
        (
            "user.json",
            "{script: 'app.js', uid: 'no-such-user', log_date_format: '%Q', ignore_watch: ['['], watch: true}",
        ),
        ("home.json", "{script: 'app.js', out_file: '~/out.log', cron_restart: 0, instances: '0'}"),
    ]);
    for (source, expected) in [
        ("pm2.json", "command = [\"node\", \"./app.js\"]"),
        ("pm2.json", "max_memory_restart = \"300M\""),
        ("pm2.json", "workers = 2"),
        ("exec.json5", "command = [\"node\", \"--trace-warnings\", \"app.js\"]"),
        ("exec.json5", "error_file = \"e.log\""),
        ("line.json", "command = [\"bash\", \"-c\", \"cd bin && exec node www\"]"),
        ("npm.json", "command = [\"npm\", \"start\", \"--\", \"--x=1\"]"),
        ("www.json", "command = [\"node\", \"bin/www\"]"),
        ("cmd.yaml", "A = 1\nB = 2"),
        ("spread.config.js", "SOME_TOKEN = \"x\""),
        ("user.json", "# * user: there is no user \"no-such-user\""),
        ("home.json", "workers = \"max\""),
    ] {
        let mut command = place.command(&["init", "--force", "--from-pm2", source]);
        let output = command.env("SOME_TOKEN", "x").output().unwrap();
        assert!(output.status.success(), "{source}: {}", stderr(&output));
        let text = place.read("sticky-lb.toml");
        assert!(
            text.contains(&format!("\n{expected}\n")) || text.contains(expected),
            "{source}: {text}"
        );
        let is_spread = source == "spread.config.js";
        let warned = stderr(&output).contains("variables are those of this shell");
        assert_eq!(warned, is_spread, "{source}: {}", stderr(&output));
        let mode = fs::metadata(place.0.join("sticky-lb.toml")).unwrap().permissions().mode();
        assert!(!is_spread || mode & 0o077 == 0, "{mode:o}");
        place.check(&[]);
    }
}

/// PM2's own names of its settings, as the package itself reads them.
#[test]
fn every_name_of_pm2_is_known() {
    let script = "const { schema } = require('pm2/lib/tools/Config.js');\n\
        const names = Object.keys(schema).filter(key => !key.includes('\\\\'));\n\
        console.log(JSON.stringify(names.map(key => [key, ...schema[key].alias])));";
    let node = Command::new("node")
        .args(["-e", script])
        .current_dir(tools::tool("node/node_modules").parent().unwrap())
        .output()
        .unwrap();
    let names: Vec<Vec<String>> = serde_json::from_slice(&node.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&node.stderr)));
    assert!(names.len() > 50, "{names:?}");
    let place = Place::with(&[("app.js", "")]);
    let value = |key: &str| match key {
        "script" | "exec" => "'app.js'",
        "env" => "{}",
        _ => "true",
    };
    let said = |key: &str| {
        let script = if ["script", "exec"].contains(&key) { "" } else { "script: 'app.js', " };
        fs::write(place.0.join("one.json"), format!("{{{script}{key}: {}}}", value(key))).unwrap();
        let output = place.run(&["init", "--force", "--from-pm2", "one.json"]);
        assert!(output.status.success(), "{key}: {}", stderr(&output));
        (stderr(&output), place.read("sticky-lb.toml"))
    };
    for same in names {
        let first = said(&same[same.len() - 1]);
        for key in &same {
            let (notes, text) = said(key);
            assert!(!notes.contains("there is no such setting"), "{key}: {notes}");
            assert_eq!(text, first.1, "{key} is another name of {}", same[same.len() - 1]);
        }
    }
}

#[test]
fn a_module_of_the_other_kind_says_so() {
    let place = Place::with(&[
        ("package.json", "{\"type\": \"module\"}"),
        ("ecosystem.config.js", "module.exports = { apps: [{ script: 'app.js' }] };\n"),
        ("plain/package.json", "{}"),
        ("plain/pm2.config.cjs", "export default { apps: [] };\n"),
    ]);
    for (source, expected) in [
        (
            "ecosystem.config.js",
            "it is CommonJS, and package.json beside it says \"type\": \"module\": name it .cjs",
        ),
        ("plain/pm2.config.cjs", "it is an ES module: name it .mjs"),
    ] {
        let output = place.run(&["init", "--from-pm2", source]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(expected), "{source}: {}", stderr(&output));
    }
}

#[test]
fn one_of_several_apps_is_chosen() {
    let json = r#"[{"name": "api", "script": "a.js"}, {"name": "jobs", "script": "b.js"}]"#;
    let place = Place::with(&[("pm2/e.json", json)]);
    let expected = "pm2/e.json describes api, jobs: choose by --app, one for each primary";
    let output = place.run(&["init", "--from-pm2", "pm2/e.json"]);
    fails(&output, 1, &[&format!("sticky-lb: {expected}")]);
    let output = place.run(&["init", "--from-pm2", "pm2/e.json", "--app", "web"]);
    fails(&output, 1, &[&format!("sticky-lb: no app \"web\": {expected}")]);
    assert!(place.run(&["init", "--from-pm2", "pm2/e.json", "--app", "jobs"]).status.success());
    let found = place.check(&[]);
    assert_eq!(found["command"]["value"], Value::from(vec!["node", "b.js"]));
    // Its paths still start at PM2's file.
    assert_eq!(found["cwd"]["value"], place.0.join("pm2").to_str().unwrap());
}

#[test]
fn a_file_of_pm2_that_cannot_be_read_is_an_error() {
    let files = [
        ("bad.js", "throw new Error('boom')"),
        ("no.json", "{"),
        ("e.yaml", "a: 1"),
        ("e.txt", ""),
    ];
    let place = Place::with(&files);
    for (name, expected) in [
        ("bad.js", "sticky-lb: bad.js throws: Error: boom"),
        ("no.json", "sticky-lb: no.json is not JSON5: "),
        ("e.yaml", "sticky-lb: e.yaml describes no app: "),
        ("e.txt", "sticky-lb: unknown type of file e.txt: "),
        ("none.json", "sticky-lb: cannot read none.json: No such file"),
    ] {
        let output = place.run(&["init", "--from-pm2", name]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
        assert!(!Path::new(&place.0.join("sticky-lb.toml")).exists());
    }
    let mut command = place.command(&["init", "--from-pm2", "bad.js"]);
    let output = command.env("PATH", "").output().unwrap();
    assert!(stderr(&output).contains("cannot run node to read bad.js"), "{}", stderr(&output));
}
