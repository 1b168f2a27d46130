"""Files of torch, read as untrusted data: the one reader of everything that `torch.save` wrote."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["DamagedTorchFileError", "TorchFileError", "read_torch_file"]


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


def read_torch_file(path: str | Path, *, whole: bool = True) -> Any:
    """Read a file that `torch.save` wrote, onto the CPU; nothing in it can run code.

    Args:
        path: The file, in torch's zip format or its older one.
        whole: Whether to verify checksums and read all tensors. Without it tensors of a file in the zip format stay on
            the disk until they are used, and damage inside them goes unnoticed, which is fast.

    Returns:
        What was saved: tensors, NumPy arrays and numbers, and plain data.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedTorchFileError: If the file is cut off or its checksums don't match.
        TorchFileError: If it is not torch's, or holds more than tensors and plain data.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "state.pt"
        >>> torch.save({"step": 3}, path)
        >>> read_torch_file(path)
        {'step': 3}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        in_zip_format = zipfile.is_zipfile(path)
        if whole and in_zip_format:  # torch itself does not verify checksums
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise DamagedTorchFileError(path, f"damaged (the checksum of {damaged} is wrong)")
    except DamagedTorchFileError:
        raise
    except Exception as error:  # what a mangled zip file raises is not documented
        raise DamagedTorchFileError(path, f"damaged ({_first_line(error)})") from error
    try:
        with torch.serialization.safe_globals(_numpy_types()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=in_zip_format and not whole)
    except Exception as error:  # a damaged file may raise anything
        if not in_zip_format:  # torch's older format has no checksums; most such files are cut off or foreign
            raise DamagedTorchFileError(path, f"damaged or not a file of torch ({_first_line(error)})") from error
        if not whole:  # it may only be damaged
            return read_torch_file(path)
        reason = f"holds more than tensors and plain data, or is not torch's ({_first_line(error)})"
        raise TorchFileError(path, reason) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _numpy_types() -> list[Any]:
    """Return what numpy's plain numbers and arrays are made of in a checkpoint, under its old names and its new ones.

    The original's checkpoints, and others of their time, hold statistics and orders as such.
    """
    numbers = [type(np.dtype(code)) for code in "?bhilqBHILQefd"]
    makers = (("_reconstruct", np.empty(0).__reduce__()[0]), ("scalar", np.float64(0).__reduce__()[0]))
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    named = [(maker, f"{module}.{name}") for module in modules for name, maker in makers]
    return [np.ndarray, np.dtype, *numbers, *named]
