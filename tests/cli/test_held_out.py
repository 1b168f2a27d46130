"""Pretraining on training videos only: what is refused, and what is said where more is asked for."""

from pathlib import Path

import pytest

from earmark.cli.config import ConfigError
from earmark.cli.held_out import held_out_videos_seen, require_only_training_videos
from earmark.clips.dataset import MomentClips
from earmark.clips.store import PreparedStore
from earmark.datasets import DatasetError
from tests.helpers.command_lines import configured
from tests.helpers.ego4d_files import Row, action, clip, video, write_ego4d
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


def test_annotations_are_enough_to_know_what_is_held_out(tmp_path: Path) -> None:
    store = _epic_store(tmp_path)
    for path in (tmp_path / "EPIC/videos").iterdir():
        path.unlink()  # prepared videos are all that is needed
    data = ["data=epic_10s_audiopeak", f"data.args.base_path={tmp_path / 'EPIC'}"]
    with pytest.raises(ConfigError, match=r"1 training video that the data set holds out: P01_11 \(validation\)"):
        require_only_training_videos(configured(*data), store)


@pytest.mark.parametrize(
    ("videos", "actions", "reason"),
    [
        ([video("v1")], {}, ""),
        ([video("v1", "multi")], {}, "mixed by split_fho"),
        ([video("v1", split_em="test")], {}, "test by split_em"),
        ([video("v1")], {"val": [action("c1", 0)]}, "validation of fho_lta"),
    ],
)
@pytest.mark.parametrize("files", [("full_scale/v1.mp4",), ()])
def test_what_any_task_of_ego4d_holds_out_is_not_trained_on(
    tmp_path: Path, videos: list[Row], actions: dict[str, list[Row]], reason: str, files: tuple[str, ...]
) -> None:
    write_ego4d(tmp_path / "EGO4D", videos=videos, actions=actions, files=files)
    finish_store(tmp_path / "store", [add_video(tmp_path / "store", "v1")], {"v1": [5.0]})  # of split train
    store = PreparedStore(tmp_path / "store")
    data = ["data=ego4D_10s_audiopeak", f"data.args.base_path={tmp_path / 'EGO4D'}"]
    if not reason:
        require_only_training_videos(configured(*data), store)
        return
    with pytest.raises(ConfigError, match=rf"that the data set holds out: v1 \({reason}\)"):
        require_only_training_videos(configured(*data), store)
    require_only_training_videos(configured(*data, "data.split=all"), store)


def test_a_clip_of_ego4d_with_margins_in_one_that_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    write_ego4d(
        tmp_path / "EGO4D",
        videos=[video("v1", "multi")],
        clips=[clip("c1", start=0, stop=50), clip("c2", start=40, stop=90), clip("c3", start=90, stop=99)],
        actions={"train": [action("c1", 0), action("c3", 0)], "val": [action("c2", 0)]},
        files=("clips/c1.mp4",),
    )
    rows = [add_video(tmp_path / "store", name) for name in ("c1", "c3")]
    finish_store(tmp_path / "store", rows, {"c1": [5.0], "c3": [5.0]})
    data = ["data=ego4D_10s_audiopeak", f"data.args.base_path={tmp_path / 'EGO4D'}"]
    with pytest.raises(
        ConfigError, match=r"1 training video .*: c1 \(overlaps with validation of fho_lta \(clip c2\)\)"
    ):
        require_only_training_videos(configured(*data), PreparedStore(tmp_path / "store"))


def test_a_damaged_file_of_what_is_held_out_stops_the_run(tmp_path: Path) -> None:
    write_ego4d(tmp_path / "EGO4D", videos=[video("v1")], actions={"val": []})
    (tmp_path / "EGO4D/v2/annotations/fho_lta_val.json").write_text("{")
    finish_store(tmp_path / "store", [add_video(tmp_path / "store", "v1")], {"v1": [5.0]})
    data = ["data=ego4D_10s_audiopeak", f"data.args.base_path={tmp_path / 'EGO4D'}"]
    with pytest.raises(DatasetError, match=r"fho_lta_val\.json"):
        require_only_training_videos(configured(*data), PreparedStore(tmp_path / "store"))
