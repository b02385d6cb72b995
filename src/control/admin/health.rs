//! Health checks: whether the primary lives, and whether clients should come.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::time::timeout;

use crate::control::admin::routes::Admin;
use crate::control::settings::Enough;
use crate::frontend::query::FrontendHandle;
use crate::supervisor::pool::handle::PoolHandle;
use crate::supervisor::pool::status::PoolStatus;

/// Whoever takes longer to answer doesn't live.
const ANSWER_TIME: Duration = Duration::from_secs(1);

type Health = (StatusCode, String);

/// `GET /livez`: the accept loop turns, and so does the supervisor.
pub(super) async fn livez(State(admin): State<Admin>) -> Health {
    let links = &admin.control.links;
    liveness(&links.frontend, &links.pool).await
}

/// The frontend answers between two turns of its loop.
async fn liveness(frontend: &FrontendHandle, pool: &PoolHandle) -> Health {
    let (frontend, pool) =
        tokio::join!(timeout(ANSWER_TIME, frontend.facts()), timeout(ANSWER_TIME, pool.status()));
    match (frontend, pool) {
        (Ok(Ok(_)), Ok(Ok(_))) => healthy(),
        (Ok(Ok(_)), _) => ill("supervisor doesn't answer"),
        _ => ill("accept loop doesn't turn"),
    }
}

/// `GET /readyz`: connections are accepted, enough slots serve, and nothing ends.
pub(super) async fn readyz(State(admin): State<Admin>) -> Health {
    match timeout(ANSWER_TIME, admin.control.snapshots.take()).await {
        Ok(Ok(snapshot)) => readiness(&snapshot.pool, snapshot.frontend.accepting, admin.ready),
        _ => ill("primary doesn't answer"),
    }
}

fn readiness(pool: &PoolStatus, accepting: bool, ready: Enough) -> Health {
    if pool.stopping {
        ill("everything is being stopped")
    } else if !accepting {
        ill("connections are not accepted yet")
    } else if pool.serving < ready.of(pool.of) {
        let enough = ready.of(pool.of);
        ill(&format!("{} of {} slots serve, fewer than {enough}", pool.serving, pool.of))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::query::{FrontendFacts, Queries, Query, queries};
    use crate::supervisor::pool::Order;

    fn answer(queries: &mut Queries) {
        while let Some(query) = queries.next_query() {
            if let Query::Facts(reply) = query {
                // Whoever has asked first doesn't wait any more.
                let _ = reply.send(FrontendFacts::default());
            }
        }
    }

    #[tokio::test]
    async fn whoever_stands_still_is_named() {
        let (frontend, mut asked) = queries().unwrap();
        let (pool, mut ordered) = PoolHandle::new();
        let (status, why) = liveness(&frontend, &pool).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(why, "accept loop doesn't turn\n");

        let frontend_turns = async {
            loop {
                answer(&mut asked);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            (_, why) = liveness(&frontend, &pool) => assert_eq!(why, "supervisor doesn't answer\n"),
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
    fn ready_is_who_accepts_and_has_enough_slots() {
        let pool =
            |serving, stopping| PoolStatus { serving, of: 4, stopping, ..PoolStatus::default() };
        let half = Enough::Percent(50.0);
        let said = |pool: PoolStatus, accepting| readiness(&pool, accepting, half).1;
        assert_eq!(said(pool(2, false), true), "ok\n");
        assert_eq!(said(pool(1, false), true), "1 of 4 slots serve, fewer than 2\n");
        assert_eq!(said(pool(4, false), false), "connections are not accepted yet\n");
        assert_eq!(said(pool(4, true), true), "everything is being stopped\n");
    }
}
