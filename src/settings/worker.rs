//! The worker's command, directory, environment and user.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::kernel::may_drop_capabilities;
use crate::settings::before::Before;
use crate::settings::problems::Problems;
use crate::settings::units::{mask, within};
use crate::settings::user;
use crate::supervisor::command::{InheritedVariables, OWN_PROGRAM, User, WorkerCommand};

/// The worker's process.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Worker")]
pub struct Worker {
    /// Run this program with these arguments as each worker [default: a demo].
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
    /// Append these arguments, split into words as a shell does.
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    pub args: Vec<OsString>,
    /// Run workers in this directory [default: the current one].
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Hide the primary's environment from workers: `true` hides everything but basics such as PATH
    /// and HOME; prefixes hide the variables whose names start with one of them.
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',', num_args = 0..=1)]
    #[arg(default_missing_value = "true", default_value = "false")]
    pub filter_env: Vec<String>,
    /// Run workers as this user, by name or number [default: the primary's].
    #[arg(long)]
    pub user: Option<String>,
    /// Run workers as this group, by name or number [default: the user's].
    #[arg(long)]
    pub group: Option<String>,
    /// Set workers' file mode creation mask, in octal [default: the primary's].
    #[arg(long, value_name = "MASK", value_parser = mask)]
    pub umask: Option<u32>,
    /// Set workers' niceness, -20 to 19 [default: the primary's].
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = within(-20..=19_i32))]
    pub nice: Option<i32>,
    /// Let no program that a worker runs gain rights: setuid programs such as ping and sudo run as the
    /// worker's user, and file capabilities give nothing [default: true if user or group is set].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set)]
    pub no_new_privs: Option<bool>,
    /// Empty workers' capability bounding set, so that nothing that they run has a capability
    /// [default: true if user is set, is not root, and the primary may].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set)]
    pub drop_capabilities: Option<bool>,
}

impl Worker {
    /// `here` is the directory in which the program was started, by its logical name.
    pub(super) fn command(
        &self,
        here: &Path,
        environment: Vec<(OsString, OsString)>,
        before: Option<&Before>,
        problems: &mut Problems,
    ) -> WorkerCommand {
        let own = self.command.clone();
        let words = if own.is_empty() { demo_command() } else { own };
        let mut words = words.into_iter().chain(self.args.iter().cloned());
        let user = self.user(before, problems);
        let is_other = user.as_ref().is_some_and(|user| user.uid != 0);
        let may_drop = || is_other && may_drop_capabilities();
        if self.drop_capabilities == Some(true) && !may_drop_capabilities() {
            let text = "needs CAP_SETPCAP: run as root, or leave it out";
            problems.note("drop_capabilities", text.to_owned());
        }
        WorkerCommand {
            program: words.next().unwrap_or_default(),
            arguments: words.collect(),
            directory: directory(self.cwd.as_deref().unwrap_or(here), before, problems),
            environment,
            inherited: self.inherited(),
            no_new_privs: self.no_new_privs.unwrap_or_else(|| user.is_some()),
            drop_capabilities: self.drop_capabilities.unwrap_or_else(may_drop),
            user,
            umask: self.umask,
            nice: self.nice,
        }
    }

    fn inherited(&self) -> InheritedVariables {
        match self.filter_env.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] | ["false"] => InheritedVariables::All,
            ["true"] => InheritedVariables::Few,
            _ => InheritedVariables::Without(self.filter_env.clone()),
        }
    }

    fn user(&self, before: Option<&Before>, problems: &mut Problems) -> Option<User> {
        let before = before.and_then(|before| before.user.clone());
        user::find(self.user.as_deref(), self.group.as_deref())
            .unwrap_or_else(|(key, text)| problems.or_before(key, text, before))
    }
}

/// The directory's physical name: workers started before a symlink is switched keep their release,
/// and those started later run in the new one.
fn directory(path: &Path, before: Option<&Before>, problems: &mut Problems) -> Option<PathBuf> {
    let text = match path.canonicalize() {
        Ok(found) if found.is_dir() => return Some(found),
        Ok(_) => format!("{} is no directory", path.display()),
        Err(error) => format!("cannot open directory {}: {error}", path.display()),
    };
    problems.or_before("cwd", text, before.and_then(|before| before.directory.clone()))
}

/// This program itself, even after its file has been replaced.
fn demo_command() -> Vec<OsString> {
    vec![OWN_PROGRAM.into(), "demo-worker".into()]
}
