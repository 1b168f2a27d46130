"""The loop: exact resume, checkpoints in time, records without gaps, and clean ends of bad runs.

A tiny model and data set stand in for the real ones. The model has batch norm (buffers) and dropout (the global
generator), so that nothing that a resume must put back is missing.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn

from earmark.training.checkpoint import CheckpointError, load_checkpoint
from earmark.training.optim import multi_step, one_cycle, sgd
from earmark.training.pretraining import PretrainResult
from earmark.training.step import NonFiniteError
from tests.helpers.tiny_run import (
    NUM_CLIPS,
    NanAtStep,
    TinyAudioTransform,
    TinyClips,
    TinyModel,
    TinyVideoTransform,
    assert_equal,
    assert_same_end,
    collate,
    lines_of,
    plain_model,
    run,
    run_script,
    seed_all,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> PretrainResult:
    return run(tmp_path_factory.mktemp("uninterrupted"))


def test_a_run_does_the_steps_of_its_epochs_and_learns(uninterrupted: PretrainResult) -> None:
    assert (uninterrupted.steps, uninterrupted.epochs, uninterrupted.stopped_by) == (12, 4, None)
    assert uninterrupted.checkpoint_path is not None
    assert uninterrupted.checkpoint_path.name == "checkpoint_0004.pt"
    epochs = [line for line in lines_of(uninterrupted) if line["kind"] == "epoch"]
    assert epochs[-1]["loss"] < 0.5 * epochs[0]["loss"]


def test_the_loop_equals_a_plain_one_written_out(uninterrupted: PretrainResult) -> None:
    """The same run without Fabric, loader, checkpoints: order, seeds, schedule and updates as they are defined."""
    from earmark.clips.sampling import epoch_order, sample_seed

    model, losses = TinyModel(), []
    optimizer = sgd(model.parameters(), lr=0.05)
    scheduler = one_cycle(optimizer, max_lr=0.05, total_steps=6)
    seed_all(7)
    for epoch in range(4):
        for start in (0, 4, 8):
            indices = epoch_order(NUM_CLIPS, seed=5, epoch=epoch)[start : start + 4].tolist()
            batch = collate([TinyClips()[index, sample_seed(5, epoch, index)] for index in indices])
            crop, size = TinyVideoTransform(), batch["video_size"]
            before = crop(batch["video_before"], batch["seed"], size, stream=0)
            after = crop(batch["video_after"], batch["seed"], size, stream=1)
            loss = model(before, after, TinyAudioTransform()(batch["audio"]), index=batch["index"], labels={})["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        scheduler.step()
    steps = [line for line in lines_of(uninterrupted) if line["kind"] == "step"]
    assert [line["loss"] for line in steps] == losses
    assert_equal(load_checkpoint(uninterrupted.checkpoint_path)["model"], model.state_dict(), "model")


@pytest.mark.parametrize("stop", [1, 3, 5, 6, 11])
def test_a_run_stopped_anywhere_and_resumed_equals_the_uninterrupted_one(
    tmp_path: Path, uninterrupted: PretrainResult, stop: int
) -> None:
    """Stops in mid-epoch, at an epoch's edge without (3) and with (6) a checkpoint of its own, and before the end."""
    stopped = run(tmp_path, max_steps=stop)
    assert (stopped.steps, stopped.epochs) == (stop, stop // 3)
    resumed = run(tmp_path)
    assert_same_end(uninterrupted, resumed)
    assert lines_of(resumed) == lines_of(uninterrupted)


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 2), (2, 0)])
def test_a_run_resumed_with_workers_equals_the_one_without(
    tmp_path: Path, uninterrupted: PretrainResult, before: int, after: int
) -> None:
    run(tmp_path, max_steps=4, num_workers=before)
    resumed = run(tmp_path, num_workers=after, config={"optim": {"lr": 0.05}, "environment": {"workers": after}})
    assert_same_end(uninterrupted, resumed)
    assert lines_of(resumed) == lines_of(uninterrupted)


@pytest.mark.parametrize("schedule", ["multi_step", "none"])
def test_resume_is_exact_with_other_schedules(tmp_path: Path, schedule: str) -> None:
    whole = run(tmp_path / "whole", schedule=schedule)
    run(tmp_path / "parts", schedule=schedule, max_steps=3)
    run(tmp_path / "parts", schedule=schedule, max_steps=7)
    assert_same_end(whole, run(tmp_path / "parts", schedule=schedule))


def test_resume_is_exact_with_a_gradient_scaler(tmp_path: Path) -> None:
    """Float16: a scaler that doubles every 5 steps, so that its scale and its count both matter."""

    def fabric() -> Fabric:
        scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=5)
        return Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    whole = run(tmp_path / "whole", fabric=fabric())
    run(tmp_path / "parts", fabric=fabric(), max_steps=7)
    assert_same_end(whole, run(tmp_path / "parts", fabric=fabric()))
    assert load_checkpoint(whole.checkpoint_path)["scaler"]["scale"] == 64


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    """Its schedule goes on as if the run had been that long from the start."""
    whole = run(tmp_path / "whole", epochs=6)
    run(tmp_path / "parts", epochs=4)
    assert_same_end(whole, run(tmp_path / "parts", epochs=6))


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    first = run(tmp_path)
    before = first.metrics_path.read_bytes()
    assert run(tmp_path, clips=TinyClips(on_sample=pytest.fail)) == first
    assert first.metrics_path.read_bytes() == before


def test_a_run_killed_in_mid_epoch_and_started_again_equals_the_uninterrupted_one(
    tmp_path: Path, uninterrupted: PretrainResult
) -> None:
    """SIGKILL in the 8th step, when step 6 was saved last and steps 7 and 8 must be done and logged again."""
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.helpers.tiny_run import TinyClips, run\n"
        "kill = lambda drawn: drawn == 4 * 7 + 2 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "run(Path(sys.argv[1]), clips=TinyClips(on_sample=kill), save_every_steps=2)\n"
    )
    child = run_script(script, tmp_path)
    assert child.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 7
    resumed = run(tmp_path)
    assert_same_end(uninterrupted, resumed)
    assert lines_of(resumed) == lines_of(uninterrupted)


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_one_and_can_be_resumed_by_one(tmp_path: Path) -> None:
    """Without batch norm and dropout, whose draws are a rank's own, the number of ranks is a matter of rounding."""
    script = (
        "import sys; from pathlib import Path\n"
        "from lightning_fabric import Fabric\n"
        "from tests.helpers.tiny_run import plain_model, run\n"
        "fabric = Fabric(accelerator='cpu', devices=2, strategy='ddp'); fabric.launch()\n"
        "run(Path(sys.argv[1]), model=plain_model(), fabric=fabric, max_steps=7)\n"
    )
    (tmp_path / "script.py").write_text(script)
    source = Path(sys.modules["earmark"].__file__ or "").parents[1]
    path = os.pathsep.join([str(source), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "script.py", "two"], cwd=tmp_path, env=environment, check=True, timeout=600)
    two = run(tmp_path / "two", model=plain_model())
    one = run(tmp_path / "one", model=plain_model())
    losses = [[line["loss"] for line in lines_of(result)] for result in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    weights = [load_checkpoint(result.checkpoint_path)["model"] for result in (one, two)]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)


class _LabelledClips(TinyClips):
    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return {**super().__getitem__(key), "label_verb": np.int64(10 * key[0])}


class _MeansOfEpoch(TinyModel):
    """A model that pulls its loss towards what it saw of all data at the start of the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean_of_item", torch.zeros(NUM_CLIPS))
        self.calls: list[tuple[int, list[int]]] = []

    def embed(self, video_before: Tensor, video_after: Tensor, audio: Tensor) -> dict[str, Tensor]:
        assert not self.training
        assert not torch.is_grad_enabled()
        return {"video": self.video(video_before) - self.video(video_after), "audio": self.audio(audio)}

    def start_epoch(self, epoch: int, embeddings: Any) -> None:
        seen = []
        for index, embedded in embeddings():
            seen += index.tolist()
            self.mean_of_item[index] = embedded["video"].mean(dim=1) + embedded["audio"].mean(dim=1)
        self.calls.append((epoch, seen))
        assert self.training

    def forward(self, *inputs: Tensor, index: Tensor, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        assert labels["verb"].tolist() == [10 * number for number in index.tolist()]
        output = super().forward(*inputs, index=index, labels=labels)
        return {**output, "loss": output["loss"] * (1 + self.mean_of_item[index].square().mean())}


def test_a_model_sees_all_data_before_each_epoch_and_a_resume_is_exact(tmp_path: Path) -> None:
    models = [_MeansOfEpoch() for _ in range(3)]
    whole = run(tmp_path / "whole", model=models[0], clips=_LabelledClips())
    assert models[0].calls == [(epoch, list(range(NUM_CLIPS))) for epoch in range(4)]
    run(tmp_path / "parts", model=models[1], clips=_LabelledClips(), max_steps=4)
    assert [epoch for epoch, _ in models[1].calls] == [0, 1]
    assert_same_end(whole, run(tmp_path / "parts", model=models[2], clips=_LabelledClips()))
    assert [epoch for epoch, _ in models[2].calls] == [2, 3]


def test_metrics_have_every_step_and_epoch_once_with_means_that_add_up(uninterrupted: PretrainResult) -> None:
    lines = lines_of(uninterrupted)
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [(line["step"], line["epoch"]) for line in steps] == [(step, (step + 2) // 3) for step in range(1, 13)]
    assert [(line["step"], line["epoch"]) for line in epochs] == [(3, 1), (6, 2), (9, 3), (12, 4)]
    for line in epochs:
        of_epoch = [step for step in steps if step["epoch"] == line["epoch"]]
        for name in ("loss", "contrastive_loss", "state_change_loss"):
            assert line[name] == pytest.approx(np.mean([step[name] for step in of_epoch]), rel=1e-12)
        assert {step["lr"] for step in of_epoch} == {line["lr"]}
    device, *raw = [json.loads(line) for line in uninterrupted.metrics_path.read_text().splitlines()]
    assert all(line["samples_per_second"] > 0 for line in raw)
    assert all(0 < line["data_wait_share"] < 1 for line in raw)
    assert all(0 < line["device_busy_share"] < 1 - line["data_wait_share"] for line in raw if line["kind"] == "step")
    assert {name: device[name] for name in ("kind", "step", "epoch")} == {"kind": "device", "step": 0, "epoch": 1}
    for line in raw:
        per_second = line["samples_per_second"] * device["gflops_per_sample"] / 1e3
        assert line["tflops_per_second"] == pytest.approx(per_second)
        assert line["peak_share"] == pytest.approx(per_second / device["peak_tflops_per_second_float32"])
    assert all(line["seconds"] > 0 for line in raw if line["kind"] == "epoch")


def test_a_step_asks_its_device_for_numbers_once_and_no_time_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU still works on the backward pass when a step returns: the next one must neither wait nor forget it."""
    asked: list[Tensor] = []
    monkeypatch.setattr("earmark.training.step._sum_over_ranks", lambda fabric, values: asked.append(values) or values)
    clock = iter(range(1_000_000))
    monkeypatch.setattr("earmark.training.loop.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    result = run(tmp_path)
    assert [values.shape for values in asked] == [(3,)] * result.steps
    epochs = [json.loads(line) for line in result.metrics_path.read_text().splitlines() if '"epoch", "step"' in line]
    assert sum(epoch["seconds"] for epoch in epochs) == next(clock) - 1


def test_a_line_cut_short_and_lines_of_lost_steps_are_gone_after_a_resume(
    tmp_path: Path, uninterrupted: PretrainResult
) -> None:
    stopped = run(tmp_path, max_steps=5)
    with stopped.metrics_path.open("a") as file:
        file.write('{"kind": "step", "step": 6, "epoch": 2, "loss": 9}\n{"kind": "step", "step": 7, "ep')
    assert lines_of(run(tmp_path)) == lines_of(uninterrupted)


def test_checkpoints_come_by_epochs_and_by_steps_and_only_the_newest_of_these_stay(tmp_path: Path) -> None:
    run(tmp_path, save_every_steps=2, retain=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "checkpoint_0002.pt",
        "checkpoint_0004.pt",
        "latest_00000008.pt",
        "latest_00000010.pt",
    ]


def test_checkpoints_come_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes ten minutes forward at every look: every step is due at 5 minutes, none at 1000."""
    minutes = iter(range(0, 100_000, 10))
    monkeypatch.setattr("earmark.training.run_state.time.monotonic", lambda: 60.0 * next(minutes))
    run(tmp_path / "often", save_every_minutes=5, retain=99)
    assert len(list((tmp_path / "often" / "checkpoints").glob("latest_*.pt"))) == 12 - 2
    run(tmp_path / "never", save_every_minutes=1000)
    assert not list((tmp_path / "never" / "checkpoints").glob("latest_*.pt"))


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    tmp_path: Path, uninterrupted: PretrainResult, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = run(tmp_path, save_every_steps=2, max_steps=5)
    assert stopped.checkpoint_path is not None
    stopped.checkpoint_path.write_bytes(stopped.checkpoint_path.read_bytes()[:-100])
    resumed = run(tmp_path)
    assert "latest_00000005.pt: damaged" in caplog.text
    assert_same_end(uninterrupted, resumed)
    assert lines_of(resumed) == lines_of(uninterrupted)


def test_ctrl_c_ends_the_step_saves_and_leaves_and_the_run_can_go_on(
    tmp_path: Path, uninterrupted: PretrainResult
) -> None:
    def interrupt(drawn: int) -> None:
        if drawn == 4 * 4 + 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    stopped = run(tmp_path, clips=TinyClips(on_sample=interrupt))
    assert signal.getsignal(signal.SIGINT) is before
    assert (stopped.steps, stopped.stopped_by) == (5, signal.SIGINT)
    assert stopped.checkpoint_path == tmp_path / "checkpoints" / "latest_00000005.pt"
    assert_same_end(uninterrupted, run(tmp_path))


def test_a_second_ctrl_c_breaks_off_at_once(tmp_path: Path) -> None:
    def interrupt(drawn: int) -> None:
        if drawn in (4 * 4 + 2, 4 * 4 + 3):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.6)  # one that comes at once would be the first, passed on by a launcher

    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background of a shell
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, clips=TinyClips(on_sample=interrupt))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_works_outside_the_main_thread(tmp_path: Path, uninterrupted: PretrainResult) -> None:
    results: list[PretrainResult] = []
    thread = threading.Thread(target=lambda: results.append(run(tmp_path)))
    thread.start()
    thread.join()
    assert_same_end(uninterrupted, results[0])


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(tmp_path: Path) -> None:
    from earmark.clips.sampling import epoch_order

    indices = epoch_order(NUM_CLIPS, seed=5, epoch=1)[4:8].tolist()  # step 5 is the second of epoch 1
    with pytest.raises(NonFiniteError, match=rf"the loss is nan on the batch of indices \[{str(indices)[1:-1]}\]"):
        run(tmp_path, model=NanAtStep(5), save_every_steps=2)
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == "latest_00000004.pt"
    state = load_checkpoint(tmp_path / "checkpoints" / "latest_00000004.pt")
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"audio\.2\.weight is not finite after step 4"):
        run(tmp_path, model=NanAtStep(4, gradient_only=True), save_every_steps=2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["latest_00000002.pt"]


def test_a_diagnostic_that_is_not_a_number_is_written_as_null(tmp_path: Path) -> None:
    class Model(TinyModel):
        def forward(self, *inputs: Tensor, **samples: Any) -> dict[str, Tensor]:
            return {**super().forward(*inputs, **samples), "negative_similarity": torch.tensor(torch.nan)}

    result = run(tmp_path, model=Model(), max_steps=3)
    assert [line["negative_similarity"] for line in lines_of(result)] == [None] * 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fingerprint": "xyz"}, "made with other data (fingerprint abc there, xyz here)"),
        ({"seed": 6}, "other settings: seed (5 there, 6 here)"),
        ({"batch_size": 7, "shared_crop": True}, "batch_size (4 there, 7 here), shared_crop (False there, True here)"),
        ({"config": {"optim": {"lr": 0.1}}}, "other settings: optim.lr (0.05 there, 0.1 here);"),
        ({"config": {"data": "x", "optim": {}}}, "data (missing there, x here), optim.lr (0.05 there, missing here)"),
        ({"schedule": "none"}, "can't be resumed with a schedule"),
        ({"model": nn.Linear(1, 1)}, "does not fit this model"),
    ],
)
def test_a_run_is_not_resumed_with_other_data_settings_or_model(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    stopped = run(tmp_path, max_steps=1)
    with pytest.raises(CheckpointError) as caught:
        run(tmp_path, **options)
    assert str(caught.value).startswith(f"{stopped.checkpoint_path}: ")
    assert reason in str(caught.value)


def test_settings_named_changeable_may_differ(tmp_path: Path, uninterrupted: PretrainResult) -> None:
    run(tmp_path, max_steps=1, config={"optim": {"lr": 0.1, "name": "sgd"}})
    run(tmp_path, max_steps=2, config={"optim": {"lr": 0.2, "name": "sgd"}}, changeable=["optim.lr"])
    with pytest.raises(CheckpointError, match=r"settings: optim\.name"):
        run(tmp_path, config={"optim": {"lr": 0.2, "name": "adam"}}, changeable=["optim.lr", "optim.na"])


def test_without_resume_a_folder_with_checkpoints_is_refused(tmp_path: Path) -> None:
    run(tmp_path, max_steps=1, resume=False)
    with pytest.raises(FileExistsError, match="holds checkpoints of a run"):
        run(tmp_path, resume=False)


def test_what_can_not_work_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="total_steps=6, but the run has 7 epochs"):
        run(tmp_path, epochs=7)
    with pytest.raises(ValueError, match="config must be plain data"):
        run(tmp_path, config={"path": tmp_path})
    assert not list(tmp_path.iterdir())


def _judge(model: nn.Module) -> dict[str, float]:
    return {"score": 0.0}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"epochs": 0, "batch_size": 0}, "epochs must be at least 1, got 0; batch_size must be at least 1, got 0"),
        ({"log_every": 0}, "every_steps must be at least 1"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"save_every_epochs": 0}, "every_epochs must be at least 1"),
        ({"save_every_steps": 0}, "every_steps must be at least 1"),
        ({"retain": 0}, "retain must be at least 1"),
        ({"num_workers": -1}, "num_workers must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm must be above 0"),
        ({"save_every_minutes": float("nan")}, "every_minutes must be above 0"),
        ({"ema_decay": 1.0}, "ema_decay must be at least 0 and below 1"),
        ({"evaluate": _judge, "evaluate_every": 0}, "every_epochs must be at least 1"),
        ({"force": True, "resume": False}, "force goes on with a run, which resume=False refuses"),
        ({"optimizer": sgd(TinyModel().parameters(), lr=0.1)}, "updates 8 parameters that the model does not have"),
        ({"scheduler": multi_step(sgd(TinyModel().parameters(), lr=0.1), milestones=[1])}, "of another optimizer"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_arguments_that_would_do_nothing_or_fail_later_are_refused(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        run(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("batch_size", "note"),
    [
        (4, "note: 14 clips are 3 batches of 4: each epoch leaves out 2, others each time"),
        (9, "note: 14 clips are 1 batch of 9: each epoch leaves out 5, others each time"),
        (7, None),
        (14, None),
        (16, "note: 14 clips, fewer than a batch of 16: each batch is of 14, all there are"),
    ],
)
def test_batches_that_are_smaller_and_clips_that_are_left_out_are_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], batch_size: int, note: str | None
) -> None:
    run(tmp_path, progress=True, batch_size=batch_size)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert notes == ([] if note is None else [note])


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bfloat16_on_the_cpu_is_refused(tmp_path: Path, precision: str) -> None:
    with pytest.raises(ValueError, match=f"can't train in {precision} on the CPU"):
        run(tmp_path, fabric=Fabric(accelerator="cpu", devices=1, precision=precision))


@pytest.mark.parametrize("shared_crop", [False, True])
def test_both_clips_are_cropped_alike_only_when_asked(tmp_path: Path, shared_crop: bool) -> None:
    streams: list[int] = []

    class Transform(TinyVideoTransform):
        def forward(self, video: Tensor, seed: Tensor, video_size: Tensor, *, stream: int) -> Tensor:
            streams.append(stream)
            return super().forward(video, seed, video_size, stream=stream)

    run(tmp_path, video_transform=Transform(), shared_crop=shared_crop, max_steps=2)
    assert streams == ([0, 0] if shared_crop else [0, 1]) * 2


def test_tensorboard_has_the_numbers_of_the_metrics_and_no_step_twice_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, tensorboard=True, max_steps=5)
    result = run(tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    lines = lines_of(result)
    for kind, prefix in (("step", ""), ("epoch", "epoch/")):
        of_kind = [line for line in lines if line["kind"] == kind]
        for name in ("loss", "contrastive_loss", "lr"):
            scalars = events.Scalars(prefix + name)
            assert [event.step for event in scalars] == [line["step"] for line in of_kind]
            assert [event.value for event in scalars] == pytest.approx([line[name] for line in of_kind])


def test_progress_is_plain_lines_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path, progress=True)
    note, first, last = capsys.readouterr().err.splitlines()
    assert note == "note: 14 clips are 3 batches of 4: each epoch leaves out 2, others each time"
    assert first.startswith("epoch 1/4  step 1/12  ")
    assert last.startswith("epoch 4/4  step 12/12  0:00:00 left  ")
    assert " samples/s  data wait " in last
    assert f"loss {result.last_losses['loss']:.4g}  contrastive loss " in last


def test_progress_is_a_live_line_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    run(tmp_path, progress=True)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).splitlines()
    assert shown[-3].endswith("epoch 4/4  step 12/12")
    assert re.fullmatch(r"[\d.]+ samples/s  data wait \d+%  busy \d+%  [\d.e-]+ TFLOP/s \(\d+% of peak\)", shown[-2])
    assert shown[-1].startswith("loss 0.")
    assert "state change loss" in shown[-1]
    assert max(map(len, shown)) <= 80
