//! Commands that are lines for a shell, and what to write instead.
//!
//! Pure: from words to words.

use crate::supervisor::command::WorkerCommand;

/// Words that only a shell runs.
const SHELL_WORDS: [&str; 17] = [
    "!", "(", ".", "[[", "cd", "eval", "exec", "export", "for", "if", "set", "source", "time",
    "trap", "ulimit", "umask", "{",
];

/// Words that only a shell takes apart.
const OPERATORS: [&str; 12] =
    ["&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "2>>", "2>&1", "&>"];

/// What to write instead of a command that only a shell could run; `None` if it is a command.
#[must_use]
pub fn hint(command: &WorkerCommand) -> Option<String> {
    let program = command.program.to_string_lossy();
    if let Some(rest) = program.strip_prefix('~') {
        return Some(format!("~ is for a shell: write the folder out, or sh -c 'exec ~{rest}'"));
    }
    let assigns = program.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    if assigns {
        return Some(format!(
            "variables belong into [env] of the configuration file; a line for a shell is run by {}",
            by_shell(command)
        ));
    }
    if let Some(runtime) = runtime(&program) {
        return Some(format!("it is run by {runtime}: -- {runtime} {program}"));
    }
    let is_shells = SHELL_WORDS.contains(&&*program) || program.contains(['$', '`', ';', '|', '&']);
    (is_shells || operator(command).is_some())
        .then(|| format!("a line for a shell is run by {}", by_shell(command)))
}

/// The program that usually runs files of this name.
#[must_use]
pub fn runtime(program: &str) -> Option<&'static str> {
    match program.rsplit_once('.')?.1 {
        "js" | "cjs" | "mjs" | "ts" | "mts" => Some("node"),
        "py" => Some("python3"),
        "rb" => Some("ruby"),
        _ => None,
    }
}

/// A word among the arguments that only a shell takes apart: the program gets it as it is.
#[must_use]
pub fn operator(command: &WorkerCommand) -> Option<&str> {
    let words = command.arguments.iter().filter_map(|word| word.to_str());
    words.into_iter().find(|word| {
        // NGINX='3;' is a variable's whole value.
        let ends_a_command = word.len() > 1 && word.ends_with(';') && !word.contains('=');
        OPERATORS.contains(word) || ends_a_command
    })
}

fn by_shell(command: &WorkerCommand) -> String {
    let words = std::iter::once(&command.program).chain(&command.arguments);
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        let is_plain = !word.contains(char::is_whitespace) || word.contains('=');
        if is_plain { word.into_owned() } else { quote(&word) }
    });
    format!("sh -c {}", quote(&quoted.collect::<Vec<_>>().join(" ")))
}

fn quote(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| text.to_owned(), |quoted| quoted.into_owned())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn command(line: &str) -> WorkerCommand {
        let mut words = shlex::split(line).unwrap().into_iter().map(OsString::from);
        WorkerCommand {
            program: words.next().unwrap(),
            arguments: words.collect(),
            directory: Some("/etc".into()),
            ..WorkerCommand::default()
        }
    }

    #[test]
    fn a_line_for_a_shell_is_told_from_a_command() {
        for (line, expected) in [
            ("cd /srv && node app.js", "sh -c 'cd /srv && node app.js'"),
            ("NODE_ENV=production node app.js", "[env]"),
            ("NODE_ENV=production node app.js", "sh -c 'NODE_ENV=production node app.js'"),
            ("~/bin/x", "write the folder out"),
            ("'$HOME/x'", "sh -c"),
            ("node app.js > log", "sh -c 'node app.js > log'"),
            ("exec node", "sh -c 'exec node'"),
            ("server.js --x", "-- node server.js"),
            ("app.py", "-- python3 app.py"),
        ] {
            let hint = hint(&command(line)).unwrap_or_default();
            assert!(hint.contains(expected), "{line}: {hint}");
        }
        for line in
            ["env 'NGINX=3;' nginx", "node app.js", "./a=b", "node --x='a && b'", "npm start"]
        {
            assert_eq!(hint(&command(line)), None, "{line}");
        }
    }
}
