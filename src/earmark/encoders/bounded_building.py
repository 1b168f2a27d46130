"""Building a network of a size that a file names: not larger than the weights that the file holds for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

__all__ = ["at_most_elements"]

# Some networks are built with a part that is taken away again, or with tables that are not stored.
SLACK, SLACK_FACTOR = 2**25, 4  # the largest published encoder has 87 million elements

_TOO_LARGE = "the network that it describes is far larger than its weights"


@contextmanager
def at_most_elements(num_elements: int) -> Iterator[None]:
    """Stop, inside the block, the building of networks with far more elements than this.

    A parameter that is too large is found before it is filled, when its memory is not in use yet.

    Args:
        num_elements: Elements of all weights that there are for the network.

    Raises:
        ValueError: From inside the block, at the first parameter or buffer that is too much.

    Example:
        >>> with at_most_elements(100):
        ...     nn.Linear(10_000, 10_000)
        Traceback (most recent call last):
            ...
        ValueError: the network that it describes is far larger than its weights
    """
    left = SLACK + SLACK_FACTOR * num_elements

    def count(module: nn.Module, name: str, value: Any) -> None:
        nonlocal left
        left -= 1 + (value.numel() if isinstance(value, Tensor) else 0)
        if left < 0:
            raise ValueError(_TOO_LARGE)

    hooks = (register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count))
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise ValueError(_TOO_LARGE) from error
    finally:
        for hook in hooks:
            hook.remove()
