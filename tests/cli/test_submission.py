"""`earmark evaluate` to the file of a challenge, and beside the full protocol the published one."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from earmark.cli.config import ConfigError
from earmark.cli.main import main
from earmark.cli.submission import require_submittable
from earmark.evaluation import read_action_submission, score_submission
from earmark.kitchen import KitchenSize, make_kitchen

ENCODER = ["evaluate.checkpoint=none", "backbone/video=avid_r2plus1d_10", "backbone.video.args.width=4"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def kitchen(tmp_path: Path) -> Path:
    """Return a kitchen of small pictures, whose test split has two videos."""
    out = tmp_path / "kitchen"
    sizes = {"num_kitchens": 4, "videos_per_kitchen": 2, "width": 96, "height": 64, "fps": 8, "sample_rate": 16000}
    make_kitchen(out, size=KitchenSize(video_seconds=15, **sizes), progress=False)
    return out


def command(kitchen: Path, *overrides: str) -> list[str]:
    data = [f"data.args.base_path={kitchen}", "prepare.short_side=64", "prepare.workers=1", "environment.workers=0"]
    return ["evaluate", *data, *ENCODER, "data_augm.crop_size=32", "evaluate.num_clips=1", "optim.epochs=2", *overrides]


@pytest.mark.usefixtures("one_thread")
def test_answers_to_held_back_segments_make_a_valid_file_and_segments_without_clips_are_named(
    kitchen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (kitchen / "annotations/EPIC_100_test_timestamps.csv").read_text().splitlines()[1:]
    segments = [row.split(",")[0] for row in rows]
    videos = [row.split(",")[2] for row in rows]
    lost = videos[-1]
    assert 0 < videos.count(lost) < len(videos)
    (path,) = kitchen.rglob(f"{lost}.MP4")
    path.write_bytes(b"no video")
    assert main(command(kitchen, "evaluate.split=test", "evaluate.submission=out/test.zip")) == 0
    printed = " ".join(capsys.readouterr().err.split())
    without = [name for name, video in zip(segments, videos, strict=True) if video == lost]
    assert f"{len(without)} segment" in printed
    assert f"of {len(segments)} without clips have the shares of the classes in training" in printed
    assert without[0] in printed
    assert f"valid for action_recognition, {len(segments)} segments; sls_pt 0, sls_tl 3, sls_td 3" in printed
    assert not list(Path().glob("earmark_data/outputs/*/*/results.json"))
    with zipfile.ZipFile("out/test.zip") as archive:
        content = json.loads(archive.read("test.json"))
    assert list(content["results"]) == segments
    verbs = (kitchen / "annotations/EPIC_100_train.csv").read_text().splitlines()
    columns = verbs[0].split(",")
    counts = np.bincount([int(row.split(",")[columns.index("verb_class")]) for row in verbs[1:]], minlength=14) + 1
    prior = np.log(counts / counts.sum())
    answered = [list(content["results"][name]["verb"].values()) for name in segments]
    for name, scores in zip(segments, answered, strict=True):
        assert np.allclose(scores, prior) == (name in without)


@pytest.mark.usefixtures("one_thread")
def test_one_evaluation_gives_both_protocols_and_a_file_that_scores_as_the_table_says(
    kitchen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = command(kitchen, "evaluate.protocol=published", "evaluate.submission=validation.json", "evaluate.seeds=2")
    assert main(both) == 0
    printed = " ".join(capsys.readouterr().out.split())
    (path,) = Path().glob("earmark_data/outputs/*/*/results.json")
    results: dict[str, Any] = json.loads(path.read_text())
    published = results["published"]
    num_actions = results["columns"][0]["num_test_actions"]
    assert published["columns"][0]["num_test_actions"] == num_actions
    assert f"all {num_actions} actions, fewer than give" in published["options"]["protocol"]
    assert published["options"]["probe"]["lr"] == 0.005
    assert (results["options"]["num_seeds"], published["options"]["num_seeds"]) == (2, 1)
    assert "published: verb top-1" in printed
    assert "batch norm that drifts" in printed
    scored = score_submission("validation.json", kitchen).metrics
    for column in results["columns"]:  # the file holds the answers of the first seed
        assert scored[f"all_{column['column']}_accuracy_at_1"] == column["top1"]["per_seed"][0]
        for part, name in (("unseen participants", "unseen"), ("tail classes", "tail")):
            (of_part,) = [of for of in column["parts"] if of["name"] == part] or [None]
            if of_part is not None:
                assert scored[f"{name}_{column['column']}_accuracy_at_1"] == of_part["top1"]["per_seed"][0]
    segments = [row.split(",")[0] for row in (kitchen / "annotations/EPIC_100_validation.csv").read_text().splitlines()]
    read_action_submission("validation.json", "action_recognition", segments[1:], num_verbs=14, num_nouns=29)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluate.split=test"], "evaluate.submission: must name a file with evaluate.split=test"),
        (["evaluate.submission=a.csv"], "evaluate.submission: must be a path that ends in .zip or .json"),
        (["evaluate.submission=a.zip", "evaluate.split=train"], "evaluate.submission: is of evaluate.split=test"),
        (
            ["evaluate.protocol=published", "evaluate.split=test", "evaluate.submission=a.zip"],
            "evaluate.protocol: must",
        ),
        (["evaluate.probe=knn", "evaluate.lrs=[0.1,0.2]"], "evaluate.lrs: must be []; the kNN probe trains nothing"),
        (["evaluate.neighbours=[5]"], "evaluate.neighbours: must be [20]; it is of evaluate.probe=knn"),
        (["evaluate.probe=knn", "evaluate.neighbours=[]"], "evaluate.neighbours: needs at least one number"),
        (["evaluate.lrs=[0.1,0.1]"], "evaluate.lrs: names a value twice"),
        (["evaluate.probe=attentive", "evaluate.audio=true"], "evaluate.audio: must be false"),
        (["evaluate.task=anticipation", "evaluate.protocol=published"], "evaluate.protocol: published is of"),
        (
            ["evaluate.clip_seconds=2.125", "evaluate.clip_fps=15"],
            "evaluate.clip_fps: 15 frames per second do not divide prepare.fps=16: frames would be unevenly spaced; "
            "give evaluate.clip_fps=16",
        ),
        (["evaluate.clip_seconds=0.01"], "evaluate.clip_seconds: 0.01 s have no frame at data.clip_fps=16"),
        (
            ["data=ego4d", "data.args.base_path=E", "evaluate.split=test", "evaluate.submission=a.json"],
            "evaluate.split: must be validation or train; the labels of Ego4D's test actions are not public",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(
    overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "evaluate.checkpoint=none", *overrides]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_data_set_without_a_challenge_has_no_submission(tmp_path: Path) -> None:
    dataset: Any = SimpleNamespace(name="folder", annotations_path=tmp_path)
    with pytest.raises(ConfigError, match="submission: data folder belongs to no challenge"):
        require_submittable(tmp_path / "a.zip", dataset, "action_recognition")
