"""Ego4D's long-term action anticipation: the next 20 verbs and nouns, told from clips of the last few actions.

Path of a sample: clips of the seen actions --features, once for each action--> windows of them --head--> distributions
of each coming verb and noun --K sequences, drawn or most probable--> edit distance --> result.

The score of drawn sequences is random: it is the mean over several draws, each from its own seed, and the spread over
them is told. Windows whose seen actions can't be read are left out, counted and named; a submission answers them, too.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table

from earmark.datasets import NUM_COMING, Ego4D
from earmark.evaluation.base import Answers, ClipOptions, RecordCount, Task
from earmark.evaluation.ego4d_submissions import NUM_CANDIDATES, write_anticipation_submission
from earmark.evaluation.features import LabelledClips, Modality
from earmark.evaluation.long_term_anticipation_head import AGGREGATORS, HeadOptions, fit_anticipation_head
from earmark.evaluation.long_term_anticipation_results import (
    Decoding,
    LongTermAnswers,
    LongTermResult,
    measure_sequences,
    uniform_draws,
)
from earmark.evaluation.long_term_anticipation_sequences import (
    most_frequent_classes,
    most_probable_sequences,
    sample_sequences,
)
from earmark.evaluation.long_term_anticipation_windows import COLUMNS, Windows, action_runs, cut_windows
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.submission_files import SupervisionLevels
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords
    from earmark.evaluation.results import TaskResult

__all__ = ["LongTermAnticipation"]

MAX_NAMED = 5  # windows in a sentence


@dataclass(frozen=True)
class LongTermAnticipation(Task[LongTermAnswers, LongTermResult]):
    """The task: a head on the features of the seen actions.

    Attributes:
        train_clips: Clips of the actions that some training window sees.
        test_clips: Clips of those that some test window sees.
        train_windows: Windows of training actions.
        test_windows: Windows to judge.
        class_names: Names of the classes of ``verb`` and ``noun``, by id.
        head: How the head is built and trained.
        train_runs: Verb and noun of consecutive training actions, each run of shape ``(n, 2)``; for the answers that
            need no encoder.
        num_coming: Z.
        num_draws: How often sequences are drawn.
        decoding: What comes first in the table, and is written to a submission.
        train_videos: Video of each training window.
        test_videos: Video of each test window.
        records: How many windows were used, and which were not and why.
        modalities: What of a clip is looked at.
    """

    name: ClassVar[str] = "lta"
    title: ClassVar[str] = "Long-term action anticipation, edit distance [95 % interval]"
    sample: ClassVar[str] = "window"

    train_clips: LabelledClips
    test_clips: LabelledClips
    train_windows: Windows
    test_windows: Windows
    class_names: dict[str, list[str]]
    head: HeadOptions = field(default_factory=HeadOptions)
    train_runs: Sequence[npt.NDArray[np.int64]] = ()
    num_coming: int = NUM_COMING
    num_draws: int = 5
    decoding: Decoding = "sampled"
    train_videos: Sequence[str] | None = None
    test_videos: Sequence[str] | None = None
    records: tuple[RecordCount, ...] = ()
    modalities: tuple[Modality, ...] = ("video",)

    @property
    def is_labelled(self) -> bool:
        """Whether the coming actions of the test windows are known; those of the challenge are held back."""
        return bool(self.test_windows.coming)

    @classmethod
    def from_dataset(
        cls,
        dataset: "DatasetRecords",
        store: "PreparedStore",
        *,
        split: str,
        clips: ClipOptions,
        probe: ProbeOptions,
        head: HeadOptions | None = None,
        num_seen: int | None = None,
        decoding: Decoding = "sampled",
    ) -> Self:
        """Cut the windows of Ego4D's annotated clips, and the clips of the actions that they see.

        Args:
            dataset: Ego4D.
            store: Its prepared videos.
            split: Split to judge on; of ``test``, whose coming actions are held back, each visible action from the I-th
                of its clip on ends a window.
            clips: Which clips of each action.
            probe: Of a head that is not given, epochs, batch size and what is chosen among.
            head: How the head is built and trained; None for the default one.
            num_seen: I; None for the number that the aggregator has in the official task.
            decoding: What comes first in the table, and is written to a submission.

        Raises:
            ValueError: If the data set has no such annotations, or no window is usable.
        """
        if not isinstance(dataset, Ego4D):
            raise ValueError(f"data set {dataset.name} has no annotations of long-term anticipation; Ego4D has")
        head = head or _head_of(probe)
        num_seen = num_seen or AGGREGATORS[head.aggregator]
        cut = {}
        annotated = {part: dataset.anticipation_clips(part) for part in dict.fromkeys(("train", split))}
        for part, of_part in annotated.items():
            cut[part] = cut_windows(
                store,
                of_part,
                split=part,
                clips=cls._clips_of(part, clips),
                num_seen=num_seen,
                num_coming=0 if part == "test" else NUM_COMING,
                labelled=part != "test",
                protocol="published" if cls.is_published else "full",
                parent_of=dataset.parent_of,
            )
        (train_clips, train_windows, _), (test_clips, test_windows, _) = cut["train"], cut[split]
        return cls(
            train_clips=train_clips,
            test_clips=test_clips,
            train_windows=train_windows,
            test_windows=test_windows,
            class_names={column: list(dataset.classes[column]) for column in COLUMNS},
            head=head,
            train_runs=action_runs(annotated["train"]),
            decoding=decoding,
            train_videos=train_windows.videos,
            test_videos=test_windows.videos,
            records=tuple(count for _, _, count in cut.values()),
            modalities=clips.modalities,
        )

    is_published: ClassVar[bool] = False

    @staticmethod
    def _clips_of(part: str, clips: ClipOptions) -> ClipOptions:
        """Return which clips are cut of a part."""
        return clips

    def check(self) -> None:
        """Refuse labels, classes and clips that do not fit together."""
        for part, clips, windows in (
            ("training", self.train_clips, self.train_windows),
            ("test", self.test_clips, self.test_windows),
        ):
            num_actions = int(clips.action_of_item.max()) + 1
            if windows.seen.min() < 0 or windows.seen.max() >= num_actions:
                raise ValueError(f"{part} windows see actions that are not among the {num_actions} with clips")
            if part == "test" and not self.is_labelled:
                continue
            for column, names in self.class_names.items():
                labels = windows.coming.get(column)
                if labels is None or labels.shape[1] != self.num_coming:
                    shape = None if labels is None else labels.shape
                    raise ValueError(f"{part} windows need {self.num_coming} coming labels of {column!r}, got {shape}")
                if not 0 <= labels.min() <= labels.max() < len(names):
                    raise ValueError(
                        f"{part} labels of {column!r} reach from {labels.min()} to {labels.max()}, need "
                        f"[0, {len(names)})"
                    )
        if self.train_windows.seen.shape[1] != self.test_windows.seen.shape[1]:
            raise ValueError("training and test windows see different numbers of actions")
        if not self.train_runs:
            raise ValueError("without training actions there is nothing to compare with")

    def scores(
        self,
        train_features: npt.NDArray[np.float32],
        test_features: npt.NDArray[np.float32],
        *,
        seed: int,
        device: torch.device | str,
    ) -> LongTermAnswers:
        """Train the head, and answer with drawn and with most probable sequences.

        Args:
            train_features: Of the actions of `train_clips`, shape ``(A, M, D)``.
            test_features: Of those of `test_clips`.
            seed: Of the head, and of what is drawn.
            device: Where to train.
        """
        fitted = fit_anticipation_head(
            train_features,
            self.train_windows,
            num_classes={column: len(names) for column, names in self.class_names.items()},
            options=self.head,
            seed=seed,
            device=device,
        )
        shape = (len(self.test_windows), self.num_coming, NUM_CANDIDATES)
        uniform = {
            column: [uniform_draws(seed=seed, draw=draw, column=column, shape=shape) for draw in range(self.num_draws)]
            for column in COLUMNS
        }
        sampled: dict[str, list[list[npt.NDArray[np.int64]]]] = {
            column: [[] for _ in range(self.num_draws)] for column in COLUMNS
        }
        probable: dict[str, list[npt.NDArray[np.int64]]] = {column: [] for column in COLUMNS}
        start = 0
        for found in fitted.distributions(test_features, self.test_windows.seen):
            rows = slice(start, start + len(found[COLUMNS[0]]))
            start = rows.stop
            for column, probabilities in found.items():
                with np.errstate(divide="ignore"):
                    probable[column].append(most_probable_sequences(np.log(probabilities), NUM_CANDIDATES))
                for draw in range(self.num_draws):
                    sampled[column][draw].append(sample_sequences(probabilities, uniform[column][draw][rows]))
        return LongTermAnswers(
            sampled={
                column: np.stack([np.concatenate(parts) for parts in of_draws]) for column, of_draws in sampled.items()
            },
            most_probable={column: np.concatenate(parts) for column, parts in probable.items()},
            chosen={" and ".join(COLUMNS): fitted.chosen} if fitted.chosen else {},
        )

    def measure(self, answers: Sequence[Answers[LongTermAnswers]]) -> tuple[LongTermResult, ...]:
        """Return the edit distances of verb, noun and action; see `measure_sequences`."""
        if not self.is_labelled:
            raise ValueError("the coming actions are not known: windows can be answered, not judged")
        return measure_sequences(
            answers,
            self.test_windows,
            num_classes={column: len(names) for column, names in self.class_names.items()},
            num_train_windows=len(self.train_windows),
            train_runs=self.train_runs,
            decoding=self.decoding,
            official=self.is_published,
        )

    def options(self) -> dict[str, Any]:
        """Return how the head is built and trained, what a window is, and how it is answered."""
        return {
            "anticipation_head": dataclasses.asdict(self.head),
            "num_seen": self.train_windows.seen.shape[1],
            "num_coming": self.num_coming,
            "num_sequences": NUM_CANDIDATES,
            "num_draws": self.num_draws,
            "decoding": self.decoding,
            "train_clips_per_action": len(self.train_clips) // (int(self.train_clips.action_of_item.max()) + 1),
            "test_clips_per_action": len(self.test_clips) // (int(self.test_clips.action_of_item.max()) + 1),
        }

    def also_measured(self, result: "TaskResult[LongTermResult]") -> tuple[str, ...]:
        """Return what needs no encoder, and the spread over draws."""
        return tuple(
            f"{heading} {'; '.join(others)}" for heading, others in (column.beside() for column in result.columns)
        )

    def table(self, result: "TaskResult[LongTermResult]") -> Table:
        """Return the table, with lines on the spread over draws and on the answers that need no encoder."""
        table = super().table(result)
        lines = [f"Majority: {result.columns[0].others[0].name}"]
        for column in result.columns:
            heading, others = column.beside()
            lines += [heading, *(f"  {line}" for line in others)]
        if result.published is not None:
            last = f"ED_{self.num_coming - 1}"
            numbers = [
                f"{column.column} {column.metrics[f'{column.column}_{last}']:.4f}"
                for column in result.published.columns
            ]
            lines.append(f"published: {last} in batches, as the official code has it: {', '.join(numbers)}")
        table.caption = "\n".join([*([str(table.caption)] if table.caption else []), *lines])
        return table

    def write_submission(self, path: Path, scores: LongTermAnswers, *, levels: SupervisionLevels) -> tuple[str, ...]:
        """Write the file of Ego4D's long-term anticipation challenge.

        Windows whose seen actions can't be read are answered by the most frequent verbs and nouns of training: the
        challenge takes a file of all windows or none.

        Args:
            path: The file.
            scores: Answers to the test windows; of several draws the first is written.
            levels: Not part of this file.

        Returns:
            How many windows are answered unseen, where there are any.

        Raises:
            ValueError: As `earmark.evaluation.ego4d_submissions.write_anticipation_submission`.
            OSError: Naming the file, if it cannot be written.
        """
        unseen = [name for name, _ in self.records[-1].left_out]
        every = np.concatenate(list(self.train_runs))
        sequences = []
        for place, column in enumerate(COLUMNS):
            answered = scores.sampled[column][0] if self.decoding == "sampled" else scores.most_probable[column]
            frequent = most_frequent_classes(every[:, place], answered.shape[2])
            others = np.broadcast_to(frequent, (len(unseen), *answered.shape[1:]))
            sequences.append(np.concatenate([answered, others]).transpose(0, 2, 1))
        write_anticipation_submission(path, [*self.test_windows.window_ids, *unseen], *sequences)
        if not unseen:
            return ()
        named = ", ".join(unseen[:MAX_NAMED]) + (" and others" if len(unseen) > MAX_NAMED else "")
        return (
            f"{counted(len(unseen), 'window')} of {len(unseen) + len(self.test_windows):,} without clips have the most "
            f"frequent verbs and nouns of training for an answer: {named}",
        )


def _head_of(probe: ProbeOptions) -> HeadOptions:
    """Return the default head, with what the options of a probe say of training."""
    default = HeadOptions()
    return dataclasses.replace(
        default,
        epochs=probe.epochs,
        batch_size=probe.batch_size,
        lrs=probe.lrs or default.lrs,
        weight_decays=probe.weight_decays or default.weight_decays,
        held_out=probe.held_out,
    )
