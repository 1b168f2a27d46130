"""The linear probe of an encoder in training, on a schedule: ``logging.evaluate_every``.

Beside the path of a sample: `earmark.cli.pretrain` hands it to the loop. It is a short `earmark evaluate`: one clip per
action, no baseline.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from earmark.cli.build import open_dataset, say_left_out
from earmark.cli.config import ConfigError
from earmark.cli.config_schema import PretrainConfig
from earmark.cli.terminal import say
from earmark.wording import counted

if TYPE_CHECKING:
    import torch
    from torch import nn

    from earmark.clips.store import PreparedStore

__all__ = ["scheduled_probe"]

PROBE_LR = 0.1  # few actions make few steps


def scheduled_probe(
    config: PretrainConfig, store: "PreparedStore", device: "torch.device"
) -> "tuple[Callable[[nn.Module], dict[str, float]], list[str]]":
    """Return a function that judges a model's video encoder on the validation actions, and the ids of their videos.

    Args:
        config: Of the run.
        store: Its prepared videos.
        device: Where features are computed.

    Returns:
        The function, which returns top-1 and top-5 of each label column in % of a model that has ``backbone["video"]``;
        and the ids.

    Raises:
        ConfigError: If the data set has no annotated actions.
    """
    from earmark.clips.transforms import VideoCrop
    from earmark.evaluation import ActionRecognition, ClipOptions, FeatureOptions, ProbeOptions, evaluate_task

    dataset = open_dataset(config.data, config.environment)
    if not dataset.classes:
        raise ConfigError(f"logging.evaluate_every: {config.data.name} has no annotated actions to probe on")
    before = dataset.problems
    task = ActionRecognition.from_dataset(
        dataset,
        store,
        split="validation",
        clips=ClipOptions(clip_seconds=config.data.clip_seconds, clip_fps=config.data.clip_fps),
        probe=ProbeOptions(lr=PROBE_LR),
    )
    say_left_out([text for text in dataset.problems if text not in before])
    for count in task.records:
        if count.left_out:
            action_id, reason = count.left_out[0]
            say(
                f"probe: {counted(len(count.left_out), 'action')} of {count.split} left out; the first, {action_id}: "
                f"{reason}"
            )

    def probe(model: "nn.Module") -> dict[str, float]:
        result = evaluate_task(
            task,
            {"video": model.get_submodule("backbone.video")},
            transforms={"video": VideoCrop(crop_size=config.data_augm.crop_size, random=False)},
            features=FeatureOptions(num_workers=config.environment.workers),
            device=device,
            seed=config.environment.seed,
        ).result
        scores = {}
        for column in result.columns:
            scores[f"{column.column}_top1"] = column.top1.encoder.value
            scores[f"{column.column}_top5"] = column.top5.encoder.value
        say("probe: " + ", ".join(f"{name.replace('_', ' ')} {value:.1f} %" for name, value in scores.items()))
        return scores

    return probe, sorted(set(task.test_videos or ()))
