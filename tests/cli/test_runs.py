"""The list of runs: states, numbers, and folders in any condition."""

import errno
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from earmark.cli.main import main
from earmark.cli.runs import runs_in
from earmark.training.run_lock import run_lock


def make_run(outputs: Path, name: str, *lines: dict[str, object], epochs: int = 2, torn: bool = False) -> Path:
    folder = outputs / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"optim:\n  epochs: {epochs}\n")
    text = "".join(json.dumps(line) + "\n" for line in lines) + ('{"kind": "st' if torn else "")
    (folder / "metrics.jsonl").write_text(text)
    return folder


STEP = {"kind": "step", "step": 1, "epoch": 1, "loss": 3.0}
FIRST = {"kind": "epoch", "step": 2, "epoch": 1, "loss": 2.0}
SECOND = {"kind": "epoch", "step": 4, "epoch": 2, "loss": 1.0}
PROBES = [
    {"kind": "probe", "step": 2, "epoch": 1, "verb_top1": 30.0, "noun_top1": 1.0},
    {"kind": "probe", "step": 4, "epoch": 2, "verb_top1": 20.0, "noun_top1": 9.0},
]


def test_runs_are_told_apart_by_how_far_they_came(tmp_path: Path) -> None:
    make_run(tmp_path, "begun")
    make_run(tmp_path, "half", STEP, FIRST, torn=True)
    make_run(tmp_path, "whole", STEP, FIRST, PROBES[0], SECOND, PROBES[1])
    (tmp_path / "other").mkdir()
    found = {run.name: run for run in runs_in(tmp_path)}
    assert list(found) == ["begun", "half", "whole"]
    assert [(run.state, run.epoch, run.step, run.loss) for run in found.values()] == [
        ("stopped", 0, 0, None),
        ("stopped", 1, 2, 2.0),
        ("finished", 2, 4, 1.0),
    ]
    assert (found["whole"].probe, found["whole"].probe_name, found["whole"].probe_epoch) == (30.0, "verb top1", 1)
    assert found["half"].probe is None


def test_folders_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "outputs", "a", STEP)
    make_run(tmp_path / "outputs", "shut", STEP)
    (tmp_path / "outputs/circle").symlink_to("circle")
    stat = os.stat

    def denied(path: Any, **options: Any) -> os.stat_result:
        if "shut" in os.fspath(path):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", denied)
    assert main(["runs", "--data-dir", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert f"{tmp_path}/outputs/shut: permission denied, left out\n" in captured.err
    assert f"{tmp_path}/outputs/circle: too many levels of symbolic links, left out\n" in captured.err
    assert " a " in captured.out


def test_a_folder_of_runs_that_is_none_is_told_without_an_error_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outputs").write_text("a file")
    assert main(["runs", "--data-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"earmark runs: {tmp_path}/outputs: not a directory\n")


def hold(folder: str, held: "multiprocessing.synchronize.Event", let_go: "multiprocessing.synchronize.Event") -> None:
    with run_lock(folder):
        held.set()
        let_go.wait(60)


def test_a_run_in_another_process_is_running_and_one_that_was_killed_is_not(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a", STEP)
    context = multiprocessing.get_context("spawn")
    held, let_go = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(folder), held, let_go))
    other.start()
    assert held.wait(60)
    assert [run.state for run in runs_in(tmp_path)] == ["running"]
    other.kill()
    other.join()
    assert [run.state for run in runs_in(tmp_path)] == ["stopped"]


def test_the_command_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--data-dir", str(tmp_path)]) == 1
    assert "no runs in" in capsys.readouterr().err
    make_run(tmp_path / "outputs", "whole", STEP, FIRST, *PROBES, SECOND)
    make_run(tmp_path / "outputs", "odd").joinpath("config.yaml").write_text("[")
    assert main(["runs", "--data-dir", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "finished" in shown
    assert "verb top1 30.00 (epoch 1)" in shown
    assert main(["runs", "--data-dir", str(tmp_path), "--json"]) == 0
    odd, whole = json.loads(capsys.readouterr().out)
    assert (odd["name"], odd["epochs"]) == ("odd", None)
    assert (whole["name"], whole["loss"], whole["probe"]) == ("whole", 1.0, 30.0)


def write_results(
    folder: Path, *, name: str, checkpoint: str | None, value: float, split: str = "validation", **more: object
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    score = {"value": value, "low": value - 5, "high": value + 5}
    columns = [{"column": "verb", "num_test_videos": 12, "top1": {"encoder": score}}]
    config = {"logging": {"name": name}, "evaluate": {"split": split}}
    content = {"checkpoint": checkpoint, "config": config, "columns": columns, **more}
    (folder / "results.json").write_text(json.dumps(content))


def test_evaluations_are_listed_with_their_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = tmp_path / "outputs"
    make_run(outputs, "whole", STEP, FIRST, SECOND)
    best = str(outputs / "whole/checkpoints/best.pt")
    caution = {"weights": "ema", "cautions": ["The intervals rest on 12 test videos"]}
    write_results(outputs / "whole_eval/best-ema-validation-01234567", name="x", checkpoint=best, value=31.5, **caution)
    write_results(
        outputs / "whole_eval/best-model-train-89abcdef", name="x", checkpoint=best, value=40.0, split="train"
    )
    write_results(outputs / "whole_eval", name="whole", checkpoint=best, value=30.0)  # as older versions wrote it
    write_results(outputs / "fresh_eval/random-validation-01234567", name="fresh", checkpoint=None, value=20.0)
    (outputs / "odd").mkdir()
    (outputs / "odd/results.json").write_text("[1]")
    assert main(["runs", "--data-dir", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    assert "odd/results.json: not the results of an evaluation" in printed.err
    fresh, whole = json.loads(printed.out)
    assert (fresh["name"], fresh["state"]) == ("fresh", "evaluated only")
    (one,) = fresh["evaluations"]
    assert (one["checkpoint"], one["value"], one["weights"]) == (None, 20.0, None)
    assert (whole["name"], whole["state"]) == ("whole", "finished")
    assert [(e["split"], e["value"], e["checkpoint"]) for e in whole["evaluations"]] == [
        ("validation", 30.0, "best.pt"),
        ("validation", 31.5, "best.pt"),
        ("train", 40.0, "best.pt"),
    ]
    assert whole["evaluations"][1]["weights"] == "ema"
    assert whole["evaluations"][1]["cautions"] == caution["cautions"]
    assert main(["runs", "--data-dir", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "verb top-1 31.5 [26.5, 36.5]" in shown
    assert "evaluated only" in shown
