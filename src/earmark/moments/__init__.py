"""Finding moments of interaction by their sound: the second station of a sample's path, sound in, moments out.

Detectors (`DETECTORS`): ``earmark`` finds what a listener would call an onset; ``replai`` is the original code's
arithmetic, on which training rests.
"""

from earmark.moments.detector import Detector, Moment
from earmark.moments.onsets import OnsetDetector
from earmark.moments.replai import MomentFinder, ReplaiDetector, find_moments, interaction_curve
from earmark.moments.stream import DETECTORS, MomentStream, moments_of_file
from earmark.moments.table import moments_table, read_moments, write_moments

__all__ = [
    "DETECTORS",
    "Detector",
    "Moment",
    "MomentFinder",
    "MomentStream",
    "OnsetDetector",
    "ReplaiDetector",
    "find_moments",
    "interaction_curve",
    "moments_of_file",
    "moments_table",
    "read_moments",
    "write_moments",
]
