"""The commands in several processes and under signals: torchrun, nodes, the original's lines, submitit, resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from earmark.cli.config import ConfigError, PretrainConfig, checked, compose
from earmark.cli.hydra_app import submission_overrides
from earmark.cli.launch import processes_of
from earmark.cli.main import main
from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.encoders.published import PUBLISHED
from earmark.kitchen import KitchenSize, make_kitchen
from earmark.training.checkpoint import latest_checkpoint, load_checkpoint
from earmark.training.launch import Launch
from tests.conftest import ROOT
from tests.helpers.command_lines import PUBLISHED_PRETRAINING, PUBLISHED_PROBE, SMALL_ENCODERS, configured

EARMARK = [sys.executable, "-m", "earmark"]
TRAINING = [*SMALL_ENCODERS, "prepare.short_side=64", "prepare.workers=1", "environment.workers=0"]
TRAINING += ["optim.use_lr_scheduler=false", "optim.batch_size=2", "logging.print_freq=1"]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a kitchen of four short videos; the first run makes a store of it beside, for all."""
    out = tmp_path_factory.mktemp("launch") / "kitchen"
    sizes = {"num_kitchens": 2, "videos_per_kitchen": 2, "width": 96, "height": 64, "fps": 8, "sample_rate": 16000}
    return make_kitchen(out, size=KitchenSize(video_seconds=25, **sizes), progress=False).path


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def environment(**variables: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}


def start(*arguments: str, program: list[str] = EARMARK, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*program, *arguments], env=environment(**variables), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: "subprocess.Popen[str]", *, code: int = 0, timeout: float = 400) -> str:
    """Return what a process said on standard error."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == code, out + err
    return err


def final(name: str) -> dict[str, Any]:
    path = latest_checkpoint(Path("earmark_data/outputs") / name / "checkpoints")
    assert path is not None
    return load_checkpoint(path)


def metrics(name: str) -> list[dict[str, Any]]:
    path = Path("earmark_data/outputs") / name / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["kind"] != "device"]


def wait_for_step(name: str, step: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 600
    while not any(line["step"] >= step for line in metrics(name)):
        assert process.poll() is None, "the run ended before that step"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pretrain(kitchen: Path, name: str, *overrides: str) -> list[str]:
    data = [f"data.args.base_path={kitchen}", f"data.store={kitchen.parent / 'store'}"]
    return ["pretrain", *data, *TRAINING, f"logging.name={name}", *overrides]


# --- which processes a configuration asks for ---


@pytest.mark.parametrize(
    ("num_gpus", "overrides", "expected", "said"),
    [
        (0, ["environment.ngpu=4"], Launch("cpu"), "this machine has 0 usable GPUs; one process on the CPU is used"),
        (0, [], Launch("cpu"), ""),
        (1, [], Launch("cuda"), ""),
        (8, ["environment.ngpu=0"], Launch("cpu"), ""),
        (8, ["environment.ngpu=4", "environment.distributed=false"], Launch("cuda"), "distributed=false; 1 of them is"),
        (
            8,
            ["environment.ngpu=4", "environment.accelerator=cpu"],
            Launch("cpu"),
            "accelerator=cpu; one process on the",
        ),
        (1, ["environment.ngpu=4"], Launch("cuda"), "this machine has 1 usable GPU; 1 of them is used"),
    ],
)
def test_gpus_that_are_not_there_cost_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    num_gpus: int,
    overrides: list[str],
    expected: Launch,
    said: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    assert processes_of(configured(*overrides).environment) == expected
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(said)
    assert said in "".join(lines)


def test_as_many_gpus_as_there_are_and_processes_of_the_cpu_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    launch = processes_of(configured("environment.ngpu=4", "environment.multiprocessing_distributed=true").environment)
    assert (launch.accelerator, launch.num_local, launch.local_rank) == ("cuda", 3, None)
    launch = processes_of(configured("environment.force_processes=2").environment)
    assert (launch.accelerator, launch.num_local, launch.local_rank) == ("cpu", 2, None)


def test_slurm_is_asked_through_hydras_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["environment.slurm=true", "environment.ngpu=8", "environment.world_size=2", "logging.name=big"]
    overrides += ["environment.slurm_partition=gpu", "environment.slurm_timeout=90", "environment.nodelist='n[1-2]'"]
    overrides += ["environment.exclude_nodes=n7", "environment.workers=4"]
    values = compose("default_ssrl", overrides)
    checked(PretrainConfig, values)
    monkeypatch.setattr("earmark.cli.hydra_app.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'earmark\[slurm\]'"):
        submission_overrides(values, overrides)
    monkeypatch.setattr("earmark.cli.hydra_app.find_spec", lambda name: name)
    assert submission_overrides(values, ["hydra.launcher.timeout_min=5"]) == [
        "hydra.mode=MULTIRUN",
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.name='big'",
        "hydra.launcher.partition='gpu'",
        "hydra.launcher.nodes=2",
        "hydra.launcher.tasks_per_node=1",
        "hydra.launcher.gpus_per_node=8",
        "hydra.launcher.cpus_per_task=12",
        "hydra.launcher.exclude='n7'",
        "+hydra.launcher.additional_parameters.nodelist='n[1-2]'",
        "hydra.launcher.max_num_timeout=1000",
    ]


# --- real processes ---


@pytest.mark.slow
def test_every_way_to_start_two_processes_gives_the_same_losses(kitchen: Path) -> None:
    """Alone; started here; by torchrun; as two nodes of the original's way; as tasks of srun.

    In float64: batch norm over two samples magnifies the rounding of float32 tenfold in a step.
    """
    training = ["optim.epochs=2", "environment.precision=64-true"]
    finish(start(*pretrain(kitchen, "alone", *training)))
    told = finish(start(*pretrain(kitchen, "here", *training, "environment.force_processes=2")))
    assert told.count("pretraining on") == 1
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "earmark"]
    finish(start(*pretrain(kitchen, "torchrun", *training), program=torchrun))
    # batch_size is a node's, so that two nodes of one sample each have the same global batch
    nodes = ["environment.world_size=2", "environment.dist_url=tcp://127.0.0.1:29713", "optim.batch_size=1"]
    several = [start(*pretrain(kitchen, "nodes", *training, *nodes, f"environment.rank={rank}")) for rank in (0, 1)]
    for process in several:
        finish(process)
    srun = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_ID": "14714"}
    srun["SLURM_STEP_NODELIST"] = "127.0.0.1"
    several = [start(*pretrain(kitchen, "srun", *training), **srun, SLURM_LOCALID=str(task)) for task in (0, 1)]
    for process in several:
        finish(process)
    losses = {
        name: [line["loss"] for line in metrics(name) if line["kind"] == "step"]
        for name in ("alone", "here", "torchrun", "nodes", "srun")
    }
    assert len(losses["alone"]) > 2
    for name in losses:
        assert losses[name] == pytest.approx(losses["alone"], rel=1e-6), name
    assert final("nodes")["arguments"] == final("alone")["arguments"]


@pytest.mark.slow
def test_an_error_in_one_process_is_said_once_and_ends_the_run(kitchen: Path) -> None:
    first = start(*pretrain(kitchen, "a", "optim.epochs=50", "environment.force_processes=2"))
    wait_for_step("a", 1, first)
    second = start(*pretrain(kitchen, "a", "optim.epochs=50", "environment.force_processes=2"))
    told = finish(second, code=1)
    assert "is training in this folder" in told
    assert "Traceback" not in told
    first.send_signal(signal.SIGTERM)
    finish(first, code=75)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "forked_processes")  # in the run that goes on, which is one of `main`
@pytest.mark.parametrize("processes", [[], ["environment.force_processes=2"]], ids=["one", "two"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves_with_a_code_of_its_own_and_the_run_goes_on(
    kitchen: Path, processes: list[str], number: signal.Signals, code: int
) -> None:
    command = pretrain(kitchen, "a", "optim.epochs=400", "environment.workers=1", *processes)
    process = start(*command)
    wait_for_step("a", 2, process)
    process.send_signal(number)
    told = finish(process, code=code)
    assert f"{number.name}: stopped after step " in told
    assert "Traceback" not in told
    step = final("a")["position"]["step"]
    assert step == metrics("a")[-1]["step"]
    assert main([*command, f"optim.max_steps={step + 3}"]) == 0
    assert final("a")["position"]["step"] == step + 3
    steps = [line["step"] for line in metrics("a") if line["kind"] == "step"]
    assert steps == list(range(1, step + 4))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_changed_settings_are_refused_with_the_difference_and_force_takes_them(
    kitchen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(pretrain(kitchen, "a", "optim.epochs=3", "optim.max_steps=2")) == 0
    capsys.readouterr()
    command = pretrain(kitchen, "a", "optim.epochs=3", "optim.args.lr=0.5", "optim.args.momentum=0.5")
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "settings: optim.args.lr (0.005 there, 0.5 here), optim.args.momentum (0.9 there, 0.5 here)" in told
    assert "or go on with --force (or environment.force=true)" in told
    assert main([*command, "--force"]) == 0
    told = capsys.readouterr().err
    assert "goes on although the run was made with other settings: optim.args.lr" in told
    assert final("a")["optimizer"]["param_groups"][0]["lr"] == 0.5
    assert final("a")["optimizer"]["param_groups"][0]["momentum"] == 0.5
    assert {line["lr"] for line in metrics("a") if line["step"] > 2} == {0.5}
    assert "lr: 0.5" in Path("earmark_data/outputs/a/config.yaml").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_schedule_of_probes_keeps_the_best_and_the_list_shows_it(
    kitchen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ["optim.epochs=3", "optim.ema_decay=0.5"]
    assert main(pretrain(kitchen, "whole", *whole, "logging.evaluate_every=1")) == 0
    probes = [line for line in metrics("whole") if line["kind"] == "probe"]
    assert [line["epoch"] for line in probes] == [1, 2, 3]
    scores = [line["verb_top1"] for line in probes]
    best = load_checkpoint("earmark_data/outputs/whole/checkpoints/best.pt")["position"]
    assert (best["best_score"], best["best_epoch"]) == (max(scores), 1 + scores.index(max(scores)))
    assert best["epoch"] == best["best_epoch"]
    capsys.readouterr()
    assert main(["runs", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["state"], run["probe"]) == ("finished", max(scores))
    # probes draw numbers of their own: they change nothing in the training
    assert main(pretrain(kitchen, "plain", *whole)) == 0
    one, other = final("whole"), final("plain")
    for part in ("model", "ema"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part])


@pytest.mark.slow
def test_a_job_of_submitit_is_requeued_by_its_signal_and_sweeps_have_a_folder_each(kitchen: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs earmark[slurm]")
    sweep = ["-m", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]
    command = pretrain(kitchen, "s", "optim.args.lr=0.1,0.2", "optim.epochs=30", "logging.save_freq=1000", *sweep)
    process = start(*command)
    names = [f"s_optim.args.lr={lr}" for lr in (0.1, 0.2)]
    for name in names:
        wait_for_step(name, 2, process)
    pid = int((Path("earmark_data/outputs") / names[0] / ".lock").read_text().split()[1])
    os.kill(pid, signal.SIGUSR2)  # what submitit sends before the time limit
    finish(process)
    for name in names:
        assert final(name)["position"]["epoch"] == 30
        steps = [line["step"] for line in metrics(name) if line["kind"] == "step"]
        assert steps == list(range(1, len(steps) + 1))
    logs = list(Path("earmark_data/outputs").glob("s/.hydra/.submitit/**/*_log.*"))
    assert any("SIGUSR2: stopped after step" in path.read_text() for path in logs)


@pytest.mark.slow
def test_the_originals_lines_run_letter_for_letter_but_for_their_paths(tmp_path: Path) -> None:
    sizes = {"num_kitchens": 2, "videos_per_kitchen": 2, "width": 160, "height": 128, "fps": 8, "sample_rate": 16000}
    epic = make_kitchen(tmp_path / "EPIC", size=KitchenSize(video_seconds=10, **sizes), progress=False).path
    weights = tmp_path / "data" / "weights" / PUBLISHED["avid_r2plus1d_18"].file
    weights.parent.mkdir(parents=True)
    encoders = {"video": R2Plus1D(18), "audio": SpecCNN9()}
    state = {f"module.{k}_model.{n}": x for k, encoder in encoders.items() for n, x in encoder.state_dict().items()}
    torch.save({"model": state}, weights)
    program = [sys.executable, str(ROOT / "main.py")]
    for config_name, line in (("default_ssrl", PUBLISHED_PRETRAINING), ("default_lincls", PUBLISHED_PROBE)):
        words = [word.replace("=EPIC", f"={epic}").replace("=DIR", f"={tmp_path / 'data'}") for word in line.split()]
        told = finish(start(f"--config-name={config_name}", "-m", *words, program=program), timeout=900)
        assert told.count("this machine has") == 1
    assert final_of(tmp_path / "data/outputs/epic_git1")["position"]["epoch"] == 100
    assert json.loads(next((tmp_path / "data/outputs/epic_git1_eval").glob("*/results.json")).read_text())["columns"]


def final_of(folder: Path) -> dict[str, Any]:
    path = latest_checkpoint(folder / "checkpoints")
    assert path is not None
    return load_checkpoint(path)
