"""`earmark evaluate`: the linear probe on a frozen video encoder, from its checked configuration to table and page.

Beside the path of a sample: it puts checkpoint, labelled clips and `earmark.evaluation` together.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.cli.build import (
    build_encoder,
    build_fabric,
    describe_store,
    open_dataset,
    open_store,
    require_clips_fit,
    run_dir,
)
from earmark.cli.config import ConfigError
from earmark.cli.config_schema import EvaluateConfig
from earmark.cli.judged import Judged, judged_encoder, seen_videos, untrained
from earmark.cli.terminal import say, screen
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.clips.dataset import ActionClips
    from earmark.clips.store import PreparedStore
    from earmark.datasets import ActionRecord, DatasetRecords
    from earmark.evaluation.action_recognition import ActionRecognitionResult
    from earmark.evaluation.report import Example

__all__ = ["Evaluated", "evaluate", "run_evaluation"]

PROBED_SPLIT = "train"
NUM_EXAMPLES = 6  # moments on the page


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation came to.

    Attributes:
        result: The numbers.
        folder: Where results.json and report.html are: one folder for each encoder, split and protocol.
    """

    result: "ActionRecognitionResult"
    folder: Path


def run_evaluation(config: EvaluateConfig, values: dict[str, Any]) -> float:
    """Judge a video encoder as `evaluate` does.

    Returns:
        Top-1 accuracy of the first label column in %, for sweepers that look for the best run.
    """
    return evaluate(config, values).result.columns[0].top1.encoder.value


def evaluate(config: EvaluateConfig, values: dict[str, Any]) -> Evaluated:
    """Judge a video encoder by a linear probe; print the table, write results.json and report.html.

    Args:
        config: The checked configuration.
        values: The same as plain data, written beside the results.

    Raises:
        ConfigError: If there is no such checkpoint or the data set is not labelled.
        earmark.training.checkpoint.CheckpointError: If the checkpoint cannot be read.
    """
    import torch

    fabric = build_fabric(config.environment)
    torch.manual_seed(config.environment.seed)
    judged = judged_encoder(config, values)
    args = config.backbone.video.args
    baseline = None
    if config.evaluate.baseline and (judged.path is not None or args.pretrained or args.weights is not None):
        baseline = build_encoder(untrained(judged.config), config.environment)

    require_clips_fit(judged.encoder, config.data, config.data_augm.crop_size)
    dataset = open_dataset(judged.data, config.environment)
    if not dataset.classes:
        raise ConfigError(f"data: {judged.data.name} has no annotated actions; choose kitchen or epic_action_segments")
    store = open_store(judged.data, config.environment, config.prepare)
    say(describe_store(store))

    from earmark.clips.transforms import VideoCrop
    from earmark.evaluation.action_recognition import evaluate_action_recognition, format_table

    # drawn anew for each epoch of the probe, as the original code does at each visit
    num_train_clips = config.optim.epochs if config.evaluate.random_clips else config.evaluate.num_clips
    train_clips = action_clips(config, dataset, store, PROBED_SPLIT, num_clips=num_train_clips)
    test_clips = action_clips(config, dataset, store, config.evaluate.split, num_clips=config.evaluate.num_clips)
    folder = result_folder(judged, store, config, values)
    optim = config.optim
    say(f"judging {judged.name}; results go to {folder}")
    result = evaluate_action_recognition(
        encoder=judged.encoder,
        baseline_encoder=baseline,
        test_videos=[action.video_id for action in test_clips.actions],  # actions of one video are not independent
        seen_videos={
            "the probe was trained on": {action.video_id for action in train_clips.actions},
            **seen_videos(judged, store, config.environment),
        },
        encoder_options={"judged": judged.name, "weights": judged.weights, "split": config.evaluate.split},
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
        fresh_clips=config.evaluate.random_clips,
        seed=config.environment.seed,
        progress=True,
    )
    screen().print(format_table(result))
    values = values | {
        "backbone": {"video": dataclasses.asdict(judged.config)},
        "data": dataclasses.asdict(judged.data),
    }
    write_results(folder, result, judged, values)
    write_page(folder, result, judged, config, store, dataset)
    return Evaluated(result, folder)


def result_folder(judged: Judged, store: "PreparedStore", config: EvaluateConfig, values: Mapping[str, Any]) -> Path:
    """Return the folder for the results of an encoder on a split by a protocol; others have another one.

    Its name says what is judged, and ends with a digest of all that the numbers depend on.
    """
    from earmark.evaluation.features import feature_key

    settings = {name: values[name] for name in ("data_augm", "optim", "train_algo")}
    settings["seed"] = config.environment.seed
    settings["evaluate"] = {key: value for key, value in values["evaluate"].items() if key != "checkpoint"}
    settings["data"] = {key: values["data"][key] for key in ("name", "clip_seconds", "clip_fps")}
    digest = feature_key(
        judged.encoder, clip_parameters=settings, transform_parameters={}, fingerprint=store.fingerprint
    ).digest
    weights = config.backbone.video.args.weights
    if judged.path is not None:
        stem = judged.path.stem + (f"-{judged.weights}" if judged.has_average else "")
    elif weights is not None:
        stem = Path(weights).stem
    else:
        stem = "pretrained" if config.backbone.video.args.pretrained else "random"
    name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', stem)}-{config.evaluate.split}-{digest[:8]}"
    return run_dir(config.environment, config.logging) / name


def action_clips(
    config: EvaluateConfig, dataset: "DatasetRecords", store: "PreparedStore", split: str, *, num_clips: int
) -> "ActionClips":
    """Cut the clips of a split's actions, saying how many actions cannot be used and why."""
    from earmark.clips.dataset import ActionClips

    clips = ActionClips(
        store,
        dataset.actions(split),
        clip_seconds=config.data.clip_seconds,
        clip_fps=config.data.clip_fps,
        num_clips=num_clips,
        random=config.evaluate.random_clips,
    )
    left_out = f"; {len(clips.left_out)} left out, such as {': '.join(clips.left_out[0])}" if clips.left_out else ""
    say(f"{split}: {counted(len(clips.actions), 'action')}{left_out}")
    return clips


def write_results(folder: Path, result: "ActionRecognitionResult", judged: Judged, values: dict[str, Any]) -> None:
    """Write what was measured, with the checkpoint and the configuration it was measured with."""
    from earmark.atomic import replacing

    checkpoint = {"checkpoint": None if judged.path is None else str(judged.path), "weights": judged.weights}
    content = {**checkpoint, "split": values["evaluate"]["split"], "config": values, **json.loads(result.to_json())}
    target = folder / "results.json"
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    say(f"results: {target}")


def write_page(
    folder: Path,
    result: "ActionRecognitionResult",
    judged: Judged,
    config: EvaluateConfig,
    store: "PreparedStore",
    dataset: "DatasetRecords",
) -> None:
    """Write the page: the table, the curves of the run that is judged, and moments of the judged split."""
    from earmark import __version__
    from earmark.evaluation.report import write_report

    summary = {
        "checkpoint": judged.name,
        "split": config.evaluate.split,
        "prepared videos": str(store.root),
        "clips of each action": str(config.evaluate.num_clips),
        "seed": str(config.environment.seed),
        "earmark": __version__,
    }
    target = folder / "report.html"
    write_report(
        target,
        title=folder.parent.name,
        summary=summary,
        metrics_path=None if judged.path is None else judged.path.parent.parent / "metrics.jsonl",
        results=result,
        examples=example_moments(store, config, dataset),
    )
    say(f"page: {target}")


def example_moments(store: "PreparedStore", config: EvaluateConfig, dataset: "DatasetRecords") -> "list[Example]":
    """Return the clearest moments of the judged split with their clips and sound, at most one of each video.

    The caption names the annotated action that a moment lies in, if it lies in one.
    """
    import numpy as np

    from earmark.evaluation.report import Example

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
