"""A proxy in front of a server that fails as a test wants."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator

import httpx

#: What a failure answers: a status, headers and a body; None lets the request through.
Failure = Callable[[http.server.BaseHTTPRequestHandler, bytes], tuple[int, dict[str, str], bytes] | None]


class Proxy:
    """Answers at ``url``. ``failure`` decides about each request of the API; others go through."""

    def __init__(self, target: str) -> None:
        self.failure: Failure = lambda request, body: None
        self.bodies: list[bytes] = []
        """The bodies of the requests for texts, refused ones too."""
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                proxy.bodies.append(body)
                self._answer(body)

            def _answer(self, body: bytes) -> None:
                refusal = proxy.failure(self, body) if self.path.startswith("/v1/") else None
                if refusal is not None:
                    self._send(*refusal)
                    return
                headers = {"Content-Type": "application/json"} if body else {}
                answer = httpx.request(self.command, target + self.path, content=body, headers=headers, timeout=60)
                self._send(answer.status_code, {"Content-Type": answer.headers["content-type"]}, answer.content)

            def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, setting in headers.items():
                    self.send_header(name, setting)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the page has given up
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextlib.contextmanager
def running_proxy(target: str) -> Iterator[Proxy]:
    """Start a proxy in a thread, and end it."""
    proxy = Proxy(target)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        thread.join()
        proxy.server.server_close()
