"""Judging a learned encoder: frozen features, the linear probe, the field's metrics, whole tasks, a page.

In the path of a sample it stands after training: evaluation takes an encoder and labelled clips. It never imports
training.

The names below are imported from their modules at first use: files of predictions are read, scored and written without
torch.
"""

from typing import TYPE_CHECKING

from earmark.lazy import lazy_names

if TYPE_CHECKING:
    from earmark.evaluation.action_recognition import ActionRecognition, ClassAccuracy, ColumnResult
    from earmark.evaluation.action_submissions import read_action_submission, write_action_submission
    from earmark.evaluation.answers import TargetAnswers
    from earmark.evaluation.anticipation import Anticipation, PartRecall, RecallResult
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
    from earmark.evaluation.ego4d_submissions import (
        read_anticipation_submission,
        read_keyframe_submission,
        read_state_change_submission,
        write_anticipation_submission,
        write_keyframe_submission,
        write_state_change_submission,
    )
    from earmark.evaluation.feature_files import FeatureFileError, VideoFeatures, load_features
    from earmark.evaluation.feature_index import FeatureSettingsError
    from earmark.evaluation.feature_settings import FeatureModel, FeatureWriting
    from earmark.evaluation.feature_writing import FeatureReport, write_features
    from earmark.evaluation.features import (
        Cacheable,
        FeatureOptions,
        LabelledClips,
        Modality,
        encoder_fingerprint,
        extract_features,
        feature_key,
    )
    from earmark.evaluation.fine_tuned_recognition import FineTunedActionRecognition, FineTunedSoundRecognition
    from earmark.evaluation.fine_tuned_state_change import FineTunedStateChange
    from earmark.evaluation.fine_tuning import FineTuningOptions, fine_tune
    from earmark.evaluation.intervals import FEW_VIDEOS, mean_interval, paired_interval
    from earmark.evaluation.judged_clips import ClipAnswer, JudgedClip
    from earmark.evaluation.long_term_anticipation import LongTermAnticipation
    from earmark.evaluation.long_term_anticipation_head import HeadOptions
    from earmark.evaluation.long_term_anticipation_published import PublishedLongTermAnticipation
    from earmark.evaluation.long_term_anticipation_results import LongTermAnswers, LongTermResult
    from earmark.evaluation.opposite_verbs import OppositesResult
    from earmark.evaluation.order import NeighbourResult, Order, OrderAnswers, OrderResult
    from earmark.evaluation.own_heads import ProjectionHeads
    from earmark.evaluation.probe import IGNORED_LABEL, ProbeOptions, linear_probe
    from earmark.evaluation.probing import ProbeAnswers, fit_probe
    from earmark.evaluation.published_ego4d import PUBLISHED_FINE_TUNING, PublishedEgo4DRecognition
    from earmark.evaluation.published_protocol import PUBLISHED_PROBE, PublishedActionRecognition, published_segments
    from earmark.evaluation.published_results import PUBLISHED, PublishedTable
    from earmark.evaluation.published_state_change import PublishedStateChange
    from earmark.evaluation.report import Example, write_report
    from earmark.evaluation.report_details import ResultDetails
    from earmark.evaluation.results import Estimate, Row, Score, Seen, TargetResult, TaskResult, compare, format_table
    from earmark.evaluation.retrieval import Retrieval, RetrievalAnswers, RetrievalResult
    from earmark.evaluation.sound_detection import DetectionAnswers, DetectionResult, SoundDetection
    from earmark.evaluation.sound_recognition import SoundRecognition, SoundSetResult
    from earmark.evaluation.sound_submissions import (
        read_detection_submission,
        read_sound_submission,
        write_detection_submission,
        write_sound_submission,
    )
    from earmark.evaluation.state_change import StateChange, StateChangeOptions
    from earmark.evaluation.state_change_results import KeyframeResult, StateChangeAnswers, StateChangeResult
    from earmark.evaluation.submission_files import SubmissionError, SupervisionLevels
    from earmark.evaluation.tasks import TASKS

_MODULE_OF = {
    "CHALLENGES": "challenges",
    "FEW_VIDEOS": "intervals",
    "IGNORED_LABEL": "probe",
    "PUBLISHED": "published_results",
    "PUBLISHED_FINE_TUNING": "published_ego4d",
    "PUBLISHED_PROBE": "published_protocol",
    "TASKS": "tasks",
    "ActionRecognition": "action_recognition",
    "Answers": "base",
    "Anticipation": "anticipation",
    "Cacheable": "features",
    "ChallengeScore": "challenges",
    "ClassAccuracy": "action_recognition",
    "ClipAnswer": "judged_clips",
    "ClipOptions": "base",
    "ColumnResult": "action_recognition",
    "DetectionAnswers": "sound_detection",
    "DetectionResult": "sound_detection",
    "Estimate": "results",
    "Events": "detection_metrics",
    "Example": "report",
    "FeatureFileError": "feature_files",
    "FeatureModel": "feature_settings",
    "FeatureOptions": "features",
    "FeatureReport": "feature_writing",
    "FeatureSettingsError": "feature_index",
    "FeatureWriting": "feature_settings",
    "FineTunedActionRecognition": "fine_tuned_recognition",
    "FineTunedSoundRecognition": "fine_tuned_recognition",
    "FineTunedStateChange": "fine_tuned_state_change",
    "FineTuningOptions": "fine_tuning",
    "HeadOptions": "long_term_anticipation_head",
    "JudgedClip": "judged_clips",
    "Judgement": "base",
    "KeyframeResult": "state_change_results",
    "LabelledClips": "features",
    "LongTermAnswers": "long_term_anticipation_results",
    "LongTermAnticipation": "long_term_anticipation",
    "LongTermResult": "long_term_anticipation_results",
    "Modality": "features",
    "NeighbourResult": "order",
    "OppositesResult": "opposite_verbs",
    "Order": "order",
    "OrderAnswers": "order",
    "OrderResult": "order",
    "PartRecall": "anticipation",
    "ProbeAnswers": "probing",
    "ProbeOptions": "probe",
    "ProjectionHeads": "own_heads",
    "PublishedActionRecognition": "published_protocol",
    "PublishedEgo4DRecognition": "published_ego4d",
    "PublishedLongTermAnticipation": "long_term_anticipation_published",
    "PublishedStateChange": "published_state_change",
    "PublishedTable": "published_results",
    "RecallResult": "anticipation",
    "RecordCount": "base",
    "ResultDetails": "report_details",
    "Retrieval": "retrieval",
    "RetrievalAnswers": "retrieval",
    "RetrievalResult": "retrieval",
    "Row": "results",
    "Score": "results",
    "Seen": "results",
    "Setting": "base",
    "SoundDetection": "sound_detection",
    "SoundRecognition": "sound_recognition",
    "SoundSetResult": "sound_recognition",
    "StateChange": "state_change",
    "StateChangeAnswers": "state_change_results",
    "StateChangeOptions": "state_change",
    "StateChangeResult": "state_change_results",
    "SubmissionError": "submission_files",
    "SupervisionLevels": "submission_files",
    "TargetAnswers": "answers",
    "TargetResult": "results",
    "Task": "base",
    "TaskResult": "results",
    "VideoFeatures": "feature_files",
    "answer_task": "base",
    "compare": "results",
    "encoder_fingerprint": "features",
    "evaluate_task": "base",
    "extract_features": "features",
    "feature_key": "features",
    "fine_tune": "fine_tuning",
    "fit_probe": "probing",
    "format_table": "results",
    "linear_probe": "probe",
    "load_features": "feature_files",
    "mean_interval": "intervals",
    "paired_interval": "intervals",
    "published_segments": "published_protocol",
    "read_action_submission": "action_submissions",
    "read_anticipation_submission": "ego4d_submissions",
    "read_detection_submission": "sound_submissions",
    "read_keyframe_submission": "ego4d_submissions",
    "read_sound_submission": "sound_submissions",
    "read_state_change_submission": "ego4d_submissions",
    "score_submission": "challenges",
    "write_action_submission": "action_submissions",
    "write_anticipation_submission": "ego4d_submissions",
    "write_detection_submission": "sound_submissions",
    "write_features": "feature_writing",
    "write_keyframe_submission": "ego4d_submissions",
    "write_report": "report",
    "write_sound_submission": "sound_submissions",
    "write_state_change_submission": "ego4d_submissions",
}

__all__ = [
    "CHALLENGES",
    "FEW_VIDEOS",
    "IGNORED_LABEL",
    "PUBLISHED",
    "PUBLISHED_FINE_TUNING",
    "PUBLISHED_PROBE",
    "TASKS",
    "ActionRecognition",
    "Answers",
    "Anticipation",
    "Cacheable",
    "ChallengeScore",
    "ClassAccuracy",
    "ClipAnswer",
    "ClipOptions",
    "ColumnResult",
    "DetectionAnswers",
    "DetectionResult",
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
    "FineTunedSoundRecognition",
    "FineTunedStateChange",
    "FineTuningOptions",
    "HeadOptions",
    "JudgedClip",
    "Judgement",
    "KeyframeResult",
    "LabelledClips",
    "LongTermAnswers",
    "LongTermAnticipation",
    "LongTermResult",
    "Modality",
    "NeighbourResult",
    "OppositesResult",
    "Order",
    "OrderAnswers",
    "OrderResult",
    "PartRecall",
    "ProbeAnswers",
    "ProbeOptions",
    "ProjectionHeads",
    "PublishedActionRecognition",
    "PublishedEgo4DRecognition",
    "PublishedLongTermAnticipation",
    "PublishedStateChange",
    "PublishedTable",
    "RecallResult",
    "RecordCount",
    "ResultDetails",
    "Retrieval",
    "RetrievalAnswers",
    "RetrievalResult",
    "Row",
    "Score",
    "Seen",
    "Setting",
    "SoundDetection",
    "SoundRecognition",
    "SoundSetResult",
    "StateChange",
    "StateChangeAnswers",
    "StateChangeOptions",
    "StateChangeResult",
    "SubmissionError",
    "SupervisionLevels",
    "TargetAnswers",
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
    "read_anticipation_submission",
    "read_detection_submission",
    "read_keyframe_submission",
    "read_sound_submission",
    "read_state_change_submission",
    "score_submission",
    "write_action_submission",
    "write_anticipation_submission",
    "write_detection_submission",
    "write_features",
    "write_keyframe_submission",
    "write_report",
    "write_sound_submission",
    "write_state_change_submission",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
