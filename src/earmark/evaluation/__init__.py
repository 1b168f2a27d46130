"""Judging a learned encoder: frozen features, the linear probe, the field's metrics, whole tasks, a page.

In the path of a sample it stands after training: evaluation takes an encoder and labelled clips. It never imports
training.
"""

from collections.abc import Mapping
from typing import Any

from earmark.evaluation.action_recognition import ActionRecognition, ClassAccuracy, ColumnResult
from earmark.evaluation.base import ClipOptions, RecordCount, Task, evaluate_task
from earmark.evaluation.features import (
    Cacheable,
    FeatureOptions,
    LabelledClips,
    encoder_fingerprint,
    extract_features,
    feature_key,
)
from earmark.evaluation.intervals import FEW_VIDEOS, mean_interval, paired_interval
from earmark.evaluation.probe import IGNORED_LABEL, ProbeOptions, linear_probe
from earmark.evaluation.report import Example, write_report
from earmark.evaluation.results import Estimate, Row, Score, Seen, TargetResult, TaskResult, compare, format_table

__all__ = [
    "FEW_VIDEOS",
    "IGNORED_LABEL",
    "TASKS",
    "ActionRecognition",
    "Cacheable",
    "ClassAccuracy",
    "ClipOptions",
    "ColumnResult",
    "Estimate",
    "Example",
    "FeatureOptions",
    "LabelledClips",
    "ProbeOptions",
    "RecordCount",
    "Row",
    "Score",
    "Seen",
    "TargetResult",
    "Task",
    "TaskResult",
    "compare",
    "encoder_fingerprint",
    "evaluate_task",
    "extract_features",
    "feature_key",
    "format_table",
    "linear_probe",
    "mean_interval",
    "paired_interval",
    "write_report",
]

TASKS: Mapping[str, type[Task[Any, Any]]] = {
    "action_recognition": ActionRecognition,
}
