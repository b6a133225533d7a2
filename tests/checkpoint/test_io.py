"""Loading without running code, saving atomically."""

import os
import pickle
import stat
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from expectations import equal, one_line
from torch import nn

from repvgg_mm.checkpoint import (
    CheckpointError,
    find_state_dict,
    load_checkpoint,
    save_checkpoint,
)
from repvgg_mm.checkpoint.torch_formats import LEGACY_MAGIC, LEGACY_PROTOCOL
from repvgg_mm.checkpoint.unpickle import Placeholder

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


class HiddenTouch(Touch):
    """The same through builtins.getattr and `__import__`, as exploits do it."""

    def __reduce__(self):
        return eval, (f"open({self.marker!r}, 'w')",)


def save(obj, path: Path, legacy: bool = False, protocol: int = 2) -> Path:
    torch.save(obj, path, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    return path


def write_zip(path: Path, data: bytes, records: dict[str, bytes] | None = None, compression: int = 0) -> Path:
    """A zip as torch.save lays it out, around a pickle of one's own."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in (records or {}).items():
            archive.writestr(f"archive/{name}", content)
    return path


def write_legacy(path: Path, data: bytes, tail: bytes = b"") -> Path:
    """A file of torch < 1.6 around a pickle of one's own."""
    parts = [pickle.dumps(part, 2) for part in (LEGACY_MAGIC, LEGACY_PROTOCOL, {})]
    path.write_bytes(b"".join(parts) + data + (tail or pickle.dumps([], 2)))
    return path


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(3, 5, 7, generator=generator)
    bits = torch.randint(-(2**15), 2**15, (33,), generator=generator, dtype=torch.int16)
    halves = {"half": bits.view(torch.float16).clone(), "bf16": bits.view(torch.bfloat16).clone()}
    floats = {"base": base, "double": base.double(), "complex": torch.view_as_complex(base[..., :2].clone())}
    whole = {"long": bits.long() * 2**40, "int": bits.int(), "int8": bits.to(torch.int8), "bool": bits > 0}
    odd = {"nan": torch.tensor([float("nan"), float("-inf"), -0.0]), "scalar": torch.tensor(3), "empty": base[:0]}
    views = {"transposed": base.transpose(0, 2), "slice": base[1:, ::2, 3], "expanded": base[0, 0].expand(4, 7)}
    return floats | halves | whole | odd | views


# ---- loading: every tensor as it was


@FORMATS
def test_tensors_come_back_to_the_bit(tmp_path: Path, legacy: bool) -> None:
    saved = tensors()
    loaded = load_checkpoint(save(saved, tmp_path / "a.pth", legacy))
    assert list(loaded) == list(saved)
    for name, tensor in saved.items():
        assert type(loaded[name]) is torch.Tensor and equal(loaded[name], tensor), name


@pytest.mark.parametrize("name", ["float8_e4m3fn", "uint16", "uint64"])
def test_dtypes_without_a_storage_class(tmp_path: Path, name: str) -> None:
    tensor = torch.arange(24, dtype=torch.uint8).view(getattr(torch, name)).reshape(1, -1)
    assert equal(load_checkpoint(save({"x": tensor}, tmp_path / "a.pth"))["x"], tensor)


@FORMATS
def test_views_share_their_storage_again(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    loaded = load_checkpoint(save({"a": base, "b": base[1:], "c": torch.zeros(2)}, tmp_path / "a.pth", legacy))
    loaded["a"][2, 0] = -1
    assert loaded["b"][1, 0] == -1
    assert loaded["a"].untyped_storage().data_ptr() != loaded["c"].untyped_storage().data_ptr()


@FORMATS
def test_parameters_and_plain_data(tmp_path: Path, legacy: bool) -> None:
    plain = {"set": {1, 2}, "size": torch.Size([1, 2]), "bytes": b"\x00\xff", "empty": b"", "dtype": torch.float16}
    plain |= {"device": torch.device("cuda:1"), "complex": 1 + 2j, "array": bytearray(b"ab"), "frozen": frozenset("a")}
    plain |= {"nested": [(None, True, 2**70, -1.5, "é")], "order": OrderedDict(b=1, a=2)}
    saved = {"weight": nn.Parameter(torch.ones(2)), "fixed": nn.Parameter(torch.ones(2), requires_grad=False), **plain}
    loaded = load_checkpoint(save(saved, tmp_path / "a.pth", legacy))
    assert {key: loaded[key] for key in plain} == plain
    assert list(loaded["order"]) == ["b", "a"] and type(loaded["order"]) is OrderedDict
    assert type(loaded["weight"]) is nn.Parameter and loaded["weight"].requires_grad
    assert type(loaded["fixed"]) is nn.Parameter and not loaded["fixed"].requires_grad


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_of_torch_save(tmp_path: Path, protocol: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    loaded = load_checkpoint(save(model.state_dict(), tmp_path / "a.pth", protocol=protocol))
    assert all(equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    assert loaded._metadata == model.state_dict()._metadata
    plain = [frozenset({"a", 2}), {3.5, "b"}, b"x", 1 + 2j, (1, (2,)), {"k": [None, True, -5, 2**40]}, frozenset()]
    assert load_checkpoint(save(plain, tmp_path / "b.pth", protocol=protocol)) == plain


def test_views_that_conjugate_are_refused(tmp_path: Path) -> None:
    path = save({"a": torch.tensor([1 + 2j]).conj()}, tmp_path / "a.pth")  # the file holds 1 + 2j and a mark
    with pytest.raises(CheckpointError, match="conjugate and negative views are not supported"):
        load_checkpoint(path)


@FORMATS
def test_optimizer_state(tmp_path: Path, legacy: bool) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    loaded = load_checkpoint(save(optimizer.state_dict(), tmp_path / "a.pth", legacy))
    assert equal(loaded["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


# ---- loading: nothing runs


@pytest.mark.parametrize("kind", [Touch, HiddenTouch])
@FORMATS
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, legacy: bool, kind: type[Touch]) -> None:
    marker = tmp_path / "marker"
    hub = {"log_scalars": OrderedDict(loss=kind(marker)), "runtime_info": {"epoch": 3}}
    path = save({"state_dict": {"w": torch.ones(2)}, "message_hub": hub}, tmp_path / "a.pth", legacy)
    loaded = load_checkpoint(path)
    assert not marker.exists()
    assert type(loaded["message_hub"]["log_scalars"]["loss"]) is Placeholder
    assert loaded["message_hub"]["runtime_info"] == {"epoch": 3}
    torch.testing.assert_close(find_state_dict(loaded).state_dict["w"], torch.ones(2))
    load_checkpoint(path, trust=True)["message_hub"]["log_scalars"]["loss"].close()
    assert marker.exists()  # the attack is real: the trusting load runs it


@FORMATS
def test_weights_that_need_code_are_refused_by_name(tmp_path: Path, legacy: bool) -> None:
    path = save({"state_dict": {"a": torch.ones(1), "head.weight": Touch(tmp_path / "x")}}, tmp_path / "a.pth", legacy)
    with pytest.raises(CheckpointError) as error:
        find_state_dict(load_checkpoint(path))
    one_line(error, "head.weight", "io.open", "trust=True")
    assert not (tmp_path / "x").exists()


def attacks() -> dict[str, bytes]:
    """Pickles that a full unpickler follows; each ends with a value, so that only refusing can raise."""
    text = lambda value: b"X" + struct.pack("<I", len(value)) + value.encode()  # noqa: E731
    command = text("true") + b"\x85"
    names = {name: f"c{name.replace(' ', chr(10))}\n".encode() for name in ("os system", "builtins getattr")}
    storage = b"ctorch.storage\nUntypedStorage\n"
    short = lambda text: b"\x8c" + bytes([len(text)]) + text.encode()  # noqa: E731
    return {
        "reduce": b"\x80\x02" + names["os system"] + command + b"R.",
        "getattr": b"\x80\x02"
        + names["builtins getattr"]
        + b"cos\nsystem\nX\x08\x00\x00\x00__call__\x86R"
        + command
        + b"R.",
        "dotted": b"\x80\x04" + short("collections") + short("OrderedDict.__init__.__globals__") + b"\x93.",
        "other_module": b"\x80\x04" + short("torch.nn.functional") + short("os.system") + b"\x93" + command + b"R.",
        "newobj": b"\x80\x02csubprocess\nPopen\n" + command + b"\x81.",
        "newobj_ex": b"\x80\x04" + storage + b"K\x08\x85}X\x09\x00\x00\x00allocatorK\x41s\x92.",
        "build": b"\x80\x02ctorch.nn.modules.module\nModule\n)\x81N}X\x0c\x00\x00\x00dump_patches\x88s\x86b.",
        "nested_pickle": b"\x80\x02ctorch.storage\n_load_from_bytes\nC\x04abcd\x85R.",
        "memo": b"\x80\x02cos\nsystem\nq\x00h\x00" + command + b"R.",
        "append": b"\x80\x02cos\nenviron\nX\x01\x00\x00\x00aa.",
        "setitem": b"\x80\x02cos\nenviron\nX\x01\x00\x00\x00aX\x01\x00\x00\x00bs.",
    }


@pytest.mark.parametrize("name", attacks())
@FORMATS
def test_foreign_names_become_placeholders(tmp_path: Path, legacy: bool, name: str, monkeypatch) -> None:
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(f"ran {command}"))
    before = dict(os.environ), dict(vars(nn.Module))
    loaded = load_checkpoint((write_legacy if legacy else write_zip)(tmp_path / "a.pth", attacks()[name]))
    assert type(loaded) is Placeholder
    assert (dict(os.environ), dict(vars(nn.Module))) == before


REFUSED = {
    "old_instance": b"\x80\x02(S'true'\nios\nsystem\n.",
    "object": b"\x80\x02(cos\nsystem\nS'true'\no.",
    "extension": b"\x80\x02\x82\x01.",
    "text_reference": b"\x80\x02Pstorage\n.",
    "out_of_band": b"\x80\x05\x97.",
    "call_of_a_tensor": b"\x80\x02K\x01)R.",
    "state_of_a_list": b"\x80\x02]}X\x01\x00\x00\x00aK\x01sb.",
    "codec": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
    "huge_bytes": b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "cut": b"\x80\x02}X\x01",
    "empty_stack": b"\x80\x02.",
}


@pytest.mark.parametrize("name", REFUSED)
@FORMATS
def test_other_tricks_of_pickle_are_refused(tmp_path: Path, legacy: bool, name: str) -> None:
    path = (write_legacy if legacy else write_zip)(tmp_path / "a.pth", REFUSED[name])
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    one_line(error, "a.pth")


def test_state_of_a_state_dict_cannot_shadow_its_methods(tmp_path: Path) -> None:
    state_dict = OrderedDict(w=torch.ones(1))
    state_dict.values = "shadow"
    state_dict._metadata = {"": {"version": 1}}
    loaded = load_checkpoint(save(state_dict, tmp_path / "a.pth"))
    assert vars(loaded) == {"_metadata": {"": {"version": 1}}}


def crafted(size: int, stride: int, offset: int, numel: int) -> bytes:
    """A pickle of one float32 tensor over storage '0'."""
    number = lambda value: b"J" + struct.pack("<i", value)  # noqa: E731
    reference = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(numel)
    cut = number(offset) + number(size) + b"\x85" + number(stride) + b"\x85\x89N"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + reference + b"tQ" + cut + b"tR."


@pytest.mark.parametrize(
    "numbers", [(9, 1, 0, 8), (2, -1, 1, 8), (2, 1, -1, 8), (-1, 1, 0, 8), (4, 1, 0, 9), (4, 1, 0, 7)]
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path: Path, numbers: tuple[int, int, int, int]) -> None:
    content = torch.arange(8.0).numpy().tobytes()
    good = load_checkpoint(write_zip(tmp_path / "good.pth", crafted(4, 2, 1, 8), {"data/0": content}))
    torch.testing.assert_close(good, torch.tensor([1.0, 3.0, 5.0, 7.0]))
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(write_zip(tmp_path / "bad.pth", crafted(*numbers), {"data/0": content}))
    one_line(error, "bad.pth")


def test_a_cut_legacy_storage_is_refused(tmp_path: Path) -> None:
    keys = pickle.dumps(["0"], 2)
    data = crafted(4, 2, 1, 8).replace(b"J\x08\x00\x00\x00t", b"J\x08\x00\x00\x00Nt")
    good = write_legacy(tmp_path / "good.pth", data, keys + struct.pack("<q", 8) + torch.arange(8.0).numpy().tobytes())
    torch.testing.assert_close(load_checkpoint(good), torch.tensor([1.0, 3.0, 5.0, 7.0]))
    for tail in (keys + struct.pack("<q", 8) + bytes(31), keys + struct.pack("<q", 7) + bytes(32), b""):
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(write_legacy(tmp_path / "bad.pth", data, tail))
        one_line(error, "bad.pth")


@FORMATS
def test_a_damaged_pickle_ends_in_one_line(tmp_path: Path, legacy: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    good = save({"state_dict": model.state_dict(), "meta": {"a": (1, {2})}}, tmp_path / "good.pth", legacy)
    head = 1500 if legacy else 0  # of the legacy file, only what comes before the weights
    content = good.read_bytes() if legacy else zipfile.ZipFile(good).read("good/data.pkl")
    records = {} if legacy else {f"data/{i}": zipfile.ZipFile(good).read(f"good/data/{i}") for i in range(7)}
    random, failures = np.random.default_rng(0), 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[random.integers(head or len(damaged))] = random.integers(256)
        path = tmp_path / "bad.pth"
        path.write_bytes(damaged) if legacy else write_zip(path, bytes(damaged), records)
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            failures += 1
    assert 50 < failures < 150


def test_a_legacy_pickled_model_writes_no_patch_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "a.pth", legacy=True)
    loaded = load_checkpoint(path)
    assert type(loaded) is Placeholder and loaded.name == "torch.nn.modules.container.Sequential"
    assert os.listdir(tmp_path) == ["a.pth"]


# ---- loading: files that are none


def file_of(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.pth"
    if kind == "folder":
        path.mkdir()
    elif kind == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.script(nn.Linear(2, 2)).save(str(path))
    elif kind == "truncated":
        path.write_bytes(save({"w": torch.ones(1000)}, path).read_bytes()[:-700])
    elif kind == "flipped":
        content = bytearray(save({"w": torch.zeros(1000)}, path).read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"w": np.ones(2)}, 2))
    elif kind == "foreign_zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif kind == "doubled":
        save({"w": torch.zeros(3)}, path)
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            name = next(name for name in archive.namelist() if name.endswith("/data/0"))
            archive.writestr(name, torch.ones(3).numpy().tobytes())
    elif kind == "compressed":
        write_zip(path, pickle.dumps({}, 2), compression=zipfile.ZIP_DEFLATED)
    elif kind != "missing":
        contents = {"empty": b"", "text": b"version https://git-lfs\n", "image": b"\x89PNG\r\n\x1a\n" + bytes(99)}
        path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize("trust", [False, True], ids=["safe", "trust"])
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("folder", "folder"),
        ("empty", "empty"),
        ("text", "version https"),
        ("image", "PNG"),
        ("truncated", ""),
        ("pickle", ""),
        ("torchscript", "TorchScript"),
        ("foreign_zip", "torch.save did not write"),
    ],
)
def test_a_file_that_is_no_checkpoint(tmp_path: Path, kind: str, says: str, trust: bool) -> None:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(file_of(kind, tmp_path), trust)
    one_line(error, kind, says)


@pytest.mark.parametrize(
    ("kind", "says"),
    [("flipped", "CRC"), ("compressed", "compressed"), ("doubled", "one name"), ("pickle", "torch.save")],
)
def test_a_damaged_or_repacked_file(tmp_path: Path, kind: str, says: str) -> None:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(file_of(kind, tmp_path))
    one_line(error, kind, says)


def test_mapped_tensors_are_views_that_never_change_the_file(tmp_path: Path) -> None:
    saved = {"w": torch.arange(1000.0), "half": torch.ones(3).half(), "empty": torch.empty(0), "n": torch.tensor(7)}
    path = save(saved, tmp_path / "a.pth")
    before = path.read_bytes()
    mapped = load_checkpoint(path, mapped=True)
    torch.testing.assert_close(mapped, saved, rtol=0, atol=0)
    mapped["w"].zero_()
    assert path.read_bytes() == before
    copied = load_checkpoint(path)
    path.write_bytes(bytes(len(before)))  # in place: the copy must not notice
    torch.testing.assert_close(copied, saved, rtol=0, atol=0)


@pytest.mark.parametrize("mapped", [False, True], ids=["copied", "mapped"])
def test_a_flipped_bit_is_noticed(tmp_path: Path, mapped: bool) -> None:
    with pytest.raises(CheckpointError, match="CRC"):
        load_checkpoint(file_of("flipped", tmp_path), mapped=mapped)


def test_a_flipped_bit_in_a_name_is_noticed(tmp_path: Path) -> None:
    path = save({"a_long_name": torch.zeros(1)}, tmp_path / "a.pth")
    path.write_bytes(path.read_bytes().replace(b"a_long_name", b"a_long_namf"))
    with pytest.raises(CheckpointError, match=r"data\.pkl' is damaged: its CRC"):
        load_checkpoint(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        load_checkpoint(file_of("missing", tmp_path))
    one_line(error, "missing.pth")


# ---- saving


def test_save_is_read_back_by_torch_and_by_us(tmp_path: Path) -> None:
    path = tmp_path / "out.pth"
    save_checkpoint({"state_dict": tensors(), "meta": {"epoch": 1}}, path)
    for loaded in (torch.load(path, weights_only=True), load_checkpoint(str(path))):
        assert all(equal(loaded["state_dict"][name], tensor) for name, tensor in tensors().items())
    assert os.listdir(tmp_path) == ["out.pth"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask  # readable by whom the user lets, as torch.save does


def test_an_existing_file_stays_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "out.pth"
    save_checkpoint({"w": torch.zeros(1)}, path)
    with pytest.raises(FileExistsError) as error:
        save_checkpoint({"w": torch.ones(1)}, path)
    one_line(error, "out.pth", "force=True")
    assert load_checkpoint(path)["w"] == 0
    save_checkpoint({"w": torch.ones(1)}, path, force=True)
    assert load_checkpoint(path)["w"] == 1


def test_a_loaded_file_may_be_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.pth"
    save_checkpoint({"w": torch.zeros(1 << 20)}, path)
    loaded = load_checkpoint(path)
    save_checkpoint({"w": loaded["w"] + 1}, path, force=True)
    path.write_bytes(b"")
    torch.testing.assert_close(loaded["w"], torch.zeros(1 << 20))


def test_a_failed_save_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.pth"
    save_checkpoint({"w": torch.zeros(1)}, path)
    with pytest.raises(TypeError, match=r"os\.system"):  # half of it is written by then
        save_checkpoint({"w": torch.ones(1), "x": Placeholder("os.system")}, path, force=True)
    assert os.listdir(tmp_path) == ["out.pth"] and load_checkpoint(path)["w"] == 0


def test_where_nothing_can_be_saved(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        save_checkpoint({}, tmp_path / "no" / "out.pth")
    one_line(missing, str(tmp_path / "no"))
    with pytest.raises(CheckpointError) as folder:
        save_checkpoint({}, tmp_path, force=True)
    one_line(folder, str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_torchs_first_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(bytes(257) + b"ustar" + bytes(250))
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "a.pth")
    one_line(error, "tar format", "trust=True")


def test_tensors_of_a_big_endian_machine_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", pickle.dumps({}, 2), {"byteorder": b"big"})
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    one_line(error, "big-endian")


def test_a_record_that_is_not_where_the_zip_says(tmp_path: Path) -> None:
    path = save({"w": torch.zeros(3)}, tmp_path / "a.pth")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x03\x04", 0, content.index(b"data/0"))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    one_line(error, "data/0", "not where the zip says")


def test_a_call_of_what_is_no_class(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(write_zip(tmp_path / "a.pth", b"\x80\x04N)}\x92."))
    one_line(error, "a call of a NoneType")


def test_a_call_with_too_many_arguments(tmp_path: Path) -> None:
    call = b"\x80\x02ccollections\nOrderedDict\n(" + 11 * b"K\x01" + b"tR."
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(write_zip(tmp_path / "a.pth", call))
    one_line(error, "a call with 11 arguments")


@pytest.mark.parametrize("depth", [200, 20_000])
def test_what_is_nested_too_deeply_is_called_so(tmp_path: Path, depth: int) -> None:
    nested = b"\x80\x02" + depth * b"]" + (depth - 1) * b"a" + b"."
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(write_zip(tmp_path / "a.pth", nested))
    one_line(error, "nested too deeply")
