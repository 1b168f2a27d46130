"""`earmark evaluate evaluate.task=oscc_pnr`: both protocols, page and files of two challenges, by one command."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from earmark.cli.config import ConfigError, checked_sweep
from earmark.cli.config_schema import EvaluateConfig
from earmark.cli.main import main
from earmark.evaluation import score_submission
from tests.helpers.sounding_kitchen import sounding_kitchen

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the tests share, so that videos are prepared once."""
    return tmp_path_factory.mktemp("evaluate-state-changes")


def command(data_dir: Path, *overrides: str) -> list[str]:
    kitchen, _ = sounding_kitchen()
    return [
        *("evaluate", "data=ego4d", f"data.args.base_path={kitchen.base_path}/ego4d", "evaluate.task=oscc_pnr"),
        *(f"environment.data_dir={data_dir}", "prepare.short_side=64", "prepare.workers=1", "environment.workers=0"),
        *("backbone/video=avid_r2plus1d_10", "backbone.video.args.width=4", "backbone.audio.args.width=4"),
        *("data_augm.crop_size=32", "evaluate.checkpoint=none", "optim.epochs=2", "evaluate.train_parts=1", *overrides),
    ]


def test_both_protocols_and_two_files_that_score_as_the_table_says(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kitchen, _ = sounding_kitchen()
    path = data_dir / "changes.json"
    both = command(data_dir, "optim.schedule=[1]", "evaluate.protocol=published", f"evaluate.submission={path}")
    assert main(both) == 0
    printed = capsys.readouterr()
    told = " ".join((printed.out + printed.err).split())
    assert "by sound alone" in told
    assert "published: point of no return" in told
    (folder,) = (data_dir / "outputs").glob("*/random-oscc_pnr-validation-*")
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    state, keyframe = results["columns"]
    assert results["headline"]["measure"] == "state change"
    assert results["published"]["columns"][1]["within"] is None
    page = (folder / "report.html").read_text()
    assert "Also measured" in page
    assert "strongest moment" in page
    assert "16 frames" in page
    assert "clips of each action" not in page
    annotations = kitchen.base_path / "ego4d"
    for name, column, measure in (("oscc", state, "accuracy"), ("pnr", keyframe, "error_seconds")):
        file = data_dir / f"changes_{name}.json"
        assert f"submission: {file}, valid for" in printed.out + printed.err
        scored = score_submission(file, annotations)
        expected = column[measure]["encoder"]["value"]
        assert any(value == pytest.approx(expected, rel=1e-6) for value in scored.metrics.values()), scored.metrics


def test_an_encoder_is_fine_tuned_through_16_frames(data_dir: Path) -> None:
    assert main(command(data_dir, "evaluate.probe=fine_tuned", "optim.epochs=1", "logging.name=tuned")) == 0
    (found,) = (data_dir / "outputs").glob("tuned*/random-oscc_pnr-validation-*/results.json")
    assert "fine_tuning" in json.loads(found.read_text())["options"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=ego4d", "evaluate.task=oscc_pnr", "evaluate.frames=windows", "evaluate.probe=knn"], "must be spread"),
        (
            ["data=ego4d", "evaluate.task=oscc_pnr", "evaluate.frames=windows", "evaluate.protocol=published"],
            "evaluate.frames: must be spread with evaluate.protocol=published",
        ),
        (
            ["data=ego4d", "evaluate.task=oscc_pnr", "evaluate.random_clips=true"],
            "evaluate.random_clips: must be false",
        ),
        (["data=ego4d", "evaluate.frames=windows"], "evaluate.frames: must be spread; it is of evaluate.task=oscc_pnr"),
        (["data=ego4d", "evaluate.train_parts=2"], "evaluate.train_parts: must be 4; it is of evaluate.task=oscc_pnr"),
        (["data=kitchen", "evaluate.task=oscc_pnr"], "annotated in Ego4D alone; give data=ego4d"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked_sweep(EvaluateConfig, "default_lincls", overrides)
