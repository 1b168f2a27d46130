"""`earmark runs`: lists the runs, how far they got, and what their probes and `earmark evaluate` found.

Beside the path of a sample: it reads what `earmark.training.run_log`, `earmark.training.run_lock` and
`earmark.cli.evaluate` left below the folder of outputs.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from earmark.cli.terminal import DONE, FAILED, print_json, say, screen
from earmark.datasets.listing import reason_of
from earmark.training.run_lock import holder_of
from earmark.training.run_log import METRICS_FILE, read_metrics
from earmark.wording import visible

__all__ = ["Evaluation", "Run", "add_arguments", "evaluations_in", "list_runs", "run", "runs_in"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `earmark evaluate` found with one checkpoint, split and protocol.

    Attributes:
        folder: Of results.json and report.html, below the folder of outputs.
        run: Name of the run that was judged.
        checkpoint: File name of the checkpoint; None for an encoder without one.
        weights: ``ema`` or ``model``: which of its weights; None without one.
        split: What it was judged on.
        measure: What the number is: the first of the evaluation, such as top-1 of verbs in %.
        value: The number.
        low: Low end of its 95 % interval.
        high: High end.
        num_test_videos: Videos that the interval was computed over; None if that was not written down.
        cautions: What a reader of the number must know.
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
        evaluations: What `earmark evaluate` found.
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
    evaluations: tuple[Evaluation, ...] = ()


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
        table = Table("run", "state", "epoch", "step", "loss", "best probe")
        for one in runs:
            loss = "" if one.loss is None else f"{one.loss:.4f}"
            probe = "" if one.probe is None else f"{one.probe_name} {one.probe:.2f} (epoch {one.probe_epoch})"
            epoch = f"{one.epoch}/{'?' if one.epochs is None else one.epochs}"
            table.add_row(visible(one.name), one.state, epoch, str(one.step), loss, probe)
        screen().print(table)
        evaluations = [evaluation for one in runs for evaluation in one.evaluations]
        if evaluations:
            screen().print(_evaluations_table(evaluations))
    return bool(runs)


def _evaluations_table(evaluations: Sequence[Evaluation]) -> Table:
    table = Table("run", "checkpoint", "weights", "split", "found, % [95 % interval]", "videos", "cautions", "folder")
    for one in evaluations:
        table.add_row(
            visible(one.run),
            visible(one.checkpoint or "none"),
            one.weights or "",
            visible(one.split),
            f"{one.measure} {one.value:.1f} [{one.low:.1f}, {one.high:.1f}]",
            "" if one.num_test_videos is None else str(one.num_test_videos),
            str(len(one.cautions) or ""),
            visible(one.folder),
        )
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
            yield Run(name, "evaluated only", 0, None, 0, None, None, None, None, found)
            continue
        config_path = trained[name]
        folder = config_path.parent
        lines = read_metrics(folder / METRICS_FILE).lines
        epochs = _epochs_asked_for(config_path)
        ended = [line for line in lines if line.get("kind") == "epoch"]
        done = int(ended[-1]["epoch"]) if ended else 0
        probes = [(scores[0][1], scores[0][0], line) for line in lines if (scores := _scores(line))]
        best = max(probes, key=lambda probe: probe[0]) if probes else None
        state = "finished" if epochs is not None and done >= epochs else "stopped"
        losses = [line["loss"] for line in ended or lines if line.get("loss") is not None]
        yield Run(
            name=folder.name,
            state="running" if holder_of(folder) else state,
            epoch=done,
            epochs=epochs,
            step=int(lines[-1]["step"]) if lines else 0,
            loss=losses[-1] if losses else None,
            probe=best[0] if best else None,
            probe_name=best[1].replace("_", " ") if best else None,
            probe_epoch=int(best[2]["epoch"]) if best else None,
            evaluations=found,
        )


def evaluations_in(outputs: Path) -> Iterator[Evaluation]:
    """Yield the evaluations below a folder of outputs; a results.json that cannot be read is named and left out.

    Args:
        outputs: Folder of run folders; it need not exist.
    """
    found = [*outputs.glob("*/results.json"), *outputs.glob("*/*/results.json")]
    for path in sorted(found, key=lambda path: path.parent):
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            column = results["columns"][0]
            score, checkpoint = column["top1"]["encoder"], results["checkpoint"]
            yield Evaluation(
                folder=str(path.parent.relative_to(outputs)),
                run=_run_of(checkpoint, results["config"]["logging"]["name"]),
                checkpoint=None if checkpoint is None else Path(checkpoint).name,
                weights=results.get("weights"),
                split=results["config"]["evaluate"]["split"],
                measure=f"{column['column']} top-1",
                value=float(score["value"]),
                low=float(score["low"]),
                high=float(score["high"]),
                num_test_videos=column.get("num_test_videos"),
                cautions=tuple(results.get("cautions", ())),
            )
        except (OSError, ValueError, LookupError, TypeError) as error:
            say(f"{path}: not the results of an evaluation ({type(error).__name__}: {error})")


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


def _scores(line: dict[str, Any]) -> list[tuple[str, float]]:
    if line.get("kind") != "probe":
        return []
    return [
        (name, value) for name, value in line.items() if name not in ("kind", "step", "epoch") and value is not None
    ]


def _epochs_asked_for(config_path: Path) -> int | None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        epochs = OmegaConf.select(OmegaConf.load(config_path), "optim.epochs")
    except (OmegaConfBaseException, YAMLError, OSError):
        return None
    return epochs if isinstance(epochs, int) else None
