"""Order: which of the two clips around a moment came first, told from how their features differ.

Path of a sample: test moments --features of both clips--> change, after minus before --linear probe--> order right or
not --accuracy--> result; and the nearest changes of other videos --share of the same verb--> result.

An encoder that does not see states can't tell before from after. The probe has no bias, so that it answers a pair and
the same pair the other way round alike (`earmark.evaluation.order_probe`): chance, and any constant answer, is 50 %.
What the audible state change objective of a checkpoint itself makes of the same moments, with their sound, stands
beside where it was trained.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from earmark.clips.moment_pairs import MomentPairs
from earmark.datasets import parents_in
from earmark.evaluation.base import Answers, ClipOptions, RecordCount, Setting, Task
from earmark.evaluation.features import Features, Modality, extract_features
from earmark.evaluation.neighbours import (
    chance_precision,
    nearest_of_other_videos,
    neighbour_precision,
    opposite_pairs,
)
from earmark.evaluation.order_probe import PENALTIES, OrderProbe, choose_penalty, fit_order_probe, share_right
from earmark.evaluation.own_heads import ProjectionHeads
from earmark.evaluation.probe import IGNORED_LABEL, ProbeOptions
from earmark.evaluation.resampling import numbered_groups
from earmark.evaluation.results import Estimate, Row, Score, compare
from earmark.evaluation.retrieval import GALLERY_SIZE

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords

__all__ = ["NUM_NEIGHBOURS", "NeighbourResult", "Order", "OrderAnswers", "OrderResult"]

NUM_NEIGHBOURS = 5
COLUMN = "verb"  # what neighbours are to share

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OrderAnswers:
    """What was told of the test moments.

    Attributes:
        margins: Of the probe, ``(N,)``: positive where it takes the right clip for the first.
        own_margins: Of the objective that the checkpoint was trained with; None without.
        probe: The probe.
        changes: Features after minus before, each divided by its root mean square over training changes, ``(N, D)``.
        appearances: The mean of both, each feature of mean 0 and standard deviation 1 over training, ``(N, D)``.
        chosen: What was chosen for the probe by trying; see `earmark.evaluation.order_probe.choose_penalty`.
    """

    margins: Floats
    own_margins: Floats | None
    probe: OrderProbe
    changes: Floats
    appearances: Floats
    chosen: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class OrderResult:
    """How often the order was told.

    Attributes:
        column: ``order``, or ``order, own objective`` where the checkpoint's own heads told it.
        num_test_moments: Test moments.
        num_test_videos: Videos that these lie in; None where videos were not given.
        accuracy: In %.
        chosen: What the probe was trained with, for each seed.
    """

    column: str
    num_test_moments: int
    num_test_videos: int | None
    accuracy: Score
    chosen: tuple[Mapping[str, float], ...] = ()

    def rows(self) -> list[Row]:
        """Return the one row."""
        return [
            Row(
                f"{self.column}, accuracy",
                self.accuracy,
                self.num_test_moments,
                self.num_test_videos,
                majority_name="same answer for all",
            )
        ]


@dataclass(frozen=True, slots=True)
class NeighbourResult:
    """How often the nearest moments of other videos show the same verb.

    Attributes:
        column: ``neighbours by change`` or ``neighbours by appearance``.
        num_classes: Verbs that occur.
        num_test_moments: Test moments with a verb and with moments of other videos.
        num_test_videos: Videos that these lie in; None where videos were not given.
        precision: Share of the five nearest with the same verb, in %.
        against_opposite: The same where only moments of a verb and of its opposite, such as open and close, are asked
            and found, with the number of them and of their videos; None without such verbs.
    """

    column: str
    num_classes: int
    num_test_moments: int
    num_test_videos: int | None
    precision: Score
    against_opposite: tuple[Score, int, int | None] | None

    def rows(self) -> list[Row]:
        """Return a row for all moments, and one for those of verbs that have an opposite."""
        measured = [(f"same {COLUMN}", (self.precision, self.num_test_moments, self.num_test_videos))]
        if self.against_opposite is not None:
            measured.append((f"not the opposite {COLUMN}", self.against_opposite))
        return [
            Row(f"{self.column}, {what}, P@{NUM_NEIGHBOURS}", *numbers, majority_name=f"most frequent {COLUMN}")
            for what, numbers in measured
        ]


@dataclass(frozen=True)
class Order(Task[OrderAnswers, OrderResult | NeighbourResult]):
    """The task: a linear probe without a bias on the change of frozen features.

    Attributes:
        train_clips: Training moments.
        test_clips: Test moments.
        class_names: Names of the verbs by id; empty where none are annotated.
        probe: Of which the share of held-out videos is used.
        train_videos: Video of each training moment.
        test_videos: Video of each test moment; None takes the moments as independent.
        records: How many moments were used, and which were not and why.
        modalities: The pictures; a checkpoint's own objective also hears the sound.
        heads: Those of the judged checkpoint.
    """

    name: ClassVar[str] = "order"
    title: ClassVar[str] = "Order of the clips around moments, linear probe on their change, % [95 % interval]"
    sample: ClassVar[str] = "moment"

    train_clips: MomentPairs
    test_clips: MomentPairs
    class_names: Sequence[str] = ()
    probe: ProbeOptions = dataclasses.field(default_factory=ProbeOptions)
    train_videos: Sequence[str] | None = None
    test_videos: Sequence[str] | None = None
    records: tuple[RecordCount, ...] = ()
    modalities: tuple[Modality, ...] = ("video",)
    heads: ProjectionHeads | None = None

    @classmethod
    def from_dataset(
        cls,
        dataset: "DatasetRecords",
        store: "PreparedStore",
        *,
        split: str,
        clips: ClipOptions,
        probe: ProbeOptions,
        gap_seconds: float = 0.1,
        max_moments: int = GALLERY_SIZE,
        seed: int = 0,
        heads: ProjectionHeads | None = None,
    ) -> Self:
        """Choose moments and cut their clips; see `Task.from_dataset`.

        Args:
            dataset: Its annotated actions name what the test moments show; they are not needed for the order.
            store: The prepared videos with their moments.
            split: Split to judge on; the probe is trained on ``train``.
            clips: Length and rate of the clips, and the length of the sound, which only heads hear.
            probe: How much is held out.
            gap_seconds: Time between the moment and each clip.
            max_moments: How many moments of the split there are at most.
            seed: Of their choice.
            heads: Those of the judged checkpoint.

        Raises:
            ValueError: If there is no usable moment.
        """
        hears = heads is not None and heads.has_state_change
        train, test = (
            MomentPairs(
                store,
                split=part,
                clip_seconds=clips.clip_seconds,
                clip_fps=clips.clip_fps,
                gap_seconds=gap_seconds,
                audio_seconds=clips.audio_seconds if hears else None,
                max_moments=most,
                seed=seed,
                actions=actions,
            )
            for part, most, actions in (
                ("train", None, ()),
                (split, max_moments, dataset.actions(split) if COLUMN in dataset.classes else ()),
            )
        )
        parent = parents_in(dataset)  # moments of one video are not independent, nor are those of its cuts
        return cls(
            train_clips=train,
            test_clips=test,
            class_names=dataset.classes.get(COLUMN, ()),
            probe=probe,
            train_videos=[parent(video_id) for video_id in train.video_ids],
            test_videos=[parent(video_id) for video_id in test.video_ids],
            records=tuple(
                RecordCount(part, len(cut.video_ids), tuple(cut.left_out))
                for part, cut in (("train", train), (split, test))
            ),
            heads=heads,
        )

    @property
    def verbs(self) -> npt.NDArray[np.int64]:
        """What each test moment shows, ``(N,)``; -1 where no annotated action covers it."""
        none = np.full(len(self.test_clips.video_ids), IGNORED_LABEL, np.int64)
        return self.test_clips.labels.get(COLUMN, none)

    def check(self) -> None:
        """Refuse moments without videos to hold out, and labels that are no class."""
        if self.train_videos is None or len(self.train_videos) != len(self.train_clips.video_ids):
            raise ValueError(f"need the video of each of {len(self.train_clips.video_ids)} training moments")
        if self.verbs.max() >= max(1, len(self.class_names)):
            raise ValueError(f"labels of {COLUMN!r} reach to {self.verbs.max()}, need [0, {len(self.class_names)})")

    def answer(self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str) -> list[OrderAnswers]:
        """Train a probe for each seed, and hear what the checkpoint's own heads say; see `Task.answer`."""

        def features(encoder: nn.Module, clips: MomentPairs, part: str, modality: Modality = "video") -> Features:
            return extract_features(
                encoder,
                clips,
                transform=setting.transforms[modality],
                modality=modality,
                options=setting.features,
                device=setting.device,
                seed=setting.seed,
                label=f"features: {label}, {part} moments, {modality}",
            )

        train = features(encoders["video"], self.train_clips, "training")
        test = features(encoders["video"], self.test_clips, "test")
        own_margins = None
        heads = self.heads if self.heads is not None and self.heads.belong_to(encoders) else None
        if heads is not None and heads.has_state_change:
            sounds = features(heads.encoders["audio"], self.test_clips, "test", "audio")
            own_margins = heads.direction_margins(test, sounds[:, 0])
        return [
            dataclasses.replace(self.scores(train, test, seed=seed, device=setting.device), own_margins=own_margins)
            for seed in setting.seeds
        ]

    def scores(
        self,
        train_features: npt.NDArray[np.float32],
        test_features: npt.NDArray[np.float32],
        *,
        seed: int,
        device: torch.device | str,
    ) -> OrderAnswers:
        """Choose a penalty on held-out training videos, train the probe, and apply it to the test moments.

        Args:
            train_features: Of the clips before and after, ``(N_train, 2, D)``.
            test_features: The same of the test moments.
            seed: Of the division of the training videos; nothing else is drawn.
            device: Not used: the problem is solved on the host, in float64.
        """
        assert self.train_videos is not None  # checked
        train, test = (features.astype(np.float64) for features in (train_features, test_features))
        changes, test_changes = train[:, 1] - train[:, 0], test[:, 1] - test[:, 0]
        chosen = choose_penalty(changes, train_videos=self.train_videos, held_out=self.probe.held_out, seed=seed)
        probe = fit_order_probe(changes, penalty=chosen["penalty"])
        seen, shown = train.mean(axis=1), test.mean(axis=1)
        mean, deviation = seen.mean(axis=0), seen.std(axis=0)
        return OrderAnswers(
            margins=probe.margins(test_changes),
            own_margins=None,
            probe=probe,
            changes=test_changes * probe.scale,
            appearances=np.divide(shown - mean, deviation, out=np.zeros_like(shown), where=deviation > 0),
            chosen={"probe": chosen},
        )

    def measure(self, answers: Sequence[Answers[OrderAnswers]]) -> tuple[OrderResult | NeighbourResult, ...]:
        """Return how often the order was told, and how often neighbours show the same verb."""
        ours = [answer.encoder for answer in answers]
        theirs = [answer.baseline for answer in answers if answer.baseline is not None]
        videos = None if self.test_videos is None else np.asarray(self.test_videos)
        results: list[OrderResult | NeighbourResult] = [
            self._accuracy(
                "order",
                np.stack([of.margins for of in ours]),
                np.stack([of.margins for of in theirs]) if theirs else None,
                videos,
                tuple(of.chosen["probe"] for of in ours),
            )
        ]
        own = ours[0].own_margins  # heads are not trained here: one answer for all seeds
        if own is not None:
            results.append(self._accuracy("order, own objective", own, None, videos, ()))
        verbs = self.verbs
        known = verbs != IGNORED_LABEL
        groups, _ = numbered_groups(videos, len(verbs))
        if len(np.unique(groups[known])) > 1:  # neighbours are looked for in other videos
            results += [self._precision(what, known, groups, ours, theirs, videos) for what in ("change", "appearance")]
        return tuple(results)

    def options(self) -> dict[str, Any]:
        """Return how the probe was chosen, and what the clips are."""
        return {
            "probe": {
                "kind": "antisymmetric linear",
                "penalties": list(PENALTIES),
                "held_out": self.probe.held_out,
            },
            "clip_seconds": self.test_clips.clip_seconds,
            "gap_seconds": self.test_clips.gap_seconds,
            "moments_without_verb": int((self.verbs == IGNORED_LABEL).sum()),
        }

    def _accuracy(
        self,
        column: str,
        ours: Floats,
        theirs: Floats | None,
        videos: npt.NDArray[np.str_] | None,
        chosen: tuple[Mapping[str, float], ...],
    ) -> OrderResult:
        num_moments = ours.shape[-1]
        score = compare(
            share_right(ours),
            baseline=None if theirs is None else share_right(theirs),
            majority=np.full(num_moments, 0.5),
            chance=50.0,
            videos=videos,
        )
        # a constant answer is right for one of a pair's two orders, whatever the videos are
        score = dataclasses.replace(score, majority=Estimate(50.0, 50.0, 50.0))
        return OrderResult(column, num_moments, None if videos is None else len(np.unique(videos)), score, chosen)

    def _precision(
        self,
        what: str,
        known: npt.NDArray[np.bool_],
        groups: npt.NDArray[np.int64],
        ours: Sequence[OrderAnswers],
        theirs: Sequence[OrderAnswers],
        videos: npt.NDArray[np.str_] | None,
    ) -> NeighbourResult:
        """Measure neighbours among the moments that have a verb, and among those of a verb and its opposite."""
        verbs, of_video = self.verbs[known], groups[known]
        judged = None if videos is None else videos[known]
        pairs = [np.isin(verbs, pair) for pair in opposite_pairs(self.class_names)]

        def score(galleries: Sequence[npt.NDArray[np.bool_]]) -> tuple[Score, int, int | None] | None:
            """Compare within each gallery, of moments of which each is in one of them at most."""
            chance, most_frequent = np.full(len(verbs), np.nan), np.zeros(len(verbs), bool)
            for gallery in galleries:
                if gallery.any():
                    chance[gallery] = chance_precision(verbs[gallery], of_video[gallery])
                    most_frequent[gallery] = verbs[gallery] == np.bincount(verbs[gallery]).argmax()
            has_others = ~np.isnan(chance)
            if not has_others.any():
                return None

            def precision(of: OrderAnswers) -> Floats:
                vectors = {"change": of.changes, "appearance": of.appearances}[what][known]
                found = np.full(len(verbs), np.nan)
                for gallery in galleries:
                    if gallery.any():
                        nearest = nearest_of_other_videos(vectors[gallery], of_video[gallery], k=NUM_NEIGHBOURS)
                        found[gallery] = neighbour_precision(nearest, verbs[gallery])
                kept: Floats = found[has_others]
                return kept

            of_moments = None if judged is None else judged[has_others]
            compared = compare(
                np.stack([precision(of) for of in ours]),
                baseline=np.stack([precision(of) for of in theirs]) if theirs else None,
                majority=most_frequent[has_others],
                chance=100 * float(chance[has_others].mean()),
                videos=of_moments,
            )
            return compared, int(has_others.sum()), None if of_moments is None else len(np.unique(of_moments))

        among_all = score([np.ones(len(verbs), bool)])
        assert among_all is not None  # there are verbs in several videos
        precision, num_moments, num_videos = among_all
        return NeighbourResult(
            column=f"neighbours by {what}",
            num_classes=len(np.unique(verbs)),
            num_test_moments=num_moments,
            num_test_videos=num_videos,
            precision=precision,
            against_opposite=score(pairs),
        )
