//! Errors as JSON responses.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::control::protocol::{Code, Problem};

/// An error with its HTTP status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) status: StatusCode,
    pub(super) problem: Problem,
}

impl Rejection {
    pub(super) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, problem: Problem::new(code, message) }
    }

    /// A request that is not valid.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Problem::new(Code::BadRequest, message).into()
    }
}

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        let status = match problem.code {
            Code::Version | Code::BadRequest => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Refused => StatusCode::CONFLICT,
            Code::Failed | Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
            Code::Forbidden => StatusCode::FORBIDDEN,
            Code::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, problem }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.problem }))).into_response()
    }
}
