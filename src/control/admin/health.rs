//! Health checks: liveness and readiness.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::time::timeout;

use crate::control::admin::state::Admin;
use crate::control::settings::ReadyThreshold;
use crate::frontend::query::FrontendHandle;
use crate::supervisor::pool::handle::PoolHandle;
use crate::supervisor::pool::status::PoolStatus;

/// Time for a part to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

type Health = (StatusCode, String);

/// `GET /livez`: accept loop and supervisor answer.
pub(super) async fn livez(State(admin): State<Admin>) -> Health {
    let links = &admin.control.links;
    liveness(&links.frontend, &links.pool).await
}

/// The frontend answers queries between two turns of its loop.
async fn liveness(frontend: &FrontendHandle, pool: &PoolHandle) -> Health {
    let (frontend, pool) = tokio::join!(
        timeout(ANSWER_TIMEOUT, frontend.facts()),
        timeout(ANSWER_TIMEOUT, pool.status())
    );
    match (frontend, pool) {
        (Ok(Ok(_)), Ok(Ok(_))) => healthy(),
        (Ok(Ok(_)), _) => unhealthy("supervisor does not answer"),
        _ => unhealthy("accept loop does not answer"),
    }
}

/// `GET /readyz`: connections are accepted, enough slots serve, and the primary is not stopping.
pub(super) async fn readyz(State(admin): State<Admin>) -> Health {
    match timeout(ANSWER_TIMEOUT, admin.control.snapshots.take()).await {
        Ok(Ok(snapshot)) => readiness(&snapshot.pool, snapshot.frontend.accepting, admin.ready),
        _ => unhealthy("primary does not answer"),
    }
}

fn readiness(pool: &PoolStatus, accepting: bool, ready: ReadyThreshold) -> Health {
    if pool.stopping {
        unhealthy("the primary is stopping")
    } else if !accepting {
        unhealthy("connections are not accepted yet")
    } else if pool.serving < ready.of(pool.of) {
        let wanted = ready.of(pool.of);
        let slots = if pool.of == 1 { "slot serves" } else { "slots serve" };
        unhealthy(&format!("{} of {} {slots}, fewer than {wanted}", pool.serving, pool.of))
    } else {
        healthy()
    }
}

fn healthy() -> Health {
    (StatusCode::OK, "ok\n".to_owned())
}

fn unhealthy(why: &str) -> Health {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::query::{FrontendFacts, Queries, Query, queries};
    use crate::supervisor::pool::Order;

    fn answer(queries: &mut Queries) {
        while let Some(query) = queries.next_query() {
            if let Query::Facts(reply) = query {
                // Fails for a query that has timed out.
                let _ = reply.send(FrontendFacts::default());
            }
        }
    }

    #[tokio::test]
    async fn a_part_that_does_not_answer_is_named() {
        let (frontend, mut asked) = queries().unwrap();
        let (pool, mut ordered) = PoolHandle::new();
        let (status, why) = liveness(&frontend, &pool).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(why, "accept loop does not answer\n");

        let frontend_turns = async {
            loop {
                answer(&mut asked);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            (_, why) = liveness(&frontend, &pool) => assert_eq!(why, "supervisor does not answer\n"),
            () = frontend_turns => {}
        }

        let both_turn = async {
            loop {
                answer(&mut asked);
                if let Ok(Order::Status(reply)) = ordered.try_recv() {
                    let _ = reply.send(Ok(PoolStatus::default()));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            (status, _) = liveness(&frontend, &pool) => assert_eq!(status, StatusCode::OK),
            () = both_turn => {}
        }
    }

    #[test]
    fn a_primary_that_accepts_and_has_enough_slots_is_ready() {
        let pool =
            |serving, stopping| PoolStatus { serving, of: 4, stopping, ..PoolStatus::default() };
        let half = ReadyThreshold::Percent(50.0);
        let answer = |pool: PoolStatus, accepting| readiness(&pool, accepting, half).1;
        assert_eq!(answer(pool(2, false), true), "ok\n");
        assert_eq!(answer(pool(1, false), true), "1 of 4 slots serve, fewer than 2\n");
        assert_eq!(answer(pool(4, false), false), "connections are not accepted yet\n");
        assert_eq!(answer(pool(4, true), true), "the primary is stopping\n");
    }
}
