"""The pickle inside a file of torch, read without torch and without building what it describes.

What comes out is the plain data as it stands, and in the place of each tensor what the file says of it. So a file can
be judged before a byte of a tensor is read: torch itself believes sizes, lengths and memo numbers as they are written.
"""

import pickletools
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

__all__ = ["ArrayOutline", "PickleContentError", "StorageOutline", "TensorOutline", "read_pickle_outline"]

MAX_OPERATIONS = 1_000_000  # some 2 s of reading; a checkpoint of a large model has 100,000
MAX_LENGTH = 2**48  # of a side of a tensor: far beyond any memory, and sums of products stay exact and quick
_ITEM_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex32": 4, "complex64": 8, "complex128": 16,
}  # fmt: skip
_STORAGE_DTYPES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "Untyped": "uint8", "QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32",
    "QUInt4x2": "quint4x2", "QUInt2x4": "quint2x4",
}  # fmt: skip
_UNUSUAL_TENSORS = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_qtensor": "quantized",
    "_rebuild_meta_tensor_no_storage": "without data (on the meta device)",
    "_rebuild_parameter_with_state": "with attributes of its own",
    "_rebuild_wrapper_subclass": "of a class of its own",
    "_rebuild_from_type_v2": "of a class of its own",
    "_rebuild_device_tensor_from_numpy": "of another device",
    "_rebuild_device_tensor_from_cpu_tensor": "of another device",
}
_DENSE_TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
_PLAIN_ARRAY = re.compile(r"[|<>=]?(\?|[biuf][1248])")


@dataclass(frozen=True, slots=True)
class StorageOutline:
    """The memory that tensors lie in: its name in the file, the type of its numbers, and how many there are of them."""

    key: str
    dtype: str
    num_items: int

    @property
    def num_bytes(self) -> int:
        """Bytes of it; of types that are not known here each number counts as one."""
        return self.num_items * _ITEM_BYTES.get(self.dtype, 1)


@dataclass(frozen=True, slots=True)
class TensorOutline:
    """What a file says of a tensor.

    Attributes:
        dtype: Such as ``float32``.
        shape: Its shape.
        stride: Of each axis, in items.
        offset: Of its first item in its storage.
        storage: Its memory; None where it has none.
        unusual: In words, what sets it apart from a plain dense tensor with memory of its own; empty for such a one.
    """

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...] = ()
    offset: int = 0
    storage: StorageOutline | None = None
    unusual: str = ""

    @property
    def num_bytes(self) -> int:
        """Bytes of its numbers."""
        number = _ITEM_BYTES.get(self.dtype, 1)
        for length in self.shape:
            number *= length
        return number


@dataclass(slots=True)
class ArrayOutline:
    """What a file says of a NumPy array; it is complete once its state is read."""

    complete: bool = False


@dataclass(slots=True)
class _ArrayType:
    """A NumPy data type, with its byte order once that is read."""

    code: str


@dataclass(frozen=True, slots=True)
class _Name:
    """A class or function that the pickle names."""

    path: str


class PickleContentError(ValueError):
    """The pickle holds more than tensors and plain data; the message says what."""


class _Bounded:
    """An open file of which no more than so many bytes may be read: a pickle can ask for 4 GB at once."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self.file, self.left = file, max_bytes

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise ValueError("its description of tensors is cut off, or too long")
        return self.file.read(size)

    def readline(self) -> bytes:
        line = self.file.readline(1000)
        self.left -= len(line)
        return line


def read_pickle_outline(file: IO[bytes], *, max_bytes: int) -> tuple[Any, list[TensorOutline]]:
    """Read one pickle of torch from an open file.

    Args:
        file: It is left behind the end of the pickle.
        max_bytes: How much of the file may be read, and how much memory its strings and arrays may take together, since
            each part of it can be named many times.

    Returns:
        The plain data with outlines in place of tensors and arrays, and all tensors.

    Raises:
        PickleContentError: If it holds anything else; the message says what.
        ValueError: If it is no whole pickle.
    """
    return _Machine(max_bytes).run(_Bounded(file, max_bytes))


class _Machine:
    """The few operations of pickle that torch's files need; any other is refused."""

    def __init__(self, max_bytes: int) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.tensors: list[TensorOutline] = []
        self.bytes_left = max_bytes

    def run(self, file: _Bounded) -> tuple[Any, list[TensorOutline]]:
        steps: dict[str, Callable[[Any], None]] = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }
        try:
            for number, (operation, argument, _) in enumerate(pickletools.genops(file)):  # type: ignore[arg-type]
                if number >= MAX_OPERATIONS:
                    raise PickleContentError(f"more than {MAX_OPERATIONS:,} values")
                name = operation.name
                if name == "STOP":
                    return self.stack.pop(), self.tensors
                if name in _CONSTANTS:
                    self.stack.append(_CONSTANTS[name])
                elif name in _NUMBERS_AND_TEXT:
                    self.stack.append(argument)
                elif name in steps:
                    steps[name](argument)
                else:
                    raise PickleContentError(f"the operation {name} of pickle")
        except (IndexError, KeyError, TypeError) as error:  # of a stack, memo or argument that is not there
            raise ValueError(f"its description of tensors is damaged ({type(error).__name__})") from error
        raise ValueError("its description of tensors is cut off")

    # --- what every pickle does; the names are those of pickletools ---

    def do_PROTO(self, version: int) -> None:  # noqa: N802
        if version != 2:
            raise PickleContentError(f"a pickle of protocol {version}, where torch writes 2")

    def do_MARK(self, _: None) -> None:  # noqa: N802
        self.marked.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def do_BINPUT(self, place: int) -> None:  # noqa: N802
        self.memo[place] = self.stack[-1]

    def do_BINGET(self, place: int) -> None:  # noqa: N802
        self.stack.append(self.memo[place])

    def do_LONG_BINPUT(self, place: int) -> None:  # noqa: N802
        self.do_BINPUT(place)

    def do_LONG_BINGET(self, place: int) -> None:  # noqa: N802
        self.do_BINGET(place)

    def do_EMPTY_LIST(self, _: None) -> None:  # noqa: N802
        self.stack.append([])

    def do_EMPTY_DICT(self, _: None) -> None:  # noqa: N802
        self.stack.append({})

    def do_EMPTY_SET(self, _: None) -> None:  # noqa: N802
        self.stack.append(set())

    def do_APPEND(self, _: None) -> None:  # noqa: N802
        value = self.stack.pop()
        _of_type(self.stack[-1], list).append(value)

    def do_APPENDS(self, _: None) -> None:  # noqa: N802
        values = self._since_mark()
        _of_type(self.stack[-1], list).extend(values)

    def do_SETITEM(self, _: None) -> None:  # noqa: N802
        value, key = self.stack.pop(), self.stack.pop()
        _of_type(self.stack[-1], dict)[_key(key)] = value

    def do_SETITEMS(self, _: None) -> None:  # noqa: N802
        items = self._since_mark()
        target = _of_type(self.stack[-1], dict)
        for place in range(0, len(items), 2):
            target[_key(items[place])] = items[place + 1]

    def do_TUPLE(self, _: None) -> None:  # noqa: N802
        items = tuple(self._since_mark())
        self.stack.append(items)

    def _last_as_tuple(self, number: int) -> None:
        if len(self.stack) < number:
            raise IndexError(number)
        self.stack[-number:] = [tuple(self.stack[-number:])]

    def do_TUPLE1(self, _: None) -> None:  # noqa: N802
        self._last_as_tuple(1)

    def do_TUPLE2(self, _: None) -> None:  # noqa: N802
        self._last_as_tuple(2)

    def do_TUPLE3(self, _: None) -> None:  # noqa: N802
        self._last_as_tuple(3)

    # --- what torch and NumPy do with it ---

    def do_GLOBAL(self, named: str) -> None:  # noqa: N802
        module, _, name = named.partition(" ")
        path = f"{'builtins' if module == '__builtin__' else module}.{name}"  # as Python 2 called it
        if not (path in _KNOWN or _STORAGE.fullmatch(path) or _DTYPE.fullmatch(path) or path in _ARRAY_NAMES):
            raise PickleContentError(_shortened(path))
        self.stack.append(_Name(path))

    def do_BINPERSID(self, _: None) -> None:  # noqa: N802
        kind, storage_type, key, location, num_items, *view = self.stack.pop()
        found = _STORAGE.fullmatch(_of_type(storage_type, _Name).path)
        if kind != "storage" or found is None or any(part is not None for part in view):
            raise PickleContentError("a reference to something other than a tensor's memory")
        _of_type(location, str)
        if found[1] not in _STORAGE_DTYPES:
            raise PickleContentError(f"memory of the type {_shortened(found[1])}")
        self.stack.append(StorageOutline(_of_type(key, str), _STORAGE_DTYPES[found[1]], _length(num_items)))

    def do_REDUCE(self, _: None) -> None:  # noqa: N802
        arguments = _of_type(self.stack.pop(), tuple)
        path = _of_type(self.stack.pop(), _Name).path
        self.stack.append(self._call(path, arguments))

    def _call(self, path: str, arguments: tuple[Any, ...]) -> Any:
        module, _, name = path.rpartition(".")
        if module in ("torch._utils", "torch._tensor"):
            return self._tensor(name, arguments)
        if path in ("builtins.complex", "builtins.bytearray", "_codecs.encode"):
            return self._number_or_bytes(path, arguments)
        if path in ("collections.OrderedDict", "collections.Counter", "builtins.set"):
            return self._collection(path, arguments[0] if arguments else None)
        if path == "torch.Size":
            return tuple(_length(length) for length in _of_type(arguments[0], tuple))
        if path == "numpy.dtype":
            code = _of_type(arguments[0], str)
            if not _PLAIN_ARRAY.fullmatch({"b1": "?"}.get(code, code)):
                raise PickleContentError(f"an array of NumPy of the type {_shortened(code)}")
            return _ArrayType({"b1": "?"}.get(code, code))
        if name == "_reconstruct":
            return ArrayOutline()
        if name == "scalar":
            kind, content = arguments
            (number,) = np.frombuffer(_of_type(content, bytes), np.dtype(_of_type(kind, _ArrayType).code))
            return number.item()
        if path in ("torch.device", "torch.serialization._get_layout"):
            return _Name(path)
        raise PickleContentError(path)

    def _number_or_bytes(self, path: str, arguments: tuple[Any, ...]) -> complex | bytes:
        if path == "builtins.complex":
            return complex(*(_of_type(part, float) for part in arguments))
        if len(arguments) < 2:  # a bytearray of bytes, or of nothing
            content: bytes = _of_type((*arguments, b"")[0], bytes)
            self._spend(len(content))
            return content
        text, encoding = arguments
        if encoding not in ("latin1", "latin-1"):
            raise PickleContentError("bytes in an unknown encoding")
        self._spend(len(_of_type(text, str)))
        return bytes(text, "latin1")

    def _collection(self, path: str, content: Any) -> Any:
        """Return a collection that is made from another one, which can be named again and again."""
        self._spend(100 * len(content or ()))
        if path == "builtins.set":
            return {_key(member) for member in _of_type(content or [], list)}
        if path == "collections.Counter":
            return Counter({key: _of_type(value, int) for key, value in _of_type(content or {}, dict).items()})
        return OrderedDict((_key(key), value) for key, value in _of_type(content or [], list))

    def do_BUILD(self, _: None) -> None:  # noqa: N802
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, OrderedDict):
            if _of_type(state, dict).keys() - {"_metadata"}:  # others could stand in for the dictionary's own methods
                raise PickleContentError("a dictionary with attributes of its own")
        elif isinstance(target, _ArrayType):
            order = _of_type(_of_type(state, tuple)[1], str)
            if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
                raise PickleContentError("an array of NumPy of a structured type")
            target.code = order + target.code.lstrip("<>|=")
        elif isinstance(target, ArrayOutline) and not target.complete:
            _, shape, kind, _, content = state
            size = np.dtype(_of_type(kind, _ArrayType).code).itemsize
            for length in _of_type(shape, tuple):
                size *= _length(length)
            if size != len(_of_type(content, bytes)):
                raise ValueError("an array of NumPy in it has another size than it says")
            self._spend(size)
            target.complete = True
        else:
            raise PickleContentError("an object with a state of its own")

    def _tensor(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "_rebuild_parameter":
            return _of_type(arguments[0], TensorOutline)
        if name in _UNUSUAL_TENSORS:
            tensor = TensorOutline("", (), unusual=_UNUSUAL_TENSORS[name])
        elif name in _DENSE_TENSORS:
            storage = _of_type(arguments[0], StorageOutline)
            dtype = storage.dtype
            if name == "_rebuild_tensor_v3":
                dtype = _of_type(arguments[6], _Name).path.removeprefix("torch.")
            offset = _length(arguments[1])
            shape, stride = (tuple(map(_length, _of_type(part, tuple))) for part in arguments[2:4])
            unusual = _unusual(shape, stride, offset, storage, dtype)
            hooks, metadata = (arguments[5:6] or (None,))[0], arguments[7 if name.endswith("v3") else 6 :]
            if hooks or any(metadata):
                unusual = "with attributes of its own"
            tensor = TensorOutline(dtype, shape, stride, offset, storage, unusual)
        else:
            raise PickleContentError(f"torch._utils.{name}")
        self.tensors.append(tensor)
        return tensor

    def _spend(self, num_bytes: int) -> None:
        self.bytes_left -= num_bytes
        if self.bytes_left < 0:
            raise ValueError("holds more than its size when unfolded")


def _unusual(shape: tuple[int, ...], stride: tuple[int, ...], offset: int, storage: StorageOutline, dtype: str) -> str:
    """Return in words why a tensor is not a plain one; empty if it is."""
    if len(shape) != len(stride):
        return "of another number of axes than strides"
    if dtype.startswith("q"):
        return "quantized"
    if 0 in shape:
        return ""
    extent = 1  # items from the first to the last, over the axes so far
    for step, length in sorted((s, n) for s, n in zip(stride, shape, strict=True) if n > 1):
        if step < extent:
            return "expanded, its items share memory"
        extent += (length - 1) * step
    if (offset + extent) * _ITEM_BYTES.get(dtype, 1) > storage.num_bytes:
        return "larger than its memory in the file"
    return ""


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(type(value).__name__)
    return value


def _length(value: Any) -> int:
    """Return a length, offset or stride, which torch takes as it is, negative or not."""
    if type(value) is not int or not 0 <= value < MAX_LENGTH:
        raise ValueError("a tensor in it has an impossible size")
    return value


def _key(value: Any) -> Any:
    """Return what a dictionary may be asked by: hashing deeply nested tuples would exhaust the stack of C."""
    parts = value if isinstance(value, tuple) else (value,)
    if not all(part is None or isinstance(part, bool | int | float | str | bytes) for part in parts):
        raise PickleContentError(f"a dictionary with keys of the type {type(value).__name__}")
    return value


def _shortened(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")[1:-1]


_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS_AND_TEXT = {"BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "BINUNICODE", "SHORT_BINSTRING"}
_STORAGE = re.compile(r"torch\.(?:cuda\.|storage\.)?(\w+)Storage")
_DTYPE = re.compile(r"torch\.(?:bool|q?u?int\d+(?:x\d)?|b?float\d+\w*|complex\d+|per_(?:tensor|channel)_\w+)")
_KNOWN = {
    "_codecs.encode",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    *(f"torch._utils.{name}" for name in (*_DENSE_TENSORS, "_rebuild_parameter")),
    *(f"{module}.{name}" for module in ("torch._utils", "torch._tensor") for name in _UNUSUAL_TENSORS),
}
# NumPy's old names and its new ones; the original's checkpoints hold statistics and orders as such.
_ARRAY_NAMES = {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
