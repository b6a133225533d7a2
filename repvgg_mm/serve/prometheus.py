"""What the service counts, for Prometheus."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters of one service; beside them stand those of the process: memory, CPU time, open files."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        ProcessCollector(registry=own)
        self.answers = Counter("repvgg_http_answers", "Answers by path and status", ["path", "status"], registry=own)
        self.in_flight = Gauge("repvgg_in_flight", "Images being read and answered", registry=own)
        self.seconds = Histogram(
            "repvgg_seconds", "Seconds that a step took for an image", ["step"], buckets=_SECONDS, registry=own
        )

    @contextmanager
    def step(self, name: str, milliseconds: dict[str, float]) -> Iterator[None]:
        """Time a step.

        Args:
            name: of the step.
            milliseconds: where the time is noted, too.
        """
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.seconds.labels(name).observe(seconds)
        milliseconds[name] = round(1000 * seconds, 2)

    def text(self) -> bytes:
        """Return everything in Prometheus' format."""
        return generate_latest(self.registry)


class CountAnswers:
    """Counts the answers of an application.

    Args:
        app: the application.
        metrics: where to count.
        paths: paths to count apart; all others count as one, however many a visitor makes up.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        path = scope.get("path", "")

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                name = path if path in self.paths else "other"
                self.metrics.answers.labels(name, message["status"]).inc()
            await send(message)

        await self.app(scope, receive, counted)
