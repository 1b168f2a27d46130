"""From the checked configuration to what is trained: the encoders, the method around them, the clips it needs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from earmark.cli.build import actions_of, build_encoder, open_dataset, require_clips_fit, require_sound_fits
from earmark.cli.config import ConfigError
from earmark.cli.config_schema import PretrainConfig
from earmark.cli.terminal import say
from earmark.wording import at_most, counted

if TYPE_CHECKING:
    from torch import nn

    from earmark.clips.dataset import MomentClips
    from earmark.clips.store import PreparedStore
    from earmark.datasets import ActionRecord
    from earmark.encoders import Encoder
    from earmark.methods import Method

__all__ = ["build_clips", "build_encoders", "build_model", "method_name"]


MAX_ACTIONS_NAMED = 20


def method_name(config: PretrainConfig) -> str:
    """Return the name in `earmark.methods.METHODS` of the method that the configuration asks for."""
    # The configuration keeps the original code's name of RepLAI.
    return "replai" if config.criterion.name == "ssrl_audiopeak_aotv2" else config.criterion.name


def _method_class(config: PretrainConfig) -> "type[Method]":
    from earmark.methods import METHODS

    return METHODS[method_name(config)]


def build_encoders(config: PretrainConfig) -> "dict[str, Encoder]":
    """Build the encoders that the method trains: ``video`` and, if it uses sound, ``audio``.

    Raises:
        ConfigError: If criterion.args.in_dim is given and is not the output size of an encoder, a file of weights is
            missing, or one is given for an encoder that the method does not train, or an encoder cannot take clips or
            spectrograms of the size that is asked for.
    """
    encoders = {"video": build_encoder(config.backbone.video, config.environment)}
    if _method_class(config).uses_sound:
        encoders["audio"] = build_encoder(config.backbone.audio, config.environment)
    elif config.backbone.audio.args.weights is not None:
        raise ConfigError(
            f"backbone.audio.args.weights: {config.backbone.audio.args.weights} would not be used; criterion "
            f"{config.criterion.name} does not use sound"
        )
    in_dim = config.criterion.args.in_dim
    for kind, encoder in encoders.items():
        if in_dim not in (None, encoder.output_dim):
            raise ConfigError(
                f"criterion.args.in_dim: {in_dim}, but the {kind} encoder puts out {encoder.output_dim} "
                "features (null takes what the encoders give)"
            )
    _require_inputs_fit(config, encoders)
    for kind, encoder in encoders.items():
        args = config.backbone.video.args if kind == "video" else config.backbone.audio.args
        if args.frozen:
            encoder.freeze()
            random = "" if args.pretrained or args.weights is not None else ", with random weights"
            say(f"{kind} encoder: frozen{random}; it is trained no further")
    return encoders


def _require_inputs_fit(config: PretrainConfig, encoders: "Mapping[str, Encoder]") -> None:
    require_clips_fit(encoders["video"], config.data, config.data_augm.crop_size)
    if "audio" in encoders:
        require_sound_fits(encoders["audio"], config.data, config.prepare.audio_rate)
        _require_masks_fit(config, encoders["audio"])


def _require_masks_fit(config: PretrainConfig, encoder: "Encoder") -> None:
    """Refuse masks that could hide all of the spectrogram that the encoder gets, which may be one of its own."""
    from earmark.encoders import spectrogram_for

    augm, rate = config.data_augm, config.prepare.audio_rate
    transform = spectrogram_for(encoder, sample_rate=rate)
    num_frames = transform.num_frames(round(config.data.audio_seconds * rate))
    for name, what, masks, width, length in (
        ("time", "frames", augm.spec_time_masks, augm.spec_time_width, num_frames),
        ("mel", "mel bins", augm.spec_mel_masks, augm.spec_mel_width, transform.num_mels),
    ):
        if masks * width >= length:
            raise ConfigError(
                f"data_augm.spec_{name}_masks: {masks} masks of up to data_augm.spec_{name}_width={width} {what} could "
                f"hide all {length} of a spectrogram of the audio encoder {config.backbone.audio.name}"
            )


def build_clips(config: PretrainConfig, store: "PreparedStore") -> "tuple[MomentClips, dict[str, int]]":
    """Build the data set that the method needs.

    Returns:
        The clips, and the number of classes by label column; empty for a method that needs no labels.

    Raises:
        ConfigError: If the method needs labels and the data set has no annotated actions, or narrated moments are asked
            for and it has no times of narrations.
        ValueError: If no moment is usable.
    """
    from earmark.clips.dataset import MomentClips

    data, method = config.data, _method_class(config)
    actions, num_classes = [], {}
    narrated: dict[str, list[float]] | None = None
    if method.needs_labels:
        dataset = open_dataset(data, config.environment)
        num_classes = {column: len(names) for column, names in dataset.classes.items()}
        if not num_classes:
            raise ConfigError(f"criterion: {config.criterion.name} needs annotated actions; data {data.name} has none")
        actions = actions_of(dataset, data.split)
    if data.moments == "narrated":
        dataset = open_dataset(data, config.environment)
        if not dataset.classes:
            raise ConfigError(f"data.moments: narrated needs annotated actions; data {data.name} has none")
        narrated = _narrated(data.name, actions or actions_of(dataset, data.split))
    clips = MomentClips(
        store,
        splits=None if data.split == "all" else [data.split],
        clip_seconds=data.clip_seconds,
        clip_fps=data.clip_fps,
        gap_seconds=data.args.delta_non_overlap if data.args.gaps is None else data.args.gaps,
        audio_seconds=data.audio_seconds,
        moments=data.moments,
        narrated=narrated,
        views=method.views,
        actions=actions,
        moments_per_segment=data.moments_per_segment,
        quiet_share=data.quiet_share,
    )
    return clips, num_classes


def _narrated(name: str, actions: "Sequence[ActionRecord]") -> dict[str, list[float]]:
    """Return the times of narrations by video, and say which actions have none."""
    times: dict[str, list[float]] = {}
    for action in actions:
        if action.narration_seconds is not None:
            times.setdefault(action.video_id, []).append(action.narration_seconds)
    without = [action.action_id for action in actions if action.narration_seconds is None]
    if not times:
        raise ConfigError(
            f"data.moments: narrated needs the times of narrations, and data {name} has none of its "
            f"{counted(len(actions), 'annotated action')}"
        )
    if without:
        named = ", ".join(at_most(without, MAX_ACTIONS_NAMED))
        say(f"left out: {counted(len(without), 'action')} whose narration has no time in the video: {named}")
    return times


def build_model(
    config: PretrainConfig, encoders: "Mapping[str, Encoder]", *, num_samples: int, num_classes: Mapping[str, int]
) -> "nn.Module":
    """Build the method around the encoders, in the memory layout and compiled as the configuration asks.

    Args:
        config: The checked configuration, without ``auto``.
        encoders: Those of `build_encoders`.
        num_samples: Size of the data set.
        num_classes: Number of classes by label column, for a method that needs labels.

    Raises:
        ConfigError: If the method refuses its options, such as more clusters than samples, or the run has no more
            samples than its sound units are made of.
    """
    from earmark.training.speed import compile_encoders, use_channels_last

    _require_more_than_units_need(config, num_samples=num_samples)
    try:
        arguments = _arguments(config, num_samples=num_samples, num_classes=num_classes)[method_name(config)]
        model = cast("nn.Module", _method_class(config)(*encoders.values(), **arguments))
    except ValueError as error:
        raise ConfigError(f"criterion.args: {error}") from error
    if config.model.recompute:
        for encoder in encoders.values():
            encoder.recompute_activations()
    if config.model.channels_last:
        use_channels_last(model)
    if config.model.compile is True:  # and not auto
        compile_encoders(model, report=say)
    return model


def _require_more_than_units_need(config: PretrainConfig, *, num_samples: int) -> None:
    """Refuse a run that ends before there are sound units, which would be one without their loss."""
    from earmark.methods.sound_units import SAMPLES_PER_UNIT

    args = config.criterion.args
    if not args.sound_unit_coeff:
        return
    needed, seen = SAMPLES_PER_UNIT * max(args.sound_units), num_samples * config.optim.epochs
    if seen <= needed:
        raise ConfigError(
            f"criterion.args.sound_units: {max(args.sound_units)} are made of the first {needed} samples, and the run "
            f"has {seen}: ask for fewer units, or for none with criterion.args.sound_unit_coeff=0"
        )


def _arguments(
    config: PretrainConfig, *, num_samples: int, num_classes: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Return the arguments of every method, by its name: this is where keys of the configuration become parameters."""
    from earmark.methods import (
        ClipPairOptions,
        ContrastiveOptions,
        MomentDetectionOptions,
        SoundUnitOptions,
        StateChangeOptions,
    )

    args, seed = config.criterion.args, config.environment.seed
    return {
        "replai": {
            "out_dim": args.out_dim,
            "contrastive": ContrastiveOptions(
                weight=args.clr_coeff, temperature=args.temperature, queue_size=args.queue_size
            ),
            "state_change": StateChangeOptions(
                weight=args.aot_coeff,
                temperature=args.state_change_temperature,
                normalize_states=args.normalise_states,
                negatives=args.state_change_negatives,
            ),
            "clip_pair": ClipPairOptions(weight=args.clip_pair_coeff, temperature=args.clip_pair_temperature),
            "sound_unit": SoundUnitOptions(weight=args.sound_unit_coeff, num_units=tuple(args.sound_units)),
            "moment_detection": MomentDetectionOptions(
                weight=args.moment_detection_coeff, quiet_share=config.data.quiet_share or 0.5
            ),
            "gather": args.gather,
            "learnable_temperature": args.learnable_temperature,
            "seed": seed,
        },
        "avid": {
            "num_samples": num_samples,
            "num_negatives": args.num_negatives,
            "momentum": args.momentum,
            "temperature": args.temperature,
            "out_dim": args.out_dim,
            "seed": seed,
        },
        "xdc": {
            "num_samples": num_samples,
            "num_clusters": args.num_clusters,
            "num_iterations": args.num_iterations,
            "engine": args.kmeans,
            "seed": seed,
        },
        "simclr_video": {"temperature": args.temperature, "out_dim": args.out_dim},
        "supervised": {"num_classes": num_classes},
    }
