"""EPIC-SOUNDS recognition: official numbers, summed windows, a kitchen through to its challenge file."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from earmark.clips.transforms import LogMel, VideoCrop
from earmark.datasets import SOUND_CLASSES, EpicSounds, Kitchen
from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.evaluation import (
    TASKS,
    ClipOptions,
    FineTunedSoundRecognition,
    FineTuningOptions,
    ProbeOptions,
    SoundRecognition,
    SupervisionLevels,
    evaluate_task,
    fine_tune,
    score_submission,
)
from earmark.evaluation.base import Answers
from earmark.evaluation.epic_sounds_metrics import BACKGROUND, sound_recognition_metrics
from earmark.evaluation.probing import ProbeAnswers
from earmark.evaluation.sound_recognition import log_frequencies
from earmark.preparation.catalog import SparseStoreError
from tests.helpers.sounding_kitchen import sounding_kitchen

LEVELS = SupervisionLevels(4, 3, 3)


class Labelled:
    """Clips that are known by their labels alone."""

    def __init__(self, labels: npt.NDArray[np.int64], num_clips: int = 1) -> None:
        self.labels = {"sound": labels}
        self.action_of_item = np.repeat(np.arange(len(labels)), num_clips)

    def __len__(self) -> int:
        return len(self.action_of_item)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        raise AssertionError("features are given")


def answers_of(*scores: npt.NDArray[Any], baseline: bool = True) -> list[Answers[ProbeAnswers]]:
    def of(matrix: npt.NDArray[Any]) -> ProbeAnswers:
        return ProbeAnswers({"sound": matrix.astype(np.float32)}, {})

    return [Answers(seed, of(matrix), of(-matrix) if baseline else None) for seed, matrix in enumerate(scores)]


def task_of(train: npt.NDArray[np.int64], test: npt.NDArray[np.int64], num_videos: int = 6) -> SoundRecognition:
    videos = [f"v{number % num_videos}" for number in range(len(test))]
    return SoundRecognition(Labelled(train), Labelled(test), SOUND_CLASSES, test_videos=videos)


def drawn(seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Labels of some of the classes only, with background; scores with ties."""
    rng = np.random.default_rng(seed)
    train = rng.choice([0, 2, 5, 30], size=80)
    test = rng.choice([0, 2, 5, 7, BACKGROUND], size=120)  # 7 is not in training, 30 not in the test
    scores = rng.integers(-6, 3, (120, 44)) / 2
    scores[np.arange(120), test] += 2 * (rng.random(120) < 0.5)
    return train, test, scores.astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_the_official_ones_with_and_without_background(seed: int) -> None:
    train, test, scores = drawn(seed)
    without, with_background = task_of(train, test).measure(answers_of(scores))
    frequencies = np.tile(np.bincount(train, minlength=44), (len(test), 1))
    for result, keep in ((without, False), (with_background, True)):
        official = sound_recognition_metrics(scores, test, with_background=keep)
        assert result.metrics == pytest.approx(official, rel=1e-12)
        assert result.majority_metrics == pytest.approx(
            sound_recognition_metrics(frequencies, test, with_background=keep), rel=1e-12
        )
        assert result.mean_area is not None
        table = {
            "all_interaction_accuracy_at_1": result.top1,
            "all_interaction_accuracy_at_5": result.top5,
            "all_interaction_mCA": result.mean_class_accuracy,
            "all_interaction_mAP": result.mean_average_precision,
        }
        for name, score in table.items():
            assert score.encoder.value == pytest.approx(official[name], rel=1e-9), name
            assert score.majority.value == pytest.approx(result.majority_metrics[name], rel=1e-9), name
            assert score.encoder.low < score.encoder.value < score.encoder.high
            assert score.gain is not None
            assert score.baseline is not None
            assert score.gain.value == pytest.approx(score.encoder.value - score.baseline.value)
        assert result.mean_area.encoder.value == pytest.approx(100 * official["all_interaction_mAUC"], rel=1e-9)
        assert result.mean_area.majority.value == pytest.approx(50.0)
        assert next(row.label for row in result.rows()) == f"{result.column}, top-1"
    assert (without.column, with_background.column) == ("without background", "with background")
    num_background = int((test == BACKGROUND).sum())
    assert with_background.num_test_sounds - without.num_test_sounds == num_background > 0
    assert [of.name for of in without.classes] == [SOUND_CLASSES[label] for label in (0, 2, 5, 7)]
    assert sum(of.num_actions for of in without.classes) == without.num_test_sounds


def test_several_seeds_give_their_mean_and_each_of_them() -> None:
    train, test, scores = drawn(0)
    other = np.random.default_rng(9).normal(size=scores.shape)
    result = task_of(train, test).measure(answers_of(scores, other))[0]
    official = [sound_recognition_metrics(of, test)["all_interaction_mAP"] for of in (scores, other.astype(np.float32))]
    assert result.mean_average_precision.per_seed == pytest.approx(tuple(official))
    assert result.metrics["all_interaction_mAP"] == pytest.approx(np.mean(official))
    assert result.top1.per_seed != result.top1.baseline_per_seed


def test_a_set_of_background_alone_and_one_of_one_class() -> None:
    scores = np.random.default_rng(0).normal(size=(4, 44))
    (only,) = task_of(np.array([1, 2]), np.full(4, BACKGROUND)).measure(answers_of(scores))
    assert (only.column, only.mean_area) == ("with background", None)
    assert len(only.rows()) == 4
    (one_class,) = task_of(np.array([1, 2]), np.full(4, 2)).measure(answers_of(scores, baseline=False))
    assert (one_class.column, one_class.mean_area, one_class.top1.gain) == ("without background", None, None)
    assert "all_interaction_mAUC" not in one_class.metrics


def test_scores_of_the_windows_of_a_sound_are_summed() -> None:
    rng = np.random.default_rng(0)
    train_labels, test_labels = rng.integers(0, 3, 40), rng.integers(0, 3, 12)
    task = SoundRecognition(
        Labelled(train_labels, 2), Labelled(test_labels, 3), SOUND_CLASSES, probe=ProbeOptions(epochs=5, lr=0.1)
    )
    train, test = rng.normal(size=(40, 2, 5)).astype(np.float32), rng.normal(size=(12, 3, 5)).astype(np.float32)
    together = task.scores(train, test, seed=3, device="cpu").scores["sound"]
    one_by_one = [task.scores(train, test[:, [window]], seed=3, device="cpu").scores["sound"] for window in range(3)]
    np.testing.assert_allclose(together, np.sum(one_by_one, axis=0), rtol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    train, test, scores = drawn(0)
    with pytest.raises(ValueError, match="labels reach from 0 to 44"):
        task_of(train, np.append(test, 44)).check()
    with pytest.raises(ValueError, match="one video for each of 120 test sounds, got 1"):
        dataclasses.replace(task_of(train, test), test_videos=["a"]).check()
    unlabelled = task_of(train, test)
    unlabelled.test_clips.labels = {}
    unlabelled.check()
    assert not unlabelled.is_labelled
    with pytest.raises(ValueError, match="can be answered, not judged"):
        unlabelled.measure(answers_of(scores))
    scores[3, 4] = np.nan
    with pytest.raises(ValueError, match="segment 3 are not all finite"):
        task_of(train, test).measure(answers_of(scores))
    with pytest.raises(ValueError, match="ids of the test sounds are not known"):
        task_of(train, test).write_submission(Path("no.json"), answers_of(scores)[0].encoder, levels=LEVELS)


def test_frequencies_of_classes_that_training_lacks_are_half_a_sample() -> None:
    found = np.exp(log_frequencies(np.array([0, 0, 2, -1]), 4))
    np.testing.assert_allclose(found, np.array([2, 0.5, 1, 0.5]) / 4)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("modalities", [("audio",), ("video", "audio")])
def test_a_kitchen_is_judged_and_its_submission_scores_the_same(modalities: Any, tmp_path: Path) -> None:
    kitchen, store = sounding_kitchen()
    torch.manual_seed(0)
    task = TASKS["sound_recognition"].from_dataset(
        kitchen,
        store,
        split="validation",
        clips=ClipOptions(num_clips=2, modalities=modalities),
        probe=ProbeOptions(epochs=4, lr=0.05),
    )
    assert isinstance(task, SoundRecognition)
    encoders = {"video": R2Plus1D(width=4), "audio": SpecCNN9(width=4)}
    others = {"video": R2Plus1D(width=4), "audio": SpecCNN9(width=4)}
    judgement = evaluate_task(
        task,
        {name: encoders[name] for name in modalities},
        baseline_encoders={name: others[name] for name in modalities},
        transforms={"video": VideoCrop(crop_size=32, random=False), "audio": LogMel()},
        num_seeds=2,
    )
    (result,) = judgement.result.columns  # a kitchen has no background
    assert result.num_test_sounds == len(task.test_ids) > 20
    assert len(result.mean_average_precision.per_seed) == 2
    assert judgement.result.headline == result.top1.encoder.value
    assert "mAUC" in "".join(str(cell) for cell in task.table(judgement.result).columns[0].cells)

    path = tmp_path / "validation.json"
    assert task.write_submission(path, judgement.answers[0].encoder, levels=LEVELS) == ()
    score = score_submission(path, kitchen.annotations_path)
    assert score.levels["t_mod"] == (0 if modalities == ("audio",) else 2)
    first = task.measure(judgement.answers[:1])[0]
    assert score.metrics == pytest.approx(first.metrics, rel=1e-6)
    assert score.majority == pytest.approx(first.majority_metrics, rel=1e-6)


@pytest.mark.usefixtures("one_thread")
def test_sounds_of_silent_videos_are_left_out_named_and_answered_by_frequencies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen, store = sounding_kitchen()
    silent = next(name for name, video in store.videos.items() if video.split == "validation")
    changed = {**store.videos, silent: dataclasses.replace(store.videos[silent], has_audio=False)}
    monkeypatch.setattr(store, "videos", changed)
    task = SoundRecognition.from_dataset(
        Kitchen(kitchen.base_path),
        store,
        split="validation",
        clips=ClipOptions(modalities=("audio",)),
        probe=ProbeOptions(),
    )
    left_out = dict(task.records[1].left_out)
    assert len(left_out) == len(task.unheard_ids) > 0
    assert set(left_out.values()) == {f"video {silent!r} has no sound"}
    scores = np.random.default_rng(0).normal(size=(len(task.test_ids), 44)).astype(np.float32)
    (note,) = task.write_submission(tmp_path / "a.json", answers_of(scores)[0].encoder, levels=LEVELS)
    assert note.startswith(f"{len(left_out)} sounds that there is nothing of are answered by the frequencies")
    assert score_submission(tmp_path / "a.json", kitchen.annotations_path).counts["segments"] == len(scores) + len(
        left_out
    )


@pytest.mark.usefixtures("one_thread")
def test_the_test_split_can_be_answered(tmp_path: Path) -> None:
    kitchen, store = sounding_kitchen()
    task = SoundRecognition.from_dataset(
        kitchen, store, split="test", clips=ClipOptions(modalities=("audio",)), probe=ProbeOptions(epochs=1)
    )
    task.check()
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(len(clips), 1, 3)).astype(np.float32) for clips in (task.train_clips, task.test_clips)]
    answers = task.scores(*features, seed=0, device="cpu")
    task.write_submission(tmp_path / "test.zip", answers, levels=LEVELS)
    score = score_submission(tmp_path / "test.zip", kitchen.annotations_path)
    assert (score.metrics, score.counts["segments"]) == ({}, len(task.test_ids))


@pytest.mark.usefixtures("one_thread")
def test_a_fine_tuned_encoder_answers_as_fine_tune_does_and_stays_as_it_was() -> None:
    kitchen, store = sounding_kitchen()
    clips = ClipOptions(num_clips=2, modalities=("audio",), audio_seconds=0.25)
    task = FineTunedSoundRecognition.from_dataset(kitchen, store, split="validation", clips=clips, probe=ProbeOptions())
    task = dataclasses.replace(task, fine_tuning=FineTuningOptions(epochs=2, lr=0.1))
    train, test = task.train_clips, task.test_clips
    for clips_of, moves in ((train, True), (test, False)):  # in training a window lies elsewhere at another visit
        visits = [[clips_of[item, seed]["audio"] for seed in (0, 1)] for item in range(10)]
        assert any(not np.array_equal(*pair) for pair in visits) == moves
    encoder, log_mel = SpecCNN9(width=4), LogMel(sample_rate=store.sample_rate)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    judgement = evaluate_task(task, {"audio": encoder}, transforms={"audio": log_mel}, seed=3)
    alone = fine_tune(
        encoder,
        train,
        test,
        num_classes={"sound": 44},
        train_videos=task.train_videos,
        train_transform=log_mel,
        test_transform=log_mel,
        modality="audio",
        options=task.fine_tuning,
        seed=3,
    )
    np.testing.assert_array_equal(judgement.answers[0].encoder.scores["sound"], alone.scores["sound"])
    np.testing.assert_allclose(np.exp(alone.scores["sound"]).sum(axis=1), 1.0, rtol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert judgement.result.options["fine_tuning"]["epochs"] == 2
    assert "probe" not in judgement.result.options
    with pytest.raises(ValueError, match="one encoder is fine-tuned at a time, not those of video and audio"):
        dataclasses.replace(task, modalities=("video", "audio")).check()
    with pytest.raises(TypeError, match="has no features beforehand"):
        task.scores(np.zeros((1, 1, 4), np.float32), np.zeros((1, 1, 4), np.float32), seed=0, device="cpu")


def test_a_store_of_moments_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kitchen, store = sounding_kitchen()
    monkeypatch.setattr(store, "around_seconds", 1.0)
    options = {"split": "validation", "clips": ClipOptions(modalities=("audio",)), "probe": ProbeOptions()}
    with pytest.raises(SparseStoreError):
        SoundRecognition.from_dataset(kitchen, store, **options)  # type: ignore[arg-type]


def test_the_official_validation_sounds_have_the_published_majority(annotations: Path, tmp_path: Path) -> None:
    """8,002 and 8,035 sounds of 137 videos, whose most frequent class is of 17.26 and 17.19 %."""
    (tmp_path / "annotations").symlink_to(annotations / "epic_sounds")
    sounds = EpicSounds(tmp_path).actions("validation")
    labels = np.array([sound.labels["sound"] for sound in sounds])
    task = SoundRecognition(
        Labelled(labels), Labelled(labels), SOUND_CLASSES, test_videos=[sound.video_id for sound in sounds]
    )
    scores = np.random.default_rng(0).normal(size=(len(labels), 44))
    without, with_background = task.measure(answers_of(scores, baseline=False))
    assert (without.num_test_sounds, with_background.num_test_sounds) == (8002, 8035)
    assert without.num_test_videos == 137
    assert f"{without.top1.majority.value:.2f}" == "17.26"
    assert f"{with_background.top1.majority.value:.2f}" == "17.19"
    assert without.mean_area is not None
    assert without.mean_area.encoder.value == pytest.approx(50, abs=2)
    assert without.mean_area.encoder.low < 50 < without.mean_area.encoder.high
