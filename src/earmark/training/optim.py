"""Optimizer and learning-rate schedules: PyTorch's own, with the published settings.

The loop steps a schedule once per epoch. Schedules are torch schedulers, so that a checkpoint holds their state.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from earmark.wording import counted


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


def require_schedule_covers(scheduler: LRScheduler | None, *, epochs: int) -> None:
    """Refuse a schedule of fixed length that is shorter than the run, before the run and not days into it.

    Args:
        scheduler: Any schedule; only `one_cycle` has a length.
        epochs: Length of the run.

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
