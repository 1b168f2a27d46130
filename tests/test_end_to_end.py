"""The main job on generated videos, through the real commands in real processes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from earmark.cli.demo import run_demo
from earmark.kitchen import KitchenSize, make_kitchen
from earmark.training.checkpoint import latest_checkpoint, load_checkpoint

SMALL = (
    "prepare.short_side=64",
    "data_augm.crop_size=48",
    "data_augm.min_short_side=48",
    "data_augm.max_short_side=64",
    "backbone/video=avid_r2plus1d_10",
    "backbone.video.args.width=8",
    "backbone.audio.args.width=8",
    "optim.batch_size=2",
    "optim.epochs=4",
    "environment.accelerator=cpu",
)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"num_kitchens": 2, "videos_per_kitchen": 2, "video_seconds": 40, "width": 128, "height": 96, "fps": 16}
    return make_kitchen(tmp_path_factory.mktemp("kitchen") / "k", size=KitchenSize(**sizes), progress=False).path


def _command(kitchen: Path, data_dir: Path, *overrides: str) -> list[str]:
    # one store for all runs: the first of them makes it
    store = kitchen.parent / "store"
    where = (f"data.args.base_path={kitchen}", f"data.store={store}", f"environment.data_dir={data_dir}")
    return [sys.executable, "-m", "earmark", "pretrain", *where, *SMALL, *overrides]


def _final_model(data_dir: Path) -> dict[str, torch.Tensor]:
    path = latest_checkpoint(data_dir / "outputs" / "default" / "checkpoints")
    assert path is not None
    state = load_checkpoint(path)
    assert state["position"]["epoch"] == 4
    model: dict[str, torch.Tensor] = state["model"]
    return model


OFTEN = ("logging.save_freq_steps=3", "logging.print_freq=1")


@pytest.fixture(scope="module")
def whole_run(kitchen: Path) -> dict[str, torch.Tensor]:
    """Return the weights of an uninterrupted run, which reads in the process that trains."""
    data_dir = kitchen.parent / "whole"
    subprocess.run(_command(kitchen, data_dir, "environment.workers=0", *OFTEN), check=True)
    return _final_model(data_dir)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_in_mid_epoch_ends_with_the_weights_of_an_uninterrupted_one(
    kitchen: Path, whole_run: dict[str, torch.Tensor], tmp_path: Path, workers: int
) -> None:
    overrides = (f"environment.workers={workers}", *OFTEN)
    command = _command(kitchen, tmp_path / "killed", *overrides)
    metrics = tmp_path / "killed" / "outputs" / "default" / "metrics.jsonl"
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 600
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 6):  # past the checkpoint of step 3
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "killed" / "outputs" / "default" / "checkpoints").glob("checkpoint_0004.pt"))
    subprocess.run(command, check=True)

    resumed = _final_model(tmp_path / "killed")
    assert whole_run.keys() == resumed.keys()
    assert all(torch.equal(whole_run[name], resumed[name]) for name in whole_run)
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if '"kind": "step"' in line]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")  # of 43 actions, the order of sums decides by points
def test_the_demo_ends_with_a_table_and_a_page_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "de mo, ü"
    page = run_demo(folder, size="tiny")
    assert "verb top-1" in capsys.readouterr().out
    results = json.loads((page.parent / "results.json").read_text())
    verb = next(column for column in results["columns"] if column["column"] == "verb")
    for split, key in (("train", "num_train_actions"), ("validation", "num_test_actions")):
        with (folder / f"kitchen/annotations/EPIC_100_{split}.csv").open() as file:
            assert verb[key] == len(list(csv.DictReader(file)))  # every action of the kitchen is judged
    top1 = verb["top1"]
    for judged in ("encoder", "baseline", "majority"):
        num_right = top1[judged]["value"] / 100 * verb["num_test_actions"]
        assert num_right == pytest.approx(round(num_right), abs=1e-6)
    assert top1["gain"]["value"] == pytest.approx(top1["encoder"]["value"] - top1["baseline"]["value"])
    # 9.3 points, 4 of 43 actions, when this was written, 16.3 and 11.6 with two other seeds: it has learned
    assert top1["gain"]["value"] > 5
    text = page.read_text()
    assert text.count("<img") > 10
    assert "://" not in text.replace("http://www.w3.org", "")  # nothing is fetched
    checkpoints = {path: path.stat().st_mtime_ns for path in page.parents[1].glob("checkpoints/*.pt")}
    assert checkpoints
    assert run_demo(folder, size="tiny") == page
    assert {path: path.stat().st_mtime_ns for path in page.parents[1].glob("checkpoints/*.pt")} == checkpoints
