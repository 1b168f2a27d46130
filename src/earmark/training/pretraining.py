"""A run of pretraining: its parts are checked, put together and handed to the loop; with exact resume.

Beside the path of a sample: `earmark.training.loop` is the loop itself, `earmark.training.batches` what it reads.
Lightning Fabric supplies device, precision and process group.

A run that is stopped anywhere and started again equals the uninterrupted run bit for bit on the CPU: order and seeds
are functions of the position (`earmark.clips.sampling`), and a checkpoint holds the position and all that changes along
the way.
"""

import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.atomic import remove_abandoned, remove_abandoned_scratch
from earmark.training.batches import Schedule, TrainingBatches, TrainingData
from earmark.training.clock import step_clock_of
from earmark.training.interrupts import stop_requests
from earmark.training.loop import Judging, TrainLoop
from earmark.training.memory import out_of_memory_named
from earmark.training.optim import require_schedule_covers
from earmark.training.processes import on_first_rank
from earmark.training.readback import readback_of
from earmark.training.run_lock import run_lock
from earmark.training.run_log import METRICS_FILE, Logging, RunLog
from earmark.training.run_state import Checkpointing, RunSaver
from earmark.training.step import Learner, StepOptions, TrainStep, ema_of
from earmark.training.sync_batch_norm import with_sync_batch_norm
from earmark.training.work import Work

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["PretrainResult", "pretrain"]


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """The outcome of a run.

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
    learner: Learner,
    data: TrainingData,
    schedule: Schedule,
    *,
    run_dir: str | Path,
    fabric: "Fabric",
    step: StepOptions | None = None,
    checkpointing: Checkpointing | None = None,
    logging: Logging | None = None,
    judging: Judging | None = None,
    on_start: Callable[[], None] | None = None,
) -> PretrainResult:
    """Train a model on pairs of clips and their sound (arXiv 2209.13583, section 3), or go on with a run.

    A signal that asks to stop (see `earmark.training.interrupts`) lets the current step finish on every process, saves
    a checkpoint and returns; a second Ctrl-C stops at once.

    The model takes float (B, 3, T, H, W) before and after, float (B, 1, F, M), and by keyword ``index`` int64 (B,) and
    ``labels``, a dict of int64 (B,); it returns a dict of scalars with "loss" among them. If it is an
    `earmark.methods.base.EpochAware` one, its ``start_epoch(epoch, embeddings)`` is called on every rank before the
    first batch of each epoch: ``embeddings()`` yields (index, what the model's ``embed`` returns) of this rank's share
    of all clips, in evaluation mode and without gradients. What it makes of them belongs in buffers: a run that is
    resumed in mid-epoch has its checkpoint only. If it returns parameters, because their values were drawn anew, the
    optimizer's state and the average of these are reset. If the model has a method ``keep_in_range()``, that is called
    after each update, and after a resume.

    Args:
        learner: The model, its optimizer and the optimizer's schedule.
        data: What is read.
        schedule: How long the run is, and in which order it reads.
        run_dir: Folder of the run: metrics.jsonl, checkpoints/, tensorboard/. Only one process (or one group of ranks)
            trains there at a time.
        fabric: A launched Fabric.
        step: How a step is done; None for the defaults.
        checkpointing: When checkpoints are written and how they are gone on from; None for the defaults.
        logging: What is written down; None for the defaults.
        judging: How the model is judged during the run; None for not.
        on_start: Called on the first rank once the folder is this run's and its newest checkpoint is restored, before
            the first step.

    Returns:
        The outcome; a run that was complete already is not touched.

    Raises:
        NonFiniteError: If the loss or a weight is NaN or infinite; the message of a loss names the batch. No
            checkpoint is written then, so the newest one is from before.
        CheckpointError: If a checkpoint can't be read or written, or belongs to another model, other data or other
            settings.
        earmark.training.memory.BatchMemoryError: If a GPU has too little memory for a step.
        earmark.training.run_lock.RunBusyError: If another process trains in the folder.
        FileExistsError: If resume is off and the folder holds checkpoints.
        ValueError: If the arguments don't go together.
    """
    run_dir = Path(run_dir)
    step, checkpointing, logging = step or StepOptions(), checkpointing or Checkpointing(), logging or Logging()
    _refuse_bf16_on_cpu(fabric)
    batches = TrainingBatches(data, schedule, fabric)
    require_schedule_covers(learner.scheduler, epochs=schedule.epochs, steps_per_epoch=batches.num_per_epoch)
    if batches.share % step.accumulate:
        raise ValueError(
            f"a batch of {batches.share} samples of one process can't be cut into {step.accumulate} equal parts"
        )
    model = learner.model
    if step.sync_batch_norm and fabric.world_size > 1:
        model = with_sync_batch_norm(model, fabric.device)
    module, fabric_optimizer = fabric.setup(model, learner.optimizer)
    module.train()
    learner = replace(learner, model=model, ema=None if step.ema_decay is None else ema_of(model, step.ema_decay))
    saver = RunSaver(
        directory=run_dir / "checkpoints",
        fabric=fabric,
        learner=learner,
        options=checkpointing,
        arguments={
            "seed": schedule.seed,
            "batch_size": schedule.batch_size,
            "shared_crop": data.shared_crop,
            "num_clips": len(data.clips),
            # runs of before have no such number, and neither has one whose batches are of any videos
            **({} if schedule.videos_per_batch is None else {"videos_per_batch": schedule.videos_per_batch}),
        },
        fingerprint=data.fingerprint,
        epochs=schedule.epochs,
        videos=data.videos,
    )
    with ExitStack() as stack:
        on_first_rank(lambda: stack.enter_context(run_lock(run_dir)))
        on_first_rank(lambda: remove_abandoned(run_dir, recursive=True))
        on_first_rank(remove_abandoned_scratch)
        position = saver.restore()
        if on_start is not None:
            on_first_rank(on_start)
        last_step = position.step + (schedule.epochs - position.epoch) * batches.num_per_epoch - position.batch
        if schedule.max_steps is not None:
            last_step = min(schedule.max_steps, last_step)
        stopped_by = None
        if position.step < last_step:
            log = RunLog(
                run_dir,
                logging,
                step=position.step,
                total_steps=last_step,
                epochs=schedule.epochs,
                enabled=fabric.is_global_zero,
            )
            stack.enter_context(log)
            for note in batches.notes():
                log.note(note)
            loop = TrainLoop(
                learner=learner,
                train_step=TrainStep(
                    fabric, module, fabric_optimizer, step, ema=learner.ema, readback=readback_of(fabric.device)
                ),
                clock=step_clock_of(fabric.device),
                batches=batches,
                saver=saver,
                position=position,
                log=log,
                schedule=schedule,
                last_step=last_step,
                judging=judging,
                work=_work_of(fabric) if fabric.is_global_zero else None,
            )
            with out_of_memory_named(fabric, module):
                stopped_by = loop.run(stack.enter_context(stop_requests(talk=fabric.is_global_zero)))
            fabric.barrier()  # no rank goes on to read a checkpoint that the first is still writing
        return PretrainResult(
            steps=position.step,
            epochs=position.epoch,
            last_losses=position.last_scalars,
            checkpoint_path=saver.path,
            metrics_path=run_dir / METRICS_FILE,
            stopped_by=stopped_by,
        )


def _work_of(fabric: "Fabric") -> Work:
    precision = str(fabric.strategy.precision.precision)
    return Work(device=fabric.device, precision=precision, num_devices=fabric.world_size)


def _refuse_bf16_on_cpu(fabric: "Fabric") -> None:
    precision = str(fabric.strategy.precision.precision)
    if fabric.device.type == "cpu" and precision.startswith("bf16"):
        raise ValueError(
            f"can't train in {precision} on the CPU: PyTorch's bfloat16 weight gradient of 3-D convolutions is wrong "
            "there; use 32-true, or a GPU"
        )
