//! The end of everything, step by step.

use crate::link::seam::FrontendGone;
use crate::protocol::ids::Timestamp;
use crate::supervisor::event::Event;
use crate::supervisor::lifecycle::Fact;
use crate::supervisor::pool::error::PoolError;
use crate::supervisor::pool::fleet::Fleet;
use crate::supervisor::pool::run_state::RunState;

/// Begins the graceful end.
pub(super) fn stop(fleet: &mut Fleet) {
    if fleet.state.is_stopping() {
        return;
    }
    fleet.announcer.announce(Event::Stopping { at_once: false });
    fleet.cancel_all_replacements();
    fleet.workers.note_all_stopping();
    fleet.state = RunState::LameDuck(Timestamp::now() + fleet.settings.lameduck);
}

/// Ends everything at once.
pub(super) async fn stop_now(fleet: &mut Fleet) -> Result<(), PoolError> {
    fleet.announcer.announce(Event::Stopping { at_once: true });
    fleet.cancel_all_replacements();
    fleet.state = RunState::Draining;
    fleet.history.summary.at_once = true;
    fleet.on_all(Fact::StopNow).await
}

/// Goes one step further. The backlog is handed out before workers are told to drain.
pub(super) async fn continue_stopping(
    fleet: &mut Fleet,
    step: Result<(), FrontendGone>,
) -> Result<(), PoolError> {
    step?;
    if matches!(fleet.state, RunState::LameDuck(_)) {
        fleet.state = RunState::closing(&fleet.frontend);
        return Ok(());
    }
    fleet.state = RunState::Draining;
    fleet.on_all(Fact::Stop).await
}
