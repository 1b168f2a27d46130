"""Onset scores: against a slow matching, closed cases, and the files that hold the truth."""

from itertools import permutations
from pathlib import Path

import mir_eval.onset
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from earmark.moments.scoring import (
    OnsetScore,
    TruthError,
    holds_onsets,
    idle_share,
    read_ground_truth,
    read_spans,
    read_truth,
    score_onsets,
    span_recall,
)

LABELS = Path(__file__).parents[1] / "labels"


def most_pairs(moments: list[float], truth: list[float], window: float) -> int:
    """The largest matching, by trying all."""
    few, many = sorted((moments, truth), key=len)
    return max(
        sum(abs(a - b) <= window for a, b in zip(few, chosen, strict=True)) for chosen in permutations(many, len(few))
    )


@pytest.mark.parametrize("seed", range(20))
def test_scores_are_those_of_the_largest_matching(seed: int) -> None:
    rng = np.random.default_rng(seed)
    moments, truth = (rng.uniform(0, 0.5, rng.integers(1, 6)).tolist() for _ in range(2))
    score = score_onsets(moments, truth, window_seconds=0.05)
    met = most_pairs(moments, truth, 0.05)
    assert score.precision == pytest.approx(met / len(moments))
    assert score.recall == pytest.approx(met / len(truth))
    assert score.f1 == pytest.approx(2 * met / (len(moments) + len(truth)))
    assert (score.num_moments, score.num_truth) == (len(moments), len(truth))
    scorer = mir_eval.onset.f_measure(np.sort(truth), np.sort(moments), window=0.05)
    assert scorer == pytest.approx((score.f1, score.precision, score.recall))


def test_a_moment_meets_one_onset_only() -> None:
    assert score_onsets([1.0], [0.98, 1.02], window_seconds=0.05) == OnsetScore(1.0, 0.5, 2 / 3, 1, 2)


def test_nothing_found_or_nothing_known_scores_zero() -> None:
    assert score_onsets([], [1.0], window_seconds=0.05) == OnsetScore(0.0, 0.0, 0.0, 0, 1)
    assert score_onsets([1.0], [], window_seconds=0.05) == OnsetScore(0.0, 0.0, 0.0, 1, 0)
    assert idle_share([], [(0, 1)]) == 0.0
    assert span_recall([1.0], []) == 0.0


def test_moments_outside_every_action_are_idle() -> None:
    assert idle_share([0.0, 1.0, 1.1, 2.5], [(0, 1), (0.5, 0.6), (2, 3)]) == 0.25
    assert idle_share([0.5], []) == 1.0
    assert span_recall([0.55, 0.56], [(0, 1), (0.5, 0.6), (2, 3)]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("times", [[-1.0], [np.nan], [[1.0]]])
def test_times_that_are_none_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="truth_seconds"):
        score_onsets([1.0], times, window_seconds=0.05)


def test_a_negative_window_and_spans_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="window_seconds"):
        score_onsets([1.0], [1.0], window_seconds=-0.1)
    with pytest.raises(ValueError, match="spans_seconds"):
        idle_share([1.0], [1.0, 2.0])


def test_kitchen_onsets_are_the_audible_contacts(tmp_path: Path) -> None:
    names = ("video_id", "onset_seconds", "point_of_no_return_seconds", "offset_seconds", "audible")
    rows = [("b", 4.0, 5.0, 6.0, True), ("b", 1.0, 2.0, 3.0, True), ("a", 0.0, 1.0, 2.0, False)]
    pq.write_table(pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows]), tmp_path / "e.parquet")
    truth = read_truth(tmp_path / "e.parquet")
    assert {name: onsets.tolist() for name, onsets in truth.items()} == {"b": [2.0, 5.0], "a": []}
    assert read_spans(tmp_path / "e.parquet")["a"].tolist() == [[0.0, 2.0]]


def test_official_epic_files_are_read(annotations: Path) -> None:
    sounds = read_truth(annotations / "epic_sounds" / "EPIC_Sounds_validation.csv")
    assert sounds["P01_11"][:2].tolist() == [2.069, 3.065]
    actions = read_spans(annotations / "epic100" / "EPIC_100_validation.csv")
    assert actions["P01_11"][0].tolist() == [0.0, 1.89]
    assert sum(map(len, actions.values())) == 9668


def test_starts_of_actions_are_not_taken_for_onsets(annotations: Path) -> None:
    for name in ("EPIC_100_validation.csv", "EPIC_100_test_timestamps.csv"):
        assert not holds_onsets(annotations / "epic100" / name)
        with pytest.raises(TruthError, match=f"{name}: holds actions, not onsets"):
            read_truth(annotations / "epic100" / name)
    assert holds_onsets(annotations / "epic_sounds" / "EPIC_Sounds_validation.csv")


def test_audacity_labels_are_read_with_bands_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "clip.txt").write_text("\ufeff2.5\t2.75\tlate\n\\\t200.0\t4000.0\n\n0.5\t0.5\n")
    assert read_truth(tmp_path / "clip.txt")["clip"].tolist() == [0.5, 2.5]
    assert read_spans(tmp_path / "clip.txt")["clip"].tolist() == [[0.5, 0.5], [2.5, 2.75]]


def test_a_bad_row_is_left_out_and_named(tmp_path: Path) -> None:
    good, bad = "0.5\t0.5\thit \u2028 \xff\n", "0.7\tinf\thit\n"
    (tmp_path / "clip.txt").write_bytes((good + bad + good.replace("0.5", "0.9")).encode("latin-1", "replace"))
    truth = read_ground_truth(tmp_path / "clip.txt")
    assert truth.onsets is not None
    assert truth.onsets["clip"].tolist() == [0.5, 0.9]
    assert truth.problems == (f"{tmp_path / 'clip.txt'}, line 2: not start, end and text separated by tabs: 'inf'",)
    header = "annotation_id,video_id,start_timestamp,stop_timestamp\n"
    rows = ("s1,a,00:00:01,00:00:02", "s2,a,00:00:01,-00:00:02", "s1,a,00:00:03,00:00:04", '"s3,a,00:00:03,00:00:04')
    (tmp_path / "a.csv").write_text(header + "\n".join([*rows, "s4,b,00:00:00.5,00:00:00.5"]))
    truth = read_ground_truth(tmp_path / "a.csv")
    assert truth.onsets is not None
    assert {name: onsets.tolist() for name, onsets in truth.onsets.items()} == {"a": [1.0], "b": [0.5]}
    assert truth.spans["a"].tolist() == [[1.0, 2.0]]
    assert [text.partition("a.csv, ")[2] for text in truth.problems] == [
        "line 3: '-00:00:02' is not a timestamp HH:MM:SS.ff",
        "line 4: 's1' is listed twice",
        "line 5: a quote is not closed",
    ]
    with pytest.raises(TruthError, match=r"line 3: .*\n.*line 4: .*\n.*line 5: "):
        read_truth(tmp_path / "a.csv")


def test_a_bad_event_of_a_kitchen_is_left_out_and_named(tmp_path: Path) -> None:
    names = ("video_id", "onset_seconds", "point_of_no_return_seconds", "offset_seconds", "audible")
    rows = [("a", 1.0, 2.0, 3.0, True), ("a", 4.0, np.nan, 6.0, True), ("a", 4.0, np.inf, 6.0, True)]
    rows += [
        ("a", 5.0, 4.5, 4.0, True),
        (None, 1.0, 2.0, 3.0, True),
        ("a", 7.0, 8.0, 9.0, None),
        ("a", -1.0, 2.0, 3.0, True),
    ]
    pq.write_table(pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows]), tmp_path / "e.parquet")
    truth = read_ground_truth(tmp_path / "e.parquet")
    assert truth.onsets is not None
    assert truth.onsets["a"].tolist() == [2.0]
    assert [text.partition("e.parquet, ")[2].partition(":")[0] for text in truth.problems] == [
        f"row {number}" for number in range(2, 8)
    ]
    strings = pa.table({name: ["a"] for name in names})
    pq.write_table(strings, tmp_path / "e.parquet")
    with pytest.raises(TruthError, match=r"e\.parquet, row 1: audible is 'a', expected true or false"):
        read_ground_truth(tmp_path / "e.parquet")


def test_hand_labels_lie_within_their_clips(media: Path) -> None:
    from earmark.media import media_info

    files = sorted(LABELS.glob("*.txt"))
    assert len(files) == 8
    for file in files:
        (path,) = media.glob(f"{file.stem}.*")
        onsets = read_truth(file)[file.stem]
        assert (np.diff(onsets) > 0.04).all()
        assert onsets[-1] < media_info(path).duration_seconds


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "0.5 0.5 hit\n", "line 1: not start, end"),
        ("a.txt", "1.5\t0.5\thit\n", "line 1: .*is impossible"),
        ("a.txt", "nan\t0.5\thit\n", "line 1: not start, end and text separated by tabs: 'nan'"),
        ("a.txt", "1_0\t1_1\thit\n", "line 1: not start, end and text separated by tabs: '1_0'"),
        ("a.txt", "0.5\t1e400\thit\n", "line 1: .*is impossible"),
        ("a.txt", "-0.5\t1\thit\n", "line 1: .*is impossible"),
        ("a.txt", "0.5\t" + "9" * 400 + "\thit\n", "line 1: .*is impossible"),
        ("a.csv", "video_id,start_timestamp\na,00:00:01.0\n", "stop_timestamp is missing"),
        ("a.csv", "video_id,start_timestamp,stop_timestamp\na,soon,00:00:01.0\n", "line 2: 'soon'"),
        ("a.csv", "video_id,start_timestamp,stop_timestamp\na\n", "line 2: start_timestamp, stop_timestamp is empty"),
        ("a.csv", "video_id,start_timestamp,stop_timestamp\na,00:00:02,00:00:01\n", "line 2: .*is impossible"),
        ("a.csv", "video_id,start_timestamp,stop_timestamp\na,9000:00:00,9000:00:01\n", "line 2: .*is impossible"),
        ("a.parquet", "no", "not a readable table"),
        ("a.json", "{}", "read from"),
    ],
)
def test_damaged_truth_is_refused_by_file_and_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TruthError, match=message) as error:
        read_truth(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_binary_labels_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TruthError, match=r"a.txt, line 1: not start, end and text"):
        read_truth(tmp_path / "a.txt")
    for suffix in ("txt", "csv", "parquet"):
        with pytest.raises(TruthError) as missing:
            read_truth(tmp_path / f"none.{suffix}")
        assert str(missing.value) == f"{tmp_path / 'none'}.{suffix}: no such file or directory"
        (tmp_path / f"folder.{suffix}").mkdir()
        with pytest.raises(TruthError, match=rf"folder\.{suffix}: is a directory"):
            read_truth(tmp_path / f"folder.{suffix}")
