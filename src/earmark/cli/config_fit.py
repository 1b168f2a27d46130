"""Which settings of preparing, clips, crops and spectrograms fit together, checked before a video is decoded.

Beside the path of a sample: `earmark.cli.config` asks here, and the data sets and transforms check the same of a store
when they are built by hand.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from earmark.cli.checks import WITHOUT_SOUND
from earmark.cli.config_schema import HEARING_TASKS, Data, EvaluateConfig, Prepare, PretrainConfig

__all__ = ["unfitting"]

# Those of `earmark.clips.transforms.LogMel`, which needs torch: a configuration is checked before that is imported.
MAX_FREQUENCY = 8000
WINDOW_SECONDS = 0.032
HOP_SECONDS = 0.016
NUM_MELS = 80
ROUNDING = 1e-9
WITH_SPECTROGRAM_OF_ITS_OWN = ("aisfx", "cnn6", "cnn10", "cnn14")  # audio encoders whose masks are checked when built


def unfitting(config: PretrainConfig | EvaluateConfig) -> list[str]:
    """Return which settings do not fit each other, one line per problem, with the keys and their values.

    Args:
        config: Checked value by value.
    """
    data, prepare = config.data, config.prepare
    if isinstance(config, EvaluateConfig):
        # The settings of a trained run fit each other; `earmark.cli.evaluate` compares these with them, and says which
        # to give.
        as_trained = config.evaluate.as_trained and config.evaluate.checkpoint != "none"
        problems = [] if as_trained else _wrong_rate(data, prepare) + _wrong_size(config)
        given = [name for name in ("clip_seconds", "clip_fps") if getattr(config.evaluate, name) is not None]
        if given:  # in place of the run's, and of the group data's, which was checked if it counts
            sections = {name: "evaluate" if name in given else "data" for name in ("clip_seconds", "clip_fps")}
            judged = replace(data, clip_seconds=config.clip_seconds, clip_fps=config.clip_fps)
            problems += [text for text in _wrong_rate(judged, prepare, sections) if text not in problems]
        if config.evaluate.audio or config.evaluate.task in (*HEARING_TASKS, "retrieval"):
            problems += _wrong_sound(data, prepare)
        if prepare.around is not None:
            problems.append("prepare.around: moments keeps moments only; clips of actions need the whole videos")
        return problems
    problems = _wrong_rate(data, prepare) + _wrong_size(config)
    gap_seconds = max(data.args.gaps, default=0.0) if data.args.gaps else data.args.delta_non_overlap
    gap = "data.args.gaps" if data.args.gaps else "data.args.delta_non_overlap"
    margin = gap_seconds + data.clip_seconds
    if prepare.segment_seconds < 2 * margin - ROUNDING:
        problems.append(
            f"prepare.segment_seconds: {prepare.segment_seconds:g} s cannot hold the two clips of a sample and their "
            f"gaps, {2 * margin:g} s with data.clip_seconds={data.clip_seconds:g} and {gap}={gap_seconds:g}"
        )
    if prepare.around is not None:
        problems += _wrong_around(config, gap, gap_seconds)
    if config.criterion.name not in WITHOUT_SOUND:
        problems += _wrong_sound(data, prepare)
        if config.backbone.audio.name not in WITH_SPECTROGRAM_OF_ITS_OWN:
            problems += _wrong_masks(config)
    return problems


def _wrong_rate(data: Data, prepare: Prepare, sections: Mapping[str, str] | None = None) -> list[str]:
    """Every frame of a clip must be stored at its own time, else frames are repeated or unevenly spaced.

    Args:
        data: Has length and rate of the clips.
        prepare: Has the rate of what is stored.
        sections: Where ``clip_seconds`` and ``clip_fps`` come from; None for ``data``.
    """
    seconds_key, fps_key = (f"{(sections or {}).get(name, 'data')}.{name}" for name in ("clip_seconds", "clip_fps"))
    ratio = prepare.fps / data.clip_fps
    if ratio < 1 - ROUNDING:
        return [
            f"{fps_key}: {data.clip_fps:g} frames per second need more than prepare.fps={prepare.fps}: frames "
            f"would be repeated; give {fps_key}={prepare.fps} or prepare.fps={math.ceil(data.clip_fps)}"
        ]
    if abs(ratio - round(ratio)) > ROUNDING:
        return [
            f"{fps_key}: {data.clip_fps:g} frames per second do not divide prepare.fps={prepare.fps}: frames would "
            f"be unevenly spaced; give {fps_key}={prepare.fps / round(ratio):g} or a prepare.fps that is a "
            "multiple of it"
        ]
    if round(data.clip_seconds * data.clip_fps) < 1:
        return [f"{seconds_key}: {data.clip_seconds:g} s have no frame at {fps_key}={data.clip_fps:g}"]
    return []


def _wrong_size(config: PretrainConfig | EvaluateConfig) -> list[str]:
    """Stored pictures must be large enough that a crop can be cut from them without enlarging."""
    augm, held = config.data_augm, config.prepare.short_side
    smallest = ("crop_size", augm.crop_size)
    short_side = config.data_augm.min_short_side if isinstance(config, PretrainConfig) else None
    if short_side is not None and short_side > augm.crop_size:
        smallest = ("min_short_side", short_side)
    if smallest[1] <= held:
        return []
    return [
        f"data_augm.{smallest[0]}: {smallest[1]} pixels are more than prepare.short_side={held}: every clip would be "
        f"enlarged; give prepare.short_side={smallest[1] + smallest[1] % 2} or more"
    ]


def _wrong_around(config: PretrainConfig, gap: str, gap_seconds: float) -> list[str]:
    """What is kept around a moment must cover what is read around it."""
    data, prepare = config.data, config.prepare
    problems = []
    if data.moments != "audible":
        problems.append(
            f"prepare.around: moments keeps audible moments only; data.moments={data.moments} needs the whole videos"
        )
    if config.logging.evaluate_every is not None:
        problems.append("prepare.around: moments keeps moments only; logging.evaluate_every needs the whole videos")
    margin, half = gap_seconds + data.clip_seconds, data.audio_seconds / 2
    needed = max(margin, half)
    if prepare.around_seconds < needed - ROUNDING:
        why = (
            f"data.clip_seconds={data.clip_seconds:g} and {gap}={gap_seconds:g} reach {margin:g} s"
            if margin >= half
            else f"data.audio_seconds={data.audio_seconds:g} reach {half:g} s"
        )
        problems.append(
            f"prepare.around_seconds: {prepare.around_seconds:g} s keep less around a moment than is read: {why}"
        )
    return problems


def _wrong_sound(data: Data, prepare: Prepare) -> list[str]:
    problems = []
    if prepare.audio_rate < 2 * MAX_FREQUENCY:
        problems.append(
            f"prepare.audio_rate: {prepare.audio_rate} Hz cannot hold the spectrogram's bands up to {MAX_FREQUENCY} "
            f"Hz; give {2 * MAX_FREQUENCY} or more"
        )
    if data.audio_seconds < WINDOW_SECONDS:
        problems.append(
            f"data.audio_seconds: {data.audio_seconds:g} s are shorter than one window of the spectrogram, "
            f"{WINDOW_SECONDS:g} s"
        )
    return problems


def _wrong_masks(config: PretrainConfig) -> list[str]:
    """Something of each spectrogram must be left to see, however its masks fall."""
    augm, seconds = config.data_augm, config.data.audio_seconds
    num_frames = math.floor(seconds / HOP_SECONDS + ROUNDING)
    return [
        f"data_augm.spec_{name}_masks: {masks} masks of up to data_augm.spec_{name}_width={width} {what} could hide "
        f"all {length} of a spectrogram{why}"
        for name, what, masks, width, length, why in (
            (
                *("time", "frames", augm.spec_time_masks, augm.spec_time_width, num_frames),
                f" of data.audio_seconds={seconds:g}",
            ),
            ("mel", "mel bins", augm.spec_mel_masks, augm.spec_mel_width, NUM_MELS, ""),
        )
        if masks * width >= length
    ]
