"""Sound detection: which of EPIC-SOUNDS' sounds are heard from when to when in whole videos, from moments and a probe.

Path of a sample: moments of the store --features--> --probe--> scores of classes --segments around the moments-->
detections --official measure--> result.

The probe learns the class of what is heard at the moments of the training videos, or that it is nothing annotated. How
segments are made of moments is chosen on training videos that are held out. Beside the moments stand as many random
times of each video: what the moments are worth.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table

from earmark.datasets import parent_of, sounds_of
from earmark.evaluation.base import Answers, ClipOptions, RecordCount, Task
from earmark.evaluation.detection_metrics import Events, match_detections
from earmark.evaluation.features import LabelledClips, Modality
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.probe_grid import held_out_rows
from earmark.evaluation.probing import ProbeAnswers, fit_probe
from earmark.evaluation.resampling import Measure, compare_measures, detection_measure
from earmark.evaluation.results import Row, Score, TaskResult, format_table
from earmark.evaluation.sound_candidates import (
    TOLERANCE_SECONDS,
    Candidates,
    candidate_records,
    events_in,
    find_candidates,
    heard_share,
    videos_with_moments,
)
from earmark.evaluation.sound_events import (
    MAX_PER_CLASS,
    ClassExtents,
    DetectionRule,
    choose_rule,
    class_extents,
    detect,
)
from earmark.evaluation.sound_recognition import COLUMN, modality_code, sound_windows, unheard_note
from earmark.evaluation.sound_submissions import write_detection_submission
from earmark.evaluation.submission_files import SupervisionLevels

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords

__all__ = ["DetectionAnswers", "DetectionResult", "SoundDetection"]

MOMENTS, RANDOM_TIMES = "moments", "random times"
LEVELS = tuple(f"mAP at tIoU .{number}" for number in range(1, 6))

Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DetectionAnswers:
    """What is answered at the test candidates.

    Attributes:
        log_probabilities: Of each class, and last of nothing, float32 ``(N, C + 1)``.
        rule: How segments are made.
        held_out_map: Mean average precision on held-out training videos that the rule was chosen by; None where there
            was nothing to choose on, and the rule is the default.
        chosen: What the probe chose by trying.
    """

    log_probabilities: npt.NDArray[np.float32]
    rule: DetectionRule
    held_out_map: float | None
    chosen: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """What was measured with one kind of candidates.

    Attributes:
        column: ``moments`` or ``random times``.
        num_candidates: How many there are.
        num_test_sounds: Annotated sounds.
        num_test_videos: Videos judged.
        at_tiou: Mean average precision at tIoU .1, .2, .3, .4 and .5, in %.
        mean: The mean of these.
        metrics: The official measures under their names, mean over seeds.
        heard_share: Share of the annotated sounds that a candidate is of, in %.
        rules: How segments were made, for each seed.
        held_out_maps: What the rules were chosen by, for each seed.
        chosen: What the probe was trained with, for each seed; see `earmark.evaluation.probing.ProbeAnswers`.
    """

    column: str
    num_candidates: int
    num_test_sounds: int
    num_test_videos: int
    at_tiou: tuple[Score, ...]
    mean: Score
    metrics: dict[str, float]
    heard_share: float
    rules: tuple[DetectionRule, ...]
    held_out_maps: tuple[float | None, ...]
    chosen: tuple[Mapping[str, float], ...] = ()

    def rows(self) -> list[Row]:
        """Return a row for the mean, and one for each tIoU."""
        names = ("mAP", *LEVELS)
        return [
            Row(f"{self.column}, {name}", score, self.num_test_sounds, self.num_test_videos)
            for name, score in zip(names, (self.mean, *self.at_tiou), strict=True)
        ]


@dataclass(frozen=True)
class SoundDetection(Task[DetectionAnswers, DetectionResult]):
    """The task: a probe at moments, and segments made of them.

    Attributes:
        train_clips: Windows at the training candidates, in their order, labelled ``sound``: a class, or C for nothing.
        test_clips: Windows at the test candidates.
        train: Candidates of the training videos: their moments, and annotated onsets that no moment is of.
        test: Candidates of the test videos: their moments, and as many random times.
        class_names: Names of the classes by id, C of them.
        probe: How the probe is trained.
        train_videos: Video of each training candidate.
        test_videos: Video of each test candidate.
        records: How many moments were used, and which videos were not and why.
        modalities: What is looked at.
    """

    name: ClassVar[str] = "sound_detection"
    title: ClassVar[str] = "EPIC-SOUNDS detection, probe at moments, class mAP in % [95 % interval]"
    sample: ClassVar[str] = "moment"

    train_clips: LabelledClips
    test_clips: LabelledClips
    train: Candidates
    test: Candidates
    class_names: Sequence[str]
    probe: ProbeOptions = field(default_factory=ProbeOptions)
    train_videos: Sequence[str] | None = None
    test_videos: Sequence[str] | None = None
    records: tuple[RecordCount, ...] = ()
    modalities: tuple[Modality, ...] = ("audio",)

    @property
    def is_labelled(self) -> bool:
        """Whether sounds of the test videos are annotated; those of the challenge are held back."""
        return len(self.test.annotated.label) > 0

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
        """Take the moments of the videos with annotated sounds; see `Task.from_dataset`."""
        sounds = sounds_of(dataset)
        num_classes = len(sounds.classes[COLUMN])
        windows, candidates, records = {}, {}, []
        train_scores: Floats | None = None
        for part, is_training in (("train", True), (split, False)):
            video_ids, left_out = videos_with_moments(store, sounds, part)
            if train_scores is None:
                train_scores = np.sort(np.concatenate([store.scores[name] for name in video_ids]))
            found = find_candidates(
                store,
                video_ids,
                sounds.actions(part) if part != "test" else (),  # whose sounds are held back
                train_scores,
                num_classes,
                is_training=is_training,
            )
            cut = sound_windows(
                store,
                candidate_records(found),
                clips,
                num_clips=probe.epochs if is_training and probe.fresh_clips else clips.num_clips,
            )
            found = found.some(np.array([int(record.action_id) for record in cut.actions], dtype=np.int64))
            windows[is_training], candidates[is_training] = cut, found
            unused = [(f"{part} candidate {name}", reason) for name, reason in cut.left_out]
            records.append(RecordCount(part, int(found.is_moment.sum()), (*left_out, *unused)))
        train, test = candidates[True], candidates[False]
        return cls(
            train_clips=windows[True],
            test_clips=windows[False],
            train=train,
            test=test,
            class_names=sounds.classes[COLUMN],
            probe=probe,
            train_videos=[parent_of(train.video_ids[number]) for number in train.video.tolist()],
            test_videos=[parent_of(test.video_ids[number]) for number in test.video.tolist()],
            records=tuple(records),
            modalities=clips.modalities,
        )

    def check(self) -> None:
        """Refuse candidates, windows and classes that do not fit together."""
        for part, clips, found in (
            ("training", self.train_clips, self.train),
            ("test", self.test_clips, self.test),
        ):
            num_candidates = int(clips.action_of_item.max()) + 1
            if num_candidates != len(found.times):
                raise ValueError(
                    f"need a {part} window for each of {len(found.times)} candidates, got {num_candidates}"
                )
            if found.labels.min() < 0 or found.labels.max() > len(self.class_names):
                raise ValueError(f"{part} labels must be from 0 to {len(self.class_names)}, which is for nothing")
        if not len(self.train.annotated.label):
            raise ValueError("the training videos have no annotated sound: there is nothing to learn to detect")

    def scores(
        self,
        train_features: npt.NDArray[np.float32],
        test_features: npt.NDArray[np.float32],
        *,
        seed: int,
        device: torch.device | str,
    ) -> DetectionAnswers:
        """Choose how segments are made on held-out training videos, and train the probe on all training videos."""

        def fitted(rows: npt.NDArray[np.bool_], features: npt.NDArray[np.float32]) -> ProbeAnswers:
            return fit_probe(
                train_features if rows.all() else train_features[rows],  # which may lie on the disk
                {COLUMN: self.train.labels[rows]},
                features,
                num_classes={COLUMN: len(self.class_names) + 1},
                train_videos=np.asarray(self.train_videos)[rows].tolist(),
                options=self.probe,
                seed=seed,
                device=device,
            )

        rule, held_out_map = DetectionRule(), None
        held_out = self._held_out(seed)
        if held_out is not None:
            judged = held_out & self.train.is_moment
            answers = fitted(~held_out, train_features[judged]).scores[COLUMN]
            numbers = np.unique(self.train.video[held_out])
            found = self.train.some(judged)
            rule, held_out_map = choose_rule(
                found.in_videos(),
                found.by_video(np.exp(answers.astype(np.float64))),
                events_in(self.train.annotated, numbers),
                self._extents(np.setdiff1d(np.arange(len(self.train.video_ids)), numbers)),
            )
        answers_of_all = fitted(np.ones(len(train_features), dtype=bool), test_features)
        return DetectionAnswers(answers_of_all.scores[COLUMN], rule, held_out_map, answers_of_all.chosen)

    def measure(self, answers: Sequence[Answers[DetectionAnswers]]) -> tuple[DetectionResult, ...]:
        """Return the official measure of detections at moments, and at random times."""
        if not self.is_labelled:
            raise ValueError("the test videos have no annotated sounds: they can be answered, not judged")
        return tuple(
            self._measure_candidates(column, chosen, answers)
            for column, chosen in ((MOMENTS, self.test.is_moment), (RANDOM_TIMES, ~self.test.is_moment))
            if chosen.any()
        )

    def options(self) -> dict[str, Any]:
        """Return the options of the probe, and how candidates are matched and bounded."""
        return {
            "probe": dataclasses.asdict(self.probe),
            "windows_per_candidate": len(self.test_clips) // len(self.test.times),
            "tolerance_seconds": TOLERANCE_SECONDS,
            "detections_per_class_and_video": MAX_PER_CLASS,
            "interval_of_class_means": "95 %, Student's t over draws of videos",
        }

    def table(self, result: TaskResult[DetectionResult]) -> Table:
        """Return the table, whose numbers rest on annotated sounds."""
        return format_table(result, title=self.title, samples="sounds")

    def detections(self, answers: DetectionAnswers) -> Events:
        """Return the sounds that are detected at the moments of the test videos, which `Candidates.video_ids` name.

        Args:
            answers: At all test candidates.
        """
        return self._detected(self.test.is_moment, answers.log_probabilities, answers.rule)

    def write_submission(self, path: Path, scores: DetectionAnswers, *, levels: SupervisionLevels) -> tuple[str, ...]:
        """Write the challenge's file of EPIC-SOUNDS' detection challenge; see `write_detection_submission`.

        Args:
            path: ``.zip`` for the server, or ``.json``.
            scores: Answers to the test samples.
            levels: What the model was trained on.

        Returns:
            What a reader of the file must know, such as videos in which nothing could be detected.

        Raises:
            ValueError: As `write_detection_submission`.
            OSError: Naming the file, if it cannot be written.
        """
        write_detection_submission(
            path,
            video_ids=self.test.video_ids,
            events=self.detections(scores),
            levels=levels,
            modality=modality_code(self.modalities),
        )
        empty = np.setdiff1d(np.arange(len(self.test.video_ids)), self.test.video[self.test.is_moment])
        return unheard_note([self.test.video_ids[number] for number in empty.tolist()], "videos", "no detection")

    def _detected(
        self, chosen: npt.NDArray[np.bool_], log_probabilities: npt.NDArray[Any], rule: DetectionRule
    ) -> Events:
        found = self.test.some(chosen)
        probabilities = np.exp(log_probabilities[chosen].astype(np.float64))
        return detect(found.in_videos(), found.by_video(probabilities), self._extents(None), rule)

    def _extents(self, videos: Classes | None) -> ClassExtents:
        """Return how sounds of some training videos lie about their moments; None for all."""
        train = self.train
        events = train.annotated if videos is None else events_in(train.annotated, videos)
        matched = train.is_moment & (train.labels < len(self.class_names))
        if videos is not None:
            matched &= np.isin(train.video, videos)
        return class_extents(
            events.label,
            events.segment,
            matched_labels=train.labels[matched],
            matched_starts=train.event_starts[matched],
            num_classes=len(self.class_names),
        )

    def _held_out(self, seed: int) -> npt.NDArray[np.bool_] | None:
        """Return which training candidates are held out; None where nothing could be chosen on them."""
        if len(set(self.train_videos or ())) < 2:
            return None
        held_out = held_out_rows(self.train_videos, share=self.probe.held_out, seed=seed)
        videos = self.train.video[held_out]
        there = np.isin(self.train.annotated.video, videos)
        usable = there.any() and (~there).any() and (held_out & self.train.is_moment).any()
        return held_out if usable else None

    def _measure_candidates(
        self, column: str, chosen: npt.NDArray[np.bool_], answers: Sequence[Answers[DetectionAnswers]]
    ) -> DetectionResult:
        num_videos, annotated = len(self.test.video_ids), self.test.annotated

        def measures(log_probabilities: npt.NDArray[Any], rule: DetectionRule) -> list[Measure]:
            matches = match_detections(self._detected(chosen, log_probabilities, rule), annotated)
            return detection_measure(matches, num_videos, scale=100.0)

        ours = [measures(answer.encoder.log_probabilities, answer.encoder.rule) for answer in answers]
        theirs = [
            measures(answer.baseline.log_probabilities, answer.baseline.rule)
            for answer in answers
            if answer.baseline is not None
        ]
        always = np.full(answers[0].encoder.log_probabilities.shape, -np.inf)
        always[:, np.bincount(self.train.annotated.label).argmax()] = 0.0  # the surest are those of the highest score
        majority = measures(always, DetectionRule(score_power=1.0))
        guesses = np.random.default_rng(0).random(always.shape)
        chance = measures(np.log(guesses), DetectionRule())
        everything = np.ones((1, num_videos))

        def score(number: int) -> Score:
            return compare_measures(
                [of[number] for of in ours],
                baseline=[of[number] for of in theirs],
                majority=majority[number],
                chance=float(chance[number](everything)[0]),
                num_groups=num_videos,
            )

        means = np.mean([[float(measure(everything)[0]) for measure in of] for of in ours], axis=0)
        names = [*(f"interaction_map_at_{number:02d}" for number in range(1, len(LEVELS) + 1)), "interaction_map_avg"]
        found = self.test.some(chosen)
        return DetectionResult(
            column=column,
            num_candidates=len(found.times),
            num_test_sounds=len(annotated.label),
            num_test_videos=num_videos,
            at_tiou=tuple(score(number) for number in range(len(LEVELS))),
            mean=score(len(LEVELS)),
            metrics=dict(zip(names, means.tolist(), strict=True)),
            heard_share=100.0 * heard_share(found, annotated),
            rules=tuple(answer.encoder.rule for answer in answers),
            held_out_maps=tuple(answer.encoder.held_out_map for answer in answers),
            chosen=tuple(answer.encoder.chosen.get(COLUMN, {}) for answer in answers),
        )
