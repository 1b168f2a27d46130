"""Sound recognition: which of EPIC-SOUNDS' 44 classes an annotated sound is of, read off frozen features.

Path of a sample: annotated sounds --features--> --probe--> scores --official measures--> result, with and without the
class background.

A sound is heard through windows that are spread over it; their scores are summed, as the challenge sums the views of a
sound.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from earmark.clips.action_clips import ActionClips
from earmark.datasets import parent_of, sounds_of
from earmark.evaluation.action_recognition import ClassAccuracy
from earmark.evaluation.base import Answers, ClipOptions, RecordCount, Task
from earmark.evaluation.epic_metrics import rank_classes
from earmark.evaluation.epic_sounds_metrics import BACKGROUND, sound_recognition_metrics
from earmark.evaluation.features import LabelledClips, Modality
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.probing import ProbeAnswers, fit_probe
from earmark.evaluation.resampling import (
    Measure,
    class_mean_recall_measure,
    compare_measures,
    mean_area_measure,
    mean_average_precision_measure,
    numbered_groups,
    sample_curves,
)
from earmark.evaluation.results import Row, Score, compare
from earmark.evaluation.sound_submissions import write_sound_submission
from earmark.evaluation.submission_files import SupervisionLevels

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import ActionRecord, DatasetRecords

__all__ = [
    "SoundRecognition",
    "SoundSetResult",
    "log_frequencies",
    "modality_code",
    "sound_windows",
    "unheard_note",
]

COLUMN = "sound"
SETS = ("without background", "with background")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SoundSetResult:
    """What was measured on the test sounds with or without those of the class background.

    Attributes:
        column: ``without background``, as the challenge has it, or ``with background``.
        num_classes: Number of classes that there are scores of; leaving out background leaves its score.
        num_train_sounds: Training sounds.
        num_test_sounds: Test sounds: what the accuracies are shares of.
        num_test_videos: Videos that these lie in, which the intervals rest on; None where videos were not given.
        top1: Accuracy of the first guess, in %.
        top5: Accuracy of the first five guesses, in %.
        mean_class_accuracy: mCA in %.
        mean_average_precision: mAP in %.
        mean_area: mAUC in % (officially it is a share); None where no class has one.
        metrics: The official measures under their names and in their units, mean over seeds.
        majority_metrics: The same of the training classes' frequencies as scores.
        classes: The classes that occur among the test sounds, by id; `ClassAccuracy.num_actions` counts sounds.
        chosen: What the probe was trained with, for each seed; see `earmark.evaluation.probing.ProbeAnswers`.
    """

    column: str
    num_classes: int
    num_train_sounds: int
    num_test_sounds: int
    num_test_videos: int | None
    top1: Score
    top5: Score
    mean_class_accuracy: Score
    mean_average_precision: Score
    mean_area: Score | None
    metrics: dict[str, float]
    majority_metrics: dict[str, float]
    classes: tuple[ClassAccuracy, ...]
    chosen: tuple[Mapping[str, float], ...] = ()

    def rows(self) -> list[Row]:
        """Return one row for each measure."""
        scores = {
            "top-1": self.top1,
            "top-5": self.top5,
            "mCA": self.mean_class_accuracy,
            "mAP": self.mean_average_precision,
            "mAUC": self.mean_area,
        }
        return [
            Row(f"{self.column}, {name}", score, self.num_test_sounds, self.num_test_videos)
            for name, score in scores.items()
            if score is not None
        ]


@dataclass(frozen=True)
class SoundRecognition(Task[ProbeAnswers, SoundSetResult]):
    """The task: a probe for the class of each sound.

    Attributes:
        train_clips: Windows of the training sounds, labelled ``sound``.
        test_clips: Windows of the test sounds; without labels they can be answered, not judged.
        class_names: Names of the classes by id.
        probe: How the probe is trained.
        train_videos: Video of each training sound; None where it is not known.
        test_videos: Video of each test sound; None takes the sounds as independent.
        test_ids: Id of each test sound; empty where no submission is to be written.
        unheard_ids: Ids of test sounds that there is nothing of to hear; a submission answers them by the frequencies
            of the training classes.
        records: How many sounds were used, and which were not and why.
        modalities: What of a sound is looked at.
    """

    name: ClassVar[str] = "sound_recognition"
    title: ClassVar[str] = "EPIC-SOUNDS recognition, probe on frozen features, % [95 % interval]"
    sample: ClassVar[str] = "sound"

    train_clips: LabelledClips
    test_clips: LabelledClips
    class_names: Sequence[str]
    probe: ProbeOptions = field(default_factory=ProbeOptions)
    train_videos: Sequence[str] | None = None
    test_videos: Sequence[str] | None = None
    test_ids: Sequence[str] = ()
    unheard_ids: Sequence[str] = ()
    records: tuple[RecordCount, ...] = ()
    modalities: tuple[Modality, ...] = ("audio",)

    @property
    def is_labelled(self) -> bool:
        """Whether the test sounds have labels; those of the challenge are held back."""
        return COLUMN in self.test_clips.labels

    @property
    def needs_tokens(self) -> bool:
        """Whether the probe takes feature maps before the pool, as the attentive one does."""
        return self.probe.kind == "attentive"

    @classmethod
    def from_dataset(
        cls,
        dataset: "DatasetRecords",
        store: "PreparedStore",
        *,
        split: str,
        clips: ClipOptions,
        probe: ProbeOptions,
    ) -> Self:
        """Cut the windows of the annotated sounds of a data set; see `Task.from_dataset`.

        Sounds of videos without sound are left out of the numbers and named, whatever is looked at.
        """
        sounds = sounds_of(dataset)

        def cut(part: str, num_clips: int) -> ActionClips:
            return sound_windows(store, sounds.actions(part), clips, num_clips=num_clips)

        train = cut("train", probe.epochs if probe.fresh_clips else clips.num_clips)
        test = cut(split, clips.num_clips)
        return cls(
            train_clips=train,
            test_clips=test,
            class_names=sounds.classes[COLUMN],
            probe=probe,
            train_videos=[parent_of(sound.video_id) for sound in train.actions],
            test_videos=[parent_of(sound.video_id) for sound in test.actions],
            test_ids=[sound.action_id for sound in test.actions],
            unheard_ids=[name for name, _ in test.left_out],
            modalities=clips.modalities,
            records=tuple(
                RecordCount(part, len(cut.actions), tuple(cut.left_out))
                for part, cut in (("train", train), (split, test))
            ),
        )

    def check(self) -> None:
        """Refuse labels, classes and videos that do not fit together."""
        num_classes = len(self.class_names)
        for split, clips, videos in (
            ("training", self.train_clips, self.train_videos),
            ("test", self.test_clips, self.test_videos),
        ):
            labels = clips.labels.get(COLUMN)
            if labels is None:
                if split == "training":
                    raise ValueError(f"training sounds have no label {COLUMN!r}; there are {sorted(clips.labels)}")
                continue
            if labels.min() < 0 or labels.max() >= num_classes:
                raise ValueError(f"{split} labels reach from {labels.min()} to {labels.max()}, need [0, {num_classes})")
            if videos is not None and len(videos) != len(labels):
                raise ValueError(f"need one video for each of {len(labels)} {split} sounds, got {len(videos)}")

    def scores(
        self,
        train_features: npt.NDArray[np.float32],
        test_features: npt.NDArray[np.float32],
        *,
        seed: int,
        device: torch.device | str,
    ) -> ProbeAnswers:
        """Train the probe, and sum its scores (logarithms of probabilities) over the windows of each test sound."""
        num_sounds, num_windows = test_features.shape[:2]
        windows = test_features.reshape(num_sounds * num_windows, 1, *test_features.shape[2:])
        answers = fit_probe(
            train_features,
            {COLUMN: self.train_clips.labels[COLUMN]},
            windows,
            num_classes={COLUMN: len(self.class_names)},
            train_videos=self.train_videos,
            options=self.probe,
            seed=seed,
            device=device,
        )
        views = answers.scores[COLUMN].reshape(num_sounds, num_windows, -1)
        return dataclasses.replace(answers, scores={COLUMN: views.sum(axis=1)})

    def measure(self, answers: Sequence[Answers[ProbeAnswers]]) -> tuple[SoundSetResult, ...]:
        """Return the official measures without background, and where there is any also with it."""
        labels = self.test_clips.labels.get(COLUMN)
        if labels is None:
            raise ValueError("the test sounds have no labels: they can be answered, not judged")
        background = labels == BACKGROUND
        sets = [] if background.all() else [(SETS[0], ~background)]
        if background.any():
            sets.append((SETS[1], np.ones(len(labels), dtype=bool)))
        return tuple(self._measure_set(name, kept, labels, answers) for name, kept in sets)

    def options(self) -> dict[str, Any]:
        """Return the options of the probe, and the number of windows per sound."""
        windows = {"train": self.train_clips, "test": self.test_clips}
        return {
            "probe": dataclasses.asdict(self.probe),
            **{
                f"{part}_windows_per_sound": len(clips) // (int(clips.action_of_item.max()) + 1)
                for part, clips in windows.items()
            },
            "interval_of_class_means": "95 %, Student's t over draws of videos",
        }

    def write_submission(self, path: Path, scores: ProbeAnswers, *, levels: SupervisionLevels) -> tuple[str, ...]:
        """Write the challenge's file of EPIC-SOUNDS' recognition challenge; see `write_sound_submission`.

        Args:
            path: ``.zip`` for the server, or ``.json``.
            scores: Answers to the test samples.
            levels: What the model was trained on.

        Returns:
            What a reader of the file must know, such as sounds that were answered unheard.

        Raises:
            ValueError: If the ids of the sounds are not known; or as `write_sound_submission`.
            OSError: Naming the file, if it cannot be written.
        """
        if not self.test_ids:
            raise ValueError("the ids of the test sounds are not known")
        prior = log_frequencies(self.train_clips.labels[COLUMN], len(self.class_names))
        write_sound_submission(
            path,
            segment_ids=[*self.test_ids, *self.unheard_ids],
            scores=np.concatenate([scores.scores[COLUMN], np.tile(prior, (len(self.unheard_ids), 1))]),
            levels=levels,
            modality=modality_code(self.modalities),
        )
        return unheard_note(self.unheard_ids, "sounds", "the frequencies of the training classes")

    def _measure_set(
        self,
        name: str,
        kept: npt.NDArray[np.bool_],
        labels: npt.NDArray[np.int64],
        answers: Sequence[Answers[ProbeAnswers]],
    ) -> SoundSetResult:
        truth, num_classes = labels[kept], len(self.class_names)
        videos = None if self.test_videos is None else np.asarray(self.test_videos)[kept]
        groups, num_groups = numbered_groups(videos, len(truth))
        train_labels = self.train_clips.labels[COLUMN]
        frequencies = np.bincount(train_labels, minlength=num_classes).astype(np.float64)
        ours = [_SetScores(answer.encoder.scores[COLUMN][kept], truth, groups, num_groups) for answer in answers]
        theirs = [
            _SetScores(answer.baseline.scores[COLUMN][kept], truth, groups, num_groups)
            for answer in answers
            if answer.baseline is not None
        ]
        majority = _SetScores(np.tile(frequencies, (len(truth), 1)), truth, groups, num_groups)

        def top(k: int) -> Score:
            return compare(
                np.stack([of.top(k) for of in ours]),
                baseline=np.stack([of.top(k) for of in theirs]) if theirs else None,
                majority=majority.top(k),
                chance=100.0 * min(k, num_classes) / num_classes,
                videos=videos,
                k=k,
            )

        def over_classes(of: Callable[["_SetScores"], Measure], chance: float) -> Score:
            return compare_measures(
                [of(scores) for scores in ours],
                baseline=[of(scores) for scores in theirs],
                majority=of(majority),
                chance=chance,
                num_groups=num_groups,
            )

        present, counts = np.unique(truth, return_counts=True)
        has_areas = len(present) > 1
        return SoundSetResult(
            column=name,
            num_classes=num_classes,
            num_train_sounds=len(train_labels),
            num_test_sounds=len(truth),
            num_test_videos=None if videos is None else num_groups,
            top1=top(1),
            top5=top(5),
            mean_class_accuracy=over_classes(lambda of: of.mean_class_accuracy, 100.0 / num_classes),
            mean_average_precision=over_classes(
                lambda of: of.mean_average_precision, 100.0 * float(counts.mean()) / len(truth)
            ),
            mean_area=over_classes(lambda of: of.mean_area, 50.0) if has_areas else None,
            metrics=_mean_metrics([of.metrics for of in ours]),
            majority_metrics=majority.metrics,
            classes=tuple(
                ClassAccuracy(
                    self.class_names[label],
                    100.0 * float(np.mean([of.right[truth == label].mean() for of in ours])),
                    100.0 * float(np.mean([of.right[truth == label].mean() for of in theirs])) if theirs else None,
                    int(number),
                )
                for label, number in zip(present.tolist(), counts.tolist(), strict=True)
            ),
            chosen=tuple(answer.encoder.chosen.get(COLUMN, {}) for answer in answers),
        )


class _SetScores:
    """Scores of one encoder and seed on a set of test sounds, and what is measured of them."""

    def __init__(
        self, scores: npt.NDArray[Any], truth: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], num_groups: int
    ) -> None:
        self.metrics = sound_recognition_metrics(scores, truth, with_background=True)  # which also checks them
        self._ranked = rank_classes(scores) == truth[:, None]
        single = np.asarray(scores, dtype=np.float32)  # the measures over classes see these, as officially
        self.right = single.argmax(axis=1) == truth
        curves = sample_curves(single, truth, groups, num_groups=num_groups)
        self.mean_class_accuracy = class_mean_recall_measure(
            self.right, truth, groups, num_groups=num_groups, scale=100.0
        )
        self.mean_average_precision = mean_average_precision_measure(curves, scale=100.0)
        self.mean_area = mean_area_measure(curves, scale=100.0)

    def top(self, k: int) -> npt.NDArray[np.bool_]:
        """Say of each sound whether its class is among the first k answers."""
        return np.asarray(self._ranked[:, :k].any(axis=1))


def sound_windows(
    store: "PreparedStore", sounds: Sequence["ActionRecord"], clips: ClipOptions, *, num_clips: int
) -> ActionClips:
    """Return windows of sounds: of ``audio_seconds`` where sound alone is looked at, else around clips of pictures.

    Raises:
        ValueError: As `ActionClips`.
    """
    has_pictures = "video" in clips.modalities
    return ActionClips(
        store,
        sounds,
        clip_seconds=clips.clip_seconds if has_pictures else clips.audio_seconds,
        clip_fps=clips.clip_fps,
        num_clips=num_clips,
        random=clips.random,
        audio_seconds=clips.audio_seconds,
        pictures=has_pictures,
    )


def log_frequencies(labels: npt.NDArray[np.int64], num_classes: int) -> Floats:
    """Return the logarithms of the classes' shares, shape ``(C,)``; a class that is not there counts as half a sample.

    Args:
        labels: Class ids, -1 where there is none.
        num_classes: C.

    Example:
        >>> np.exp(log_frequencies(np.array([0, 0, 1]), 3)).round(3).tolist()
        [0.571, 0.286, 0.143]
    """
    counts = np.bincount(labels[labels >= 0], minlength=num_classes).astype(np.float64)
    counts[counts == 0] = 0.5
    return np.asarray(np.log(counts / counts.sum()))


def modality_code(modalities: Sequence[Modality]) -> int:
    """Return ``t_mod`` of a submission: 0 sound, 1 picture, 2 both.

    Example:
        >>> modality_code(("audio",)), modality_code(("video",)), modality_code(("video", "audio"))
        (0, 1, 2)
    """
    return 2 if len(set(modalities)) > 1 else ("audio", "video").index(modalities[0])


def unheard_note(ids: Sequence[str], what: str, by: str) -> tuple[str, ...]:
    """Return a line that says which segments of a submission are answered without having been perceived."""
    if not ids:
        return ()
    named = ", ".join(ids[:5]) + (", .." if len(ids) > 5 else "")
    return (f"{len(ids)} {what} that there is nothing of are answered by {by}: {named}",)


def _mean_metrics(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([of[name] for of in metrics])) for name in metrics[0]}
