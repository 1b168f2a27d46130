"""From the checked configuration to what is trained: the encoders, the method around them, the clips it asks for.

Beside the path of a sample: `earmark.cli.pretrain` calls this; nothing below sees a configuration.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from earmark.cli.build import build_encoder, open_dataset, require_clips_fit, require_input_fits
from earmark.cli.config import ConfigError
from earmark.cli.config_schema import PretrainConfig

if TYPE_CHECKING:
    from torch import nn

    from earmark.clips.dataset import MomentClips
    from earmark.clips.store import PreparedStore
    from earmark.encoders import Encoder

__all__ = ["build_clips", "build_encoders", "build_model"]

WITHOUT_SOUND = ("simclr_video", "supervised")


def build_encoders(config: PretrainConfig) -> "dict[str, Encoder]":
    """Build the encoders that the method trains: ``video`` and, if it listens, ``audio``.

    Raises:
        ConfigError: If criterion.args.in_dim is given and is not what an encoder puts out, a file of weights is not
            there, or one is named for an encoder that the method does not train, or an encoder cannot take clips or
            spectrograms of the size that is asked for.
    """
    encoders = {"video": build_encoder(config.backbone.video, config.environment)}
    if config.criterion.name not in WITHOUT_SOUND:
        encoders["audio"] = build_encoder(config.backbone.audio, config.environment)
    elif config.backbone.audio.args.weights is not None:
        raise ConfigError(
            f"backbone.audio.args.weights: {config.backbone.audio.args.weights} would not be used; criterion "
            f"{config.criterion.name} does not listen"
        )
    in_dim = config.criterion.args.in_dim
    for kind, encoder in encoders.items():
        if in_dim not in (None, encoder.output_dim):
            raise ConfigError(
                f"criterion.args.in_dim: {in_dim}, but the {kind} encoder puts out {encoder.output_dim} "
                "features (null takes what the encoders give)"
            )
    _require_inputs_fit(config, encoders)
    return encoders


def _require_inputs_fit(config: PretrainConfig, encoders: "Mapping[str, Encoder]") -> None:
    from earmark.clips.transforms import LogMel

    data, rate = config.data, config.prepare.audio_rate
    require_clips_fit(encoders["video"], data, config.data_augm.crop_size)
    if "audio" in encoders:
        log_mel = LogMel(sample_rate=rate)
        num_frames = log_mel.num_frames(round(data.audio_seconds * rate))
        shape = (1, 1, num_frames, log_mel.filterbank.shape[1])
        require_input_fits(encoders["audio"], "audio", shape, f"data.audio_seconds={data.audio_seconds:g}")


def build_clips(config: PretrainConfig, store: "PreparedStore") -> "tuple[MomentClips, dict[str, int]]":
    """Build the data set that the method asks for.

    Returns:
        The clips, and the number of classes by label column, for supervision.

    Raises:
        ConfigError: If supervision is asked for and the data set has no annotated actions.
        ValueError: If no moment is usable.
    """
    from earmark.clips.dataset import MomentClips

    data = config.data
    actions, num_classes = [], {}
    if config.criterion.name == "supervised":
        dataset = open_dataset(data, config.environment)
        num_classes = {column: len(names) for column, names in dataset.classes.items()}
        if not num_classes:
            raise ConfigError(f"criterion: supervised needs annotated actions; data {data.name} has none")
        actions = dataset.actions(data.split)
    clips = MomentClips(
        store,
        splits=None if data.split == "all" else [data.split],
        clip_seconds=data.clip_seconds,
        clip_fps=data.clip_fps,
        gap_seconds=data.args.delta_non_overlap if data.args.gaps is None else data.args.gaps,
        audio_seconds=data.audio_seconds,
        moments=data.moments,
        views="same_clip" if config.criterion.name == "simclr_video" else "before_after",
        actions=actions,
    )
    return clips, num_classes


def build_model(
    config: PretrainConfig, encoders: "Mapping[str, Encoder]", *, num_samples: int, num_classes: Mapping[str, int]
) -> "nn.Module":
    """Build the method around the encoders, laid out and compiled as asked for.

    Args:
        config: The checked configuration.
        encoders: Those of `build_encoders`.
        num_samples: Size of the data set.
        num_classes: Number of classes by label column, for supervision.

    Raises:
        ConfigError: If the method cannot be had with so many samples, or without an extra that is not installed.
    """
    from earmark.training.speed import compile_encoders, use_channels_last

    try:
        model = _method(config, encoders, num_samples=num_samples, num_classes=num_classes)
    except ValueError as error:
        raise ConfigError(f"criterion.args: {error}") from error
    if config.model.channels_last:
        use_channels_last(model)
    if config.model.compile:
        compile_encoders(model)
    return model


def _method(
    config: PretrainConfig, encoders: "Mapping[str, Encoder]", *, num_samples: int, num_classes: Mapping[str, int]
) -> "nn.Module":
    name, args, seed = config.criterion.name, config.criterion.args, config.environment.seed
    if name == "ssrl_audiopeak_aotv2":
        from earmark.methods.replai import AudioVisualModel

        return AudioVisualModel(
            encoders["video"],
            encoders["audio"],
            out_dim=args.out_dim,
            temperature=args.temperature,
            state_change_temperature=args.state_change_temperature,
            clr_coeff=args.clr_coeff,
            aot_coeff=args.aot_coeff,
            gather=args.gather,
            learnable_temperature=args.learnable_temperature,
            normalise_states=args.normalise_states,
            state_change_negatives=args.state_change_negatives,
            queue_size=args.queue_size,
            seed=seed,
        )
    from earmark import methods

    if name == "avid":
        return methods.AVID(
            encoders["video"],
            encoders["audio"],
            num_samples=num_samples,
            num_negatives=args.num_negatives,
            momentum=args.momentum,
            temperature=args.temperature,
            out_dim=args.out_dim,
            seed=seed,
        )
    if name == "xdc":
        return methods.XDC(
            encoders["video"],
            encoders["audio"],
            num_samples=num_samples,
            num_clusters=args.num_clusters,
            num_iterations=args.num_iterations,
            engine=args.kmeans,
            seed=seed,
        )
    if name == "simclr_video":
        return methods.SimCLRVideo(encoders["video"], temperature=args.temperature, out_dim=args.out_dim)
    return methods.Supervised(encoders["video"], num_classes=num_classes)
