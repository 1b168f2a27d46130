"""One training step: forward, the look at the loss, backward, the update of the weights and of their average.

In the path of a sample this file stands between the model's inputs and the loop in `pretrain`, which calls it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["HasBounds", "NonFiniteError", "TrainStep", "begin_anew", "ema_of"]


@runtime_checkable
class HasBounds(Protocol):
    """A model with parameters that must not leave a range."""

    def keep_in_range(self) -> None:
        """Put parameters that an update took out of their range back to its edge."""


class NonFiniteError(RuntimeError):
    """The loss or a weight is no longer a finite number."""


class TrainStep:
    """A step of gradient descent on a batch.

    Args:
        fabric: The launched Fabric.
        module: The model that Fabric set up.
        optimizer: The optimizer that Fabric set up.
        accumulate: Parts that a batch is cut into, where memory is short: the gradient is the mean over the parts. A
            loss that compares samples, and batch norm, then see a part at a time.
        max_gradient_norm: Longer gradients are scaled to this length; None for none.
        ema: Average of the weights, updated after each step; None for none.
    """

    def __init__(
        self,
        fabric: "Fabric",
        module: Any,
        optimizer: Any,
        *,
        accumulate: int = 1,
        max_gradient_norm: float | None = None,
        ema: AveragedModel | None = None,
    ) -> None:
        self._fabric, self._module, self._optimizer = fabric, module, optimizer
        self._accumulate, self._max_gradient_norm, self._ema = accumulate, max_gradient_norm, ema

    def __call__(
        self, inputs: tuple[Tensor, ...], *, index: Tensor, labels: Mapping[str, Tensor], wishes: Sequence[bool] = ()
    ) -> tuple[dict[str, float], list[bool]]:
        """Do one step.

        The loss is looked at before the weights are touched: waiting for it costs a GPU next to nothing, because the
        backward pass, the longer part, is queued at once and the next batch is prepared meanwhile.

        Args:
            inputs: Of the model; (B, ...) each.
            index: (B,), each sample's index in the data set.
            labels: (B,) by name, where the data set has any.
            wishes: What this process would like to do after the step, such as to stop.

        Returns:
            The model's scalars, as means over parts and processes; and for each wish whether any process has it, so
                that all of them do the same after the same step.

        Raises:
            NonFiniteError: If the loss is NaN or infinite. The weights are as before.
        """
        self._optimizer.zero_grad()
        sums: dict[str, float] = {}
        for part in range(self._accumulate):
            rows = slice(part * len(index) // self._accumulate, (part + 1) * len(index) // self._accumulate)
            last = part == self._accumulate - 1
            with self._fabric.no_backward_sync(self._module, enabled=not last and self._fabric.world_size > 1):
                output = self._module(
                    *(x[rows] for x in inputs),
                    index=index[rows],
                    labels={name: values[rows] for name, values in labels.items()},
                )
                scalars, granted = _mean_over_ranks(self._fabric, output, wishes)
                if not math.isfinite(scalars["loss"]):
                    raise NonFiniteError(f"the loss is {scalars['loss']}")
                self._fabric.backward(output["loss"] / self._accumulate)
            sums = {name: sums.get(name, 0.0) + value for name, value in scalars.items()}
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
        return {name: value / self._accumulate for name, value in sums.items()}, granted


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
    """Forget what optimizer and average hold of parameters whose values were drawn anew.

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


def _mean_over_ranks(
    fabric: "Fabric", output: Mapping[str, Tensor], wishes: Sequence[bool]
) -> tuple[dict[str, float], list[bool]]:
    values = torch.stack([value.detach().float() for value in output.values()])
    if fabric.world_size > 1:  # wishes go along with the numbers; one process alone need not ask its device for them
        values = torch.cat([values, values.new_tensor([float(wish) for wish in wishes])])
    numbers = (_sum_over_ranks(fabric, values) / fabric.world_size).tolist()
    granted = [number > 0 for number in numbers[len(output) :]] if fabric.world_size > 1 else list(wishes)
    return dict(zip(output, numbers, strict=False)), granted


def _sum_over_ranks(fabric: "Fabric", values: Tensor) -> Tensor:
    if fabric.world_size == 1:
        return values
    return cast(Tensor, fabric.all_reduce(values, reduce_op="sum"))
