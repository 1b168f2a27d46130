"""Which encoders `earmark features` computes with: of a run, a checkpoint, an exported file, or by name.

Part of :mod:`earmark.cli.features`.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from earmark.cli.build import build_encoder
from earmark.cli.config import ConfigError, checked
from earmark.cli.config_schema import AudioEncoder, EncoderArgs, Environment, VideoEncoder
from earmark.cli.judged import AS_TRAINED, OF_WHICH_WEIGHTS

if TYPE_CHECKING:
    from earmark.encoders import Encoder

__all__ = ["ChosenModel", "add_model_arguments", "choose_models", "trained_with"]

Modality = Literal["video", "audio"]


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """An encoder, and what is known of it.

    Attributes:
        encoder: The encoder.
        name: What it is, in words.
        config: The configuration that its run was trained with; empty where there is none.
    """

    encoder: "Encoder"
    name: str
    config: Mapping[str, Any]


def add_model_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the arguments that say which encoders are meant."""
    group.add_argument(
        "--model",
        required=True,
        metavar="M",
        help="a run (its name or folder: its newest checkpoint), a checkpoint or exported file, or the name of an "
        "encoder, such as avid_r2plus1d_18 or hf_video:facebook/timesformer-base-finetuned-k400",
    )
    group.add_argument(
        "--audio-model", metavar="M", help="the same for the sound, where --model holds no encoder of sound"
    )
    group.add_argument(
        "--modality",
        choices=("video", "audio", "both"),
        help="which encoders (default: both where --audio-model is given, else that of the video, or the only one)",
    )
    group.add_argument(
        "--weights", choices=("ema", "model"), help="which weights of a checkpoint (default: the average if it has one)"
    )
    group.add_argument(
        "--random", type=int, metavar="SEED", help="random weights for encoders given by name, in place of published"
    )
    group.add_argument("--width", type=int, metavar="N", help="width of encoders avid_* and aisfx given by name")


def choose_models(options: argparse.Namespace, environment: Environment) -> dict[Modality, ChosenModel]:
    """Build the encoders that were asked for.

    Args:
        options: As parsed.
        environment: Where runs and weights lie.

    Raises:
        ConfigError: If there is no such model, or options do not go with it.
        earmark.encoders.weights.WeightsError: If a file does not hold what is asked for.
        earmark.training.checkpoint.CheckpointError: If the checkpoints of a run can't be read.
    """
    modality: Literal["video", "audio", "both"] | None = options.modality
    if modality is None and options.audio_model is not None:
        modality = "both"
    if options.audio_model is not None and modality == "video":
        raise ConfigError("--audio-model: would not be used with --modality video")
    if modality == "both":
        of_sound = options.audio_model or options.model
        return {
            "video": _chosen(options.model, "video", options, environment),
            "audio": _chosen(of_sound, "audio", options, environment),
        }
    if modality == "audio":
        return {"audio": _chosen(options.audio_model or options.model, "audio", options, environment)}
    found = _chosen(options.model, modality, options, environment)
    return {_kind_of(found.encoder.name): found}


def trained_with(models: Mapping[Modality, ChosenModel]) -> dict[str, float]:
    """Return what the models were trained with that decides what they are shown, by config key.

    Raises:
        ConfigError: If what a checkpoint says is no number, or those of two models differ.
    """
    found: dict[str, float] = {}
    for modality, model in models.items():
        for section, key in AS_TRAINED[modality]:
            values = model.config.get(section)
            value = values.get(key) if isinstance(values, Mapping) else None
            if value is None:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise ConfigError(f"--model: {model.name}: config.{section}.{key}: not a number")
            if found.setdefault(f"{section}.{key}", value) != value:
                raise ConfigError(
                    f"--audio-model: trained with {section}.{key}={value}, --model with {found[f'{section}.{key}']}"
                )
    return found


def _chosen(text: str, kind: Modality | None, options: argparse.Namespace, environment: Environment) -> ChosenModel:
    from earmark.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS
    from earmark.encoders.weights import load_encoder

    name, _, model = text.partition(":")
    if name in VIDEO_ENCODERS or name in AUDIO_ENCODERS:
        if kind not in (None, _kind_of(name)):
            raise ConfigError(f"--model: {name} is an encoder of {_kind_of(name)}, not of {kind}; see --audio-model")
        if options.weights is not None:
            raise ConfigError(f"--weights: chooses among those of a checkpoint; {name} is the name of an encoder")
        return _by_name(name, model or None, options, environment)
    path = _file_of(text, environment)
    for flag, value in (("--random", options.random), ("--width", options.width)):
        if value is not None:
            raise ConfigError(f"{flag}: is for encoders given by name; {path} says what it holds")
    encoder = load_encoder(path, kind=kind, weights=options.weights)
    config, weights = _config_of(path, options.weights)
    return ChosenModel(encoder, f"{path}{weights}, {encoder.name}", config)


def _by_name(name: str, model: str | None, options: argparse.Namespace, environment: Environment) -> ChosenModel:
    import torch

    schema = VideoEncoder if _kind_of(name) == "video" else AudioEncoder
    pretrained = options.random is None
    args = EncoderArgs(pretrained=pretrained, weights=None, width=options.width, model=model)
    config = checked(schema, {"name": name, "args": _plain(args)}, section=f"backbone.{_kind_of(name)}")
    assert isinstance(config, VideoEncoder | AudioEncoder)
    if options.random is not None:
        torch.manual_seed(options.random)
    encoder = build_encoder(config, environment)
    shown = ":".join(part for part in (name, model) if part)
    width = f" of width {options.width}" if options.width else ""
    return ChosenModel(
        encoder, shown + width + ("" if pretrained else f", random weights of seed {options.random}"), {}
    )


def _plain(args: EncoderArgs) -> dict[str, Any]:
    return {name: getattr(args, name) for name in ("pretrained", "weights", "width", "num_mels", "model")}


def _file_of(text: str, environment: Environment) -> Path:
    """Return the file that a path or the name of a run means: of a run its newest checkpoint."""
    from earmark.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS
    from earmark.training.checkpoint import latest_checkpoint

    given, outputs = Path(text).expanduser(), Path(environment.data_dir) / "outputs"
    if given.is_file():
        return given
    for folder in (given, outputs / text):
        if folder.is_dir():
            newest = latest_checkpoint(folder / "checkpoints") or latest_checkpoint(folder)
            if newest is None:
                raise ConfigError(f"--model: {folder}: no checkpoint in this folder")
            return newest
    raise ConfigError(
        f"--model: {text}: neither a file, nor a run in {outputs}, nor an encoder; encoders are "
        f"{', '.join(VIDEO_ENCODERS)} for video and {', '.join(AUDIO_ENCODERS)} for audio"
    )


def _config_of(path: Path, weights: str | None) -> tuple[Mapping[str, Any], str]:
    """Return the configuration in a checkpoint of ours, and in words which of its weights are meant if it has two."""
    from earmark.encoders import read_outline

    if path.suffix == ".safetensors":
        return {}, ""
    content = read_outline(path)
    if not isinstance(content, dict) or "format_version" not in content:
        return {}, ""
    config = content.get("config")
    has_average = content.get("ema") is not None
    which = f", {OF_WHICH_WEIGHTS[weights or 'ema']}" if has_average else ""
    return config if isinstance(config, dict) else {}, which


def _kind_of(name: str) -> Modality:
    from earmark.encoders import VIDEO_ENCODERS

    return "video" if name in VIDEO_ENCODERS else "audio"
