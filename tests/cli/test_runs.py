"""The list of runs: states, numbers, and folders in any condition."""

import errno
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from earmark.cli.main import main
from earmark.cli.runs import runs_in
from earmark.training.run_lock import run_lock
from tests.conftest import ROOT


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


def test_how_fast_a_run_was_last_is_listed_and_an_older_run_that_did_not_say_is_listed_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def at(speed: float, busy: float | None = None) -> dict[str, object]:
        return {"samples_per_second": speed} | ({} if busy is None else {"device_busy_share": busy})

    device = {"kind": "device", "step": 0, "epoch": 1, "gflops_per_sample": 35.7, "peak_tflops_per_second_float32": 0.1}
    make_run(tmp_path / "outputs", "begun", device, STEP | at(1049.26, 0.625))
    make_run(tmp_path / "outputs", "on", device, STEP | at(9.0, 0.1), FIRST | at(20.0, 0.75), STEP | at(5.0, 0.2))
    make_run(tmp_path / "outputs", "older", STEP | at(4.0), FIRST | at(3.0))
    make_run(tmp_path / "outputs", "silent", STEP)
    found = {run.name: (run.samples_per_second, run.device_busy_share) for run in runs_in(tmp_path / "outputs")}
    assert found == {"begun": (1049.26, 0.625), "on": (20.0, 0.75), "older": (3.0, None), "silent": (None, None)}
    assert main(["runs", "--data-dir", str(tmp_path)]) == 0
    assert re.search(r"1049\.3 +│ +62%", capsys.readouterr().out)


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
    assert "verb top-1 31.5 % [26.5, 36.5]" in shown
    assert "evaluated only" in shown


GOOD_LINES = [STEP, FIRST, PROBES[0]]
DEEP = "[" * 10**5 + "]" * 10**5
CONFIGS: dict[str, tuple[bytes, str]] = {
    "alias bomb": (
        b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 60)),
        "config.yaml: has a reference to another part of it",
    ),
    "cycle": (b"optim: &a\n  epochs: 2\n  again: *a\n", "config.yaml: has a reference to another part of it"),
    "not UTF-8": (b"optim:\n  epochs: 2\n  name: \xff\n", "config.yaml: not UTF-8, at byte 27"),
    "control characters": (b"optim:\n  epochs: 2\n  name: \x00\n", "config.yaml: not YAML"),
    "tag": (b"optim: !!python/object/apply:os.mkdir [evil]\n", "config.yaml: has a tag"),
    "deep": (b"optim: " + DEEP.encode(), "config.yaml: "),
    "huge": (b"optim:\n  name: " + b"x" * 10**7, "config.yaml: larger than"),
    "many lines": (b"- 1\n" * 10**6, "config.yaml: larger than"),
    "list": (b"- optim\n", "config.yaml: not settings by name"),
    "brackets": (b"[", "config.yaml: not YAML"),
    "epochs of text": (b"optim:\n  epochs: many\n", "config.yaml: optim.epochs is not a number of epochs"),
    "epochs of 10^30": (b"optim:\n  epochs: 1%s\n" % (b"0" * 30), "config.yaml: optim.epochs is not a number"),
    "epochs of 10^5 digits": (b"optim:\n  epochs: 1%s\n" % (b"0" * 10**5), "config.yaml: "),
    "no such date": (b"optim:\n  epochs: 2001-99-99\n", "config.yaml: "),
}
METRICS: dict[str, tuple[bytes, str]] = {
    "half lines": (b'{"kind": "epoch", "st\n' * 3, "metrics.jsonl: 3 lines of it damaged"),
    "binary": (bytes(range(256)) * 20, "metrics.jsonl: 20 lines of it damaged"),
    "NaN": (b'{"kind": "epoch", "step": 3, "epoch": 2, "loss": NaN}\n', "metrics.jsonl: 1 line of it damaged"),
    "infinite": (b'{"kind": "epoch", "step": 3, "epoch": 2, "loss": 1e999}\n', "metrics.jsonl: 1 line of it damaged"),
    "text": (b'{"kind": "epoch", "step": 3, "epoch": "2", "loss": 1}\n', "metrics.jsonl: 1 line of it damaged"),
    "epoch of 10^30": (b'{"kind": "epoch", "step": 3, "epoch": 1%s}\n' % (b"0" * 30), "1 line of it damaged"),
    "step true": (b'{"kind": "epoch", "step": true, "epoch": 2}\n', "1 line of it damaged"),
    "loss of 400 digits": (b'{"kind": "epoch", "step": 3, "epoch": 2, "loss": 1%s}\n' % (b"0" * 400), "1 line of it"),
    "probe of a list": (b'{"kind": "probe", "step": 3, "epoch": 2, "verb_top1": [9]}\n', "1 line of it damaged"),
    "deep": (DEEP.encode() + b"\n", "1 line of it damaged"),
    "one line of 50 MB": (b"x" * 50_000_000 + b"\n", "1 line of it damaged"),
}


def limited(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run `earmark runs` with at most 500 MB of address space and 60 s of processor time."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (500 << 20, 500 << 20)); "
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60)); from earmark.cli.main import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, "runs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_a_number_of_another_unit_is_listed_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = {"measure": "keyframe error", "value": 0.772, "low": 0.75, "high": 0.79, "unit": "s", "decimals": 3}
    folder = tmp_path / "outputs/a_eval/random-oscc_pnr-validation-01234567"
    write_results(folder, name="a", checkpoint=None, value=20.0, headline=error)
    assert main(["runs", "--data-dir", str(tmp_path)]) == 0
    assert "keyframe error 0.772 s [0.750, 0.790]" in " ".join(capsys.readouterr().out.split())
    write_results(folder, name="a", checkpoint=None, value=20.0, headline=error | {"decimals": 10**9})
    main(["runs", "--data-dir", str(tmp_path)])
    assert "decimals are not a small number" in capsys.readouterr().err


def test_all_good_runs_are_listed_and_each_bad_one_has_a_line(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for name in ("a good one", "z good one"):
        make_run(outputs, name, *GOOD_LINES, torn=True)
    for number, (config, _) in enumerate(CONFIGS.values()):
        (make_run(outputs, f"config{number:02d}", *GOOD_LINES) / "config.yaml").write_bytes(config)
    for number, (metrics, _) in enumerate(METRICS.values()):
        with (make_run(outputs, f"metrics{number:02d}", *GOOD_LINES) / "metrics.jsonl").open("ab") as file:
            file.write(metrics)
    os.mkfifo(make_run(outputs, "pipe") / "results.json")
    (outputs / "pipe/config.yaml").unlink()
    os.mkfifo(outputs / "pipe/config.yaml")
    expected = {f"config{n:02d}": named for n, (_, named) in enumerate(CONFIGS.values())}
    expected |= {f"metrics{n:02d}": named for n, (_, named) in enumerate(METRICS.values())}
    expected["pipe"] = "config.yaml: not a file"

    done = limited("--data-dir", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    runs = {run["name"]: run for run in json.loads(done.stdout)}
    assert runs.keys() == {"a good one", "z good one", *expected}
    for name, run in runs.items():
        if name != "pipe":
            assert (run["epoch"], run["step"], run["loss"], run["probe"]) == (1, 2, 2.0, 30.0), name
        named = [expected[name]] if name in expected else []
        assert len(run["problems"]) == len(named), f"{name}: {run['problems']}"
        for text, problem in zip(named, run["problems"], strict=True):
            assert text in problem, name

    done = limited("--data-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if not line.startswith(f"{outputs}/pipe/results.json: ")]
    assert len(told) == len(expected)
    for line, name in zip(told, sorted(expected), strict=True):
        assert line.startswith(f"{outputs}/{name}: ")
        assert expected[name] in line
        assert len(line) < 1000


def test_a_million_lines_of_metrics_are_read_in_flat_memory(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "outputs", "long")
    with (folder / "metrics.jsonl").open("w") as file:
        for start in range(0, 10**6, 10**4):
            steps = range(start + 1, start + 10**4 + 1)
            file.writelines(json.dumps({**STEP, "step": step, "loss": 1 / step}) + "\n" for step in steps)
            file.write(json.dumps({**FIRST, "step": steps[-1], "epoch": steps[-1] // 10**4}) + "\n")
    done = limited("--data-dir", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    assert (run["epoch"], run["step"], run["loss"], run["problems"]) == (100, 10**6, 2.0, [])


def test_a_checkpoint_that_nothing_can_go_on_from_is_named_with_its_run(reference: Path, tmp_path: Path) -> None:
    """The list needs no torch for that, and looks at the newest two only."""
    for name in ("whole", "hurt"):
        folder = make_run(tmp_path / "outputs", name, STEP)
        shutil.copytree(reference / "e2cc9bf/run/checkpoints", folder / "checkpoints")
    content = (tmp_path / "outputs/hurt/checkpoints/latest_00000002.pt").read_bytes()
    (tmp_path / "outputs/hurt/checkpoints/checkpoint_0003.pt").write_bytes(content[:-100])
    (tmp_path / "outputs/hurt/checkpoints/checkpoint_0001.pt").write_bytes(b"not looked at")
    done = limited("--data-dir", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    hurt, whole = json.loads(done.stdout)
    assert whole["problems"] == []
    (problem,) = hurt["problems"]
    assert problem.startswith("checkpoints/checkpoint_0003.pt: damaged")


def test_names_that_a_terminal_would_obey_are_shown_escaped(tmp_path: Path) -> None:
    make_run(tmp_path / "outputs", "red \x1b[31m", STEP)
    make_run(tmp_path / "outputs", os.fsdecode(b"not utf-8 \xff"), STEP).joinpath("config.yaml").write_text("[")
    done = limited("--data-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "red \\x1b[31m" in done.stdout
    assert "not utf-8 %FF" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"columns": 5}, "TypeError"),
        ({"columns": []}, "IndexError"),
        ({"columns": [{"column": "verb", "top1": {"encoder": {"value": "x", "low": 1, "high": 2}}}]}, "not a number"),
        ({"columns": [{"column": ["v"], "top1": {"encoder": {"value": 1, "low": 1, "high": 2}}}]}, "a text is a list"),
        ({"checkpoint": 7}, "a text is a int"),
        ({"config": "x"}, "TypeError"),
        ({"weights": {}}, "a text is a dict"),
        ({"cautions": "abc"}, "cautions are not a list"),
    ],
)
def test_results_of_another_kind_are_named_and_left_out(
    tmp_path: Path, changes: dict[str, Any], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = tmp_path / "outputs"
    make_run(outputs, "good", STEP)
    write_results(outputs / "good_eval", name="good", checkpoint=None, value=30.0)
    results = json.loads((outputs / "good_eval/results.json").read_text())
    (outputs / "bad_eval").mkdir()
    (outputs / "bad_eval/results.json").write_text(json.dumps(results | changes))
    assert main(["runs", "--data-dir", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    assert [len(run["evaluations"]) for run in json.loads(printed.out)] == [1]
    assert f"{outputs}/bad_eval/results.json: not the results of an evaluation" in printed.err
    assert named in printed.err
