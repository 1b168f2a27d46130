"""The loop over steps and epochs: what is done when, in the same order on every process.

In the path of a sample this file stands between batches (of `clips` and `sampling`) and `train_step`; `pretrain` sets
it up. It is here to be read.
"""

import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from signal import SIGTERM, Signals
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from earmark.training.checkpoint import rng_state, set_rng_state
from earmark.training.interrupts import StopRequest
from earmark.training.processes import on_first_rank
from earmark.training.run_log import RunLog
from earmark.training.run_state import Position, RunSaver, Totals
from earmark.training.step import NonFiniteError, TrainStep, begin_anew

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Embeddings", "SeesAllData", "TrainLoop"]

Embeddings = tuple[Tensor, dict[str, Tensor]]  # index int64 (B,) and embeddings by name


@runtime_checkable
class SeesAllData(Protocol):
    """A model that looks at the whole data set before each epoch."""

    def embed(self, video_before: Tensor, video_after: Tensor, audio: Tensor, /) -> dict[str, Tensor]:
        """Return embeddings (B, D) by name."""

    def start_epoch(
        self, epoch: int, embeddings: Callable[[], Iterator[Embeddings]], /
    ) -> Iterable[nn.Parameter] | None:
        """Be told that an epoch begins; the callable goes through all data. Returns the parameters drawn anew."""


@dataclass(kw_only=True)
class TrainLoop:
    """The rest of a run, from where it stands.

    Attributes:
        fabric: The launched Fabric.
        model: The bare model.
        ema: Average of its weights, if any.
        train_step: Does one step.
        transform: Makes the model's inputs of a batch.
        embeddings: Of this rank's share of all data in an epoch, for a model that asks for them.
        optimizer: The bare optimizer.
        scheduler: Its schedule, if any.
        saver: Writes checkpoints.
        position: Where the run stands; moved on with each step.
        log: Where numbers go.
        request: Whether a signal asked to stop.
        epochs: Epochs of the whole run.
        num_batches: Batches of an epoch.
        last_step: Step after which the run ends.
        log_every: Steps between lines of metrics.
        evaluate: Judges the model, if asked to; the higher the first of its numbers, the better.
        evaluate_every: Epochs between its calls.
        name_batch: Says which samples make up the batch at a position.
    """

    fabric: "Fabric"
    model: nn.Module
    ema: AveragedModel | None
    train_step: TrainStep
    transform: Callable[[dict[str, Tensor]], tuple[Tensor, ...]]
    embeddings: Callable[[int], Iterator[Embeddings]]
    optimizer: Optimizer
    scheduler: LRScheduler | None
    saver: RunSaver
    position: Position
    log: RunLog
    request: StopRequest
    epochs: int
    num_batches: int
    last_step: int
    log_every: int
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None
    evaluate_every: int | None
    name_batch: Callable[[Position], str]
    _since_line: Totals = field(default_factory=Totals)

    def run(self, batches: Generator[dict[str, Tensor], None, None]) -> Signals | None:
        """Do the steps that are left, or those until a signal asks to stop.

        Args:
            batches: From the position on, on the device.

        Returns:
            The signal that ended the run before its time, or None.

        Raises:
            NonFiniteError: If the loss or a weight is NaN or infinite.
            CheckpointError: If a checkpoint can't be written.
        """
        position = self.position
        started = time.perf_counter()  # each step is timed from the end of the one before: a GPU works on meanwhile
        stop = False
        try:
            while position.step < self.last_step and not stop:
                if position.batch == 0:
                    self._begin_epoch()
                batch, data_wait_seconds = _timed_next(batches)
                scalars, (stop, save) = self._step(batch)
                stop = stop or (self.fabric.world_size == 1 and bool(self.request))
                ended = time.perf_counter()
                self._count(scalars, len(batch["index"]), ended - started, data_wait_seconds)
                started = ended
                best = self._end_epoch() if position.batch == self.num_batches else None
                if self.saver.is_due(
                    position, wanted=stop or save or best is not None or position.step == self.last_step
                ):
                    self.log.sync()
                    self.saver.save(position, best=best is True)
        finally:
            batches.close()  # ends the readers now; a traceback would keep them
        return (self.request.signal or SIGTERM) if stop and position.step < self.last_step else None

    def _begin_epoch(self) -> None:
        epoch = self.position.epoch
        if epoch > 0 and self.scheduler is not None:
            with warnings.catch_warnings():
                # PyTorch counts the optimizer's steps in this process only, so it misses those from before a resume.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                self.scheduler.step()
        if isinstance(self.model, SeesAllData):
            drawn_anew = self.model.start_epoch(epoch, partial(self.embeddings, epoch))
            begin_anew(drawn_anew or (), self.model, self.optimizer, self.ema)

    def _step(self, batch: dict[str, Tensor]) -> tuple[dict[str, float], list[bool]]:
        labels = {name.removeprefix("label_"): x for name, x in batch.items() if name.startswith("label_")}
        wishes = (bool(self.request), self.saver.minutes_are_over())
        try:
            return self.train_step(self.transform(batch), index=batch["index"], labels=labels, wishes=wishes)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} on the batch of {self.name_batch(self.position)}") from error

    def _count(self, scalars: dict[str, float], num_samples: int, seconds: float, data_wait_seconds: float) -> None:
        """Move the position on by a step and write down its numbers."""
        position = self.position
        position.batch += 1
        position.step += 1
        position.last_scalars = scalars
        for sums in (position.epoch_totals, self._since_line):
            sums.add(
                scalars,
                samples=num_samples * self.fabric.world_size,
                seconds=seconds,
                data_wait_seconds=data_wait_seconds,
            )
        counts, speed = {"step": position.step, "epoch": position.epoch + 1}, self._since_line.speed()
        self.log.show(**counts, scalars=scalars, speed=speed)
        if position.step % self.log_every == 0 or position.step in (1, self.last_step):
            self.log.write("step", counts | scalars | self._learning_rate() | speed)
            self._since_line = Totals()

    def _end_epoch(self) -> bool | None:
        """Close an epoch; return whether the probe found the model better than ever, or None if it was not asked."""
        position, totals = self.position, self.position.epoch_totals
        counts = {"step": position.step, "epoch": position.epoch + 1}
        numbers = counts | totals.means() | self._learning_rate() | totals.speed() | {"seconds": totals.seconds}
        self.log.write("epoch", numbers)
        position.finish_epoch()
        if self.evaluate is None or self.evaluate_every is None:
            return None
        if position.epoch % self.evaluate_every and position.epoch != self.epochs:
            return None
        scores = on_first_rank(self._probe)
        self.log.write("probe", counts | scores)
        score = next(iter(scores.values()))
        if position.best_score is not None and score <= position.best_score:
            return False
        position.best_score, position.best_epoch = score, position.epoch
        return True

    def _probe(self) -> dict[str, float]:
        """Judge the model as it is; neither it nor what is drawn afterwards is changed by that."""
        assert self.evaluate is not None
        judged = self.model if self.ema is None else self.ema.module
        modes = {module: module.training for module in judged.modules()}
        state = rng_state()
        try:
            judged.eval()
            return dict(self.evaluate(judged))
        finally:
            set_rng_state(state)
            for module, training in modes.items():
                module.training = training

    def _learning_rate(self) -> dict[str, float]:
        return {"lr": float(self.optimizer.param_groups[0]["lr"])}


def _timed_next(batches: Iterator[dict[str, Tensor]]) -> tuple[dict[str, Tensor], float]:
    """Return the next batch and the seconds waited for it."""
    started = time.perf_counter()
    return next(batches), time.perf_counter() - started
