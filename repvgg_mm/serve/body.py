"""Getting the image out of a request, within bounds and in memory alone."""

import math
from dataclasses import dataclass

import anyio
from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File, create_form_parser

_DISCARD_SECONDS = 5


@dataclass(frozen=True)
class Limits:
    """What the service takes.

    Attributes:
        max_bytes: of a request's body.
        max_pixels: height times width of an image; checked before it is decoded.
        max_in_flight: requests that are read and answered at a time; one more is turned away.
        seconds: in which a body must have come.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_in_flight: int = 16
    seconds: float = 30.0


async def read_body(request: Request, limits: Limits) -> bytes:
    """Read the body of a request.

    Args:
        request: the request.
        limits: its ``max_bytes`` and ``seconds`` count.

    Returns:
        The body.

    Raises:
        HTTPException: 413 if it is too large; 408 if it takes too long.
    """
    declared = int(request.headers.get("content-length", 0))
    body = bytearray()
    try:
        with anyio.fail_after(limits.seconds):
            if declared <= limits.max_bytes:
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limits.max_bytes:
                        break
    except TimeoutError:
        raise HTTPException(408, f"the body did not come within {limits.seconds:g} seconds") from None
    if max(declared, len(body)) > limits.max_bytes:
        await discard(request)
        raise HTTPException(413, f"the body is larger than the {limits.max_bytes} bytes that are allowed")
    return bytes(body)


async def discard(request: Request) -> None:
    """Read the rest of a body without keeping it, for some clients hear an answer only behind their last byte.

    Args:
        request: a request that will be refused.
    """
    with anyio.move_on_after(_DISCARD_SECONDS):
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                return


def find_image(body: bytes, content_type: str) -> bytes:
    """Find the image in a body: the first file of a form, or the body itself.

    Args:
        body: of a request.
        content_type: what the request says of it.

    Returns:
        The bytes of an image file.

    Raises:
        HTTPException: 400 if there is none, or the form is damaged.
    """
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        body = _first_file(body, content_type)
    if not body:
        raise HTTPException(400, "there is no image: send one as the body, or as a file in a multipart/form-data form")
    return body


def _first_file(body: bytes, content_type: str) -> bytes:
    """Parse a form in memory: files that Starlette's own parser takes may touch the disk."""
    files: list[File] = []
    try:
        headers = {"Content-Type": content_type.encode("latin-1")}
        in_memory = {"MAX_MEMORY_FILE_SIZE": math.inf}
        parser = create_form_parser(headers, lambda field: None, files.append, config=in_memory)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise HTTPException(400, f"the form is damaged: {' '.join(str(error).split())}") from error
    if not files:
        return b""
    files[0].file_object.seek(0)
    return files[0].file_object.read()
