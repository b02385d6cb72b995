//! The number of workers as a function of their load.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::settings::general::MAX_WORKERS;
use crate::settings::problems::Problems;
use crate::settings::units::{above_zero, duration, interval, not_negative, within};
use crate::supervisor::autoscale::{AutoscaleSettings, LoadMeasure};

/// When workers are added and removed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Scaling by load")]
pub struct Scaling {
    /// Keep at least this many workers [default: 1].
    #[arg(long, value_name = "N", value_parser = within(1..=MAX_WORKERS))]
    pub min_workers: Option<u16>,
    /// Keep at most this many workers. Turns scaling on; `workers`, by default `min_workers`, is then
    /// the number at the start [default: no scaling].
    #[arg(long, value_name = "N", value_parser = within(1..=MAX_WORKERS))]
    pub max_workers: Option<u16>,
    /// Measure a worker's load by this.
    #[arg(long, value_enum, default_value = "connections")]
    pub scale_load: LoadArg,
    /// Add a worker while the average load is above this [default: 100; for cpu, 80].
    #[arg(long, value_name = "LOAD", value_parser = above_zero)]
    pub scale_up_load: Option<f64>,
    /// Remove a worker when the average load has been below this for `scale_down_after`.
    #[arg(long, value_name = "LOAD", default_value = "20", value_parser = not_negative)]
    pub scale_down_load: f64,
    /// Measure loads this often.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval)]
    pub scale_interval: Duration,
    /// Remove a worker only after the load has been low for this long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub scale_down_after: Duration,
}

/// Measure of a worker's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadArg {
    /// Established connections.
    Connections,
    /// Requests in flight.
    Requests,
    /// CPU time, in percent of one CPU.
    Cpu,
    /// Lag of its event loop, in milliseconds.
    Lag,
}

impl Scaling {
    /// The number of workers at the start, and the rules that change it. `workers`: whether a number
    /// was set, and the number.
    pub(super) fn autoscale(
        &self,
        workers: (bool, u16),
        problems: &mut Problems,
    ) -> (u16, Option<AutoscaleSettings>) {
        let (given, workers) = workers;
        let Some(max_workers) = self.max_workers else {
            if self.min_workers.is_some() {
                problems.note("min_workers", "does nothing without max_workers: set both".into());
            }
            return (workers, None);
        };
        let min_workers = self.min_workers.unwrap_or(1);
        let start = if given { workers } else { min_workers };
        self.check(min_workers, max_workers, start, problems);
        let settings = AutoscaleSettings {
            min_workers,
            max_workers,
            measure: self.scale_load.into(),
            scale_up_load: self.up_load(),
            scale_down_load: self.scale_down_load,
            interval: self.scale_interval,
            scale_down_after: self.scale_down_after,
        };
        (start, Some(settings))
    }

    fn check(&self, min: u16, max: u16, start: u16, problems: &mut Problems) {
        if min > max {
            let text = format!("{min} is more than max_workers, {max}");
            return problems.note("min_workers", text);
        }
        if !(min..=max).contains(&start) {
            let text = format!("{start} is not from min_workers, {min}, to max_workers, {max}");
            problems.note("workers", text);
        }
        if self.scale_down_load >= self.up_load() {
            let (down, up) = (self.scale_down_load, self.up_load());
            let text =
                format!("{down} is not below scale_up_load, {up}: workers would come and go");
            problems.note("scale_down_load", text);
        }
    }

    fn up_load(&self) -> f64 {
        let usual = if self.scale_load == LoadArg::Cpu { 80.0 } else { 100.0 };
        self.scale_up_load.unwrap_or(usual)
    }
}

impl From<LoadArg> for LoadMeasure {
    fn from(arg: LoadArg) -> Self {
        match arg {
            LoadArg::Connections => Self::Connections,
            LoadArg::Requests => Self::Requests,
            LoadArg::Cpu => Self::Cpu,
            LoadArg::Lag => Self::Lag,
        }
    }
}
