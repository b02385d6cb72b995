//! Health checks: whether the primary lives, and whether clients should come.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::time::timeout;

use crate::control::admin::routes::Admin;
use crate::supervisor::pool::status::PoolStatus;

/// Whoever takes longer to answer doesn't live.
const ANSWER_TIME: Duration = Duration::from_secs(1);

type Health = (StatusCode, String);

/// `GET /livez`: the accept loop turns, and so does the supervisor.
pub(super) async fn livez(State(admin): State<Admin>) -> Health {
    let links = &admin.control.links;
    let (frontend, pool) = tokio::join!(
        timeout(ANSWER_TIME, links.frontend.facts()),
        timeout(ANSWER_TIME, links.pool.status()),
    );
    match (frontend, pool) {
        (Ok(Ok(_)), Ok(Ok(_))) => healthy(),
        (Ok(Ok(_)), _) => ill("supervisor doesn't answer"),
        _ => ill("accept loop doesn't turn"),
    }
}

/// `GET /readyz`: connections are accepted, half of the slots serve at least, and nothing ends.
pub(super) async fn readyz(State(admin): State<Admin>) -> Health {
    match timeout(ANSWER_TIME, admin.control.snapshots.take()).await {
        Ok(Ok(snapshot)) => readiness(&snapshot.pool, snapshot.frontend.accepting),
        _ => ill("primary doesn't answer"),
    }
}

fn readiness(pool: &PoolStatus, accepting: bool) -> Health {
    if pool.stopping {
        ill("everything is being stopped")
    } else if !accepting {
        ill("connections are not accepted yet")
    } else if u32::from(pool.serving) * 2 < u32::from(pool.of).max(1) {
        ill(&format!("{} of {} slots serve, less than half", pool.serving, pool.of))
    } else {
        healthy()
    }
}

fn healthy() -> Health {
    (StatusCode::OK, "ok\n".to_owned())
}

fn ill(why: &str) -> Health {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}
