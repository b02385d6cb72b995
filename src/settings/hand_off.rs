//! Queues and timeouts of the hand-off to workers.

use std::time::Duration;

use clap::Args;

use crate::frontend::slot_table::{AckTimeout, SlotSettings};
use crate::settings::units::{duration, within};

/// How long workers may take to acknowledge.
const ACK_TIMEOUT: AckTimeout =
    AckTimeout { native: Duration::from_millis(250), node: Duration::from_secs(2) };

/// Queues and timeouts of the hand-off.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Hand-off")]
pub struct HandOff {
    /// Keep new clients of a crashed worker waiting this long for its successor.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub slot_wait: Duration,
    /// Treat a worker as stalled if it acknowledges nothing for this long; its new clients go to other
    /// slots [default: 250ms, for Node workers 2s: they acknowledge between two computations].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub ack_timeout: Option<Duration>,
    /// Send a worker at most this many connections that it has not acknowledged.
    #[arg(long, value_name = "N", default_value = "64", value_parser = within(1..=256_u16))]
    pub credits: u16,
    /// Queue at most this many connections per slot.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = within(1..=u16::MAX))]
    pub slot_queue: u16,
}

impl HandOff {
    pub(super) fn slots(&self) -> SlotSettings {
        SlotSettings {
            ack_timeout: self.ack_timeout.map_or(ACK_TIMEOUT, AckTimeout::same),
            slot_wait: self.slot_wait,
            queue: usize::from(self.slot_queue),
        }
    }
}
