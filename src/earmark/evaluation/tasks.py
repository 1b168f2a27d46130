"""The tasks by name, as `evaluate.task` names them."""

from collections.abc import Mapping
from typing import Any

from earmark.evaluation.action_recognition import ActionRecognition
from earmark.evaluation.base import Task

__all__ = ["TASKS"]

TASKS: Mapping[str, type[Task[Any, Any]]] = {
    "action_recognition": ActionRecognition,
}
