"""What a configuration must be: one dataclass per section, with a type and a rule for each key.

Beside the path of a sample: `earmark.cli.config` checks what Hydra composed against these; the yaml files of
`earmark.cli.configs` hold the defaults. A field with a default is missing from some choices of its group, or was added
after runs had been made, which did what the default does.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from earmark.datasets.kitchen import KitchenPreset

__all__ = ["EvaluateConfig", "PretrainConfig", "Rule"]


@dataclass(frozen=True)
class Rule:
    """What a value must satisfy beyond its type: the words for it and the test."""

    words: str
    holds: Callable[[Any], bool]


Positive = Annotated[float, Rule("above 0", lambda value: value > 0)]
NonNegative = Annotated[float, Rule("at least 0", lambda value: value >= 0)]
Share = Annotated[float, Rule("from 0 to 1", lambda value: 0 <= value <= 1)]
Decibels = Annotated[float, Rule("from -60 to 60", lambda value: -60 <= value <= 60)]
Fraction = Annotated[float, Rule("at least 0 and below 1", lambda value: 0 <= value < 1)]
AtLeastOne = Annotated[int, Rule("at least 1", lambda value: value >= 1)]
AtLeastZero = Annotated[int, Rule("at least 0", lambda value: value >= 0)]
Quality = Annotated[int, Rule("from 1 to 100", lambda value: 1 <= value <= 100)]
Even = Annotated[int, Rule("even and at least 16", lambda value: value >= 16 and value % 2 == 0)]
IN_FOLDER_NAMES = "made of letters, digits and _.,=+- only"
RunName = Annotated[str, Rule(IN_FOLDER_NAMES, lambda value: re.fullmatch(r"[\w.,=+-]*[\w,=+-]", value))]
Suffix = Annotated[str, Rule(IN_FOLDER_NAMES, lambda value: re.fullmatch(r"[\w.,=+-]*", value))]
Part = Annotated[
    str,
    Rule(
        "K/N with K from 1 to N, such as 3/16",
        lambda value: re.fullmatch(r"\d+/\d+", value) and 1 <= int(value.split("/")[0]) <= int(value.split("/")[1]),
    ),
]
SubmissionFile = Annotated[
    str, Rule("a path that ends in .zip or .json", lambda value: value.endswith((".zip", ".json")))
]
Split = Literal["train", "validation", "test", "all"]
HEARING_TASKS = ("sound_recognition", "sound_detection")  # which are about what is heard
EGO4D_TASKS = ("oscc_pnr", "lta")  # which no other data set has annotations of
MOMENT_TASKS = ("retrieval", "order")  # which are about moments, and need no annotation


@dataclass(frozen=True, slots=True)
class DataArgs:
    """Where the videos are; preset and seed belong to the generated kitchen alone, version to Ego4D.

    Layout belongs to EPIC-KITCHENS (videos, segments, action_segments) and to Ego4D (full_scale, clips).
    """

    base_path: str | None
    layout: Literal["videos", "segments", "action_segments", "full_scale", "clips"] | None = None
    version: Literal["v1", "v2"] | None = None
    delta_non_overlap: NonNegative = 0.1
    gaps: list[NonNegative] | None = None
    preset: KitchenPreset = "small"
    seed: AtLeastZero = 0


@dataclass(frozen=True, slots=True)
class Data:
    """Group ``data``: which data set, and what is cut from it."""

    name: Literal["kitchen", "folder", "epic_kitchens", "epic_kitchens_55", "ego4d"]
    args: DataArgs
    split: Split
    store: str | None
    clip_seconds: Positive
    clip_fps: Positive
    audio_seconds: Positive
    moments: Literal["audible", "random", "narrated"] = "audible"
    moments_per_segment: AtLeastOne = 1
    videos_per_batch: AtLeastOne | None = None
    quiet_share: Annotated[float, Rule("at least 0 and below 1", lambda value: 0 <= value < 1)] = 0.0
    subset: Literal["head_classes", "tail_classes", "unseen_participants"] | None = None


@dataclass(frozen=True, slots=True)
class PretrainAugm:
    """Group ``data_augm`` of pretraining: what is done to the pictures and the sound of a sample."""

    name: Literal["vRCF_aLogMel", "mRCF", "MSCFCJ"]
    crop_size: AtLeastOne
    flip: bool
    color_jitter: Share
    shared_crop: bool
    audio_gain_db: Annotated[float, Rule("from 0 to 60", lambda value: 0 <= value <= 60)] = 0.0
    audio_mix: Share = 0.0
    audio_mix_snr_db: list[Decibels] = field(default_factory=lambda: [5.0, 20.0])
    spec_time_masks: AtLeastZero = 0
    spec_time_width: AtLeastOne = 20
    spec_mel_masks: AtLeastZero = 0
    spec_mel_width: AtLeastOne = 10
    min_short_side: AtLeastOne | None = None
    max_short_side: AtLeastOne | None = None
    min_area: Annotated[float, Rule("above 0 and at most 1", lambda value: 0 < value <= 1)] | None = None


@dataclass(frozen=True, slots=True)
class EvaluateAugm:
    """Group ``data_augm`` of the linear probe."""

    name: Literal["RCF"]
    crop_size: AtLeastOne


@dataclass(frozen=True, slots=True)
class EncoderArgs:
    """Options of an encoder; width belongs to avid_* and aisfx, num_mels to cnn*, model to hf_* alone."""

    pretrained: bool
    weights: str | None
    width: AtLeastOne | None = None
    num_mels: AtLeastOne | None = None
    model: str | None = None
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class VideoEncoder:
    """Group ``backbone/video``."""

    name: Literal[
        "avid_r2plus1d_10",
        "avid_r2plus1d_18",
        "avid_r2plus1d_34",
        "r2plus1d_18",
        "r3d_18",
        "mc3_18",
        "s3d",
        "mvit_v2_s",
        "swin3d_t",
        "hf_video",
    ]
    args: EncoderArgs


@dataclass(frozen=True, slots=True)
class AudioEncoder:
    """Group ``backbone/audio``."""

    name: Literal["avid_spec_cnn_9", "cnn6", "cnn10", "cnn14", "aisfx", "hf_audio"]
    args: EncoderArgs


@dataclass(frozen=True, slots=True)
class Backbone:
    """Both encoders: in an evaluation, for those that have no checkpoint to take them from."""

    video: VideoEncoder
    audio: AudioEncoder


@dataclass(frozen=True, slots=True)
class CriterionArgs:
    """Options of the objective; each method has some of them."""

    in_dim: int | None
    out_dim: AtLeastOne = 128
    temperature: Positive = 0.07
    clr_coeff: NonNegative = 0.5
    aot_coeff: NonNegative = 0.5
    state_change_temperature: Positive = 0.2
    gather: Literal["full", "reference"] = "full"
    learnable_temperature: bool = False
    normalise_states: bool = False
    state_change_negatives: Literal["reverse", "batch"] = "reverse"
    clip_pair_coeff: NonNegative = 0.0
    clip_pair_temperature: Positive = 0.1
    sound_unit_coeff: NonNegative = 0.0
    sound_units: list[Annotated[int, Rule("at least 2", lambda value: value >= 2)]] = field(
        default_factory=lambda: [64, 128]
    )
    moment_detection_coeff: NonNegative = 0.0
    queue_size: AtLeastZero = 0
    num_negatives: AtLeastOne = 1024
    momentum: Fraction = 0.5
    num_clusters: Annotated[int, Rule("at least 2", lambda value: value >= 2)] = 64
    num_iterations: AtLeastOne = 20
    kmeans: Literal["torch", "faiss"] = "torch"


@dataclass(frozen=True, slots=True)
class Criterion:
    """Group ``criterion``."""

    name: Literal["ssrl_audiopeak_aotv2", "avid", "xdc", "simclr_video", "supervised"]
    args: CriterionArgs


@dataclass(frozen=True, slots=True)
class Model:
    """Group ``model``: how it is run."""

    channels_last: bool
    fused_optimizer: bool
    compile: Literal["auto", True, False]
    recompute: bool


@dataclass(frozen=True, slots=True)
class OptimArgs:
    """Options of the optimizer."""

    lr: Positive
    momentum: Fraction
    weight_decay: NonNegative
    nesterov: bool


@dataclass(frozen=True, slots=True)
class SchedulerArgs:
    """Options of the schedule: the warm-up belongs to the cosine, length and first step to the one cycle."""

    max_lr: Positive | None
    total_steps: AtLeastOne | None
    first_step: Literal[0, 1]
    warmup_epochs: NonNegative = 0.0


@dataclass(frozen=True, slots=True)
class Optim:
    """Group ``optim``."""

    name: Literal["sgd", "sgd_lincls"]
    args: OptimArgs
    batch_size: AtLeastOne
    epochs: AtLeastOne
    use_lr_scheduler: bool
    lr_scheduler_args: SchedulerArgs
    schedule: list[AtLeastOne]
    gamma: Positive
    lr_scheduler: Literal["one_cycle", "cosine"] = "one_cycle"
    max_steps: AtLeastOne | None = None
    accumulate: AtLeastOne = 1
    max_gradient_norm: Positive | None = None
    ema_decay: Fraction | None = None


@dataclass(frozen=True, slots=True)
class PretrainAlgo:
    """Group ``train_algo`` of pretraining."""

    name: Literal["ssrl"]


@dataclass(frozen=True, slots=True)
class EvaluateAlgo:
    """Group ``train_algo`` of the linear probe."""

    name: Literal["linear_cls_mtl"]
    normalize_feats: bool


@dataclass(frozen=True, slots=True)
class Environment:
    """Group ``environment``: where and on what it runs."""

    data_dir: str
    seed: AtLeastZero
    workers: AtLeastZero
    accelerator: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed", "64-true"]
    deterministic: bool
    sync_batch_norm: bool
    resume: bool
    force: bool
    ngpu: AtLeastZero
    force_processes: AtLeastOne | None
    world_size: AtLeastOne
    rank: AtLeastZero
    dist_url: str | None
    distributed: bool | None
    multiprocessing_distributed: bool | None
    slurm: bool
    slurm_partition: str | None
    slurm_timeout: AtLeastOne
    nodelist: str | None
    exclude_nodes: str | None


@dataclass(frozen=True, slots=True)
class Logging:
    """Group ``logging``: the run's name, and what is written how often."""

    name: RunName
    suffix: Suffix
    save_freq: AtLeastOne
    save_freq_mints: Positive
    save_freq_steps: AtLeastOne | None
    retain: AtLeastOne
    evaluate_every: AtLeastOne | None
    print_freq: AtLeastOne
    log_tb: bool
    wandb: str | None


@dataclass(frozen=True, slots=True)
class Prepare:
    """Group ``prepare``: how videos are prepared, once."""

    fps: AtLeastOne
    short_side: Even
    quality: Quality
    audio_rate: Annotated[int, Rule("at least 4000", lambda value: value >= 4000)]
    audio_stream: AtLeastZero | None
    detector: Literal["earmark", "replai"]
    segment_seconds: Annotated[float, Rule("at least 1", lambda value: value >= 1)]
    min_score: NonNegative | None
    min_distance_seconds: NonNegative | None
    min_prominence: NonNegative | None
    min_distance: AtLeastOne | None
    around: Literal["moments"] | None
    around_seconds: Positive
    workers: AtLeastOne | None
    backend: Literal["loky", "ray"]
    isolate: bool
    part: Part | None


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Group ``evaluate``: what is evaluated, and how."""

    task: Literal[
        "action_recognition",
        "sound_recognition",
        "sound_detection",
        "anticipation",
        "oscc_pnr",
        "lta",
        "retrieval",
        "order",
    ]
    checkpoint: str | None
    weights: Literal["ema", "model"] | None
    audio: bool
    probe: Literal["linear", "attentive", "knn", "fine_tuned"]
    lrs: list[Positive]
    weight_decays: list[NonNegative]
    neighbours: list[AtLeastOne]
    held_out: Annotated[float, Rule("above 0 and below 1", lambda value: 0 < value < 1)]
    seeds: AtLeastOne
    protocol: Literal["full", "published"]
    split: Literal["train", "validation", "test"]
    submission: (
        Annotated[str, Rule("a path that ends in .zip or .json", lambda value: value.endswith((".zip", ".json")))]
        | None
    )
    num_clips: AtLeastOne
    clip_seconds: Positive | None
    clip_fps: Positive | None
    observed_seconds: Positive
    aggregator: Literal["concatenation", "mean", "transformer"]
    num_layers: AtLeastOne
    num_seen: AtLeastOne | None
    decoding: Literal["sampled", "most_probable"]
    frames: Literal["spread", "windows"]
    train_parts: AtLeastZero
    max_moments: AtLeastOne
    random_clips: bool
    standardize: bool
    as_trained: bool
    baseline: bool


@dataclass(frozen=True, slots=True)
class SharedConfig:
    """The groups that are the same in pretraining and evaluation."""

    data: Data
    optim: Optim
    environment: Environment
    logging: Logging
    prepare: Prepare


@dataclass(frozen=True, slots=True)
class PretrainConfig(SharedConfig):
    """All of ``default_ssrl``."""

    data_augm: PretrainAugm
    backbone: Backbone
    criterion: Criterion
    model: Model
    train_algo: PretrainAlgo


@dataclass(frozen=True, slots=True)
class EvaluateConfig(SharedConfig):
    """All of ``default_lincls``."""

    data_augm: EvaluateAugm
    backbone: Backbone
    train_algo: EvaluateAlgo
    evaluate: Evaluate

    @property
    def clip_seconds(self) -> float:
        """Length of the clips that are judged: asked for, else that of pretraining."""
        return self.data.clip_seconds if self.evaluate.clip_seconds is None else self.evaluate.clip_seconds

    @property
    def clip_fps(self) -> float:
        """Frames per second of the clips that are judged, in the same way."""
        return self.data.clip_fps if self.evaluate.clip_fps is None else self.evaluate.clip_fps
