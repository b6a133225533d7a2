"""Damage: to the bytes of a file, to the records of a zip, and to the tensors of a state dict. All of it by seed."""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from collections.abc import Callable

import torch
from torch import Tensor

State = dict[str, object]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """Flip one to eight bits anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_bits_at_an_end(data: bytes, rng: random.Random) -> bytes:
    """Flip a bit in the first or the last kilobyte, where headers and directories are."""
    changed, near = bytearray(data), min(1024, len(data))
    at = rng.randrange(near) if rng.random() < 0.5 else len(data) - 1 - rng.randrange(near)
    changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cut the end off."""
    return data[: rng.randrange(len(data))]


def cut_out(data: bytes, rng: random.Random) -> bytes:
    """Take a stretch out of the middle."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 4096) :]


def zero_out(data: bytes, rng: random.Random) -> bytes:
    """Overwrite a stretch with zeros, as a block that was never written."""
    start, length = rng.randrange(len(data)), rng.randrange(1, 4097)
    stretch = data[start : start + length]
    return data[:start] + bytes(len(stretch)) + data[start + length :]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Put random bytes in between, or behind."""
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.randrange(1, 64)) + data[start:]


def swap_stretches(data: bytes, rng: random.Random) -> bytes:
    """Exchange two stretches of equal length."""
    length = min(rng.choice([1, 16, 512, 4096]), len(data) // 4)
    first = rng.randrange(len(data) // 2 - length)
    second = rng.randrange(len(data) // 2, len(data) - length)
    middle = data[first + length : second]
    a, b = data[first : first + length], data[second : second + length]
    return data[:first] + b + middle + a + data[second + length :]


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flip_bits, flip_bits, flip_bits_at_an_end, flip_bits_at_an_end, truncate),
    *(cut_out, zero_out, insert, swap_stretches),
)


def rewrite_records(data: bytes, rng: random.Random) -> bytes:
    """Write the zip anew, with valid check sums: records exchanged, dropped, doubled, compressed, renamed or cut."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    kind = rng.choice(["exchange", "drop", "double", "compress", "rename", "cut"])
    at, other = rng.randrange(len(records)), rng.randrange(len(records))
    name, content = records[at]
    if kind == "exchange":
        records[at], records[other] = (name, records[other][1]), (records[other][0], content)
    elif kind == "drop":
        del records[at]
    elif kind == "double":
        records.append((name, records[other][1]))
    elif kind == "rename":
        records[at] = (name[:-1] + rng.choice("0123456789x"), content)
    elif kind == "cut":
        records[at] = (name, content[: rng.randrange(len(content) + 1)])
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of records of one name
        for index, (name, content) in enumerate(records):
            compressed = kind == "compress" and index == at
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED)
    return target.getvalue()


def _key(state: State, rng: random.Random) -> str:
    return rng.choice(list(state))


def rename_key(state: State, rng: random.Random) -> State:
    """Misspell a key."""
    key = _key(state, rng)
    at = rng.randrange(len(key))
    return {(k[:at] + rng.choice("abx0129._") + k[at + 1 :] if k == key else k): v for k, v in state.items()}


def exchange_keys(state: State, rng: random.Random) -> State:
    """Exchange two tensors."""
    a, b = _key(state, rng), _key(state, rng)
    return {**state, a: state[b], b: state[a]}


def drop_keys(state: State, rng: random.Random) -> State:
    """Leave out one key, or all of a module."""
    key = _key(state, rng)
    gone = key if rng.random() < 0.5 else key.rsplit(".", 1)[0] + "."
    return {k: v for k, v in state.items() if not k.startswith(gone)}


def add_key(state: State, rng: random.Random) -> State:
    """Add a tensor that no RepVGG block has, or the deployed form beside the other."""
    block = next(iter([k for k in state if "rbr_dense" in k] or [_key(state, rng)])).split("rbr_dense")[0]
    name = rng.choice(["rbr_dense.conv.bias", "rbr_reparam.weight", "rbr_dense.lora", "rbr_3x1.conv.weight", "alpha"])
    return {**state, block + name: torch.ones(8)}


def change_dtype(state: State, rng: random.Random) -> State:
    """Change the dtype of one tensor, or of all."""
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
    dtype, only = rng.choice(kinds), _key(state, rng) if rng.random() < 0.7 else None
    return {k: v.to(dtype) if isinstance(v, Tensor) and only in (None, k) else v for k, v in state.items()}


def change_shape(state: State, rng: random.Random) -> State:
    """Give a tensor another shape or strides, or none of its elements."""
    key = _key(state, rng)
    value = state[key]
    assert isinstance(value, Tensor)
    shapes: list[Callable[[Tensor], Tensor]] = [
        lambda t: t.flatten(),
        lambda t: t.transpose(0, -1) if t.dim() else t,
        lambda t: t[:-1] if t.dim() else t,
        lambda t: t[None],
        lambda t: t[:0] if t.dim() else t[None][:0],
        lambda t: torch.cat([t, t]) if t.dim() else t,
        lambda t: t.flatten()[:1].expand(t.shape) if t.dim() else t,  # one element, shown many times
        lambda t: t.transpose(-1, -2) if t.dim() > 2 else t,
    ]
    return {**state, key: rng.choice(shapes)(value)}


def spoil_values(state: State, rng: random.Random) -> State:
    """Put a NaN, an infinity, a huge or a negative number into a tensor."""
    floating = [k for k, v in state.items() if isinstance(v, Tensor) and v.is_floating_point() and v.numel()]
    if not floating:
        return state
    key = rng.choice(floating)
    value = state[key]
    assert isinstance(value, Tensor)
    spoilt = value.clone(memory_format=torch.contiguous_format)
    spoilt.view(-1)[rng.randrange(spoilt.numel())] = rng.choice([float("nan"), float("inf"), -float("inf"), 3e38, -1.0])
    return {**state, key: spoilt}


def put_something_else(state: State, rng: random.Random) -> State:
    """Put something that is no plain tensor in the place of one."""
    key = _key(state, rng)
    tensor = state[key]
    assert isinstance(tensor, Tensor)
    others = [None, 3, "text", [tensor], {"a": tensor}, tensor.to_sparse() if tensor.dim() else 1.0, torch.Size([3])]
    return {**state, key: rng.choice(others)}


def prefix_keys(state: State, rng: random.Random) -> State:
    """Put a prefix before all keys, or before most."""
    prefix, share = rng.choice(["module.", "backbone.", "model.", "x."]), rng.choice([1.0, 0.9])
    return {(prefix + k if rng.random() <= share else k): v for k, v in state.items()}


STATES: tuple[Callable[[State, random.Random], State], ...] = (
    *(rename_key, exchange_keys, drop_keys, add_key, change_dtype, change_shape, spoil_values),
    *(put_something_else, prefix_keys),
)
