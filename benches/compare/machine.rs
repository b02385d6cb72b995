//! How busy other programs keep the machine during a run: what to doubt the
//! figures by.

use std::fs;

use crate::{Result, procfs};

/// CPU time up to one moment, all in the kernel's ticks.
pub(crate) struct Machine {
    busy: u64,
    total: u64,
    /// What the run itself used of it.
    own: u64,
}

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        // user nice system idle iowait irq softirq steal
        let ticks = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .take(8)
            .map(str::parse)
            .collect::<std::result::Result<Vec<u64>, _>>()?;
        let total: u64 = ticks.iter().sum();
        let this = std::process::id();
        let descendants = procfs::descendants(this);
        Ok(Self {
            busy: total - ticks.iter().skip(3).take(2).sum::<u64>(),
            total,
            own: descendants.into_iter().chain([this]).filter_map(procfs::cpu_ticks).sum(),
        })
    }

    /// The share of the whole machine that others used since then, other
    /// machines on the same host included. Too high where the kernel keeps
    /// interrupts apart from the processes that it charges for the rest; holds
    /// only while no process of the run has ended meanwhile.
    pub(crate) fn used_by_others(&self) -> Result<f64> {
        let now = Self::look()?;
        let busy = now.busy.saturating_sub(self.busy);
        let own = now.own.saturating_sub(self.own);
        let total = now.total.saturating_sub(self.total).max(1);
        Ok(busy.saturating_sub(own) as f64 / total as f64)
    }
}
