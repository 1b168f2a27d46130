"""What is measured of Ego4D's state changes: accuracy, and how far the point of no return is missed.

Path of a sample: scores of two heads, and guesses without training --here--> numbers with intervals.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from earmark.clips.state_change_parts import NUM_KEYFRAMES, ChangePart
from earmark.evaluation.metrics import keyframe_error_seconds, majority_correct, top_k_correct
from earmark.evaluation.probing import ProbeAnswers
from earmark.evaluation.results import Row, Score, compare
from earmark.evaluation.untrained_keyframes import SoundGuesses

__all__ = [
    "KeyframeResult",
    "SoundKeyframes",
    "StateChangeAnswers",
    "StateChangeResult",
    "measure_keyframes",
    "measure_sound",
    "measure_state_changes",
]

NEAR_SECONDS = 0.5  # half the length of pretraining's clip on either side
CENTRE = "clip's centre"


@dataclass(frozen=True, slots=True)
class StateChangeAnswers(ProbeAnswers):
    """What both heads say, and where features change most.

    Attributes:
        scores, chosen: See `earmark.evaluation.probing.ProbeAnswers`; the columns are ``state_change`` and
            ``keyframe``.
        change_seconds: Where the features of each test clip change most, in seconds of its file, (N,); None where that
            was not looked for.
    """

    change_seconds: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class StateChangeResult:
    """Whether a state changes.

    Attributes:
        column: ``state_change``.
        num_classes: 2.
        num_train_clips: Annotated clips that the head was trained on, each in several parts.
        num_test_clips: Test clips.
        num_test_videos: Videos that these lie in; None where videos were not given.
        accuracy: In %.
        chosen: What the head was trained with, for each seed.
    """

    column: str
    num_classes: int
    num_train_clips: int
    num_test_clips: int
    num_test_videos: int | None
    accuracy: Score
    chosen: tuple[Mapping[str, float], ...] = ()

    def rows(self) -> list[Row]:
        """Return the one row."""
        return [Row("state change", self.accuracy, self.num_test_clips, self.num_test_videos)]


@dataclass(frozen=True, slots=True)
class SoundKeyframes:
    """How far the sound alone finds points of no return, of the test clips with a change.

    Attributes:
        error_seconds: Of the strongest moment of the clip, mean.
        within: Of it: share of clips with an error of at most half a second, in %.
        median_seconds: Of it.
        num_without_sound: Clips whose videos have no sound; they are answered by their centre, as are the next.
        num_without_moment: Other clips without a moment.
        central_error_seconds: Of the moment nearest to the centre of the clip, mean.
        central_median_seconds: Of it, median.
        nearest_median_seconds: From the point of no return to the nearest moment of the clip, median; this looks at the
            label. None if no clip has a moment, as are the next two.
        nearest_mean_seconds: The same, mean.
        nearest_within: The same, share within half a second in %.
        nearest_num_clips: Clips with a moment, which these are of.
    """

    error_seconds: Score
    within: Score
    median_seconds: float
    num_without_sound: int
    num_without_moment: int
    central_error_seconds: float
    central_median_seconds: float
    nearest_median_seconds: float | None
    nearest_mean_seconds: float | None
    nearest_within: float | None
    nearest_num_clips: int

    def lines(self) -> tuple[str, ...]:
        """Return in sentences what the rows do not say."""
        no_moment = self.num_without_sound + self.num_without_moment
        lines = [
            f"Strongest moment by sound: median error {self.median_seconds:.2f} s; {no_moment} clips answered by "
            f"their centre ({self.num_without_sound} without sound, {self.num_without_moment} without a moment). "
            f"Moment nearest to the centre: mean {self.central_error_seconds:.3f} s, median "
            f"{self.central_median_seconds:.2f} s"
        ]
        if self.nearest_median_seconds is not None:
            lines.append(
                f"Oracle, which looks at the label: nearest moment of {self.nearest_num_clips} clips with one, mean "
                f"{self.nearest_mean_seconds:.3f} s, median {self.nearest_median_seconds:.2f} s, "
                f"{self.nearest_within:.1f} % within {NEAR_SECONDS:g} s"
            )
        return tuple(lines)


@dataclass(frozen=True, slots=True)
class KeyframeResult:
    """How far the point of no return is missed, of the test clips with a change.

    Attributes:
        column: ``keyframe``.
        num_classes: Places that the head chooses among.
        num_train_clips: Annotated clips with a change that the head was trained on.
        num_test_clips: Test clips with a change.
        num_test_videos: Videos that these lie in; None where videos were not given.
        error_seconds: Mean distance.
        within: Share of clips with an error of at most half a second, in %; None of the published protocol.
        change_error_seconds: Mean distance of the peak of change of the features; None where it was not looked for.
        change_within: The same, share within half a second.
        sound: What is found by sound alone; None where there is no store of moments.
        chosen: What the head was trained with, for each seed.
    """

    column: str
    num_classes: int
    num_train_clips: int
    num_test_clips: int
    num_test_videos: int | None
    error_seconds: Score
    within: Score | None = None
    change_error_seconds: Score | None = None
    change_within: Score | None = None
    sound: SoundKeyframes | None = None
    chosen: tuple[Mapping[str, float], ...] = ()

    def rows(self) -> list[Row]:
        """Return rows of error and share, of the head, of the change of features and of the sound."""
        rows = [self._in_seconds("point of no return", self.error_seconds)]
        near = f"within {NEAR_SECONDS:g} s"
        if self.within is not None:
            rows.append(self._in_percent(f"point of no return, {near}", self.within))
        if self.change_error_seconds is not None and self.change_within is not None:
            name = "peak of change"
            rows += [
                self._in_seconds(name, self.change_error_seconds),
                self._in_percent(f"{name}, {near}", self.change_within),
            ]
        if self.sound is not None:
            name = "by sound alone"
            of_sound = [
                self._in_seconds(name, self.sound.error_seconds),
                self._in_percent(f"{name}, {near}", self.sound.within),
            ]
            rows += [dataclasses.replace(row, encoder_name="strongest moment") for row in of_sound]
        return rows

    def _in_seconds(self, label: str, score: Score) -> Row:
        return Row(
            label,
            score,
            self.num_test_clips,
            self.num_test_videos,
            unit="s",
            decimals=3,
            higher_is_better=False,
            majority_name=CENTRE,
        )

    def _in_percent(self, label: str, score: Score) -> Row:
        return Row(label, score, self.num_test_clips, self.num_test_videos, majority_name=CENTRE)


def measure_state_changes(
    answers: Sequence[ProbeAnswers],
    baselines: Sequence[ProbeAnswers],
    *,
    train_labels: npt.NDArray[np.int64],
    num_train_clips: int,
    test_labels: npt.NDArray[np.int64],
    videos: npt.NDArray[Any] | None,
    weights: npt.NDArray[np.float64] | None = None,
) -> StateChangeResult:
    """Return the accuracy beside that of the baseline encoder and of the more frequent class.

    Args:
        answers: Of each seed.
        baselines: Of each seed with the baseline encoder; empty without one.
        train_labels: 1 with a change, 0 without, of the training samples.
        num_train_clips: Annotated clips that these are of.
        test_labels: The same of the test clips, (N,).
        videos: Of the test clips, (N,); None takes clips as independent.
        weights: Of the clips in the mean, (N,), of mean 1, where batches of them are averaged; None for 1 each.
    """

    def right(of: Sequence[ProbeAnswers]) -> npt.NDArray[np.float64] | None:
        if not of:
            return None
        correct = np.stack([top_k_correct(each.scores["state_change"], test_labels, 1) for each in of])
        return _weighted(correct.astype(np.float64), weights)

    ours = right(answers)
    assert ours is not None
    most = 1.0 if weights is None else float(weights.max())
    accuracy = compare(
        ours,
        baseline=right(baselines),
        majority=_weighted(majority_correct(train_labels, test_labels, 1).astype(np.float64), weights),
        chance=50.0,
        bounds=(0, most),
        videos=videos,
        k=1,
    )
    return StateChangeResult(
        column="state_change",
        num_classes=2,
        num_train_clips=num_train_clips,
        num_test_clips=len(test_labels),
        num_test_videos=None if videos is None else len(set(videos.tolist())),
        accuracy=accuracy,
        chosen=tuple(answer.chosen.get("state_change", {}) for answer in answers),
    )


def measure_keyframes(
    answers: Sequence[StateChangeAnswers],
    baselines: Sequence[StateChangeAnswers],
    *,
    parts: Sequence[ChangePart],
    num_train_clips: int,
    videos: npt.NDArray[Any] | None,
    guesses: SoundGuesses | None,
) -> KeyframeResult:
    """Return the distances from the points of no return, beside those of the clip's centre.

    Args:
        answers: Of each seed, to all test clips.
        baselines: Of each seed with the baseline encoder; empty without one.
        parts: The test clips, with places; those without a change do not count.
        num_train_clips: Annotated clips with a change that the head was trained on.
        videos: Of the test clips, (N,); None takes clips as independent.
        guesses: Of the sound.
    """
    changes = np.array([part.record.pnr_frame is not None for part in parts])
    true = np.array([part.record.pnr_seconds for part in parts if part.record.pnr_seconds is not None])
    spans = np.array([(part.start_seconds, part.stop_seconds) for part in parts])[changes]
    centres = np.abs(spans.mean(axis=1) - true)
    places = np.array([part.place_seconds for part in parts])[changes]
    videos = None if videos is None else videos[changes]
    chance = float(np.abs(places - true[:, None]).mean())
    near_by_chance = 100 * float((np.abs(places - true[:, None]) <= NEAR_SECONDS).mean())
    longest = float((spans[:, 1] - spans[:, 0]).max())

    def scores(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64] | None) -> tuple[Score, Score]:
        """Return mean error and share within half a second, of errors (seeds, N) or (N,)."""
        arrays = [ours, centres, *([] if theirs is None else [theirs])]
        greatest = max(longest, *(float(each.max()) for each in arrays))
        error = compare(
            ours,
            baseline=theirs,
            majority=centres,
            chance=chance,
            bounds=(0, greatest),
            scale=1.0,
            videos=videos,
        )
        share = compare(
            _is_near(ours),
            baseline=None if theirs is None else _is_near(theirs),
            majority=_is_near(centres),
            chance=near_by_chance,
            videos=videos,
        )
        return error, share

    def by_heads(of: Sequence[StateChangeAnswers]) -> npt.NDArray[np.float64] | None:
        if not of:
            return None
        errors = [_errors(answer.scores["keyframe"], parts) for answer in of]
        return np.stack(errors)[:, changes]

    def by_change(of: Sequence[StateChangeAnswers]) -> npt.NDArray[np.float64] | None:
        found = of[0].change_seconds if of else None  # no head, so no seed
        return None if found is None else np.abs(found[changes] - true)

    ours = by_heads(answers)
    assert ours is not None
    error, within = scores(ours, by_heads(baselines))
    peak = by_change(answers)
    change_error, change_within = (None, None) if peak is None else scores(peak, by_change(baselines))
    sound = None
    if guesses is not None:
        of_sound = scores(np.abs(guesses.strongest[changes] - true), None)
        sound = measure_sound(guesses, changes, true, *of_sound)
    return KeyframeResult(
        column="keyframe",
        num_classes=NUM_KEYFRAMES,
        num_train_clips=num_train_clips,
        num_test_clips=int(changes.sum()),
        num_test_videos=None if videos is None else len(set(videos.tolist())),
        error_seconds=error,
        within=within,
        change_error_seconds=change_error,
        change_within=change_within,
        sound=sound,
        chosen=tuple(answer.chosen.get("keyframe", {}) for answer in answers),
    )


def measure_sound(
    guesses: SoundGuesses,
    changes: npt.NDArray[np.bool_],
    true: npt.NDArray[np.float64],
    error_seconds: Score,
    within: Score,
) -> SoundKeyframes:
    """Return what sound alone gives, of the clips with a change.

    Args:
        guesses: Of all test clips, (N,).
        changes: Which of these have a change, (N,).
        true: Points of no return of those, in seconds of the file, (n,).
        error_seconds: Of the strongest moments.
        within: The same.
    """
    strongest, central = (np.abs(of[changes] - true) for of in (guesses.strongest, guesses.most_central))
    nearest = np.abs(guesses.nearest[changes] - true)
    nearest = nearest[~np.isnan(nearest)]
    has_sound, silent = guesses.has_sound[changes], guesses.num_moments[changes] == 0
    return SoundKeyframes(
        error_seconds=error_seconds,
        within=within,
        median_seconds=float(np.median(strongest)),
        num_without_sound=int((~has_sound).sum()),
        num_without_moment=int((has_sound & silent).sum()),
        central_error_seconds=float(central.mean()),
        central_median_seconds=float(np.median(central)),
        nearest_median_seconds=float(np.median(nearest)) if len(nearest) else None,
        nearest_mean_seconds=float(nearest.mean()) if len(nearest) else None,
        nearest_within=100 * float(_is_near(nearest).mean()) if len(nearest) else None,
        nearest_num_clips=len(nearest),
    )


def _errors(logits: npt.NDArray[np.float32], parts: Sequence[ChangePart]) -> npt.NDArray[np.float64]:
    """Return the distance of the highest scored place of each clip from its point of no return, NaN without one."""
    return keyframe_error_seconds(
        logits,
        pnr_frame=[part.record.pnr_frame or 0 for part in parts],
        fps=[part.record.fps for part in parts],
        state_change=[part.record.pnr_frame is not None for part in parts],
        sampled_frames=[part.place_frames for part in parts],
    )


def _is_near(errors: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    near: npt.NDArray[np.bool_] = errors <= NEAR_SECONDS + 1e-9
    return near


def _weighted(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
    return values if weights is None else values * weights
