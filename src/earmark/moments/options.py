"""Detectors by name, each with its own options, as plain data that a store keeps and later runs rebuild them from."""

from collections.abc import Mapping
from typing import Any

from earmark.moments.detector import Detector
from earmark.moments.onsets import DEFAULT_MIN_DISTANCE_SECONDS, DEFAULT_MIN_SCORE, DETECTOR_VERSION, OnsetDetector
from earmark.moments.replai import DEFAULT_MIN_DISTANCE, DEFAULT_MIN_PROMINENCE, MomentFinder, ReplaiDetector

__all__ = [
    "DEFAULT_DETECTOR",
    "DETECTORS",
    "VERSION_KEY",
    "detector_from",
    "detector_parameters",
    "detector_title",
    "own_parameters",
    "with_detector",
]

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

VERSION_KEY = "detector_version"
"""Parameter of the detector ``earmark``, and no option: stores and tables that lack it are of version 1."""


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
    if detector == "earmark":
        parameters[VERSION_KEY] = DETECTOR_VERSION
    detector_from(parameters, 16000)  # so that an error is raised now, not at the first video
    return parameters


def detector_from(parameters: Mapping[str, Any], sample_rate: int) -> Detector:
    """Build a detector, of the version that the parameters are of.

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
    if name != "earmark":
        return MomentFinder(sample_rate, **options)
    return OnsetDetector(sample_rate, version=options.pop(VERSION_KEY, 1), **options)


def own_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a store that its detector depends on.

    Raises:
        KeyError: if one is missing.

    Example:
        >>> own_parameters({"fps": 16, **detector_parameters("replai")})
        {'detector': 'replai', 'segment_seconds': 10.0, 'min_prominence': 1.0, 'min_distance': 10}
    """
    names = ("detector", "segment_seconds", *_OWN_OPTIONS[parameters["detector"]])
    version = {VERSION_KEY: parameters[VERSION_KEY]} if VERSION_KEY in parameters else {}
    return {name: parameters[name] for name in names} | version


def with_detector(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a store with its detector: ``replai`` where none is named, as in old stores.

    Example:
        >>> with_detector({"min_prominence": 1.0})["detector"]
        'replai'
    """
    return {"detector": "replai", **parameters}


def detector_title(parameters: Mapping[str, Any]) -> str:
    """Return what the detector of a store is called on the screen: its name, and its version if there is a newer one.

    Args:
        parameters: those of :func:`with_detector`.

    Example:
        >>> old = {"detector": "earmark", "segment_seconds": 10.0, "min_score": 3.0, "min_distance_seconds": 0.05}
        >>> detector_title(old), detector_title(detector_parameters())
        ('earmark (version 1)', 'earmark')
    """
    name = str(parameters["detector"])
    version = parameters.get(VERSION_KEY, 1)
    return f"{name} (version {version})" if name == "earmark" and version != DETECTOR_VERSION else name
