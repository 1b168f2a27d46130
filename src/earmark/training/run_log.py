"""What a run writes down while it trains: metrics.jsonl, TensorBoard, Weights & Biases, progress on the screen.

`RunLog` is the loop's: numbers go in, nothing comes back. `read_metrics` is for whoever looks at a run afterwards.

``metrics.jsonl`` holds one JSON object per line. Lines of kind "step" hold the numbers of one step, lines of kind
"epoch" the means over an epoch, lines of kind "probe" what a probe found after it, lines of kind "device", one at each
start of the run, the work of a sample and the measured peak of the device. Steps and epochs are counted from 1, so
"step" is also the number of steps done. A number that is not finite is written as null. TensorBoard and Weights &
Biases get the same numbers under the same names, those of an epoch with "epoch/" in front, and so on.

The speed of the steps since the line before, or of an epoch's: ``samples_per_second`` over all processes;
``device_busy_share``, ``data_wait_share`` and, on a GPU, ``host_wait_share`` and ``launch_bound_share`` say where the
time of the first process's device went (`earmark.training.clock`); ``tflops_per_second`` and ``peak_share`` what all
devices did (`earmark.training.flops`). On a GPU the shares of time add up to 1; they are of this start of the run, and
leave out judging and what a model does between epochs.
"""

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from earmark.atomic import replacing
from earmark.console import new_console
from earmark.json_text import parse_json
from earmark.training.ranges import require_in_range

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = [
    "METRICS_FILE",
    "Logging",
    "Metrics",
    "MetricsSummary",
    "RunLog",
    "pace_text",
    "probe_score",
    "read_metrics",
    "summarise_metrics",
]

METRICS_FILE = "metrics.jsonl"
SECONDS_BETWEEN_PLAIN_LINES = 30.0
SHARE_SHOWN = 0.005
MAX_METRICS_BYTES = 2**30  # five million lines
MAX_LINE_BYTES = 2**16
MAX_NUMBER_OF_STEPS = 10**12
_STEP_LINE = b'{"kind": "step", '


class Metrics(NamedTuple):
    """What a run has written down.

    Attributes:
        lines: The records in the order of the file; each has an integer "step".
        num_damaged: Lines that are no such record: a run that was killed leaves half a line.
    """

    lines: list[dict[str, Any]]
    num_damaged: int


class MetricsSummary(NamedTuple):
    """What the list of runs shows of a run's metrics.

    Attributes:
        last: The last record; None where there is none.
        last_loss: Of the last epoch that has one, else of the last record, if that has one.
        epochs: Whole epochs done.
        best_probe: The record of the best probe: the one with the highest first number.
        num_damaged: Lines that are no records, but for one at the end that a killed run left unfinished.
        speed: The record that tells how fast the run was last: of the last epoch, else of the last step; None without.
    """

    last: dict[str, Any] | None
    last_loss: float | None
    epochs: int
    best_probe: dict[str, Any] | None
    num_damaged: int
    speed: dict[str, Any] | None = None


def read_metrics(path: Path) -> Metrics:
    r"""Read the metrics of a run.

    Args:
        path: Its ``metrics.jsonl``; a file that is not there holds nothing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / METRICS_FILE
        >>> _ = path.write_text('{"kind": "step", "step": 1, "epoch": 1, "loss": 0.5}\n{"kind": "st')
        >>> read_metrics(path)
        Metrics(lines=[{'kind': 'step', 'step': 1, 'epoch': 1, 'loss': 0.5}], num_damaged=1)
    """
    lines, num_damaged = [], 0
    for line in _lines(path):
        record = _record(line)
        if record is None:
            num_damaged += 1
        else:
            lines.append(record)
    return Metrics(lines, num_damaged)


def summarise_metrics(path: Path) -> MetricsSummary:
    r"""Read of the metrics of a run what the list of runs shows, in memory that does not grow with their number.

    Of steps only the last one is parsed; that is most of the time that `read_metrics` takes.

    Args:
        path: Its ``metrics.jsonl``; a file that is not there holds nothing.

    Raises:
        ValueError: If it is larger than any run's; the message does not name it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / METRICS_FILE
        >>> _ = path.write_text('{"kind": "step", "step": 1, "epoch": 1, "loss": 0.5}\n{"kind": "st')
        >>> summary = summarise_metrics(path)
        >>> summary.last_loss, summary.epochs, summary.num_damaged
        (0.5, 0, 0)
    """
    if path.is_file() and path.stat().st_size > MAX_METRICS_BYTES:
        raise ValueError(f"{path.stat().st_size:,} bytes of metrics, over {MAX_METRICS_BYTES:,}, which are not read")
    last: dict[str, Any] | None = None
    last_step = b""
    ended: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    loss_of_epoch, loss_of_step = None, None
    num_damaged, whole = 0, True
    for line in _lines(path):
        whole = line.endswith(b"\n")
        if line.startswith(_STEP_LINE) and line.rstrip().endswith(b"}"):
            last_step = line
            continue
        record = _record(line)
        if record is None:
            num_damaged += whole
            continue
        last, last_step = record, b""
        if record.get("kind") == "epoch":
            ended = record
            loss_of_epoch = loss_of_epoch if record.get("loss") is None else record["loss"]
        elif record.get("kind") == "probe" and (score := probe_score(record)) is not None:
            known = None if best is None else probe_score(best)
            best = record if known is None or score[1] > known[1] else best
        else:
            loss_of_step = loss_of_step if record.get("loss") is None else record["loss"]
    if last_step:
        record = _record(last_step)
        num_damaged += record is None
        last = last if record is None else record
    if last is not None and last.get("kind") == "step" and last.get("loss") is not None:
        loss_of_step = last["loss"]
    loss = loss_of_epoch if ended is not None else loss_of_step
    timed = (record for record in (ended, last) if record is not None and record.get("samples_per_second") is not None)
    return MetricsSummary(last, loss, 0 if ended is None else ended["epoch"], best, num_damaged, next(timed, None))


def probe_score(record: Mapping[str, Any]) -> tuple[str, float] | None:
    """Return name and value of the first number that a probe found, or None if it found none.

    Example:
        >>> probe_score({"kind": "probe", "step": 4, "epoch": 2, "verb_top1": 20.0, "noun_top1": 9.0})
        ('verb_top1', 20.0)
    """
    numbers = ((name, value) for name, value in record.items() if name not in ("kind", "step", "epoch"))
    return next(((name, value) for name, value in numbers if value is not None), None)


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a metrics file; of one that is too long to be one, the beginning."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            rest = line
            while len(rest) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(MAX_LINE_BYTES)
            yield line if rest is line else line + rest[-1:]


def _record(line: bytes) -> dict[str, Any] | None:
    """Return the record that a line of metrics is; None for a damaged one, or one with numbers that cannot be."""
    try:
        record = parse_json(line.decode())
    except ValueError:
        return None
    if not isinstance(record, dict) or not _is_count(record.get("step")):
        return None
    if record.get("kind") in ("epoch", "probe") and not _is_count(record.get("epoch")):
        return None
    for name, value in record.items():
        if name == "kind" or value is None:
            continue
        if type(value) is int and abs(value) < MAX_NUMBER_OF_STEPS:
            continue
        if type(value) is not float or not math.isfinite(value):
            return None
    return record


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_NUMBER_OF_STEPS


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What a run writes down, and how often.

    Attributes:
        every_steps: Steps between lines of metrics; the first and the last step always have one.
        tensorboard: Write TensorBoard files too.
        wandb: Arguments of ``wandb.init``, to write to Weights & Biases too, under an id that is the folder's own; None
            for not.
        progress: Show progress on stderr: live on a terminal, a plain line now and then elsewhere.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> Logging(tensorboard=False).every_steps
        10
    """

    every_steps: int = 10
    tensorboard: bool = True
    wandb: Mapping[str, Any] | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        require_in_range(at_least_1={"every_steps": self.every_steps})


class RunLog:
    """The records of one run; a context manager.

    A run that is resumed goes on with its own files: what they hold beyond `step`, from steps that were done but not
    saved, is cut off first, so that no step stands there twice.

    Args:
        run_dir: Folder of the run; made if need be.
        options: What is written, and how often.
        step: Steps done so far; 0 starts new records.
        total_steps: Steps that the whole run will have, for the time left.
        epochs: Epochs that the whole run will have.
        enabled: False on every rank but the first: then nothing is written or shown.

    Raises:
        ValueError: If Weights & Biases is asked for and not installed.

    Example:
        >>> import tempfile
        >>> run_dir = Path(tempfile.mkdtemp())
        >>> options = Logging(tensorboard=False, progress=False)
        >>> with RunLog(run_dir, options, step=0, total_steps=9, epochs=1) as log:
        ...     log.write("step", {"step": 1, "epoch": 1, "loss": 0.5})
        >>> print((run_dir / "metrics.jsonl").read_text().strip())
        {"kind": "step", "step": 1, "epoch": 1, "loss": 0.5}
    """

    def __init__(
        self,
        run_dir: Path,
        options: Logging,
        *,
        step: int,
        total_steps: int,
        epochs: int,
        enabled: bool = True,
    ) -> None:
        self._enabled, self._every_steps, self._total_steps = enabled, options.every_steps, total_steps
        self._writer: SummaryWriter | None = None
        self._wandb: Any = None
        self._progress: _ProgressLine | None = None
        if not enabled:
            return
        run_dir.mkdir(parents=True, exist_ok=True)
        if options.wandb is not None:
            self._wandb = _wandb_run(run_dir, options.wandb)
        metrics_path = run_dir / METRICS_FILE
        _cut_after(metrics_path, step)
        self._file = metrics_path.open("a", encoding="utf-8", buffering=1)  # by line: a killed run loses none
        if options.tensorboard:
            from torch.utils import tensorboard as writers  # torch is slow to import, and `earmark runs` needs none

            self._writer = writers.SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)
        if options.progress:
            self._progress = _ProgressLine(step=step, total_steps=total_steps, epochs=epochs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._enabled:
            return
        if self._progress is not None:
            self._progress.close()
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if kind is None else 1)
        self._file.close()

    def is_due(self, step: int) -> bool:
        """Return whether a step has a line of its own."""
        return step % self._every_steps == 0 or step in (1, self._total_steps)

    def write(self, kind: str, values: Mapping[str, float]) -> None:
        """Write one line of metrics.

        Args:
            kind: "step", "epoch", "probe" or "device".
            values: Numbers by name; "step" and "epoch" must be among them.
        """
        if not self._enabled:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"kind": kind, **finite}, allow_nan=False) + "\n")
        prefix = "" if kind == "step" else f"{kind}/"
        named = {prefix + name: value for name, value in values.items() if name not in ("step", "epoch")}
        if self._writer is not None:
            for name, value in named.items():
                self._writer.add_scalar(name, value, int(values["step"]))
        if self._wandb is not None:
            self._wandb.log(named | {"epoch": values["epoch"]}, step=int(values["step"]))

    def show(self, *, epoch: int, step: int, scalars: Mapping[str, float], speed: Mapping[str, float]) -> None:
        """Bring the progress on the screen up to date; call it after every step.

        Args:
            epoch: Epoch in hand, counted from 1.
            step: Steps done.
            scalars: Losses and diagnostics of the step.
            speed: ``samples_per_second`` and the shares of time and peak by name, as in the metrics.
        """
        if self._progress is not None:
            self._progress.update(epoch=epoch, step=step, scalars=scalars, speed=speed)

    def note(self, text: str) -> None:
        """Show a line of text above the progress, if that is shown.

        Args:
            text: The line.
        """
        if self._progress is not None:
            self._progress.note(text)

    def sync(self) -> None:
        """Force the metrics to the disk, so that no checkpoint there is ahead of them."""
        if self._enabled:
            os.fsync(self._file.fileno())
            if self._writer is not None:
                self._writer.flush()


class _ProgressLine:
    """Where the run stands, its speed, its numbers, the time left: live on a terminal, else a line twice a minute."""

    def __init__(self, *, step: int, total_steps: int, epochs: int) -> None:
        self._first_step, self._total_steps, self._epochs = step, total_steps, epochs
        self._started, self._last_line = time.monotonic(), -math.inf
        console = new_console(stderr=True)
        self._live: Live | None = None
        if console.is_terminal:
            self._bar = Progress(BarColumn(bar_width=20), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._task = self._bar.add_task("starting", total=total_steps, completed=step)
            self._live = Live(self._bar, console=console)
            self._live.start()

    def update(self, *, epoch: int, step: int, scalars: Mapping[str, float], speed: Mapping[str, float]) -> None:
        where = f"epoch {epoch}/{self._epochs}  step {step}/{self._total_steps}"
        pace = pace_text(speed)
        numbers = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in scalars.items())
        if self._live is not None:
            self._bar.update(self._task, description=where, completed=step)
            self._live.update(Group(self._bar, Text(pace), Text(numbers)))  # lines of their own: 80 columns are enough
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_PLAIN_LINES or step == self._total_steps:
            self._last_line = now
            seconds_per_step = (now - self._started) / (step - self._first_step)
            left = timedelta(seconds=round((self._total_steps - step) * seconds_per_step))
            print(f"{where}  {left} left  {pace}  {numbers}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


def pace_text(speed: Mapping[str, float]) -> str:
    """Return how fast a run is, and what it waits for, as people read it.

    Args:
        speed: By the names of the metrics; only samples per second must be there.

    Example:
        >>> pace_text({"samples_per_second": 1049.31, "data_wait_share": 0.03, "device_busy_share": 0.77})
        '1049.3 samples/s  data wait 3%  busy 77%'
    """
    names = {
        "data_wait_share": "data wait",
        "host_wait_share": "host",
        "launch_bound_share": "launch-bound",
        "device_busy_share": "busy",
    }
    parts = [f"{speed['samples_per_second']:.1f} samples/s"]
    for name, label in names.items():
        # what is rarely there is only named where it is
        if name in speed and (name != "launch_bound_share" or speed[name] >= SHARE_SHOWN):
            parts.append(f"{label} {speed[name]:.0%}")
    if "tflops_per_second" in speed:
        parts.append(f"{speed['tflops_per_second']:.3g} TFLOP/s ({speed['peak_share']:.0%} of peak)")
    return "  ".join(parts)


def _wandb_run(run_dir: Path, arguments: Mapping[str, Any]) -> Any:
    """Start, or go on with, the run of this folder at Weights & Biases."""
    try:
        import wandb
    except ImportError as error:
        raise ValueError("Weights & Biases is asked for, but wandb is not installed: pip install wandb") from error
    # The id is the folder's own, so that a resume goes on with the same run there.
    run_id = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:16]
    return wandb.init(id=run_id, resume="allow", dir=str(run_dir), **arguments)


def _cut_after(path: Path, step: int) -> None:
    """Keep only the lines of a metrics file up to and including a step; a line cut short by a crash goes too."""
    if not path.exists():
        return
    with replacing(path) as temporary, temporary.open("wb") as kept:
        for line in _lines(path):
            record = _record(line)
            if record is not None and record["step"] <= step:
                kept.write(line.rstrip(b"\r\n") + b"\n")
