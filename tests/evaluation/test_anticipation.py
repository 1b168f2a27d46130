"""Action anticipation: nothing later than a second before the action is read, and every action is answered."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from earmark.clips.observed import ObservedClips
from earmark.clips.store import PreparedStore
from earmark.clips.transforms import LogMel, VideoCrop
from earmark.datasets import ActionRecord
from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.evaluation import (
    TASKS,
    Anticipation,
    ClipOptions,
    ProbeOptions,
    SupervisionLevels,
    evaluate_task,
    score_submission,
)
from earmark.evaluation.anticipation import last_actions
from earmark.evaluation.base import Answers
from earmark.evaluation.epic_metrics import ActionLabels
from earmark.evaluation.probing import ProbeAnswers
from tests.helpers.made_store import FPS, SAMPLE_RATE, add_video, finish_store, number_of, sound_of
from tests.helpers.sounding_kitchen import sounding_kitchen

LEVELS = SupervisionLevels(4, 3, 3)


def action(
    name: str, start: float, *, video: str = "a", verb: int = 0, noun: int = 0, length: float = 1.0
) -> ActionRecord:
    return ActionRecord(name, video, start, start + length, "P01", {"verb": verb, "noun": noun})


@pytest.fixture
def store(tmp_path: Path) -> PreparedStore:
    finish_store(tmp_path, [add_video(tmp_path, "a", num_frames=112)], {"a": [3.0]})  # 7 s
    return PreparedStore(tmp_path)


def test_no_picture_and_no_sound_is_later_than_a_second_before_the_action(store: PreparedStore) -> None:
    clips = ObservedClips(
        store, [action("x", 5.0), action("y", 2.0)], observed_seconds=2.0, num_clips=3, audio_seconds=0.25
    )
    starts = [clips.start_of(item, 0) for item in range(6)]
    np.testing.assert_allclose(starts, [2.0, 2.75, 3.5, 0.0, 0.25, 0.5])  # the second has only 1 s to be observed
    recorded = sound_of(7 * SAMPLE_RATE)
    for item, start in enumerate(starts):
        sample = clips[(item, 7)]
        first = round(start * FPS)
        assert [number_of(frame) for frame in sample["video"]] == list(range(first, first + 8))
        end = round((start + 0.5) * SAMPLE_RATE)
        np.testing.assert_array_equal(sample["audio"], recorded[end - SAMPLE_RATE // 4 : end])
        assert start + 0.5 <= (4.0 if item < 3 else 1.0)
    drawn = {clips_of.start_of(0, seed) for seed in range(50) for clips_of in [_random(store)]}
    assert len(drawn) > 40
    assert 2.0 <= min(drawn) < max(drawn) <= 3.5


def _random(store: PreparedStore) -> ObservedClips:
    return ObservedClips(store, [action("x", 5.0)], random=True)


def test_one_clip_is_the_last_and_sound_before_the_recording_is_silence(store: PreparedStore) -> None:
    clips = ObservedClips(store, [action("x", 1.5), action("y", 6.5)], audio_seconds=2.0)
    assert [clips.start_of(item, 0) for item in range(2)] == [0.0, 5.0]
    sound = clips[(0, 0)]["audio"]
    assert not sound[: round(1.5 * SAMPLE_RATE)].any()
    np.testing.assert_array_equal(sound[round(1.5 * SAMPLE_RATE) :], sound_of(SAMPLE_RATE)[: SAMPLE_RATE // 2])
    assert clips.only("audio").start_of(1, 0) == 5.0


def test_actions_that_begin_too_early_are_counted_apart_from_those_whose_video_is_not_there(
    store: PreparedStore,
) -> None:
    clips = ObservedClips(store, [action("x", 1.5), action("early", 1.4), action("gone", 0.2, video="b")])
    assert [record.action_id for record in clips.actions] == ["x"]
    assert [record.action_id for record in clips.unobservable] == ["early"]
    assert dict(clips.left_out) == {
        "early": "starts at 1.40 s: no clip of 0.5 s is 1 s before",
        "gone": "video 'b' is not in the store",
    }
    with pytest.raises(ValueError, match="none of 1 actions can be observed 1 s before"):
        ObservedClips(store, [action("early", 0.5)])
    with pytest.raises(ValueError, match=r"at least 0\.5 s observed"):
        ObservedClips(store, [action("x", 5.0)], observed_seconds=0.25)


def test_what_is_observed_names_the_features(store: PreparedStore) -> None:
    keys = [
        ObservedClips(store, [action("x", 5.0)], **options).cache_key()
        for options in ({}, {"observed_seconds": 1.0}, {"ahead_seconds": 0.5}, {"num_clips": 2})
    ]
    assert all(keys[first] != keys[second] for first in range(4) for second in range(first))


def test_the_last_action_is_the_one_that_ended_last_before_the_observation_did() -> None:
    annotated = [
        action("a", 0.0, verb=1, noun=2),  # ends at 1
        action("b", 0.5, verb=3, noun=4, length=2.0),  # ends at 2.5
        action("c", 1.0, verb=5, noun=6, length=0.5, video="b"),
        action("d", 3.0, verb=7, noun=8),
        action("e", 3.5, verb=9, noun=9),
    ]
    found = last_actions(annotated, annotated, ahead_seconds=1.0)
    assert found.tolist() == [[-1, -1], [-1, -1], [-1, -1], [1, 2], [3, 4]]


class Observed:
    def __init__(self, labels: dict[str, npt.NDArray[np.int64]], num_actions: int) -> None:
        self.labels, self.action_of_item = labels, np.arange(num_actions)

    def __len__(self) -> int:
        return len(self.action_of_item)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, int]:
        raise AssertionError("features are given")


def slow_recall(answers: list[list[object]], truth: list[object]) -> float:
    shares = []
    for kind in sorted(set(truth)):  # type: ignore[type-var]
        right = [kind in answer[:5] for answer, true in zip(answers, truth, strict=True) if true == kind]
        shares.append(sum(right) / len(right))
    return 100 * sum(shares) / len(shares)


def test_numbers_equal_a_slow_loop_and_the_unobservable_are_answered_by_frequencies() -> None:  # noqa: PLR0915
    rng = np.random.default_rng(0)
    num_train, num_observed, num_early, num_verbs, num_nouns = 60, 80, 6, 9, 12
    train = {"verb": rng.integers(0, 8, num_train), "noun": rng.integers(0, 11, num_train)}
    num_test = num_observed + num_early
    verb, noun = rng.integers(0, num_verbs, num_test), rng.integers(0, num_nouns, num_test)
    unseen = rng.random(num_test) < 0.3
    labels = ActionLabels(verb, noun, unseen, verb > 6, noun > 9)
    repeat_last = np.stack([rng.integers(0, num_verbs, num_test), rng.integers(0, num_nouns, num_test)], axis=1)
    repeat_last[rng.random(num_test) < 0.2] = -1
    task = Anticipation(
        Observed(train, num_train),
        Observed({}, num_observed),
        labels,
        {"verb": [f"v{k}" for k in range(num_verbs)], "noun": [f"n{k}" for k in range(num_nouns)]},
        probe=ProbeOptions(epochs=2),
        test_videos=[f"video {k % 9}" for k in range(num_observed)],
        unobservable=[action(f"early {k}", 0.5, video="video 3") for k in range(num_early)],
        repeat_last=repeat_last,
    )
    task.check()
    features = [rng.normal(size=(number, 1, 4)).astype(np.float32) for number in (num_train, num_observed)]
    answers = task.scores(*features, seed=0, device="cpu")
    scores = {}
    for column, classes in (("verb", num_verbs), ("noun", num_nouns)):
        assert answers.scores[column].shape == (num_observed, classes)
        counts = np.maximum(np.bincount(train[column], minlength=classes), 0.5)
        prior = np.tile(np.log(counts / counts.sum()), (num_early, 1))
        scores[column] = np.concatenate([answers.scores[column].astype(np.float64), prior])
    results = {result.column: result for result in task.measure([Answers(0, answers, None)])}

    def best(scores: npt.NDArray[np.float64]) -> list[list[object]]:
        return [sorted(range(len(row)), key=lambda k: (row[k], k), reverse=True) for row in scores]

    ranked = {column: best(scores[column]) for column in ("verb", "noun")}
    products = []
    for place in range(num_test):
        shares = [np.exp(of[place] - of[place].max()) for of in (scores["verb"], scores["noun"])]
        pairs = np.outer(shares[0] / shares[0].sum(), shares[1] / shares[1].sum())
        products.append([divmod(int(k), num_nouns) for k in np.argsort(-pairs.ravel(), kind="stable")])
    ranked["action"] = products  # type: ignore[assignment]
    truth = {
        "verb": verb.tolist(),
        "noun": noun.tolist(),
        "action": list(zip(verb.tolist(), noun.tolist(), strict=True)),
    }
    tail = {"verb": verb > 6, "noun": noun > 9, "action": (verb > 6) | (noun > 9)}
    for column, result in results.items():
        masks = {"overall": np.ones(num_test, dtype=bool), "unseen": unseen, "tail": tail[column]}
        assert [part.part for part in result.parts] == list(masks)
        for part in result.parts:
            chosen = np.flatnonzero(masks[part.part]).tolist()
            mine = [truth[column][k] for k in chosen]
            expected = slow_recall([ranked[column][k] for k in chosen], mine)
            assert part.recall.encoder.value == pytest.approx(expected, rel=1e-9), (column, part.part)
            assert result.metrics[f"{part.part}_{column}_mt5r"] == pytest.approx(expected, rel=1e-9)
            assert part.num_actions == len(chosen)
            if column != "action":
                order = np.argsort(np.bincount(train[column]), kind="stable")[::-1].tolist()
                last = repeat_last[:, 0 if column == "verb" else 1]
                repeated = [([int(last[k])] if last[k] >= 0 else []) + order for k in chosen]
                repeated = [list(dict.fromkeys(answer)) for answer in repeated]
                assert part.repeat_last.value == pytest.approx(slow_recall(repeated, mine), rel=1e-9)
                assert part.recall.majority.value == pytest.approx(slow_recall([order] * len(mine), mine), rel=1e-9)
    assert results["action"].num_classes == num_verbs * num_nouns
    assert results["verb"].parts[0].recall.chance == pytest.approx(100 * 5 / 9)
    assert results["verb"].num_unobservable == num_early
    assert results["verb"].num_test_videos == 9

    with pytest.raises(ValueError, match="need labels of 87 test actions, got 86"):
        dataclasses.replace(task, unobservable=[*task.unobservable, action("z", 0.1)]).check()
    with pytest.raises(ValueError, match="can be answered, not judged"):
        dataclasses.replace(task, labels=None).measure([Answers(0, answers, None)])
    answers.scores["verb"][5, 2] = np.nan
    with pytest.raises(ValueError, match="segment 5 are not all finite"):
        task.measure([Answers(0, answers, None)])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("modalities", [("video",), ("video", "audio")])
def test_a_kitchen_is_judged_and_its_submission_scores_the_same(modalities: tuple[str, ...], tmp_path: Path) -> None:
    kitchen, store = sounding_kitchen()
    torch.manual_seed(0)
    task = TASKS["anticipation"].from_dataset(
        kitchen,
        store,
        split="validation",
        clips=ClipOptions(num_clips=2, modalities=modalities),  # type: ignore[arg-type]
        probe=ProbeOptions(epochs=4, lr=0.05),
    )
    assert isinstance(task, Anticipation)
    encoders = [{"video": R2Plus1D(width=4), "audio": SpecCNN9(width=4)} for _ in range(2)]
    judgement = evaluate_task(
        task,
        encoders[0],  # type: ignore[arg-type]
        baseline_encoders=encoders[1],  # type: ignore[arg-type]
        transforms={"video": VideoCrop(crop_size=32, random=False), "audio": LogMel()},
    )
    results = judgement.result.columns
    assert [result.column for result in results] == ["verb", "noun", "action"]
    num_actions = len(kitchen.actions("validation"))
    assert results[0].num_test_actions == num_actions
    caption = str(task.table(judgement.result).caption)
    assert "The last annotated action repeated, overall: verb" in caption
    path = tmp_path / "anticipation.json"
    notes = task.write_submission(path, judgement.answers[0].encoder, levels=LEVELS)
    assert len(notes) == (1 if task.unobservable else 0)
    score = score_submission(path, kitchen.annotations_path)
    metrics = {name: value for result in results for name, value in result.metrics.items()}
    assert score.counts["segments"] == num_actions
    assert score.metrics == pytest.approx(metrics, rel=1e-6)
    assert any(name.startswith("unseen") for name in metrics)


@pytest.mark.usefixtures("one_thread")
def test_the_test_split_can_be_answered_and_videos_that_are_not_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen, store = sounding_kitchen()
    gone = next(name for name, video in store.videos.items() if video.split == "test")
    monkeypatch.setattr(store, "videos", {name: video for name, video in store.videos.items() if name != gone})
    records = kitchen.actions("test")
    if all(record.video_id == gone for record in records):
        pytest.skip("all test actions are in one video")
    task = Anticipation.from_dataset(kitchen, store, split="test", clips=ClipOptions(), probe=ProbeOptions(epochs=1))
    task.check()
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(len(clips), 1, 3)).astype(np.float32) for clips in (task.train_clips, task.test_clips)]
    answers: ProbeAnswers = task.scores(*features, seed=0, device="cpu")
    (note,) = task.write_submission(tmp_path / "test.zip", answers, levels=LEVELS)
    assert "answered by the frequencies of the training classes" in note
    score = score_submission(tmp_path / "test.zip", kitchen.annotations_path)
    assert (score.metrics, score.counts["segments"]) == ({}, len(records))
