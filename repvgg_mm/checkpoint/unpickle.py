"""Unpickle a checkpoint without running anything in it.

A pickle is a program: it may import any function and call it. Training checkpoints of mmengine do (history buffers,
numpy scalars), so refusing every file with a foreign name in it would refuse them all. Here every name becomes a
placeholder that does nothing, except the few below that build tensors and plain containers.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar, NoReturn

import torch
from torch import Tensor

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
        name: Full name of the class or function in the file, for messages.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        """Keep the name."""
        self.name = name

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


# The only functions a file can have called. The file never holds them: it holds placeholders of these names.
_BUILDERS: dict[str, Callable[..., object]] = {
    "_codecs.encode": _to_bytes,
    "builtins.bytearray": lambda *args: bytearray(_to_bytes(*args)),
    "builtins.bytes": _to_bytes,
    "builtins.complex": complex,
    "builtins.frozenset": frozenset,
    "builtins.set": set,
    "collections.OrderedDict": OrderedDict,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
}

# Every other operation of pickle is refused: old-style instances, the extension registry, out-of-band buffers.
_OPCODES = """
    MARK STOP POP POP_MARK DUP PROTO FRAME MEMOIZE GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE LIST EMPTY_LIST DICT EMPTY_DICT FROZENSET EMPTY_SET
    GLOBAL STACK_GLOBAL BINPERSID
""".split()


class PlainUnpickler(pickle._Unpickler):
    """An unpickler that can build the kinds in `_BUILDERS` and placeholders, nothing else.

    It extends Python's own implementation, not the C one, as only there the operations that call or change an
    object (REDUCE, NEWOBJ, BUILD, APPEND, SETITEM ...) can be replaced.

    Args:
        file: Where to read from.
        load_storage: Called as `(dtype, key, numel, ...)` for a reference to a storage; returns it as a 1-D tensor.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {}
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: BinaryIO, load_storage: Callable[..., Tensor] | None = None) -> None:
        """Open one pickle; a file of torch < 1.6 holds five."""
        super().__init__(file, encoding="utf-8")
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> object:
        """Give a placeholder, or a dtype. Nothing is imported and no attribute is looked up."""
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        return Placeholder(f"{'builtins' if module == '__builtin__' else module}.{name}")

    def persistent_load(self, pid: Any) -> object:
        """Give the storage that torch's persistent id `('storage', type, key, location, numel)` names."""
        if type(pid) is not tuple or self._load_storage is None:
            raise pickle.UnpicklingError(f"an unexpected reference {pid!r:.80}")
        if pid[0] == "module":  # torch < 1.6 saved the class of a pickled model along with its source text
            return pid[1]
        kind, storage_type, key, _, numel, *view = pid
        if kind != "storage" or type(storage_type) is not Placeholder or type(key) is not str or type(numel) is not int:
            raise pickle.UnpicklingError(f"an unexpected reference {pid!r:.80}")
        dtype = _STORAGE_DTYPES.get(storage_type.name)
        return storage_type if dtype is None else self._load_storage(dtype, key, numel, *view)

    def _call(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Placeholder or type(args) is not tuple:
            raise pickle.UnpicklingError(f"a call of {type(function).__name__} {function!r:.80}")
        builder = _BUILDERS.get(function.name)
        missing = next((arg for arg in args if type(arg) is Placeholder), None)
        if builder is None:
            self.stack.append(Placeholder(function.name))
        else:
            self.stack.append(builder(*args) if missing is None else missing)

    def _call_with_keywords(self) -> None:
        _, _, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if type(cls) is not Placeholder:
            raise pickle.UnpicklingError(f"a call of {type(cls).__name__} {cls!r:.80}")
        self.stack.append(Placeholder(cls.name))

    def _set_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is OrderedDict and type(state) is dict:
            if "_metadata" in state:  # a state dict's module versions
                vars(target)["_metadata"] = state["_metadata"]
        elif type(target) is not Placeholder:
            raise pickle.UnpicklingError(f"attributes for a plain {type(target).__name__}")

    def _fill(self, items: list[Any]) -> None:
        """Put items into the list, set or dict on top of the stack; a placeholder swallows them."""
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is set:
            target.update(items)
        elif type(target) in (dict, OrderedDict):
            target.update(zip(items[::2], items[1::2], strict=True))
        elif type(target) is not Placeholder:
            raise pickle.UnpicklingError(f"items for a {type(target).__name__}")

    def _fill_from_mark(self) -> None:
        self._fill(self.pop_mark())

    def _fill_one(self) -> None:
        self._fill([self.stack.pop()])

    def _fill_pair(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

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
        pickle.APPEND[0]: PlainUnpickler._fill_one,
        pickle.APPENDS[0]: PlainUnpickler._fill_from_mark,
        pickle.ADDITEMS[0]: PlainUnpickler._fill_from_mark,
        pickle.SETITEM[0]: PlainUnpickler._fill_pair,
        pickle.SETITEMS[0]: PlainUnpickler._fill_from_mark,
    }
)
