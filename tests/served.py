"""A service as a user starts it, or in a thread of this process, and requests to it over the loopback."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from repvgg_mm.inference.exported import ExportedPredictor
from repvgg_mm.serve.app import make_app
from repvgg_mm.serve.body import Limits
from repvgg_mm.serve.server import address, listen

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Answer:
    """An answer; ``plain`` is its JSON."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def plain(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A running service."""

    url: str

    def ask(self, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str) -> Answer:
        """Send a request: POST where there is a body."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, named)
        try:
            with urllib.request.urlopen(request, timeout=60) as got:
                return Answer(got.status, _lower(got.headers), got.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, _lower(error.headers), error.read())

    def begin(self, length: int) -> socket.socket:
        """Begin a request to /predict whose body does not come yet."""
        host, port = self.url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)), timeout=60)
        connection.sendall(f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n".encode())
        return connection


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@contextmanager
def in_a_thread(file: Path, limits: Limits | None = None) -> Iterator[Served]:
    """Serve from this process, which takes less time to start."""
    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(make_app(ExportedPredictor(str(file)), limits), log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Served(address(listening))
    finally:
        server.should_exit = True
        thread.join(60)


@contextmanager
def in_a_process(file: Path, *options: object, first_on_path: str = "") -> Iterator[tuple[Served, subprocess.Popen]]:
    """Start ``tools/serve.py`` on a free port, unable to write a byte to any file; end it with SIGTERM."""
    path = os.pathsep.join([first_on_path, str(ROOT), os.environ.get("PYTHONPATH", "")])
    limit = "import os, resource as r, sys; r.setrlimit(r.RLIMIT_FSIZE, (0, 0)); os.execv(sys.argv[1], sys.argv[1:])"
    serve = [sys.executable, "-B", "tools/serve.py", str(file), "--port", "0", *map(str, options)]
    process = subprocess.Popen(
        [sys.executable, "-c", limit, *serve],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"serving (\S+) \((\w+)\) at (http://127\.0\.0\.1:\d+)\n", line)
        assert found, line + process.stdout.read()
        yield Served(found[3]), process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[0]
    assert (process.returncode, rest) == (0, ""), rest


def form(content: bytes) -> tuple[bytes, str]:
    """Wrap a file as a browser's form does; return the body and its content type."""
    head = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return head + content + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge"


def wait_for(is_so: Any, seconds: float = 20) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)
