"""The loop over steps and epochs: what is done when, in the same order on every process.

In the path of a sample this file stands between the batches and the step, which it calls; `pretrain` sets it up. It is
here to be read.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from signal import SIGTERM, Signals

from torch import Tensor, nn

from earmark.methods.base import EpochAware
from earmark.methods.gathering import world_size
from earmark.training.batches import Schedule, TrainingBatches
from earmark.training.checkpoint import rng_state, set_rng_state
from earmark.training.interrupts import StopRequest
from earmark.training.processes import on_first_rank
from earmark.training.ranges import require_in_range
from earmark.training.run_log import RunLog
from earmark.training.run_state import Position, RunSaver, Totals
from earmark.training.step import Learner, NonFiniteError, TrainStep, begin_anew

__all__ = ["Judging", "TrainLoop"]


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How a model is judged during the run.

    Attributes:
        evaluate: Judges the model, on the first rank; the higher the first of its numbers, the better. The best
            checkpoint is kept as ``best.pt``.
        every_epochs: Epochs between its calls; the last epoch always has one.

    Raises:
        ValueError: If a number is out of range.
    """

    evaluate: Callable[[nn.Module], Mapping[str, float]]
    every_epochs: int

    def __post_init__(self) -> None:
        require_in_range(at_least_1={"every_epochs": self.every_epochs})


@dataclass(kw_only=True)
class TrainLoop:
    """The rest of a run, from where it stands.

    Attributes:
        learner: What is trained.
        train_step: Does one step.
        batches: What is read.
        saver: Writes checkpoints.
        position: Where the run stands; moved on with each step.
        log: Where numbers go.
        schedule: How long the whole run is.
        last_step: Step after which the run ends.
        judging: How the model is judged; None for not.
    """

    learner: Learner
    train_step: TrainStep
    batches: TrainingBatches
    saver: RunSaver
    position: Position
    log: RunLog
    schedule: Schedule
    last_step: int
    judging: Judging | None
    _since_line: Totals = field(default_factory=Totals, init=False)

    def run(self, request: StopRequest) -> Signals | None:
        """Do the steps that are left, or those until a signal asks to stop.

        Args:
            request: Whether a signal asked to stop.

        Returns:
            The signal that ended the run before its time, or None.

        Raises:
            NonFiniteError: If the loss or a weight is NaN or infinite.
            CheckpointError: If a checkpoint can't be written.
        """
        position, batches = self.position, self.batches.rest(self.position)
        started = time.perf_counter()  # each step is timed from the end of the one before: a GPU works on meanwhile
        stop = False
        try:
            while position.step < self.last_step and not stop:
                if position.batch == 0:
                    self._begin_epoch()
                batch, data_wait_seconds = _timed_next(batches)
                scalars, (stop, save) = self._step(batch, request)
                stop = stop or (world_size() == 1 and bool(request))
                ended = time.perf_counter()
                self._count(scalars, len(batch["index"]), ended - started, data_wait_seconds)
                started = ended
                best = self._end_epoch() if position.batch == self.batches.num_per_epoch else None
                if self.saver.is_due(
                    position, wanted=stop or save or best is not None or position.step == self.last_step
                ):
                    self.log.sync()
                    self.saver.save(position, best=best is True)
        finally:
            batches.close()  # ends the readers now; a traceback would keep them
        return (request.signal or SIGTERM) if stop and position.step < self.last_step else None

    def _begin_epoch(self) -> None:
        epoch, learner = self.position.epoch, self.learner
        if epoch > 0 and learner.scheduler is not None:
            with warnings.catch_warnings():
                # PyTorch counts the optimizer's steps in this process only, so it misses those from before a resume.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                learner.scheduler.step()
        if isinstance(learner.model, EpochAware):
            drawn_anew = learner.model.start_epoch(epoch, partial(self.batches.embeddings, learner.model, epoch))
            begin_anew(drawn_anew or (), learner.model, learner.optimizer, learner.ema)

    def _step(self, batch: dict[str, Tensor], request: StopRequest) -> tuple[dict[str, float], list[bool]]:
        labels = {name.removeprefix("label_"): x for name, x in batch.items() if name.startswith("label_")}
        flags = (bool(request), self.saver.minutes_are_over())
        try:
            return self.train_step(self.batches.model_inputs(batch), index=batch["index"], labels=labels, flags=flags)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} on the batch of {self.batches.name_of(self.position)}") from error

    def _count(self, scalars: dict[str, float], num_samples: int, seconds: float, data_wait_seconds: float) -> None:
        """Move the position on by a step and write down its numbers."""
        position = self.position
        position.batch += 1
        position.step += 1
        position.last_scalars = scalars
        for sums in (position.epoch_totals, self._since_line):
            sums.add(
                scalars,
                samples=num_samples * world_size(),
                seconds=seconds,
                data_wait_seconds=data_wait_seconds,
            )
        counts, speed = {"step": position.step, "epoch": position.epoch + 1}, self._since_line.speed()
        self.log.show(**counts, scalars=scalars, speed=speed)
        if self.log.is_due(position.step):
            self.log.write("step", counts | scalars | self._learning_rate() | speed)
            self._since_line = Totals()

    def _end_epoch(self) -> bool | None:
        """Close an epoch; return whether the probe found the model better than ever, or None if it was not asked."""
        position, totals = self.position, self.position.epoch_totals
        counts = {"step": position.step, "epoch": position.epoch + 1}
        numbers = counts | totals.means() | self._learning_rate() | totals.speed() | {"seconds": totals.seconds}
        self.log.write("epoch", numbers)
        position.finish_epoch()
        judging = self.judging
        if judging is None:
            return None
        if position.epoch % judging.every_epochs and position.epoch != self.schedule.epochs:
            return None
        scores = on_first_rank(partial(self._probe, judging))
        self.log.write("probe", counts | scores)
        score = next(iter(scores.values()))
        if position.best_score is not None and score <= position.best_score:
            return False
        position.best_score, position.best_epoch = score, position.epoch
        return True

    def _probe(self, judging: Judging) -> dict[str, float]:
        """Judge the model as it is; neither it nor what is drawn afterwards is changed by that."""
        judged = self.learner.model if self.learner.ema is None else self.learner.ema.module
        modes = {module: module.training for module in judged.modules()}
        state = rng_state()
        try:
            judged.eval()
            return dict(judging.evaluate(judged))
        finally:
            set_rng_state(state)
            for module, training in modes.items():
                module.training = training

    def _learning_rate(self) -> dict[str, float]:
        return {"lr": float(self.learner.optimizer.param_groups[0]["lr"])}


def _timed_next(batches: Iterator[dict[str, Tensor]]) -> tuple[dict[str, Tensor], float]:
    """Return the next batch and the seconds waited for it."""
    started = time.perf_counter()
    return next(batches), time.perf_counter() - started
