"""`earmark evaluate`: the linear probe on a frozen video encoder, from its checked configuration to table and page.

Beside the path of a sample: it puts checkpoint, labelled clips and `earmark.evaluation` together.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.cli_build import (
    build_encoder,
    build_fabric,
    describe_store,
    open_dataset,
    open_store,
    require_clips_fit,
    run_dir,
    say,
    screen,
)
from earmark.config import ConfigError, checked
from earmark.config_schema import Data, EvaluateConfig, VideoEncoder

if TYPE_CHECKING:
    from earmark.clips import ActionClips
    from earmark.datasets import ActionRecord, DatasetRecords
    from earmark.encoders import Encoder
    from earmark.evaluation.action_recognition import ActionRecognitionResult
    from earmark.report import Example
    from earmark.store import PreparedStore

__all__ = ["run_evaluation"]

PROBED_SPLIT = "train"
AS_TRAINED = (  # what decides which pixels an encoder is shown
    ("prepare", "short_side"),
    ("prepare", "fps"),
    ("data_augm", "crop_size"),
    ("data", "clip_seconds"),
    ("data", "clip_fps"),
)
NUM_EXAMPLES = 6  # moments on the page


def run_evaluation(config: EvaluateConfig, values: dict[str, Any]) -> float:
    """Judge a video encoder by a linear probe; print the table, write results.json and report.html.

    Args:
        config: The checked configuration.
        values: The same as plain data, written beside the results.

    Returns:
        Top-1 accuracy of the first label column in %, for sweepers that look for the best run.

    Raises:
        ConfigError: If there is no such checkpoint or the data set is not labelled.
        earmark.checkpoint.CheckpointError: If the checkpoint cannot be read.
    """
    import torch

    fabric = build_fabric(config.environment)
    torch.manual_seed(config.environment.seed)
    path = checkpoint_path(config)
    encoder, encoder_config, data = judged_encoder(config, values, path)
    baseline = None
    if config.evaluate.baseline and (path is not None or config.backbone.video.args.pretrained):
        baseline = build_encoder(_untrained(encoder_config), config.environment)

    require_clips_fit(encoder, config.data, config.data_augm.crop_size)
    dataset = open_dataset(data, config.environment)
    if not dataset.classes:
        raise ConfigError(f"data: {data.name} has no annotated actions; choose kitchen or epic_action_segments")
    store = open_store(data, config.environment, config.prepare)
    say(describe_store(store))

    from earmark.evaluation.action_recognition import evaluate_action_recognition, format_table
    from earmark.transforms import VideoCrop

    train_clips = action_clips(config, dataset, store, PROBED_SPLIT)
    test_clips = action_clips(config, dataset, store, config.evaluate.split)
    folder = run_dir(config.environment, config.logging)
    optim = config.optim
    say(f"judging {judged_name(config, path)}; run folder {folder}")
    result = evaluate_action_recognition(
        encoder=encoder,
        baseline_encoder=baseline,
        test_groups=[action.video_id for action in test_clips.actions],  # actions of one video are not independent
        train_clips=train_clips,
        test_clips=test_clips,
        transform=VideoCrop(crop_size=config.data_augm.crop_size, random=False),
        num_classes={column: len(names) for column, names in dataset.classes.items()},
        class_names=dataset.classes,
        fingerprint=store.fingerprint,
        num_workers=config.environment.workers,
        device=fabric.device,
        cache_dir=Path(config.environment.data_dir) / "features",
        epochs=optim.epochs,
        lr=optim.args.lr,
        milestones=optim.schedule,
        gamma=optim.gamma,
        probe_batch_size=optim.batch_size,
        momentum=optim.args.momentum,
        weight_decay=optim.args.weight_decay,
        normalize_feats=config.train_algo.normalize_feats,
        standardize=config.evaluate.standardize,
        seed=config.environment.seed,
        progress=True,
    )
    screen().print(format_table(result))
    values = values | {
        "backbone": {"video": dataclasses.asdict(encoder_config)},
        "data": dataclasses.asdict(data),
    }
    write_results(folder, result, path, values)
    write_page(folder, result, path, config, store, dataset)
    return result.columns[0].top1.encoder.value


def checkpoint_path(config: EvaluateConfig) -> Path | None:
    """Return the checkpoint to judge, or None for an encoder without one.

    Raises:
        ConfigError: If it is not there.
    """
    given = config.evaluate.checkpoint
    if given == "none":
        return None
    if given is not None:
        if not Path(given).is_file():
            raise ConfigError(f"evaluate.checkpoint: {given} is not there")
        return Path(given)

    from earmark.checkpoint import latest_checkpoint

    folder = run_dir(config.environment, config.logging, suffix=False)
    newest = latest_checkpoint(folder / "checkpoints")
    if newest is None:
        raise ConfigError(
            f"logging.name: no run with a checkpoint in {folder}; pretrain it first, or give evaluate.checkpoint=FILE, "
            "or evaluate.checkpoint=none for a randomly initialised encoder"
        )
    return newest


def judged_name(config: EvaluateConfig, path: Path | None) -> str:
    """Say what is judged."""
    if path is not None:
        return str(path)
    pretrained = config.backbone.video.args.pretrained
    return f"none: {'the weights of backbone.video' if pretrained else 'a randomly initialised encoder'}"


def judged_encoder(
    config: EvaluateConfig, values: Mapping[str, Any], path: Path | None
) -> "tuple[Encoder, VideoEncoder, Data]":
    """Build the encoder to judge.

    What the checkpoint was trained with wins over ``backbone/video``, and where ``data.args.base_path`` is not given
    the videos are looked for where the run found its own.

    Args:
        config: The checked configuration.
        values: The same as plain data.
        path: The checkpoint, or None.

    Returns:
        The encoder, its configuration, and the data configuration with what the run knew filled in.

    Raises:
        ConfigError: If the clips would be others than the run was trained on, unless ``evaluate.as_trained=false``.
        earmark.checkpoint.CheckpointError: If the checkpoint cannot be read or is of another kind.
    """
    if path is None:
        return build_encoder(config.backbone.video, config.environment), config.backbone.video, config.data

    from earmark.checkpoint import CheckpointError, load_checkpoint
    from earmark.encoders.weights import load_encoder_weights

    stored: Mapping[str, Any] = load_checkpoint(path).get("config", {})
    try:
        encoder_config = checked(VideoEncoder, stored["backbone"]["video"], section="backbone.video")
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: does not say which video encoder it holds ({error})") from error
    held, asked = (_described(encoder) for encoder in (encoder_config, config.backbone.video))
    if held != asked:
        say(f"{path} holds the encoder {held}: the {asked} of backbone.video is not used")
    encoder = build_encoder(_untrained(encoder_config), config.environment)
    load_encoder_weights(encoder, path, kind="video")
    data = config.data
    if config.evaluate.as_trained:
        _require_as_trained(path, stored, values)
    known = stored.get("data", {})
    if data.args.base_path is None and known.get("name") == data.name and known["args"]["base_path"] is not None:
        filled = dataclasses.replace(data.args, base_path=known["args"]["base_path"])
        data = dataclasses.replace(data, args=filled)
        say(f"data.args.base_path={filled.base_path}, as in the run that is judged")
    return encoder, encoder_config, data


def _require_as_trained(path: Path, stored: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuse to judge an encoder on clips of another size or rate than those it was trained on, unasked."""
    differing = []
    for section, key in AS_TRAINED:
        trained, here = stored.get(section, {}).get(key), values[section][key]
        if trained is not None and trained != here:
            differing.append((f"{section}.{key}={trained}", here))
    if differing:
        here = ", ".join(f"{text.partition('=')[0]}={value}" for text, value in differing)
        raise ConfigError(
            f"{path} was trained with {' '.join(text for text, _ in differing)}, this is to judge it with {here}: "
            "add the former to the command, or evaluate.as_trained=false if this is meant"
        )


def action_clips(
    config: EvaluateConfig, dataset: "DatasetRecords", store: "PreparedStore", split: str
) -> "ActionClips":
    """Cut the clips of a split's actions, saying how many actions cannot be used and why."""
    from earmark.clips import ActionClips

    clips = ActionClips(
        store,
        dataset.actions(split),
        clip_seconds=config.data.clip_seconds,
        clip_fps=config.data.clip_fps,
        num_clips=config.evaluate.num_clips,
        random=config.evaluate.random_clips,
    )
    left_out = f"; {len(clips.left_out)} left out, such as {': '.join(clips.left_out[0])}" if clips.left_out else ""
    say(f"{split}: {len(clips.actions)} actions{left_out}")
    return clips


def _described(encoder: VideoEncoder) -> str:
    args = encoder.args
    return encoder.name + (f" of width {args.width}" if args.width else f" {args.model}" if args.model else "")


def _untrained(encoder: VideoEncoder) -> VideoEncoder:
    return dataclasses.replace(encoder, args=dataclasses.replace(encoder.args, pretrained=False, weights=None))


def write_results(folder: Path, result: "ActionRecognitionResult", path: Path | None, values: dict[str, Any]) -> None:
    """Write what was measured, with the checkpoint and the configuration it was measured with."""
    from earmark.atomic import replacing

    content = {"checkpoint": None if path is None else str(path), "config": values, **json.loads(result.to_json())}
    target = folder / "results.json"
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    say(f"results: {target}")


def write_page(
    folder: Path,
    result: "ActionRecognitionResult",
    path: Path | None,
    config: EvaluateConfig,
    store: "PreparedStore",
    dataset: "DatasetRecords",
) -> None:
    """Write the page: the table, the curves of the run that is judged, and moments of the judged split."""
    from earmark import __version__
    from earmark.report import write_report

    summary = {
        "checkpoint": judged_name(config, path),
        "prepared videos": str(store.root),
        "clips of each action": str(config.evaluate.num_clips),
        "seed": str(config.environment.seed),
        "earmark": __version__,
    }
    target = folder / "report.html"
    write_report(
        target,
        title=folder.name,
        summary=summary,
        metrics_path=None if path is None else path.parent.parent / "metrics.jsonl",
        results=result,
        examples=example_moments(store, config, dataset),
    )
    say(f"page: {target}")


def example_moments(store: "PreparedStore", config: EvaluateConfig, dataset: "DatasetRecords") -> "list[Example]":
    """Return the clearest moments of the judged split with their clips and sound, at most one of each video.

    The caption names the annotated action that a moment lies in, if it lies in one.
    """
    import numpy as np

    from earmark.report import Example

    clip_seconds, gap_seconds = config.data.clip_seconds, config.data.args.delta_non_overlap
    offsets = np.arange(round(clip_seconds * config.data.clip_fps)) / config.data.clip_fps
    margin_seconds = clip_seconds + gap_seconds
    found = []
    for video_id, video in store.videos.items():
        times, scores = store.moments[video_id], store.scores[video_id]
        usable = (times >= margin_seconds) & (times <= video.duration_seconds - margin_seconds)
        if video.split == config.evaluate.split and usable.any():
            clearest = int(np.argmax(np.where(usable, scores, -np.inf)))
            found.append((float(scores[clearest]), video_id, float(times[clearest])))
    actions = dataset.actions(config.evaluate.split)
    examples = []
    for score, video_id, time_seconds in sorted(found, reverse=True)[:NUM_EXAMPLES]:
        examples.append(
            Example(
                video_id=video_id,
                time_seconds=time_seconds,
                frames_before=store.frames(video_id, time_seconds - margin_seconds + offsets),
                frames_after=store.frames(video_id, time_seconds + gap_seconds + offsets),
                sound=store.sound(
                    video_id,
                    time_seconds - config.data.audio_seconds / 2,
                    round(config.data.audio_seconds * store.sample_rate),
                ),
                sample_rate=store.sample_rate,
                caption=_action_at(actions, dataset.classes, video_id, time_seconds),
                score=score,
            )
        )
    return examples


def _action_at(
    actions: "Sequence[ActionRecord]", classes: Mapping[str, Sequence[str]], video_id: str, time_seconds: float
) -> str:
    """Name the action annotated at a time, such as "open drawer"; the shortest where several overlap."""
    here = [
        action
        for action in actions
        if action.video_id == video_id and action.start_seconds <= time_seconds <= action.stop_seconds
    ]
    if not here:
        return ""
    action = min(here, key=lambda action: action.stop_seconds - action.start_seconds)
    return " ".join(classes[column][label] for column, label in action.labels.items())
