//! Commands that start a program for Node and keep its channel to the primary to themselves, and what to write
//! instead.
//!
//! Pure: from words to words. That a program was kept from its channel shows in what it does: it never listens through
//! the primary.

use crate::supervisor::shell;

/// What to write instead of a command whose program never listened through the primary, if the command is known for
/// that.
#[must_use]
pub fn advice(words: &[String]) -> Option<String> {
    let shell = words.iter().position(|word| word == "-c");
    if let (Some("sh" | "bash" | "dash" | "zsh"), Some(flag)) = (name(words.first()?), shell) {
        let line = words.get(flag + 1)?.trim_start_matches("exec ").to_owned();
        let inner: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        return advice(&inner);
    }
    let rest = |from: usize| words[from.min(words.len())..].join(" ");
    let script = |from: usize| words.get(from).map_or("start", String::as_str);
    Some(match name(words.first()?)? {
        "npm" | "yarn" | "pnpm" => {
            let run = words.get(1).is_some_and(|word| word == "run");
            let script = script(if run { 2 } else { 1 });
            format!(
                "{} keeps the program's channel to itself: write what the script {script} in package.json runs, \
                 such as -- node server.js",
                words[0]
            )
        }
        "npx" | "bunx" | "pnpx" => match words.get(1).map(String::as_str) {
            Some("tsx") => import_tsx(&rest(2)),
            Some("nodemon") => watch(&rest(2)),
            _ => format!(
                "{} keeps the program's channel to itself: write -- node node_modules/.bin/{}",
                words[0],
                rest(1)
            ),
        },
        server @ ("uvicorn" | "daphne") => format!(
            "{server} gets its listening socket by its number: -- {server} --fd {{fd}} and the application, without --port"
        ),
        server @ ("gunicorn" | "hypercorn") => format!(
            "{server} gets its listening socket by its number: -- {server} -b fd://{{fd}} and the application"
        ),
        server @ ("puma" | "nginx" | "unicorn" | "caddy") => format!(
            "{server} gets its listening socket with --interface listen: see the guide, any-server"
        ),
        "tsx" => import_tsx(&rest(1)),
        "nodemon" => watch(&rest(1)),
        "cross-env" | "dotenv" | "concurrently" => format!(
            "{} keeps the program's channel to itself: variables belong into [env] of the configuration file, and \
             the command is -- node with the program",
            words[0]
        ),
        "node" if has(words, "--watch") || has(words, "--watch-path") => {
            let others = words[1..].iter().filter(|word| !word.starts_with("--watch"));
            watch(&others.cloned().collect::<Vec<_>>().join(" "))
        }
        "node" if has(words, "--run") => {
            "node --run keeps the program's channel to itself: write what the script in package.json runs, such as \
             -- node server.js"
                .to_owned()
        }
        "bun" => "Bun's servers take no connections from a primary: run the program with node or deno, or let it take \
                  connections as messages (node_message)"
            .to_owned(),
        "deno" => "Deno.serve takes no connections from a primary: servers of node:http and node:net do".to_owned(),
        program => {
            let runtime = shell::runtime(program)?;
            format!("a shell has run {program}, which has no interpreter in its first line: write -- {runtime} {}", rest(0))
        }
    })
}

fn import_tsx(arguments: &str) -> String {
    format!("tsx keeps the program's channel to itself: write -- node --import tsx {arguments}")
}

fn watch(arguments: &str) -> String {
    format!(
        "a watcher keeps the program's channel to itself: write --watch -- node {arguments}, which replaces workers \
         when files change"
    )
}

fn has(words: &[String], flag: &str) -> bool {
    words.iter().any(|word| word.split('=').next() == Some(flag))
}

/// The program's name, without its directory.
fn name(word: &str) -> Option<&str> {
    word.rsplit('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_known_by_name_and_said_how_to_do_without() {
        for (command, expected) in [
            ("npm start", "the script start in package.json"),
            ("/usr/bin/npm run serve", "the script serve in package.json"),
            ("yarn dev", "the script dev in package.json"),
            ("npx tsx app.ts", "-- node --import tsx app.ts"),
            ("node_modules/.bin/tsx app.ts --x", "-- node --import tsx app.ts --x"),
            ("npx nodemon app.js", "--watch -- node app.js"),
            ("npx some-server --port 1", "-- node node_modules/.bin/some-server --port 1"),
            ("node --watch app.js", "--watch -- node app.js"),
            ("node --watch-path=src app.js", "--watch -- node app.js"),
            ("node --run start", "node --run keeps"),
            ("cross-env A=1 node app.js", "[env]"),
            ("bun server.ts", "Bun's servers"),
            ("deno run -A server.ts", "Deno.serve"),
        ] {
            let words: Vec<_> = command.split(' ').map(str::to_owned).collect();
            let advice = advice(&words).unwrap_or_default();
            assert!(advice.contains(expected), "{command}: {advice}");
        }
        let by_shell = ["sh", "-c", "exec npm start"].map(str::to_owned);
        assert!(advice(&by_shell).unwrap().contains("npm keeps"));
        for other in ["node app.js", "python app.py", "sh app.sh", "./server"] {
            let words: Vec<_> = other.split(' ').map(str::to_owned).collect();
            assert_eq!(advice(&words), None, "{other}");
        }
    }
}
