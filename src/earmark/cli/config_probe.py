"""What `evaluate.probe`, or the head of a task that has its own, is trained with where ``optim`` leaves it open.

Beside the path of a sample; part of `earmark.cli.config`. A linear probe, an attentive one and an encoder that is
trained on need learning rates of their own.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["PROBE_OPTIM", "TASK_OPTIM", "with_probe_defaults"]

_LINEAR = {"batch_size": 128, "schedule": [18, 24], "args": {"lr": 0.005, "weight_decay": 1e-4}}  # as published
PROBE_OPTIM: Mapping[str, Mapping[str, Any]] = {
    "linear": _LINEAR,
    "knn": _LINEAR,  # trains nothing
    # V-JEPA's AdamW (arXiv 2404.08471); without milestones, as the learning rate falls along a cosine
    "attentive": {"batch_size": 128, "schedule": [], "args": {"lr": 0.001, "weight_decay": 0.01}},
    # the paper's fine-tuning on Ego4D: the classifiers' learning rate, of which the encoder has a tenth
    "fine_tuned": {"batch_size": 32, "schedule": [], "args": {"lr": 0.01, "weight_decay": 1e-4}},
}
TASK_OPTIM: Mapping[str, Mapping[str, Any]] = {  # of tasks that have a head of their own
    "lta": {"batch_size": 32, "schedule": [], "args": {"lr": 3e-4, "weight_decay": 0.01}},
}


def with_probe_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return composed values with numbers in place of what ``optim`` leaves to `evaluate.probe` or `evaluate.task`.

    Values that are given stay as they are, wrong ones too: `earmark.cli.config.checked` refuses those. A
    configuration without evaluation gets the numbers of the linear probe, whose choice of ``optim`` has the nulls.

    Args:
        values: Plain nested values, interpolations resolved.

    Example:
        >>> with_probe_defaults({"optim": {"batch_size": 16, "schedule": None}, "evaluate": {"probe": "attentive"}})
        {'optim': {'batch_size': 16, 'schedule': []}, 'evaluate': {'probe': 'attentive'}}
    """
    optim, evaluate = values.get("optim"), values.get("evaluate")
    probe = evaluate.get("probe") if isinstance(evaluate, Mapping) else "linear"
    known = PROBE_OPTIM.get(probe) if isinstance(probe, str) else None
    if isinstance(evaluate, Mapping) and isinstance(evaluate.get("task"), str):
        known = TASK_OPTIM.get(evaluate["task"], known)
    # Of another choice of optim, null is a mistake.
    if known is None or not isinstance(optim, Mapping) or optim.get("name", "sgd_lincls") != "sgd_lincls":
        return dict(values)
    return {**values, "optim": _filled(optim, known)}


def _filled(section: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    filled = dict(section)
    for name, default in defaults.items():
        if name not in section:
            continue
        if isinstance(default, Mapping):
            if isinstance(section[name], Mapping):
                filled[name] = _filled(section[name], default)
        elif section[name] is None:
            filled[name] = list(default) if isinstance(default, list) else default
    return filled
