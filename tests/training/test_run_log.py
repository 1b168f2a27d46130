"""What a run writes down; the loop's own tests look at metrics.jsonl and TensorBoard."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from earmark.training.run_log import METRICS_FILE, Logging, RunLog, read_metrics

SOURCE = Path(sys.modules["earmark"].__file__ or "").parents[1]
TWO_LIVES = """
import sys
from pathlib import Path
from earmark.training.run_log import Logging, RunLog

for done in (0, 2):
    options = {"project": "p", "name": "n", "config": {"optim": {"lr": 0.5}}}
    logging = Logging(tensorboard=False, progress=False, wandb=options)
    with RunLog(Path(sys.argv[1]), logging, step=done, total_steps=4, epochs=2) as log:
        for step in (done + 1, done + 2):
            log.write("step", {"step": step, "epoch": 1, "loss": 0.5 * step})
        log.write("probe", {"step": done + 2, "epoch": 1 + done // 2, "verb_top1": 30.0 + done})
"""


@pytest.mark.slow
def test_weights_and_biases_gets_every_number_offline_and_a_resume_is_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs earmark[wandb]")
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    subprocess.run([sys.executable, "-c", TWO_LIVES, str(tmp_path)], env=environment, check=True)
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len({file.name for file in files}) == 1  # one id
    assert len(files) == 2
    found = [line for file in files for line in history_of(file)]
    assert [line["loss"] for line in found] == [0.5, 1.0, 1.5, 2.0]
    assert [line["probe/verb_top1"] for line in found if "probe/verb_top1" in line] == [30.0, 32.0]
    assert [line["_step"] for line in found] == [1, 2, 3, 4]


def history_of(path: Path) -> list[dict[str, Any]]:
    """Read the lines of an offline run: after 7 bytes, records of LevelDB's log format (small ones: one block)."""
    code = (
        "import json, struct, sys\n"
        "from wandb.proto.wandb_internal_pb2 import Record\n"
        "data, at, lines = open(sys.argv[1], 'rb').read()[:32768], 7, []\n"
        "while at + 7 < len(data):\n"
        "    _, size, kind = struct.unpack('<IHB', data[at:at + 7])\n"
        "    if kind != 1: break\n"
        "    record = Record(); record.ParseFromString(data[at + 7:at + 7 + size]); at += 7 + size\n"
        "    if record.WhichOneof('record_type') == 'history':\n"
        "        items = record.history.item\n"
        "        lines.append({'.'.join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})\n"
        "print(json.dumps(lines))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines: list[dict[str, Any]] = json.loads(done.stdout)
    return lines


def test_without_wandb_a_run_that_asks_for_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="wandb is not installed"):
        RunLog(tmp_path, Logging(tensorboard=False, wandb={"project": "p"}), step=0, total_steps=1, epochs=1)


def test_ranks_but_the_first_write_nothing(tmp_path: Path) -> None:
    logging = Logging(wandb={"project": "p"})
    with RunLog(tmp_path / "run", logging, step=0, total_steps=1, epochs=1, enabled=False) as log:
        log.write("step", {"step": 1, "epoch": 1, "loss": 0.0})
        log.show(epoch=1, step=1, scalars={}, speed={})
        log.sync()
    assert not list(tmp_path.iterdir())


def test_damaged_lines_of_metrics_are_counted_and_the_others_read(tmp_path: Path) -> None:
    """Half a line of a killed run, bytes that are no text, JSON that is no record: none may stop a resume or a page."""
    path = tmp_path / METRICS_FILE
    good = [{"kind": "step", "step": 1, "epoch": 1, "loss": None}, {"kind": "epoch", "step": 2, "epoch": 1}]
    texts = [
        json.dumps(good[0]).encode(),
        b"[1, 2]",
        b'{"kind": "step", "step": null}',
        b"\xff\xfe",
        b'{"kind": "epoch"}',
    ]
    path.write_bytes(b"\n".join([*texts, json.dumps(good[1]).encode(), b'{"kind": "step", "st']))
    assert read_metrics(path) == (good, 5)
    assert read_metrics(tmp_path / "none.jsonl") == ([], 0)
    with RunLog(tmp_path, Logging(tensorboard=False, progress=False), step=1, total_steps=9, epochs=1):
        pass
    assert path.read_bytes() == texts[0] + b"\n"
