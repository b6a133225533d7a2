"""The service: real requests to a real server on the loopback."""

import signal
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import Served, form, in_a_process, in_a_thread, wait_for

from repvgg_mm.inference.exported import ExportedPredictor
from repvgg_mm.serve.body import Limits

TASKS = ("classification", "segmentation", "detection")


def encoded(height: int, width: int, kind: str = "PNG") -> bytes:
    coarse = np.random.default_rng(height).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)))


IMAGE = encoded(70, 110)


@pytest.fixture(scope="module")
def services(complete_files: dict[str, Path]) -> Iterator[dict[str, Served]]:
    limits = Limits(max_bytes=100_000, max_pixels=50_000)
    with (
        in_a_thread(complete_files["classification"], limits) as one,
        in_a_thread(complete_files["segmentation"], limits) as two,
        in_a_thread(complete_files["detection"], limits) as three,
    ):
        yield {"classification": one, "segmentation": two, "detection": three}


@pytest.mark.parametrize("task", TASKS)
def test_json_and_picture_are_those_of_infer(
    task: str, services: dict[str, Served], complete_files: dict[str, Path]
) -> None:
    predictor = ExportedPredictor(str(complete_files[task]))
    image = pixels(IMAGE)
    result = predictor.answer(image)
    wanted, summary = predictor.describe(result)
    got = services[task].ask("/predict", IMAGE)
    assert got.status == 200 and got.headers["content-type"] == "application/json"
    plain = got.plain
    times = plain.pop("milliseconds")
    assert plain == {"task": task, "width": 110, "height": 70, "summary": summary, **wanted}
    assert {*times} == {"decode", "answer"} and min(times.values()) > 0
    assert got.headers["server-timing"].startswith("decode;dur=")
    drawn = predictor.draw(image, result)
    for path, headers in (("/predict?format=png", {}), ("/predict", {"Accept": "image/png"})):
        got = services[task].ask(path, IMAGE, **headers)
        assert got.headers["content-type"] == "image/png"
        np.testing.assert_array_equal(pixels(got.body), drawn)
    assert services[task].ask("/predict?picture=true", IMAGE).plain["picture"].startswith("data:image/png;base64,")


def test_a_segmentor_gives_its_mask(services: dict[str, Served], complete_files: dict[str, Path]) -> None:
    got = services["segmentation"].ask("/predict?format=mask", IMAGE)
    wanted = ExportedPredictor(str(complete_files["segmentation"])).answer(pixels(IMAGE)).mask
    np.testing.assert_array_equal(pixels(got.body), wanted)


def test_a_form_is_a_body(services: dict[str, Served]) -> None:
    body, kind = form(IMAGE)
    got = services["detection"].ask("/predict", body, Content_Type=kind)
    assert got.plain["objects"] == services["detection"].ask("/predict", IMAGE).plain["objects"]


def bomb() -> bytes:
    """The beginning of a PNG file of 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(10))
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


BAD = {
    "empty": (b"", "", 400, "there is no image"),
    "text": (b"no image", "", 422, "no image of a known kind"),
    "cut": (IMAGE[:-200], "", 422, "the image can't be read: image file is truncated"),
    "gzip": (b"\x1f\x8b" + bytes(50), "", 422, "no image of a known kind"),
    "too many pixels": (encoded(250, 250), "", 413, "the image is too large: it has 250 x 250 pixels, more than 50000"),
    "bomb": (bomb(), "", 413, "the image is too large: "),
    "too narrow": (encoded(4, 5000), "", 422, "the image has 5000 x 4 pixels: "),
    "too many bytes": (bytes(100_001), "", 413, "the body is larger than the 100000 bytes that are allowed"),
    "far too many bytes": (bytes(30_000_000), "", 413, "the body is larger than"),
    "form without a file": (
        form(IMAGE)[0].replace(b"; filename=", b"; other="),
        form(b"")[1],
        400,
        "there is no image",
    ),
    "form without a boundary": (IMAGE, "multipart/form-data", 400, "the form is damaged"),
    "no form": (IMAGE, "multipart/form-data; boundary=a", 400, "the form is damaged"),
    "cut form": (form(IMAGE)[0][:200], form(b"")[1], 400, "there is no image"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_images_get_one_line(case: str, services: dict[str, Served]) -> None:
    body, kind, status, words = BAD[case]
    got = services["classification"].ask("/predict", body, **({"Content_Type": kind} if kind else {}))
    assert (got.status, list(got.plain)) == (status, ["error"])
    assert words in got.plain["error"] and "\n" not in got.plain["error"]


def test_a_body_of_unknown_length_is_bounded_too(services: dict[str, Served]) -> None:
    chunks = (bytes(10_000) for _ in range(300))
    assert services["classification"].ask("/predict", chunks).status == 413


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/predict?format=gif", IMAGE, 422, "format='gif': Input should be 'json', 'png' or 'mask'"),
        ("/predict?format=mask", IMAGE, 422, "format=mask is for segmentation; this model's task is classification"),
        ("/predict", None, 405, "Method Not Allowed"),
        ("/docs", None, 404, "Not Found"),
        ("/static/../app.py", None, 404, "Not Found"),
    ],
)
def test_bad_requests_get_one_line(
    path: str, body: bytes | None, status: int, words: str, services: dict[str, Served]
) -> None:
    got = services["classification"].ask(path, body)
    assert (got.status, got.plain) == (status, {"error": words})


def test_more_work_than_allowed_is_turned_away(complete_files: dict[str, Path]) -> None:
    with in_a_thread(complete_files["classification"], Limits(max_in_flight=1)) as service:
        with service.begin(len(IMAGE)) as slow:
            wait_for(lambda: b"repvgg_in_flight 1.0" in service.ask("/metrics").body)
            refused = service.ask("/predict", IMAGE)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert refused.plain == {"error": "busy: 1 images are in work; try again"}
            assert service.ask("/health").plain == {"status": "ok"}
            slow.sendall(IMAGE)
            assert slow.recv(12) == b"HTTP/1.1 200"
        assert service.ask("/predict", IMAGE).status == 200


def test_a_body_that_does_not_come_frees_its_place(complete_files: dict[str, Path]) -> None:
    with in_a_thread(complete_files["classification"], Limits(max_in_flight=1, seconds=0.2)) as service:
        with service.begin(100) as slow:
            assert slow.recv(12) == b"HTTP/1.1 408"
        with service.begin(100):
            pass  # a client that goes away
        wait_for(lambda: service.ask("/predict", IMAGE).status == 200)


def test_clients_at_the_same_time_get_the_answers_of_one(services: dict[str, Served]) -> None:
    images = [encoded(40 + index, 90) for index in range(8)]
    service = services["segmentation"]
    wanted = [service.ask("/predict?format=mask", image).body for image in images]
    with ThreadPoolExecutor(8) as clients:
        work = [(image, mask) for image, mask in zip(images, wanted, strict=True) for _ in range(8)]
        got = clients.map(lambda pair: service.ask("/predict?format=mask", pair[0]).body == pair[1], work)
    assert all(got)


def test_the_service_tells_about_its_model_and_itself(services: dict[str, Served]) -> None:
    service = services["segmentation"]
    card = service.ask("/model").plain
    assert card["file"] == "segmentation.onnx" and card["classes"][0] == "background"
    assert len(card["checkpoint_sha256"]) == 64 and "config" not in card
    page = service.ask("/")
    assert (
        card["checkpoint_sha256"] in page.body.decode()
        and "default-src 'none'" in page.headers["content-security-policy"]
    )
    before = service.ask("/metrics").body.decode()
    service.ask("/nowhere")
    service.ask("/predict", IMAGE)
    after = service.ask("/metrics").body.decode()
    assert 'repvgg_http_answers_total{path="other",status="404"}' in after
    assert count(after, "/predict") == count(before, "/predict") + 1
    assert "process_resident_memory_bytes" in after and 'repvgg_seconds_count{step="answer"}' in after


def count(metrics: str, path: str) -> float:
    name = f'repvgg_http_answers_total{{path="{path}",status="200"}} '
    return float(next((line.split()[-1] for line in metrics.splitlines() if line.startswith(name)), 0))


def test_a_process_of_its_own_needs_no_torch_and_no_disk_and_ends_when_told(
    complete_files: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'cv2'): sys.modules[name] = None"
    )
    large = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(large, "PNG")
    with in_a_process(complete_files["detection"], first_on_path=str(tmp_path)) as (service, process):
        body, kind = form(large.getvalue())  # more than a parser keeps in memory unless it is told to
        assert len(body) > 2**21 and service.ask("/predict", body, Content_Type=kind).plain["width"] == 900
        with service.begin(len(IMAGE)) as slow:
            wait_for(lambda: b"repvgg_in_flight 1.0" in service.ask("/metrics").body)
            process.send_signal(signal.SIGTERM)
            slow.sendall(IMAGE)
            assert slow.recv(12) == b"HTTP/1.1 200"
        assert process.wait(20) == 0
