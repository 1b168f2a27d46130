"""A run that goes on although something changed, failed or stopped it; and its probes."""

import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from earmark.training.checkpoint import CheckpointError, load_checkpoint
from earmark.training.pretraining import PretrainResult
from tests.helpers.tiny_run import (
    TinyClips,
    assert_same_end,
    lines_of,
    run,
    run_script,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> PretrainResult:
    return run(tmp_path_factory.mktemp("uninterrupted"))


def test_forced_settings_hold_from_there_on_with_their_schedule(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Forced from no change of rate to steps at epochs 1 and 3: the rate of epoch 2 is that of a run of that kind."""
    run(tmp_path, schedule="multi_step", max_steps=7, config={"a": 1})
    result = run(tmp_path, schedule="multi_step", config={"a": 2}, force=True)
    assert "goes on although the run was made with other settings: a (1 there, 2 here)" in caplog.text
    rates = [line["lr"] for line in lines_of(result) if line["kind"] == "step"]
    assert rates == pytest.approx([0.05] * 3 + [0.005] * 6 + [0.0005] * 3)
    assert load_checkpoint(result.checkpoint_path)["config"] == {"a": 2}


def test_forced_other_data_begins_the_epoch_in_hand_anew(tmp_path: Path) -> None:
    class More(TinyClips):
        def __len__(self) -> int:
            return 20

    run(tmp_path, max_steps=5)
    with pytest.raises(CheckpointError, match=r"other data \(fingerprint abc there, xyz here\), settings: num_clips"):
        run(tmp_path, clips=More(), fingerprint="xyz")
    result = run(tmp_path, clips=More(), fingerprint="xyz", force=True)
    assert (result.steps, result.epochs) == (5 + 3 * 5, 4)


# --- checkpoints in need ---


def test_a_full_disk_leaves_the_checkpoint_before_whole_and_says_so(tmp_path: Path) -> None:
    """The operating system refuses to let a file grow, in a process of its own."""
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.helpers.tiny_run import TinyClips, run\n"
        "def fill(drawn):\n"
        "    if drawn == 4 * 3 + 1: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "run(Path(sys.argv[1]), clips=TinyClips(on_sample=fill), save_every_steps=2)\n"
    )
    child = run_script(script, tmp_path)
    assert child.returncode == 1
    assert "CheckpointError" in child.stderr
    assert "latest_00000004.pt: the checkpoint could not be written (" in child.stderr
    assert "latest_00000002.pt is whole, and a resume goes on from it" in child.stderr
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["latest_00000002.pt"]
    assert run(tmp_path).steps == 12


def test_probes_come_on_schedule_and_keep_the_best(tmp_path: Path) -> None:
    scores = iter([3.0, 5.0, 4.0])
    drawn = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        assert not model.training
        drawn.append((random.random(), np.random.random(), torch.rand(1)))  # noqa: NPY002, RUF100
        return {"top1": next(scores), "top5": 9.0}

    result = run(tmp_path / "probed", epochs=5, evaluate=evaluate, evaluate_every=2, retain=1)
    probes = [line for line in lines_of(result) if line["kind"] == "probe"]
    assert [(line["epoch"], line["top1"]) for line in probes] == [(2, 3.0), (4, 5.0), (5, 4.0)]
    best = load_checkpoint(tmp_path / "probed/checkpoints/best.pt")["position"]
    assert (best["epoch"], best["best_epoch"], best["best_score"]) == (4, 4, 5.0)
    plain = run(tmp_path / "plain", epochs=5)
    assert all(torch.equal(x, weights_of(plain)[name]) for name, x in weights_of(result).items())


def test_a_better_probe_after_a_resume_is_held_against_the_best_before_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {"evaluate_every": 1, "save_every_epochs": 99}
    run(tmp_path, evaluate=lambda model: {"top1": 5.0}, max_steps=4, **options)
    run(tmp_path, evaluate=lambda model: {"top1": 4.0}, max_steps=7, **options)
    best = tmp_path / "checkpoints/best.pt"
    assert load_checkpoint(best)["position"]["epoch"] == 1
    run(tmp_path, evaluate=lambda model: {"top1": 6.0}, max_steps=10, **options)
    assert load_checkpoint(best)["position"]["epoch"] == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_schedulers_signal_stops_the_run_after_the_step_and_is_named(tmp_path: Path, number: signal.Signals) -> None:
    def ask(drawn: int) -> None:
        if drawn == 4 * 4 + 2:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    stopped = run(tmp_path, clips=TinyClips(on_sample=ask))
    assert signal.getsignal(number) is before
    assert (stopped.steps, stopped.stopped_by) == (5, number)


def test_a_signal_while_threads_read_ahead_stops_the_run_and_ends_them(
    tmp_path: Path, uninterrupted: PretrainResult
) -> None:
    def ask(drawn: int) -> None:
        if drawn == 4 * 4 + 2:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = run(tmp_path, clips=TinyClips(on_sample=ask), num_workers=2)
    assert stopped.stopped_by == signal.SIGTERM
    assert 0 < stopped.steps < 12
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("earmark-")]
    assert_same_end(uninterrupted, run(tmp_path, num_workers=1))
