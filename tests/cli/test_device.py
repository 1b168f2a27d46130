"""What fits the device stands where the configuration says auto, is said in a line, and is what a checkpoint holds."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from earmark.cli import main as main_module
from earmark.cli.config import PretrainConfig, checked, compose
from earmark.cli.device import chosen_for_device, describe_device, set_algorithms
from earmark.cli.main import main, main_by_config_name
from earmark.cli.method import build_encoders, build_model
from earmark.kitchen import KitchenSize, make_kitchen
from earmark.training.checkpoint import latest_checkpoint, load_checkpoint
from earmark.training.launch import Launch

SMALL = [
    "backbone/video=avid_r2plus1d_10",
    "backbone.video.args.width=4",
    "backbone.audio.args.width=4",
    "data_augm.crop_size=32",
    "data_augm.min_short_side=32",
    "data_augm.max_short_side=40",
]


def configured(*overrides: str) -> tuple[PretrainConfig, dict[str, Any]]:
    values = compose("default_ssrl", [*SMALL, *overrides])
    return checked(PretrainConfig, values), values


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("device") / "kitchen"
    sizes = {"num_kitchens": 2, "videos_per_kitchen": 2, "width": 96, "height": 64, "fps": 8, "sample_rate": 16000}
    return make_kitchen(out, size=KitchenSize(video_seconds=15, **sizes), progress=False).path


@pytest.mark.parametrize(
    ("overrides", "accelerator", "has_bfloat16", "precision", "compiled"),
    [
        ([], "cpu", False, "32-true", False),
        ([], "cuda", True, "bf16-mixed", True),
        ([], "cuda", False, "32-true", True),
        (["environment.precision=32-true"], "cuda", True, "32-true", True),
        (["environment.precision=16-mixed"], "cuda", True, "16-mixed", True),
        (["model.compile=false"], "cuda", True, "bf16-mixed", False),
        (["model.compile=true", "environment.precision=64-true"], "cpu", False, "64-true", True),
    ],
)
def test_auto_is_what_fits_the_device_and_what_is_said_stays(
    overrides: list[str], accelerator: Any, has_bfloat16: bool, precision: str, compiled: bool
) -> None:
    config, values = configured(*overrides)
    chosen = chosen_for_device(config, values, accelerator=accelerator, has_bfloat16=has_bfloat16)
    assert (chosen.environment.precision, chosen.model.compile) == (precision, compiled)
    assert checked(PretrainConfig, values) == chosen  # what a checkpoint holds


@pytest.mark.parametrize(
    ("deterministic", "accelerator", "benchmark"),
    [(False, "cuda", True), (True, "cuda", False), (False, "cpu", False), (True, "cpu", False)],
)
def test_cudnn_tries_its_algorithms_on_a_gpu_that_need_not_repeat(
    deterministic: bool, accelerator: Any, benchmark: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not benchmark)
    monkeypatch.setattr(os, "environ", {})
    try:
        set_algorithms(deterministic=deterministic, accelerator=accelerator)
        assert torch.backends.cudnn.benchmark is benchmark
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if deterministic else None)
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_line_says_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    config, values = configured("environment.workers=3", "model.recompute=true")
    on_cpu = chosen_for_device(config, values, accelerator="cpu", has_bfloat16=False)
    threads = torch.get_num_threads()
    assert describe_device(on_cpu, Launch("cpu"), has_bfloat16=False) == (
        f"computing on the CPU ({threads} thread{'s' * (threads > 1)}), precision 32-true, encoders not compiled, "
        "activations computed again in the backward pass, channels last, 3 workers for loading"
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    config, values = configured("environment.workers=14")
    launch = Launch("cuda", num_local=4, address=("localhost", 1))
    for has_bfloat16, precision in (
        (True, "bf16-mixed"),
        (False, "32-true (no bfloat16 here; environment.precision=16-mixed is faster)"),
    ):
        on_gpu = chosen_for_device(config, dict(values), accelerator="cuda", has_bfloat16=has_bfloat16)
        assert describe_device(on_gpu, launch, has_bfloat16=has_bfloat16) == (
            f"computing on Tesla T4, 4 processes, precision {precision}, encoders compiled, cuDNN benchmark on, "
            "channels last, 14 workers for loading"
        )


def test_recomputing_and_compiling_reach_the_encoders() -> None:
    for compiled, again in ((False, True), (True, False)):
        config, _ = configured(f"model.compile={compiled}", f"model.recompute={again}")
        encoders = build_encoders(config)
        build_model(config, encoders, num_samples=9, num_classes={})
        assert [encoder.recompute for encoder in encoders.values()] == [again] * 2
        assert [encoder._compiled_call_impl is not None for encoder in encoders.values()] == [compiled] * 2


def test_a_run_says_and_stores_what_was_chosen_and_goes_on_in_no_other_precision(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SMALL, f"environment.data_dir={tmp_path}", f"data.args.base_path={kitchen}", "prepare.short_side=64"]
    arguments += ["prepare.workers=1", "environment.workers=0", "optim.batch_size=2", "optim.use_lr_scheduler=false"]
    arguments += ["logging.name=here", "optim.epochs=1", "optim.max_steps=1", "environment.accelerator=cpu"]
    assert main(["pretrain", *arguments]) == 0
    assert "computing on the CPU (" in capsys.readouterr().err
    path = latest_checkpoint(tmp_path / "outputs/here/checkpoints")
    assert path is not None
    config = load_checkpoint(path)["config"]
    assert (config["environment"]["precision"], config["model"]["compile"]) == ("32-true", False)
    assert main(["pretrain", *arguments, "model.recompute=true", "optim.max_steps=2"]) == 0  # the same numbers

    assert main(["pretrain", *arguments, "environment.precision=64-true", "optim.max_steps=3"]) == 1
    assert "environment.precision (32-true there, 64-true here)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config-name=default_ssrl", "-m", "optim.epochs=3"], ["pretrain", "environment.precision=32-true"]),
        (["--config-name=default_ssrl", "environment.precision=bf16-mixed"], ["pretrain"]),
        (["--config-name=default_ssrl", "++environment.precision=auto"], ["pretrain"]),
        (["--config-name=default_ssrl", "environment=mine"], ["pretrain"]),
        (["--config-name=default_lincls"], ["evaluate"]),
    ],
)
def test_the_published_command_line_is_in_float32_unless_it_says_otherwise(
    arguments: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(main_module, "main", lambda line: called.append(line) or 0)
    assert main_by_config_name(arguments) == 0
    assert called == [[*expected, *arguments]]


@pytest.mark.gpu
def test_a_run_on_a_gpu_chooses_what_is_fast_there(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SMALL, f"environment.data_dir={tmp_path}", f"data.args.base_path={kitchen}", "prepare.short_side=64"]
    arguments += ["prepare.workers=1", "environment.workers=0", "optim.batch_size=2", "optim.use_lr_scheduler=false"]
    assert main(["pretrain", *arguments, "optim.epochs=1", "optim.max_steps=3", "logging.name=gpu"]) == 0
    said = capsys.readouterr().err
    assert f"computing on {torch.cuda.get_device_name()}" in said
    assert "encoders compiled, cuDNN benchmark on" in said
    for kind in ("video", "audio"):
        assert f"compiling the {kind} encoder" in said
        assert f"compiled the {kind} encoder in " in said
    if torch.cuda.is_bf16_supported(including_emulation=False):
        assert "precision bf16-mixed" in said
    assert torch.backends.cudnn.benchmark
