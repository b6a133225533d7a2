"""Exported files in a process that handles signals."""

import subprocess
import sys
from pathlib import Path

import pytest

OPEN_AND_CLOSE = """
import gc, signal, sys, threading
import numpy as np
import openvino
from openvino import opset13 as ops
from repvgg_mm.runtime.session import open_session

given = ops.parameter([1, 3, 8, 8], np.float32, name="image")
openvino.save_model(openvino.Model([ops.relu(given)], [given]), sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
sessions = [open_session(sys.argv[1]) for _ in range(3)]
sessions[0].run(np.zeros((1, 3, 8, 8), np.float32))
for index in range(3):
    close = lambda: (sessions.pop(0), gc.collect())
    if sys.argv[2] == "thread":
        thread = threading.Thread(target=close)
        thread.start()
        thread.join()
    else:
        close()
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO has a signal stack on Linux only")
@pytest.mark.parametrize("where", ["here", "thread"])
def test_signals_are_handled_after_files_were_closed(where: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", OPEN_AND_CLOSE, str(tmp_path / "a.xml"), where]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
