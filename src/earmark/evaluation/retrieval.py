"""Retrieval: the clip that belongs to a sound, and the sound that belongs to a clip, among those of other moments.

Path of a sample: test moments --features of both clips and of the sound--> --linear map--> embeddings --cosine--> ranks
--recall at k, median rank--> result.

The gallery holds each test moment once: N sounds, N clips before and N clips after. A sound is a query among the clips
before and, separately, among the clips after, as in the correspondence loss; a clip is a query among the sounds. A
moment's value is the mean over its two clips, so that chance is k / N both ways.

Every encoder gets the same kind of map, fitted on training moments (`earmark.evaluation.canonical_correlation`): only
so do encoders without projection heads (random, supervised) compare. What a checkpoint's own heads find stands beside.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from torch import nn

from earmark.clips.moment_pairs import MomentPairs
from earmark.evaluation.base import Answers, Setting, WithoutFeatures
from earmark.evaluation.canonical_correlation import SHRINKAGES, choose_shrinkage, fit_linear_map
from earmark.evaluation.features import Features, Modality
from earmark.evaluation.moment_task import MomentTask
from earmark.evaluation.ranking import Ranks, cosine_similarities, median_measure, ranks_of_own
from earmark.evaluation.resampling import compare_measures, numbered_groups
from earmark.evaluation.results import Estimate, Row, Score, compare

__all__ = ["WAYS", "Retrieval", "RetrievalAnswers", "RetrievalResult", "WayRanks"]

WAYS = ("sound to clip", "clip to sound")
KS = (1, 5)
CLIPS = ("before", "after")
CONSTANT = "same list for all"  # what an answer that looks at nothing is

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WayRanks:
    """Ranks both ways, by one map.

    Attributes:
        by_way: For each of `WAYS`, where the right candidate stands: of the clips before, then of those after.
    """

    by_way: Mapping[str, tuple[Ranks, Ranks]]

    @classmethod
    def of_embeddings(cls, clips: Floats, sounds: Floats) -> Self:
        """Rank by the cosine of embeddings.

        Args:
            clips: Before and after, ``(N, 2, K)``.
            sounds: ``(N, K)``.
        """
        own = np.arange(len(sounds))
        similarities = [cosine_similarities(sounds, clips[:, clip]) for clip in range(2)]
        return cls(
            {
                WAYS[0]: (ranks_of_own(similarities[0], own), ranks_of_own(similarities[1], own)),
                WAYS[1]: (ranks_of_own(similarities[0].T, own), ranks_of_own(similarities[1].T, own)),
            }
        )

    def hits(self, way: str, k: int) -> Floats:
        """Return the mean over both clips of each moment of being among the first k, ``(N,)``."""
        before, after = (ranks.hits(k) for ranks in self.by_way[way])
        return (before + after) / 2

    def ranks(self, way: str) -> Floats:
        """Return the ranks of all moments with the clip before, then those with the clip after, ``(2 N,)``."""
        return np.concatenate([ranks.ranks for ranks in self.by_way[way]])


@dataclass(frozen=True, slots=True)
class RetrievalAnswers:
    """What was found.

    Attributes:
        fitted: By the linear map that was fitted on training moments.
        own: By the projection heads of the checkpoint; None without.
        chosen: What was chosen for the map by trying; see `earmark.evaluation.canonical_correlation.choose_shrinkage`.
    """

    fitted: WayRanks
    own: WayRanks | None
    chosen: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """What was measured one way, with one map.

    Attributes:
        column: ``sound to clip`` or ``clip to sound``, with ``own heads`` behind it where they are the map.
        gallery_size: Number of moments, N.
        num_test_videos: Videos that these lie in.
        recall_at_1: In %.
        recall_at_5: In %.
        median_rank: 1 is the best.
        of_clips: The recalls of the clips before and after by themselves, mean over seeds, by name.
        chosen: What was chosen for the map, for each seed.
    """

    column: str
    gallery_size: int
    num_test_videos: int | None
    recall_at_1: Score
    recall_at_5: Score
    median_rank: Score
    of_clips: dict[str, float]
    chosen: tuple[Mapping[str, float], ...] = ()

    def rows(self) -> list[Row]:
        """Return one row for each measure."""
        shared = (self.gallery_size, self.num_test_videos)
        return [
            Row(f"{self.column}, R@1", self.recall_at_1, *shared, majority_name=CONSTANT),
            Row(f"{self.column}, R@5", self.recall_at_5, *shared, majority_name=CONSTANT),
            Row(
                f"{self.column}, median rank",
                self.median_rank,
                *shared,
                unit="",
                higher_is_better=False,
                majority_name=CONSTANT,
            ),
        ]


@dataclass(frozen=True)
class Retrieval(WithoutFeatures, MomentTask[RetrievalAnswers, RetrievalResult]):
    """The task: a linear map of clips and sounds, and what is nearest in it; the test moments are the gallery.

    A moment has two clips and one sound, which no one array of features holds.
    """

    name: ClassVar[str] = "retrieval"
    title: ClassVar[str] = "Retrieval between sound and clip, linear map on frozen features, % [95 % interval]"

    def check(self) -> None:
        """Refuse a gallery in which there is nothing to find, and moments without videos to hold out."""
        if len(self.test_clips.video_ids) < 2:
            raise ValueError(
                f"a gallery needs at least two moments, the test videos have {len(self.test_clips.video_ids)}"
            )
        super().check()

    def answer(self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str) -> list[RetrievalAnswers]:
        """Fit the map for each seed and rank the gallery; see `Task.answer`."""

        def features(clips: MomentPairs, part: str) -> tuple[Features, Features]:
            of_clips, of_sounds = (
                self.features(encoders[modality], clips, setting, modality=modality, label=f"{label}, {part}")
                for modality in self.modalities
            )
            return of_clips, of_sounds[:, 0]

        train, test = features(self.train_clips, "training"), features(self.test_clips, "test")
        heads = self.heads if self.heads is not None and self.heads.belong_to(encoders) else None
        own = None
        if heads is not None and heads.has_correspondence:
            own = WayRanks.of_embeddings(*heads.embeddings(*test))
        return [dataclasses.replace(self._fitted(train, test, seed), own=own) for seed in setting.seeds]

    def _fitted(self, train: tuple[Features, Features], test: tuple[Features, Features], seed: int) -> RetrievalAnswers:
        assert self.train_videos is not None  # checked
        chosen = choose_shrinkage(*train, train_videos=self.train_videos, held_out=self.probe.held_out, seed=seed)
        fitted = fit_linear_map(*train, shrinkage=chosen["shrinkage"])
        ranks = WayRanks.of_embeddings(fitted.clips(test[0]), fitted.sounds(test[1]))
        return RetrievalAnswers(ranks, None, {"map": chosen})

    def measure(self, answers: Sequence[Answers[RetrievalAnswers]]) -> tuple[RetrievalResult, ...]:
        """Return recalls and median ranks both ways, by the fitted map, and by the checkpoint's own heads."""
        ours = [answer.encoder for answer in answers]
        theirs = [answer.baseline for answer in answers if answer.baseline is not None]
        results = [
            self._measure(way, [of.fitted for of in ours], [of.fitted for of in theirs], [of.chosen for of in ours])
            for way in WAYS
        ]
        own = ours[0].own  # heads are not trained here: one answer for all seeds
        if own is not None:
            results += [
                dataclasses.replace(self._measure(way, [own], [], []), column=f"{way}, own heads") for way in WAYS
            ]
        return tuple(results)

    def options(self) -> dict[str, Any]:
        """Return how the map was chosen, and what the gallery is."""
        return {
            "probe": {
                "kind": "canonical correlation",
                "shrinkages": list(SHRINKAGES),
                "held_out": self.probe.held_out,
            },
            "gallery_size": len(self.test_clips.video_ids),
            "clip_seconds": self.test_clips.clip_seconds,
            "gap_seconds": self.test_clips.gap_seconds,
            "interval_of_medians": "95 %, Student's t over draws of videos",
        }

    def _measure(
        self,
        way: str,
        ours: Sequence[WayRanks],
        theirs: Sequence[WayRanks],
        chosen: Sequence[Mapping[str, Mapping[str, float]]],
    ) -> RetrievalResult:
        size = len(self.test_clips.video_ids)
        videos = None if self.test_videos is None else np.asarray(self.test_videos)
        groups, num_groups = numbered_groups(videos, size)
        groups_of_ranks = np.tile(groups, 2)  # of the clips before, then of those after
        one_order = np.arange(1, size + 1, dtype=np.float64)  # ranks where every query gets one and the same list

        def recall(k: int) -> Score:
            score = compare(
                np.stack([of.hits(way, k) for of in ours]),
                baseline=np.stack([of.hits(way, k) for of in theirs]) if theirs else None,
                majority=one_order <= k,
                chance=100.0 * min(k, size) / size,
                videos=videos,
                k=k,
            )
            return _without_interval(score)

        median_rank = compare_measures(
            [median_measure(of.ranks(way), groups_of_ranks, num_groups) for of in ours],
            baseline=[median_measure(of.ranks(way), groups_of_ranks, num_groups) for of in theirs],
            majority=median_measure(one_order, groups, num_groups),
            chance=(size + 1) / 2,
            num_groups=num_groups,
            bounds=(1.0, float(size)),
        )
        return RetrievalResult(
            column=way,
            gallery_size=size,
            num_test_videos=None if videos is None else num_groups,
            recall_at_1=recall(1),
            recall_at_5=recall(5),
            median_rank=_without_interval(median_rank),
            of_clips={
                f"{clip} R@{k}": 100 * float(np.mean([of.by_way[way][number].hits(k).mean() for of in ours]))
                for number, clip in enumerate(CLIPS)
                for k in KS
            },
            chosen=tuple(of.get("map", {}) for of in chosen),
        )


def _without_interval(score: Score) -> Score:
    """Return a score in which one list for all queries has no interval: its ranks are 1 to N in every gallery."""
    value = score.majority.value
    return dataclasses.replace(score, majority=Estimate(value, value, value))
