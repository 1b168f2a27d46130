"""The loop over steps and epochs: what is done when, in the same order on every process.

In the path of a sample this file stands between the batches and the step, which it calls; `pretrain` sets it up. It is
here to be read.
"""

import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from signal import SIGTERM, Signals

from torch import Tensor, nn

from earmark.methods.base import EpochAware
from earmark.methods.gathering import world_size
from earmark.training.batches import Schedule, TrainingBatches
from earmark.training.checkpoint import rng_state, set_rng_state
from earmark.training.clock import StepClock, StepTimes
from earmark.training.interrupts import StopRequest
from earmark.training.optim import WarmupCosineLR
from earmark.training.processes import on_first_rank
from earmark.training.ranges import require_in_range
from earmark.training.run_log import RunLog
from earmark.training.run_state import Position, RunSaver, Totals
from earmark.training.step import Learner, NonFiniteError, PendingScalars, TrainStep, begin_anew
from earmark.training.work import Work

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


@dataclass(frozen=True, slots=True)
class _QueuedStep:
    """A step whose numbers are not read yet; `epoch` and `batch` are its position, `step` how many are done with it."""

    epoch: int
    batch: int
    step: int
    num_samples: int
    learning_rate: float
    seconds: float
    scalars: PendingScalars


@dataclass(kw_only=True)
class TrainLoop:
    """The rest of a run, from where it stands.

    A device that works by itself is given the next step before the numbers of the one before are read, at an epoch's
    edge too. Whatever must know that all is well, or needs the weights as they are, reads all numbers first: a
    checkpoint, the model's judging, and its own look at all data before an epoch. What other processes ask for comes
    with the numbers, so it is done a step later, by all of them after the same step.

    Attributes:
        learner: What is trained.
        train_step: Does one step.
        clock: Takes the times of the steps.
        batches: What is read.
        saver: Writes checkpoints.
        position: Where the run stands; moved on when a step is queued. Its sums and scalars are of the steps whose
            numbers were read.
        log: Where numbers go.
        schedule: How long the whole run is.
        last_step: Step after which the run ends.
        judging: How the model is judged; None for not.
        work: Counts a step's operations, so that they can be told per second; None for not.
    """

    learner: Learner
    train_step: TrainStep
    clock: StepClock
    batches: TrainingBatches
    saver: RunSaver
    position: Position
    log: RunLog
    schedule: Schedule
    last_step: int
    judging: Judging | None
    work: Work | None = None
    _since_line: Totals = field(default_factory=Totals, init=False)
    _times_since_line: StepTimes = field(default_factory=StepTimes, init=False)
    _times_of_epoch: StepTimes = field(default_factory=StepTimes, init=False)
    _queued: deque[_QueuedStep] = field(default_factory=deque, init=False)
    _started: float = field(default=0.0, init=False)

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
        self._started = time.perf_counter()  # each step is timed from the end of the one before
        stop = False
        try:
            while position.step < self.last_step and not stop:
                if position.batch == 0:
                    self._begin_epoch()
                self.clock.ask()
                self._queue_step(next(batches), request)
                stop, save = self._read_numbers(of_all_but=1 if self.train_step.late else 0)
                stop = stop or (world_size() == 1 and bool(request))
                best = self._judge_when_due() if position.batch == 0 else None
                if self.saver.is_due(
                    position, wanted=stop or save or best is not None or position.step == self.last_step
                ):
                    stop = self._read_numbers()[0] or stop
                    self.log.sync()
                    self.saver.save(position, best=best is True)
        except NonFiniteError:
            raise
        except Exception:
            if world_size() == 1:  # another process that is gone would be waited for
                self._read_numbers()  # of steps before what went wrong; a loss that is not finite came first
            raise
        finally:
            batches.close()  # ends the readers now; a traceback would keep them
        return (request.signal or SIGTERM) if stop and position.step < self.last_step else None

    def _begin_epoch(self) -> None:
        epoch, learner = self.position.epoch, self.learner
        if epoch > 0 and learner.scheduler is not None and not isinstance(learner.scheduler, WarmupCosineLR):
            with warnings.catch_warnings():
                # PyTorch counts the optimizer's steps in this process only, so it misses those from before a resume.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                learner.scheduler.step()
        if isinstance(learner.model, EpochAware):
            self._read_numbers()
            drawn_anew = learner.model.start_epoch(epoch, partial(self.batches.embeddings, learner.model, epoch))
            begin_anew(drawn_anew or (), learner.model, learner.optimizer, learner.ema)
            self.clock.restart()

    def _queue_step(self, batch: dict[str, Tensor], request: StopRequest) -> None:
        """Do a step, or have the device do it, and move the position on."""
        position = self.position
        if isinstance(self.learner.scheduler, WarmupCosineLR):  # by the place alone, whatever happened on the way
            self.learner.scheduler.go_to(position.epoch * self.batches.num_per_epoch + position.batch)
        flags = (bool(request), self.saver.minutes_are_over())
        labels = {name.removeprefix("label_"): x for name, x in batch.items() if name.startswith("label_")}
        self.clock.begin()
        inputs = self.batches.model_inputs(batch)
        if self.work is not None and self.work.is_unknown:
            self._measure_work(self.work, inputs, labels)
        try:
            scalars = self.train_step(inputs, index=batch["index"], labels=labels, flags=flags)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} on the batch of {self.batches.name_of(position)}") from error
        self.clock.end()
        ended = time.perf_counter()
        seconds, self._started = ended - self._started, ended
        epoch, number = position.epoch, position.batch
        position.move_on(batches_per_epoch=self.batches.num_per_epoch)
        rate = float(self.learner.optimizer.param_groups[0]["lr"])
        num_samples = len(batch["index"]) * world_size()
        self._queued.append(_QueuedStep(epoch, number, position.step, num_samples, rate, seconds, scalars))

    def _measure_work(self, work: Work, inputs: tuple[Tensor, ...], labels: Mapping[str, Tensor]) -> None:
        note = work.measure(self.learner.model, inputs, labels=labels)
        if note is not None:
            self.log.note(note)
        self.log.write("device", {"step": self.position.step, "epoch": self.position.epoch + 1} | work.facts())
        self.clock.restart()
        self.clock.begin()

    def _read_numbers(self, *, of_all_but: int = 0) -> tuple[bool, bool]:
        """Read the numbers of queued steps, all but so many of the last, and write them down.

        Returns:
            Whether any process asked to stop, and whether any asked for a checkpoint.
        """
        stop = save = False
        while len(self._queued) > of_all_but:
            step = self._queued.popleft()
            try:
                scalars, (stops, saves) = step.scalars.read()
            except NonFiniteError as error:
                name = self.batches.name_of(Position(epoch=step.epoch, batch=step.batch))
                raise NonFiniteError(f"{error} on the batch of {name}") from error
            stop, save = stop or stops, save or saves
            self._write_down(step, scalars, self.clock.take())
        return stop, save

    def _write_down(self, step: _QueuedStep, scalars: dict[str, float], times: StepTimes) -> None:
        position = self.position
        position.last_scalars = scalars
        for sums in (position.epoch_totals, self._since_line):
            sums.add(scalars, samples=step.num_samples, seconds=step.seconds, data_wait_seconds=times.data_wait)
        for of_steps in (self._times_of_epoch, self._times_since_line):
            of_steps.add(times)
        counts, rate = {"step": step.step, "epoch": step.epoch + 1}, {"lr": step.learning_rate}
        speed = self._speed(self._since_line, self._times_since_line)
        self.log.show(**counts, scalars=scalars, speed=speed)
        if self.log.is_due(step.step):
            self.log.write("step", counts | scalars | rate | speed)
            self._since_line, self._times_since_line = Totals(), StepTimes()
        if step.batch == self.batches.num_per_epoch - 1:
            totals = position.epoch_totals
            speed = self._speed(totals, self._times_of_epoch)
            self.log.write("epoch", counts | totals.means() | rate | speed | {"seconds": totals.seconds})
            position.epoch_totals, self._times_of_epoch = Totals(), StepTimes()

    def _speed(self, totals: Totals, times: StepTimes) -> dict[str, float]:
        """Return samples per second, where the time went, and the operations per second if they were counted."""
        speed = totals.speed() | times.shares(self.clock.parts)
        return speed if self.work is None else speed | self.work.rates(speed["samples_per_second"])

    def _judge_when_due(self) -> bool | None:
        """Judge the model after an epoch; return whether it is better than ever, or None if it was not judged."""
        position, judging = self.position, self.judging
        if judging is None:
            return None
        if position.epoch % judging.every_epochs and position.epoch != self.schedule.epochs:
            return None
        self._read_numbers()
        scores = on_first_rank(partial(self._probe, judging))
        self.clock.restart()
        self.log.write("probe", {"step": position.step, "epoch": position.epoch} | scores)
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
