"""Action anticipation: which verb and noun will follow, told from clips that end a second before the action starts.

Path of a sample: what is observed before annotated actions --features--> --probe--> scores of verbs and nouns
--class-mean recall at 5--> result, of verbs, nouns and actions.

Every action has an answer, as the challenge demands. Those that begin so early in their video that no clip lies before
them are answered by the frequencies of the training classes, and counted.
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

from earmark.clips.observed import ObservedClips
from earmark.datasets import parent_of
from earmark.evaluation.action_parts import TAIL, UNSEEN, action_parts
from earmark.evaluation.action_submissions import write_action_submission
from earmark.evaluation.base import Answers, ClipOptions, RecordCount, Task
from earmark.evaluation.epic_metrics import (
    NOUN_BITS,
    ActionLabels,
    RankedActions,
    anticipation_recalls,
    majority_answers,
    rank_actions,
)
from earmark.evaluation.features import LabelledClips, Modality
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.probing import ProbeAnswers, fit_probe
from earmark.evaluation.resampling import (
    Measure,
    class_mean_recall_measure,
    compare_measures,
    estimate_measure,
    numbered_groups,
)
from earmark.evaluation.results import Estimate, Row, Score
from earmark.evaluation.sound_recognition import log_frequencies, unheard_note
from earmark.evaluation.submission_files import SupervisionLevels
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import ActionRecord, DatasetRecords
    from earmark.evaluation.results import TaskResult

__all__ = ["Anticipation", "PartRecall", "RecallResult", "last_actions"]

TARGETS = ("verb", "noun", "action")
NUM_GUESSES = 5

Classes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PartRecall:
    """Class-mean recall at 5 on a part of the test actions.

    Attributes:
        part: ``overall``, ``unseen`` (participants) or ``tail`` (classes).
        recall: In %.
        repeat_last: Of answering the last action that ended before the observation did, then the most frequent ones, in
            %; it sees labels of the test videos.
        num_actions: Test actions of the part.
        num_test_videos: Videos that these lie in; None where videos were not given.
    """

    part: str
    recall: Score
    repeat_last: Estimate
    num_actions: int
    num_test_videos: int | None


@dataclass(frozen=True, slots=True)
class RecallResult:
    """What was measured for verbs, nouns or actions.

    Attributes:
        column: ``verb``, ``noun`` or ``action``.
        num_classes: Number of classes; of actions, of pairs of a verb and a noun.
        num_train_actions: Training actions that were observed.
        num_test_actions: Test actions.
        num_test_videos: Videos that these lie in; None where videos were not given.
        num_unobservable: Test actions that were answered by the frequencies of the training classes.
        parts: The recalls; a part without actions is not there.
        metrics: Them under their official names, mean over seeds.
        chosen: What the probe was trained with, for each seed, of verbs and of nouns; see
            `earmark.evaluation.probing.ProbeAnswers`.
    """

    column: str
    num_classes: int
    num_train_actions: int
    num_test_actions: int
    num_test_videos: int | None
    num_unobservable: int
    parts: tuple[PartRecall, ...]
    metrics: dict[str, float]
    chosen: tuple[Mapping[str, float], ...] = ()

    def rows(self) -> list[Row]:
        """Return one row for each part."""
        return [
            Row(f"{self.column}, {part.part}", part.recall, part.num_actions, part.num_test_videos)
            for part in self.parts
        ]


@dataclass(frozen=True)
class Anticipation(Task[ProbeAnswers, RecallResult]):
    """The task: probes for verb and noun on what is observed before an action.

    Attributes:
        train_clips: What is observed before the training actions, labelled ``verb`` and ``noun``.
        test_clips: What is observed before the test actions that can be observed.
        labels: What is true of the test actions, those that can be observed first, then the others; None where it is
            not known.
        class_names: Names of the classes of verb and noun, by id.
        probe: How the probes are trained.
        train_videos: Video of each training action; None where it is not known.
        test_videos: Video of each observed test action; None takes the actions as independent.
        test_ids: Id of each observed test action; empty where no submission is to be written.
        unobservable: The other test actions, whose videos are there.
        unseen_ids: Ids of test actions whose videos are not there, which a submission has to answer all the same.
        repeat_last: Verb and noun of the last action that ended before each test action's observation did, -1 where
            there was none, shape ``(N_test, 2)``; None where it is not known.
        records: How many actions were observed, and which were not and why.
        notes: Which lists of parts are not there.
        modalities: What of a clip is looked at.
        observation: ``ahead_seconds`` and ``observed_seconds``.
    """

    name: ClassVar[str] = "anticipation"
    title: ClassVar[str] = "Action anticipation, probe on frozen features, class-mean recall at 5 in % [95 % interval]"
    sample: ClassVar[str] = "action"

    train_clips: LabelledClips
    test_clips: LabelledClips
    labels: ActionLabels | None
    class_names: dict[str, list[str]]
    probe: ProbeOptions = field(default_factory=ProbeOptions)
    train_videos: Sequence[str] | None = None
    test_videos: Sequence[str] | None = None
    test_ids: Sequence[str] = ()
    unobservable: Sequence["ActionRecord"] = ()
    unseen_ids: Sequence[str] = ()
    repeat_last: Classes | None = None
    records: tuple[RecordCount, ...] = ()
    notes: tuple[str, ...] = ()
    modalities: tuple[Modality, ...] = ("video",)
    observation: dict[str, float] = field(default_factory=dict)

    @property
    def is_labelled(self) -> bool:
        """Whether the test actions have labels; those of the challenge are held back."""
        return self.labels is not None

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
        """Cut what is observed before a data set's annotated actions; see `Task.from_dataset`."""

        def cut(part: str, num_clips: int) -> ObservedClips:
            return ObservedClips(
                store,
                dataset.actions(part),
                observed_seconds=max(clips.observed_seconds, clips.clip_seconds),
                clip_seconds=clips.clip_seconds,
                clip_fps=clips.clip_fps,
                num_clips=num_clips,
                random=clips.random,
                audio_seconds=clips.audio_seconds if "audio" in clips.modalities else None,
                pictures="video" in clips.modalities,
            )

        train = cut("train", probe.epochs if probe.fresh_clips else clips.num_clips)
        test = cut(split, clips.num_clips)
        by_id = {action.action_id: action for action in dataset.actions(split)}
        judged = [by_id[action.action_id] for action in (*test.actions, *test.unobservable)]
        observed = {action.action_id for action in judged}
        labels: ActionLabels | None = None
        notes: tuple[str, ...] = ()
        if test.labels:
            labels, notes = _labels_of(dataset, judged, split)
        return cls(
            train_clips=train,
            test_clips=test,
            labels=labels,
            class_names={column: list(dataset.classes[column]) for column in ("verb", "noun")},
            probe=probe,
            train_videos=[parent_of(action.video_id) for action in train.actions],
            test_videos=[parent_of(action.video_id) for action in test.actions],
            test_ids=[action.action_id for action in test.actions],
            unobservable=tuple(test.unobservable),
            unseen_ids=[name for name, _ in test.left_out if name not in observed],
            repeat_last=last_actions(judged, list(by_id.values()), ahead_seconds=test.ahead_seconds)
            if labels is not None
            else None,
            records=tuple(
                RecordCount(part, len(cut.actions), tuple(cut.left_out))
                for part, cut in (("train", train), (split, test))
            ),
            notes=notes,
            modalities=clips.modalities,
            observation={"ahead_seconds": test.ahead_seconds, "observed_seconds": test.observed_seconds},
        )

    def check(self) -> None:
        """Refuse labels, classes and videos that do not fit together."""
        for column, names in self.class_names.items():
            train_labels = self.train_clips.labels.get(column)
            if train_labels is None:
                raise ValueError(
                    f"training actions have no label column {column!r}; there are {sorted(self.train_clips.labels)}"
                )
            truth = np.zeros(0, np.int64) if self.labels is None else getattr(self.labels, column)
            for part, classes in (("training", train_labels), ("test", truth)):
                if len(classes) and not 0 <= classes.min() <= classes.max() < len(names):
                    raise ValueError(
                        f"{part} labels of {column!r} reach from {classes.min()} to {classes.max()}, "
                        f"need [0, {len(names)})"
                    )
        num_observed = int(self.test_clips.action_of_item.max()) + 1
        num_judged = num_observed + len(self.unobservable)
        if self.labels is not None and len(self.labels.verb) != num_judged:
            raise ValueError(f"need labels of {num_judged} test actions, got {len(self.labels.verb)}")
        if self.test_videos is not None and len(self.test_videos) != num_observed:
            raise ValueError(f"need one video for each of {num_observed} test actions, got {len(self.test_videos)}")

    def scores(
        self,
        train_features: npt.NDArray[np.float32],
        test_features: npt.NDArray[np.float32],
        *,
        seed: int,
        device: torch.device | str,
    ) -> ProbeAnswers:
        """Train the probes for verb and noun; see `earmark.evaluation.probing.fit_probe`."""
        return fit_probe(
            train_features,
            {column: self.train_clips.labels[column] for column in self.class_names},
            test_features,
            num_classes={column: len(names) for column, names in self.class_names.items()},
            train_videos=self.train_videos,
            options=self.probe,
            seed=seed,
            device=device,
        )

    def measure(self, answers: Sequence[Answers[ProbeAnswers]]) -> tuple[RecallResult, ...]:
        """Return the recalls of verb, noun and action, each overall, of unseen participants and of tail classes."""
        labels = self.labels
        if labels is None:
            raise ValueError("the test actions have no labels: they can be answered, not judged")

        def ranked(of: ProbeAnswers) -> RankedActions:
            verb, noun = (self._all_scores(of, column, len(self.unobservable)) for column in ("verb", "noun"))
            return rank_actions(verb, noun)

        ours = [ranked(answer.encoder) for answer in answers]
        theirs = [ranked(answer.baseline) for answer in answers if answer.baseline is not None]
        train = [self.train_clips.labels[column] for column in ("verb", "noun")]
        majority = majority_answers(*train, num_segments=len(labels.verb))
        official = [anticipation_recalls(of, labels) for of in ours]
        return tuple(
            dataclasses.replace(
                self._measure_target(target, labels, ours, theirs, majority, official),
                chosen=tuple(answer.encoder.chosen.get(target, {}) for answer in answers),
            )
            for target in TARGETS
        )

    def options(self) -> dict[str, Any]:
        """Return the options of the probe, what is observed, and what of the test is not known."""
        return {
            "probe": dataclasses.asdict(self.probe),
            **self.observation,
            "test_clips_per_action": len(self.test_clips) // (int(self.test_clips.action_of_item.max()) + 1),
            "answered_unobserved": len(self.unobservable),
            "interval_of_class_means": "95 %, Student's t over draws of videos",
            **({"notes": list(self.notes)} if self.notes else {}),
        }

    def table(self, result: "TaskResult[RecallResult]") -> Table:
        """Return the table, with a line on what repeating the last action would give."""
        table = super().table(result)
        repeated = [f"{column.column} {column.parts[0].repeat_last}" for column in result.columns]
        lines = [f"The last annotated action repeated, {result.columns[0].parts[0].part}: {', '.join(repeated)}"]
        if self.unobservable:
            lines.append(f"{counted(len(self.unobservable), 'action')} answered unobserved, by training frequencies")
        lines += self.notes
        table.caption = "\n".join([*([str(table.caption)] if table.caption else []), *lines])
        return table

    def write_submission(self, path: Path, scores: ProbeAnswers, *, levels: SupervisionLevels) -> tuple[str, ...]:
        """Write the challenge's file of EPIC-KITCHENS-100's anticipation challenge; see `write_action_submission`.

        Args:
            path: ``.zip`` for the server, or ``.json``.
            scores: Answers to the test samples.
            levels: What the model was trained on.

        Returns:
            What a reader of the file must know, such as actions that were answered unobserved.

        Raises:
            ValueError: If the ids of the actions are not known; or as `write_action_submission`.
            OSError: Naming the file, if it cannot be written.
        """
        if not self.test_ids:
            raise ValueError("the ids of the test actions are not known")
        num_unobserved = len(self.unobservable) + len(self.unseen_ids)
        verb_scores, noun_scores = (self._all_scores(scores, column, num_unobserved) for column in ("verb", "noun"))
        unobserved = [action.action_id for action in self.unobservable]
        write_action_submission(
            path,
            "action_anticipation",
            segment_ids=[*self.test_ids, *unobserved, *self.unseen_ids],
            verb_scores=verb_scores,
            noun_scores=noun_scores,
            levels=levels,
        )
        return unheard_note([*unobserved, *self.unseen_ids], "actions", "the frequencies of the training classes")

    def _all_scores(self, answers: ProbeAnswers, column: str, num_unobserved: int) -> npt.NDArray[np.float64]:
        """Return scores of the observed actions, and behind them the training classes' frequencies for the others."""
        frequencies = log_frequencies(self.train_clips.labels[column], len(self.class_names[column]))
        observed = answers.scores[column].astype(np.float64)
        return np.concatenate([observed, np.tile(frequencies, (num_unobserved, 1))])

    def _measure_target(
        self,
        target: str,
        labels: ActionLabels,
        ours: Sequence[RankedActions],
        theirs: Sequence[RankedActions],
        majority: RankedActions,
        official: Sequence[dict[str, float]],
    ) -> RecallResult:
        truth = labels.of_task[target]
        videos = None
        if self.test_videos is not None:
            videos = np.array([*self.test_videos, *(parent_of(action.video_id) for action in self.unobservable)])
        num_classes = {column: len(names) for column, names in self.class_names.items()}
        num_classes["action"] = num_classes["verb"] * num_classes["noun"]
        parts = []
        for part, masks in labels.parts.items():
            mask = masks[target]
            if not mask.any():
                continue
            groups, num_groups = numbered_groups(None if videos is None else videos[mask], int(mask.sum()))

            def recall(
                answers: Classes,
                mask: npt.NDArray[np.bool_] = mask,
                groups: Classes = groups,
                num_groups: int = num_groups,
            ) -> Measure:
                right = (answers[mask, :NUM_GUESSES] == truth[mask, None]).any(axis=1)
                return class_mean_recall_measure(right, truth[mask], groups, num_groups=num_groups, scale=100.0)

            frequent = majority.of_task[target]
            parts.append(
                PartRecall(
                    "overall" if part == "all" else part,
                    compare_measures(
                        [recall(of.of_task[target]) for of in ours],
                        baseline=[recall(of.of_task[target]) for of in theirs],
                        majority=recall(frequent),
                        chance=100.0 * min(NUM_GUESSES, num_classes[target]) / num_classes[target],
                        num_groups=num_groups,
                        k=NUM_GUESSES,
                    ),
                    estimate_measure(recall(self._repeated(target, frequent)), num_groups, bounds=(0.0, 100.0)),
                    int(mask.sum()),
                    None if videos is None else num_groups,
                )
            )
        names = [name for name in official[0] if name.endswith(f"_{target}_mt5r")]
        return RecallResult(
            column=target,
            num_classes=num_classes[target],
            num_train_actions=len(self.train_clips.labels["verb"]),
            num_test_actions=len(truth),
            num_test_videos=None if videos is None else len(np.unique(videos)),
            num_unobservable=len(self.unobservable),
            parts=tuple(parts),
            metrics={name: float(np.mean([of[name] for of in official])) for name in names},
        )

    def _repeated(self, target: str, frequent: Classes) -> Classes:
        """Return the last action's class, and then the most frequent others."""
        if self.repeat_last is None:
            return frequent
        verb, noun = self.repeat_last.T
        last = {"verb": verb, "noun": noun, "action": np.where(verb < 0, -1, (verb << NOUN_BITS) | noun)}[target]
        most = frequent[:, :NUM_GUESSES]
        if not (last >= 0).any():
            return most
        repeated = np.concatenate([last[:, None], most[:, : NUM_GUESSES - 1]], axis=1)
        is_frequent = (most[:, : NUM_GUESSES - 1] == last[:, None]).any(axis=1) | (last < 0)
        repeated[is_frequent, : most.shape[1]] = most[is_frequent]
        return repeated


def _labels_of(
    dataset: "DatasetRecords", actions: Sequence["ActionRecord"], split: str
) -> tuple[ActionLabels, tuple[str, ...]]:
    """Return what is true of actions and to which parts of the test they belong, and a line for each part not known."""
    parts = action_parts(dataset, actions, split)
    nowhere = np.zeros(len(actions), dtype=bool)
    labels = ActionLabels(
        verb=np.array([action.labels["verb"] for action in actions], dtype=np.int64),
        noun=np.array([action.labels["noun"] for action in actions], dtype=np.int64),
        unseen=parts.get(UNSEEN, {}).get("action", nowhere),
        tail_verb=parts.get(TAIL, {}).get("verb", nowhere),
        tail_noun=parts.get(TAIL, {}).get("noun", nowhere),
    )
    missing = [part for part in (UNSEEN, TAIL) if part not in parts]
    return labels, tuple(f"No numbers of {part}: no list of them is beside the annotations" for part in missing)


def last_actions(
    actions: Sequence["ActionRecord"], annotated: Sequence["ActionRecord"], *, ahead_seconds: float
) -> Classes:
    """Return verb and noun of the last action in the video that ended before an action's observation did.

    Args:
        actions: To be anticipated.
        annotated: All that is annotated.
        ahead_seconds: From the end of what is observed to the start of the action.

    Returns:
        Shape ``(N, 2)``; -1 where there was none.

    Raises:
        ValueError: If an action has no label.
    """
    of_video: dict[str, list[tuple[float, int, int]]] = {}
    for action in annotated:
        row = (action.stop_seconds, action.labels["verb"], action.labels["noun"])
        of_video.setdefault(action.video_id, []).append(row)
    stops = {}
    for video_id, rows in of_video.items():
        rows.sort(key=lambda row: row[0])
        stops[video_id] = np.array([row[0] for row in rows])
    last = np.full((len(actions), 2), -1)
    for number, action in enumerate(actions):
        rows = of_video.get(action.video_id, [])
        if rows:
            place = int(np.searchsorted(stops[action.video_id], action.start_seconds - ahead_seconds, side="right"))
            if place:
                last[number] = rows[place - 1][1:]
    return last
