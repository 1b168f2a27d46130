"""Whether a checkpoint fits the model, optimizer and schedule that are to go on from it, part by part.

In the path of a sample this file stands between `checkpoint`, which has found each part sound in itself, and
`run_state`, which puts them back. PyTorch believes what it is given: its fused update writes beyond a momentum that is
smaller than its parameter, and a schedule takes over any attribute.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from earmark.encoders.own_checkpoint import PARAMETER_SHAPED
from earmark.training.checkpoint import CheckpointError
from earmark.training.optim import WarmupCosineLR
from earmark.training.step import Learner

__all__ = ["require_fits"]

# What schedules of some versions of PyTorch have and of others do not; nothing of a run depends on it.
_OF_SOME_VERSIONS = {"verbose", "_get_lr_called_within_step", "_is_initial"}


def require_fits(path: Path, state: Mapping[str, Any], learner: Learner, *, same_settings: bool) -> None:
    """Raise unless a checkpoint is of this model, optimizer and schedule.

    Args:
        path: The checkpoint, for messages.
        state: What `load_checkpoint` returned of it.
        learner: What is to go on from it; nothing of it is changed.
        same_settings: Whether the schedule is to be taken over; with other settings it begins anew.

    Raises:
        CheckpointError: If a part is not; the message names file and part.
    """
    misfit = next(_misfits(state, learner, same_settings), None)
    if misfit is not None:
        raise CheckpointError(f"{path}: does not fit this model and optimizer: {misfit}")


def _misfits(state: Mapping[str, Any], learner: Learner, same_settings: bool) -> Iterator[str]:
    for name in ("epoch", "batch", "step"):
        if name not in state["position"]:
            yield f"position.{name}: missing"
    yield from _in_tensors("model", state["model"], learner.model)
    if learner.ema is not None:
        yield from _in_tensors("ema", state["ema"], learner.ema)
    yield from _in_optimizer(state["optimizer"], learner.optimizer, same_settings)
    if learner.scheduler is not None and same_settings:
        there, here = (
            {name: value for name, value in values.items() if name not in _OF_SOME_VERSIONS}
            for values in (state["scheduler"], learner.scheduler.state_dict())
        )
        yield from _in_plain("scheduler", there, here)
        epoch, batch = state["position"]["epoch"], state["position"]["batch"]
        num_begun = epoch if batch else max(0, epoch - 1)  # each but the first takes a step of the schedule
        by_epochs = not isinstance(learner.scheduler, WarmupCosineLR)  # which is told its place, and takes over nothing
        if by_epochs and there["last_epoch"] > here["last_epoch"] + num_begun:
            yield f"scheduler.last_epoch: {there['last_epoch']} after {epoch} epochs"
    size = torch.get_rng_state().shape
    for rank, generators in enumerate(state["rng"]):
        if generators["torch"].shape != size:
            yield f"rng[{rank}].torch: of {len(generators['torch'])} bytes, where the generator has {size[0]}"
        keys = generators["numpy"][1]
        if ((keys < 0) | (keys >= 2**32)).any():
            yield f"rng[{rank}].numpy: not a state of NumPy's generator"


def _in_tensors(part: str, there: Mapping[str, Tensor], module: nn.Module) -> Iterator[str]:
    """Yield in what tensors differ in name, kind and shape, and which hold numbers that are none."""
    here = module.state_dict()
    missing, unknown = [name for name in here if name not in there], [name for name in there if name not in here]
    for names, what in ((missing, "missing"), (unknown, "unknown")):
        if names:
            yield f"{part}.{names[0]}: {what}" + (f", with {len(names) - 1} more" if names[1:] else "")
    for name, own in here.items():
        value = there[name]
        if value.shape != own.shape:
            yield f"{part}.{name}: of the shape {tuple(value.shape)}, here {tuple(own.shape)}"
        if value.dtype != own.dtype:
            yield f"{part}.{name}: of {value.dtype}, here {own.dtype}"
        if value.is_floating_point() and not value.isfinite().all():
            yield f"{part}.{name}: not finite"


def _in_optimizer(there: Mapping[str, Any], optimizer: Optimizer, same_settings: bool) -> Iterator[str]:
    groups = optimizer.param_groups
    if len(there["param_groups"]) != len(groups):
        yield f"optimizer.param_groups: {len(there['param_groups'])}, here {len(groups)}"
        return
    parameters: dict[int, Tensor] = {}
    for place, (group, own) in enumerate(zip(there["param_groups"], groups, strict=True)):
        if len(group["params"]) != len(own["params"]):
            yield f"optimizer.param_groups[{place}]: {len(group['params'])} parameters, here {len(own['params'])}"
            return
        parameters |= dict(zip(group["params"], own["params"], strict=True))
        for name in (own.keys() | group.keys()) - {"params"} if same_settings else ():
            value, here = group.get(name), own.get(name)
            if not _same_kind(value, here):
                yield f"optimizer.param_groups[{place}].{name}: {value!r}, where {here!r} is"
    # SGD has None for all of them before the first step, and without momentum
    had = {name for values in there["state"].values() for name, value in values.items() if isinstance(value, Tensor)}
    for number, values in there["state"].items():
        parameter = parameters[number]
        for name, value in values.items():
            if name not in PARAMETER_SHAPED or (value is None and name not in had):
                continue
            if not isinstance(value, Tensor):
                yield f"optimizer.state[{number}].{name}: of the type {type(value).__name__}, not a tensor"
                continue
            if value.is_floating_point() and not value.isfinite().all():
                yield f"optimizer.state[{number}].{name}: not finite"
            if value.shape != parameter.shape or value.dtype != parameter.dtype:
                yield (
                    f"optimizer.state[{number}].{name}: {tuple(value.shape)} of {value.dtype}, its parameter is "
                    f"{tuple(parameter.shape)} of {parameter.dtype}"
                )


def _in_plain(name: str, there: Any, here: Any) -> Iterator[str]:
    """Yield in what plain data differ in kind: other names, lengths, types and texts, but not other numbers."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in sorted(map(str, there.keys() ^ here.keys())):
            yield f"{name}.{key}: {'unknown' if key in there else 'missing'}"
        for key in there.keys() & here.keys():
            yield from _in_plain(f"{name}.{key}", there[key], here[key])
    elif isinstance(there, list | tuple) and isinstance(here, list | tuple):
        if len(there) != len(here):
            yield f"{name}: {len(there)} values, here {len(here)}"
        for place, (one, other) in enumerate(zip(there, here, strict=False)):
            yield from _in_plain(f"{name}[{place}]", one, other)
    elif not _same_kind(there, here):
        yield f"{name}: {there!r}, where {here!r} is"


def _same_kind(there: Any, here: Any) -> bool:
    """Return whether one plain value can stand for the other: numbers for numbers, texts and flags for themselves."""
    flags = (bool, type(None))
    if isinstance(there, flags) or isinstance(here, flags):
        return isinstance(there, flags) and isinstance(here, flags)
    if isinstance(there, int | float) and isinstance(here, int | float):
        return math.isfinite(there)
    return type(there) is type(here) and there == here
