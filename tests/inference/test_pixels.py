"""Images from anywhere: read upright, or refused in one line."""

import os
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from repvgg_mm.inference.pixels import TooManyPixels, UnreadableImage, read_image

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def encoded(kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    Image.fromarray(PICTURE).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("suffix", ["bmp", "png", "ppm", "tiff", "webp", "jpg"])
def test_pixels_are_those_that_opencv_reads(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PICTURE).save(path)
    np.testing.assert_array_equal(read_image(path), cv2.imread(str(path))[:, :, ::-1])
    np.testing.assert_array_equal(read_image(path.read_bytes()), read_image(path))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", exif=exif))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), cv2.imread(str(tmp_path / "a.jpg"))[:, :, ::-1])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_other_modes_become_rgb(mode: str, tmp_path: Path) -> None:
    Image.fromarray(PICTURE).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), cv2.imread(str(tmp_path / "a.png"))[:, :, ::-1])


def test_of_16_bits_the_upper_ones_count(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE[:, :, 0].astype(np.uint16) * 256 + 77)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(PICTURE[:, :, :1], 3, axis=2))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no image of a known kind"),
        (b"no image", "no image of a known kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known kind"),
        (encoded()[:200], "truncated"),
        (encoded("JPEG")[:300], "Truncated"),
        (encoded("TIFF")[:300], "."),
    ],
    ids=["empty", "text", "eps", "cut png", "cut jpeg", "cut tiff"],
)
def test_what_is_no_whole_image_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    for source in (content, tmp_path / "a"):
        with pytest.raises(UnreadableImage, match=reason) as refused:
            read_image(source)
        assert "\n" not in str(refused.value)


def test_a_float_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(PICTURE[:, :, 0].astype(np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(UnreadableImage, match="32-bit numbers"):
        read_image(tmp_path / "a.tiff")


def test_pixels_are_counted_before_they_are_decoded() -> None:
    assert read_image(encoded(), max_pixels=24 * 40).shape == (24, 40, 3)
    header = encoded()[:60]  # its pixels are missing, so decoding would say something else
    with pytest.raises(TooManyPixels, match="it has 40 x 24 pixels, more than 959"):
        read_image(header, max_pixels=24 * 40 - 1)


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path, reason in (
        (tmp_path / "a.png", "no regular file"),
        (tmp_path, "no regular"),
        (tmp_path / "b", "no such"),
    ):
        with pytest.raises(UnreadableImage, match=reason):
            read_image(path)


def test_of_a_pgm_with_16_bits_the_upper_8_are_kept() -> None:
    grey = read_image(b"P5 2 2 65535\n" + bytes(range(8)))[:, :, 0]
    assert grey.tolist() == [[0, 2], [4, 6]]
