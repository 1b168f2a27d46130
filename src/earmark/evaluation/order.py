"""Order: which of the two clips around a moment came first, told from how their features differ.

Path of a sample: test moments --features of both clips--> change, after minus before --linear probe--> order right or
not --accuracy--> result; and the nearest changes of other videos --share of the same verb--> result, among all moments
and among those of a verb and the one that undoes it (`earmark.evaluation.opposite_verbs`).

An encoder that does not see states can't tell before from after. The probe has no bias, so that it answers a pair and
the same pair the other way round alike (`earmark.evaluation.order_probe`): chance, and any constant answer, is 50 %.
What the audible state change objective of a checkpoint itself makes of the same moments, with their sound, stands
beside where it was trained.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from torch import nn

from earmark.clips.moment_pairs import MomentPairs
from earmark.evaluation.base import Answers, Setting
from earmark.evaluation.features import Features, Modality
from earmark.evaluation.moment_map import plane_of_means
from earmark.evaluation.moment_task import MomentTask
from earmark.evaluation.neighbours import (
    chance_precision,
    nearest_of_other_videos,
    neighbour_precision,
    opposite_pairs,
)
from earmark.evaluation.opposite_verbs import (
    CHANGE,
    NUM_NEIGHBOURS,
    VIEWS,
    OppositesResult,
    choose_whitening,
    measure_opposites,
    views_of,
)
from earmark.evaluation.order_probe import PENALTIES, OrderProbe, choose_penalty, fit_order_probe, share_right
from earmark.evaluation.own_heads import ProjectionHeads
from earmark.evaluation.probe import IGNORED_LABEL
from earmark.evaluation.ranking import unit_vectors
from earmark.evaluation.resampling import numbered_groups
from earmark.evaluation.results import Estimate, Row, Score, TaskResult, compare
from earmark.evaluation.whitening import WHITENING_SHRINKAGES

__all__ = ["NeighbourResult", "Order", "OrderAnswers", "OrderResult"]

COLUMN = "verb"  # what neighbours are to share

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OrderAnswers:
    """What was told of the test moments.

    Attributes:
        margins: Of the probe, ``(N,)``: positive where it takes the right clip for the first.
        own_margins: Of the objective that the checkpoint was trained with; None without.
        probe: The probe.
        views: What moments are compared by, of `earmark.evaluation.opposite_verbs.VIEWS`, whitened: ``(N, D)``.
        chosen: What was chosen by trying, for the probe and for the views; see
            `earmark.evaluation.order_probe.choose_penalty` and `earmark.evaluation.opposite_verbs.choose_whitening`.
        planes: By view, ``(2, D)``: in which training moments of verbs that undo one another differ most by direction,
            or of all verbs where there are fewer than two such pairs; for maps. Empty where these have no verbs.
    """

    margins: Floats
    own_margins: Floats | None
    probe: OrderProbe
    views: Mapping[str, Floats]
    chosen: Mapping[str, Mapping[str, float]]
    planes: Mapping[str, Floats] = dataclasses.field(default_factory=dict)


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
    """

    column: str
    num_classes: int
    num_test_moments: int
    num_test_videos: int | None
    precision: Score

    def rows(self) -> list[Row]:
        """Return the one row."""
        return [
            Row(
                f"{self.column}, same {COLUMN}, P@{NUM_NEIGHBOURS}",
                self.precision,
                self.num_test_moments,
                self.num_test_videos,
                majority_name=f"most frequent {COLUMN}",
            )
        ]


@dataclass(frozen=True)
class Order(MomentTask[OrderAnswers, OrderResult | NeighbourResult | OppositesResult]):
    """The task: a linear probe without a bias on the change of frozen features.

    It looks at the pictures; a checkpoint's own objective also hears the sound.
    """

    name: ClassVar[str] = "order"
    title: ClassVar[str] = "Order of the clips around moments, linear probe on their change, % [95 % interval]"
    label_column: ClassVar[str] = COLUMN

    modalities: tuple[Modality, ...] = ("video",)

    @classmethod
    def hears(cls, heads: ProjectionHeads | None) -> bool:
        """Return whether the heads hear the sound: no encoder is judged on it."""
        return heads is not None and heads.has_state_change

    @property
    def verbs(self) -> npt.NDArray[np.int64]:
        """What each test moment shows, ``(N,)``; -1 where no annotated action covers it."""
        return self.labels_of(self.test_clips)

    def answer(self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str) -> list[OrderAnswers]:
        """Train a probe for each seed, and hear what the checkpoint's own heads say; see `Task.answer`."""

        def features(encoder: nn.Module, clips: MomentPairs, part: str, modality: Modality = "video") -> Features:
            return self.features(encoder, clips, setting, modality=modality, label=f"{label}, {part}")

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

        The views that neighbours are looked for by are whitened, each as tells verbs from their opposites best in the
        held-out videos.

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
        views, planes, chosen_of = {}, {}, {"probe": chosen}
        shown = views_of(test)
        labels, pairs = self.labels_of(self.train_clips), opposite_pairs(self.class_names)
        of_pairs = np.isin(labels, pairs)
        mapped = np.where(of_pairs, labels, IGNORED_LABEL) if len(np.unique(labels[of_pairs])) > 2 else labels
        for view, vectors in views_of(train).items():
            whitening, chosen_of[view] = choose_whitening(
                vectors,
                labels,
                train_videos=self.train_videos,
                pairs=pairs,
                centred=view != CHANGE,
                held_out=self.probe.held_out,
                seed=seed,
            )
            views[view] = whitening(shown[view])
            plane = plane_of_means(unit_vectors(whitening(vectors)), mapped)
            if plane is not None:
                planes[view] = plane
        return OrderAnswers(
            margins=probe.margins(test_changes),
            own_margins=None,
            probe=probe,
            views=views,
            chosen=chosen_of,
            planes=planes,
        )

    def measure(
        self, answers: Sequence[Answers[OrderAnswers]]
    ) -> tuple[OrderResult | NeighbourResult | OppositesResult, ...]:
        """Return how often the order was told, and how often neighbours show the same verb, and not its opposite."""
        ours = [answer.encoder for answer in answers]
        theirs = [answer.baseline for answer in answers if answer.baseline is not None]
        videos = None if self.test_videos is None else np.asarray(self.test_videos)
        results: list[OrderResult | NeighbourResult | OppositesResult] = [
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
            results += [self._precision(view, known, groups, ours, theirs, videos) for view in VIEWS[:2]]
        opposites = measure_opposites(
            [of.views for of in ours],
            [of.views for of in theirs],
            labels=verbs,
            videos=videos,
            class_names=self.class_names,
            pairs=opposite_pairs(self.class_names),
        )
        return (*results, opposites) if opposites is not None else tuple(results)

    def also_measured(self, result: TaskResult[OrderResult | NeighbourResult | OppositesResult]) -> tuple[str, ...]:
        """Return how far the change is above what is seen; see `Task.also_measured`."""
        return tuple(column.sentence() for column in result.columns if isinstance(column, OppositesResult))

    def table(self, result: TaskResult[OrderResult | NeighbourResult | OppositesResult]) -> Table:
        """Return the table, with what its rows do not say below."""
        table = super().table(result)
        table.caption = (
            "\n".join([*([str(table.caption)] if table.caption else []), *self.also_measured(result)]) or None
        )
        return table

    def options(self) -> dict[str, Any]:
        """Return how the probe was chosen, and what the clips are."""
        return {
            "probe": {
                "kind": "antisymmetric linear",
                "penalties": list(PENALTIES),
                "held_out": self.probe.held_out,
            },
            "neighbours": {"number": NUM_NEIGHBOURS, "whitening_shrinkages": list(WHITENING_SHRINKAGES)},
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
        view: str,
        known: npt.NDArray[np.bool_],
        groups: npt.NDArray[np.int64],
        ours: Sequence[OrderAnswers],
        theirs: Sequence[OrderAnswers],
        videos: npt.NDArray[np.str_] | None,
    ) -> NeighbourResult:
        """Measure neighbours among the moments that have a verb."""
        verbs, of_video = self.verbs[known], groups[known]
        judged = None if videos is None else videos[known]
        chance = chance_precision(verbs, of_video)

        def precision(of: OrderAnswers) -> Floats:
            nearest = nearest_of_other_videos(of.views[view][known], of_video, k=NUM_NEIGHBOURS)
            return neighbour_precision(nearest, verbs)

        return NeighbourResult(
            column=f"neighbours by {view}",
            num_classes=len(np.unique(verbs)),
            num_test_moments=len(verbs),
            num_test_videos=None if judged is None else len(np.unique(judged)),
            precision=compare(
                np.stack([precision(of) for of in ours]),
                baseline=np.stack([precision(of) for of in theirs]) if theirs else None,
                majority=verbs == np.bincount(verbs).argmax(),
                chance=100 * float(chance.mean()),
                videos=judged,
            ),
        )
