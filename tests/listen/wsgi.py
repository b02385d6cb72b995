"""The plainest WSGI application."""

from about import about


def app(environ, start_response):
    body = about(environ["REMOTE_ADDR"])
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
