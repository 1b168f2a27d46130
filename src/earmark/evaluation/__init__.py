"""Judging a learned encoder: frozen features, the linear probe, the field's metrics, whole tasks, a page.

In the path of a sample it stands after training: evaluation takes an encoder and labelled clips. It never imports
training.
"""

from collections.abc import Mapping
from typing import Any

from earmark.evaluation.action_recognition import ActionRecognition, ClassAccuracy, ColumnResult
from earmark.evaluation.action_submissions import read_action_submission, write_action_submission
from earmark.evaluation.base import (
    Answers,
    ClipOptions,
    Judgement,
    RecordCount,
    Setting,
    Task,
    answer_task,
    evaluate_task,
)
from earmark.evaluation.challenges import CHALLENGES, ChallengeScore, score_submission
from earmark.evaluation.detection_metrics import Events
from earmark.evaluation.feature_files import FeatureFileError, VideoFeatures, load_features
from earmark.evaluation.feature_index import FeatureSettingsError
from earmark.evaluation.feature_writing import FeatureModel, FeatureReport, FeatureWriting, write_features
from earmark.evaluation.features import (
    Cacheable,
    FeatureOptions,
    LabelledClips,
    Modality,
    encoder_fingerprint,
    extract_features,
    feature_key,
)
from earmark.evaluation.fine_tuned_recognition import FineTunedActionRecognition
from earmark.evaluation.fine_tuning import FineTuningOptions, fine_tune
from earmark.evaluation.intervals import FEW_VIDEOS, mean_interval, paired_interval
from earmark.evaluation.probe import IGNORED_LABEL, ProbeOptions, linear_probe
from earmark.evaluation.probing import ProbeAnswers, fit_probe
from earmark.evaluation.published_protocol import PUBLISHED_PROBE, PublishedActionRecognition, published_segments
from earmark.evaluation.report import Example, write_report
from earmark.evaluation.results import Estimate, Row, Score, Seen, TargetResult, TaskResult, compare, format_table
from earmark.evaluation.sound_submissions import (
    read_detection_submission,
    read_sound_submission,
    write_detection_submission,
    write_sound_submission,
)
from earmark.evaluation.submission_files import SubmissionError, SupervisionLevels

__all__ = [
    "CHALLENGES",
    "FEW_VIDEOS",
    "IGNORED_LABEL",
    "PUBLISHED_PROBE",
    "TASKS",
    "ActionRecognition",
    "Answers",
    "Cacheable",
    "ChallengeScore",
    "ClassAccuracy",
    "ClipOptions",
    "ColumnResult",
    "Estimate",
    "Events",
    "Example",
    "FeatureFileError",
    "FeatureModel",
    "FeatureOptions",
    "FeatureReport",
    "FeatureSettingsError",
    "FeatureWriting",
    "FineTunedActionRecognition",
    "FineTuningOptions",
    "Judgement",
    "LabelledClips",
    "Modality",
    "ProbeAnswers",
    "ProbeOptions",
    "PublishedActionRecognition",
    "RecordCount",
    "Row",
    "Score",
    "Seen",
    "Setting",
    "SubmissionError",
    "SupervisionLevels",
    "TargetResult",
    "Task",
    "TaskResult",
    "VideoFeatures",
    "answer_task",
    "compare",
    "encoder_fingerprint",
    "evaluate_task",
    "extract_features",
    "feature_key",
    "fine_tune",
    "fit_probe",
    "format_table",
    "linear_probe",
    "load_features",
    "mean_interval",
    "paired_interval",
    "published_segments",
    "read_action_submission",
    "read_detection_submission",
    "read_sound_submission",
    "score_submission",
    "write_action_submission",
    "write_detection_submission",
    "write_features",
    "write_report",
    "write_sound_submission",
]

TASKS: Mapping[str, type[Task[Any, Any]]] = {
    "action_recognition": ActionRecognition,
}
