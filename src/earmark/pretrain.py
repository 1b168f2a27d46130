"""The training loop: batches, transforms on the device, model, losses, optimizer; and exact resume.

In the path of a sample this file comes after `clips` and `sampling` (which give the batches), `transforms` and `model`
(which it calls), and before `evaluation` (which reads its checkpoints). Lightning Fabric supplies device, precision and
process group; the loop itself is here to be read.

A run that is stopped anywhere and started again equals the uninterrupted run bit for bit on the CPU: `sampling` makes
order and seeds functions of the position, and a checkpoint holds the position and all that changes along the way.
"""

import math
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from earmark.loading import load_batches
from earmark.optim import require_schedule_covers
from earmark.run_logging import METRICS_FILE, RunLog
from earmark.run_state import NonFiniteError, RunSaver, Totals
from earmark.sampling import EpochBatches

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Clips", "NonFiniteError", "PretrainResult", "pretrain"]


class Clips(Protocol):
    """A map-style data set: its keys are (index, seed), its samples are NumPy arrays by name."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int], /) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """What a run came to.

    Attributes:
        steps: Steps done, those before a resume included.
        epochs: Whole epochs done.
        last_losses: The scalars of the last step: "loss", its parts and the model's diagnostics.
        checkpoint_path: The newest checkpoint.
        metrics_path: The file of metrics.
        interrupted: Whether Ctrl-C ended the run before its time.
    """

    steps: int
    epochs: int
    last_losses: dict[str, float]
    checkpoint_path: Path | None
    metrics_path: Path
    interrupted: bool = False


def pretrain(
    *,
    model: nn.Module,
    clips: Clips,
    collate_fn: Callable[[list[Any]], dict[str, Tensor]],
    video_transform: nn.Module,
    audio_transform: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    run_dir: str | Path,
    epochs: int,
    batch_size: int,
    seed: int,
    num_workers: int,
    fabric: "Fabric",
    config: Mapping[str, Any],
    fingerprint: str,
    max_steps: int | None = None,
    shared_crop: bool = False,
    save_every_epochs: int = 10,
    save_every_minutes: float | None = 30.0,
    save_every_steps: int | None = None,
    retain: int = 2,
    log_every: int = 10,
    resume: bool = True,
    changeable: Sequence[str] = ("environment", "logging", "hydra"),
    tensorboard: bool = True,
    progress: bool = True,
) -> PretrainResult:
    """Train a model on pairs of clips and their sound (arXiv 2209.13583, section 3), or go on with a run.

    The first Ctrl-C lets the step in hand finish, saves a checkpoint and returns; the second one breaks off at once.

    Args:
        model: Takes float (B, 3, T, H, W) before and after and float (B, 1, F, M), and returns a dict of scalars with
            "loss" among them.
        clips: The data set, of samples with ``video_before`` and ``video_after`` uint8 (T, H, W, 3), ``audio`` int16
            (S,), ``index``, ``seed`` and ``video_size`` (height, width).
        collate_fn: Makes one batch of a list of samples.
        video_transform: Called with (video uint8 (B, T, H, W, 3), seed (B,), video_size (B, 2), stream=0 or 1).
        audio_transform: Called with (audio int16 (B, S)).
        optimizer: Optimizer of the model's parameters.
        scheduler: Its schedule, stepped once an epoch; None for a constant rate.
        run_dir: Folder of the run: metrics.jsonl, checkpoints/, tensorboard/.
        epochs: Epochs of the whole run.
        batch_size: Size of the global batch, over all ranks together.
        seed: Seed of order and samples. The model's first weights are the caller's to seed.
        num_workers: Threads that load data for this rank; 0 loads in the loop's own, between the steps.
        fabric: A launched Fabric.
        config: Settings of the run as plain data, stored in every checkpoint.
        fingerprint: Identity of the prepared data.
        max_steps: Stop after so many steps of the whole run, if its epochs don't end before; schedules don't change.
        shared_crop: Draw the crop of both clips of a sample alike, instead of independently.
        save_every_epochs: Epochs between the checkpoints that are kept for good; the last epoch always has one.
        save_every_minutes: Minutes between the others; None for none.
        save_every_steps: Steps between the others; None for none.
        retain: How many of the others to keep.
        log_every: Steps between lines of metrics; the first and the last step always have one.
        resume: Go on from the newest checkpoint in run_dir, if there is one. Without it, such a folder is refused.
        changeable: Keys of the config, dotted, that may differ on a resume; each covers all that is below it.
        tensorboard: Write TensorBoard files.
        progress: Show progress on stderr.

    Returns:
        What the run came to; a run that was complete already is not touched.

    Raises:
        NonFiniteError: If the loss or a weight is NaN or infinite; the message of a loss names the batch's indices. No
            checkpoint is written then, so the newest one is from before.
        CheckpointError: If a checkpoint can't be read, or belongs to another model, other data or other settings.
        FileExistsError: If resume is off and the folder holds checkpoints.
        ValueError: If the arguments don't go together.
    """
    run_dir = Path(run_dir)
    _refuse_bf16_on_cpu(fabric)
    require_schedule_covers(scheduler, epochs=epochs)
    num_batches = EpochBatches(len(clips), batch_size, seed=seed, epoch=0, world_size=fabric.world_size).num_batches
    last_step = epochs * num_batches if max_steps is None else min(max_steps, epochs * num_batches)

    module, fabric_optimizer = fabric.setup(model, optimizer)
    module.train()
    video_transform, audio_transform = video_transform.to(fabric.device), audio_transform.to(fabric.device)
    saver = RunSaver(
        directory=run_dir / "checkpoints",
        fabric=fabric,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        arguments={"seed": seed, "batch_size": batch_size, "shared_crop": shared_crop, "num_clips": len(clips)},
        config=config,
        changeable=changeable,
        fingerprint=fingerprint,
        epochs=epochs,
        every_epochs=save_every_epochs,
        every_minutes=save_every_minutes,
        every_steps=save_every_steps,
        retain=retain,
    )
    position = saver.restore(resume=resume)
    metrics_path = run_dir / METRICS_FILE
    if position.step >= last_step:
        return PretrainResult(position.step, position.epoch, position.last_scalars, saver.path, metrics_path)

    log = RunLog(
        run_dir,
        step=position.step,
        total_steps=last_step,
        epochs=epochs,
        enabled=fabric.is_global_zero,
        tensorboard=tensorboard,
        progress=progress,
    )
    keys = _keys_of_rest(
        len(clips),
        batch_size,
        seed=seed,
        epochs=range(position.epoch, epochs),
        start_batch=position.batch,
        fabric=fabric,
    )
    batches = load_batches(clips, keys, collate_fn=collate_fn, num_workers=num_workers, device=fabric.device)
    since_line, interrupted = Totals(), False
    with log, _deferred_interrupt() as interrupt:
        started = time.perf_counter()  # each step is timed from the end of the one before: a GPU works on meanwhile
        try:
            while position.step < last_step and not interrupted:
                if position.batch == 0 and position.epoch > 0 and scheduler is not None:
                    _step_schedule(scheduler)
                batch, data_wait_seconds = _timed_next(batches)
                inputs = _model_inputs(batch, video_transform, audio_transform, shared_crop=shared_crop)
                scalars = _train_step(fabric, module, fabric_optimizer, inputs, indices=batch["index"])
                # Whichever rank was asked to stop, all of them stop at the same step.
                interrupted = _on_any_rank(fabric, interrupt.is_set())
                ended = time.perf_counter()
                position.batch += 1
                position.step += 1
                position.last_scalars = scalars
                for sums in (position.epoch_totals, since_line):
                    sums.add(
                        scalars,
                        samples=len(batch["index"]) * fabric.world_size,
                        seconds=ended - started,
                        data_wait_seconds=data_wait_seconds,
                    )
                started = ended
                counts, lr = {"step": position.step, "epoch": position.epoch + 1}, {"lr": _learning_rate(optimizer)}
                log.show(**counts, loss=scalars["loss"], samples_per_second=since_line.speed()["samples_per_second"])
                if position.step % log_every == 0 or position.step in (1, last_step):
                    log.write("step", counts | scalars | lr | since_line.speed())
                    since_line = Totals()
                if position.batch == num_batches:
                    totals = position.epoch_totals
                    log.write("epoch", counts | totals.means() | lr | totals.speed() | {"seconds": totals.seconds})
                    position.finish_epoch()
                if saver.is_due(position, leaving=interrupted or position.step == last_step):
                    log.sync()
                    saver.save(position)
        finally:
            batches.close()  # ends the readers now
    fabric.barrier()  # no rank goes on to read a checkpoint that the first is still writing
    return PretrainResult(
        position.step,
        position.epoch,
        position.last_scalars,
        saver.path,
        metrics_path,
        interrupted=interrupted and position.step < last_step,
    )


def _timed_next(batches: Iterator[dict[str, Tensor]]) -> tuple[dict[str, Tensor], float]:
    """Return the next batch and the seconds waited for it."""
    started = time.perf_counter()
    return next(batches), time.perf_counter() - started


def _learning_rate(optimizer: Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def _model_inputs(
    batch: Mapping[str, Tensor], video_transform: nn.Module, audio_transform: nn.Module, *, shared_crop: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the model takes: clip before, clip after, log-mel of the sound."""
    seed, size = batch["seed"], batch["video_size"]
    return (
        video_transform(batch["video_before"], seed, size, stream=0),
        video_transform(batch["video_after"], seed, size, stream=0 if shared_crop else 1),
        audio_transform(batch["audio"]),
    )


def _train_step(
    fabric: "Fabric", module: nn.Module, optimizer: Any, inputs: tuple[Tensor, ...], *, indices: Tensor
) -> dict[str, float]:
    """Do one step and return the model's scalars, as means over the ranks.

    The loss is looked at before the weights are touched: waiting for it costs a GPU next to nothing, because the
    backward pass, the longer part, is queued at once and the next batch is prepared meanwhile.
    """
    output = module(*inputs)
    values = _sum_over_ranks(fabric, torch.stack([value.detach().float() for value in output.values()]))
    scalars: dict[str, float] = dict(zip(output, (values / fabric.world_size).tolist(), strict=True))
    if not math.isfinite(scalars["loss"]):
        raise NonFiniteError(f"the loss is {scalars['loss']} on the batch of indices {indices.tolist()}")
    optimizer.zero_grad()
    fabric.backward(output["loss"])
    optimizer.step()
    return scalars


def _step_schedule(scheduler: LRScheduler) -> None:
    """Step a schedule at the start of an epoch."""
    with warnings.catch_warnings():
        # PyTorch counts the optimizer's steps in this process only, so it misses those from before a resume.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        scheduler.step()


def _keys_of_rest(
    num_items: int, batch_size: int, *, seed: int, epochs: range, start_batch: int, fabric: "Fabric"
) -> Iterator[list[tuple[int, int]]]:
    """Yield this rank's batches to the end of the run: one sampler, so that workers load on across epochs' edges."""
    for epoch in epochs:
        yield from EpochBatches(
            num_items,
            batch_size,
            seed=seed,
            epoch=epoch,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            start_batch=start_batch if epoch == epochs.start else 0,
        )


@contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event, so that the step in hand ends whole; the second is a KeyboardInterrupt."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals can't be handled there
        yield requested
        return

    def request(number: int, frame: FrameType | None) -> None:
        requested.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("stopping after this step; Ctrl-C again to break off at once", file=sys.stderr, flush=True)

    before = signal.signal(signal.SIGINT, request)
    try:
        yield requested
    finally:
        signal.signal(signal.SIGINT, before)


def _sum_over_ranks(fabric: "Fabric", values: Tensor) -> Tensor:
    if fabric.world_size == 1:
        return values
    return cast(Tensor, fabric.all_reduce(values, reduce_op="sum"))


def _on_any_rank(fabric: "Fabric", flag: bool) -> bool:
    """Return whether a flag is set on any rank; one rank alone need not ask its device, which would wait for it."""
    if fabric.world_size == 1:
        return flag
    return bool(_sum_over_ranks(fabric, torch.tensor(float(flag), device=fabric.device)))


def _refuse_bf16_on_cpu(fabric: "Fabric") -> None:
    precision = str(fabric.strategy.precision.precision)
    if fabric.device.type == "cpu" and precision.startswith("bf16"):
        raise ValueError(
            f"can't train in {precision} on the CPU: PyTorch's bfloat16 weight gradient of 3-D convolutions is wrong "
            "there; use 32-true, or a GPU"
        )
