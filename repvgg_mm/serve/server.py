"""Running the application on a socket."""

import os
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

_LAST_ANSWERS = 30  # seconds for requests in work once the service is told to end


def listen(host: str, port: int) -> socket.socket:
    """Take an address.

    Args:
        host: address or name of this machine; ``127.0.0.1`` is heard by this machine only.
        port: its number; 0 takes any that is free.

    Returns:
        A listening socket.

    Raises:
        OSError: if it can't be had; names it.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OverflowError as error:
        raise OSError(f"can't listen on port {port}: give 0 to 65535") from error
    except OSError as error:
        named = error.errno and not isinstance(error, socket.gaierror)
        reason = os.strerror(error.errno or 0) if named else error.strerror  # without what socket adds
        raise OSError(f"can't listen on {host}, port {port}: {reason}; choose another address") from error


def address(server: socket.socket) -> str:
    """Return where a listening socket is found, ``http://127.0.0.1:8000``."""
    host, port = server.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: FastAPI, server: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what is in work and end.

    Args:
        app: the application.
        server: a listening socket.
        ready: called when the first request can be answered.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_LAST_ANSWERS,
    )
    serving = uvicorn.Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn does so, too, but raises the signal again when it is done
        signal.signal(number, serving.handle_exit)
    ready()
    serving.run(sockets=[server])
