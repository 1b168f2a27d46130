"""What would make the host wait for a GPU, found on a machine without one.

On the device `meta` no number exists, so whatever asks for one raises there (`item`, `tolist`, `bool`, `nonzero`, an
index that is a mask), and what comes from the host can be watched: a copy from memory that is not pinned is waited for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

MADE_ON_THE_HOST = {torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, Tensor.new_tensor}


class _Copies(TorchDispatchMode):
    """Note each copy from the host to the device, and each operation that looks at its own outcome."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in (*args, result) if isinstance(value, Tensor)]
        copied = "copy" in str(func) and len({tensor.device.type for tensor in tensors}) > 1
        if copied or "linalg_check_errors" in str(func):  # as by `torch.linalg.inv`
            self.found.append(f"{func} of {tuple(tensors[0].shape)}")
        return result


class _Made(TorchFunctionMode):
    """Note each tensor of the device that is made of numbers of the host: it comes by a copy that is waited for."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in MADE_ON_THE_HOST and result.device.type == "meta":
            self.found.append(f"{getattr(func, '__name__', func)} of {tuple(result.shape)}")
        return result


@contextmanager
def watched_for_host_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Give a list of what is found while the block runs on tensors of the device `meta`."""
    found: list[str] = []
    with ExitStack() as stack:
        monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # which `meta` has none of
        stack.enter_context(_Copies(found))
        stack.enter_context(_Made(found))
        yield found
    monkeypatch.undo()
