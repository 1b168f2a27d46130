"""Numbers that come a step late, as from a GPU: the run is the same, and nothing is saved or judged before them."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn

from earmark.clips.sampling import epoch_order
from earmark.training.checkpoint import load_checkpoint
from earmark.training.launch import Launch, run_processes
from earmark.training.pretraining import PretrainResult
from earmark.training.readback import FromCuda
from earmark.training.step import NonFiniteError, StepOptions, TrainStep
from tests.helpers.fake_device import LateNumbers
from tests.helpers.rank_runs import end_of, processes, train
from tests.helpers.tiny_run import (
    BATCH_SIZE,
    NUM_CLIPS,
    NanAtStep,
    TinyClips,
    TinyModel,
    assert_same_end,
    lines_of,
    run,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> LateNumbers:
    """Have every run of the test read its numbers late."""
    late = LateNumbers()
    monkeypatch.setattr("earmark.training.pretraining.readback_of", lambda device: late)
    return late


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def lines_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def samples_of(step: int) -> str:
    """The indices of a step's batch, as an error names them."""
    epoch, batch = divmod(step - 1, 3)
    indices = epoch_order(NUM_CLIPS, seed=5, epoch=epoch)[batch * BATCH_SIZE :][:BATCH_SIZE].tolist()
    return rf"the loss is nan on the batch of indices \[{str(indices)[1:-1]}\]"


def test_a_step_is_queued_before_the_numbers_of_the_one_before_are_read_but_for_a_checkpoint(
    tmp_path: Path, numbers: LateNumbers
) -> None:
    """Epochs end after steps 3, 6, 9 and 12, with a checkpoint after 6 and 12."""
    run(tmp_path)
    assert numbers.log[:12] == [
        *("queued 1", "queued 2", "read 1", "queued 3", "read 2", "queued 4", "read 3"),
        *("queued 5", "read 4", "queued 6", "read 5", "read 6"),
    ]
    assert numbers.log[12:] == [
        *("queued 7", "queued 8", "read 7", "queued 9", "read 8", "queued 10", "read 9"),
        *("queued 11", "read 10", "queued 12", "read 11", "read 12"),
    ]


def scaled() -> Fabric:
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=5)
    return Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])


@pytest.mark.parametrize(
    "options",
    [
        {"save_every_steps": 2, "retain": 99},
        {"accumulate": 2, "ema_decay": 0.8, "max_gradient_norm": 0.5},
        {"schedule": "multi_step", "evaluate": lambda model: {"top1": 1.0}, "evaluate_every": 1},
        {"fabric": scaled, "num_workers": 2},
    ],
    ids=lambda options: "-".join(options),
)
def test_a_run_with_late_numbers_is_the_run_and_resumes_as_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    def train_tiny(name: str, **more: Any) -> PretrainResult:
        return run(tmp_path / name, **{key: x() if key == "fabric" else x for key, x in options.items()}, **more)

    at_once = train_tiny("at once")
    monkeypatch.setattr("earmark.training.pretraining.readback_of", lambda device: LateNumbers())
    late = train_tiny("late")
    assert_same_end(at_once, late)
    assert lines_of(late) == lines_of(at_once)
    assert names_in(tmp_path / "late") == names_in(tmp_path / "at once")
    for stop in (4, 6, 8):
        train_tiny("parts", max_steps=stop)
    parts = train_tiny("parts")
    assert_same_end(at_once, parts)
    assert lines_of(parts) == lines_of(at_once)


@pytest.mark.parametrize(
    ("step", "newest"),
    [
        (5, "latest_00000004.pt"),  # in the middle
        (6, "latest_00000004.pt"),  # where a checkpoint is due, at an epoch's edge
        (4, "latest_00000002.pt"),  # where one is due
        (12, "latest_00000010.pt"),  # the last
    ],
)
def test_a_loss_that_is_not_finite_names_its_own_batch_and_no_checkpoint_is_of_a_later_step(
    tmp_path: Path, numbers: LateNumbers, step: int, newest: str
) -> None:
    with pytest.raises(NonFiniteError, match=samples_of(step)):
        run(tmp_path, model=NanAtStep(step), save_every_steps=2, retain=99)
    names = [name for name in names_in(tmp_path) if name.startswith("latest")]
    assert names[-1] == newest
    assert [line["step"] for line in lines_in(tmp_path) if line["kind"] == "step"] == list(range(1, step))
    for name in names_in(tmp_path):
        state = load_checkpoint(tmp_path / "checkpoints" / name)
        assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())
    assert run(tmp_path).steps == 12


@pytest.mark.parametrize("step", [3, 6])
def test_neither_a_probe_nor_a_look_at_all_data_comes_before_the_loss_of_the_step_before(
    tmp_path: Path, numbers: LateNumbers, step: int
) -> None:
    class Looking(NanAtStep):
        epochs: list[int]

        def embed(self, *inputs: Tensor) -> dict[str, Tensor]:
            return {}

        def start_epoch(self, epoch: int, embeddings: Any) -> None:
            self.epochs = [*getattr(self, "epochs", []), epoch]

    judged: list[nn.Module] = []
    model = Looking(step)
    with pytest.raises(NonFiniteError, match=samples_of(step)):
        run(tmp_path / "looks", model=model, save_every_epochs=99)
    assert model.epochs == list(range(step // 3))
    with pytest.raises(NonFiniteError, match=samples_of(step)):
        run(
            tmp_path / "judges",
            model=NanAtStep(step),
            evaluate=lambda model: judged.append(model) or {"top1": 1.0},
            evaluate_every=1,
        )
    assert len(judged) == step // 3 - 1


def test_a_signal_stops_the_run_with_all_numbers_written_down(tmp_path: Path, numbers: LateNumbers) -> None:
    def interrupt(drawn: int) -> None:
        if drawn == 4 * 4 + 2:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = run(tmp_path / "parts", clips=TinyClips(on_sample=interrupt))
    assert (stopped.steps, stopped.stopped_by) == (5, signal.SIGTERM)
    assert lines_in(tmp_path / "parts")[-1]["step"] == 5
    assert stopped.last_losses["loss"] == lines_in(tmp_path / "parts")[-1]["loss"]
    whole, resumed = run(tmp_path / "whole"), run(tmp_path / "parts")
    assert_same_end(whole, resumed)
    assert lines_of(resumed) == lines_of(whole)


@pytest.mark.parametrize(("nan_at", "error", "last_line"), [(99, OSError, 4), (4, NonFiniteError, 3)])
def test_what_was_done_before_an_unreadable_sample_is_written_down_and_a_bad_loss_before_it_told(
    tmp_path: Path, numbers: LateNumbers, nan_at: int, error: type[Exception], last_line: int
) -> None:
    def fail(drawn: int) -> None:
        if drawn == 4 * 4 + 2:
            raise OSError("video 3 at 1.5 s: unreadable")

    with pytest.raises(error):
        run(tmp_path, clips=TinyClips(on_sample=fail), model=NanAtStep(nan_at))
    assert lines_in(tmp_path)[-1]["step"] == last_line


def test_the_clock_asks_for_a_checkpoint_a_step_late(
    tmp_path: Path, numbers: LateNumbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock finds ten minutes more: asked for in step 1, and saved once step 2 is queued."""
    minutes = iter(range(0, 100_000, 10))
    monkeypatch.setattr("earmark.training.run_state.time.monotonic", lambda: 60.0 * next(minutes))
    run(tmp_path, save_every_minutes=5, retain=99, save_every_epochs=99)
    assert names_in(tmp_path) == ["checkpoint_0004.pt", *(f"latest_{step:08d}.pt" for step in (2, 4, 6, 8, 10))]


def train_late(launch: Launch, folder: str, options: dict[str, Any]) -> PretrainResult:
    """In every process: numbers are late, and a signal comes to the second one in its third step."""
    from earmark.training import pretraining

    def ask(drawn: int) -> None:
        if options["stop"] and launch.rank == 1 and drawn == 5:
            os.kill(os.getpid(), signal.SIGUSR1)

    pretraining.readback_of = lambda device: LateNumbers()
    return train(launch, folder, "64-true", {"clips": TinyClips(on_sample=ask), "max_steps": 9})


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.slow
def test_processes_with_late_numbers_take_the_steps_of_one_and_stop_after_the_same_step(tmp_path: Path) -> None:
    one = train(processes(1), str(tmp_path / "one"), "64-true", {"max_steps": 9})
    stopped = run_processes(processes(2), train_late, str(tmp_path / "two"), {"stop": True})
    assert (stopped.steps, stopped.stopped_by is not None) == (4, True)  # asked for in step 3, told once 4 was queued
    assert lines_in(tmp_path / "two")[-1]["step"] == 4
    two = run_processes(processes(2), train_late, str(tmp_path / "two"), {"stop": False})
    assert two.steps == 9
    for ours, theirs in zip(end_of(one), end_of(two), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_on_a_gpu_never_makes_the_host_wait(precision: Any, accumulate: int) -> None:
    fabric = Fabric(accelerator="cuda", devices=1, precision=precision)
    fabric.launch()
    model = TinyModel()
    module, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    options = StepOptions(accumulate=accumulate, max_gradient_norm=1.0)
    step = TrainStep(fabric, module, optimizer, options, readback=FromCuda())
    inputs = (*torch.randn(2, 4, 3, 2, 4, 4, device="cuda"), torch.randn(4, 1, 3, 4, device="cuda"))
    index = torch.arange(4, device="cuda")
    found = [step(inputs, index=index, labels={}).read()]
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = [step(inputs, index=index, labels={}, flags=[True, False]) for _ in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found += [each.read() for each in pending]
    assert all(scalars["loss"] > 0 for scalars, _ in found)
    assert found[1][1] == [True, False]
    with torch.no_grad():
        model.audio[2].weight.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        step(inputs, index=index, labels={}).read()
