"""Serve a complete exported file over HTTP: POST an image, get JSON or a picture.

Example:
    python tools/serve.py detector.onnx                                # http://127.0.0.1:8000, for this machine only
    curl --data-binary @photo.jpg http://127.0.0.1:8000/predict        # JSON; -F image=@photo.jpg does the same
    curl --data-binary @photo.jpg 'http://127.0.0.1:8000/predict?format=png' -o picture.png
    python tools/serve.py detector.onnx --host 0.0.0.0 --port 80       # for everybody: it asks for no password

GET / is a page on which an image can be dropped; /model, /health and /metrics (Prometheus) tell about the service.
SIGTERM and Ctrl-C end it once the images in work are answered. Exit code: 0 ended so; 2 bad input.
"""

import argparse
from collections.abc import Sequence

from .command import DONE, user_input


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="complete file: .onnx, or .xml for OpenVINO")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default %(default)s)")
    parser.add_argument(
        "--max-in-flight", type=int, default=16, help="images in work; one more gets 503 (default %(default)s)"
    )
    parser.add_argument("--max-bytes", type=int, default=20 * 2**20, help="of a body (default %(default)s)")
    parser.add_argument("--max-pixels", type=int, default=50_000_000, help="of an image (default %(default)s)")
    args = parser.parse_args(argv)
    for name in ("max_in_flight", "max_bytes", "max_pixels"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)}: must be at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Serve."""
    args = parse_args(argv)
    with user_input(openmmlab=False):
        from repvgg_mm.runtime import is_exported

        if not is_exported(args.file):
            raise ValueError(f"{args.file} is no exported file (.onnx, .xml): export the checkpoint first")
        try:
            from repvgg_mm.serve.app import make_app
            from repvgg_mm.serve.body import Limits
            from repvgg_mm.serve.server import address, listen, run
        except ImportError as error:
            raise ImportError(f"serving needs {error.name}: pip install 'repvgg_mm[serve]'") from error
        from repvgg_mm.inference.exported import ExportedPredictor

        predictor = ExportedPredictor(args.file)
        app = make_app(predictor, Limits(args.max_bytes, args.max_pixels, args.max_in_flight))
        server = listen(args.host, args.port)
    found_at = f"serving {args.file} ({predictor.task}) at {address(server)}"
    run(app, server, lambda: print(found_at, flush=True))
    return DONE
