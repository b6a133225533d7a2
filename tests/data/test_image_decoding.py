"""Decoding: the same pixels as Pillow's, whichever decoder works; damaged and huge files are refused."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from repvgg_mm.data.image_decoding import decode_image, what_is_wrong

PIXELS = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
RGB = Image.fromarray(PIXELS)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytearray:
    file = BytesIO()
    image.save(file, kind, **options)
    return bytearray(file.getvalue())


def exif() -> Image.Exif:
    turned = Image.Exif()
    turned[0x0112] = 6
    return turned


FILES = {
    "JPEG": encoded(RGB),
    "JPEG, progressive": encoded(RGB, progressive=True),
    "JPEG, 4:2:2": encoded(RGB, subsampling=1),
    "JPEG, not subsampled": encoded(RGB, subsampling=0),
    "JPEG, grey": encoded(RGB.convert("L")),
    "JPEG, CMYK": encoded(RGB.convert("CMYK")),
    "JPEG, RGB inside": encoded(RGB, keep_rgb=True),
    "JPEG, EXIF": encoded(RGB, exif=exif()),
    "PNG": encoded(RGB, "PNG"),
    "PNG, grey": encoded(RGB.convert("L"), "PNG"),
    "PNG, palette": encoded(RGB.quantize(16), "PNG"),
    "PNG, transparent": encoded(RGB.convert("RGBA"), "PNG"),
    "WebP": encoded(RGB, "WEBP"),
    "BMP": encoded(RGB, "BMP"),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_gives_the_pixels_that_pillow_gives(kind: str) -> None:
    expected = np.array(Image.open(BytesIO(FILES[kind])).convert("RGB"))
    decoded = decode_image(FILES[kind])
    assert decoded.dtype == torch.uint8
    torch.testing.assert_close(decoded, torch.from_numpy(expected).permute(2, 0, 1), rtol=0, atol=0)


@pytest.mark.parametrize("kind", FILES)
def test_torchvision_decodes_jpeg_in_rgb_or_grey_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.io

    decode, seen = torchvision.io.decode_jpeg, []
    monkeypatch.setattr(torchvision.io, "decode_jpeg", lambda *args: seen.append(kind) or decode(*args))
    decode_image(FILES[kind])
    assert bool(seen) == (kind.startswith("JPEG") and "CMYK" not in kind)


def test_of_16_bits_the_upper_8_are_kept() -> None:
    grey = np.random.default_rng(1).integers(0, 65536, (5, 7), dtype=np.uint16)
    expected = torch.from_numpy((grey >> 8).astype(np.uint8)).expand(3, 5, 7)
    torch.testing.assert_close(decode_image(encoded(Image.fromarray(grey), "PNG")), expected, rtol=0, atol=0)


def test_32_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="32-bit numbers"):
        decode_image(encoded(Image.fromarray(np.full((5, 7), 1e6, np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "JPEG, progressive", "JPEG, CMYK", "PNG"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9])
def test_a_file_that_is_cut_short_is_refused(kind: str, kept: float) -> None:
    with pytest.raises((OSError, RuntimeError)):
        decode_image(FILES[kind][: int(kept * len(FILES[kind]))])


def test_an_image_too_large_for_memory_is_refused_before_it_is_decoded() -> None:
    """The size that a JPEG file claims stands in its frame header, behind the marker FFC0."""
    bomb = encoded(RGB)
    at = bomb.index(b"\xff\xc0") + 5
    bomb[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(Image.DecompressionBombError):
        decode_image(bomb)


def test_what_is_wrong_is_told_in_terms_of_the_file() -> None:
    jpeg = BytesIO()
    Image.new("RGB", (40, 40)).save(jpeg, "JPEG")
    for content, reason in (
        (b"no image", "it is no image of a kind that Pillow knows"),
        (jpeg.getvalue()[:-30], "Image is incomplete or truncated"),
    ):
        with pytest.raises(Exception) as caught:
            decode_image(bytearray(content))
        assert what_is_wrong(caught.value) == reason


def test_of_a_pgm_with_16_bits_the_upper_8_are_kept() -> None:
    content = b"P5 2 2 65535\n" + bytes(range(8))
    expected = torch.tensor([[0, 2], [4, 6]], dtype=torch.uint8).expand(3, 2, 2)
    torch.testing.assert_close(decode_image(bytearray(content)), expected, rtol=0, atol=0)
