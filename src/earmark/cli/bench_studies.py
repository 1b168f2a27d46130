"""Studies of `earmark bench`: what the quality depends on, one factor at a time, as plain data.

Beside the path of a sample: `earmark.cli.bench_study_plan` turns these into cells. A point of a study differs from the
cells of the table (`earmark.cli.bench_presets`) in one thing about pretraining, and is judged as they are, on the same
videos. A point that differs in nothing *is* the cell of the table. A study, a point or a variant more is a line here.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from earmark.cli.bench_presets import REFERENCE, UNTRAINED, BenchPreset

__all__ = ["STUDIES", "Change", "Curve", "Study", "Variant", "Variants"]

DEFAULT_GAP_SECONDS = 0.1  # data.args.delta_non_overlap


@dataclass(frozen=True, slots=True)
class Change:
    """In what a pretraining differs from that of the table; by default in nothing.

    Attributes:
        overrides: Of `earmark pretrain`, in place of those that the table's have of the same keys.
        steps: Number of steps, as a multiple of the preset's.
        batch: Samples of a step, in the same way.
        videos: Share of the training videos that is pretrained on.
        difficulty: What another kitchen of the same size has in place of the preset's (`earmark.kitchen.Difficulty`),
            as pairs of name and value; its training videos are pretrained on.
    """

    overrides: tuple[str, ...] = ()
    steps: float = 1.0
    batch: float = 1.0
    videos: float = 1.0
    difficulty: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Curve:
    """A factor that is a number.

    Attributes:
        label: Of the axis, with its unit.
        log: Whether the axis is logarithmic.
        values: What the factor is set to; the preset's own value is a point anyway.
        change: What a value changes.
        of_preset: The value that a preset has, at which nothing changes.
        place: Where a value is on the axis, given the preset and the hours of video that are pretrained on.
    """

    label: str
    log: bool
    values: tuple[float, ...]
    change: Callable[[float], Change]
    of_preset: Callable[[BenchPreset], float]
    place: Callable[[float, BenchPreset, float], float] = lambda value, preset, hours: value


@dataclass(frozen=True, slots=True)
class Variant:
    """One of several ways.

    Attributes:
        change: What it changes.
        method: The method of the table that is changed; None: that of the line.
        methods: By method of the line, the one of the table that is this variant of it, with its own learning rate.
        shown: What it is called in figures and tables; empty: its name.
    """

    change: Change = Change()
    method: str | None = None
    methods: tuple[tuple[str, str], ...] = ()
    shown: str = ""


@dataclass(frozen=True, slots=True)
class Variants:
    """A factor that is no number.

    Attributes:
        label: What the variants are.
        variants: By name, which is part of that of the run folder.
        reference: Name of the one that the others are compared with.
    """

    label: str
    variants: Mapping[str, Variant]
    reference: str


@dataclass(frozen=True, slots=True)
class Study:
    """One factor.

    Attributes:
        title: Of its figure.
        words: What is changed, and what is held the same.
        methods: Those that are pretrained at every point; each is a line of the figure.
        factor: What is changed.
        beside: Methods of the table that the factor does not touch, shown beside the points.
    """

    title: str
    words: str
    methods: tuple[str, ...]
    factor: Curve | Variants
    beside: tuple[str, ...] = (UNTRAINED,)


# What may make the method better, each as a change of the reference; all are compared with it.
RECIPE: Mapping[str, Variant] = {
    REFERENCE: Variant(method=REFERENCE),
    "clip_pairs": Variant(Change(("criterion.args.clip_pair_coeff=0.5",)), REFERENCE, shown="clip pairs"),
    "four_videos_per_batch": Variant(Change(("data.videos_per_batch=4",)), REFERENCE, shown="four videos a batch"),
    "batch_negatives": Variant(
        Change(("criterion.args.state_change_negatives=batch",)), REFERENCE, shown="other changes as negatives"
    ),
    "more_correspondence": Variant(
        Change(("criterion.args.clr_coeff=0.8", "criterion.args.aot_coeff=0.2")), REFERENCE, shown="weights 0.8 and 0.2"
    ),
    "cosine": Variant(
        Change(("optim.lr_scheduler=cosine", "optim.lr_scheduler_args.warmup_epochs=2")), REFERENCE, shown="cosine"
    ),
    "sound_augmented": Variant(
        Change(
            (
                "data_augm.audio_gain_db=6",
                "data_augm.audio_mix=0.5",
                "data_augm.spec_time_masks=2",
                "data_augm.spec_mel_masks=2",
            )
        ),
        REFERENCE,
        shown="sound augmented",
    ),
    "shared_crop": Variant(Change(("data_augm.shared_crop=true",)), REFERENCE, shown="shared crop"),
}
# The best of what was looked at on another kitchen, and its part that is no option of the objective.
HALF_BATCHES: Mapping[str, Variant] = {
    REFERENCE: Variant(method=REFERENCE),
    "half_batch": Variant(Change(batch=0.5, steps=2.0), REFERENCE, shown="half the batch"),
    "half_batch_clip_pairs": Variant(
        Change(("criterion.args.clip_pair_coeff=0.3", "criterion.args.aot_coeff=0.7"), batch=0.5, steps=2.0),
        REFERENCE,
        shown="half the batch, clip pairs, weights 0.5 and 0.7",
    ),
}
# Two more losses, which were better on another kitchen, and what half batches bring without them.
UNITS = ("criterion.args.sound_unit_coeff=0.5",)
QUIET = ("data.quiet_share=0.25", "criterion.args.moment_detection_coeff=0.5")
SOUND_UNITS: Mapping[str, Variant] = {
    REFERENCE: Variant(method=REFERENCE),
    "half_batch": HALF_BATCHES["half_batch"],
    "units": Variant(Change(UNITS, batch=0.5, steps=2.0), REFERENCE, shown="half the batch, sound units"),
    "quiet": Variant(Change(QUIET, batch=0.5, steps=2.0), REFERENCE, shown="half the batch, quiet times"),
    "both": Variant(
        Change((*UNITS, *QUIET), batch=0.5, steps=2.0), REFERENCE, shown="half the batch, sound units, quiet times"
    ),
}
# The recipe and its parts, pretrained for four times as long. Half batches and further losses cost processor time, so
# these have fewer samples: each takes about as long.
LONG_HALF = Change(batch=0.5, steps=6.8)
EARMARK: Mapping[str, Variant] = {
    "table": Variant(method=REFERENCE, shown="replai as in the table"),
    REFERENCE: Variant(Change(steps=4.0), REFERENCE),
    "half_batch": Variant(LONG_HALF, REFERENCE, shown="half the batch"),
    "units": Variant(dataclasses.replace(LONG_HALF, overrides=UNITS), REFERENCE, shown="half the batch, sound units"),
    "quiet": Variant(dataclasses.replace(LONG_HALF, overrides=QUIET), REFERENCE, shown="half the batch, quiet times"),
    "both": Variant(
        dataclasses.replace(LONG_HALF, overrides=("criterion=earmark",)), REFERENCE, shown="half the batch, earmark"
    ),
}
# Smaller batches cost more for each sample: 3.5 times as many of a quarter take about as long as those of the table.
QUARTER_BATCHES: Mapping[str, Variant] = {
    REFERENCE: Variant(method=REFERENCE),
    "quarter_batch": Variant(Change(batch=0.25, steps=3.5), REFERENCE, shown="a quarter of the batch"),
    "units": Variant(Change(UNITS, batch=0.25, steps=3.5), REFERENCE, shown="a quarter of the batch, sound units"),
}
AS_IN_TABLE = "The learning rate of each method is that of the table."

STUDIES: Mapping[str, Study] = {
    "hours": Study(
        "Hours of video",
        "Pretrained on a part of the training videos, for the same number of steps; smaller parts lie in larger ones. "
        "Heads learn on all training videos. " + AS_IN_TABLE,
        (REFERENCE, "simclr_video", "supervised"),
        Curve(
            "hours of video pretrained on",
            log=True,
            values=(0.125, 0.25, 0.5, 1.0),
            change=lambda share: Change(videos=share),
            of_preset=lambda preset: 1.0,
            place=lambda share, preset, hours: hours,
        ),
    ),
    "idle": Study(
        "Idle time",
        "Pretrained on kitchens of the same size in which nothing is done for another share of the time; judged on the "
        "kitchen of the table. " + AS_IN_TABLE,
        (REFERENCE,),
        Curve(
            "share of the time without action",
            log=False,
            values=(0.2, 0.35, 0.65, 0.8),
            change=lambda share: Change(difficulty=(("idle_share", share),)),
            of_preset=lambda preset: preset.difficulty.idle_share,
        ),
    ),
    "off_screen": Study(
        "Sounds off screen",
        "Pretrained on kitchens of the same size and actions with more sounds that have no visible cause; judged on "
        "the kitchen of the table. " + AS_IN_TABLE,
        (REFERENCE,),
        Curve(
            "sounds off screen per action",
            log=True,
            values=(0.1, 0.3, 1.0),
            change=lambda share: Change(difficulty=(("off_screen_share", share),)),
            of_preset=lambda preset: preset.difficulty.off_screen_share,
        ),
    ),
    "moments": Study(
        "Where the moments come from",
        "Pretrained around the true contacts of the annotated actions (narrated), moments that a detector finds in the "
        "sound, or random times; judged at the same moments. The learning rate of each method is that of the table, "
        "and of replai at random times that of replai_random.",
        (REFERENCE, "astc"),
        Variants(
            "moments",
            {
                "narrated": Variant(Change(("data.moments=narrated",))),
                "earmark": Variant(shown="found by earmark"),
                "replai": Variant(Change(("prepare=replai",)), shown="found by replai"),
                "random": Variant(
                    Change(("data.moments=random",)), methods=((REFERENCE, "replai_random"),), shown="random times"
                ),
            },
            reference="earmark",
        ),
    ),
    "gap": Study(
        "Gap between moment and clips",
        "Pretrained with another time between the moment and each of its clips; judged with that of the table. "
        + AS_IN_TABLE,
        (REFERENCE,),
        Curve(
            "gap, s",
            log=False,
            values=(0.0, 0.1, 0.25, 0.5, 1.0),
            change=lambda seconds: Change((f"data.args.delta_non_overlap={seconds:g}",)),
            of_preset=lambda preset: DEFAULT_GAP_SECONDS,
        ),
    ),
    "batch": Study(
        "Batch size",
        "Pretrained with other batches on the same number of samples, so that larger batches have fewer steps. The "
        "learning rate is that of the table, which was chosen with its batch.",
        (REFERENCE,),
        Curve(
            "samples of a batch",
            log=True,
            values=(0.25, 0.5, 1.0, 2.0),
            change=lambda factor: Change(batch=factor, steps=1 / factor),
            of_preset=lambda preset: 1.0,
            place=lambda factor, preset, hours: factor * preset.batch_size,
        ),
    ),
    "epochs": Study(
        "Length of pretraining",
        "Pretrained for other numbers of steps, each with its whole schedule. The learning rate is that of the table, "
        "which was chosen with its number of steps.",
        (REFERENCE,),
        Curve(
            "steps",
            log=True,
            values=(0.25, 0.5, 1.0, 2.0),
            change=lambda factor: Change(steps=factor),
            of_preset=lambda preset: 1.0,
            place=lambda factor, preset, hours: factor * preset.num_steps,
        ),
    ),
    "recipe": Study(
        "Parts of the recipe",
        "Each variant is replai with one part changed, at its learning rate.",
        (REFERENCE,),
        Variants("variant", RECIPE, reference=next(iter(RECIPE))),
    ),
    "half_batches": Study(
        "Clip pairs in batches of half the size",
        "Each variant is replai at its learning rate and sees as many samples, in twice as many steps; one also has "
        "clip pairs of weight 0.3, and 0.7 in place of 0.5 as the weight of the state change.",
        (REFERENCE,),
        Variants("variant", HALF_BATCHES, reference=next(iter(HALF_BATCHES))),
    ),
    "sound_units": Study(
        "Sound units and quiet times",
        "Each variant is replai at its learning rate and sees as many samples, in twice as many steps; to it a loss of "
        "weight 0.5 is added by which clips tell the unit of their sound, or one that tells moments from quiet times, "
        "which are then a quarter of the samples, or both.",
        (REFERENCE,),
        Variants("variant", SOUND_UNITS, reference=next(iter(SOUND_UNITS))),
    ),
    "earmark": Study(
        "The recipe earmark",
        "Each variant is replai at its learning rate, all but the first pretrained for four times as long as in the "
        "table; those in batches of half the size see 3.4 times as many samples as there, so that all take about as "
        "long. earmark is RepLAI with sound units and quiet times.",
        (REFERENCE,),
        Variants("variant", EARMARK, reference=REFERENCE),
    ),
    "quarter_batches": Study(
        "Sound units in batches of a quarter of the size",
        "Each variant is replai at its learning rate, with 3.5 times as many steps of a quarter of the batch, which "
        "take about as long and see an eighth fewer samples; to one a loss of weight 0.5 is added by which clips tell "
        "the unit of their sound.",
        (REFERENCE,),
        Variants("variant", QUARTER_BATCHES, reference=next(iter(QUARTER_BATCHES))),
    ),
}
