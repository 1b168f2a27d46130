"""`earmark.training.pretrain` with all its settings as arguments of one call, so that a test changes one of many."""

from dataclasses import fields
from typing import Any

from earmark import training

GROUPS: dict[Any, dict[str, str]] = {
    training.Learner: {},
    training.TrainingData: {},
    training.Schedule: {},
    training.StepOptions: {},
    training.Checkpointing: {
        "every_epochs": "save_every_epochs",
        "every_minutes": "save_every_minutes",
        "every_steps": "save_every_steps",
    },
    training.Logging: {"every_steps": "log_every"},
}


def pretrain(**options: Any) -> training.PretrainResult:
    """Hand each option to the dataclass that has it; a few, which share a field's name, go by longer ones."""
    judging = None
    if "evaluate" in options:
        judging = training.Judging(evaluate=options.pop("evaluate"), every_epochs=options.pop("evaluate_every"))
    made: list[Any] = []
    for group, longer in GROUPS.items():
        names = {field.name: longer.get(field.name, field.name) for field in fields(group)}
        made.append(group(**{field: options.pop(name) for field, name in names.items() if name in options}))
    learner, data, schedule, step, checkpointing, logging = made
    return training.pretrain(
        learner,
        data,
        schedule,
        step=step,
        checkpointing=checkpointing,
        logging=logging,
        judging=judging,
        **options,
    )
