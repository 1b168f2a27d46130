"""`earmark evaluate evaluate.task=lta`: from prepared videos of Ego4D to table, page and submission."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from earmark.cli.main import main
from earmark.evaluation import score_submission
from tests.helpers.ego4d_files import action, video, write_ego4d
from tests.helpers.made_store import add_video, finish_store

SPLITS = {"v1": "train", "v2": "train", "v3": "validation", "v4": "test"}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a command line on four videos of 30 s, of which only the first half minute is annotated and prepared."""
    monkeypatch.chdir(tmp_path)
    rows = {
        "train": [action(f"c{name[1]}", index, name) for name in ("v1", "v2") for index in range(25)],
        "val": [action("c3", index, "v3") for index in range(26)],
        "test_unannotated": [action("c4", index, "v4") for index in range(5)],
    }
    files = write_ego4d(
        tmp_path / "ego4d",
        videos=[video(name, {"validation": "val"}.get(split, split)) for name, split in SPLITS.items()],
        actions=rows,
        files=[f"full_scale/{name}.mp4" for name in SPLITS],
    )
    taxonomy = files.annotations_path / "fho_lta_taxonomy.json"
    taxonomy.write_text(json.dumps({"verbs": ["take", "put"], "nouns": ["cup", "lid"]}))
    store = tmp_path / "store"
    prepared = [add_video(store, name, num_frames=480, split=split) for name, split in SPLITS.items()]
    finish_store(store, prepared, {}, short_side=32, quality=90)
    data = [
        "data=ego4d",
        f"data.args.base_path={tmp_path / 'ego4d'}",
        f"data.store={store}",
        "prepare=default",
        "prepare.short_side=32",
    ]
    encoder = ["evaluate.checkpoint=none", "backbone/video=avid_r2plus1d_10", "backbone.video.args.width=4"]
    small = ["data_augm.crop_size=16", "evaluate.num_clips=1", "optim.epochs=2", "environment.workers=0"]
    return ["evaluate", "evaluate.task=lta", "evaluate.num_layers=1", *data, *encoder, *small]


def results() -> dict[str, Any]:
    (path,) = Path().glob("earmark_data/outputs/*/*/results.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.usefixtures("one_thread")
def test_both_protocols_stand_in_one_table_and_the_page_says_how_it_was_done(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "evaluate.protocol=published"]) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "train: 4 windows" in printed  # 25 - 20 - 4 + 1 of each video
    assert "validation: 3 windows" in printed
    assert "train: 2 windows" in printed  # and one fewer of each clip, by the published protocol
    content = results()
    assert [column["column"] for column in content["columns"]] == ["verb", "noun", "action"]
    assert content["headline"]["measure"] == "verb ED@20"
    assert content["headline"]["higher_is_better"] is False
    assert "verb_ED_19" in content["published"]["columns"][0]["metrics"]
    (page,) = Path().glob("earmark_data/outputs/*/*/report.html")
    text = page.read_text()
    assert "transformer of the seen actions" in text
    assert "held-out windows" in text
    assert "drawn from the frequencies of classes" in text


@pytest.mark.usefixtures("one_thread")
def test_the_windows_of_the_challenge_are_written_and_valid(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "evaluate.split=test", "evaluate.submission=out/lta.json"]) == 0
    assert "valid for" in " ".join(capsys.readouterr().err.split())
    content = json.loads(Path("out/lta.json").read_text())
    assert list(content) == ["c4_3", "c4_4"]
    scored = score_submission("out/lta.json", tmp_path / "ego4d" / "v2" / "annotations")
    assert next(iter(scored.counts.values())) == 2
