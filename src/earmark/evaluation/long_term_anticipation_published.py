"""Long-term anticipation as the paper's numbers on Ego4D were made, for comparison with them.

Path of a sample: random clips of the seen actions --head trained by SGD--> sequences drawn once --> edit distance.

What is done as it was: each annotated clip has one window fewer, a clip lies at a random place of its action in
training and in validation, SGD with momentum trains at a rate of 0.01 in batches of 32 along a cosine for 50 epochs and
nothing is chosen, sequences are drawn once, and the official numbers are means of means of batches, ``ED_z`` of z + 1
actions. What is not: the encoder sees clips of the length that it was trained on, in training each visit draws one of a
few random clips of an action in place of any, and the transformer is that of the full protocol.
`earmark.evaluation.long_term_anticipation` is what to go by.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from earmark.evaluation.base import ClipOptions
from earmark.evaluation.long_term_anticipation import LongTermAnticipation
from earmark.evaluation.long_term_anticipation_head import HeadOptions
from earmark.evaluation.long_term_anticipation_results import Decoding

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords
    from earmark.evaluation.probe import ProbeOptions

__all__ = ["PublishedLongTermAnticipation", "published_head"]

NUM_RANDOM_CLIPS = 5  # of each training action


def published_head(head: HeadOptions) -> HeadOptions:
    """Return a head of the same form that is trained as published.

    Example:
        >>> from earmark.evaluation import HeadOptions
        >>> published_head(HeadOptions()).epochs
        50
    """
    return dataclasses.replace(
        head, optimizer="sgd", lrs=(0.01,), weight_decays=(1e-4,), epochs=50, batch_size=32, chooses=False
    )


@dataclass(frozen=True)
class PublishedLongTermAnticipation(LongTermAnticipation):
    """The task by the published protocol; see above."""

    title: ClassVar[str] = "Long-term action anticipation by the published protocol, edit distance [95 % interval]"
    is_published: ClassVar[bool] = True

    num_draws: int = 1

    @classmethod
    def from_dataset(
        cls,
        dataset: "DatasetRecords",
        store: "PreparedStore",
        *,
        split: str,
        clips: ClipOptions,
        probe: "ProbeOptions",
        head: HeadOptions | None = None,
        num_seen: int | None = None,
        decoding: Decoding = "sampled",
    ) -> Self:
        """Cut random clips, and one window of each annotated clip fewer; see `LongTermAnticipation.from_dataset`."""
        return super().from_dataset(
            dataset,
            store,
            split=split,
            clips=clips,
            probe=probe,
            head=published_head(head or HeadOptions()),
            num_seen=num_seen,
            decoding="sampled",
        )

    @staticmethod
    def _clips_of(part: str, clips: ClipOptions) -> ClipOptions:
        return dataclasses.replace(clips, random=True, num_clips=NUM_RANDOM_CLIPS if part == "train" else 1)

    def options(self) -> dict[str, Any]:
        """Return those of the full protocol, and in words how this one differs."""
        return {
            **super().options(),
            "protocol": "one window of each clip fewer, random clips, one draw of the sequences, SGD for 50 epochs",
        }
