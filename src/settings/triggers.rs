//! Automatic rolling restarts: changed files, times of day.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::settings::before::Before;
use crate::settings::problems::Problems;
use crate::settings::units::duration;
use crate::triggers::cron::Schedule;
use crate::triggers::watch::{IGNORED_BY_DEFAULT, WatchSettings, check_patterns};

/// Automatic rolling restarts.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Automatic rolling restarts")]
pub struct Triggers {
    /// Do a rolling restart when a file changes in these paths, by default in the workers' directory.
    #[arg(long, value_name = "PATHS", num_args = 0..)]
    #[arg(default_missing_value = "true", default_value = "false")]
    pub watch: Vec<PathBuf>,
    /// Ignore changes of files with these names or patterns; `.*` is all dot files.
    #[arg(long, value_name = "PATTERNS", num_args = 0..)]
    #[arg(default_values = IGNORED_BY_DEFAULT)]
    pub ignore_watch: Vec<String>,
    /// Wait until nothing has changed for this long.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration)]
    pub watch_delay: Duration,
    /// Do rolling restarts at these times, in local time: "0 3 * * *" is every night at three
    /// [default: never].
    #[arg(long, value_name = "CRON", value_parser = schedule)]
    pub cron_restart: Option<Schedule>,
}

impl Triggers {
    /// `directory` is that of workers, by its logical name: a symlink that is switched is a change.
    pub(super) fn watch(
        &self,
        directory: &Path,
        before: Option<&Before>,
        problems: &mut Problems,
    ) -> Option<WatchSettings> {
        let paths = match &self.watch[..] {
            [] => return None,
            [path] if path.as_os_str() == "false" => return None,
            [path] if path.as_os_str() == "true" => vec![directory.to_owned()],
            paths => paths.to_owned(),
        };
        // A successor watches what is left.
        let mut is_there = |path: &PathBuf| {
            let Err(error) = path.metadata() else { return true };
            let text = format!("cannot watch {}: {error}", path.display());
            problems.or_before("watch", text, before.map(|_| ()));
            false
        };
        let paths: Vec<_> = paths.into_iter().filter(|path| is_there(path)).collect();
        if paths.is_empty() {
            return None;
        }
        if let Err(error) = check_patterns(&self.ignore_watch) {
            problems.note("ignore_watch", error.to_string());
        }
        let (ignore, delay) = (self.ignore_watch.clone(), self.watch_delay);
        Some(WatchSettings { paths, ignore, own: Vec::new(), delay })
    }
}

fn schedule(text: &str) -> Result<Schedule, String> {
    Schedule::parse(text).map_err(|error| error.to_string())
}
