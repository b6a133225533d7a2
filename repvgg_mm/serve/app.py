"""The application: paths, what they take and what they give."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from ..inference.exported import ExportedPredictor
from ..inference.pixels import TooManyPixels, UnreadableImage, read_image
from ..runtime import FileError, Result
from .body import Limits, discard, find_image, read_body
from .card import card_rows, describe_model
from .prometheus import CountAnswers, Metrics

_HERE = Path(__file__).parent
_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_PATHS = frozenset(["/", "/predict", "/model", "/health", "/metrics"])
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'"
_PNG = "image/png"
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"schema": {"type": "object", "properties": {"image": _IMAGE["schema"]}, "required": ["image"]}}
_BODY = {"requestBody": {"required": True, "content": {"image/*": _IMAGE, "multipart/form-data": _FORM}}}

Format = Literal["json", "png", "mask"]


class Service:
    """The model behind the paths.

    Args:
        predictor: the model; threads share it.
        limits: what is taken.
    """

    def __init__(self, predictor: ExportedPredictor, limits: Limits) -> None:
        self.predictor, self.limits, self.metrics = predictor, limits, Metrics()
        self._threads = anyio.CapacityLimiter(os.cpu_count() or 1)
        self._in_flight = 0

    async def predict(self, request: Request, form: Format, picture: bool) -> Response:
        """Read a request and answer it, in a thread, so that the event loop stays alive."""
        if form == "mask" and self.predictor.task != "segmentation":
            await discard(request)
            raise HTTPException(422, f"format=mask is for segmentation; this model's task is {self.predictor.task}")
        if self._in_flight >= self.limits.max_in_flight:
            await discard(request)
            raise HTTPException(503, f"busy: {self._in_flight} images are in work; try again", {"Retry-After": "1"})
        with self._counted():
            body = await read_body(request, self.limits)
            kind = request.headers.get("content-type", "")
            return await anyio.to_thread.run_sync(self._work, body, kind, form, picture, limiter=self._threads)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._in_flight += 1
        self.metrics.in_flight.set(self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1
            self.metrics.in_flight.set(self._in_flight)

    def _work(self, body: bytes, kind: str, form: Format, picture: bool) -> Response:
        """Decode, answer and encode."""
        took: dict[str, float] = {}
        step = self.metrics.step
        with step("decode", took):
            image = self._decode(find_image(body, kind))
        with step("answer", took):
            result = self.predictor.answer(image)
        if form == "mask":
            assert result.mask is not None
            return Response(_png(result.mask), media_type=_PNG, headers=_timing(took))
        drawn = b""
        if picture or form == "png":
            with step("draw", took):
                drawn = _png(self.predictor.draw(image, result))
        if form == "png":
            return Response(drawn, media_type=_PNG, headers=_timing(took))
        return JSONResponse(self._plain(image, result, drawn, took), headers=_timing(took))

    def _decode(self, content: bytes) -> NDArray[np.uint8]:
        try:
            return read_image(content, self.limits.max_pixels)
        except TooManyPixels as error:
            raise HTTPException(413, f"the image is too large: {error}") from error
        except UnreadableImage as error:
            raise HTTPException(422, f"the image can't be read: {error}") from error

    def _plain(self, image: NDArray[np.uint8], result: Result, drawn: bytes, took: dict[str, float]) -> dict[str, Any]:
        """Put the answer together as plain data."""
        found, summary = self.predictor.describe(result)
        height, width, _ = image.shape
        plain = {"task": self.predictor.task, "width": width, "height": height, "summary": summary, **found}
        if drawn:
            plain["picture"] = f"data:{_PNG};base64,{base64.b64encode(drawn).decode()}"
        return plain | {"milliseconds": took}


def make_app(predictor: ExportedPredictor, limits: Limits | None = None) -> FastAPI:
    """Make the application.

    Args:
        predictor: the model.
        limits: what is taken; None takes the usual.

    Returns:
        An ASGI application. It keeps nothing: an image and its answer live as long as the request.
    """
    service = Service(predictor, limits or Limits())
    card = describe_model(predictor, service.limits)
    page = _TEMPLATES.get_template("page.html.jinja").render(card=card, rows=list(card_rows(card)))
    # FastAPI's pages about the interface load scripts from elsewhere
    app = FastAPI(title=f"repvgg_mm: {card['file']}", docs_url=None, redoc_url=None)
    app.add_middleware(CountAnswers, metrics=service.metrics, paths=_PATHS)
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    _say_errors_on_one_line(app)

    @app.get("/", response_class=HTMLResponse)
    def index() -> HTMLResponse:
        """Show a page on which an image can be dropped."""
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    @app.post("/predict", openapi_extra=_BODY)
    async def predict(request: Request, format: Format | None = None, picture: bool = False) -> Response:
        """Answer an image: as JSON, as a picture (format=png or Accept: image/png), or as a mask of class indices."""
        wanted = "png" if request.headers.get("accept", "").startswith(_PNG) else "json"
        return await service.predict(request, format or wanted, picture)  # type: ignore[arg-type]

    @app.get("/model")
    def model() -> dict[str, Any]:
        """Describe the model."""
        return card

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the service is alive."""
        return {"status": "ok"}

    @app.get("/metrics")
    def metrics() -> Response:
        """Give the counters to Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return app


def _say_errors_on_one_line(app: FastAPI) -> None:
    """Answer every error with ``{"error": "one line"}``."""

    @app.exception_handler(AnyHTTPException)
    async def refused(request: Request, error: AnyHTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        await discard(request)
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}={first['input']!r}: {first['msg']}"}, 422)

    @app.exception_handler(FileError)
    async def failed(request: Request, error: FileError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 500)

    @app.exception_handler(UnreadableImage)
    async def unfit(request: Request, error: UnreadableImage) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return JSONResponse({"error": "the client went away"}, 400)


def _png(picture: NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)  # four times as fast, a fifth larger
    return file.getvalue()


def _timing(milliseconds: dict[str, float]) -> dict[str, str]:
    """Say what took how long as a browser's tools show it."""
    return {"Server-Timing": ", ".join(f"{name};dur={value}" for name, value in milliseconds.items())}
