"""What a run does when a GPU's memory is too small for its batch: it finds one that fits, and says so.

Beside the path of a sample: `earmark.training.pretrain` wraps its loop in `out_of_memory_named`.
"""

import gc
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from earmark.wording import counted

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["BatchMemoryError", "largest_that_fits", "out_of_memory_named"]


class BatchMemoryError(RuntimeError):
    """A step did not fit into the memory of a GPU.

    Attributes:
        num_samples: Samples in the part of a batch that was too large, those of one process and one part; None if
            memory ran out elsewhere than in a step.
        num_fitting: The largest number, halved from that, whose step was found to fit: 0 if not even one sample's did,
            None if it was not tried.
    """

    def __init__(self, reason: str, *, num_samples: int | None, num_fitting: int | None) -> None:
        self.num_samples, self.num_fitting = num_samples, num_fitting
        what = "a step" if num_samples is None else f"a step on {counted(num_samples, 'sample')}"
        found = {None: "", 0: "; not even one sample fits"}.get(
            num_fitting, f"; {num_fitting} fit, as found by halving the batch and trying a step on each"
        )
        super().__init__(f"the GPU has too little memory for {what}{found} ({reason})")


def largest_that_fits(attempt: Callable[[int], object], *, below: int) -> int:
    """Halve a number until an attempt at it does not run out of memory.

    Args:
        attempt: Does with so many samples what ran out of memory with more.
        below: The number that was too many.

    Returns:
        The first of the halves that fitted, or 0 if one did not.

    Example:
        >>> def attempt(num_samples):
        ...     if num_samples > 40:
        ...         raise torch.OutOfMemoryError
        >>> largest_that_fits(attempt, below=256)
        32
    """
    num_samples = below // 2
    while num_samples and not _fits(attempt, num_samples):
        num_samples //= 2
    return num_samples


def _fits(attempt: Callable[[int], object], num_samples: int) -> bool:
    try:
        attempt(num_samples)
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # which hold what it had allocated
        return False
    finally:
        _free()
    return True


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()  # nothing where no GPU is used


@contextmanager
def out_of_memory_named(fabric: "Fabric", module: Any) -> Iterator[None]:
    """Raise, where a training step runs out of memory, an error that names the number of samples that fits.

    It is found by forward and backward passes of half as many random samples, a quarter, and so on, with encoders that
    are not compiled. One process of several does not try: the others would have to step with it. What is trained is not
    to be used afterwards.

    Args:
        fabric: The launched Fabric.
        module: The model that Fabric set up.

    Raises:
        BatchMemoryError: In place of `torch.OutOfMemoryError`.
    """
    seen: dict[str, Any] = {}

    def remember(_: Any, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> None:
        """Keep what inputs look like, and not the inputs, which would stay in memory."""
        seen["inputs"] = [(x.shape, x.dtype, x.device) for x in inputs]
        seen["labels"] = list(options.get("labels", ()))

    handle = module.module.register_forward_pre_hook(remember, with_kwargs=True)
    reason: str | None = None
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ")[0]
        traceback.clear_frames(error.__traceback__)
    finally:
        handle.remove()
    if reason is None:
        return
    num_samples = seen["inputs"][0][0][0] if seen else None
    num_fitting = None
    if num_samples is not None and fabric.world_size == 1:
        _free()
        num_fitting = largest_that_fits(
            lambda number: _forward_and_backward(fabric, module, seen["inputs"], seen["labels"], number),
            below=num_samples,
        )
    raise BatchMemoryError(reason, num_samples=num_samples, num_fitting=num_fitting)


def _forward_and_backward(
    fabric: "Fabric",
    module: Any,
    inputs: "list[tuple[torch.Size, torch.dtype, torch.device]]",
    labels: list[str],
    num_samples: int,
) -> None:
    module.zero_grad()
    device = inputs[0][2]
    index = torch.arange(num_samples, device=device)
    drawn = [torch.randn(num_samples, *shape[1:], dtype=dtype, device=on) for shape, dtype, on in inputs]
    named: Mapping[str, Tensor] = {name: torch.zeros_like(index) for name in labels}
    with torch.compiler.set_stance("force_eager"):
        output = module(*drawn, index=index, labels=named)
        fabric.backward(output["loss"])
    module.zero_grad()
