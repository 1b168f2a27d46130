"""Optimizer and learning-rate schedules: PyTorch's own, with the published settings.

The loop steps a schedule once per epoch, `WarmupCosineLR` at each step. Schedules are torch schedulers, so that a
checkpoint holds their state.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from earmark.wording import counted

__all__ = ["WarmupCosineLR", "multi_step", "one_cycle", "require_schedule_covers", "sgd"]


def sgd(
    parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    nesterov: bool = False,
    fused: bool | None = None,
) -> SGD:
    """Return SGD with the settings of the published runs (arXiv 2209.13583, section 4).

    Args:
        parameters: Parameters, or groups of them, as for every torch optimizer.
        lr: Learning rate; a schedule may override it.
        momentum: Momentum; `one_cycle` overrides it.
        weight_decay: L2 penalty, on all parameters.
        nesterov: Use Nesterov's momentum.
        fused: Update all weights in one kernel; None for PyTorch's choice.

    Example:
        >>> from torch import nn
        >>> sgd(nn.Linear(2, 1).parameters(), lr=0.005).defaults["weight_decay"]
        0.0001
    """
    return SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)


def one_cycle(
    optimizer: Optimizer, *, max_lr: float, total_steps: int, first_step: int = 1, epochs: int | None = None
) -> OneCycleLR:
    """Return the one-cycle schedule of the published runs, to be stepped once per epoch.

    The learning rate rises from max_lr / 25 to max_lr over the first 30 % of the steps and falls to max_lr / 250,000,
    both along a cosine; momentum goes from 0.95 to 0.85 and back. Learning rates that parameter groups set for
    themselves are overridden.

    The original code steps its schedule at the start of each epoch, before the first one too: its first epoch runs at
    step 1, and its last one, at step ``total_steps``, is one past the end of the cosine, where the rate has begun to
    rise again. Over 100 epochs that is nothing (0.05 % of max_lr); in a run of a few epochs it is much, and
    ``first_step=0`` gives the plain schedule.

    Args:
        optimizer: An optimizer with momentum.
        max_lr: Highest learning rate.
        total_steps: Length of the cycle in epochs.
        first_step: Step of the first epoch: 1 as in the original, 0 as in PyTorch's examples.
        epochs: Length of the run, where it is known; a schedule that is too short for it is refused.

    Raises:
        ValueError: If the run is longer than the schedule, or first_step is neither 0 nor 1.

    Example:
        >>> from torch import nn
        >>> optimizer = sgd(nn.Linear(2, 1).parameters(), lr=0.005)
        >>> scheduler = one_cycle(optimizer, max_lr=0.005, total_steps=100, epochs=100, first_step=0)
        >>> [round(lr, 6) for lr in scheduler.get_last_lr()]
        [0.0002]
    """
    if first_step not in (0, 1):
        raise ValueError(f"first_step must be 0 or 1, got {first_step}")
    scheduler = OneCycleLR(optimizer, max_lr=max_lr, total_steps=total_steps)
    if first_step == 1:
        # Built anew from the next step on: PyTorch warns of a schedule that is stepped before its optimizer.
        scheduler = OneCycleLR(optimizer, max_lr=max_lr, total_steps=total_steps, last_epoch=0)
    if epochs is not None:
        require_schedule_covers(scheduler, epochs=epochs)
    return scheduler


def multi_step(optimizer: Optimizer, *, milestones: Sequence[int], gamma: float = 0.1) -> MultiStepLR:
    """Return a schedule that multiplies the learning rate by gamma at each milestone, to be stepped once per epoch.

    Args:
        optimizer: Any optimizer.
        milestones: Epochs, counted from 0, that start with a lower rate: 18 and 24 in the published linear probe.
        gamma: Factor.

    Example:
        >>> from torch import nn
        >>> multi_step(sgd(nn.Linear(2, 1).parameters(), lr=0.5), milestones=(18, 24)).get_last_lr()
        [0.5]
    """
    return MultiStepLR(optimizer, milestones=list(milestones), gamma=gamma)


class WarmupCosineLR(LRScheduler):
    r"""Linear warm-up, then half a cosine to 0: a rate for each step, not for each epoch.

    Of T steps in all, W of them warm-up, step t = 0, 1, ..., T - 1 has the rate

    .. math::
        \eta_t = \eta \cdot \begin{cases}
            (t + 1) / (W + 1) & t < W \\
            \tfrac12 \bigl(1 + \cos(\pi (t - W) / (T - W))\bigr) & t \ge W
        \end{cases}

    with :math:`\eta` the rate that each group of parameters was given. The first step and the last one have rates
    above 0, so neither is wasted; 0 is where a step T would be. The loop tells it the place of each step (`go_to`), so
    a run that is resumed has the rate of its place.

    Args:
        optimizer: Any optimizer; its rates are the highest ones.
        total_steps: Steps of the whole run, T.
        warmup_steps: Those of the warm-up, W; it need not be whole.

    Raises:
        ValueError: If the warm-up is negative, or leaves no step to the cosine.

    Source: Loshchilov and Hutter, arXiv 1608.03983, equation 5, without restarts; the warm-up is that of Goyal et al.,
    arXiv 1706.02677, section 2.2.

    Example:
        >>> from torch import nn
        >>> schedule = WarmupCosineLR(sgd(nn.Linear(2, 1).parameters(), lr=0.3), total_steps=6, warmup_steps=2)
        >>> [round(0.3 * schedule.share_of(step), 4) for step in range(6)]
        [0.1, 0.2, 0.3, 0.2561, 0.15, 0.0439]
    """

    def __init__(self, optimizer: Optimizer, *, total_steps: int, warmup_steps: float = 0.0) -> None:
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(f"need a warm-up of at least 0 and fewer than the {total_steps} steps, got {warmup_steps}")
        self.total_steps, self.warmup_steps = total_steps, warmup_steps
        super().__init__(optimizer)

    def share_of(self, step: int) -> float:
        """Return the rate of a step as a share of the highest one.

        Args:
            step: Counted from 0; from `total_steps` on the share is 0.
        """
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        share = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return (1 + math.cos(math.pi * share)) / 2

    def get_lr(self) -> list[Any]:
        """Return the rate of each group at the step that the schedule is at."""
        return [rate * self.share_of(self.last_epoch) for rate in self.base_lrs]

    def go_to(self, step: int) -> None:
        """Set the rates of a step.

        Args:
            step: Counted from 0.
        """
        self.last_epoch = step  # torch's name; it counts calls of `step`
        self._last_lr: list[Any] = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def require_schedule_covers(scheduler: LRScheduler | None, *, epochs: int, steps_per_epoch: int = 1) -> None:
    """Refuse a schedule of fixed length that is shorter than the run, before the run and not days into it.

    Args:
        scheduler: Any schedule; only `one_cycle` and `WarmupCosineLR` have a length.
        epochs: Length of the run.
        steps_per_epoch: Steps of an epoch, which `WarmupCosineLR` counts.

    Raises:
        ValueError: If the schedule ends before the run does.

    Example:
        >>> require_schedule_covers(None, epochs=100)
    """
    if isinstance(scheduler, OneCycleLR) and scheduler.total_steps < epochs:
        raise ValueError(
            f"the one-cycle schedule has total_steps={scheduler.total_steps}, but the run has "
            f"{counted(epochs, 'epoch')}: give it at least one step per epoch"
        )
    if isinstance(scheduler, WarmupCosineLR) and scheduler.total_steps < epochs * steps_per_epoch:
        raise ValueError(
            f"the cosine has total_steps={scheduler.total_steps}, but the run has {epochs * steps_per_epoch}: "
            f"{counted(epochs, 'epoch')} of {counted(steps_per_epoch, 'step')}"
        )
