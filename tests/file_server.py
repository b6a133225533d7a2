"""A server on the loopback address, for what would be downloaded."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class FileServer:
    """What is served and what was asked for.

    Attributes:
        address: `http://127.0.0.1:PORT`.
        files: path -> bytes; everything else is 404.
        headers: path -> headers that are sent in addition or in place.
        requests: the paths asked for with GET, in order.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[FileServer]:
    served = FileServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._head()

        def do_GET(self) -> None:
            served.requests.append(self.path)
            self.wfile.write(self._head())

        def _head(self) -> bytes:
            content = served.files.get(self.path)
            self.send_response(404 if content is None else 200)
            headers = {"Content-Length": str(len(content or b"")), **served.headers.get(self.path, {})}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            return content or b""

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
