"""EPIC-SOUNDS detection: candidates of a store, answers that are known, a kitchen through to its challenge file."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from earmark.clips.store import PreparedStore
from earmark.clips.transforms import LogMel
from earmark.datasets import ActionRecord, EpicSounds, VideoRecord
from earmark.encoders import SpecCNN9
from earmark.evaluation import (
    TASKS,
    ClipOptions,
    ProbeOptions,
    SoundDetection,
    SupervisionLevels,
    evaluate_task,
    score_submission,
)
from earmark.evaluation.base import Answers
from earmark.evaluation.detection_metrics import detection_metrics
from earmark.evaluation.epic_sounds_metrics import BACKGROUND
from earmark.evaluation.sound_candidates import find_candidates, heard_share
from earmark.evaluation.sound_detection import DetectionAnswers
from earmark.evaluation.sound_events import DetectionRule
from tests.helpers.made_store import add_video, finish_store
from tests.helpers.sounding_kitchen import sounding_kitchen

LEVELS = SupervisionLevels(4, 3, 3)
NOTHING = 44
HEARING = ClipOptions(modalities=("audio",))


class Sounds:
    """A data set of sounds in four videos of 20 s, two of them for training."""

    name = "sounds"
    problems = ()

    def __init__(self) -> None:
        self.classes = {"sound": [f"class {number}" for number in range(44)]}
        self.rows: dict[str, list[tuple[str, float, float, int]]] = {
            "train": [
                *(("a", 2.0 + 4 * k, 3.0 + 4 * k, k % 2) for k in range(4)),
                *(("b", 1.0 + 4 * k, 2.5 + 4 * k, k % 2) for k in range(4)),
                ("b", 0.0, 19.0, BACKGROUND),
                ("a", 18.2, 19.2, 5),  # no moment is near
            ],
            "validation": [
                *(("c", 2.0 + 4 * k, 3.0 + 4 * k, k % 2) for k in range(4)),
                ("c", 0.5, 19.0, BACKGROUND),
                ("d", 3.0, 4.0, 1),
            ],
        }

    def videos(self, split: str | None = None) -> list[VideoRecord]:
        names = {"train": "ab", "validation": "cd"}
        return [VideoRecord(name, Path(f"{name}.mp4"), part) for part in names for name in names[part] if part == split]

    def actions(self, split: str) -> list[ActionRecord]:
        return [
            ActionRecord(f"{video}_{number}", video, start, stop, "P01", {"sound": label})
            for number, (video, start, stop, label) in enumerate(self.rows[split])
        ]


@pytest.fixture
def store(tmp_path: Path) -> PreparedStore:
    """Moments 0.05 s after each onset, and one of nothing in each video; d is silent."""
    rows = [
        add_video(
            tmp_path, name, num_frames=320, split="train" if name in "ab" else "validation", has_audio=name != "d"
        )
        for name in "abcd"
    ]
    moments = {
        "a": [2.05, 6.05, 10.05, 14.05, 16.5],
        "b": [1.05, 5.05, 9.05, 13.05, 17.5],
        "c": [2.05, 6.05, 10.05, 14.05, 17.0],
    }
    finish_store(tmp_path, rows, moments)
    return PreparedStore(tmp_path)


def task_of(store: PreparedStore, sounds: Sounds | None = None) -> SoundDetection:
    return SoundDetection.from_dataset(
        sounds or Sounds(), store, split="validation", clips=HEARING, probe=ProbeOptions(epochs=30, lr=0.2)
    )


def known_answers(labels: npt.NDArray[np.int64], share: float = 0.98) -> npt.NDArray[np.float32]:
    rows = np.full((len(labels), NOTHING + 1), (1 - share) / NOTHING)
    rows[np.arange(len(labels)), labels] = share
    return np.log(rows).astype(np.float32)


def test_candidates_are_moments_with_onsets_of_none_in_training_and_random_times_in_the_test(
    store: PreparedStore,
) -> None:
    task = task_of(store)
    task.check()
    train, test = task.train, task.test
    assert train.times[train.is_moment].tolist() == [2.05, 6.05, 10.05, 14.05, 16.5, 1.05, 5.05, 9.05, 13.05, 17.5]
    assert train.times[~train.is_moment].tolist() == [18.2]
    assert train.labels.tolist() == [0, 1, 0, 1, NOTHING, 5, 0, 1, 0, 1, NOTHING]  # background is nothing
    np.testing.assert_allclose(train.event_starts, [-0.05] * 4 + [0, 0] + [-0.05] * 4 + [0], atol=1e-9)
    assert (test.is_moment.sum(), (~test.is_moment).sum()) == (5, 5)
    assert test.labels[test.is_moment].tolist() == [0, 1, 0, 1, NOTHING]
    assert test.video_ids == ("c", "d")  # what is annotated in the silent one is missed, not forgotten
    assert len(test.annotated.label) == 5
    assert dict(task.records[1].left_out) == {"d": "it has no sound: all sounds annotated there are missed"}
    assert (task.records[0].num_used, task.records[1].num_used) == (10, 5)
    assert heard_share(test.some(test.is_moment), test.annotated) == 4 / 5
    assert task.train_clips.labels["sound"].tolist() == train.labels.tolist()
    assert set(task.train_videos or ()) == {"a", "b"}
    again = task_of(store).test
    assert again.times.tolist() == test.times.tolist()
    times = [task.test_clips.start_of(item, 0) + 1.0 for item in range(5)]  # type: ignore[attr-defined]
    np.testing.assert_allclose(times, test.times[test.is_moment])  # heard a second before and after


def test_scores_of_moments_are_held_against_those_of_training(store: PreparedStore) -> None:
    task = task_of(store)
    store.scores["c"] = np.array([9.0, 2.0, 1.0, 2.0, 3.0])
    sounds = Sounds()
    found = find_candidates(
        store, ["c"], sounds.actions("validation"), np.array([1.0, 2.0, 3.0]), 44, is_training=False
    )
    assert found.weights[found.is_moment].tolist() == [1.0, 0.75, 0.5, 0.75, 1.0]
    assert set(found.weights[~found.is_moment]) == {1.0}
    assert set(task.test.weights) == {1.0}  # all moments of the store have one score


def test_right_answers_at_moments_detect_what_is_heard_and_random_times_less(store: PreparedStore) -> None:
    task = task_of(store)
    rule = DetectionRule()
    labels = np.where(task.test.is_moment, task.test.labels, 0)
    labels[~task.test.is_moment] = np.arange((~task.test.is_moment).sum()) % 2
    perfect = DetectionAnswers(known_answers(labels), rule, None, {})
    useless = DetectionAnswers(known_answers(np.full(len(labels), 7)), rule, None, {})
    moments, random_times = task.measure([Answers(0, perfect, useless)])
    assert (moments.column, random_times.column) == ("moments", "random times")
    # class 0 is found whole, and of class 1 two of three: the third is in a silent video. The lengths are the training
    # classes' medians, 1.25 s, from 0.05 s after the onset: tIoU 0.73.
    assert moments.mean.encoder.value == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert moments.metrics["interaction_map_at_05"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    official = detection_metrics(task.detections(perfect), task.test.annotated)
    assert moments.metrics == pytest.approx(official, rel=1e-12)
    assert moments.mean.gain is not None
    assert moments.mean.gain.value > 0
    # class 1 has as many training sounds as class 0: the first is the majority, at all five moments
    assert moments.mean.majority.value == pytest.approx(100 * detection_of_one_class(task) / 2)
    assert random_times.mean.encoder.value < moments.mean.encoder.value
    assert (moments.num_candidates, moments.num_test_sounds, moments.num_test_videos) == (5, 5, 2)
    assert moments.heard_share == pytest.approx(80.0)
    assert [row.label for row in moments.rows()] == [
        "moments, mAP",
        *(f"moments, mAP at tIoU .{number}" for number in range(1, 6)),
    ]


def detection_of_one_class(task: SoundDetection) -> float:
    """Average precision of class 0 said at every moment, by hand: equal scores, the later first."""
    order = np.flatnonzero(task.test.is_moment)[::-1]
    is_right = task.test.labels[order] == 0
    precisions = is_right.cumsum() / np.arange(1, len(order) + 1)
    return sum(max(precisions[place:]) for place in np.flatnonzero(is_right)) / is_right.sum()


def test_the_rule_is_chosen_on_held_out_training_videos_and_the_probe_learns_nothing_of_them(
    store: PreparedStore,
) -> None:
    """Features that say the class; lengths that only the other video's sounds can have taught."""
    task = task_of(store)
    codes = np.eye(NOTHING + 1, dtype=np.float32)
    train, test = codes[task.train.labels][:, None], codes[task.test.labels][:, None]
    answers = task.scores(train, test, seed=0, device="cpu")
    assert answers.held_out_map is not None
    assert answers.held_out_map > 90
    assert answers.log_probabilities.shape == (10, NOTHING + 1)
    assert (answers.log_probabilities.argmax(axis=1) == task.test.labels).all()
    found = task.measure([Answers(0, answers, None)])[0]
    assert found.mean.encoder.value == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert found.rules == (answers.rule,)

    one_video = dataclasses.replace(task, train_videos=["a"] * len(task.train.times))
    answers = one_video.scores(train, test, seed=0, device="cpu")
    assert (answers.rule, answers.held_out_map) == (DetectionRule(), None)


def test_a_class_without_training_sounds_lasts_as_long_as_all_and_one_nobody_detects_counts_nothing(
    store: PreparedStore,
) -> None:
    sounds = Sounds()
    sounds.rows["validation"].append(("c", 17.0, 18.2, 30))
    task = task_of(store, sounds)
    perfect = DetectionAnswers(known_answers(task.test.labels), DetectionRule(), None, {})
    moments = task.measure([Answers(0, perfect, None)])[0]
    assert moments.mean.encoder.value == pytest.approx(100 * (1 + 2 / 3 + 1) / 3)
    never = known_answers(np.where(task.test.labels == 30, 0, task.test.labels))
    never[:, 30] = -np.inf
    moments = task.measure([Answers(0, DetectionAnswers(never, DetectionRule(), None, {}), None)])[0]
    assert moments.mean.encoder.value < 100 * (1 + 2 / 3 + 1) / 3


def test_what_cannot_be_detected_in_is_refused(store: PreparedStore) -> None:
    sounds = Sounds()
    sounds.rows["train"] = [row for row in sounds.rows["train"] if row[3] == BACKGROUND]
    with pytest.raises(ValueError, match="no annotated sound: there is nothing to learn"):
        task_of(store, sounds).check()
    task = task_of(store)
    nan = known_answers(task.test.labels)
    nan[2, 3] = np.nan
    with pytest.raises(ValueError, match="not a finite number"):
        task.measure([Answers(0, DetectionAnswers(nan, DetectionRule(), None, {}), None)])
    for name in store.moments:
        store.moments[name] = store.scores[name] = np.zeros(0)
    with pytest.raises(ValueError, match="none of 2 train videos has a moment"):
        task_of(store)


@pytest.mark.usefixtures("one_thread")
def test_a_kitchen_is_judged_and_its_submission_scores_the_same(tmp_path: Path) -> None:
    kitchen, store = sounding_kitchen()
    torch.manual_seed(0)
    task = TASKS["sound_detection"].from_dataset(
        EpicSounds(kitchen.base_path), store, split="validation", clips=HEARING, probe=ProbeOptions(epochs=4, lr=0.05)
    )
    assert isinstance(task, SoundDetection)
    judgement = evaluate_task(
        task,
        {"audio": SpecCNN9(width=4)},
        baseline_encoders={"audio": SpecCNN9(width=4)},
        transforms={"audio": LogMel()},
    )
    moments, random_times = judgement.result.columns
    assert moments.num_candidates == random_times.num_candidates > 20
    assert moments.held_out_maps[0] is not None
    assert len(task.table(judgement.result).rows) == 12
    path = tmp_path / "detection.zip"
    assert task.write_submission(path, judgement.answers[0].encoder, levels=LEVELS) == ()
    score = score_submission(path, kitchen.annotations_path)
    assert score.metrics == pytest.approx(moments.metrics, rel=1e-6)
    assert score.levels["t_mod"] == 0
    assert judgement.result.headline == pytest.approx(score.metrics["interaction_map_avg"], rel=1e-6)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("listed", [True, False])
def test_the_test_videos_are_those_of_the_detection_challenge(listed: bool, tmp_path: Path) -> None:
    """Where there is a list of them; they are none of the recognition test's."""
    kitchen, store = sounding_kitchen()
    folder = tmp_path / "sounds"
    shutil.copytree(kitchen.annotations_path, folder / "annotations")
    names = [video.video_id for video in EpicSounds(kitchen.base_path).videos("test")]
    listing = folder / "annotations/EPIC_Sounds_detection_test_videos.csv"
    assert listing.read_text().split() == ["video_id", *names]  # a kitchen has the same videos in both tests
    listing.unlink()
    if listed:
        names = [name for name, video in store.videos.items() if video.split == "validation"][:2]
        listing.write_text("\n".join(["video_id", *names]) + "\n")
    for video in kitchen.videos():
        link = folder / video.path.relative_to(kitchen.base_path)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(video.path)
    task = SoundDetection.from_dataset(
        EpicSounds(folder), store, split="test", clips=HEARING, probe=ProbeOptions(epochs=1)
    )
    assert task.test.video_ids == tuple(names)
    assert not task.is_labelled
    task.check()
    codes = np.eye(NOTHING + 1, dtype=np.float32)
    answers = task.scores(codes[task.train.labels][:, None], codes[task.test.labels][:, None], seed=0, device="cpu")
    with pytest.raises(ValueError, match="can be answered, not judged"):
        task.measure([Answers(0, answers, None)])
    task.write_submission(tmp_path / "test.zip", answers, levels=LEVELS)
    if listed:
        score = score_submission(tmp_path / "test.zip", listing)
        assert (score.metrics, score.counts) == ({}, {"videos": 2})
