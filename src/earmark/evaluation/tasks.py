"""The tasks by name, as `evaluate.task` names them."""

from collections.abc import Mapping
from typing import Any

from earmark.evaluation.action_recognition import ActionRecognition
from earmark.evaluation.anticipation import Anticipation
from earmark.evaluation.base import Task
from earmark.evaluation.long_term_anticipation import LongTermAnticipation
from earmark.evaluation.order import Order
from earmark.evaluation.retrieval import Retrieval
from earmark.evaluation.sound_detection import SoundDetection
from earmark.evaluation.sound_recognition import SoundRecognition
from earmark.evaluation.state_change import StateChange

__all__ = ["TASKS"]

TASKS: Mapping[str, type[Task[Any, Any]]] = {
    "action_recognition": ActionRecognition,
    "sound_recognition": SoundRecognition,
    "sound_detection": SoundDetection,
    "anticipation": Anticipation,
    "lta": LongTermAnticipation,
    "oscc_pnr": StateChange,
    "retrieval": Retrieval,
    "order": Order,
}
