"""Files of torch, read as untrusted data: the one reader of everything that `torch.save` wrote."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earmark.encoders.torch_outline import DamagedTorchFileError, TorchFileError, is_in_zip_format, read_outline

__all__ = ["DamagedTorchFileError", "TorchFileError", "read_torch_file"]


def read_torch_file(path: str | Path) -> Any:
    """Read a file that `torch.save` wrote, onto the CPU; nothing in it can run code.

    What it claims to hold is checked first (`earmark.encoders.torch_outline.read_outline`), then its checksums, and
    only then is it loaded.

    Args:
        path: The file, in torch's zip format or its older one.

    Returns:
        What was saved: tensors, NumPy arrays and numbers, and plain data. All tensors are plain, dense ones.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedTorchFileError: If the file is cut off or its checksums don't match.
        TorchFileError: If it is not torch's, holds more than tensors and plain data, or a part of it is of an
            impossible kind or size.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "state.pt"
        >>> torch.save({"step": 3}, path)
        >>> read_torch_file(path)
        {'step': 3}
    """
    path = Path(path)
    read_outline(path)
    if is_in_zip_format(path):  # torch itself does not verify checksums
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except Exception as error:  # what a mangled zip file raises is not documented
            raise DamagedTorchFileError(path, f"damaged ({type(error).__name__})") from error
        if damaged is not None:
            raise DamagedTorchFileError(path, f"damaged (the checksum of {damaged} is wrong)")
    try:
        with torch.serialization.safe_globals(_numpy_types()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # which types are raised differs from version to version
        reason = f"holds more than tensors and plain data, or is not torch's ({type(error).__name__} of torch.load)"
    # Without the cause: its text advises to load the file without this protection.
    raise TorchFileError(path, reason)


def _numpy_types() -> list[Any]:
    """Return what numpy's plain numbers and arrays are made of in a checkpoint, under its old names and its new ones.

    The original's checkpoints, and others of their time, hold statistics and orders as such.
    """
    numbers = [type(np.dtype(code)) for code in "?bhilqBHILQefd"]
    makers = (("_reconstruct", np.empty(0).__reduce__()[0]), ("scalar", np.float64(0).__reduce__()[0]))
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    named = [(maker, f"{module}.{name}") for module in modules for name, maker in makers]
    return [np.ndarray, np.dtype, *numbers, *named]
