//! The state that all handlers share.

use std::sync::Arc;

use crate::control::admin::viewers::{Live, Viewers};
use crate::control::answers::Control;
use crate::control::metrics::Metrics;
use crate::control::settings::ReadyThreshold;

/// The sources of all answers.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    pub(super) control: Control,
    pub(super) live: Arc<Live>,
    pub(super) viewers: Viewers,
    pub(super) metrics: Metrics,
    pub(super) ready: ReadyThreshold,
}
