"""Finding moments of interaction by their sound: the second station of a sample's path, sound in, moments out.

Detectors (`DETECTORS`): ``earmark``, the default everywhere, finds what a listener would call an onset; ``replai`` is
the original code's arithmetic, for comparison with its results. Tables and labels for other programs (`writing`),
pictures (`plotting`, `page_index`), clips (`cutting`) and scores (`scoring`) are imported from their modules, since
some need matplotlib.
"""

from earmark.moments.detector import Detector, Moment, segment_number
from earmark.moments.onsets import OnsetDetector
from earmark.moments.options import (
    DEFAULT_DETECTOR,
    DETECTORS,
    detector_from,
    detector_parameters,
    own_parameters,
    with_detector,
)
from earmark.moments.replai import MomentFinder, ReplaiDetector, interaction_curve
from earmark.moments.stream import MomentStream, find_moments, moments_of_file
from earmark.moments.table import moments_table, read_moments, write_moments

__all__ = [
    "DEFAULT_DETECTOR",
    "DETECTORS",
    "Detector",
    "Moment",
    "MomentFinder",
    "MomentStream",
    "OnsetDetector",
    "ReplaiDetector",
    "detector_from",
    "detector_parameters",
    "find_moments",
    "interaction_curve",
    "moments_of_file",
    "moments_table",
    "own_parameters",
    "read_moments",
    "segment_number",
    "with_detector",
    "write_moments",
]
