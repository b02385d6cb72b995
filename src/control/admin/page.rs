//! The dashboard: one page, which loads everything from this listener, and a chapter of the guide.

use std::sync::LazyLock;

use axum::http::HeaderName;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::IntoResponse;
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");

static POLICY: LazyLock<String> = LazyLock::new(|| policy(PAGE));

/// `GET /`.
pub(super) async fn page() -> impl IntoResponse {
    let headers: [(HeaderName, &str); 3] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, &POLICY),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE)
}

/// `GET /guide/load-tests`: that chapter of the guide, as a text.
pub(super) async fn load_tests() -> impl IntoResponse {
    let chapter = include_str!("../../guide/load-tests.md");
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], chapter)
}

/// The content security policy: the page may run its own scripts, by their digests, and send requests
/// to this listener. Injected scripts do not run, and no other host can be reached.
fn policy(page: &str) -> String {
    let digests = scripts(page).map(|script| {
        format!("'sha256-{}'", BASE64.encode(Sha256::digest(script.as_bytes()).as_slice()))
    });
    let scripts = digests.reduce(|all, digest| format!("{all} {digest}"));
    let scripts = scripts.unwrap_or_else(|| "'none'".to_owned());
    format!(
        "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The text of each `<script …>` element.
fn scripts(page: &str) -> impl Iterator<Item = &str> {
    let elements = page.split("<script").skip(1);
    elements.filter_map(|element| {
        let (_, rest) = element.split_once('>')?;
        Some(rest.split_once("</script>")?.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_the_page_are_found_unchanged() {
        let page = "<script>\n1 < 2\n</script><p><script type=\"module\">x</script></p>";
        assert_eq!(scripts(page).collect::<Vec<_>>(), ["\n1 < 2\n", "x"]);
    }

    #[test]
    fn only_the_pages_scripts_may_run() {
        // printf x | openssl dgst -sha256 -binary | base64
        let digest = "'sha256-LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE='";
        let policy = policy("<script>x</script>");
        assert!(policy.contains(&format!("script-src {digest};")), "{policy}");
        assert!(super::policy("<p>").contains("script-src 'none';"));
    }
}
