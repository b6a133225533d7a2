"""Which eps a conversion takes."""

import pytest

from repvgg_mm.convert.eps import choose_eps

OURS = ["backbone.stage0.rbr_dense.conv.weight"]
YOLOV6 = ["backbone.stem.rbr_dense.conv.weight", "backbone.ERBlock_2.0.rbr_dense.conv.weight"]


def config(**norm: float) -> dict:
    return {
        "model": {"type": "EncoderDecoder", "parts": [{"type": "mmseg.RepVGG", "norm_cfg": {"type": "BN", **norm}}]}
    }


def test_assumed_and_said() -> None:
    eps, note = choose_eps(None, None, OURS, None)
    assert eps == 1e-5 and note is not None and note.startswith("eps=1e-05 is assumed")


def test_yolov6_has_its_own() -> None:
    """initialize_weights sets it in every BatchNorm2d; assuming 1e-5 gives outputs that are off by 37 %."""
    eps, note = choose_eps(None, None, YOLOV6, None)
    assert eps == 1e-3 and note is not None and "YOLOv6" in note
    assert choose_eps(1e-4, None, YOLOV6, None) == (1e-4, None)


def test_the_model_and_the_config_say_it() -> None:
    assert choose_eps(None, 1e-3, OURS, None) == (1e-3, None)
    assert choose_eps(None, None, OURS, config(eps=1e-2)) == (1e-2, None)
    assert choose_eps(None, None, OURS, config()) == (1e-5, None)
    assert choose_eps(None, None, OURS, {"model": {"type": "FCN", "norm_cfg": {"eps": 1.0}}})[1] is not None


def test_the_user_says_it() -> None:
    assert choose_eps(1e-3, None, OURS, None) == (1e-3, None)
    assert choose_eps(1e-3, 1e-3, OURS, None) == (1e-3, None)


@pytest.mark.parametrize("known", [{"of_model": 1e-5, "cfg": None}, {"of_model": None, "cfg": config(eps=1e-5)}])
def test_two_that_differ(known: dict) -> None:
    with pytest.raises(ValueError, match=r"eps=0.001, but .* config's model have eps=1e-05"):
        choose_eps(1e-3, keys=OURS, **known)
