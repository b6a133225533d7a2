"""The page in a real browser: an image is dropped, its result is seen."""

import base64
from io import BytesIO
from pathlib import Path

import chromium
import numpy as np
import pytest
from PIL import Image
from served import in_a_thread

from repvgg_mm.inference.exported import ExportedPredictor
from repvgg_mm.serve.body import Limits

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on this machine (apt install chromium)")
RESULT = "!part('result').hidden && part('picture').complete && part('summary').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with chromium.browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


def test_an_image_is_dropped(browser: chromium.Browser, complete_files: dict[str, Path], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    predictor = ExportedPredictor(str(complete_files["segmentation"]))
    result = predictor.answer(pixels)
    with in_a_thread(complete_files["segmentation"]) as service:
        browser.open(service.url + "/")
        browser.drop(tmp_path / "a.png", 300, 200)
        assert browser.wait(RESULT) == predictor.describe(result)[1]
        shown = browser.evaluate("part('picture').src").partition(",")[2]
        np.testing.assert_array_equal(Image.open(BytesIO(base64.b64decode(shown))), predictor.draw(pixels, result))
        assert browser.evaluate("part('picture').naturalWidth") == 100
        text = browser.evaluate("document.body.innerText")
        sha = predictor.model.about["checkpoint_sha256"]
        for words in ("100 \N{MULTIPLICATION SIGN} 60; decode ", "there and back ", "background", sha):
            assert words in text
        assert f"@photo.jpg {service.url}/predict" in text


def test_a_file_is_chosen_and_a_refusal_is_shown(
    browser: chromium.Browser, complete_files: dict[str, Path], tmp_path: Path
) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    with in_a_thread(complete_files["classification"], Limits(max_pixels=600)) as service:
        browser.open(service.url + "/")
        choose(browser, tmp_path / "a.png")
        browser.wait(RESULT)
        choose(browser, tmp_path / "b.png")
        assert browser.wait("part('status').classList.contains('error') && part('status').textContent").startswith(
            "the image can't be read: no image of a known kind"
        )
        assert browser.evaluate("part('result').hidden")


def choose(browser: chromium.Browser, file: Path) -> None:
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])
