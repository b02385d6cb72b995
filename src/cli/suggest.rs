//! A word that is no command: the command that was probably meant, or where a worker's command goes.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli::flags;

/// How similar a word must be to a command's name to be taken for it.
const SIMILARITY: f64 = 0.6;

/// A text for an error about a word that clap didn't expect, if it isn't a flag.
pub(super) fn suggest(error: &clap::Error, words: &[OsString]) -> Option<String> {
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(word))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    // Behind a command, the word is an argument of that.
    let first = words.get(1)?.to_string_lossy();
    if word.starts_with('-') || flags::command().find_subcommand(&*first).is_some() {
        return None;
    }
    let at = words.iter().position(|it| it.to_string_lossy() == *word).filter(|at| *at > 0)?;
    if let Some(command) =
        flags::command().find_subcommand(word).filter(|it| !flags::is_internal(it))
    {
        let rest = std::iter::once(command.get_name().to_owned()).chain(texts(&words[at + 1..]));
        return Some(format!(
            "flags before {word:?} are those of a primary that starts: did you mean `sticky-lb {}`?",
            joined(rest)
        ));
    }
    if word == "start" && at == 1 {
        return Some(
            "sticky-lb starts in the foreground, without a word for it: `sticky-lb -- COMMAND` for a worker's \
             command, `sticky-lb init --from-pm2 FILE` for a file of PM2"
                .to_owned(),
        );
    }
    let command = nearest(word).filter(|_| at == 1);
    Some(match command {
        Some(command) => {
            let rest = std::iter::once(command).chain(texts(&words[2..]));
            format!("no command {word:?}: did you mean `sticky-lb {}`?", joined(rest))
        }
        None => {
            let dashes = std::iter::once("--".to_owned());
            let all = texts(&words[1..at]).chain(dashes).chain(texts(&words[at..]));
            format!(
                "no command {word:?}: to run it as worker, put the command after --: sticky-lb {}",
                joined(all)
            )
        }
    })
}

/// The command with the most similar name.
fn nearest(word: &str) -> Option<String> {
    let commands = flags::command();
    let names = commands.get_subcommands().filter(|it| !flags::is_internal(it));
    let names = names.flat_map(|it| it.get_all_aliases().chain([it.get_name()]));
    let similarity =
        |name: &str| strsim::normalized_damerau_levenshtein(&word.to_ascii_lowercase(), name);
    let similar = names.map(|name| (similarity(name), name)).filter(|(it, _)| *it >= SIMILARITY);
    let nearest = similar.max_by(|(one, _), (other, _)| one.total_cmp(other));
    nearest.map(|(_, name)| name.to_owned())
}

fn texts(words: &[OsString]) -> impl Iterator<Item = String> {
    words.iter().map(|word| word.to_string_lossy().into_owned())
}

/// As a shell takes them.
fn joined(words: impl Iterator<Item = String>) -> String {
    let words: Vec<_> = words.collect();
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_command_is_explained() {
        for (line, expected) in [
            ("start app.js", Some("init --from-pm2 FILE")),
            ("statsu", Some("did you mean `sticky-lb status`?")),
            ("Worker --json", Some("did you mean `sticky-lb workers --json`?")),
            ("node server.js", Some("after --: sticky-lb -- node server.js")),
            ("--workers 2 node --x", Some("after --: sticky-lb --workers 2 -- node --x")),
            ("--workers=4 status --json", Some("did you mean `sticky-lb status --json`?")),
            ("-p 80 ./app", Some("after --: sticky-lb -p 80 -- ./app")),
            ("--no-such-flag", None),
            ("status extra", None),
            ("--workers none", None),
        ] {
            let words: Vec<_> =
                ["sticky-lb"].into_iter().chain(line.split(' ')).map(OsString::from).collect();
            let error = flags::command().try_get_matches_from(&words).unwrap_err();
            let text = suggest(&error, &words);
            match (expected, &text) {
                (Some(expected), Some(text)) => assert!(text.contains(expected), "{text}"),
                (expected, text) => {
                    assert_eq!(expected.is_some(), text.is_some(), "{line}: {text:?}")
                }
            }
        }
    }
}
