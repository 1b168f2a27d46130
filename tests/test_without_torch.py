"""Finding moments, preparing, generating a kitchen, scoring predictions and asking the doctor need no torch."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.helpers.challenge_files import (
    action_submission,
    sound_submission,
    write_epic_annotations,
    write_sound_annotations,
)
from tests.helpers.clicking import make_video
from tests.helpers.ego4d_files import ego4d_submissions, write_ego4d_challenges

# Runs the command line as if torch were not installed, and says what of it came in all the same.
WITHOUT_TORCH = """
import sys
ABSENT = ("torch", "torchvision", "lightning_fabric", "tensorboard")

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
from earmark.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:  # argparse, after --help
    code = end.code
assert not set(ABSENT) & sys.modules.keys()
sys.exit(code)
"""


def earmark(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_moments_are_found_without_torch(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4")
    done = earmark("moments", tmp_path / "a.mp4", "--out", tmp_path / "a.json", "--plot", tmp_path / "a.html")
    assert done.returncode == 0, done.stderr
    (content,) = json.loads((tmp_path / "a.json").read_text())
    times = [moment["time_seconds"] for moment in content["moments"]]
    for at in (1.52, 3.0, 4.24):
        assert min(abs(time - at) for time in times) < 0.05
    assert (tmp_path / "a.html").stat().st_size > 10_000


def test_a_folder_is_prepared_and_read_back_without_torch(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "a.mp4")
    overrides = ("data=folder", f"data.args.base_path={tmp_path / 'videos'}", f"environment.data_dir={tmp_path}")
    done = earmark("prepare", *overrides)
    assert done.returncode == 0, done.stderr
    (catalog,) = tmp_path.glob("prepared/*/videos.parquet")
    (row,) = pq.read_table(catalog).to_pylist()
    assert (row["status"], row["num_frames"]) == ("ok", 96)
    assert earmark("prepare", "--verify", *overrides).returncode == 0


def test_a_kitchen_is_generated_without_torch(tmp_path: Path) -> None:
    size = ("--kitchens", "1", "--videos", "1", "--seconds", "12", "--width", "64", "--height", "64")
    done = earmark("kitchen", tmp_path / "kitchen", "--preset", "tiny", *size, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "kitchen").rglob("*.MP4"))) == 1


def test_predictions_are_scored_without_torch(tmp_path: Path) -> None:
    submissions = {
        "actions.json": action_submission(write_epic_annotations(tmp_path)),
        "sounds.json": sound_submission(write_sound_annotations(tmp_path)),
        "actions-to-come.json": ego4d_submissions()["lta"],
    }
    write_ego4d_challenges(tmp_path)
    for name, submission in submissions.items():
        (tmp_path / name).write_text(json.dumps(submission))
        done = earmark("score", tmp_path / name, "--annotations", tmp_path, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["valid"] is True


def test_the_doctor_says_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    done = earmark("doctor", "--data-dir", tmp_path, "--json")
    assert done.returncode == 1  # the core needs torch
    (torch,) = (finding for finding in json.loads(done.stdout) if finding["name"] == "torch")
    assert (torch["ok"], torch["found"]) == (False, "not installed")
    assert torch["install"] == "pip install torch"


def test_help_and_the_list_of_runs_need_no_torch(tmp_path: Path) -> None:
    for arguments in (["--help"], ["moments", "--help"], ["prepare", "--help"], ["kitchen", "--help"]):
        assert earmark(*arguments).returncode == 0
    done = earmark("runs", "--data-dir", tmp_path)
    assert "Error" not in done.stderr
