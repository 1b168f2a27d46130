"""The linear probe of an encoder in training, on a schedule: ``logging.evaluate_every``.

Beside the path of a sample: `earmark.cli.pretrain` hands it to the loop. It is `earmark evaluate` made short: one clip
of each action, no baseline.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from earmark.cli.build import open_dataset
from earmark.cli.config import ConfigError
from earmark.cli.config_schema import PretrainConfig
from earmark.cli.terminal import say
from earmark.wording import counted

if TYPE_CHECKING:
    import torch
    from torch import nn

    from earmark.clips.store import PreparedStore

__all__ = ["scheduled_probe"]

PROBE = {"epochs": 30, "lr": 0.1, "milestones": (18, 24)}


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
    from earmark.clips.dataset import ActionClips
    from earmark.clips.transforms import VideoCrop
    from earmark.evaluation.action_recognition import evaluate_action_recognition

    dataset = open_dataset(config.data, config.environment)
    if not dataset.classes:
        raise ConfigError(f"logging.evaluate_every: {config.data.name} has no annotated actions to probe on")
    train, test = (
        ActionClips(store, dataset.actions(split), clip_seconds=config.data.clip_seconds, clip_fps=config.data.clip_fps)
        for split in ("train", "validation")
    )
    for split, clips in (("train", train), ("validation", test)):
        if clips.left_out:
            action_id, reason = clips.left_out[0]
            say(
                f"probe: {counted(len(clips.left_out), 'action')} of {split} left out; the first, {action_id}: {reason}"
            )
    arguments: dict[str, Any] = {
        "train_clips": train,
        "test_clips": test,
        "transform": VideoCrop(crop_size=config.data_augm.crop_size, random=False),
        "num_classes": {column: len(names) for column, names in dataset.classes.items()},
        "class_names": dataset.classes,
        "fingerprint": store.fingerprint,
        "num_workers": config.environment.workers,
        "device": device,
        "seed": config.environment.seed,
        **PROBE,
    }

    def probe(model: "nn.Module") -> dict[str, float]:
        encoder: Any = model.get_submodule("backbone.video")
        result = evaluate_action_recognition(encoder=encoder, **arguments)
        scores = {}
        for column in result.columns:
            scores[f"{column.column}_top1"] = column.top1.encoder.value
            scores[f"{column.column}_top5"] = column.top5.encoder.value
        say("probe: " + ", ".join(f"{name.replace('_', ' ')} {value:.1f} %" for name, value in scores.items()))
        return scores

    return probe, sorted({action.video_id for action in test.actions})
