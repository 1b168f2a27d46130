"""What `earmark bench` runs: methods, tasks and presets, as plain data.

Beside the path of a sample: `earmark.cli.bench_plan` turns these into commands. A method, a task or a size more is a
line more here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from earmark.evaluation.benchmark import Measure
from earmark.kitchen.presets import PRESETS as KITCHENS
from earmark.kitchen.presets import Difficulty, KitchenSize

__all__ = ["METHODS", "PRESETS", "REFERENCE", "TASKS", "BenchPreset", "BenchTask"]

REFERENCE = "replai"
UNTRAINED = "random"

# The overrides that make each method of `earmark pretrain`; None: an encoder that is not trained.
METHODS: Mapping[str, tuple[str, ...] | None] = {
    UNTRAINED: None,
    "supervised": ("criterion=supervised",),
    "simclr_video": ("criterion=simclr_video",),
    "avc": ("criterion=avc",),
    "avid": ("criterion=avid",),
    "xdc": ("criterion=xdc",),
    "astc": ("criterion=astc",),
    "replai_random": ("criterion=replai_random",),
    REFERENCE: ("criterion=ssrl_audiopeak_aotv2",),
}


@dataclass(frozen=True, slots=True)
class BenchTask:
    """How a task is judged by `earmark evaluate`, and what of its results stands in the table.

    Attributes:
        overrides: Beside those that all tasks of a preset share.
        measures: By the label of the row in the results, what it is called here.
        on_ego4d: The kitchen is read in its Ego4D form.
    """

    overrides: tuple[str, ...]
    measures: Mapping[str, Measure]
    on_ego4d: bool = False


# Of the probes. With few training actions a linear probe needs many steps and its own weight decay, which each takes on
# training videos that are held out; with the mean over three of them, little of what is seen is the probe's own chance.
PROBE = (
    "optim.args.lr=0.01",
    "optim.batch_size=32",
    "optim.epochs=100",
    "optim.schedule=[60,80]",
    "evaluate.weight_decays=[0.003,0.03,0.3]",
    "evaluate.seeds=3",
)

TASKS: Mapping[str, BenchTask] = {
    "action_recognition": BenchTask(
        ("evaluate.task=action_recognition", *PROBE),
        {"verb top-1": Measure("verb top-1"), "noun top-1": Measure("noun top-1")},
    ),
    "oscc_pnr": BenchTask(
        ("evaluate.task=oscc_pnr", "evaluate.frames=windows", *PROBE),
        {
            "state change": Measure("OSCC"),
            "point of no return": Measure("PNR error", "s", higher_is_better=False, decimals=3),
        },
        on_ego4d=True,
    ),
    "lta": BenchTask(
        ("evaluate.task=lta", "evaluate.aggregator=concatenation"),
        {
            "verb ED@20": Measure("LTA verb ED@20", "", higher_is_better=False, decimals=3),
            "noun ED@20": Measure("LTA noun ED@20", "", higher_is_better=False, decimals=3),
        },
        on_ego4d=True,
    ),
    "retrieval": BenchTask(
        ("evaluate.task=retrieval",),
        {
            "sound to clip, R@5": Measure("sound to clip R@5"),
            "clip to sound, R@5": Measure("clip to sound R@5"),
        },
    ),
    "order": BenchTask(("evaluate.task=order",), {"order, accuracy": Measure("order")}),
}


@dataclass(frozen=True, slots=True)
class BenchPreset:
    """One size of the benchmark.

    Attributes:
        words: What it is for, and how long it takes.
        kitchen: Size of the generated data set.
        difficulty: Of the same.
        kitchen_seed: Another seed, another kitchen.
        shared: Overrides of every command.
        pretrain: Overrides of every `earmark pretrain`, which are the same for all methods.
        evaluate: Overrides of every `earmark evaluate`, which are the same for all methods.
        of_tasks: Further overrides of a task, by its name.
        num_steps: Steps of each pretraining, to within half an epoch, which is whole.
        batch_size: Samples of a step.
        rates_tried: The learning rates that every method is tried with, one run each.
        rates: The rate of each method, where they are known; empty: they are found first, as ``--tune`` does.
        rates_found: Where `rates` were found.
        tuning_seed: Of the runs that find them; none of `seeds`.
        seeds: Fixed before anything was measured.
        tasks: Names of `TASKS`.
    """

    words: str
    kitchen: KitchenSize
    difficulty: Difficulty
    kitchen_seed: int
    shared: tuple[str, ...]
    pretrain: tuple[str, ...]
    evaluate: tuple[str, ...]
    of_tasks: Mapping[str, tuple[str, ...]]
    num_steps: int
    batch_size: int
    rates_tried: tuple[float, ...]
    rates: Mapping[str, float]
    rates_found: str
    tuning_seed: int
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]


SEEDS = (0, 1, 2, 3, 4)
TUNING_SEED = 100
# Hands that move and change nothing: without them, whether a state changes is told by whether there are hands.
DIFFICULTY = Difficulty(idle_motion_share=0.4)
WITHOUT_ANTICIPATION = ("action_recognition", "oscc_pnr", "retrieval", "order")  # lta needs 24 actions of a video

PRESETS: Mapping[str, BenchPreset] = {
    "quick": BenchPreset(
        words="an hour of small pictures and narrow encoders: minutes on two cores",
        kitchen=KitchenSize(12, 10, 30, width=96, height=64, fps=16, sample_rate=16000),
        difficulty=DIFFICULTY,
        kitchen_seed=0,
        shared=(
            "prepare.short_side=56",
            "data.clip_fps=8",
            "data_augm.crop_size=40",
            "backbone/video=avid_r2plus1d_10",
            "backbone.video.args.width=8",
            "backbone.audio.args.width=8",
        ),
        pretrain=("data_augm.min_short_side=42", "data_augm.max_short_side=56"),
        evaluate=("evaluate.num_clips=2",),
        of_tasks={"oscc_pnr": ("evaluate.train_parts=1",)},
        num_steps=120,
        batch_size=32,
        rates_tried=(0.03, 0.1),
        rates={
            "supervised": 0.03,
            "simclr_video": 0.1,
            "avc": 0.1,
            "avid": 0.03,
            "xdc": 0.1,
            "astc": 0.03,
            "replai_random": 0.03,
            "replai": 0.03,
        },
        rates_found="by earmark bench --preset quick --tune, on 123 actions of held-out training videos",
        tuning_seed=TUNING_SEED,
        seeds=SEEDS,
        tasks=WITHOUT_ANTICIPATION,
    ),
    "small": BenchPreset(
        words="three hours of small pictures, encoders of a quarter of the width: half an hour on two cores",
        kitchen=KitchenSize(12, 8, 120, width=112, height=64, fps=8, sample_rate=16000),
        difficulty=DIFFICULTY,
        kitchen_seed=0,
        shared=(
            "prepare.fps=8",
            "prepare.short_side=56",
            "data.clip_fps=8",
            "data_augm.crop_size=48",
            "backbone/video=avid_r2plus1d_10",
            "backbone.video.args.width=16",
            "backbone.audio.args.width=16",
        ),
        pretrain=("data_augm.min_short_side=48", "data_augm.max_short_side=60"),
        evaluate=("evaluate.num_clips=2",),
        of_tasks={"oscc_pnr": ("evaluate.train_parts=1",)},
        num_steps=400,
        batch_size=32,
        rates_tried=(0.03, 0.1, 0.3),
        rates={
            "supervised": 0.1,
            "simclr_video": 0.03,
            "avc": 0.3,
            "avid": 0.3,
            "xdc": 0.1,
            "astc": 0.1,
            "replai_random": 0.3,
            "replai": 0.1,
        },
        rates_found="by earmark bench --preset small --tune, on 362 actions of held-out training videos",
        tuning_seed=TUNING_SEED,
        seeds=SEEDS,
        tasks=tuple(TASKS),
    ),
    "paper": BenchPreset(
        words="more than three hours of small pictures: hours on two cores",
        kitchen=KitchenSize(20, 4, 150, width=160, height=90, fps=16, sample_rate=16000),
        difficulty=DIFFICULTY,
        kitchen_seed=0,
        shared=(
            "prepare.short_side=72",
            "data_augm.crop_size=64",
            "backbone/video=avid_r2plus1d_10",
            "backbone.video.args.width=16",
            "backbone.audio.args.width=16",
        ),
        pretrain=("data_augm.min_short_side=64", "data_augm.max_short_side=80"),
        evaluate=("evaluate.num_clips=3",),
        of_tasks={},
        num_steps=1500,
        batch_size=64,
        rates_tried=(0.01, 0.03, 0.1, 0.3),
        rates={},
        rates_found="",
        tuning_seed=TUNING_SEED,
        seeds=SEEDS,
        tasks=tuple(TASKS),
    ),
    "full": BenchPreset(
        words="ten hours of the standard kitchen, full-size encoders: a day and more on one GPU",
        kitchen=KITCHENS["standard"].size,
        difficulty=KITCHENS["standard"].difficulty,
        kitchen_seed=0,
        shared=(),
        pretrain=(),
        evaluate=("evaluate.num_clips=5",),
        of_tasks={},
        num_steps=900,
        batch_size=128,
        rates_tried=(0.01, 0.03, 0.1, 0.3),
        rates={},
        rates_found="",
        tuning_seed=TUNING_SEED,
        seeds=SEEDS,
        tasks=tuple(TASKS),
    ),
}
