//! Waiting for a time that may not be set.

use crate::protocol::ids::Timestamp;

/// Waits until `deadline`; forever if there is none.
pub(super) async fn sleep_until(deadline: Option<Timestamp>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(Timestamp::now())).await,
        None => std::future::pending().await,
    }
}
