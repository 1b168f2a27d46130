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
        ("a.txt", "nan\t0.5\thit\n", "line 1: .*is impossible"),
        ("a.csv", "video_id,start_timestamp\na,00:00:01.0\n", "stop_timestamp is missing"),
        ("a.csv", "video_id,start_timestamp,stop_timestamp\na,soon,00:00:01.0\n", "line 2: 'soon'"),
        ("a.csv", "video_id,start_timestamp,stop_timestamp\na\n", "line 2: ''"),
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
    with pytest.raises(TruthError, match=r"a.txt: not a readable text"):
        read_truth(tmp_path / "a.txt")
    for suffix in ("txt", "csv", "parquet"):
        with pytest.raises(TruthError) as missing:
            read_truth(tmp_path / f"none.{suffix}")
        assert str(missing.value) == f"{tmp_path / 'none'}.{suffix}: no such file or directory"
        (tmp_path / f"folder.{suffix}").mkdir()
        with pytest.raises(TruthError, match=rf"folder\.{suffix}: is a directory"):
            read_truth(tmp_path / f"folder.{suffix}")
