//! Configured triggers of a rolling restart: files that change, the time of day.

use std::path::PathBuf;

use tokio::time::Instant;

use crate::config::Config;
use crate::control::socket::temporary_path;
use crate::control::token_file::TokenFile;
use crate::supervisor::rollout::Trigger;
use crate::triggers::cron::{Alarm, Schedule};
use crate::triggers::watch::pace::Pace;
use crate::triggers::watch::{WatchError, WatchSettings, Watcher};

/// Waits for files and for the time.
#[derive(Debug)]
pub(super) struct Triggers {
    watch: Option<WatchSettings>,
    watcher: Option<Watcher>,
    pace: Pace,
    /// A change whose rolling restart waits until then.
    waiting: Option<(PathBuf, Instant)>,
    schedule: Option<Schedule>,
    alarm: Option<Alarm>,
}

impl Triggers {
    pub(super) fn start(config: &Config) -> Result<Self, WatchError> {
        let watch = watched(config);
        let watcher = watch.clone().map(Watcher::start).transpose()?;
        let schedule = config.triggers.cron_restart.clone();
        let alarm = schedule.clone().map(Alarm::new);
        Ok(Self { watch, watcher, pace: Pace::default(), waiting: None, schedule, alarm })
    }

    /// Applies a new configuration; triggers that have not changed go on.
    pub(super) fn change(&mut self, config: &Config) -> Result<(), WatchError> {
        if self.watch != watched(config) || self.schedule != config.triggers.cron_restart {
            *self = Self::start(config)?;
        }
        Ok(())
    }

    /// The next one. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Trigger {
        let Self { watcher, pace, waiting, alarm, .. } = self;
        tokio::select! {
            path = changed(watcher.as_mut(), pace, waiting) => Trigger::Watch(path),
            () = due(alarm.as_mut()) => Trigger::Cron,
        }
    }

    /// A rolling restart has ended, or could not begin.
    pub(super) fn rolled_out(&mut self) {
        self.pace.ended(Instant::now());
    }
}

/// What the primary writes in a watched folder would restart workers again and again.
fn watched(config: &Config) -> Option<WatchSettings> {
    let mut watch = config.triggers.watch.clone()?;
    let output = &config.output;
    let logs = [&output.out_file, &output.error_file, &output.log_file];
    watch.own.extend(logs.into_iter().flatten().cloned());
    if let Some(socket) = &config.control.path {
        watch.own.extend([socket.clone(), temporary_path(socket), TokenFile::beside(socket)]);
    }
    Some(watch)
}

/// A change, when it is time for its rolling restart.
async fn changed(
    watcher: Option<&mut Watcher>,
    pace: &mut Pace,
    waiting: &mut Option<(PathBuf, Instant)>,
) -> PathBuf {
    let Some(watcher) = watcher else { return std::future::pending().await };
    if waiting.is_none() {
        let path = watcher.changed().await;
        let (now, mut until) = (Instant::now(), None);
        if let Some(wait) = pace.wait(now) {
            tracing::warn!(
                path = %path.display(), ?wait,
                "watched files change with each rolling restart: the next one waits; \
                 if workers write there, name it in ignore_watch"
            );
            until = Some(now + wait);
        }
        *waiting = Some((path, until.unwrap_or(now)));
    }
    let until = waiting.as_ref().map_or_else(Instant::now, |(_, until)| *until);
    if until > Instant::now() {
        tokio::time::sleep_until(until).await;
        watcher.skip();
    }
    pace.restarted();
    waiting.take().map(|(path, _)| path).unwrap_or_default()
}

async fn due(alarm: Option<&mut Alarm>) {
    match alarm {
        Some(alarm) => alarm.due().await,
        None => std::future::pending().await,
    }
}
