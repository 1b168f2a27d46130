"""`earmark evaluate`: a probe on frozen encoders, from its checked configuration to table and page.

Beside the path of a sample: it puts checkpoint, labelled clips and `earmark.evaluation` together.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.atomic import remove_abandoned, remove_abandoned_scratch
from earmark.cli.build import (
    build_encoder,
    build_fabric,
    describe_store,
    open_dataset,
    open_store,
    require_clips_fit,
    require_sound_fits,
    run_dir,
)
from earmark.cli.config import ConfigError
from earmark.cli.config_schema import EGO4D_TASKS, HEARING_TASKS, MOMENT_TASKS, Data, Environment, EvaluateConfig
from earmark.cli.evaluation_page import page_details
from earmark.cli.judged import SAW, Judged, judged_encoders, seen_videos, untrained
from earmark.cli.submission import require_submittable, submit
from earmark.cli.task_cutting import build_published_task, build_task
from earmark.cli.terminal import say, screen

if TYPE_CHECKING:
    from earmark.clips.spectrograms import MelSpectrogram
    from earmark.clips.store import PreparedStore
    from earmark.clips.transforms import LogMel
    from earmark.datasets import ActionRecord, DatasetRecords
    from earmark.encoders import Encoder
    from earmark.evaluation import (
        ColumnResult,
        Example,
        Judgement,
        Modality,
        Setting,
        Task,
        TaskResult,
    )
    from earmark.evaluation.report_details import ResultDetails

    AnyTask = Task[Any, Any]

__all__ = ["Evaluated", "evaluate", "run_evaluation"]

NUM_EXAMPLES = 6  # moments on the page
# Keys that came later, with the values that do what was done before them: an evaluation made then finds its folder.
LATER_KEYS: Mapping[str, Any] = {
    "task": "action_recognition",
    "audio": False,
    "probe": "linear",
    "lrs": [],
    "weight_decays": [],
    "neighbours": [20],
    "held_out": 0.2,
    "seeds": 1,
    "protocol": "full",
    "observed_seconds": 2.0,
    "aggregator": "transformer",
    "num_layers": 6,
    "num_seen": None,
    "decoding": "sampled",
    "clip_seconds": None,
    "clip_fps": None,
    "frames": "spread",
    "train_parts": 4,
    "max_moments": 1000,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluated:
    """The outcome of an evaluation.

    Attributes:
        result: The numbers; None where the labels are held back.
        folder: Where results.json and report.html are: one folder for each encoder, split and protocol.
    """

    result: "TaskResult[ColumnResult] | None"
    folder: Path


def run_evaluation(config: EvaluateConfig, values: dict[str, Any]) -> float:
    """Judge encoders as `evaluate` does.

    Returns:
        The first number, top-1 accuracy of the first label column in %, for sweepers that look for the best run; NaN
        where nothing is measured.
    """
    result = evaluate(config, values).result
    return float("nan") if result is None else result.headline


def evaluate(config: EvaluateConfig, values: dict[str, Any]) -> Evaluated:
    """Judge frozen encoders by a task; print the table, write results.json and report.html, and a submission.

    Args:
        config: The checked configuration.
        values: The same as plain data, written beside the results.

    Raises:
        ConfigError: If there is no such checkpoint, the data set is not labelled, or the submission is not valid.
        earmark.training.checkpoint.CheckpointError: If the checkpoint cannot be read.
    """
    import torch

    fabric = build_fabric(config.environment)
    torch.manual_seed(config.environment.seed)
    judged = judged_encoders(config, values)
    baseline = baseline_encoders(judged, config)
    for modality, encoder in judged.encoders.items():
        if modality == "video":
            shown = dataclasses.replace(config.data, clip_seconds=config.clip_seconds, clip_fps=config.clip_fps)
            require_clips_fit(encoder, shown, config.data_augm.crop_size)
        else:
            require_sound_fits(encoder, config.data, config.prepare.audio_rate)
    dataset = open_judged_dataset(judged.data, config.environment)
    if config.evaluate.task in HEARING_TASKS:
        dataset = annotated_sounds(dataset)
    # those read files of their own, and these need none
    if not dataset.classes and config.evaluate.task not in (*EGO4D_TASKS, *MOMENT_TASKS):
        raise ConfigError(
            f"data: {judged.data.name} has no annotated actions; choose kitchen, epic_action_segments or ego4d"
        )
    submission = None if config.evaluate.submission is None else Path(config.evaluate.submission)
    annotations = Path() if submission is None else require_submittable(submission, dataset, config.evaluate.task)
    store = open_store(judged.data, config.environment, config.prepare)
    say(describe_store(store))

    from earmark.clips.transforms import VideoCrop
    from earmark.datasets import parents_in
    from earmark.evaluation import FeatureOptions, Setting, answer_task

    task = build_task(dataset, store, judged, config)
    folder = result_folder(judged, store, config, values)
    cache_dir = Path(config.environment.data_dir) / "features"
    for written in (folder, cache_dir):
        remove_abandoned(written)
    remove_abandoned_scratch()
    setting = Setting(
        transforms={
            "video": VideoCrop(crop_size=config.data_augm.crop_size, random=False),
            "audio": spectrogram_of(judged, store.sample_rate),
        },
        features=FeatureOptions(num_workers=config.environment.workers, cache_dir=cache_dir, progress=True),
        device=fabric.device,
        seed=config.environment.seed,
        num_seeds=config.evaluate.seeds,
    )
    if submission is not None and not task.is_labelled:
        say(f"{judged.name} answers; the labels of {config.evaluate.split} are held back, so nothing is measured")
        answers = answer_task(task, judged.encoders, setting)
        submit(task, answers.encoder, submission, judged=judged, annotations=annotations)
        return Evaluated(None, folder)
    say(f"judging {judged.name}; results go to {folder}")
    seen = seen_videos(judged, store, config.environment, parent=parents_in(dataset))
    facts = {
        "fingerprint": store.fingerprint,
        "judged": judged.name,
        "weights": judged.weights,
        "split": config.evaluate.split,
        **({"modalities": list(judged.encoders)} if "audio" in judged.encoders else {}),
        **({} if config.data.subset is None else {"subset": config.data.subset}),
    }
    judgement = judge(task, judged, baseline, setting, seen_videos=seen, facts=facts)
    result = dataclasses.replace(judgement.result, left_out=tuple(dataset.problems))
    if config.evaluate.protocol == "published":
        published = build_published_task(dataset, store, judged, config)
        once = dataclasses.replace(setting, num_seeds=1)
        result = dataclasses.replace(result, published=judge(published, judged, baseline, once).result)
    screen().print(task.table(result))
    values = values | {
        "backbone": {modality: dataclasses.asdict(held) for modality, held in judged.configs.items()},
        "data": dataclasses.asdict(judged.data),
    }
    write_results(folder, result, judged, values)
    judgement = dataclasses.replace(judgement, result=result)
    details = page_details(task, judgement, judged, config, store, dataset, seen.get(SAW))
    write_page(folder, result, judged, config, store, dataset, details)
    if submission is not None:
        submit(task, judgement.answers[0].encoder, submission, judged=judged, annotations=annotations)
    return Evaluated(result, folder)


def spectrogram_of(judged: Judged, sample_rate: int) -> "LogMel | MelSpectrogram":
    """Return the spectrogram that the audio encoder takes, or that of the heads where it alone is not judged."""
    from earmark.clips.transforms import LogMel
    from earmark.encoders import spectrogram_for

    with_heads = {} if judged.heads is None else judged.heads.encoders
    encoder = judged.encoders.get("audio", with_heads.get("audio"))
    return LogMel(sample_rate=sample_rate) if encoder is None else spectrogram_for(encoder, sample_rate=sample_rate)


def judge(
    task: "AnyTask",
    judged: Judged,
    baseline: "dict[Modality, Encoder] | None",
    setting: "Setting",
    *,
    seen_videos: "Mapping[str, Collection[str] | None] | None" = None,
    facts: Mapping[str, Any] | None = None,
) -> "Judgement[Any, Any]":
    """Judge the encoders by a task; see `earmark.evaluation.evaluate_task`."""
    from earmark.evaluation import evaluate_task

    return evaluate_task(
        task,
        judged.encoders,
        transforms=setting.transforms,
        baseline_encoders=baseline,
        features=setting.features,
        device=setting.device,
        seed=setting.seed,
        num_seeds=setting.num_seeds,
        seen_videos=seen_videos,
        facts=facts,
    )


def baseline_encoders(judged: Judged, config: EvaluateConfig) -> "dict[Modality, Encoder] | None":
    """Return the same encoders with random weights; None where they are not wanted, or those that are judged are."""
    has_weights = judged.path is not None or any(
        encoder.args.pretrained or encoder.args.weights is not None for encoder in judged.configs.values()
    )
    if not (config.evaluate.baseline and has_weights):
        return None
    return {
        modality: build_encoder(untrained(encoder), config.environment) for modality, encoder in judged.configs.items()
    }


def open_judged_dataset(data: Data, environment: Environment) -> "DatasetRecords":
    """Open the data set, with the part of its validation actions that ``data.subset`` names.

    Raises:
        earmark.datasets.DatasetError: If it is damaged, or has no such part.
    """
    dataset = open_dataset(data, environment)
    if data.subset is None:
        return dataset
    from earmark.datasets import EpicKitchens, EpicSubset

    if not isinstance(dataset, EpicKitchens):
        raise ConfigError(f"data.subset: {data.subset} is a part of EPIC-KITCHENS; data {data.name} has none")
    return EpicSubset(dataset, data.subset)


def annotated_sounds(dataset: "DatasetRecords") -> "DatasetRecords":
    """Return EPIC-SOUNDS' annotations that lie beside those of a data set.

    Raises:
        ConfigError: If there are none.
    """
    from earmark.datasets import DatasetError, sounds_of

    try:
        return sounds_of(dataset)
    except DatasetError as error:
        raise ConfigError(f"evaluate.task: {error}") from error


def result_folder(judged: Judged, store: "PreparedStore", config: EvaluateConfig, values: Mapping[str, Any]) -> Path:
    """Return the folder for the results of an encoder on a split by a protocol; others have another one.

    Its name says what is judged, and ends with a digest of all that the numbers depend on.
    """
    from earmark.evaluation import encoder_fingerprint

    settings = {name: values[name] for name in ("data_augm", "optim", "train_algo")}
    settings["seed"] = config.environment.seed
    settings["evaluate"] = {
        key: value
        for key, value in values["evaluate"].items()
        if key not in ("checkpoint", "submission") and not (key in LATER_KEYS and value == LATER_KEYS[key])
    }
    settings["data"] = {key: values["data"][key] for key in ("name", "clip_seconds", "clip_fps")}
    if config.data.subset is not None:
        settings["data"]["subset"] = config.data.subset
    if config.evaluate.task in MOMENT_TASKS:
        settings["moments"] = {"gap_seconds": config.data.args.delta_non_overlap}
    if "audio" in judged.encoders:
        settings["audio"] = {"seconds": config.data.audio_seconds, **encoder_fingerprint(judged.encoders["audio"])}
    # These words, with the empty transform, are those of version 1: an evaluation made then finds its folder again.
    content = {
        "format_version": 1,
        **encoder_fingerprint(next(iter(judged.encoders.values()))),
        "clips": settings,
        "transform": {},
        "fingerprint": store.fingerprint,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    args = [encoder.args for encoder in judged.configs.values()]
    weights = [Path(of.weights).stem for of in args if of.weights is not None]
    if judged.path is not None:
        stem = judged.path.stem + (f"-{judged.weights}" if judged.has_average else "")
    elif weights:
        stem = weights[0]
    else:
        stem = "pretrained" if any(of.pretrained for of in args) else "random"
    part = "" if config.evaluate.task == "action_recognition" else f"{config.evaluate.task}-"
    part += config.evaluate.split + ("" if config.data.subset is None else f"-{config.data.subset}")
    name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', stem)}-{part}-{digest[:8]}"
    return run_dir(config.environment, config.logging) / name


def write_results(folder: Path, result: "TaskResult[ColumnResult]", judged: Judged, values: dict[str, Any]) -> None:
    """Write what was measured, with the checkpoint and the configuration it was measured with."""
    from earmark.atomic import replacing

    checkpoint = {"checkpoint": None if judged.path is None else str(judged.path), "weights": judged.weights}
    content = {**checkpoint, "split": values["evaluate"]["split"], "config": values, **json.loads(result.to_json())}
    target = folder / "results.json"
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    say(f"results: {target}")


def what_is_shown(config: EvaluateConfig) -> dict[str, str]:
    """Return in words how much of a sample the encoder is shown."""
    if config.evaluate.task in MOMENT_TASKS:
        return {"gap to each clip": f"{config.data.args.delta_non_overlap:g} s"}
    if config.evaluate.task == "oscc_pnr":
        shown = {"spread": "16 frames", "windows": f"16 clips of {config.data.clip_seconds:g} s"}
        return {"of each clip of 8 s": shown[config.evaluate.frames]}
    return {"clips of each action": str(config.evaluate.num_clips)}


def write_page(
    folder: Path,
    result: "TaskResult[ColumnResult]",
    judged: Judged,
    config: EvaluateConfig,
    store: "PreparedStore",
    dataset: "DatasetRecords",
    details: "ResultDetails",
) -> None:
    """Write the page: the table, what lies behind it, the curves of the run, and moments of the judged split."""
    from earmark import __version__
    from earmark.evaluation.report import write_report
    from earmark.training.run_log import METRICS_FILE, read_metrics

    summary = {
        "checkpoint": judged.name,
        "split": config.evaluate.split,
        **({} if config.data.subset is None else {"actions judged": config.data.subset.replace("_", " ")}),
        "prepared videos": str(store.root),
        "moments found by": f"detector {store.parameters['detector']}",
        **what_is_shown(config),
        "seed": str(config.environment.seed),
        "earmark": __version__,
    }
    target = folder / "report.html"
    metrics, num_damaged = (None, 0) if judged.path is None else read_metrics(judged.path.parent.parent / METRICS_FILE)
    write_report(
        target,
        title=folder.parent.name,
        summary=summary,
        metrics=metrics,
        num_damaged_metrics=num_damaged,
        results=result,
        details=details,
        examples=example_moments(store, config, dataset),
    )
    say(f"page: {target}")
    if details.learned is not None:
        from earmark.evaluation.change_figures import write_change_figures

        for figure in write_change_figures(folder, details.learned):
            say(f"figure: {figure}")


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
