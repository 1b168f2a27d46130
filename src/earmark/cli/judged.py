"""Which encoders `earmark evaluate` judges: found, built, and what they have seen of the videos that are judged on.

Beside the path of a sample: `earmark.cli.evaluate` calls this; nothing below sees a configuration.
"""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from earmark.cli.build import base_path, build_encoder, run_dir
from earmark.cli.config import ConfigError, checked
from earmark.cli.config_schema import (
    HEARING_TASKS,
    MOMENT_TASKS,
    AudioEncoder,
    Data,
    Environment,
    EvaluateConfig,
    VideoEncoder,
)
from earmark.cli.own_heads import holds_audio_encoder, own_heads, trained_heads
from earmark.cli.terminal import say

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.encoders import Encoder
    from earmark.evaluation import Modality, ProjectionHeads

__all__ = ["Judged", "judged_encoders", "judged_modalities", "read_checkpoint", "seen_videos", "untrained"]

EncoderConfig = VideoEncoder | AudioEncoder

AS_TRAINED: "Mapping[Modality, tuple[tuple[str, str], ...]]" = {  # what decides what an encoder is shown
    "video": (
        ("prepare", "short_side"),
        ("prepare", "fps"),
        ("data_augm", "crop_size"),
        ("data", "clip_seconds"),
        ("data", "clip_fps"),
    ),
    "audio": (("prepare", "audio_rate"), ("data", "audio_seconds")),
}
OF_WHICH_WEIGHTS = {"ema": "average of the weights (ema)", "model": "weights of the last step (model)"}
SAW, CHOSEN = "pretraining saw", "the checkpoint was chosen by a probe on"


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """The encoders to judge, with what is known about them.

    Attributes:
        encoders: One for each modality that is looked at.
        configs: Their configurations.
        data: The data configuration, with what the run knew filled in.
        path: Their checkpoint; None without one.
        weights: ``ema`` or ``model``: which weights of the checkpoint; None without one.
        has_average: Whether the checkpoint holds an average of the weights beside them.
        name: Checkpoint and weights in words.
        stored: What else the checkpoint holds that says where it comes from; empty without one.
        heads: Its trained projection heads, for the tasks that are about moments; None where it has none.
    """

    encoders: "Mapping[Modality, Encoder]"
    configs: "Mapping[Modality, EncoderConfig]"
    data: Data
    path: Path | None
    weights: str | None
    has_average: bool
    name: str
    stored: Mapping[str, Any]
    heads: "ProjectionHeads | None" = None


def judged_modalities(config: EvaluateConfig) -> "tuple[Modality, ...]":
    """Return what of the clips is looked at: what the task is about, and with ``evaluate.audio`` both."""
    if config.evaluate.audio or config.evaluate.task == "retrieval":
        return ("video", "audio")
    return ("audio",) if config.evaluate.task in HEARING_TASKS else ("video",)


def read_checkpoint(config: EvaluateConfig) -> tuple[Path, dict[str, Any]]:
    """Read the checkpoint to judge, once: the file that is named, else the newest of the run.

    Raises:
        ConfigError: If it is not there.
        earmark.training.checkpoint.CheckpointError: If it cannot be read.
    """
    from earmark.training.checkpoint import load_checkpoint, load_latest_checkpoint

    if config.evaluate.checkpoint is not None:
        path = Path(config.evaluate.checkpoint)
        if not path.is_file():
            raise ConfigError(f"evaluate.checkpoint: {path} is not there")
        return path, load_checkpoint(path)
    folder = run_dir(config.environment, config.logging, suffix=False)
    newest = load_latest_checkpoint(folder / "checkpoints")
    if newest is None:
        raise ConfigError(
            f"logging.name: no run with a checkpoint in {folder}; pretrain it first, or give evaluate.checkpoint=FILE, "
            "or evaluate.checkpoint=none for a randomly initialised encoder or that of backbone.video.args.weights=FILE"
        )
    return newest


def judged_encoders(config: EvaluateConfig, values: Mapping[str, Any]) -> Judged:
    """Build the encoders to judge.

    What the checkpoint was trained with wins over the group ``backbone``, and where ``data.args.base_path`` is not
    given the videos are looked for where the run found its own.

    Args:
        config: The checked configuration.
        values: The same as plain data.

    Raises:
        ConfigError: If there is no such checkpoint, the clips would be others than the run was trained on (unless
            ``evaluate.as_trained=false``), two sources of weights are given, or weights of an encoder that is not
            judged.
        earmark.training.checkpoint.CheckpointError: If the checkpoint cannot be read or is of another kind.
        earmark.encoders.weights.WeightsError: If it does not hold the weights asked for.
    """
    modalities = judged_modalities(config)
    given: Mapping[Modality, EncoderConfig] = {"video": config.backbone.video, "audio": config.backbone.audio}
    for modality, encoder in given.items():
        if modality not in modalities and encoder.args.weights is not None:
            remedy = "" if config.evaluate.task in MOMENT_TASKS else "; add evaluate.audio=true to judge both"
            raise ConfigError(
                f"backbone.{modality}.args.weights: {encoder.args.weights} would not be used, the {modality} encoder "
                f"is not judged{remedy}"
            )
    asked = {modality: given[modality] for modality in modalities}
    if config.evaluate.checkpoint == "none":
        return _without_checkpoint(config, asked)
    for modality, encoder in asked.items():
        if encoder.args.weights is not None:  # before a run is looked for, which there may be none of
            raise ConfigError(
                f"backbone.{modality}.args.weights: {encoder.args.weights} would not be used, a checkpoint is judged; "
                "add evaluate.checkpoint=none to judge that file"
            )

    path, state = read_checkpoint(config)
    stored = _stored_config(path, state)
    encoders, configs, weights = _loaded_encoders(path, state, stored, config, asked)
    heads = None
    if config.evaluate.task in MOMENT_TASKS:
        heads = _own_heads(path, state, stored, config, encoders, weights)
        if heads is not None:
            modalities = ("video", "audio")  # both are shown something
    data = config.data
    if config.evaluate.as_trained:
        _require_as_trained(path, stored, values, modalities)
    known = stored.get("data", {})
    if data.args.base_path is None and known.get("name") == data.name and known.get("args", {}).get("base_path"):
        filled = dataclasses.replace(data.args, base_path=known["args"]["base_path"])
        data = dataclasses.replace(data, args=filled)
        say(f"data.args.base_path={filled.base_path}, as in the run that is judged")
    has_average = state.get("ema") is not None
    origin = ("config", "fingerprint", "position", "videos")
    return Judged(
        encoders=encoders,
        configs=configs,
        data=data,
        path=path,
        weights=weights,
        has_average=has_average,
        name=str(path) + (f", {OF_WHICH_WEIGHTS[weights]}" if has_average else ""),
        stored={name: state[name] for name in origin if name in state},
        heads=heads,
    )


def _loaded_encoders(
    path: Path,
    state: Mapping[str, Any],
    stored: Mapping[str, Any],
    config: EvaluateConfig,
    asked: "Mapping[Modality, EncoderConfig]",
) -> "tuple[dict[Modality, Encoder], dict[Modality, EncoderConfig], Literal['ema', 'model']]":
    """Return the encoders of a checkpoint, their configurations, and which of its weights they have."""
    from earmark.encoders.weights import load_encoder_weights

    encoders: dict[Modality, Encoder] = {}
    configs: dict[Modality, EncoderConfig] = {}
    weights: Literal["ema", "model"] = "model"
    for modality, encoder in asked.items():
        if modality == "audio" and config.evaluate.task == "retrieval" and not holds_audio_encoder(state):
            say(f"{path} holds no audio encoder, as its method does not use sound: sounds are those of a random one")
            encoders[modality], configs[modality] = build_encoder(untrained(encoder), config.environment), encoder
            continue
        configs[modality] = held = _held_encoder(path, stored, modality)
        if _described(held) != _described(encoder):
            say(
                f"{path} holds the encoder {_described(held)}: the {_described(encoder)} of backbone.{modality} is "
                "not used"
            )
        if encoder.args.pretrained:
            say(f"{path} is judged: the published weights of backbone.{modality}.args.pretrained are not used")
        encoders[modality] = _built_for(path, state, held, config.environment)
        weights = load_encoder_weights(
            encoders[modality], path, kind=modality, weights=config.evaluate.weights, state=state
        ).weights
    return encoders, configs, weights


def _own_heads(
    path: Path,
    state: Mapping[str, Any],
    stored: Mapping[str, Any],
    config: EvaluateConfig,
    encoders: "Mapping[Modality, Encoder]",
    weights: Literal["ema", "model"],
) -> "ProjectionHeads | None":
    """Return the trained heads of a checkpoint with both its encoders, of which the task may look at one alone."""
    needed = {"retrieval": "clip", "order": "state"}
    if needed[config.evaluate.task] not in trained_heads(stored):
        return None
    from earmark.encoders.weights import load_encoder_weights

    both = dict(encoders)
    if "audio" not in both:
        held = _held_encoder(path, stored, "audio")
        both["audio"] = _built_for(path, state, held, config.environment)
        load_encoder_weights(both["audio"], path, kind="audio", weights=config.evaluate.weights, state=state)
    return own_heads(path, state, stored, weights=weights, encoders=both)


def _held_encoder(path: Path, stored: Mapping[str, Any], modality: "Modality") -> EncoderConfig:
    """Return the configuration of an encoder of a checkpoint.

    Raises:
        earmark.training.checkpoint.CheckpointError: If it has none.
    """
    from earmark.training.checkpoint import CheckpointError

    try:
        values = stored["backbone"][modality]
        if modality == "video":
            return checked(VideoEncoder, values, section="backbone.video")
        return checked(AudioEncoder, values, section="backbone.audio")
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: does not say which {modality} encoder it holds ({str(error)[:500]})") from error


def _stored_config(path: Path, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration in a checkpoint; those of its parts that are read here are what they must be.

    Raises:
        earmark.training.checkpoint.CheckpointError: If one is not.
    """
    from earmark.training.checkpoint import CheckpointError

    stored: Mapping[str, Any] = state.get("config") or {}
    for section in ("backbone", "data", "data_augm", "prepare"):
        if not isinstance(stored.get(section, {}), Mapping):
            raise CheckpointError(f"{path}: config.{section}: not values by name")
    for section, key in itertools.chain.from_iterable(AS_TRAINED.values()):
        if not isinstance(stored.get(section, {}).get(key), int | float | None):
            raise CheckpointError(f"{path}: config.{section}.{key}: not a number")
    args = stored.get("data", {}).get("args", {})
    if not isinstance(args, Mapping) or not isinstance(args.get("base_path"), str | None):
        raise CheckpointError(f"{path}: config.data.args: does not say where its videos were")
    return stored


def _built_for(path: Path, state: Mapping[str, Any], encoder: EncoderConfig, environment: Environment) -> "Encoder":
    """Build the encoder that a checkpoint names, unless it names one that its weights are far too few for."""
    from torch import Tensor

    from earmark.encoders.bounded_building import at_most_elements
    from earmark.training.checkpoint import CheckpointError

    weights = state.get("model")
    tensors = weights.values() if isinstance(weights, Mapping) else ()
    try:
        with at_most_elements(sum(value.numel() for value in tensors if isinstance(value, Tensor))):
            return build_encoder(untrained(encoder), environment)
    except (ConfigError, ValueError) as error:
        raise CheckpointError(f"{path}: its encoder cannot be built ({str(error)[:500]})") from error


def _without_checkpoint(config: EvaluateConfig, asked: "Mapping[Modality, EncoderConfig]") -> Judged:
    """Build randomly initialised encoders, or ones with published weights or those of files."""
    if config.evaluate.weights is not None:
        raise ConfigError(
            "evaluate.weights: chooses among the weights of a checkpoint, but evaluate.checkpoint is none"
        )
    encoders = {modality: build_encoder(encoder, config.environment) for modality, encoder in asked.items()}
    names = []
    for modality, encoder in asked.items():
        if encoder.args.weights is not None:
            names.append(f"the weights of {encoder.args.weights}")
        elif encoder.args.pretrained:
            names.append(f"the published weights of backbone.{modality}")
        else:
            names.append("a randomly initialised encoder")
    name = f"no run: {' and '.join(dict.fromkeys(names))}"
    return Judged(encoders, asked, config.data, None, None, False, name, {})


def seen_videos(
    judged: Judged,
    store: "PreparedStore",
    environment: Environment,
    *,
    parent: Callable[[str], str] | None = None,
) -> dict[str, Collection[str] | None]:
    """Return which videos an encoder has seen, and which its checkpoint was chosen by; None where that is not known.

    Checkpoints from before ids were stored tell it by their settings, provided the store is the one that they were made
    with.

    Args:
        judged: The encoder.
        store: The prepared videos that it is judged on.
        environment: Where things lie.
        parent: Names the whole video of an id, of whichever layout (`earmark.datasets.parents_in`): footage is the same
            whether it was seen in a clip or in the whole. None for what the ids themselves tell.
    """
    if judged.path is None:
        given = any(encoder.args.weights is not None for encoder in judged.configs.values())
        return {"the training of these weights saw": None} if given else {}
    config = judged.stored.get("config", {})
    position = judged.stored.get("position", {})
    # best.pt is another name of this very checkpoint
    is_best = position.get("best_score") is not None and position.get("best_epoch") == position.get("epoch")
    same = judged.stored.get("fingerprint") == store.fingerprint or _same_videos(config, judged.data, environment)
    ids: dict[str, Collection[str] | None] = {}
    for use, by in (("pretraining", SAW), ("probe", CHOSEN)):
        if use == "probe" and not is_best:
            continue
        stored = judged.stored.get("videos", {}).get(use)
        if same is False:
            ids[by] = ()
        elif same and stored is not None:
            ids[by] = stored
        elif judged.stored.get("fingerprint") == store.fingerprint:
            split = config.get("data", {}).get("split") if use == "pretraining" else "validation"
            ids[by] = [video.video_id for video in store.videos.values() if split in ("all", video.split)]
        else:
            ids[by] = None
    from earmark.datasets import parent_of

    return {by: None if seen is None else _with_cuts(seen, store, parent or parent_of) for by, seen in ids.items()}


def _with_cuts(seen: Collection[str], store: "PreparedStore", parent_of: Callable[[str], str]) -> Collection[str]:
    """Return ids with those of the store that are cuts of the same videos, and the whole of which they are cuts."""
    parents = {parent_of(video_id) for video_id in seen}
    same = [video_id for video_id in store.videos if parent_of(video_id) in parents]
    return list(dict.fromkeys([*seen, *same, *sorted(parents)]))


def _same_videos(stored: Mapping[str, Any], data: Data, environment: Environment) -> bool | None:
    """Return whether ids mean the same videos there and here; None if that is not known."""
    try:
        there = checked(Data, stored["data"], section="data")
    except (KeyError, TypeError, ConfigError):
        return None
    if there.name != data.name:  # a folder may hold any data set, under other ids
        return None if "folder" in (there.name, data.name) else False
    if data.name in ("epic_kitchens", "epic_kitchens_55", "ego4d"):  # ids of their authors
        return True
    if data.name == "kitchen" and there.args.base_path is None and data.args.base_path is None:
        return (there.args.preset, there.args.seed) == (data.args.preset, data.args.seed)
    same_folder = base_path(there, environment).resolve() == base_path(data, environment).resolve()
    return True if same_folder else None


def _require_as_trained(
    path: Path, stored: Mapping[str, Any], values: Mapping[str, Any], modalities: "Iterable[Modality]"
) -> None:
    """Refuse to judge an encoder on clips of another size or rate than those it was trained on, unasked."""
    differing = []
    for section, key in itertools.chain.from_iterable(AS_TRAINED[modality] for modality in modalities):
        trained, here = stored.get(section, {}).get(key), values[section][key]
        if trained is not None and trained != here:
            differing.append((f"{section}.{key}={trained}", here))
    if differing:
        here = ", ".join(f"{text.partition('=')[0]}={value}" for text, value in differing)
        raise ConfigError(
            f"{path} was trained with {' '.join(text for text, _ in differing)}, this is to judge it with {here}: "
            "add the former to the command, or evaluate.as_trained=false if this is meant"
        )


def _described(encoder: EncoderConfig) -> str:
    args = encoder.args
    return encoder.name + (f" of width {args.width}" if args.width else f" {args.model}" if args.model else "")


def untrained(encoder: EncoderConfig) -> EncoderConfig:
    """Return the same encoder with random weights."""
    return dataclasses.replace(encoder, args=dataclasses.replace(encoder.args, pretrained=False, weights=None))
