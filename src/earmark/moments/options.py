"""Detectors by name, each with its own options, as plain data that a store keeps and later runs rebuild them from."""

from collections.abc import Mapping
from typing import Any

from earmark.moments.detector import Detector
from earmark.moments.onsets import DEFAULT_MIN_DISTANCE_SECONDS, DEFAULT_MIN_SCORE, OnsetDetector
from earmark.moments.replai import DEFAULT_MIN_DISTANCE, DEFAULT_MIN_PROMINENCE, MomentFinder, ReplaiDetector

__all__ = ["DEFAULT_DETECTOR", "DETECTORS", "detector_from", "detector_parameters", "own_parameters", "with_detector"]

DEFAULT_DETECTOR = "earmark"

DETECTORS: dict[str, type[ReplaiDetector] | type[OnsetDetector]] = {
    "earmark": OnsetDetector,
    "replai": ReplaiDetector,
}
"""Detectors by name; all can be built with the same options."""

_OWN_OPTIONS: dict[str, dict[str, float]] = {
    "earmark": {"min_score": DEFAULT_MIN_SCORE, "min_distance_seconds": DEFAULT_MIN_DISTANCE_SECONDS},
    "replai": {"min_prominence": DEFAULT_MIN_PROMINENCE, "min_distance": DEFAULT_MIN_DISTANCE},
}


def detector_parameters(
    detector: str = DEFAULT_DETECTOR, *, segment_seconds: float = 10.0, **options: float | None
) -> dict[str, Any]:
    """Return all that a detector depends on, as plain data that :func:`detector_from` builds it from.

    Args:
        detector: name in `DETECTORS`.
        segment_seconds: length of the segments.
        **options: the detector's own, None for its default: ``min_score`` and ``min_distance_seconds`` of ``earmark``,
            ``min_prominence`` and ``min_distance`` (in windows) of ``replai``.

    Raises:
        ValueError: if there is no such detector, an option is another detector's, or one is out of its range.

    Example:
        >>> detector_parameters("replai", min_prominence=2.0)
        {'detector': 'replai', 'segment_seconds': 10.0, 'min_prominence': 2.0, 'min_distance': 10}
        >>> detector_parameters("earmark", min_prominence=2.0)
        Traceback (most recent call last):
        ValueError: min_prominence is not an option of the detector earmark, which has min_score, min_distance_seconds
    """
    if detector not in DETECTORS:
        raise ValueError(f"detector={detector!r}: must be one of {', '.join(DETECTORS)}")
    own = _OWN_OPTIONS[detector]
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in own:
            raise ValueError(f"{name} is not an option of the detector {detector}, which has {', '.join(own)}")
    parameters = {"detector": detector, "segment_seconds": segment_seconds, **own, **given}
    detector_from(parameters, 16000)  # so that an error is raised now, not at the first video
    return parameters


def detector_from(parameters: Mapping[str, Any], sample_rate: int) -> Detector:
    """Build a detector.

    Args:
        parameters: those of :func:`detector_parameters`; others are ignored.
        sample_rate: of the sound, in Hz.

    Raises:
        KeyError: if one is missing.
        ValueError: if one is out of its range.

    Example:
        >>> type(detector_from(detector_parameters(), 16000)).__name__
        'OnsetDetector'
    """
    options = own_parameters(parameters)
    name = options.pop("detector")
    return OnsetDetector(sample_rate, **options) if name == "earmark" else MomentFinder(sample_rate, **options)


def own_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a store that its detector depends on.

    Raises:
        KeyError: if one is missing.

    Example:
        >>> own_parameters({"fps": 16, **detector_parameters()})
        {'detector': 'earmark', 'segment_seconds': 10.0, 'min_score': 3.0, 'min_distance_seconds': 0.05}
    """
    names = ("detector", "segment_seconds", *_OWN_OPTIONS[parameters["detector"]])
    return {name: parameters[name] for name in names}


def with_detector(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a store with its detector: ``replai`` where none is named, as in old stores.

    Example:
        >>> with_detector({"min_prominence": 1.0})["detector"]
        'replai'
    """
    return {"detector": "replai", **parameters}
