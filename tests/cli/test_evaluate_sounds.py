"""`earmark evaluate` of sounds and of anticipation: numbers, page and challenge file of each task, by one command."""

import json
from pathlib import Path
from typing import Any

import pytest

from earmark.cli.main import main
from earmark.cli.runs import evaluations_in
from earmark.evaluation import score_submission
from tests.helpers.sounding_kitchen import sounding_kitchen

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the tests share, so that videos are prepared once."""
    return tmp_path_factory.mktemp("evaluate-sounds")


def command(data_dir: Path, task: str, *overrides: str) -> list[str]:
    kitchen, _ = sounding_kitchen()
    return [
        *("evaluate", "data=kitchen", f"data.args.base_path={kitchen.base_path}", f"environment.data_dir={data_dir}"),
        *("prepare.short_side=64", "prepare.workers=1", "environment.workers=0", "data_augm.crop_size=32"),
        *("backbone.video.args.width=4", "backbone.audio.args.width=4", "evaluate.checkpoint=none"),
        *("evaluate.num_clips=1", "optim.epochs=2", "optim.schedule=[1]", f"evaluate.task={task}", *overrides),
    ]


@pytest.mark.parametrize(
    ("task", "metric", "num_columns", "measure"),
    [
        ("sound_recognition", "all_interaction_mAP", 1, "sound recognition, without background, top-1"),
        ("sound_detection", "interaction_map_avg", 2, "sound detection, moments, mAP"),
        ("anticipation", "overall_verb_mt5r", 3, "anticipation, verb, overall"),
    ],
)
def test_a_task_is_judged_and_its_file_scores_the_same(
    task: str, metric: str, num_columns: int, measure: str, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kitchen, _ = sounding_kitchen()
    path = data_dir / f"{task}.json"
    assert main(command(data_dir, task, f"evaluate.submission={path}")) == 0
    printed = capsys.readouterr()
    assert f"submission: {path}, valid for" in printed.err + printed.out
    (folder,) = (data_dir / "outputs").glob(f"*/random-{task}-validation-*")
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    assert len(results["columns"]) == num_columns
    assert (folder / "report.html").stat().st_size > 1000
    scored = score_submission(path, kitchen.annotations_path).metrics
    assert results["columns"][0]["metrics"][metric] == pytest.approx(scored[metric], rel=1e-6)
    listed = next(found for found in evaluations_in(data_dir / "outputs") if Path(found.folder).name == folder.name)
    assert (listed.measure, listed.value) == (measure, results["headline"]["value"])


def test_the_audio_encoder_is_fine_tuned_for_sounds(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kitchen, _ = sounding_kitchen()
    path = data_dir / "tuned.json"
    before = {*(data_dir / "outputs").glob("*/*/results.json")}, {*(data_dir / "features").glob("*.npy")}
    tuning = ["evaluate.probe=fine_tuned", "evaluate.num_clips=2", f"evaluate.submission={path}"]
    assert main(command(data_dir, "sound_recognition", *tuning)) == 0
    assert "EPIC-SOUNDS recognition, fine-tuned encoder" in " ".join(capsys.readouterr().out.split())
    (written,) = {*(data_dir / "outputs").glob("*/*/results.json")} - before[0]
    assert {*(data_dir / "features").glob("*.npy")} == before[1]
    results: dict[str, Any] = json.loads(written.read_text())
    options = results["options"]
    assert (options["train_windows_per_sound"], options["test_windows_per_sound"]) == (1, 2)
    assert (options["fine_tuning"]["lr"], options["fine_tuning"]["milestones"]) == (0.01, [1])
    scored = score_submission(path, kitchen.annotations_path)
    assert results["columns"][0]["metrics"]["all_interaction_mAP"] == pytest.approx(
        scored.metrics["all_interaction_mAP"], rel=1e-6
    )
    assert "fine-tuned encoder, as configured: lr 0.01" in (written.parent / "report.html").read_text()


@pytest.mark.parametrize("task", ["sound_recognition", "sound_detection", "anticipation"])
def test_the_test_split_is_answered(task: str, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data_dir / f"{task}-test.zip"
    assert main(command(data_dir, task, "evaluate.split=test", f"evaluate.submission={path}")) == 0
    printed = capsys.readouterr()
    said = printed.err + printed.out
    assert "the labels of test are held back" in said
    assert "all detections there are wrong" not in said
    assert path.is_file()


def test_data_without_annotated_sounds_is_refused_before_preparing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "EPIC"
    (folder / "annotations").mkdir(parents=True)
    kitchen, _ = sounding_kitchen()
    for source in kitchen.annotations_path.glob("EPIC_100_*.csv"):
        (folder / "annotations" / source.name).write_bytes(source.read_bytes())
    (folder / "kitchen.json").write_text("{}")
    (folder / "events.parquet").write_bytes(b"")
    arguments = command(tmp_path / "data", "sound_recognition")
    arguments = [text for text in arguments if "base_path" not in text] + [f"data.args.base_path={folder}"]
    assert main(arguments) == 2
    assert "evaluate.task:" in (said := capsys.readouterr().err)
    assert "none of the annotation files EPIC_Sounds_train.csv" in said
    assert not (tmp_path / "data/prepared").exists()
