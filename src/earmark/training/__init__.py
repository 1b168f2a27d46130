"""Training: a run from its first step to its last, its checkpoints, its records, its processes.

In the path of a sample: batches go through the methods' losses into weights, and checkpoints come out.

The names below are imported from their modules at first use: what reads the records of a run (`read_metrics`,
`holder_of`) needs no torch.
"""

from typing import TYPE_CHECKING

from earmark.lazy import lazy_names

if TYPE_CHECKING:
    from earmark.training.batches import Schedule, TrainingData
    from earmark.training.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint, save_checkpoint
    from earmark.training.loop import Judging
    from earmark.training.optim import WarmupCosineLR, multi_step, one_cycle, require_schedule_covers, sgd
    from earmark.training.pretraining import PretrainResult, pretrain
    from earmark.training.processes import on_first_rank
    from earmark.training.run_lock import RunBusyError, holder_of
    from earmark.training.run_log import METRICS_FILE, Logging, Metrics, read_metrics
    from earmark.training.run_state import Checkpointing, RunDiffersError
    from earmark.training.speed import compile_encoders, use_channels_last
    from earmark.training.step import Learner, NonFiniteError, StepOptions

_MODULE_OF = {
    "METRICS_FILE": "run_log",
    "CheckpointError": "checkpoint",
    "Checkpointing": "run_state",
    "Judging": "loop",
    "Learner": "step",
    "Logging": "run_log",
    "Metrics": "run_log",
    "NonFiniteError": "step",
    "PretrainResult": "pretraining",
    "RunBusyError": "run_lock",
    "RunDiffersError": "run_state",
    "Schedule": "batches",
    "StepOptions": "step",
    "TrainingData": "batches",
    "WarmupCosineLR": "optim",
    "compile_encoders": "speed",
    "holder_of": "run_lock",
    "latest_checkpoint": "checkpoint",
    "load_checkpoint": "checkpoint",
    "multi_step": "optim",
    "on_first_rank": "processes",
    "one_cycle": "optim",
    "pretrain": "pretraining",
    "read_metrics": "run_log",
    "require_schedule_covers": "optim",
    "save_checkpoint": "checkpoint",
    "sgd": "optim",
    "use_channels_last": "speed",
}

__all__ = [
    "METRICS_FILE",
    "CheckpointError",
    "Checkpointing",
    "Judging",
    "Learner",
    "Logging",
    "Metrics",
    "NonFiniteError",
    "PretrainResult",
    "RunBusyError",
    "RunDiffersError",
    "Schedule",
    "StepOptions",
    "TrainingData",
    "WarmupCosineLR",
    "compile_encoders",
    "holder_of",
    "latest_checkpoint",
    "load_checkpoint",
    "multi_step",
    "on_first_rank",
    "one_cycle",
    "pretrain",
    "read_metrics",
    "require_schedule_covers",
    "save_checkpoint",
    "sgd",
    "use_channels_last",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
