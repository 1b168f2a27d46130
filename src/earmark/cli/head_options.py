"""How the head of an evaluation is trained: a probe on features, or the encoder with classifiers.

Beside the path of a sample: from the checked configuration to the options of `earmark.evaluation`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from earmark.cli.config_schema import EvaluateConfig
from earmark.cli.terminal import say

if TYPE_CHECKING:
    from earmark.encoders import Encoder
    from earmark.evaluation import FineTuningOptions, HeadOptions, Modality, ProbeOptions

__all__ = ["anticipation_head_options", "fine_tuning_options", "probe_options", "training_short_sides"]

MAX_ATTENTION_HEADS = 8


def probe_options(config: EvaluateConfig, encoders: "Mapping[Modality, Encoder]") -> "ProbeOptions":
    """Return how the probe is trained; of fine-tuning, which has none, the linear one's.

    Args:
        config: The checked configuration.
        encoders: What is judged; the attention heads of an attentive probe must divide the size of its features.
    """
    from earmark.evaluation import ProbeOptions

    optim, probe = config.optim, config.evaluate.probe
    num_heads = MAX_ATTENTION_HEADS
    if probe == "attentive":
        (encoder,) = encoders.values()
        num_heads = attention_heads(encoder.output_dim)
        if num_heads < MAX_ATTENTION_HEADS:
            say(
                f"attentive probe: {num_heads} in place of {MAX_ATTENTION_HEADS} attention heads, the most that divide "
                f"features of size {encoder.output_dim}"
            )
    return ProbeOptions(
        epochs=optim.epochs,
        lr=optim.args.lr,
        milestones=tuple(optim.schedule),
        gamma=optim.gamma,
        batch_size=optim.batch_size,
        momentum=optim.args.momentum,
        weight_decay=optim.args.weight_decay,
        normalize=config.train_algo.normalize_feats,
        standardize=config.evaluate.standardize,
        fresh_clips=config.evaluate.random_clips and probe == "linear",
        kind="linear" if probe == "fine_tuned" else probe,
        lrs=tuple(config.evaluate.lrs),
        weight_decays=tuple(config.evaluate.weight_decays),
        neighbours=tuple(config.evaluate.neighbours),
        held_out=config.evaluate.held_out,
        num_heads=num_heads,
    )


def attention_heads(feature_dim: int) -> int:
    """Return the most attention heads, up to eight, that features can be shared out among.

    Args:
        feature_dim: Size of the features, D.

    Example:
        >>> attention_heads(512), attention_heads(36), attention_heads(7)
        (8, 6, 7)
    """
    return max(heads for heads in range(1, MAX_ATTENTION_HEADS + 1) if feature_dim % heads == 0)


def fine_tuning_options(config: EvaluateConfig) -> "FineTuningOptions":
    """Return how an encoder is fine-tuned: by the milestones of ``optim.schedule``, or without any along a cosine."""
    from earmark.evaluation import FineTuningOptions

    optim = config.optim
    return FineTuningOptions(
        epochs=optim.epochs,
        lr=optim.args.lr,
        weight_decay=optim.args.weight_decay,
        momentum=optim.args.momentum,
        schedule="steps" if optim.schedule else "cosine",
        milestones=tuple(optim.schedule),
        gamma=optim.gamma,
        batch_size=optim.batch_size,
        lrs=tuple(config.evaluate.lrs),
        weight_decays=tuple(config.evaluate.weight_decays),
        held_out=config.evaluate.held_out,
        num_workers=config.environment.workers,
        progress=True,
    )


def anticipation_head_options(config: EvaluateConfig) -> "HeadOptions":
    """Return how the head of long-term anticipation is built and trained."""
    from earmark.evaluation import HeadOptions

    optim, evaluate = config.optim, config.evaluate
    return HeadOptions(
        aggregator=evaluate.aggregator,
        num_layers=evaluate.num_layers,
        epochs=optim.epochs,
        batch_size=optim.batch_size,
        lrs=tuple(evaluate.lrs) or (optim.args.lr,),
        weight_decays=tuple(evaluate.weight_decays) or (optim.args.weight_decay,),
        held_out=evaluate.held_out,
    )


def training_short_sides(crop_size: int) -> tuple[int, int]:
    """Return the least and the greatest short side that a crop is cut from in fine-tuning.

    As in pretraining, whose crops of 112 come from 128 to 180.

    Example:
        >>> training_short_sides(112)
        (128, 180)
    """
    return round(crop_size * 128 / 112), round(crop_size * 180 / 112)
