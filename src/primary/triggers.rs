//! Configured triggers of a rolling restart: files that change, the time of day.

use std::path::PathBuf;

use crate::config::Config;
use crate::supervisor::rollout::Trigger;
use crate::triggers::cron::{Alarm, Schedule};
use crate::triggers::watch::{WatchError, WatchSettings, Watcher};

/// Waits for files and for the time.
#[derive(Debug)]
pub(super) struct Triggers {
    watch: Option<WatchSettings>,
    watcher: Option<Watcher>,
    schedule: Option<Schedule>,
    alarm: Option<Alarm>,
}

impl Triggers {
    pub(super) fn start(config: &Config) -> Result<Self, WatchError> {
        let watch = watched(config);
        let watcher = watch.clone().map(Watcher::start).transpose()?;
        let schedule = config.triggers.cron_restart.clone();
        let alarm = schedule.clone().map(Alarm::new);
        Ok(Self { watch, watcher, schedule, alarm })
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
        tokio::select! {
            path = changed(self.watcher.as_mut()) => Trigger::Watch(path),
            () = due(self.alarm.as_mut()) => Trigger::Cron,
        }
    }
}

/// Workers' output in a watched folder would restart them again and again.
fn watched(config: &Config) -> Option<WatchSettings> {
    let mut watch = config.triggers.watch.clone()?;
    let output = &config.output;
    for file in [&output.out_file, &output.error_file, &output.log_file].into_iter().flatten() {
        // Rotated ones and those of single slots have something added to the name.
        let (folder, stem) = (file.parent(), file.file_stem().unwrap_or_default());
        let family = folder.map(|folder| folder.join(stem)).unwrap_or_default();
        watch.ignore.push(format!("{}*", family.display()));
    }
    Some(watch)
}

async fn changed(watcher: Option<&mut Watcher>) -> PathBuf {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

async fn due(alarm: Option<&mut Alarm>) {
    match alarm {
        Some(alarm) => alarm.due().await,
        None => std::future::pending().await,
    }
}
