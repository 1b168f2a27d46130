"""The training loop: batches, transforms on the device, model, losses, optimizer; and exact resume.

In the path of a sample this file comes after `clips` and `sampling` (which give the batches), `transforms` and `model`
(which it calls), and before `evaluation` (which reads its checkpoints). Lightning Fabric supplies device, precision and
process group; `train_loop` is the loop itself.

A run that is stopped anywhere and started again equals the uninterrupted run bit for bit on the CPU: `sampling` makes
order and seeds functions of the position, and a checkpoint holds the position and all that changes along the way.
"""

import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from earmark.clips import loading
from earmark.clips.sampling import EpochBatches, sample_seed
from earmark.training.interrupts import stop_requests
from earmark.training.loop import Embeddings, SeesAllData, TrainLoop
from earmark.training.optim import require_schedule_covers
from earmark.training.processes import on_first_rank
from earmark.training.run_lock import run_lock
from earmark.training.run_log import METRICS_FILE, RunLog
from earmark.training.run_state import Position, RunSaver
from earmark.training.step import NonFiniteError, TrainStep, ema_of
from earmark.training.sync_batch_norm import with_sync_batch_norm
from earmark.wording import counted

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Keys = Iterator[list[tuple[int, int]]]
Batches = Generator[dict[str, Tensor], None, None]

__all__ = ["Clips", "NonFiniteError", "PretrainResult", "pretrain"]


class Clips(loading.Clips, Protocol):
    """A map-style data set of known size: its keys are (index, seed), its samples are NumPy arrays by name."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """What a run came to.

    Attributes:
        steps: Steps done, those before a resume included.
        epochs: Whole epochs done.
        last_losses: The scalars of the last step: "loss", its parts and the model's diagnostics.
        checkpoint_path: The newest checkpoint.
        metrics_path: The file of metrics.
        stopped_by: The signal that ended the run before its time: SIGINT for Ctrl-C; None if nothing did.
    """

    steps: int
    epochs: int
    last_losses: dict[str, float]
    checkpoint_path: Path | None
    metrics_path: Path
    stopped_by: signal.Signals | None = None


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
    sync_batch_norm: bool = True,
    accumulate: int = 1,
    max_gradient_norm: float | None = None,
    ema_decay: float | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    evaluate_every: int | None = None,
    save_every_epochs: int = 10,
    save_every_minutes: float | None = 30.0,
    save_every_steps: int | None = None,
    retain: int = 2,
    log_every: int = 10,
    resume: bool = True,
    force: bool = False,
    changeable: Sequence[str] = ("environment", "logging", "hydra"),
    videos: Mapping[str, Sequence[str]] | None = None,
    describe: Callable[[int, int], str] | None = None,
    tensorboard: bool = True,
    wandb: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> PretrainResult:
    """Train a model on pairs of clips and their sound (arXiv 2209.13583, section 3), or go on with a run.

    A signal that asks to stop (see `earmark.training.interrupts`) lets the step in hand finish on every process, saves
    a checkpoint and returns; a second Ctrl-C breaks off at once.

    Args:
        model: Takes float (B, 3, T, H, W) before and after, float (B, 1, F, M), and by keyword ``index`` int64 (B,) and
            ``labels``, a dict of int64 (B,); returns a dict of scalars with "loss" among them. If it has a method
            ``start_epoch(epoch, embeddings)``, that is called on every rank before the first batch of each epoch:
            ``embeddings()`` yields (index, what the model's ``embed`` returns) of this rank's share of all clips, in
            evaluation mode and without gradients. What it makes of them belongs in buffers: a run that is resumed in
            mid-epoch has its checkpoint only. If it returns parameters, because their values were drawn anew, the
            optimizer's state and the average of these begin anew, too. If the model has a method ``keep_in_range()``,
            that is called after each update, and after a resume.
        clips: The data set, of samples with ``video_before`` and ``video_after`` uint8 (T, H, W, 3), ``audio`` int16
            (S,), ``index``, ``seed`` and ``video_size`` (height, width), and any ``label_NAME``.
        collate_fn: Makes one batch of a list of samples.
        video_transform: Called with (video uint8 (B, T, H, W, 3), seed (B,), video_size (B, 2), stream=0 or 1).
        audio_transform: Called with (audio int16 (B, S)).
        optimizer: Optimizer of the model's parameters.
        scheduler: Its schedule, stepped once an epoch; None for a constant rate.
        run_dir: Folder of the run: metrics.jsonl, checkpoints/, tensorboard/.
        epochs: Epochs of the whole run.
        batch_size: Size of the global batch, over all ranks together. If there are fewer clips, a batch is all of them;
            clips that do not fill a batch are left out of an epoch, others in each. A line on stderr says so.
        seed: Seed of order and samples. The model's first weights are the caller's to seed.
        num_workers: Threads that load data for this rank; 0 loads in the loop's own, between the steps.
        fabric: A launched Fabric.
        config: Settings of the run as plain data, stored in every checkpoint.
        fingerprint: Identity of the prepared data.
        max_steps: Stop after so many steps of the whole run, if its epochs don't end before; schedules don't change.
        shared_crop: Draw the crop of both clips of a sample alike, instead of independently.
        sync_batch_norm: Where there are several ranks, take batch norm's statistics over the samples of all of them.
        accumulate: Parts that a rank's batch is cut into where memory is short; see `earmark.training.step.TrainStep`.
        max_gradient_norm: Longer gradients are scaled to this length; None for none.
        ema_decay: Keep an exponential moving average of the weights, of which this share stays at each step; None
            for none. It is in the checkpoints as ``ema``, and what `evaluate` is given.
        evaluate: Judges the model; the higher the first of its numbers, the better. It runs on the first rank.
        evaluate_every: Epochs between its calls, given with it; the last epoch always has one. The best checkpoint is
            ``best.pt``.
        save_every_epochs: Epochs between the checkpoints that are kept for good; the last epoch always has one.
        save_every_minutes: Minutes between the others; None for none.
        save_every_steps: Steps between the others; None for none.
        retain: How many of the others to keep.
        log_every: Steps between lines of metrics; the first and the last step always have one.
        resume: Go on from the newest checkpoint in run_dir, if there is one. Without it, such a folder is refused.
        force: Go on although settings or data differ from the checkpoint's; the new ones hold from there on. It goes
            with `resume`.
        changeable: Keys of the config, dotted, that may differ on a resume; each covers all that is below it.
        videos: Ids of videos by use: "pretraining", and "probe" for those that `evaluate` judges on. Stored in every
            checkpoint, so that an evaluation can tell which of its videos were seen.
        describe: Names a sample by its index and seed, for errors.
        tensorboard: Write TensorBoard files.
        wandb: Arguments of ``wandb.init`` to write to Weights & Biases too; None for not.
        progress: Show progress on stderr.

    Returns:
        What the run came to; a run that was complete already is not touched.

    Raises:
        NonFiniteError: If the loss or a weight is NaN or infinite; the message of a loss names the batch. No
            checkpoint is written then, so the newest one is from before.
        CheckpointError: If a checkpoint can't be read or written, or belongs to another model, other data or other
            settings.
        earmark.training.run_lock.RunBusyError: If another process trains in the folder.
        FileExistsError: If resume is off and the folder holds checkpoints.
        ValueError: If the arguments don't go together.
    """
    run_dir = Path(run_dir)
    _refuse_bf16_on_cpu(fabric)
    _require_in_range(
        at_least_1={
            "epochs": epochs,
            "batch_size": batch_size,
            "max_steps": max_steps,
            "accumulate": accumulate,
            "evaluate_every": evaluate_every,
            "save_every_epochs": save_every_epochs,
            "save_every_steps": save_every_steps,
            "retain": retain,
            "log_every": log_every,
        },
        at_least_0={"seed": seed, "num_workers": num_workers},
        above_0={"max_gradient_norm": max_gradient_norm, "save_every_minutes": save_every_minutes},
    )
    if ema_decay is not None and not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay must be at least 0 and below 1, got {ema_decay}")
    if (evaluate is None) != (evaluate_every is None):
        raise ValueError("evaluate and evaluate_every go together: what judges the model, and how often")
    if force and not resume:
        raise ValueError("force goes on with a run, which resume=False refuses; give one of them")
    _require_one_model(model, optimizer, scheduler)
    require_schedule_covers(scheduler, epochs=epochs)
    num_batches = EpochBatches(len(clips), batch_size, seed=seed, epoch=0, world_size=fabric.world_size).num_batches
    share = min(len(clips), batch_size) // fabric.world_size
    if share % accumulate:
        raise ValueError(f"a batch of {share} samples of one process can't be cut into {accumulate} equal parts")
    if sync_batch_norm and fabric.world_size > 1:
        model = with_sync_batch_norm(model, fabric.device)
    module, fabric_optimizer = fabric.setup(model, optimizer)
    module.train()
    ema = None if ema_decay is None else ema_of(model, ema_decay)
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
        ema=ema,
        videos=videos or {},
        force=force,
    )
    with ExitStack() as stack:
        on_first_rank(lambda: stack.enter_context(run_lock(run_dir)))
        position = saver.restore(resume=resume)
        rest = (epochs - position.epoch) * num_batches - position.batch
        last_step = position.step + rest if max_steps is None else min(max_steps, position.step + rest)
        result = PretrainResult(
            position.step, position.epoch, position.last_scalars, saver.path, run_dir / METRICS_FILE
        )
        if position.step >= last_step:
            return result
        log = RunLog(
            run_dir,
            step=position.step,
            total_steps=last_step,
            epochs=epochs,
            enabled=fabric.is_global_zero,
            tensorboard=tensorboard,
            wandb=wandb,
            progress=progress,
        )
        stack.enter_context(log)
        for note in _left_out_of_epochs(len(clips), batch_size):
            log.note(note)
        load = partial(
            loading.load_batches, clips, collate_fn=collate_fn, num_workers=num_workers, device=fabric.device
        )
        transform = partial(
            _model_inputs,
            video_transform=video_transform.to(fabric.device),
            audio_transform=audio_transform.to(fabric.device),
            shared_crop=shared_crop,
        )
        loop = TrainLoop(
            fabric=fabric,
            model=model,
            ema=ema,
            train_step=TrainStep(
                fabric, module, fabric_optimizer, accumulate=accumulate, max_gradient_norm=max_gradient_norm, ema=ema
            ),
            transform=transform,
            embeddings=partial(_embeddings, fabric, model, load, transform, len(clips), batch_size, seed),
            optimizer=optimizer,
            scheduler=scheduler,
            saver=saver,
            position=position,
            log=log,
            request=stack.enter_context(stop_requests(talk=fabric.is_global_zero)),
            epochs=epochs,
            num_batches=num_batches,
            last_step=last_step,
            log_every=log_every,
            evaluate=evaluate,
            evaluate_every=evaluate_every,
            name_batch=_batch_namer(len(clips), batch_size, seed=seed, describe=describe),
        )
        keys = _batches(len(clips), batch_size, seed=seed, fabric=fabric, position=position, epochs=epochs)
        stopped_by = loop.run(load(keys))
        fabric.barrier()  # no rank goes on to read a checkpoint that the first is still writing
        return PretrainResult(
            position.step, position.epoch, position.last_scalars, saver.path, result.metrics_path, stopped_by
        )


def _batches(num_clips: int, batch_size: int, *, seed: int, fabric: "Fabric", position: Position, epochs: int) -> Keys:
    """Yield this rank's batches to the end of the run: one sampler, so that workers load on across epochs' edges."""
    start_epoch, start_batch = position.epoch, position.batch
    for epoch in range(start_epoch, epochs):
        yield from EpochBatches(
            num_clips,
            batch_size,
            seed=seed,
            epoch=epoch,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            start_batch=start_batch if epoch == start_epoch else 0,
        )


def _batch_namer(
    num_clips: int, batch_size: int, *, seed: int, describe: Callable[[int, int], str] | None
) -> Callable[[Position], str]:
    """Return what names the samples of the batch, over all ranks, that comes next at a position."""

    def name_batch(position: Position) -> str:
        rest = EpochBatches(num_clips, batch_size, seed=seed, epoch=position.epoch, start_batch=position.batch)
        keys = next(iter(rest))
        if describe is None:
            return f"indices {[index for index, _ in keys]}"
        return ", ".join(describe(index, sample) for index, sample in keys)

    return name_batch


def _model_inputs(
    batch: Mapping[str, Tensor], *, video_transform: nn.Module, audio_transform: nn.Module, shared_crop: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the model takes: clip before, clip after, log-mel of the sound."""
    seed, size = batch["seed"], batch["video_size"]
    return (
        video_transform(batch["video_before"], seed, size, stream=0),
        video_transform(batch["video_after"], seed, size, stream=0 if shared_crop else 1),
        audio_transform(batch["audio"]),
    )


@torch.no_grad()
def _embeddings(
    fabric: "Fabric",
    model: nn.Module,
    load: Callable[[Keys], Batches],
    transform: Callable[[dict[str, Tensor]], tuple[Tensor, ...]],
    num_items: int,
    batch_size: int,
    seed: int,
    epoch: int,
) -> Iterator[Embeddings]:
    """Yield (index, embeddings by name) of this rank's share of all items, in order and in evaluation mode."""
    share, size = range(fabric.global_rank, num_items, fabric.world_size), batch_size // fabric.world_size
    batches = (share[start : start + size] for start in range(0, len(share), size))
    keys = ([(index, sample_seed(seed, epoch, index)) for index in batch] for batch in batches)
    model.eval()
    try:
        with closing(load(keys)) as loaded:
            for batch in loaded:
                inputs = fabric.strategy.precision.convert_input(transform(batch))
                with fabric.autocast():
                    embeddings = cast(SeesAllData, model).embed(*inputs)
                yield batch["index"], embeddings
    finally:
        model.train()


def _left_out_of_epochs(num_clips: int, batch_size: int) -> Iterator[str]:
    """Say where a batch is smaller than asked for, or an epoch does not see all clips."""
    if num_clips < batch_size:
        yield (
            f"note: {counted(num_clips, 'clip')}, fewer than a batch of {batch_size}: "
            f"each batch is of {num_clips}, all there are"
        )
    elif rest := num_clips % batch_size:
        batches = counted(num_clips // batch_size, "batch", "batches")
        yield f"note: {num_clips} clips are {batches} of {batch_size}: each epoch leaves out {rest}, others each time"


def _require_in_range(
    *,
    at_least_1: Mapping[str, int | None],
    at_least_0: Mapping[str, int],
    above_0: Mapping[str, float | None],
) -> None:
    wrong = [f"{name} must be at least 1, got {x}" for name, x in at_least_1.items() if x is not None and x < 1]
    wrong += [f"{name} must be at least 0, got {x}" for name, x in at_least_0.items() if x < 0]
    wrong += [f"{name} must be above 0, got {x}" for name, x in above_0.items() if x is not None and not x > 0]
    if wrong:
        raise ValueError("; ".join(wrong))


def _require_one_model(model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler | None) -> None:
    """Refuse an optimizer of another model, or a schedule of another optimizer: they would change nothing here."""
    own = {id(parameter) for parameter in model.parameters()}
    foreign = [p for group in optimizer.param_groups for p in group["params"] if id(p) not in own]
    if foreign:
        raise ValueError(f"the optimizer updates {counted(len(foreign), 'parameter')} that the model does not have")
    if scheduler is not None and scheduler.optimizer is not optimizer:
        raise ValueError("the scheduler is that of another optimizer")


def _refuse_bf16_on_cpu(fabric: "Fabric") -> None:
    precision = str(fabric.strategy.precision.precision)
    if fabric.device.type == "cpu" and precision.startswith("bf16"):
        raise ValueError(
            f"can't train in {precision} on the CPU: PyTorch's bfloat16 weight gradient of 3-D convolutions is wrong "
            "there; use 32-true, or a GPU"
        )
