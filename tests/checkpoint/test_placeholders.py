"""Taking out of containers what was not loaded."""

from collections import OrderedDict

import pytest
from expectations import one_line

from repvgg_mm.checkpoint import (
    CheckpointError,
    drop_placeholders,
)
from repvgg_mm.checkpoint.unpickle import Placeholder


def test_placeholders_are_dropped_from_containers() -> None:
    gone = Placeholder("a.b")
    shared = {"x": gone, "y": [1, (2, 3)]}
    data = {
        "a": shared,
        "b": [shared],
        "classes": ("a", gone, "c"),
        "od": OrderedDict(z=gone, k={1}),
        gone: 1,
        "n": None,
    }
    clean, dropped = drop_placeholders(data)
    kept = {"y": [1, (2, 3)]}
    assert clean == {"a": kept, "b": [kept], "od": OrderedDict(k={1}), "n": None}
    assert type(clean["od"]) is OrderedDict
    assert dropped == ["a.x", "classes", "od.z", "<a.b, not loaded>"]
    assert shared["x"] is gone  # the original is not changed


def test_nothing_left() -> None:
    assert drop_placeholders(Placeholder("a.b")) == (None, ["."])
    assert drop_placeholders([Placeholder("a.b"), 1]) == (None, ["."])


def test_shared_containers_do_not_explode() -> None:
    data: object = []
    for _ in range(60):
        data = [data, data]
    assert drop_placeholders(data)[1] == []  # 2**60 lists if each were copied where it is met


def test_a_container_in_itself_is_an_error() -> None:
    loop: dict[str, object] = {}
    loop["a"] = {"b": loop}
    with pytest.raises(CheckpointError) as error:
        drop_placeholders(loop)
    one_line(error, "a.b")
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CheckpointError) as error:
        drop_placeholders(deep)
    one_line(error, "deep")


def test_what_is_shared_is_dropped_wherever_it_stands() -> None:
    shared = [Placeholder("a.b")]
    assert drop_placeholders({"a": shared, "b": shared, "c": 1}) == ({"c": 1}, ["a", "b"])
