"""What a submission scores, whatever its challenge.

Path of a sample: a file of predictions and annotations --`challenges`, `ego4d_scores`--> this --> the table.
"""

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ChallengeScore", "unlabelled_note"]


@dataclass(frozen=True, slots=True)
class ChallengeScore:
    """What a valid submission scores.

    Attributes:
        challenge: Which.
        annotations: The file that it was compared with.
        metrics: Under their official names: in %, mAUC and edit distances as a share, errors in seconds; empty where
            the annotations hold no labels.
        majority: The same of always giving the most frequent answers; empty where there is no such thing.
        majority_source: The file that frequencies were counted in; None without.
        baselines: By name, the same of other answers that need no model.
        counts: How many segments (or detections, or clips, or windows) counted for what.
        levels: What the file says of its training: ``sls_pt``, ``sls_tl``, ``sls_td``, and ``t_mod`` of sounds; those
            of Ego4D say nothing.
        notes: What a reader of the numbers must know: fields ignored, parts of the test that could not be told.
    """

    challenge: str
    annotations: Path
    metrics: dict[str, float]
    counts: dict[str, int]
    levels: dict[str, int]
    majority: dict[str, float] = field(default_factory=dict)
    majority_source: Path | None = None
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def unlabelled_note(source: Path) -> str:
    """Return what is said of a file that was compared with annotations whose labels are held back."""
    return f"{source} holds no labels: the file is valid for it, and can be scored by the challenge's server only"
