"""The task of an evaluation, built from its configuration: which clips are cut, and how its head is trained.

Beside the path of a sample: `earmark.cli.evaluate` calls this once the data set, its store and the encoders are there.
A task with options of its own has a function here, and a line in `BUILDERS`; one that can be judged as the paper's
numbers were made has one in `PUBLISHED_BUILDERS`, too.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from earmark.cli.build import say_left_out
from earmark.cli.config_schema import EvaluateConfig
from earmark.cli.head_options import anticipation_head_options, fine_tuning_options, probe_options, training_short_sides
from earmark.cli.judged import Judged
from earmark.cli.terminal import say
from earmark.wording import counted

if TYPE_CHECKING:
    from torch import nn

    from earmark.clips.store import PreparedStore
    from earmark.datasets import DatasetRecords
    from earmark.evaluation import ClipOptions, LongTermAnticipation, Modality, ProbeOptions, StateChange, Task

    AnyTask = Task[Any, Any]
    TaskBuilder = Callable[[DatasetRecords, PreparedStore, Judged, EvaluateConfig], AnyTask]

__all__ = ["build_published_task", "build_task", "clip_options", "cut_clips"]


def build_task(dataset: "DatasetRecords", store: "PreparedStore", judged: Judged, config: EvaluateConfig) -> "AnyTask":
    """Build the task that ``evaluate.task`` names.

    Args:
        dataset: Records and classes.
        store: Its prepared videos.
        judged: The encoders.
        config: The checked configuration.

    Raises:
        ValueError: If no record is usable.
    """
    return BUILDERS.get(config.evaluate.task, _task_with_probe)(dataset, store, judged, config)


def build_published_task(
    dataset: "DatasetRecords", store: "PreparedStore", judged: Judged, config: EvaluateConfig
) -> "AnyTask":
    """Build the same task as the paper's numbers were made; see `build_task`.

    The configuration says which tasks can be: `earmark.cli.config_contradictions.PUBLISHED_TASKS`.
    """
    return PUBLISHED_BUILDERS[config.evaluate.task](dataset, store, judged, config)


def clip_options(judged: Judged, config: EvaluateConfig) -> "ClipOptions":
    """Return which clips of a sample the encoders are shown, as the configuration asks for."""
    from earmark.evaluation import ClipOptions

    return ClipOptions(
        clip_seconds=config.clip_seconds,
        clip_fps=config.clip_fps,
        num_clips=config.evaluate.num_clips,
        random=config.evaluate.random_clips,
        modalities=tuple(judged.encoders),
        audio_seconds=config.data.audio_seconds,
        observed_seconds=config.evaluate.observed_seconds,
    )


def cut_clips(
    from_dataset: "Callable[..., AnyTask]",
    dataset: "DatasetRecords",
    store: "PreparedStore",
    config: EvaluateConfig,
    *,
    clips: "ClipOptions",
    probe: "ProbeOptions",
) -> "AnyTask":
    """Cut the clips of a task, and say how many records they are of and which were left out.

    Args:
        from_dataset: `earmark.evaluation.Task.from_dataset` of the task, with its own options filled in
            (`functools.partial`).
        dataset: Records and classes.
        store: Its prepared videos.
        config: Names the split.
        clips: Which clips.
        probe: How the head is trained.

    Raises:
        ValueError: If no record is usable.
    """
    before = dataset.problems
    cut = from_dataset(dataset, store, split=config.evaluate.split, clips=clips, probe=probe)
    say_left_out([text for text in dataset.problems if text not in before])
    for count in cut.records:
        left_out = f"; {len(count.left_out)} left out, such as {': '.join(count.left_out[0])}" if count.left_out else ""
        say(f"{count.split}: {counted(count.num_used, cut.sample)}{left_out}")
    return cut


def _task_with_probe(
    dataset: "DatasetRecords", store: "PreparedStore", judged: Judged, config: EvaluateConfig
) -> "AnyTask":
    """Cut the clips of a task that has no options of its own."""
    from earmark.evaluation import TASKS

    task = TASKS[config.evaluate.task]
    return cut_clips(
        task.from_dataset,
        dataset,
        store,
        config,
        clips=clip_options(judged, config),
        probe=probe_options(config, judged.encoders),
    )


def _recognition(
    dataset: "DatasetRecords", store: "PreparedStore", judged: Judged, config: EvaluateConfig
) -> "AnyTask":
    """Cut the clips of a recognition task; in training an encoder that is trained on sees random crops."""
    from earmark.evaluation import FineTunedActionRecognition, FineTunedSoundRecognition

    if config.evaluate.probe != "fine_tuned":
        return _task_with_probe(dataset, store, judged, config)
    fine_tuned: dict[str, type[AnyTask]] = {
        "action_recognition": FineTunedActionRecognition,
        "sound_recognition": FineTunedSoundRecognition,
    }
    kind = fine_tuned[config.evaluate.task]
    task = cut_clips(
        kind.from_dataset,
        dataset,
        store,
        config,
        clips=clip_options(judged, config),
        probe=probe_options(config, judged.encoders),
    )
    assert isinstance(task, FineTunedActionRecognition | FineTunedSoundRecognition)
    return dataclasses.replace(task, fine_tuning=fine_tuning_options(config), train_transforms=_random_crop(config))


def _random_crop(config: EvaluateConfig) -> "dict[Modality, nn.Module]":
    """Return what makes the inputs of an encoder that is trained on."""
    from earmark.clips.transforms import VideoCrop

    crop_size = config.data_augm.crop_size
    smallest, largest = training_short_sides(crop_size)
    return {"video": VideoCrop(crop_size=crop_size, min_short_side=smallest, max_short_side=largest)}


def _published_action_recognition(
    dataset: "DatasetRecords", store: "PreparedStore", judged: Judged, config: EvaluateConfig
) -> "AnyTask":
    from earmark.clips.transforms import VideoCrop
    from earmark.evaluation import PUBLISHED_PROBE, PublishedActionRecognition, PublishedEgo4DRecognition

    if judged.data.name == "ego4d":
        say("and once more by the published protocol, which fine-tunes the encoder: nothing is cached")
        task = cut_clips(
            PublishedEgo4DRecognition.from_dataset,
            dataset,
            store,
            config,
            clips=clip_options(judged, config),
            probe=PUBLISHED_PROBE,
        )
        assert isinstance(task, PublishedEgo4DRecognition)
        crop_size = config.data_augm.crop_size
        smallest, largest = training_short_sides(crop_size)
        train, test = (
            VideoCrop(crop_size=crop_size, min_short_side=smallest, max_short_side=largest, flip=flip)
            for flip in (True, False)
        )
        options = dataclasses.replace(task.fine_tuning, num_workers=config.environment.workers, progress=True)
        return dataclasses.replace(
            task, fine_tuning=options, train_transforms={"video": train}, test_transforms={"video": test}
        )
    say("and once more by the published protocol, which trains the probe on an encoder that drifts: nothing is cached")
    return cut_clips(
        PublishedActionRecognition.from_dataset,
        dataset,
        store,
        config,
        clips=clip_options(judged, config),
        probe=PUBLISHED_PROBE,
    )


def _moment_task(
    dataset: "DatasetRecords", store: "PreparedStore", judged: Judged, config: EvaluateConfig
) -> "AnyTask":
    """Choose the moments of a task that is about them, and cut their clips."""
    from earmark.evaluation import Order, Retrieval

    kinds: dict[str, type[Retrieval] | type[Order]] = {"retrieval": Retrieval, "order": Order}
    return cut_clips(
        partial(
            kinds[config.evaluate.task].from_dataset,
            gap_seconds=config.data.args.delta_non_overlap,
            max_moments=config.evaluate.max_moments,
            seed=config.environment.seed,
            heads=judged.heads,
        ),
        dataset,
        store,
        config,
        clips=clip_options(judged, config),
        probe=probe_options(config, judged.encoders),
    )


def _long_term_anticipation(
    dataset: "DatasetRecords", store: "PreparedStore", judged: Judged, config: EvaluateConfig
) -> "AnyTask":
    """Cut the windows of long-term anticipation, and the clips of the actions that they see."""
    from earmark.evaluation import LongTermAnticipation

    return _windows_of(LongTermAnticipation, dataset, store, judged, config)


def _published_long_term_anticipation(
    dataset: "DatasetRecords", store: "PreparedStore", judged: Judged, config: EvaluateConfig
) -> "AnyTask":
    from earmark.evaluation import PublishedLongTermAnticipation

    say("and once more by the published protocol: random clips, SGD for 50 epochs, sequences drawn once")
    return _windows_of(PublishedLongTermAnticipation, dataset, store, judged, config)


def _windows_of(
    task: "type[LongTermAnticipation]",
    dataset: "DatasetRecords",
    store: "PreparedStore",
    judged: Judged,
    config: EvaluateConfig,
) -> "AnyTask":
    from_dataset = partial(
        task.from_dataset,
        head=anticipation_head_options(config),
        num_seen=config.evaluate.num_seen,
        decoding=config.evaluate.decoding,
    )
    return cut_clips(
        from_dataset,
        dataset,
        store,
        config,
        clips=clip_options(judged, config),
        probe=probe_options(config, judged.encoders),
    )


def _state_changes(
    dataset: "DatasetRecords", store: "PreparedStore", judged: Judged, config: EvaluateConfig
) -> "AnyTask":
    """Cut the parts of Ego4D's clips of state changes; in training an encoder that is trained on sees random crops."""
    from earmark.evaluation import FineTunedStateChange, StateChange

    if config.evaluate.probe != "fine_tuned":
        return _state_changes_of(StateChange, dataset, store, judged, config)
    task = _state_changes_of(FineTunedStateChange, dataset, store, judged, config)
    assert isinstance(task, FineTunedStateChange)
    return dataclasses.replace(task, fine_tuning=fine_tuning_options(config), train_transforms=_random_crop(config))


def _published_state_changes(
    dataset: "DatasetRecords", store: "PreparedStore", judged: Judged, config: EvaluateConfig
) -> "AnyTask":
    from earmark.evaluation import PublishedStateChange

    say("and once more with the frames, formulas and means of Ego4D's own code, by evaluate.protocol=published")
    return _state_changes_of(PublishedStateChange, dataset, store, judged, config)


def _state_changes_of(
    kind: "type[StateChange]",
    dataset: "DatasetRecords",
    store: "PreparedStore",
    judged: Judged,
    config: EvaluateConfig,
) -> "AnyTask":
    from earmark.evaluation import StateChangeOptions

    seeing = StateChangeOptions(
        view=config.evaluate.frames,
        train_parts=config.evaluate.train_parts,
        gap_seconds=config.data.args.delta_non_overlap,
    )
    return cut_clips(
        partial(kind.from_dataset, seeing=seeing),
        dataset,
        store,
        config,
        clips=clip_options(judged, config),
        probe=probe_options(config, judged.encoders),
    )


# By `evaluate.task`; a task that is not here is cut by its `from_dataset` with the options that all tasks have.
BUILDERS: "Mapping[str, TaskBuilder]" = {
    "action_recognition": _recognition,
    "lta": _long_term_anticipation,
    "sound_recognition": _recognition,
    "oscc_pnr": _state_changes,
    "retrieval": _moment_task,
    "order": _moment_task,
}
PUBLISHED_BUILDERS: "Mapping[str, TaskBuilder]" = {
    "action_recognition": _published_action_recognition,
    "lta": _published_long_term_anticipation,
    "oscc_pnr": _published_state_changes,
}
