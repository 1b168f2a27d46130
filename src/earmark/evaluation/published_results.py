"""Published results to hold an evaluation against, with their source and with what differs in how they were measured.

Path of a sample: scores --metrics--> a result --beside these--> page. Numbers of others are shown only beside numbers
from the very same labelled split; `comparison` decides it by the labels, not by the name of the data set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from earmark.evaluation.metrics import majority_accuracy

__all__ = [
    "PUBLISHED",
    "WITH_AUDIO",
    "JudgedLabels",
    "MajorityLine",
    "OfficialSplit",
    "PublishedMeasure",
    "PublishedRow",
    "PublishedTable",
    "comparison",
    "tables_of",
]

# Published figures of about 10 to 30 % over a few thousand samples have standard errors of about one point. What a
# hundredth of the samples can move is no more than that; what more of them can move is not comparable.
LEAST_SHARE_JUDGED = 0.99
WITH_AUDIO = " +A"  # at the end of a measure's label: of features of picture and sound, one after the other

REPLAI = (
    "Mittal, Morgado, Jain, Gupta: Learning State-Aware Visual Representations from Audible Interactions, NeurIPS 2022"
)
REPLAI_URL = "https://arxiv.org/abs/2209.13583"


@dataclass(frozen=True, slots=True)
class PublishedMeasure:
    """A column of a table of published results.

    Attributes:
        label: As results of the same measure are labelled here, such as "verb top-1" (`earmark.evaluation.Row.label`);
            with `WITH_AUDIO` at its end of those with the sound.
        unit: Such as "%" or "s"; empty for a number without.
        decimals: How many the source gives.
        higher_is_better: Whether it is.
    """

    label: str
    unit: str = "%"
    decimals: int = 2
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """What was published of one model.

    Attributes:
        name: The model.
        values: One for each measure of the table; None where the source has none.
        note: Where this row differs from the others: another source, labels in training.
    """

    name: str
    values: tuple[float | None, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class MajorityLine:
    """The accuracy of always naming the most frequent classes of the split itself, by which its labels are known.

    Attributes:
        column: Label column.
        k: Number of guesses.
        percent: Accuracy in %, to two decimals.
    """

    column: str
    k: int
    percent: float


@dataclass(frozen=True, slots=True)
class OfficialSplit:
    """The split that published results are about, and how it is recognised.

    Attributes:
        split: Its name.
        num_samples: Annotated samples, as the official file has them; None where no public source gives the number.
        num_classes: Number of classes of each label column.
        majority: Majority lines of the file; other labels have others.
    """

    split: str
    num_samples: int | None
    num_classes: Mapping[str, int]
    majority: tuple[MajorityLine, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """Published results of one task on one data set.

    Attributes:
        data_set: The data set, as people write it.
        measures: The columns.
        rows: The models.
        source: Where the numbers stand.
        url: Address of the source.
        differences: What of the protocol is not as it is here, a sentence each.
        official: The split, where this package can tell it from others; None leaves the table without comparison.
        head: What answered, as pages of evaluations call it, such as "linear probe"; empty where that is not said here.
    """

    data_set: str
    measures: tuple[PublishedMeasure, ...]
    rows: tuple[PublishedRow, ...]
    source: str
    url: str
    differences: tuple[str, ...]
    official: OfficialSplit | None = None
    head: str = ""


@dataclass(frozen=True, slots=True)
class JudgedLabels:
    """What was judged, to be told from the official split.

    Attributes:
        split: Name of the split.
        num_judged: Samples that were judged.
        labels: Classes of all annotated samples of the split by label column, those that could not be judged among
            them; each of shape ``(N,)``, negative where a sample has none.
        num_classes: Number of classes of each label column.
        part: The part of the split that was asked for, such as "tailclasses"; empty for all.
        num_annotated: Samples of the split, of a task whose samples have no classes; None for as many as labels.
    """

    split: str
    num_judged: int
    labels: Mapping[str, ArrayLike]
    num_classes: Mapping[str, int]
    part: str = ""
    num_annotated: int | None = None


def comparison(table: PublishedTable, judged: JudgedLabels) -> str:
    """Say why published results cannot stand beside what was judged; empty where they can.

    The split is known by its number of samples and classes and by its majority lines, as far as public sources give
    them, so that another data set in the same layout, such as a synthetic one, is not taken for it.

    Args:
        table: Published results.
        judged: What was judged.

    Example:
        >>> kitchen = JudgedLabels("validation", 43, {"verb": [0] * 43}, {"verb": 14})
        >>> comparison(PUBLISHED["epic_kitchens", "action_recognition"], kitchen)
        'these are 43 annotated samples, the validation split of EPIC-KITCHENS-100 has 9,668'
    """
    official = table.official
    if official is None:
        return f"the official split of {table.data_set} is not known here"
    if judged.split != official.split:
        return f"split {judged.split} was judged, the published numbers are of {official.split}"
    if judged.part:
        return f"only a part was judged ({judged.part}), the published numbers are of all of {official.split}"
    labels = {column: np.asarray(values) for column, values in judged.labels.items()}
    name = f"the {official.split} split of {table.data_set}"
    num_annotated = judged.num_annotated
    if num_annotated is None:
        num_annotated = max((len(values) for values in labels.values()), default=0)
    if official.num_samples not in (None, num_annotated):
        return f"these are {num_annotated:,} annotated samples, {name} has {official.num_samples:,}"
    for column, number in official.num_classes.items():
        if judged.num_classes.get(column) != number:
            here = judged.num_classes.get(column)
            return f"these labels have {here or 'no'} classes of {column}, those of {table.data_set} {number}"
    for line in official.majority:
        known = labels[line.column][labels[line.column] >= 0]
        percent = majority_accuracy(known, known, line.k) if len(known) else 0.0
        if f"{percent:.2f}" != f"{line.percent:.2f}":
            return (
                f"other labels: the {line.column} classes most frequent here make up {percent:.2f} % (top-{line.k}), "
                f"those of {name} {line.percent:.2f} %"
            )
    num_samples = num_annotated if official.num_samples is None else official.num_samples
    if judged.num_judged < LEAST_SHARE_JUDGED * num_samples:
        return f"only {judged.num_judged:,} of the {num_samples:,} samples could be judged"
    return ""


def _epic_recognition() -> PublishedTable:
    return PublishedTable(
        data_set="EPIC-KITCHENS-100",
        measures=tuple(PublishedMeasure(f"{column} top-{k}") for k in (1, 5) for column in ("verb", "noun")),
        rows=(
            PublishedRow(
                "majority class of the validation file",
                (20.04, 4.45, 64.18, 18.81),
                "not in the paper, counted in its labels",
            ),
            PublishedRow("RepLAI from scratch", (25.75, 8.12, 71.25, 27.29)),
            PublishedRow("RepLAI without moments", (28.71, 8.33, 73.17, 27.29), "trained at random times"),
            PublishedRow("RepLAI without AStC", (29.29, 9.67, 73.33, 29.54), "no audible state change"),
            PublishedRow("RepLAI without AVC", (29.92, 10.46, 70.58, 29.00), "no audio-visual correspondence"),
            PublishedRow("RepLAI", (31.71, 11.25, 73.54, 30.54)),
        ),
        source=REPLAI,
        url=REPLAI_URL,
        differences=(
            "The published figures are all multiples of 1/2,400: they are of 2,400 of the 9,668 validation segments, "
            "one process's share. Their standard error is about 0.95 points at 31.71 %.",
            "Each segment was judged by one random clip of 0.5 s, with one seed.",
            "The batch norm of the frozen encoder was left in training mode while the probe was trained, so its "
            "statistics drifted.",
        ),
        official=OfficialSplit(
            split="validation",
            num_samples=9668,
            num_classes=MappingProxyType({"verb": 97, "noun": 300}),
            majority=(
                MajorityLine("verb", 1, 20.04),
                MajorityLine("noun", 1, 4.45),
                MajorityLine("verb", 5, 64.18),
                MajorityLine("noun", 5, 18.81),
            ),
        ),
        head="linear probe",
    )


EGO4D_MODELS = (
    "RepLAI from scratch",
    "RepLAI without moments",
    "RepLAI without AStC",
    "RepLAI without AVC",
    "RepLAI",
)
EGO4D_SUPERVISED = "Ego4D's own models"
EGO4D_ONCE = "Published is one run of each model, without an interval."
EGO4D_KNOWN_BY = (
    "This split is taken for the official one of version 1 by its name and by its classes, 115 verbs and 478 nouns; no "
    "public source gives the number of its rows."
)


def _ego4d(
    measures: tuple[PublishedMeasure, ...],
    values: tuple[tuple[float | None, ...], ...],
    *,
    supervised: tuple[float | None, ...],
    differences: tuple[str, ...],
    others: tuple[PublishedRow, ...] = (),
    head: str = "",
) -> PublishedTable:
    """Return the columns of one task of the paper's table of Ego4D, a row for each of `EGO4D_MODELS`."""
    rows = tuple(PublishedRow(name, row) for name, row in zip(EGO4D_MODELS, values, strict=True))
    return PublishedTable(
        data_set="Ego4D v1",
        measures=measures,
        rows=(*rows, PublishedRow(EGO4D_SUPERVISED, supervised, "trained on the labels of the task"), *others),
        source=REPLAI,
        url=REPLAI_URL,
        differences=(*differences, EGO4D_ONCE, EGO4D_KNOWN_BY),
        official=OfficialSplit("validation", None, MappingProxyType({"verb": 115, "noun": 478})),
        head=head,
    )


# By the names of data set and task; for Ego4D the validation split. Its task oscc_pnr has two tables (`tables_of`).
PUBLISHED: Mapping[tuple[str, str], PublishedTable] = MappingProxyType(
    {
        ("epic_kitchens", "action_recognition"): _epic_recognition(),
        ("ego4d", "state_change"): _ego4d(
            (PublishedMeasure("state change"), PublishedMeasure("state change +A")),
            ((66.20, 66.30), (62.90, 64.10), (63.60, 64.40), (64.00, 64.60), (66.30, 66.80)),
            supervised=(68.22, None),
            others=(PublishedRow("EgoVLP", (73.9, None), "pretrained on narrations"),),
            differences=("Published accuracies are means over batches, not over clips.",),
        ),
        ("ego4d", "keyframe"): _ego4d(
            (PublishedMeasure("point of no return", unit="s", decimals=3, higher_is_better=False),),
            ((0.775,), (0.801,), (0.795,), (0.792,), (0.772,)),
            supervised=(0.615,),
            others=(PublishedRow("EgoVLP", (0.622,), "pretrained on narrations"),),
            differences=(
                "The published error takes the index of a sampled frame for a time by dividing the clip into 16 parts, "
                "whichever frames were sampled: even a perfect index is off by 0.257 s on average.",
                "It is a mean over batches; in the validation loop one without a change counts as 0.",
            ),
        ),
        ("ego4d", "action_recognition"): _ego4d(
            tuple(
                PublishedMeasure(f"{column} top-1{audio}", decimals=1)
                for audio in ("", " +A")
                for column in ("verb", "noun")
            ),
            (
                (22.2, 14.1, 22.5, 15.0),
                (19.8, 11.2, 20.8, 11.7),
                (21.1, 13.5, 21.4, 13.0),
                (20.3, 12.4, 22.7, 14.0),
                (22.5, 14.7, 23.1, 15.8),
            ),
            supervised=(22.18, 21.55, None, None),
            head="fine-tuned encoder",
            differences=("Published accuracies are means over batches, with one random crop of each action.",),
        ),
        ("ego4d", "lta"): _ego4d(
            tuple(
                PublishedMeasure(f"{column} ED@20", unit="", decimals=3, higher_is_better=False)
                for column in ("verb", "noun")
            ),
            ((0.760, 0.840), (0.792, 0.868), (0.774, 0.853), (0.781, 0.854), (0.755, 0.834)),
            supervised=(0.746, 0.789),
            differences=(
                "The published samples are one fewer for each clip: the last window was left out.",
                "The five sequences were drawn at random, once.",
            ),
        ),
    }
)
_TABLES_OF_TASK: Mapping[str, tuple[str, ...]] = MappingProxyType({"oscc_pnr": ("state_change", "keyframe")})


def tables_of(data_set: str, task: str) -> tuple[PublishedTable, ...]:
    """Return the tables of published results of a task on a data set; none where nothing was published.

    Args:
        data_set: Its name here, such as ``ego4d``.
        task: As `earmark.evaluation.TASKS` names it.

    Example:
        >>> [table.measures[0].label for table in tables_of("ego4d", "oscc_pnr")]
        ['state change', 'point of no return']
    """
    keys = ((data_set, name) for name in _TABLES_OF_TASK.get(task, (task,)))
    return tuple(PUBLISHED[key] for key in keys if key in PUBLISHED)
