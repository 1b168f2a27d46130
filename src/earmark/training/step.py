"""One training step: forward, the check of the loss, backward, the update of the weights and of their average.

In the path of a sample this file stands between the model's inputs and the loop, which calls it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from earmark.training.ranges import require_in_range
from earmark.training.readback import AtOnce, PendingNumbers, Readback
from earmark.wording import counted

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "HasBounds",
    "Learner",
    "NonFiniteError",
    "PendingScalars",
    "StepOptions",
    "TrainStep",
    "begin_anew",
    "ema_of",
]


@runtime_checkable
class HasBounds(Protocol):
    """A model with parameters that must not leave a range."""

    def keep_in_range(self) -> None:
        """Put parameters that an update took out of their range back to its edge."""


class NonFiniteError(RuntimeError):
    """The loss or a weight is no longer a finite number."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A model with what changes its weights.

    Attributes:
        model: The bare model.
        optimizer: Optimizer of its parameters.
        scheduler: Its learning-rate schedule, stepped once per epoch, or an `earmark.training.WarmupCosineLR`, which
            has a rate for each step; None for a constant rate.
        ema: Average of the model's weights; `earmark.training.pretrain` makes it where `StepOptions` asks for one.

    Raises:
        ValueError: If the optimizer is that of another model, or the schedule that of another optimizer.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None = None
    ema: AveragedModel | None = None

    def __post_init__(self) -> None:
        # either would leave the model as it is, without a word
        own = {id(parameter) for parameter in self.model.parameters()}
        foreign = [p for group in self.optimizer.param_groups for p in group["params"] if id(p) not in own]
        if foreign:
            raise ValueError(f"the optimizer updates {counted(len(foreign), 'parameter')} that the model does not have")
        if self.scheduler is not None and self.scheduler.optimizer is not self.optimizer:
            raise ValueError("the scheduler is that of another optimizer")


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How a step is done.

    Attributes:
        accumulate: Parts that a rank's batch is cut into, where memory is short: the gradient is the mean over the
            parts. A loss that compares samples, and batch norm, then see one part at a time.
        max_gradient_norm: Longer gradients are scaled to this length; None for none.
        ema_decay: Keep an exponential moving average of the weights, of which this share stays at each step; None for
            none. It is in the checkpoints as ``ema``, and it is what is judged during the run.
        sync_batch_norm: Where there are several ranks, take batch norm's statistics over the samples of all of them.

    Raises:
        ValueError: If a number is out of range.
    """

    accumulate: int = 1
    max_gradient_norm: float | None = None
    ema_decay: float | None = None
    sync_batch_norm: bool = True

    def __post_init__(self) -> None:
        require_in_range(
            at_least_1={"accumulate": self.accumulate}, above_0={"max_gradient_norm": self.max_gradient_norm}
        )
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")


class PendingScalars(Protocol):
    """What a step found, once the device has done it."""

    def read(self) -> tuple[dict[str, float], list[bool]]:
        """Wait for the step, if need be.

        Returns:
            The model's scalars, as means over parts and processes; and for each flag whether any rank has set it, so
                that all of them do the same after the same step.

        Raises:
            NonFiniteError: If the loss is NaN or infinite.
        """


class TrainStep:
    """A step of gradient descent on a batch.

    Args:
        fabric: The launched Fabric.
        module: The model that Fabric set up.
        optimizer: The optimizer that Fabric set up.
        options: How a step is done.
        ema: Average of the weights, updated after each step; None for none.
        readback: The way of the numbers from the device to the host; None for that of a device that does at once what
            it is told.
    """

    def __init__(
        self,
        fabric: "Fabric",
        module: Any,
        optimizer: Any,
        options: StepOptions,
        *,
        ema: AveragedModel | None = None,
        readback: Readback | None = None,
    ) -> None:
        self._fabric, self._module, self._optimizer = fabric, module, optimizer
        self._accumulate, self._max_gradient_norm = options.accumulate, options.max_gradient_norm
        self._ema = ema
        self._readback = readback or AtOnce()

    @property
    def late(self) -> bool:
        """Whether a step's numbers are best read when the next step is queued."""
        return self._readback.late

    def __call__(
        self, inputs: tuple[Tensor, ...], *, index: Tensor, labels: Mapping[str, Tensor], flags: Sequence[bool] = ()
    ) -> PendingScalars:
        """Do one step, or queue it on a device that works by itself.

        Where numbers are read at once, the loss is checked before the weights are touched. On a GPU that would hold up
        the host until the device is done, and then the device until the host has queued more. There the loss is checked
        when its numbers are read, and by then the weights are those after the step.

        Args:
            inputs: Of the model; (B, ...) each.
            index: (B,), each sample's index in the data set.
            labels: (B,) by name, where the data set has any.
            flags: What this process asks for after the step, such as to stop.

        Returns:
            What the step found.

        Raises:
            NonFiniteError: If the loss is NaN or infinite, and that is known at once. The weights are as before.
        """
        self._optimizer.zero_grad()
        parts: list[Tensor] = []
        known: list[tuple[dict[str, float], list[bool]]] = []
        names: list[str] = []
        for part in range(self._accumulate):
            rows = slice(part * len(index) // self._accumulate, (part + 1) * len(index) // self._accumulate)
            last = part == self._accumulate - 1
            with self._fabric.no_backward_sync(self._module, enabled=not last and self._fabric.world_size > 1):
                output = self._module(
                    *(x[rows] for x in inputs),
                    index=index[rows],
                    labels={name: values[rows] for name, values in labels.items()},
                )
                names = list(output)
                parts.append(torch.stack([value.detach().float() for value in output.values()]))
                if not self.late:
                    known.append(self._send(names, parts[-1:], flags).read())
                self._fabric.backward(output["loss"] / self._accumulate)
        if self._max_gradient_norm is not None:
            # A float16 gradient that overflowed is for the scaler to deal with, and others show in the next loss.
            self._fabric.clip_gradients(
                self._module, self._optimizer, max_norm=self._max_gradient_norm, error_if_nonfinite=False
            )
        self._optimizer.step()
        if isinstance(self._module.module, HasBounds):
            self._module.module.keep_in_range()  # before the average is taken
        if self._ema is not None:
            self._ema.update_parameters(self._module.module)
        return _Known(known) if known else self._send(names, parts, flags)

    def _send(self, names: Sequence[str], parts: Sequence[Tensor], flags: Sequence[bool]) -> "_Sent":
        """Send the scalars of some parts to the host, those of all ranks together."""
        values = torch.cat(list(parts))
        shared = self._fabric.world_size > 1
        if shared:  # flags go along with the numbers; one process alone need not ask its device for them
            # filled on the device: a tensor made of numbers of the host would be waited for
            values = torch.cat([values, *(values.new_full((1,), float(flag)) for flag in flags)])
        values = _sum_over_ranks(self._fabric, values) / self._fabric.world_size
        return _Sent(names, len(parts), None if shared else flags, self._readback.send(values))


class _Sent:
    """Scalars of some parts of a batch, and flags, on their way; `flags` are those of one process alone."""

    def __init__(
        self, names: Sequence[str], num_parts: int, flags: Sequence[bool] | None, numbers: PendingNumbers
    ) -> None:
        self._names, self._num_parts, self._flags, self._numbers = names, num_parts, flags, numbers

    def read(self) -> tuple[dict[str, float], list[bool]]:
        numbers = self._numbers.wait()
        width = len(self._names)
        parts = [
            dict(zip(self._names, numbers[part * width : (part + 1) * width], strict=True))
            for part in range(self._num_parts)
        ]
        for scalars in parts:
            if not math.isfinite(scalars["loss"]):
                raise NonFiniteError(f"the loss is {scalars['loss']}")
        of_ranks = [number > 0 for number in numbers[self._num_parts * width :]]
        return _means(parts), of_ranks if self._flags is None else list(self._flags)


class _Known:
    """Scalars of all parts of a batch, and flags, that are known already."""

    def __init__(self, parts: Sequence[tuple[dict[str, float], list[bool]]]) -> None:
        self._parts = parts

    def read(self) -> tuple[dict[str, float], list[bool]]:
        return _means([scalars for scalars, _ in self._parts]), self._parts[-1][1]


def _means(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for scalars in parts:
        sums = {name: sums.get(name, 0.0) + value for name, value in scalars.items()}
    return {name: value / len(parts) for name, value in sums.items()}


def ema_of(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a model's weights, which starts at what they are after the first step.

    Buffers, such as the statistics of batch norm, are copied, not averaged.

    Args:
        model: The bare model.
        decay: Share of the average that stays at each step.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> average = ema_of(model, decay=0.9)
        >>> for value in (1.0, 2.0):
        ...     with torch.no_grad():
        ...         _ = model.weight.fill_(value)
        ...     average.update_parameters(model)
        >>> round(average.module.weight.item(), 6)
        1.1
    """
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


@torch.no_grad()
def begin_anew(parameters: Iterable[nn.Parameter], model: nn.Module, optimizer: Optimizer, ema: Any = None) -> None:
    """Reset what optimizer and average hold of parameters whose values were drawn anew.

    Momentum of the old values would push the new ones about, and an average of both would be neither.

    Args:
        parameters: Those with new values, of the model.
        model: The bare model.
        optimizer: Its optimizer. State tensors are set to zero, as they are at first in PyTorch's optimizers.
        ema: Average of the model's weights, as `ema_of` returns it; None for none.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=1.0, momentum=0.9)
        >>> layer(torch.ones(1, 1)).sum().backward()
        >>> optimizer.step()
        >>> begin_anew([layer.weight], layer, optimizer)
        >>> optimizer.state[layer.weight]["momentum_buffer"]
        tensor([[0.]])
    """
    new = {id(parameter) for parameter in parameters}
    averages = model.parameters() if ema is None else ema.module.parameters()
    for parameter, average in zip(model.parameters(), averages, strict=True):
        if id(parameter) in new:
            # Not taken away: the fused update of SGD cannot have a momentum for some of its parameters only.
            for value in optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor):
                    value.zero_()
            average.copy_(parameter)


def _sum_over_ranks(fabric: "Fabric", values: Tensor) -> Tensor:
    if fabric.world_size == 1:
        return values
    return cast(Tensor, fabric.all_reduce(values, reduce_op="sum"))
