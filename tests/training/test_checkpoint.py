"""Checkpoints survive crashes, refuse what is not theirs, and never run code."""

import logging
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from earmark.training.checkpoint import (
    FORMAT_VERSION,
    CheckpointError,
    DamagedCheckpointError,
    epoch_checkpoint_path,
    latest_checkpoint,
    latest_checkpoint_path,
    load_checkpoint,
    remove_old_latest,
    rng_state,
    save_checkpoint,
    set_rng_state,
)


def _state(step: int) -> dict[str, Any]:
    return {"position": {"epoch": 0, "batch": step, "step": step}, "model": {"weight": torch.arange(1000.0) + step}}


def test_what_is_saved_comes_back_with_format_and_versions(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "latest_00000007.pt"
    save_checkpoint(path, _state(7))
    state = load_checkpoint(path)
    assert state["position"] == {"epoch": 0, "batch": 7, "step": 7}
    assert torch.equal(state["model"]["weight"], torch.arange(1000.0) + 7)
    assert state["format_version"] == FORMAT_VERSION
    assert state["versions"].keys() == {"earmark", "torch", "python"}
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("broken", ["torch.save", "os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails_leaves_the_checkpoint_before_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "checkpoint_0001.pt"
    save_checkpoint(path, _state(1))

    def fail(*args: Any, **options: Any) -> None:
        if broken == "torch.save":
            args[1].write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(broken, fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, _state(2))
    monkeypatch.undo()
    assert load_checkpoint(path)["position"]["step"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_bytes_and_the_name_are_forced_to_the_disk_in_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint_0001.pt"
    forced: list[tuple[bool, bool]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        is_directory = os.path.isdir(f"/proc/self/fd/{descriptor}")  # noqa: PTH112
        forced.append((is_directory, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", record)
    save_checkpoint(path, _state(1))
    assert forced == [(False, False), (True, True)]


@pytest.mark.parametrize("cut", [0, 10, 500, -1])
def test_a_file_that_is_cut_off_is_damaged(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "latest_00000001.pt"
    save_checkpoint(path, _state(1))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DamagedCheckpointError, match=rf"^{path}: damaged"):
        load_checkpoint(path)


def test_one_flipped_bit_in_a_weight_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "latest_00000001.pt"
    save_checkpoint(path, _state(1))
    content = bytearray(path.read_bytes())
    place = content.index(torch.arange(1.0, 20.0).numpy().tobytes())
    content[place + 40] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match="checksum"):
        load_checkpoint(path)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("evil"),)


def test_a_file_with_code_in_it_is_refused_and_the_code_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format_version": 1, "model": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="holds more than tensors and plain data"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not Path("evil").exists()


def test_foreign_newer_and_missing_files_are_named_with_the_reason(tmp_path: Path) -> None:
    torch.save({"model": {}, "epoch": 3}, tmp_path / "foreign.pt")
    torch.save({"format_version": FORMAT_VERSION + 1, "versions": {"earmark": "99.0"}}, tmp_path / "newer.pt")
    for name, reason in [
        ("foreign", "no format_version"),
        ("newer", r"by a newer Earmark \(99.0\)"),
        ("missing", "no such file"),
    ]:
        with pytest.raises(CheckpointError, match=rf"{name}\.pt: .*{reason}"):
            load_checkpoint(tmp_path / f"{name}.pt")


def test_the_checkpoint_with_the_most_steps_is_the_latest(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "no such folder") is None
    assert latest_checkpoint(tmp_path) is None
    save_checkpoint(latest_checkpoint_path(tmp_path, 120), _state(120))
    save_checkpoint(epoch_checkpoint_path(tmp_path, 10), _state(100))
    assert latest_checkpoint(tmp_path) == tmp_path / "latest_00000120.pt"
    save_checkpoint(epoch_checkpoint_path(tmp_path, 20), _state(200))
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint_0020.pt"


@pytest.mark.parametrize("newest", ["latest_00000300.pt", "checkpoint_0030.pt"])
@pytest.mark.parametrize("cut", [20, -200])
def test_a_damaged_latest_is_passed_over_with_a_warning_that_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, newest: str, cut: int
) -> None:
    save_checkpoint(latest_checkpoint_path(tmp_path, 200), _state(200))
    save_checkpoint(tmp_path / newest, _state(300))
    (tmp_path / newest).write_bytes((tmp_path / newest).read_bytes()[:cut])
    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(tmp_path) == tmp_path / "latest_00000200.pt"
    assert f"skipped: {tmp_path / newest}: damaged" in caplog.text


def test_a_damaged_epoch_checkpoint_is_passed_over_wherever_the_damage_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        save_checkpoint(
            tmp_path / f"checkpoint_{step:04d}.pt", {"position": {"step": step}, "model": {"weight": torch.ones(9)}}
        )
    whole = (tmp_path / "checkpoint_0002.pt").read_bytes()
    for place in (whole.index(b"position") - 4, whole.index(torch.ones(9).numpy().tobytes())):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "checkpoint_0002.pt").write_bytes(damaged)
        caplog.clear()
        assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint_0001.pt"
        assert "checkpoint_0002.pt: damaged" in caplog.text


def test_a_checkpoint_of_something_else_among_those_of_a_run_is_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint_0001.pt", {"model": {"weight": torch.ones(9)}})
    with pytest.raises(CheckpointError, match=r"checkpoint_0001\.pt: not the checkpoint of a training run"):
        latest_checkpoint(tmp_path)


def test_a_run_does_not_start_from_nothing_where_every_checkpoint_is_damaged(tmp_path: Path) -> None:
    latest_checkpoint_path(tmp_path, 5).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"every checkpoint is damaged: latest_00000005\.pt"):
        latest_checkpoint(tmp_path)


def test_only_step_checkpoints_are_removed_and_the_newest_stay(tmp_path: Path) -> None:
    for step in (5, 40, 300):
        latest_checkpoint_path(tmp_path, step).touch()
    epoch_checkpoint_path(tmp_path, 1).touch()
    (tmp_path / ".latest_00000400.99-0123abcd.tmp.pt").touch()
    (tmp_path / "latest_mine.pt").touch()
    remove_old_latest(tmp_path, retain=2)
    assert {path.name for path in tmp_path.iterdir()} == {
        "latest_00000040.pt",
        "latest_00000300.pt",
        "latest_mine.pt",
        "checkpoint_0001.pt",
    }


def _draw() -> list[float]:
    return [random.random(), np.random.standard_normal(), torch.rand(()).item()]  # noqa: NPY002


def test_generators_go_on_where_they_were(tmp_path: Path) -> None:
    random.seed(1)
    _draw()
    save_checkpoint(tmp_path / "rng.pt", {"rng": [rng_state()]})
    expected = [_draw() for _ in range(3)]
    set_rng_state(load_checkpoint(tmp_path / "rng.pt")["rng"][0])
    assert [_draw() for _ in range(3)] == expected
