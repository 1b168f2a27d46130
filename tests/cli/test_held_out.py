"""Pretraining on training videos only: what is refused, and what is said where more is asked for."""

from pathlib import Path

import pytest

from earmark.cli.config import ConfigError
from earmark.cli.held_out import held_out_videos_seen, require_only_training_videos
from earmark.clips.dataset import MomentClips
from earmark.clips.store import PreparedStore
from tests.helpers.command_lines import configured
from tests.helpers.epic_files import CLASSES, HEADER, annotation
from tests.helpers.made_store import add_video, finish_store


def _epic_store(tmp_path: Path) -> PreparedStore:
    base = tmp_path / "EPIC"
    base.mkdir()
    (base / "EPIC_100_train.csv").write_text(HEADER + annotation("P01_01_0"))
    (base / "EPIC_100_validation.csv").write_text(HEADER + annotation("P01_11_0"))
    for name, text in CLASSES.items():
        (base / name).write_text(text)
    (base / "videos").mkdir()
    for name in ("P01_01", "P01_11"):
        (base / f"videos/{name}.MP4").touch()
    rows = [add_video(tmp_path / "store", name) for name in ("P01_01", "P01_11")]  # both of split train
    finish_store(tmp_path / "store", rows, {"P01_01": [5.0], "P01_11": [5.0]})
    return PreparedStore(tmp_path / "store")


def test_a_video_that_is_held_out_is_not_trained_on_unless_all_are_asked_for(tmp_path: Path) -> None:
    store = _epic_store(tmp_path)
    data = ["data=epic_10s_audiopeak", f"data.args.base_path={tmp_path / 'EPIC'}"]
    with pytest.raises(ConfigError, match=r"1 training video that the data set holds out: P01_11 \(validation\)"):
        require_only_training_videos(configured(*data), store)
    require_only_training_videos(configured(*data, "data.split=all"), store)
    (tmp_path / "EPIC/EPIC_100_validation.csv").unlink()
    require_only_training_videos(configured(*data), store)


def test_a_held_out_cut_is_found_where_the_kind_of_cuts_was_chosen(tmp_path: Path) -> None:
    _epic_store(tmp_path)
    base, name = tmp_path / "EPIC", "P01_11_000000_000010"
    for path in (base / "videos").iterdir():
        path.unlink()
    for path in (f"segments/{name}.MP4", "action_segments/P01_01_00000000_00000100.MP4"):
        (base / path).parent.mkdir(exist_ok=True)
        (base / path).touch()
    finish_store(tmp_path / "cuts", [add_video(tmp_path / "cuts", name)], {name: [5.0]})
    data = ["data=epic_10s_audiopeak", f"data.args.base_path={base}", "data.args.layout=segments"]
    with pytest.raises(ConfigError, match=rf"that the data set holds out: {name} \(validation\)"):
        require_only_training_videos(configured(*data), PreparedStore(tmp_path / "cuts"))


def test_a_run_on_all_splits_says_which_held_out_videos_it_sees(tmp_path: Path) -> None:
    rows = [add_video(tmp_path, name, split=split) for name, split in (("a", "train"), ("b", "validation"))]
    finish_store(tmp_path, rows, {"a": [5.0], "b": [5.0]})
    store = PreparedStore(tmp_path)
    assert held_out_videos_seen(MomentClips(store, splits=["train"]), store) == []
    (line,) = held_out_videos_seen(MomentClips(store), store)
    assert line.startswith("caution: this run sees 1 video of split validation:")
