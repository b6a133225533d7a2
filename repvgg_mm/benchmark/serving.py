"""A service under load: `repvgg-mm serve` in a process of its own, asked by several clients over the loopback."""

import http.client
import itertools
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .pipeline import write_photos
from .results import Result, Spread

_ROUNDS = 10  # rate and memory are taken in each
_PHOTOS = 10
_MEMORY = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)


def serving(file: str, requests: int = 2000, clients: int = 8) -> list[Result]:
    """Ask a service for JSON, with made-up photos of 500 x 375 pixels as JPEG files.

    Args:
        file: complete exported file.
        requests: how many in all.
        clients: how many ask at a time, each over one connection.

    Returns:
        Rate, time of a request as a client sees it, answers other than 200, and memory; the ratio of the latter is
        that of the last round to the second: the first still fills caches.

    Raises:
        ValueError: if the service does not start; its own line says why.
    """
    with TemporaryDirectory() as folder, _service(file) as place:
        write_photos(Path(folder), _PHOTOS)
        photos = [path.read_bytes() for path in sorted(Path(folder).rglob("*.jpg"))]
        load = _Load(place, photos)
        rates, memory = [], []
        with ThreadPoolExecutor(clients) as pool:
            for _ in range(_ROUNDS):
                start = time.perf_counter()
                list(pool.map(load.ask, range(requests // _ROUNDS)))
                rates.append(requests // _ROUNDS / (time.perf_counter() - start))
                memory.append(_resident(place) / 2**20)
    growth = memory[-1] / memory[1]
    return [
        Result("serve", "", f"{clients} clients", Spread.of(rates), "images/s"),
        Result("serve", "", "a request", Spread.of([1000 * seconds for seconds in load.seconds]), "ms"),
        Result("serve", "", f"lost of {len(load.seconds)}", Spread.of([load.lost]), "", None, "0"),
        Result("serve", "", "memory", Spread.of(memory), "MiB", Spread.of([growth]), "<= 1.05"),
    ]


class _Load:
    """The clients; each thread keeps one connection."""

    def __init__(self, place: tuple[str, int], photos: list[bytes]) -> None:
        self.seconds: list[float] = []
        self.lost = 0
        self._place, self._photos = place, itertools.cycle(photos)
        self._thread, self._lock = threading.local(), threading.Lock()

    def ask(self, _: int) -> None:
        """Send one request."""
        if not hasattr(self._thread, "connection"):
            self._thread.connection = http.client.HTTPConnection(*self._place, timeout=60)
        with self._lock:
            photo = next(self._photos)
        start = time.perf_counter()
        try:
            self._thread.connection.request("POST", "/predict", photo)
            answer = self._thread.connection.getresponse()
            answer.read()
            lost = answer.status != 200
        except (OSError, http.client.HTTPException):
            self._thread.connection.close()
            lost = True
        with self._lock:
            self.seconds.append(time.perf_counter() - start)
            self.lost += lost


@contextmanager
def _service(file: str) -> Iterator[tuple[str, int]]:
    """Start the service on a free port; yield host and port."""
    command = [sys.executable, "-m", "repvgg_mm", "serve", file, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout
        line = process.stdout.readline()
        found = re.search(r"http://(\S+):(\d+)$", line.strip())
        if found is None:
            raise ValueError(line.strip().removeprefix("error: "))
        yield found[1], int(found[2])
    finally:
        process.terminate()
        process.communicate()


def _resident(place: tuple[str, int]) -> float:
    """Return the bytes of memory that the service says it has."""
    connection = http.client.HTTPConnection(*place, timeout=60)
    connection.request("GET", "/metrics")
    found = _MEMORY.search(connection.getresponse().read().decode())
    connection.close()
    assert found
    return float(found[1])
