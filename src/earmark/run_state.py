"""The state of a run: where it stands, what a checkpoint of it holds, when one is due, and how it is put back.

In the path of a sample this file stands between `checkpoint` (how a file is written and read) and the loop in
`pretrain`.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from earmark.checkpoint import (
    CheckpointError,
    epoch_checkpoint_path,
    latest_checkpoint,
    latest_checkpoint_path,
    load_checkpoint,
    remove_old_latest,
    rng_state,
    save_checkpoint,
    set_rng_state,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class NonFiniteError(RuntimeError):
    """The loss or a weight is no longer a finite number."""


@dataclass(slots=True)
class Totals:
    """Sums over some steps: of the model's scalars, of samples (over all ranks), of seconds."""

    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    data_wait_seconds: float = 0.0
    scalars: dict[str, float] = field(default_factory=dict)

    def add(self, scalars: Mapping[str, float], *, samples: int, seconds: float, data_wait_seconds: float) -> None:
        """Add one step."""
        self.steps += 1
        self.samples += samples
        self.seconds += seconds
        self.data_wait_seconds += data_wait_seconds
        for name, value in scalars.items():
            self.scalars[name] = self.scalars.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Return the mean of each scalar."""
        return {name: value / self.steps for name, value in self.scalars.items()}

    def speed(self) -> dict[str, float]:
        """Return samples a second, and the share of the time spent waiting for data."""
        return {
            "samples_per_second": self.samples / self.seconds,
            "data_wait_share": self.data_wait_seconds / self.seconds,
        }


@dataclass(slots=True)
class Position:
    """Where a run stands: `step` steps are done, the next batch is `batch` of `epoch` (both counted from 0).

    `epoch_totals` are the sums over this epoch so far, and `last_scalars` those of the last step.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    epoch_totals: Totals = field(default_factory=Totals)
    last_scalars: dict[str, float] = field(default_factory=dict)

    def finish_epoch(self) -> None:
        """Move on to the first batch of the next epoch."""
        self.epoch += 1
        self.batch = 0
        self.epoch_totals = Totals()


@dataclass(kw_only=True)
class RunSaver:
    """Writes a run's checkpoints when they are due, and puts the newest one back.

    Attributes:
        directory: Folder of the checkpoints.
        fabric: Whose first rank writes, and whose gradient scaler is part of the state.
        model: The bare model.
        optimizer: The bare optimizer.
        scheduler: Its schedule, if any.
        arguments: Numbers that make up the run's identity, like its seed; a resume must have the same.
        config: Settings, stored as they are.
        changeable: Keys of the config, dotted, that may differ on a resume; each covers all that is below it.
        fingerprint: Identity of the data; a resume must have the same.
        epochs: Epochs of the whole run.
        every_epochs: Epochs between the checkpoints that are kept for good; the last epoch always has one.
        every_minutes: Minutes between the others, or None.
        every_steps: Steps between the others, or None.
        retain: How many of the others to keep.
        path: The newest checkpoint written or restored.
    """

    directory: Path
    fabric: "Fabric"
    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    arguments: Mapping[str, int]
    config: Mapping[str, Any]
    changeable: Sequence[str]
    fingerprint: str
    epochs: int
    every_epochs: int
    every_minutes: float | None
    every_steps: int | None
    retain: int
    path: Path | None = None

    def __post_init__(self) -> None:
        try:
            self.config = json.loads(json.dumps(self.config))
        except (TypeError, ValueError) as error:
            raise ValueError(f"config must be plain data, to be stored in checkpoints: {error}") from error
        self._saved_at = time.monotonic()

    def is_due(self, position: Position, *, leaving: bool) -> bool:
        """Return whether a checkpoint's time has come; it always has when the run is about to stop."""
        minutes = (time.monotonic() - self._saved_at) / 60
        return (
            leaving
            or self._ends_kept_epoch(position)
            or (self.every_steps is not None and position.step % self.every_steps == 0)
            or (self.every_minutes is not None and minutes >= self.every_minutes)
        )

    def save(self, position: Position) -> None:
        """Write a checkpoint, on the first rank.

        Raises:
            NonFiniteError: If a weight is not finite; nothing is written then.
        """
        self._require_finite_weights(position.step)
        if self._ends_kept_epoch(position):
            self.path = epoch_checkpoint_path(self.directory, position.epoch)
        else:
            self.path = latest_checkpoint_path(self.directory, position.step)
        if self.fabric.is_global_zero:
            save_checkpoint(self.path, self._state(position))
            remove_old_latest(self.directory, retain=self.retain)
        self._saved_at = time.monotonic()

    def restore(self, *, resume: bool) -> Position:
        """Put back the newest checkpoint, if there is one.

        Args:
            resume: Without it, a folder that holds checkpoints is refused.

        Returns:
            Where the run stands.

        Raises:
            CheckpointError: If a checkpoint can't be read, or belongs to another model, other data or other settings.
            FileExistsError: If resume is off and there are checkpoints.
        """
        if not resume and any(self.directory.glob("[!.]*.pt")):
            raise FileExistsError(f"{self.directory} holds checkpoints of a run: resume it, or take another run folder")
        path = latest_checkpoint(self.directory)
        if path is None:
            return Position()
        state = load_checkpoint(path)
        self._require_same_run(path, state)
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.scheduler is not None:
                self.scheduler.load_state_dict(state["scheduler"])
            if state["scaler"]:
                self.fabric.strategy.precision.load_state_dict(state["scaler"])
            set_rng_state(state["rng"])
            totals = Totals(**state["epoch_totals"])
            position = Position(**state["position"], epoch_totals=totals, last_scalars=state["last_scalars"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: does not fit this model and optimizer: {error}") from error
        self.path = path
        return position

    def _ends_kept_epoch(self, position: Position) -> bool:
        return position.batch == 0 and (position.epoch % self.every_epochs == 0 or position.epoch == self.epochs)

    def _state(self, position: Position) -> dict[str, Any]:
        return {
            "config": self.config,
            "arguments": dict(self.arguments),
            "fingerprint": self.fingerprint,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "position": {"epoch": position.epoch, "batch": position.batch, "step": position.step},
            "epoch_totals": asdict(position.epoch_totals),
            "last_scalars": position.last_scalars,
            "rng": rng_state(),
        }

    def _require_finite_weights(self, step: int) -> None:
        """A finite loss can still have had a gradient that was not; such weights must not displace good ones."""
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise NonFiniteError(f"{name} is not finite after step {step}; no checkpoint was written")

    def _require_same_run(self, path: Path, state: Mapping[str, Any]) -> None:
        missing = {"arguments", "config", "fingerprint", "scheduler", "position"} - state.keys()
        if missing:
            raise CheckpointError(f"{path}: not the checkpoint of a training run (no {', '.join(sorted(missing))})")
        if state["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{path}: the run was made with other data (fingerprint {state['fingerprint']} there, "
                f"{self.fingerprint} here)"
            )
        if (state["scheduler"] is None) != (self.scheduler is None):
            raise CheckpointError(f"{path}: a run can't be resumed with a schedule if it had none, nor the other way")
        there = dict(_leaves(state["config"])) | state["arguments"]
        here = dict(_leaves(self.config)) | dict(self.arguments)
        differences = [
            f"{key} ({there.get(key, 'missing')} there, {here.get(key, 'missing')} here)"
            for key in sorted(there.keys() | here.keys())
            if there.get(key) != here.get(key)
            and not any(key == prefix or key.startswith(f"{prefix}.") for prefix in self.changeable)
        ]
        if differences:
            raise CheckpointError(
                f"{path}: the run was made with other settings: {', '.join(differences)}; "
                "go back to them, or take another run folder"
            )


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of everything in nested mappings that is not itself a mapping."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
