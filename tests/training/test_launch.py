"""Several real processes over gloo: who starts them, that they learn what one would, and what becomes of failures."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from earmark.training.checkpoint import load_checkpoint
from earmark.training.launch import Launch, LaunchError, ProcessError, join_processes, plan_launch, run_processes
from earmark.training.pretraining import PretrainResult
from earmark.training.processes import OtherProcessError, connection_lost, gather_objects, on_first_rank
from tests.helpers.rank_runs import end_of, processes, train
from tests.helpers.tiny_run import NUM_CLIPS, TinyClips, TinyClipsOfVideos, TinyModel, assert_same_end

# That the others end because of the one that died, and not when the group's own timeout (30 minutes) has passed.
WITHOUT_TIMEOUT = 600

TORCHRUN = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1"}
TORCHRUN |= {"MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_NODEID": "1", "SLURM_LOCALID": "0"}
SRUN |= {"SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "123456"}


# --- which processes there are ---


def test_one_process_needs_no_address() -> None:
    assert processes(1) == Launch("cpu")


def test_several_processes_of_one_node_are_to_be_started_here() -> None:
    launch = plan_launch({}, accelerator="cuda", num_local=4)
    assert (launch.world_size, launch.local_rank, launch.rank) == (4, None, 0)
    assert launch.address is not None
    assert launch.address[0] == "127.0.0.1"


def test_what_torchrun_started_is_taken_as_it_is() -> None:
    launch = plan_launch(TORCHRUN, accelerator="cpu", num_local=7, num_nodes=1)
    assert launch == Launch("cpu", 2, 2, 1, 1, ("node0", 29500))
    assert (launch.rank, launch.world_size) == (3, 4)
    with pytest.raises(LaunchError, match="WORLD_SIZE is set, as by torchrun, but LOCAL_WORLD_SIZE is not"):
        plan_launch({"WORLD_SIZE": "2"}, accelerator="cpu", num_local=1)
    assert plan_launch({**TORCHRUN, "WORLD_SIZE": "1"}, accelerator="cpu", num_local=1) == Launch("cpu")


def test_tasks_of_srun_are_the_processes_and_a_single_one_a_node_starts_its_own() -> None:
    assert plan_launch(SRUN, accelerator="cuda", num_local=2) == Launch("cuda", 2, 2, 1, 0, ("gpu07", 18456))
    alone = {**SRUN, "SLURM_STEP_NUM_TASKS": "2"}
    assert plan_launch(alone, accelerator="cuda", num_local=8) == Launch("cuda", 8, 2, 1, None, ("gpu07", 18456))
    assert plan_launch(alone, accelerator="cpu", num_local=1) == Launch("cpu", 1, 2, 1, 0, ("gpu07", 18456))
    in_batch_script = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}  # where nothing else was started
    assert plan_launch(in_batch_script, accelerator="cpu", num_local=1) == Launch("cpu")
    with pytest.raises(LaunchError, match="3 tasks on 2 nodes"):
        plan_launch({**SRUN, "SLURM_STEP_NUM_TASKS": "3"}, accelerator="cpu", num_local=1)


def test_nodes_that_are_told_their_rank_need_the_address_of_the_first() -> None:
    nodes: dict[str, Any] = {"accelerator": "cuda", "num_local": 4, "num_nodes": 2, "node_rank": 1}
    assert plan_launch({}, **nodes, url="tcp://first:2345") == Launch("cuda", 4, 2, 1, None, ("first", 2345))
    for url in (None, "env://", "tcp://first"):
        with pytest.raises(LaunchError, match="2 nodes need tcp://HOST:PORT"):
            plan_launch({}, **nodes, url=url)
    with pytest.raises(LaunchError, match="node_rank 1 is out of range for 1 node,"):
        plan_launch({}, accelerator="cpu", num_local=1, node_rank=1)


# --- that they learn what one would ---


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.parametrize(
    ("num_processes", "precision"),
    [
        pytest.param(2, "64-true"),
        pytest.param(4, "64-true", marks=pytest.mark.slow),
        pytest.param(2, "32-true", marks=pytest.mark.slow),
        pytest.param(4, "32-true", marks=pytest.mark.slow),
    ],
)
def test_n_processes_take_the_twenty_steps_of_one(tmp_path: Path, num_processes: int, precision: str) -> None:
    """Losses (mean over processes), sums of gradients and weights; the bound for float32 is that of its rounding."""
    one = end_of(train(processes(1), str(tmp_path / "one"), precision, {}))
    several = end_of(run_processes(processes(num_processes), train, str(tmp_path / "n"), precision, {}))
    close = {"rtol": 1e-9, "atol": 1e-11} if precision == "64-true" else {"rtol": 1e-3, "atol": 1e-4}
    # the numbers that are logged are float32 in any case
    torch.testing.assert_close(several[0], one[0], rtol=1e-6 if precision == "64-true" else 1e-3, atol=1e-6)
    torch.testing.assert_close(several[1], one[1], **close)
    torch.testing.assert_close(several[2], one[2], **close)


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.slow
def test_n_processes_make_batches_of_the_same_videos_at_the_same_rates(tmp_path: Path) -> None:
    """Moments that are drawn together, batches of two videos, a rate for each step; resumed by one process."""
    options = {"clips": TinyClipsOfVideos(), "videos_per_batch": 2, "schedule": "cosine", "epochs": 4, "max_steps": 12}
    whole = train(processes(1), str(tmp_path / "whole"), "64-true", dict(options))
    run_processes(processes(2), train, str(tmp_path / "both"), "64-true", options | {"max_steps": 7})
    both = train(processes(1), str(tmp_path / "both"), "64-true", dict(options))
    for found, expected in zip(end_of(both), end_of(whole), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes_and_the_same_batches(tmp_path: Path) -> None:
    folder = str(tmp_path / "both")
    whole = train(processes(1), str(tmp_path / "whole"), "64-true", {})
    run_processes(processes(2), train, folder, "64-true", {"max_steps": 8})
    train(processes(1), folder, "64-true", {"max_steps": 13})
    both = run_processes(processes(4), train, folder, "64-true", {})
    for found, expected in zip(end_of(both), end_of(whole), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.slow
def test_two_processes_resume_bit_for_bit_each_with_its_own_random_state(tmp_path: Path) -> None:
    """The model has dropout, which each process draws for itself."""
    options = {"model": TinyModel, "max_steps": 9}
    whole = run_processes(processes(2), train_seeded, str(tmp_path / "whole"), options)
    run_processes(processes(2), train_seeded, str(tmp_path / "parts"), options | {"max_steps": 4})
    assert_same_end(whole, run_processes(processes(2), train_seeded, str(tmp_path / "parts"), options))


def train_seeded(launch: Launch, folder: str, options: dict[str, Any]) -> PretrainResult:
    class Seeded(TinyModel):
        def __init__(self) -> None:
            super().__init__()
            self.drawn = False

        def forward(self, *inputs: Tensor, **samples: Any) -> dict[str, Tensor]:
            if not self.drawn and not resumed:
                torch.manual_seed(launch.rank)
            self.drawn = True
            return super().forward(*inputs, **samples)

    resumed = (Path(folder) / "checkpoints").exists()
    return train(launch, folder, "32-true", options | {"model": Seeded})


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.slow
def test_without_shared_statistics_two_processes_are_not_one(tmp_path: Path) -> None:
    """What the test above would miss if batch norm were not there."""
    one = end_of(train(processes(1), str(tmp_path / "one"), "64-true", {}))
    two = end_of(run_processes(processes(2), train, str(tmp_path / "two"), "64-true", {"sync_batch_norm": False}))
    assert (two[0] - one[0]).abs().max() > 1e-3


# --- what becomes of failures ---


def fail_somehow(launch: Launch, how: str) -> str:
    fabric = join_processes(launch)
    if launch.rank == 1:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exit":
            raise SystemExit(9)
        if how == "raise unseen":  # whoever starts the processes is stopped until both are gone, as on a busy machine
            subprocess.Popen(["sh", "-c", f"sleep 3; kill -CONT {os.getppid()}"])
            os.kill(os.getppid(), signal.SIGSTOP)
        if how.startswith("raise"):
            raise ZeroDivisionError("of process 1")
    try:
        fabric.barrier()
    except RuntimeError as error:
        raise SystemExit(3 if connection_lost(error) else 4) from error
    return f"{how} {launch.world_size}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("kill", "process 1 of 2 was ended by SIGKILL"),
        ("exit", "process 1 of 2 failed .exit code 9."),
    ],
)
def test_a_process_that_dies_takes_the_others_down(how: str, reason: str) -> None:
    started = time.monotonic()
    with pytest.raises(ProcessError, match=reason):
        run_processes(processes(2), fail_somehow, how)
    assert time.monotonic() - started < WITHOUT_TIMEOUT


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raise", "raise unseen"])
def test_the_traceback_of_the_process_that_failed_is_shown(how: str) -> None:
    with pytest.raises(ProcessError, match=r"(?s)process 1 of 2 raised.*Traceback.*ZeroDivisionError: of process 1"):
        run_processes(processes(2), fail_somehow, how)
    assert run_processes(processes(2), fail_somehow, "not") == "not 2"


def kill_in_step(launch: Launch, folder: str) -> PretrainResult:
    def mischief(drawn: int) -> None:
        if launch.rank == 1 and drawn == 2 * 4 + 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return train(launch, folder, "32-true", {"clips": TinyClips(on_sample=mischief), "save_every_steps": 1})


@pytest.mark.slow
def test_a_process_killed_in_a_step_ends_the_run_and_it_can_go_on(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ProcessError, match="process 1 of 2 was ended by SIGKILL"):
        run_processes(processes(2), kill_in_step, str(tmp_path))
    assert time.monotonic() - started < WITHOUT_TIMEOUT
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 4
    assert train(processes(1), str(tmp_path), "32-true", {}).steps == 20


class FewClips(TinyClips):
    def __init__(self, num_clips: int) -> None:
        super().__init__()
        self.num_clips = num_clips

    def __len__(self) -> int:
        return self.num_clips


def refused(launch: Launch, folder: str, num_clips: int) -> list[str]:
    """Return what each process was told; one that waited for the others would never be asked."""
    with pytest.raises(ValueError, match="shared out") as told:
        train(launch, folder, "32-true", {"clips": FewClips(num_clips)})
    return gather_objects(str(told.value))


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.parametrize(
    ("num_clips", "num_processes"),
    [
        (3, 2),
        pytest.param(NUM_CLIPS, 3, marks=pytest.mark.slow),
        pytest.param(3, 4, marks=pytest.mark.slow),
    ],
)
def test_a_batch_that_can_not_be_shared_out_is_refused_by_every_process_before_any_waits(
    tmp_path: Path, num_clips: int, num_processes: int
) -> None:
    told = run_processes(processes(num_processes), refused, str(tmp_path), num_clips)
    assert len(told) == num_processes
    assert all(f"can't be shared out equally among {num_processes} ranks" in text for text in told)


def uneven(launch: Launch) -> tuple[Any, ...]:
    join_processes(launch)
    shards = gather_objects(list(range(launch.rank)))  # the first has nothing
    told = on_first_rank(lambda: "from the first")
    try:
        on_first_rank(lambda: 1 // 0)
    except ZeroDivisionError:
        error = "own"
    except OtherProcessError as other:
        error = str(other)
    return shards, told, gather_objects(error)


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.slow
def test_processes_agree_on_what_the_first_found_and_on_its_errors() -> None:
    shards, told, errors = run_processes(processes(2), uneven)
    assert (shards, told) == ([[], [0]], "from the first")
    assert errors == ["own", "the first process failed: ZeroDivisionError: integer division or modulo by zero"]


def wait_for_signal(launch: Launch, folder: str) -> PretrainResult:
    def ask(drawn: int) -> None:
        if launch.rank == 1 and drawn == 5:
            os.kill(os.getpid(), signal.SIGUSR1)

    return train(launch, folder, "32-true", {"clips": TinyClips(on_sample=ask)})


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_of_them_after_the_same_step(tmp_path: Path) -> None:
    result = run_processes(processes(2), wait_for_signal, str(tmp_path))
    assert result.steps == 3
    assert result.stopped_by is not None
    assert result.checkpoint_path is not None
    assert load_checkpoint(result.checkpoint_path)["position"]["step"] == 3
