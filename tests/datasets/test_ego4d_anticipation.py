"""Long-term anticipation: which windows the files give, counted by hand."""

from pathlib import Path

import pytest

from earmark.datasets import Ego4D, anticipation_windows, lost_anticipation_windows, num_anticipation_windows
from tests.helpers.ego4d_files import Row, action, video, write_ego4d


def opened(tmp_path: Path, rows: list[Row], split: str = "train") -> Ego4D:
    return write_ego4d(tmp_path, videos=[video("v1"), video("v2")], actions={split: rows})


@pytest.mark.parametrize(
    ("num_actions", "num_seen", "full", "published"),
    [(23, 4, 0, 0), (24, 4, 1, 0), (25, 4, 2, 1), (30, 4, 7, 6), (22, 2, 1, 0), (30, 2, 9, 8), (0, 4, 0, 0)],
)
def test_a_clip_has_a_window_for_each_place_and_the_published_code_one_fewer(
    tmp_path: Path, num_actions: int, num_seen: int, full: int, published: int
) -> None:
    assert num_anticipation_windows(num_actions, num_seen=num_seen) == full
    assert num_anticipation_windows(num_actions, num_seen=num_seen, protocol="published") == published
    for clip in opened(tmp_path, [action("c1", k) for k in range(num_actions)]).anticipation_clips("train"):
        windows = anticipation_windows(clip, num_seen=num_seen)
        assert [window.window_id for window in windows] == [f"c1_{num_seen - 1 + k}" for k in range(full)]
        assert [window.seen[0].action_id for window in windows] == [f"c1_{k}" for k in range(full)]
        assert all((len(window.seen), len(window.coming)) == (num_seen, 20) for window in windows)
        assert [window.coming[-1].action_id for window in windows] == [f"c1_{num_seen + 19 + k}" for k in range(full)]
        assert anticipation_windows(clip, num_seen=num_seen, protocol="published") == windows[:published]


def test_windows_stay_within_a_clip_and_follow_the_index_not_the_file(tmp_path: Path) -> None:
    rows = [action("c1", 2), action("c2", 0), action("c1", 0), action("c2", 1), action("c1", 1)]
    ego4d = opened(tmp_path, rows)
    first, second = ego4d.anticipation_clips("train")
    assert (first.clip_uid, first.video_id, first.indices, second.indices) == ("c1", "v1", (0, 1, 2), (0, 1))
    windows = [anticipation_windows(clip, num_seen=1, num_coming=1) for clip in (first, second)]
    assert [[window.window_id for window in each] for each in windows] == [["c1_0", "c1_1"], ["c2_0"]]
    assert [each.action_id for each in ego4d.actions("train")] == ["c1_0", "c1_1", "c1_2", "c2_0", "c2_1"]
    (remark,) = ego4d.remarks
    assert remark.endswith("fho_lta_train.json: clips whose actions are not in the order of action_idx, sorted: 1 (c1)")


def test_of_the_test_split_every_visible_action_from_the_last_seen_on_ends_a_window(tmp_path: Path) -> None:
    rows = [action("c1", index) for index in range(6)]
    (clip,) = opened(tmp_path, rows, "test_unannotated").anticipation_clips("test")
    windows = anticipation_windows(clip, num_seen=4, num_coming=0)
    assert [(window.window_id, window.coming) for window in windows] == [("c1_3", ()), ("c1_4", ()), ("c1_5", ())]
    assert all(each.labels == {} for each in clip.actions)


@pytest.mark.parametrize(
    ("bad", "ids"),
    [
        ({"action_idx": 3, "verb_label": 9}, ["c1_0", "c1_4", "c1_5", "c1_6"]),  # a fault in the middle
        ({"action_idx": 2}, ["c1_3", "c1_4", "c1_5", "c1_6"]),  # the same index again: which of the two is it?
        ({"action_idx": "3"}, []),  # it may be anywhere
        ({"action_idx": 8, "video_uid": "v9"}, ["c1_0", "c1_1", "c1_2", "c1_3", "c1_4", "c1_5", "c1_6"][:6]),
    ],
)
def test_no_window_leaps_over_an_action_that_is_left_out(tmp_path: Path, bad: Row, ids: list[str]) -> None:
    """Windows of one seen and two coming of actions 0 to 8, one of whose rows is damaged."""
    damaged = action("c1", 3) | bad
    rows = [action("c1", k) for k in range(9) if k != damaged["action_idx"] or bad == {"action_idx": 2}]
    rows = [row for row in rows if not (bad["action_idx"] == "3" and row["action_idx"] == 3)]
    ego4d = opened(tmp_path, [*rows, damaged])
    (clip,) = ego4d.anticipation_clips("train")
    assert [window.window_id for window in anticipation_windows(clip, num_seen=1, num_coming=2)] == ids
    assert len(ego4d.problems) == ego4d.num_left_out("fho_lta", "train") == 1
    assert any("clips of whose actions some are left out" in remark for remark in ego4d.remarks)


def test_a_clip_of_two_videos_is_named(tmp_path: Path) -> None:
    ego4d = opened(tmp_path, [action("c1", 0), action("c1", 1, "v2"), action("c1", 2)])
    (clip,) = ego4d.anticipation_clips("train")
    assert (clip.indices, clip.lost_indices, clip.num_listed) == ((0, 2), (1,), 3)
    (problem,) = ego4d.problems
    assert problem.endswith("clips[1]: clip c1 is of video v1 in rows before, here of v2")


@pytest.mark.parametrize("options", [{"num_seen": 0}, {"num_seen": 1, "num_coming": -1}])
def test_windows_without_a_seen_action_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a window of"):
        num_anticipation_windows(5, num_seen=options["num_seen"], num_coming=options.get("num_coming", 20))


@pytest.mark.parametrize(
    ("bad", "reasons"),
    [
        ({"action_idx": 3, "verb_label": 9}, {f"c1_{k}": "holds action 3, which was left out" for k in (1, 2, 3)}),
        ({"action_idx": 2}, {f"c1_{k}": "holds action 2, which was left out" for k in (0, 1, 2)}),
        (
            {"action_idx": "3"},
            {
                f"c1_{k}": "an action of its clip was left out, and it is not known which"
                for k in (0, 1, 2, 4, 5)  # of the indices that can be read
            },
        ),
    ],
)
def test_each_window_of_a_clip_is_there_or_lost_with_the_reason(
    tmp_path: Path, bad: dict[str, object], reasons: dict[str, str]
) -> None:
    rows = [action("c1", index) for index in (0, 1, 2, 4, 5, 6, 7)]
    if bad["action_idx"] == 2:
        rows.insert(3, action("c1", 3))
    rows.append(action("c1", 3) | bad)
    (clip,) = opened(tmp_path, rows).anticipation_clips("train")
    found = [window.window_id for window in anticipation_windows(clip, num_seen=1, num_coming=2)]
    lost = lost_anticipation_windows(clip, num_seen=1, num_coming=2)
    assert dict(lost) == reasons
    assert not set(found) & set(reasons)
    assert len(found) + len(lost) == num_anticipation_windows(clip.num_listed, num_seen=1, num_coming=2)
