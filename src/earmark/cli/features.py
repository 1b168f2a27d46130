"""The command `earmark features`: the features of whole videos, of windows, of moments or of annotated actions.

Beside the path of a sample: calls `earmark.evaluation.feature_writing`. What the command needs is imported when it
runs.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.cli.features_model import add_model_arguments, choose_models, trained_with
from earmark.cli.terminal import DONE, FAILED, non_negative, num_cpus, positive, say
from earmark.wording import at_most, counted, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from earmark.cli.config_schema import PretrainConfig
    from earmark.cli.features_model import ChosenModel, Modality
    from earmark.clips.store import PreparedStore
    from earmark.clips.windows import WindowOptions
    from earmark.datasets import ActionRecord
    from earmark.evaluation.feature_settings import FeatureModel
    from earmark.evaluation.feature_writing import FeatureReport

__all__ = ["add_arguments", "run"]

MAX_NAMED = 50
MAX_WORKERS = 8  # more than these no encoder can keep busy
NOT_HERE = {  # what says the same by a flag
    "data.split": "--split",
    "data.clip_seconds": "--window",
    "data.clip_fps": "--fps",
    "data.audio_seconds": "--audio-seconds",
    "data.args.delta_non_overlap": "--gap",
    "data_augm.crop_size": "--crop",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.epilog = (
        "Stopped and started again it goes on where it was. A window lies wholly in its video. Exit code 1 only if no "
        "video has features."
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="FILE|FOLDER|GLOB|OVERRIDE",
        help="videos, which are prepared first, once; or a data set by KEY=VALUE and GROUP=CHOICE, such as "
        "data=epic_10s_audiopeak data.args.base_path=DIR; how videos are prepared by prepare.KEY=VALUE",
    )
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder with configurations of your own")
    add_model_arguments(parser.add_argument_group("the model"))
    places = parser.add_argument_group("of what")
    places.add_argument(
        "--of",
        choices=("windows", "moments", "actions"),
        default="windows",
        help="windows one after the other; the clips before and after each moment, their change and its sound; clips "
        "of the annotated actions of a data set (default: %(default)s)",
    )
    places.add_argument(
        "--window", type=_length, metavar="SECONDS", help="length of a clip (default: that of the training, else 0.5)"
    )
    places.add_argument(
        "--stride", type=_length, metavar="SECONDS", help="from window to window (default: the length of one)"
    )
    places.add_argument(
        "--fps", type=_length, metavar="N", help="frames per second of a clip (default: that of the training, else 16)"
    )
    places.add_argument("--clips", type=positive, metavar="N", help="clips of each action (default: 1)")
    places.add_argument(
        "--gap", type=non_negative, metavar="SECONDS", help="between a moment and each clip (default: 0.1)"
    )
    places.add_argument(
        "--audio-seconds",
        type=_length,
        metavar="SECONDS",
        help="length of the sound, centred on the clip or the moment (default: that of the training, else 2)",
    )
    places.add_argument(
        "--crop", type=positive, metavar="PIXELS", help="side of the picture (default: that of the training, else 112)"
    )
    places.add_argument(
        "--split",
        choices=("train", "validation", "test", "all"),
        default="all",
        help="of which videos of a data set (default: %(default)s)",
    )
    output = parser.add_argument_group("what is written")
    output.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder: a file for each video")
    output.add_argument(
        "--format", choices=("npz", "parquet", "hdf5"), default="npz", help="of the files (default: %(default)s)"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--part", type=_part, default=(1, 1), metavar="K/N", help="the K-th of N jobs that share the videos"
    )
    how.add_argument(
        "--batch-size", type=positive, default=64, metavar="N", help="clips at a time (default: %(default)s)"
    )
    how.add_argument(
        "--workers", type=_workers, metavar="N", help="processes that read clips (default: one per core, at most 8)"
    )
    how.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    how.add_argument("--bfloat16", action="store_true", help="compute in bfloat16; on a GPU")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the features of videos.

    Args:
        options: As parsed.

    Returns:
        The exit code: 1 if no video has features.
    """
    from earmark.atomic import require_writable
    from earmark.cli.build import describe_store
    from earmark.cli.config import ConfigError, PretrainConfig, checked, compose
    from earmark.cli.features_inputs import actions_of_splits, given_inputs, open_given

    _check_flags(options)
    given = given_inputs(options.inputs, out=options.out)
    for key, flag in NOT_HERE.items():
        if any(text.lstrip("+").startswith(f"{key}=") for text in given.overrides):
            raise ConfigError(f"{key}: is about training; {flag} says it here")
    config = checked(
        PretrainConfig, compose("default_ssrl", given.overrides, config_dir=options.config_dir), cuts_clips=False
    )
    device = _device(options.device)
    chosen = choose_models(options, config.environment)
    trained = trained_with(chosen)
    own = {text.lstrip("+").partition("=")[0] for text in given.overrides}
    as_trained = [
        f"{key}={value}" for key, value in trained.items() if key.startswith(("prepare.", "data.")) and key not in own
    ]
    values = compose("default_ssrl", [*given.overrides, *as_trained], config_dir=options.config_dir)
    config = checked(PretrainConfig, values, cuts_clips=False)
    crop = options.crop or int(trained.get("data_augm.crop_size", config.data_augm.crop_size))
    windows = _window_options(options, config)
    _note_differences(trained, windows, crop, config)
    require_writable(options.out)

    models = _models(chosen, crop, windows, config.prepare.audio_rate)
    actions = actions_of_splits(config, options.split) if options.of == "actions" else []
    store = open_given(given, config)
    say(describe_store(store))
    for modality, model in chosen.items():
        say(f"{modality} encoder: {model.name}")
    report = _written(store, windows, models, actions, options, device)
    return _told(report)


def _written(
    store: "PreparedStore",
    windows: "WindowOptions",
    models: "Mapping[Modality, FeatureModel]",
    actions: "list[ActionRecord]",
    options: argparse.Namespace,
    device: "torch.device",
) -> "FeatureReport":
    from earmark.clips.windows import plan_windows
    from earmark.evaluation.feature_settings import FeatureWriting
    from earmark.evaluation.feature_writing import write_features

    rows = [video for video in store.catalog if options.split in ("all", video.split)]
    plan = plan_windows(
        store,
        windows,
        video_ids=sorted(video.video_id for video in rows),
        actions=actions,
        with_sound="audio" in models,
    )
    num_rows = sum(len(video.times_seconds) for video in plan.videos)
    place = {"windows": "window", "moments": "moment", "actions": "clip of an action"}[windows.of]
    places = counted(num_rows, place, "clips of actions" if windows.of == "actions" else None)
    say(f"features of {places} of {counted(len(plan.videos), 'video')} in {options.out}")
    return write_features(
        store,
        plan,
        windows,
        models,
        options.out,
        writing=FeatureWriting(
            format=options.format,
            part=options.part,
            batch_size=options.batch_size,
            num_workers=min(num_cpus(), MAX_WORKERS) if options.workers is None else options.workers,
            device=device,
            bfloat16=options.bfloat16,
            progress=True,
        ),
    )


def _told(report: "FeatureReport") -> int:
    """Name what has no features, and count what has."""
    kinds = (("left out", report.left_out), ("failed", report.failed), ("left out", report.places_left_out))
    for kind, reasons in kinds:
        for line in at_most([f"{name}: {reason}" for name, reason in sorted(reasons.items())], MAX_NAMED):
            print(visible(f"{kind}: {line}"), file=sys.stderr)
    num_there = len(report.written) + len(report.reused)
    parts = [f"wrote {counted(len(report.written), 'file')} ({sum(report.written.values())} rows)"]
    if not report.written and report.reused:
        parts = ["nothing to do"]
    if report.resumed_rows:
        parts.append(f"went on after {report.resumed_rows} rows of an earlier run")
    if report.reused:
        parts.append(f"{counted(len(report.reused), 'file')} there already")
    parts += [f"{counted(len(report.left_out), 'video')} left out"] if report.left_out else []
    parts += [f"{counted(len(report.failed), 'video')} failed"] if report.failed else []
    parts += [f"{counted(len(report.places_left_out), 'single place')} left out"] if report.places_left_out else []
    parts += [f"{counted(report.num_elsewhere, 'video')} of other parts to come"] if report.num_elsewhere else []
    say(f"{report.folder}: {'; '.join(parts)}")
    return DONE if num_there else FAILED


def _window_options(options: argparse.Namespace, config: "PretrainConfig") -> "WindowOptions":
    from earmark.clips.windows import WindowOptions

    window = options.window or config.data.clip_seconds
    gap = config.data.args.delta_non_overlap if options.gap is None else options.gap
    return WindowOptions(
        of=options.of,
        window_seconds=window,
        stride_seconds=(options.stride or window) if options.of == "windows" else None,
        fps=options.fps or config.data.clip_fps,
        gap_seconds=gap if options.of == "moments" else None,
        clips_per_action=(options.clips or 1) if options.of == "actions" else None,
        audio_seconds=options.audio_seconds or config.data.audio_seconds,
    )


def _models(
    chosen: "Mapping[Modality, ChosenModel]", crop: int, windows: "WindowOptions", sample_rate: int
) -> "dict[Modality, FeatureModel]":
    """Put encoders and transforms together, and try them on an empty input before anything is prepared."""
    from earmark.cli.build import require_input_fits, say_empty_bands
    from earmark.clips.transforms import VideoCrop
    from earmark.encoders import spectrogram_for
    from earmark.evaluation.feature_settings import FeatureModel

    models: dict[Modality, FeatureModel] = {}
    if "video" in chosen:
        encoder = chosen["video"].encoder
        num_frames = round(windows.window_seconds * windows.fps)
        why = f"windows of {windows.window_seconds:g} s at {windows.fps:g} frames per second, crops of {crop}"
        require_input_fits(encoder, "video", (1, 3, num_frames, crop, crop), why)
        models["video"] = FeatureModel(encoder, VideoCrop(crop_size=crop, random=False), chosen["video"].name)
    if "audio" in chosen:
        encoder = chosen["audio"].encoder
        transform = spectrogram_for(encoder, sample_rate=sample_rate)
        shape = (1, 1, transform.num_frames(round(windows.audio_seconds * sample_rate)), transform.num_mels)
        require_input_fits(encoder, "audio", shape, f"{windows.audio_seconds:g} s of sound")
        say_empty_bands(transform)
        models["audio"] = FeatureModel(encoder, transform, chosen["audio"].name)
    return models


def _note_differences(
    trained: "Mapping[str, float]", windows: "WindowOptions", crop: int, config: "PretrainConfig"
) -> None:
    """Say where the model is shown something else than what it was trained on, as it was asked for."""
    here = {
        "data.clip_seconds": windows.window_seconds,
        "data.clip_fps": windows.fps,
        "data.audio_seconds": windows.audio_seconds,
        "data_augm.crop_size": crop,
        "prepare.short_side": config.prepare.short_side,
        "prepare.fps": config.prepare.fps,
        "prepare.audio_rate": config.prepare.audio_rate,
    }
    differing = [f"{key}={value:g}, here {here[key]:g}" for key, value in trained.items() if here[key] != value]
    if differing:
        say(f"note: the model was trained with {'; '.join(differing)}")


def _check_flags(options: argparse.Namespace) -> None:
    """Refuse flags that would not be used."""
    from earmark.cli.config import ConfigError

    needed = {"stride": "windows", "gap": "moments", "clips": "actions"}
    for name, of in needed.items():
        if getattr(options, name) is not None and options.of != of:
            raise ConfigError(f"--{name}: is for --of {of}, not for --of {options.of}")


def _device(text: str) -> "torch.device":
    import torch

    from earmark.cli.config import ConfigError

    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise ConfigError(f"--device: {text!r} is none of auto, cpu, cuda and cuda:N")
    device = torch.device(text)
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        raise ConfigError(f"--device: {text}: torch finds {counted(num_gpus, 'GPU')} (see `earmark doctor`)")
    return device


def _length(text: str) -> float:
    value = non_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def _workers(text: str) -> int:
    return 0 if text == "0" else positive(text)


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"must be K/N with K from 1 to N, such as 3/16, got {text!r}")
    return int(match[1]), int(match[2])
