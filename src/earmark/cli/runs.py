"""`earmark runs`: lists the runs, how far they got, and what their probes and `earmark evaluate` found.

Beside the path of a sample: it reads what `earmark.training` and `earmark.cli.evaluate` left below the folder of
outputs. A run folder may come from anyone: what is wrong in one is told in a line, and no other run is left out for it.
"""

import argparse
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from earmark.cli.terminal import DONE, FAILED, print_json, say, screen
from earmark.datasets.listing import reason_of
from earmark.encoders.torch_outline import TorchFileError, read_outline
from earmark.json_text import read_json
from earmark.training.run_lock import holder_of
from earmark.training.run_log import METRICS_FILE, MetricsSummary, probe_score, summarise_metrics
from earmark.wording import counted, visible

__all__ = ["Evaluation", "Run", "add_arguments", "evaluations_in", "list_runs", "run", "runs_in"]

MAX_CONFIG_BYTES = 2**17  # one has 3 kB
MAX_CONFIG_DEPTH = 32
ACTION_RECOGNITION = "action_recognition"  # the task whose name goes without saying
MAX_DECIMALS = 12  # of a number in the table
MAX_RESULTS_BYTES = 2**26  # a page of results has 100 kB
_CHECKPOINT_NAME = re.compile(r"(checkpoint|latest)_(\d{1,18})\.pt")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `earmark evaluate` found with one checkpoint, split and protocol.

    Attributes:
        folder: Of results.json and report.html, below the folder of outputs.
        run: Name of the run that was judged.
        checkpoint: File name of the checkpoint; None for an encoder without one.
        weights: ``ema`` or ``model``: which of its weights; None without one.
        split: What it was judged on, with the part of it where that is not all.
        measure: What the number is: the first of the evaluation, such as top-1 of verbs.
        value: The number.
        low: Low end of its 95 % interval.
        high: High end.
        num_test_videos: Videos that the interval was computed over; None if that was not written down.
        cautions: What a reader of the number must know.
        unit: Of the number; empty for one without.
        decimals: How many of it are shown.
    """

    folder: str
    run: str
    checkpoint: str | None
    weights: str | None
    split: str
    measure: str
    value: float
    low: float
    high: float
    num_test_videos: int | None
    cautions: tuple[str, ...]
    unit: str = "%"
    decimals: int = 1


@dataclass(frozen=True, slots=True)
class Run:
    """One line of the list.

    Attributes:
        name: Of the run's folder.
        state: "running", "finished", "stopped" (the same command resumes it), or "evaluated only" where there is no
            training, or no longer any.
        epoch: Whole epochs done.
        epochs: Epochs that were asked for.
        step: Last step in the metrics.
        loss: Of the last epoch, or of the last step where no epoch has ended; None before the first step.
        probe: What the best probe found: its first number, such as top-1 of verbs in %; None without one.
        probe_name: What that number is.
        probe_epoch: After how many epochs.
        samples_per_second: Of the last epoch, or of the last step where no epoch has ended; None if not written down.
        device_busy_share: Of the same time, the share in which the device worked; None if not written down.
        evaluations: What `earmark evaluate` found.
        problems: What in its folder is damaged or none of a run's, each with its file.
    """

    name: str
    state: str
    epoch: int
    epochs: int | None
    step: int
    loss: float | None
    probe: float | None
    probe_name: str | None
    probe_epoch: int | None
    samples_per_second: float | None = None
    device_busy_share: float | None = None
    evaluations: tuple[Evaluation, ...] = ()
    problems: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    folder = Path("earmark_data")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=folder,
        metavar="DIR",
        help="folder that holds the runs, as environment.data_dir (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON: a list with an object for each run")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List the runs.

    Args:
        options: As parsed.

    Returns:
        The exit code: 1 if there are none.
    """
    return DONE if list_runs(options.data_dir, as_json=options.json) else FAILED


def list_runs(data_dir: Path, *, as_json: bool) -> bool:
    """Print the runs below a data folder.

    Args:
        data_dir: ``environment.data_dir`` of the runs.
        as_json: Print JSON instead of a table.

    Returns:
        Whether there are any.
    """
    runs = list(runs_in(data_dir / "outputs"))
    if as_json:
        print_json([asdict(run) for run in runs])
    elif not runs:
        say(f"no runs in {data_dir / 'outputs'}")
    else:
        table = Table("run", "state", "epoch", "step", "loss", "samples/s", "busy", "best probe")
        for one in runs:
            loss = "" if one.loss is None else f"{one.loss:.4f}"
            probe = (
                ""
                if one.probe is None
                else f"{visible(one.probe_name or '')} {one.probe:.2f} (epoch {one.probe_epoch})"
            )
            epoch = f"{one.epoch}/{'?' if one.epochs is None else one.epochs}"
            pace = "" if one.samples_per_second is None else f"{one.samples_per_second:.1f}"
            busy = "" if one.device_busy_share is None else f"{one.device_busy_share:.0%}"
            table.add_row(visible(one.name), one.state, epoch, str(one.step), loss, pace, busy, probe)
        screen().print(table)
        evaluations = [evaluation for one in runs for evaluation in one.evaluations]
        if evaluations:
            screen().print(_evaluations_table(evaluations))
    for one in runs:
        if one.problems:
            say(visible(f"{data_dir / 'outputs' / one.name}: {'; '.join(one.problems)}"))
    return bool(runs)


def _with_interval(one: Evaluation) -> str:
    value, low, high = (f"{number:.{one.decimals}f}" for number in (one.value, one.low, one.high))
    return f"{value}{' ' if one.unit else ''}{one.unit} [{low}, {high}]"


def _evaluations_table(evaluations: Sequence[Evaluation]) -> Table:
    table = Table("run", "checkpoint", "weights", "split", "found [95 % interval]", "videos", "cautions", "folder")
    for one in evaluations:
        cells = (
            one.run,
            one.checkpoint or "none",
            one.weights or "",
            one.split,
            f"{one.measure} {_with_interval(one)}",
            "" if one.num_test_videos is None else str(one.num_test_videos),
            str(len(one.cautions) or ""),
            one.folder,
        )
        table.add_row(*map(visible, cells))
    return table


def runs_in(outputs: Path) -> Iterator[Run]:
    """Yield the runs of a folder in the order of their names; a folder that no training wrote to is left out.

    Args:
        outputs: Folder of run folders; it need not exist.
    """
    evaluations = list(evaluations_in(outputs))
    trained = {folder.name: folder / "config.yaml" for folder in _folders_in(outputs)}
    for name in sorted(trained.keys() | {evaluation.run for evaluation in evaluations}):
        found = tuple(evaluation for evaluation in evaluations if evaluation.run == name)
        if name not in trained:
            yield Run(name, "evaluated only", 0, None, 0, None, None, None, None, evaluations=found)
            continue
        yield replace(_trained_run(trained[name].parent), evaluations=found)


def _trained_run(folder: Path) -> Run:
    """Return what the folder of a run says, with what in it is wrong."""
    problems: list[str] = []
    epochs, metrics, held = None, MetricsSummary(None, None, 0, None, 0), False
    try:
        epochs = _epochs_asked_for(folder / "config.yaml")
    except (OSError, ValueError) as error:
        problems.append(f"config.yaml: {_reason(error)}")
    try:
        metrics = summarise_metrics(folder / METRICS_FILE)
        if metrics.num_damaged:
            problems.append(f"{METRICS_FILE}: {counted(metrics.num_damaged, 'line')} of it damaged, left out")
    except (OSError, ValueError) as error:
        problems.append(f"{METRICS_FILE}: {_reason(error)}")
    problems += _checkpoint_problems(folder / "checkpoints")
    try:
        held = holder_of(folder) is not None
    except OSError as error:
        problems.append(f".lock: {_reason(error)}")
    probe = None if metrics.best_probe is None else probe_score(metrics.best_probe)
    state = "finished" if epochs is not None and metrics.epochs >= epochs else "stopped"
    return Run(
        name=folder.name,
        state="running" if held else state,
        epoch=metrics.epochs,
        epochs=epochs,
        step=0 if metrics.last is None else metrics.last["step"],
        loss=metrics.last_loss,
        probe=None if probe is None else probe[1],
        probe_name=None if probe is None else probe[0].replace("_", " "),
        probe_epoch=None if metrics.best_probe is None else metrics.best_probe["epoch"],
        samples_per_second=_number(metrics.speed, "samples_per_second"),
        device_busy_share=_number(metrics.speed, "device_busy_share"),
        problems=tuple(problems),
    )


def _number(record: Mapping[str, Any] | None, name: str) -> float | None:
    value = None if record is None else record.get(name)
    return None if value is None else float(value)


def _checkpoint_problems(checkpoints: Path) -> Iterator[str]:
    """Yield what is wrong with the newest checkpoints, by steps and by epochs: those that a resume would go on from."""
    newest: dict[str, tuple[int, Path]] = {}
    try:
        for path in checkpoints.iterdir() if checkpoints.is_dir() else ():
            if match := _CHECKPOINT_NAME.fullmatch(path.name):
                newest[match[1]] = max(newest.get(match[1], (-1, path)), (int(match[2]), path))
    except OSError as error:
        yield f"checkpoints: {_reason(error)}"
    for _, path in newest.values():
        try:
            content = read_outline(path)
            if not isinstance(content, dict) or not {"format_version", "position"} <= content.keys():
                yield f"checkpoints/{path.name}: not the checkpoint of a training run"
        except TorchFileError as error:
            yield f"checkpoints/{path.name}: {error.reason}"
        except OSError as error:
            yield f"checkpoints/{path.name}: {_reason(error)}"


def _reason(error: Exception) -> str:
    return reason_of(error) if isinstance(error, OSError) else str(error)


def evaluations_in(outputs: Path) -> Iterator[Evaluation]:
    """Yield the evaluations below a folder of outputs; a results.json that cannot be read is named and left out.

    Args:
        outputs: Folder of run folders; it need not exist.
    """
    found = [*outputs.glob("*/results.json"), *outputs.glob("*/*/results.json")]
    for path in sorted(found, key=lambda path: path.parent):
        try:
            yield _evaluation(path, outputs)
        except OSError as error:
            say(visible(f"{path}: {reason_of(error)}"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            named = str(error)[:200]
            say(visible(f"{path}: not the results of an evaluation ({type(error).__name__}: {named})"))


def _evaluation(path: Path, outputs: Path) -> Evaluation:
    """Read what an evaluation found; anything of another kind than it writes raises one of several errors."""
    if not path.is_file():
        raise ValueError("not a file")
    results = read_json(path, max_bytes=MAX_RESULTS_BYTES)
    column = results["columns"][0]
    checkpoint, config = results["checkpoint"], results["config"]
    unit, decimals = "%", 1  # as all were before some had others
    if "headline" in results:
        score, measure = results["headline"], _text(results["headline"]["measure"])
        unit, decimals = _text(score.get("unit", unit)), score.get("decimals", decimals)
        if type(decimals) is not int or not 0 <= decimals <= MAX_DECIMALS:
            raise TypeError("decimals are not a small number")
    else:  # written before there were several tasks
        score, measure = column["top1"]["encoder"], f"{_text(column['column'])} top-1"
    task = _text(config["evaluate"].get("task", ACTION_RECOGNITION))
    num_videos = column.get("num_test_videos")
    if num_videos is not None and (type(num_videos) is not int or not 0 <= num_videos < 10**12):
        raise TypeError("num_test_videos is not a number of videos")
    split = _text(config["evaluate"]["split"])
    subset = config.get("data", {}).get("subset")
    return Evaluation(
        folder=str(path.parent.relative_to(outputs)),
        run=_run_of(None if checkpoint is None else _text(checkpoint), _text(config["logging"]["name"])),
        checkpoint=None if checkpoint is None else Path(_text(checkpoint)).name,
        weights=None if results.get("weights") is None else _text(results["weights"]),
        split=split + ("" if subset is None else f" {_text(subset)}"),
        measure=measure if task == ACTION_RECOGNITION else f"{task.replace('_', ' ')}, {measure}",
        value=_finite(score["value"]),
        low=_finite(score["low"]),
        high=_finite(score["high"]),
        num_test_videos=num_videos,
        cautions=tuple(map(_text, _listed(results.get("cautions", [])))),
        unit=unit,
        decimals=decimals,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 10_000:
        raise TypeError(f"a text is a {type(value).__name__}, or too long")
    return value


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or abs(value) > 1e300 or not math.isfinite(value):
        raise TypeError("a score is not a number")
    return float(value)


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("cautions are not a list")
    return value


def _run_of(checkpoint: str | None, named: str) -> str:
    """Return the name of the run that a checkpoint lies in, or the one that the command named."""
    if checkpoint is not None and Path(checkpoint).parent.name == "checkpoints":
        return Path(checkpoint).parent.parent.name
    return named


def _folders_in(outputs: Path) -> Iterator[Path]:
    """Yield the folders with a run's configuration, by name; one that cannot be read is named on standard error."""
    try:
        entries = sorted(outputs.iterdir())
    except FileNotFoundError:
        return
    for folder in entries:
        try:
            (folder / "config.yaml").stat()
            yield folder
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            say(f"{folder}: {reason_of(error)}, left out")


def _epochs_asked_for(config_path: Path) -> int | None:
    """Return how many epochs a run's configuration asks for; None if it does not say.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is not the YAML that a run writes; the message does not name it.
    """
    import yaml

    if not config_path.is_file():
        raise ValueError("not a file")
    with config_path.open("rb") as file:
        content = file.read(MAX_CONFIG_BYTES + 1)
    if len(content) > MAX_CONFIG_BYTES:
        raise ValueError(f"larger than {MAX_CONFIG_BYTES:,} bytes")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        text = content.decode()
        for event in yaml.parse(text, Loader=loader):
            # Unfolded, a few lines of references to references fill any memory, and tags ask for objects.
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise ValueError("has a reference to another part of it, which no run writes")
            if getattr(event, "tag", None) is not None:
                raise ValueError("has a tag, which no run writes")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_CONFIG_DEPTH:
                raise ValueError(f"nested more than {MAX_CONFIG_DEPTH} deep")
        config = yaml.load(text, Loader=loader)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8, at byte {error.start:,}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(config, Mapping):
        raise ValueError("not settings by name")
    optim = config.get("optim")
    epochs = optim.get("epochs") if isinstance(optim, Mapping) else None
    if epochs is not None and (type(epochs) is not int or not 1 <= epochs <= 10**12):
        raise ValueError("optim.epochs is not a number of epochs")
    return epochs
