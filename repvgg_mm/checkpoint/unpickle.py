"""Unpickle a checkpoint without running anything in it.

A pickle is a program: it may import any function and call it. Training checkpoints of mmengine do (history buffers,
numpy scalars), so refusing every file with a foreign name in it would refuse them all. Here every name becomes a
placeholder that does nothing, except the few below that build tensors and plain containers. What the file would have
given to a name stays beside it as plain data, so that whoever knows the kind can read its numbers.

A pickle can also be a bomb: a few bytes that build, hash or print for ever. What is built is charged to the size of the
file, keys are texts and numbers, and what comes out must be about as large, written out as a tree, as the pickle.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Sized
from typing import Any, BinaryIO, ClassVar, NoReturn

import torch
from torch import Tensor

from .extent import check_extent

_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_STORAGE_DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.storage.UntypedStorage": torch.uint8,
}


class Placeholder:
    """What stands in the loaded object for anything that was not built: a class, a function, or what they return.

    Args:
        name: Full name of the class or function in the file.
        args: What the file would have called it with; nothing has looked at them.

    Attributes:
        state: What the file would have set on the result. Neither it nor ``args`` is measured: a reader must take
            single values out of them and check the type of each.
    """

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] = ()) -> None:
        """Keep the name and the arguments."""
        self.name = name
        self.args = args
        self.state: Any = None

    def __repr__(self) -> str:
        """Name what was not loaded."""
        return f"<{self.name}, not loaded>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be saved: the file would name this class instead of what it stands for."""
        raise TypeError(f"{self!r} cannot be saved; drop_placeholders() removes it")


def _rebuild_tensor(
    flat: Tensor,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = False,
    hooks: object = None,
    metadata: object = None,
) -> Tensor:
    """Cut a tensor out of its storage; `as_strided` checks that it lies inside. Hooks would be code: not kept."""
    if metadata:
        raise pickle.UnpicklingError("conjugate and negative views are not supported")
    return flat.as_strided(size, stride, offset).detach().requires_grad_(requires_grad)


def _rebuild_tensor_v3(
    flat: Tensor,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    hooks: object,
    dtype: torch.dtype,
    metadata: object = None,
) -> Tensor:
    """Cut out a tensor of a dtype that has no storage class of its own (float8, unsigned integers)."""
    return _rebuild_tensor(flat.view(dtype), offset, size, stride, requires_grad, hooks, metadata)


def _rebuild_parameter(data: Tensor, requires_grad: bool, hooks: object) -> torch.nn.Parameter:
    return torch.nn.Parameter(data, requires_grad)


def _to_bytes(text: str | bytes = "", encoding: str = "latin1") -> bytes:
    """Undo how pickle's protocol 2 writes bytes: as text, one character a byte."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text if isinstance(text, bytes) else text.encode("latin1")


def _keys(items: Any) -> Any:
    """Refuse keys that hash slowly or alike: nested tuples take 2 ** depth steps, crafted ones fall into one bucket."""
    for item in items:
        if isinstance(item, tuple | frozenset | complex) or (type(item) is int and item.bit_length() > 64):
            raise pickle.UnpicklingError(f"a key or an item of a set that is a {type(item).__name__}")
    return items


def _ordered_dict(pairs: Any = ()) -> OrderedDict[Any, Any]:
    _keys(key for key, _ in pairs)
    return OrderedDict(pairs)


# The only functions a file can have called. The file never holds them: it holds placeholders of these names.
_BUILDERS: dict[str, Callable[..., object]] = {
    "_codecs.encode": _to_bytes,
    "builtins.bytearray": lambda *args: bytearray(_to_bytes(*args)),
    "builtins.bytes": _to_bytes,
    "builtins.complex": complex,
    "builtins.frozenset": lambda items=(): frozenset(_keys(items)),
    "builtins.set": lambda items=(): set(_keys(items)),
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
}
_COST, _TENSOR_COST = 8, 64  # of one call in bytes; torch.save never needs fewer to write it down
_SLACK = 1 << 20
_LONGEST_NAME, _MOST_ARGS = 1000, 10

# Every other operation of pickle is refused: old-style instances, the extension registry, out-of-band buffers.
_OPCODES = """
    MARK STOP POP POP_MARK DUP PROTO FRAME MEMOIZE GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE LIST EMPTY_LIST EMPTY_DICT EMPTY_SET
    GLOBAL STACK_GLOBAL BINPERSID
""".split()


class PlainUnpickler(pickle._Unpickler):
    """An unpickler that can build the kinds in `_BUILDERS` and placeholders, nothing else.

    It extends Python's own implementation, not the C one, as only there the operations that call or change an
    object (REDUCE, NEWOBJ, BUILD, APPEND, SETITEM ...) can be replaced.

    Args:
        file: Where to read from.
        size: Of the whole file, bytes: bounds what can be built.
        load_storage: Called as `(dtype, key, numel, ...)` for a reference to a storage; returns it as a 1-D tensor.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {}
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: BinaryIO, size: int, load_storage: Callable[..., Tensor] | None = None) -> None:
        """Open one pickle; a file of torch < 1.6 holds five."""
        super().__init__(file, encoding="utf-8")
        self._file = file
        self._budget = 2 * size + _SLACK
        self._load_storage = load_storage

    def load(self) -> Any:
        """Build the object; refuse one that contains itself, is nested too deeply, or is huge written out."""
        start = self._file.tell()
        result = super().load()
        check_extent(result, self._file.tell() - start)
        return result

    def find_class(self, module: str, name: str) -> object:
        """Give a placeholder, or a dtype. Nothing is imported and no attribute is looked up."""
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if len(module) + len(name) > _LONGEST_NAME:
            raise pickle.UnpicklingError(f"the name of a class that has {len(module) + len(name)} letters")
        return Placeholder(f"{'builtins' if module == '__builtin__' else module}.{name}")

    def persistent_load(self, pid: Any) -> object:
        """Give the storage that torch's persistent id `('storage', type, key, location, numel)` names."""
        if type(pid) is not tuple or len(pid) > _MOST_ARGS or self._load_storage is None:
            raise pickle.UnpicklingError(f"an unexpected reference of type {type(pid).__name__}")
        if pid[0] == "module":  # torch < 1.6 saved the class of a pickled model along with its source text
            return pid[1]
        kind, storage_type, key, _, numel, *view = pid
        if kind != "storage" or type(storage_type) is not Placeholder or type(key) is not str or type(numel) is not int:
            raise pickle.UnpicklingError("a reference to something else than a storage")
        dtype = _STORAGE_DTYPES.get(storage_type.name)
        return storage_type if dtype is None else self._load_storage(dtype, key, numel, *view)

    def _call(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Placeholder or type(args) is not tuple:
            raise pickle.UnpicklingError(f"a call of a {type(function).__name__}")
        builder = _BUILDERS.get(function.name)
        if builder is not None and len(args) > _MOST_ARGS:
            raise pickle.UnpicklingError(f"a call with {len(args)} arguments")
        if builder is None:
            self.stack.append(Placeholder(function.name, args))
        else:
            # Without this, five bytes could copy the longest text of the file, or make one number a tensor of any size.
            self._spend(_TENSOR_COST if function.name.startswith("torch._utils.") else _COST)
            self._spend(sum(len(arg) for arg in args if isinstance(arg, Sized) and not isinstance(arg, Tensor)))
            missing = next((arg for arg in args if type(arg) is Placeholder), None)
            result = builder(*args) if missing is None else missing
            if type(result) is Tensor:
                self._spend(max(0, math.prod(result.shape) - len(result.untyped_storage())))
            self.stack.append(result)

    def _spend(self, cost: int) -> None:
        self._budget -= cost
        if self._budget < 0:
            raise pickle.UnpicklingError("it builds more than a file of its size can hold")

    def _call_with_keywords(self) -> None:
        _, _, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if type(cls) is not Placeholder:
            raise pickle.UnpicklingError(f"a call of a {type(cls).__name__}")
        self.stack.append(Placeholder(cls.name))

    def _set_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is OrderedDict and type(state) is dict:
            if "_metadata" in state:  # a state dict's module versions
                vars(target)["_metadata"] = state["_metadata"]
        elif type(target) is Placeholder:
            target.state = state
        else:
            raise pickle.UnpicklingError(f"attributes for a plain {type(target).__name__}")

    def _fill(self, items: list[Any]) -> None:
        """Put items into the list, set or dict on top of the stack; a placeholder swallows them."""
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is set:
            target.update(_keys(items))
        elif type(target) in (dict, OrderedDict):
            target.update(zip(_keys(items[::2]), items[1::2], strict=True))
        elif type(target) is not Placeholder:
            raise pickle.UnpicklingError(f"items for a {type(target).__name__}")

    def _fill_from_mark(self) -> None:
        self._fill(self.pop_mark())

    def _fill_one(self) -> None:
        self._fill([self.stack.pop()])

    def _fill_pair(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def _make_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._fill(items)

    def _make_frozenset(self) -> None:
        items = self.pop_mark()  # puts another list in the place of the stack
        self.stack.append(frozenset(_keys(items)))

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("an operation of pickle that torch.save does not write")


PlainUnpickler.dispatch = (
    dict.fromkeys(range(256), PlainUnpickler._refuse)
    | {getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _OPCODES}
    | {
        pickle.REDUCE[0]: PlainUnpickler._call,
        pickle.NEWOBJ[0]: PlainUnpickler._call,
        pickle.NEWOBJ_EX[0]: PlainUnpickler._call_with_keywords,
        pickle.BUILD[0]: PlainUnpickler._set_state,
        pickle.DICT[0]: PlainUnpickler._make_dict,
        pickle.FROZENSET[0]: PlainUnpickler._make_frozenset,
        pickle.APPEND[0]: PlainUnpickler._fill_one,
        pickle.APPENDS[0]: PlainUnpickler._fill_from_mark,
        pickle.ADDITEMS[0]: PlainUnpickler._fill_from_mark,
        pickle.SETITEM[0]: PlainUnpickler._fill_pair,
        pickle.SETITEMS[0]: PlainUnpickler._fill_from_mark,
    }
)
