"""Ego4D's state changes as published numbers were made, to be held beside ours.

Path of a sample: as `earmark.evaluation.state_change`, with these differences, all of them those of Ego4D's own code
(https://github.com/EGO4D/hands-and-objects), which the paper's numbers come from, too:

- the frames of a clip are those whose number the sampling step divides, the first 16 of them;
- a part for training is drawn between two limits that were meant otherwise
  (`earmark.clips.state_change_parts.published_part`);
- the index of a place is turned into a time by (end - start) / 16, whatever frames were shown, so that even a perfect
  index is wrong by 0.26 s on average;
- frames per second are (end - start + 1) / (end - start in seconds);
- numbers are means of the means of batches of 32, and a batch without a change counts as an error of 0 s;
- clips whose labels are held back count as changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from earmark.clips.state_change_clips import StateChangeClips
from earmark.clips.state_change_parts import NUM_KEYFRAMES, ChangePart, published_part
from earmark.evaluation.base import Answers, ClipOptions
from earmark.evaluation.metrics import keyframe_error_seconds
from earmark.evaluation.results import compare
from earmark.evaluation.state_change import StateChange, StateChangeOptions
from earmark.evaluation.state_change_results import (
    KeyframeResult,
    StateChangeAnswers,
    StateChangeResult,
    measure_state_changes,
)

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.ego4d_state_changes import StateChangeRecord

__all__ = ["PUBLISHED_BATCH_SIZE", "PublishedStateChange", "batch_weights", "published_errors"]

PUBLISHED_BATCH_SIZE = 32


@dataclass(frozen=True)
class PublishedStateChange(StateChange):
    """The task with the frames, the parts and the means of Ego4D's own code; see the head of this file."""

    @classmethod
    def parts_of(
        cls, records: Sequence["StateChangeRecord"], seeing: StateChangeOptions, *, training: bool
    ) -> list[ChangePart]:
        """Return clips through the frames that Ego4D's code shows, in training several drawn parts of each."""
        records = [replace(record, state_change=record.state_change is not False) for record in records]
        if not training or seeing.train_parts == 0:
            return [published_part(record) for record in records]
        numbers = range(seeing.train_parts)
        return [published_part(record, seed=0, number=number) for record in records for number in numbers]

    @classmethod
    def _cut(
        cls, store: "PreparedStore", parts: Sequence[ChangePart], clips: ClipOptions, seeing: StateChangeOptions
    ) -> StateChangeClips:
        return StateChangeClips(
            store,
            parts,
            audio_seconds=clips.audio_seconds if "audio" in clips.modalities else None,
            pictures="video" in clips.modalities,
            as_annotated=True,
        )

    def check(self) -> None:
        """Refuse what does not fit together, and windows, which nobody published."""
        super().check()
        if self.seeing.view != "spread":
            raise ValueError("the published protocol shows 16 spread frames, and not windows")

    def options(self) -> dict[str, Any]:
        """Return those of the heads, and what is different."""
        return {
            **super().options(),
            "protocol": f"frames, places and means of Ego4D's own code: a perfect index has an error, means of batches "
            f"of {PUBLISHED_BATCH_SIZE}, 0 s for a batch without a change",
        }

    def frame_of(self, part: ChangePart, place: int) -> float:
        """Return the frame of a place, counted from the start of the clip, as Ego4D's code has it."""
        return (part.record.stop_frame - part.record.start_frame) / NUM_KEYFRAMES * place

    def measure(self, answers: Sequence[Answers[StateChangeAnswers]]) -> tuple[StateChangeResult | KeyframeResult, ...]:
        """Return means of batch means."""
        ours = [answer.encoder for answer in answers]
        theirs = [answer.baseline for answer in answers if answer.baseline is not None]
        videos = None if self.test_videos is None else np.array(self.test_videos)
        labels = self.test_clips.labels["state_change"]
        state = measure_state_changes(
            ours,
            theirs,
            train_labels=self.train_clips.labels["state_change"],
            num_train_clips=self.num_train_records[0],
            test_labels=labels,
            videos=videos,
            weights=batch_weights(np.ones(len(labels), bool)),
        )
        changes = np.array([part.record.pnr_frame is not None for part in self.test_parts])
        weights = batch_weights(changes)

        def errors(places: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
            found = published_errors(places, [part.record for part in self.test_parts])
            return np.where(changes, found, 0.0) * weights

        found = np.stack([errors(answer.scores["keyframe"]) for answer in ours])
        baseline = np.stack([errors(answer.scores["keyframe"]) for answer in theirs]) if theirs else None
        every = np.stack([errors(np.tile(row, (len(changes), 1))) for row in np.eye(NUM_KEYFRAMES, dtype=np.float32)])
        centre = every[NUM_KEYFRAMES // 2]  # (end - start) / 16 times 8
        greatest = max(float(each.max()) for each in (found, every, *([] if baseline is None else [baseline])))
        error = compare(
            found,
            baseline=baseline,
            majority=centre,
            chance=float(every.mean()),
            bounds=(0, greatest),
            scale=1.0,
            videos=videos,
        )
        keyframes = KeyframeResult(
            column="keyframe",
            num_classes=NUM_KEYFRAMES,
            num_train_clips=self.num_train_records[1],
            num_test_clips=int(changes.sum()),
            num_test_videos=None if videos is None else len(set(videos[changes].tolist())),
            error_seconds=error,
            chosen=tuple(answer.chosen.get("keyframe", {}) for answer in ours),
        )
        return state, keyframes


def published_errors(
    logits: npt.NDArray[np.float32], records: Sequence["StateChangeRecord"]
) -> npt.NDArray[np.float64]:
    """Return the error of each clip by Ego4D's own formulas, in seconds; NaN without a change.

    Args:
        logits: Of the places (N, 16).
        records: The clips.

    Example:
        >>> from earmark.datasets import StateChangeRecord
        >>> record = StateChangeRecord("x", "v", 10.0, 18.0, 300, 540, 30.0, True, 420)
        >>> published_errors(np.eye(16, dtype=np.float32)[[8]], [record])
        array([0.])
    """
    start, stop = ([getattr(record, f"{end}_frame") for record in records] for end in ("start", "stop"))
    frames = [record.stop_frame - record.start_frame + 1 for record in records]
    return keyframe_error_seconds(
        logits,
        pnr_frame=[0 if record.pnr_frame is None else record.pnr_frame for record in records],
        fps=[n / (record.stop_seconds - record.start_seconds) for n, record in zip(frames, records, strict=True)],
        state_change=[record.pnr_frame is not None for record in records],
        clip_start_frame=start,
        clip_end_frame=stop,
        protocol="published",
    )


def batch_weights(counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return weights whose weighted mean over all clips is the mean of the means of consecutive batches.

    Args:
        counted: Which clips count in the mean of their batch, (N,); others have weight 0, and a batch of none the mean
            0.

    Example:
        >>> weights = batch_weights(np.array([True] * 32 + [True, False]))
        >>> values = np.array([1.0] * 32 + [3.0, 0.0])
        >>> float((weights * values).mean())
        2.0
    """
    num_clips = len(counted)
    batch = np.arange(num_clips) // PUBLISHED_BATCH_SIZE
    num_batches = int(batch[-1]) + 1
    in_batch = np.bincount(batch, weights=counted.astype(np.float64), minlength=num_batches)
    of_batch = num_clips / (num_batches * np.maximum(in_batch, 1))
    weights: npt.NDArray[np.float64] = np.where(counted, of_batch[batch], 0.0)
    return weights
