"""What a file of torch claims to hold, read and checked before torch is asked to load it; needs no torch.

This is the first half of the one reader of checkpoints: `earmark.encoders.torch_file.read_torch_file` goes on from
here to the tensors, and the list of runs (`earmark.cli.runs`) ends here. Where the file is a checkpoint of Earmark, all
that it says beside the tensors is checked too.
"""

import io
import os
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

from earmark.encoders.own_checkpoint import require_sound
from earmark.encoders.pickle_outline import PickleContentError, StorageOutline, TensorOutline, read_pickle_outline

__all__ = ["DamagedTorchFileError", "TorchFileError", "is_in_zip_format", "read_outline"]

MAX_PICKLE_BYTES = 64 * 2**20  # names and numbers of a checkpoint of a large model take 1 MB
MAX_ENTRIES = 100_000
# torch stores its files uncompressed; one that was packed again may be somewhat smaller than what it holds.
MAX_UNPACKED_BYTES, MAX_RATIO = 64 * 2**20, 4
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_END_OF_ZIP, _END_OF_ZIP_BYTES = b"PK\x05\x06", 22


class TorchFileError(ValueError):
    """A file that is not torch's or holds more than tensors and plain data.

    Attributes:
        path: The file.
        reason: What is wrong with it, in words.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class DamagedTorchFileError(TorchFileError):
    """A file that is not whole: cut off, or changed since it was written."""


def read_outline(path: str | Path) -> Any:
    """Read what a file that `torch.save` wrote says of itself, in bounded time and memory, and check it.

    Args:
        path: The file, in torch's zip format or its older one.

    Returns:
        What was saved, with outlines in place of tensors. Each of these is a plain, dense one, which lies within its
        memory in the file and shares none of its items; no part of a checkpoint of Earmark is of a wrong kind or size.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedTorchFileError: If the file is cut off.
        TorchFileError: If it is not torch's, or holds anything else; the message names the part.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if is_in_zip_format(path):
        with _opened(path) as archive:
            content, tensors, sizes = _zip_outline(path, archive)
            _check(path, content, tensors, sizes)
            _check_own(path, content, archive, sizes)
        return content
    content, tensors = _legacy_outline(path)
    _check(path, content, tensors, None)
    _check_own(path, content, None, {})
    return content


def is_in_zip_format(path: Path) -> bool:
    """Return whether torch would read a file as a zip archive, which it tells by its first bytes."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _opened(path: Path) -> zipfile.ZipFile:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _END_OF_ZIP_BYTES))
        end = file.read()
    # The directory must be where any reader finds it: of an archive with a comment, two readers may see two.
    if not end.startswith(_END_OF_ZIP) or end[-2:] != b"\0\0":
        raise DamagedTorchFileError(path, "damaged (it ends before its directory does)")
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # what a mangled zip file raises is not documented
        raise DamagedTorchFileError(path, f"damaged ({type(error).__name__}: its directory cannot be read)") from error


def _zip_outline(path: Path, archive: zipfile.ZipFile) -> tuple[Any, list[TensorOutline], dict[str, zipfile.ZipInfo]]:
    """Return what an archive holds, its tensors, and its entries by their names below its one folder."""
    entries = archive.infolist()
    if not entries or len(entries) > MAX_ENTRIES:
        raise TorchFileError(path, f"not a file of torch (an archive of {len(entries):,} files)")
    total, on_disk = sum(entry.file_size for entry in entries), path.stat().st_size
    if total > max(MAX_UNPACKED_BYTES, MAX_RATIO * on_disk):
        raise TorchFileError(path, f"claims to unpack to {total:,} bytes, from {on_disk:,}")
    folder = entries[0].filename.partition("/")[0] + "/"
    named: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename.removeprefix(folder)
        if not entry.filename.startswith(folder) or entry.flag_bits & 1 or entry.compress_type not in (0, 8):
            raise TorchFileError(path, "not a file of torch (an archive of something else)")
        named[name] = entry
    if len({name.casefold() for name in named}) < len(entries):
        raise TorchFileError(path, "not a file of torch (two of its parts have one name)")
    if "data.pkl" not in named or "constants.pkl" in named:
        kind = "a TorchScript program" if "constants.pkl" in named else "an archive of something else"
        raise TorchFileError(path, f"not a file of tensors ({kind})")
    pickled = named["data.pkl"]
    if pickled.file_size > MAX_PICKLE_BYTES:
        raise TorchFileError(path, f"describes its tensors in {pickled.file_size:,} bytes, over {MAX_PICKLE_BYTES:,}")
    try:
        if "byteorder" in named and archive.read(named["byteorder"]) != b"little":
            raise TorchFileError(path, "was written on a machine of another byte order")
        text = archive.read(pickled)
    except TorchFileError:
        raise
    except Exception as error:  # a wrong checksum, a compressed stream that breaks off
        raise DamagedTorchFileError(path, f"damaged ({_in_words(error)})") from error
    try:
        content, tensors = _outlined(path, io.BytesIO(text), max_bytes=len(text))
    except ValueError as error:
        raise error if isinstance(error, TorchFileError) else TorchFileError(path, _in_words(error)) from error
    return content, tensors, named


def _legacy_outline(path: Path) -> tuple[Any, list[TensorOutline]]:
    """Read torch's format of before 1.6: five pickles, and behind them the memory of each tensor."""
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            magic, _ = read_pickle_outline(file, max_bytes=64)
            protocol, _ = read_pickle_outline(file, max_bytes=64)
            if magic != _LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL:
                raise ValueError("it does not begin as one")
            read_pickle_outline(file, max_bytes=10_000)  # sizes of numbers on the machine that wrote it
        except Exception as error:
            raise DamagedTorchFileError(path, f"damaged or not a file of torch ({_in_words(error)})") from error
        max_bytes = min(size, MAX_PICKLE_BYTES)
        try:
            content, tensors = _outlined(path, file, max_bytes=max_bytes)
            keys, _ = read_pickle_outline(file, max_bytes=max_bytes)
            storages = _storages(path, tensors)
            if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
                raise ValueError("its list of tensors is another than it describes")
        except TorchFileError:
            raise
        except ValueError as error:
            raise DamagedTorchFileError(path, f"damaged or not a file of torch ({_in_words(error)})") from error
        held = sum(storage.num_bytes + 8 for storage in storages.values())
        if held > size - file.tell():
            raise DamagedTorchFileError(path, f"damaged (it describes {held:,} bytes of tensors, in {size:,})")
    return content, tensors


def _outlined(path: Path, file: IO[bytes], *, max_bytes: int) -> tuple[Any, list[TensorOutline]]:
    try:
        return read_pickle_outline(file, max_bytes=max_bytes)
    except PickleContentError as error:
        raise TorchFileError(path, f"holds more than tensors and plain data ({error})") from error


def _storages(path: Path, tensors: list[TensorOutline]) -> dict[str, StorageOutline]:
    storages: dict[str, StorageOutline] = {}
    for tensor in tensors:
        if tensor.storage is not None and storages.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise TorchFileError(path, f"describes the memory {tensor.storage.key[:40]!r} in two ways")
    return storages


def _check(path: Path, content: Any, tensors: list[TensorOutline], sizes: Mapping[str, zipfile.ZipInfo] | None) -> None:
    """Raise unless each tensor is a plain one whose memory is in the file."""
    storages = _storages(path, tensors)
    if sizes is not None:
        for key, storage in storages.items():
            entry = sizes.get(f"data/{key}")
            if entry is None or entry.file_size < storage.num_bytes:
                held = 0 if entry is None else entry.file_size
                raise TorchFileError(
                    path, f"a tensor in it takes {storage.num_bytes:,} bytes, of which it holds {held:,}"
                )
    if any(tensor.unusual for tensor in tensors):
        name, tensor = next((name, tensor) for name, tensor in _named(content) if tensor.unusual)
        raise TorchFileError(path, f"{name}: a tensor that is {tensor.unusual}")


def _named(content: Any) -> Iterator[tuple[str, TensorOutline]]:
    """Yield all tensors with where they are, in the order of their depth; what is met twice counts once."""
    waiting: deque[tuple[Any, Any]] = deque([(content, None)])  # a value and (the place of what holds it, its key)
    seen: set[int] = set()
    while waiting:
        value, place = waiting.popleft()
        if isinstance(value, TensorOutline):
            keys: list[str] = []
            while place is not None and len(keys) < 12:
                place, key = place
                keys.append(str(key)[:80])
            yield ascii(".".join(reversed(keys)))[1:-1] or "its content", value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting.extend((inner, (place, key)) for key, inner in items)


def _check_own(
    path: Path, content: Any, archive: zipfile.ZipFile | None, entries: Mapping[str, zipfile.ZipInfo]
) -> None:
    """Raise where a checkpoint of Earmark is not sound."""
    if not isinstance(content, dict) or "format_version" not in content:
        return

    @cache  # many tensors may lie in one memory
    def read(storage: StorageOutline) -> bytes | None:
        return None if archive is None else archive.read(entries[f"data/{storage.key}"])

    try:
        require_sound(content, read)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DamagedTorchFileError(path, f"damaged ({_in_words(error)})") from error
    except ValueError as error:
        raise TorchFileError(path, str(error)) from error


def _in_words(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{text[:200] or type(error).__name__}"
