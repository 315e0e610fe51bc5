"""A reverse proxy of a few lines: it serves another server below a prefix of the path, as nginx and Traefik do."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

SKIPPED = {"connection", "transfer-encoding", "content-length", "content-encoding", "date", "server"}
"""Headers that belong to one connection, or that the proxy's own server writes."""


@contextmanager
def reverse_proxy(target: str, prefix: str, *, strips: bool, says: str | None = None) -> Iterator[str]:
    """The URL of a proxy to ``target``, which answers below ``prefix`` and nowhere else.

    ``strips``: it takes the prefix away. ``says`` is what it sends as X-Forwarded-Prefix. It adds the client's address
    to X-Forwarded-For.
    """
    with httpx.Client(base_url=target, timeout=30, trust_env=False) as upstream:

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                path, _, query = self.path.partition("?")
                if path != prefix and not path.startswith(f"{prefix}/"):
                    self.send_error(404)
                    return
                if strips:
                    path = path.removeprefix(prefix) or "/"
                headers = {name: value for name, value in self.headers.items() if name.lower() not in SKIPPED}
                others = [headers[name] for name in headers if name.lower() == "x-forwarded-for"]
                headers["x-forwarded-for"] = ", ".join([*others, self.client_address[0]])
                if says is not None:
                    headers["x-forwarded-prefix"] = says
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                target_path = path + (f"?{query}" if query else "")
                answer = upstream.request(self.command, target_path, headers=headers, content=body)
                self.send_response(answer.status_code)
                for name, value in answer.headers.multi_items():
                    if name not in SKIPPED:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.content)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _pass_on  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the library's own
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{prefix}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
