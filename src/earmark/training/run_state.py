"""The state of a run: where it stands, what a checkpoint of it holds, when one is due, and how it is put back.

In the path of a sample this file stands between the loop, which asks it for checkpoints, and `checkpoint` (how a file
is written and read).
"""

import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from earmark.clips.sampling import num_full_batches
from earmark.training.checkpoint import (
    CheckpointError,
    best_checkpoint_path,
    epoch_checkpoint_path,
    keep_as,
    latest_checkpoint,
    latest_checkpoint_path,
    load_checkpoint,
    remove_old_latest,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from earmark.training.fitting import require_fits
from earmark.training.optim import WarmupCosineLR
from earmark.training.processes import gather_objects, on_first_rank
from earmark.training.ranges import require_in_range
from earmark.training.step import HasBounds, Learner, NonFiniteError
from earmark.wording import counted

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Checkpointing", "Position", "RunDiffersError", "RunSaver", "Totals"]

_PARTS = {  # of a checkpoint that a run can go on from; "videos" came later
    *("config", "arguments", "fingerprint", "model", "optimizer", "scheduler", "scaler", "ema", "rng"),
    *("position", "epoch_totals", "last_scalars"),
}

_log = logging.getLogger(__name__)


class RunDiffersError(CheckpointError):
    """A run would go on with other settings or data than it was made with.

    Attributes:
        path: The checkpoint.
        differences: What differs, in words.
    """

    def __init__(self, path: Path, differences: Sequence[str], *, ways_out: str) -> None:
        super().__init__(f"{path}: the run was made with other {', '.join(differences)}; {ways_out}")
        self.path, self.differences = path, tuple(differences)


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
        """Return samples per second, and the share of the time spent waiting for data."""
        return {
            "samples_per_second": self.samples / self.seconds,
            "data_wait_share": self.data_wait_seconds / self.seconds,
        }


@dataclass(slots=True)
class Position:
    """Where a run stands: `step` steps are done, the next batch is `batch` of `epoch` (both counted from 0).

    `epoch_totals` are the sums over this epoch so far, and `last_scalars` those of the last step. `best_score` is the
    highest that the probe found so far, if it was asked, after `best_epoch` epochs.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    epoch_totals: Totals = field(default_factory=Totals)
    last_scalars: dict[str, float] = field(default_factory=dict)
    best_score: float | None = None
    best_epoch: int = 0

    def move_on(self, *, batches_per_epoch: int) -> None:
        """Count a step, and move on to the next batch: the first of the next epoch after an epoch's last."""
        self.step += 1
        self.batch += 1
        if self.batch == batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0


@dataclass(frozen=True, kw_only=True)
class Checkpointing:
    """When a run's checkpoints are written, what says that they are of the same run, and whether it goes on from them.

    Attributes:
        config: Settings of the run as plain data, stored in every checkpoint.
        changeable: Keys of the config, dotted, that may differ on a resume; each covers all that is below it.
        defaults: By dotted key, the values that count where a config lacks them: a run that was made before a setting
            was there did what its default does.
        every_epochs: Epochs between the checkpoints that are kept for good; the last epoch always has one.
        every_minutes: Minutes between the others; None for none.
        every_steps: Steps between the others; None for none.
        retain: How many of the others to keep.
        resume: Go on from the newest checkpoint in the run's folder, if there is one. Without it, such a folder is
            refused.
        force: Go on although settings or data differ from the checkpoint's; the new ones hold from there on. It goes
            with `resume`.

    Raises:
        ValueError: If a number is out of range, or settings don't go together.

    Example:
        >>> Checkpointing(config={"optim": {"lr": 0.05}}, every_steps=500).retain
        2
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    changeable: Sequence[str] = ("environment", "logging", "hydra")
    defaults: Mapping[str, Any] = field(default_factory=dict)
    every_epochs: int = 10
    every_minutes: float | None = 30.0
    every_steps: int | None = None
    retain: int = 2
    resume: bool = True
    force: bool = False

    def __post_init__(self) -> None:
        require_in_range(
            at_least_1={"every_epochs": self.every_epochs, "every_steps": self.every_steps, "retain": self.retain},
            above_0={"every_minutes": self.every_minutes},
        )
        if self.force and not self.resume:
            raise ValueError("force goes on with a run, which resume=False refuses; give one of them")
        try:
            json.dumps(self.config)
        except (TypeError, ValueError) as error:
            raise ValueError(f"config must be plain data, to be stored in checkpoints: {error}") from error


@dataclass(kw_only=True)
class RunSaver:
    """Writes a run's checkpoints when they are due, and puts the newest one back.

    Attributes:
        directory: Folder of the checkpoints.
        fabric: Whose first rank writes, and whose gradient scaler is part of the state.
        learner: What is trained.
        options: When checkpoints are due, and what a resume may differ in.
        arguments: Numbers that make up the run's identity, like its seed; a resume must have the same.
        fingerprint: Identity of the data; a resume must have the same.
        epochs: Epochs of the whole run.
        videos: Ids of videos by what they are used for, stored so that an evaluation can tell what was seen. A run that
            goes on adds those of the checkpoint.
        path: The newest checkpoint written or restored.
    """

    directory: Path
    fabric: "Fabric"
    learner: Learner
    options: Checkpointing
    arguments: Mapping[str, int]
    fingerprint: str
    epochs: int
    videos: Mapping[str, Sequence[str]] = field(default_factory=dict)
    path: Path | None = None

    def __post_init__(self) -> None:
        self._config = json.loads(json.dumps(self.options.config))  # as a checkpoint gives it back
        self._saved_at = time.monotonic()

    def minutes_are_over(self) -> bool:
        """Return whether a checkpoint is due by this process's clock."""
        every = self.options.every_minutes
        return every is not None and (time.monotonic() - self._saved_at) / 60 >= every

    def is_due(self, position: Position, *, wanted: bool) -> bool:
        """Return whether a checkpoint's time has come: because it is wanted, or by the count of epochs or steps."""
        return (
            wanted
            or self._ends_kept_epoch(position)
            or (self.options.every_steps is not None and position.step % self.options.every_steps == 0)
        )

    def save(self, position: Position, *, best: bool = False) -> None:
        """Write a checkpoint, on the first rank.

        Args:
            position: Where the run stands.
            best: Keep it as the best one, too.

        Raises:
            NonFiniteError: If a weight is not finite; nothing is written then.
            CheckpointError: If it can't be written, on a full disk for instance; those before are whole.
        """
        self._require_finite_weights(position.step)
        if self._ends_kept_epoch(position):
            path = epoch_checkpoint_path(self.directory, position.epoch)
        else:
            path = latest_checkpoint_path(self.directory, position.step)
        states = gather_objects(rng_state())  # of every rank: dropout draws from its own
        on_first_rank(lambda: self._write(path, self._state(position) | {"rng": states}, best=best))
        self.path, self._saved_at = path, time.monotonic()

    def _write(self, path: Path, state: Mapping[str, Any], *, best: bool) -> None:
        try:
            save_checkpoint(path, state)
            if best:
                keep_as(best_checkpoint_path(self.directory), path)
        except (OSError, RuntimeError) as error:  # torch's zip writer says RuntimeError when a disk is full
            kept = f"{self.path} is whole, and a resume goes on from it" if self.path else "there is none before it"
            raise CheckpointError(f"{path}: the checkpoint could not be written ({error}); {kept}") from error
        remove_old_latest(self.directory, retain=self.options.retain)

    def restore(self) -> Position:
        """Put back the newest checkpoint, if there is one.

        Returns:
            Where the run stands.

        Raises:
            CheckpointError: If a checkpoint can't be read, or belongs to another model.
            RunDiffersError: If it belongs to other data or other settings.
            FileExistsError: If resume is off and there are checkpoints.
        """
        path = on_first_rank(self._to_restore)
        if path is None:
            return Position()
        state = load_checkpoint(path)
        differences = self._differences(path, state)
        if differences and not self.options.force:
            raise RunDiffersError(
                path, differences, ways_out="go back to that, take another run folder, or go on with force=True"
            )
        if differences and self.fabric.is_global_zero:
            _log.warning("%s: goes on although the run was made with other %s", path, ", ".join(differences))
        groups = self.learner.optimizer.param_groups
        chosen = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        # All of it is checked before any of it is put back: PyTorch believes what it is given.
        require_fits(path, state, self.learner, same_settings=not differences)
        if not differences:
            self._require_position_of_this_run(path, state["position"])
        try:
            position = self._put_back(state, chosen, with_schedule=not differences)
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
            raise CheckpointError(f"{path}: does not fit this model and optimizer: {error}") from error
        if differences:
            self._begin_with(chosen, position, state["arguments"])
        self.path = path
        return position

    def _require_position_of_this_run(self, path: Path, position: Mapping[str, int]) -> None:
        num_batches = num_full_batches(self.arguments["num_clips"], self.arguments["batch_size"])
        if position["epoch"] > self.epochs or position["batch"] >= num_batches:
            raise CheckpointError(
                f"{path}: position: batch {position['batch']} of epoch {position['epoch']}, in a run of "
                f"{counted(self.epochs, 'epoch')} of {counted(num_batches, 'batch', 'batches')}"
            )

    def _put_back(
        self, state: Mapping[str, Any], chosen: Sequence[Mapping[str, Any]], *, with_schedule: bool
    ) -> Position:
        """Put back a state that fits, and return where the run stands."""
        learner = self.learner
        learner.model.load_state_dict(dict(state["model"]))  # without versions of modules: names and shapes count
        learner.optimizer.load_state_dict(state["optimizer"])
        for group, values in zip(learner.optimizer.param_groups, chosen, strict=True):
            # flags, such as fused, say how a step is done: that is for this run to choose
            group.update({name: value for name, value in values.items() if isinstance(value, bool | None)})
        # A `WarmupCosineLR` is told its place by the loop.
        if learner.scheduler is not None and with_schedule and not isinstance(learner.scheduler, WarmupCosineLR):
            known = learner.scheduler.state_dict().keys()
            learner.scheduler.load_state_dict({k: v for k, v in state["scheduler"].items() if k in known})
        if state["scaler"]:
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        if learner.ema is not None:
            learner.ema.load_state_dict(dict(state["ema"]))
        for model in (learner.model, *([] if learner.ema is None else [learner.ema.module])):
            if isinstance(model, HasBounds):  # the bounds may be others than when it was written
                model.keep_in_range()
        self._restore_rng(state["rng"])
        totals = Totals(**state["epoch_totals"])
        before: Mapping[str, Sequence[str]] = state.get("videos", {})
        uses = sorted(before.keys() | self.videos.keys())
        self.videos = {use: sorted({*before.get(use, ()), *self.videos.get(use, ())}) for use in uses}
        return Position(**state["position"], epoch_totals=totals, last_scalars=state["last_scalars"])

    def _to_restore(self) -> Path | None:
        if not self.options.resume and any(self.directory.glob("[!.]*.pt")):
            raise FileExistsError(
                f"{self.directory} holds checkpoints of a run: resume=True goes on with it; or take another run folder"
            )
        return latest_checkpoint(self.directory)

    def _restore_rng(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Restore each rank's own state; ranks that did not exist before keep what they were seeded with."""
        if self.fabric.global_rank < len(states):
            set_rng_state(states[self.fabric.global_rank])

    def _begin_with(
        self, chosen: Sequence[Mapping[str, Any]], position: Position, arguments: Mapping[str, int]
    ) -> None:
        """Have settings that were forced take effect: those of the optimizer, of its schedule, and of the order."""
        for group, values in zip(self.learner.optimizer.param_groups, chosen, strict=True):
            group.update(values)
        of_order = ("seed", "batch_size", "num_clips", "videos_per_batch")
        if any(arguments.get(name) != self.arguments.get(name) for name in of_order):
            position.batch, position.epoch_totals = 0, Totals()  # the current epoch starts over
        if self.learner.scheduler is not None and not isinstance(self.learner.scheduler, WarmupCosineLR):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                for _ in range(position.epoch if position.batch else max(0, position.epoch - 1)):
                    self.learner.scheduler.step()

    def _ends_kept_epoch(self, position: Position) -> bool:
        return position.batch == 0 and (
            position.epoch % self.options.every_epochs == 0 or position.epoch == self.epochs
        )

    def _state(self, position: Position) -> dict[str, Any]:
        return {
            "config": self._config,
            "arguments": dict(self.arguments),
            "fingerprint": self.fingerprint,
            "videos": {use: list(ids) for use, ids in self.videos.items()},
            "model": self.learner.model.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "scheduler": None if self.learner.scheduler is None else self.learner.scheduler.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "ema": None if self.learner.ema is None else self.learner.ema.state_dict(),
            "position": {
                name: getattr(position, name) for name in ("epoch", "batch", "step", "best_score", "best_epoch")
            },
            "epoch_totals": asdict(position.epoch_totals),
            "last_scalars": position.last_scalars,
        }

    def _require_finite_weights(self, step: int) -> None:
        """A finite loss can still have had a gradient that was not; such weights must not displace good ones."""
        state = self.learner.model.state_dict().items()
        finite = {name: torch.isfinite(tensor).all() for name, tensor in state if tensor.is_floating_point()}
        if finite and not torch.stack(list(finite.values())).all():  # the device is asked once
            name = next(name for name, is_finite in finite.items() if not is_finite)
            raise NonFiniteError(f"{name} is not finite after step {step}; no checkpoint was written")

    def _differences(self, path: Path, state: Mapping[str, Any]) -> list[str]:
        """Return what differs between the run of a checkpoint and this one, in words; what may differ left out."""
        missing = _PARTS - state.keys()
        if missing:
            raise CheckpointError(f"{path}: not the checkpoint of a training run (no {', '.join(sorted(missing))})")
        if state["config"] is None:
            raise CheckpointError(f"{path}: config: not values by name")
        if (state["scheduler"] is None) != (self.learner.scheduler is None):
            raise CheckpointError(
                f"{path}: a run can't be resumed with a schedule if it had none, or without if it had one"
            )
        if (state.get("ema") is None) != (self.learner.ema is None):
            raise CheckpointError(
                f"{path}: a run can't be resumed with an average of its weights if it had none, "
                "or without if it had one"
            )
        differences = []
        if state["fingerprint"] != self.fingerprint:
            differences.append(f"data (fingerprint {state['fingerprint']} there, {self.fingerprint} here)")
        defaults = dict(self.options.defaults)
        there = defaults | dict(_leaves(state["config"])) | state["arguments"]
        here = defaults | dict(_leaves(self._config)) | dict(self.arguments)
        settings = [
            f"{key} ({there.get(key, 'missing')} there, {here.get(key, 'missing')} here)"
            for key in sorted(there.keys() | here.keys())
            if there.get(key) != here.get(key)
            and not any(key == prefix or key.startswith(f"{prefix}.") for prefix in self.options.changeable)
        ]
        if settings:
            differences.append(f"settings: {', '.join(settings)}")
        return differences


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of everything in nested mappings that is not itself a mapping."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
