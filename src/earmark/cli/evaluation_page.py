"""What the page of an evaluation says beside its table: what was seen and chosen, confusions, clips, published results.

Beside the path of a sample: `earmark.cli.evaluate` calls this once the numbers are there.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from earmark.cli.change_page import learned_changes
from earmark.cli.config_schema import EvaluateConfig
from earmark.cli.judged import SAW, Judged
from earmark.wording import at_most, counted

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets import DatasetRecords, Ego4D
    from earmark.evaluation import Judgement, Task, TaskResult
    from earmark.evaluation.answers import TargetAnswers
    from earmark.evaluation.judged_clips import JudgedClip
    from earmark.evaluation.published_results import JudgedLabels, PublishedTable
    from earmark.evaluation.report_details import ResultDetails

__all__ = ["page_details"]

MAX_REMARKS = 10  # on what is unusual in the annotations
RECIPROCAL = "held_out_reciprocal_rank"  # by which a map is chosen
NUM_CONFIDENT, NUM_DRAWN = 3, 3  # clips of each group on the page: those answered right, those answered wrong


def page_details(
    task: "Task[Any, Any]",
    judgement: "Judgement[Any, Any]",
    judged: Judged,
    config: EvaluateConfig,
    store: "PreparedStore",
    dataset: "DatasetRecords",
    seen: "Collection[str] | None",
) -> "ResultDetails":
    """Return what the page shows of an evaluation beside its numbers.

    Args:
        task: What was asked.
        judgement: The numbers and the answers.
        judged: What was judged.
        config: The checked configuration.
        store: The prepared videos.
        dataset: Records and classes.
        seen: Videos that pretraining saw; None where they are not known.
    """
    from earmark.evaluation import Order
    from earmark.evaluation.report_details import ResultDetails

    targets = target_answers(task, judgement)
    several = len(judgement.answers) > 1
    tables, reason = published_beside(task, targets, config, judged, dataset, judgement.result.options)
    left_out = {f"{count.split}: {task.sample}s": count.left_out for count in task.records}
    learned = None
    if isinstance(task, Order):
        learned = learned_changes(task, judgement.answers[0], judged, config, store)
    return ResultDetails(
        sample=task.sample,
        measured=task.title.removesuffix(" [95 % interval]").removesuffix(", %"),
        statements=_statements(task, judgement, judged, config, store, dataset, seen),
        answers=targets,
        answers_of=f"seed {judgement.answers[0].seed}" if several else "",
        clips=_judged_clips(task, targets, config, store),
        published=tables,
        not_published=reason,
        learned=learned,
        left_out=left_out | {"annotations": [_place_and_reason(text) for text in dataset.problems]},
    )


def target_answers(task: "Task[Any, Any]", judgement: "Judgement[Any, Any]") -> "list[TargetAnswers]":
    """Return the answers of the first seed by label column; none of a task whose answers are not scores of classes."""
    import numpy as np

    from earmark.evaluation.action_results import ACTION_COLUMNS
    from earmark.evaluation.answers import TargetAnswers
    from earmark.evaluation.probing import ProbeAnswers

    first = judgement.answers[0]
    if not isinstance(first.encoder, ProbeAnswers):
        return []
    classes = getattr(task, "class_names", {})
    if not isinstance(classes, Mapping):  # the names of the one label column
        classes = dict.fromkeys(first.encoder.scores, classes)
    by_rule = all(column in classes for column in ACTION_COLUMNS)
    found = []
    for column, names in classes.items():
        labels, tested = task.train_clips.labels[column], task.test_clips.labels.get(column)
        if tested is None:
            continue
        baseline = first.baseline.scores[column] if isinstance(first.baseline, ProbeAnswers) else None
        found.append(
            TargetAnswers(
                column=column,
                names=names,
                labels=tested,
                scores=first.encoder.scores[column],
                baseline_scores=baseline,
                train_counts=np.bincount(labels[labels >= 0], minlength=len(names)),
                later_first=by_rule and column in ACTION_COLUMNS,
            )
        )
    return found


def _judged_clips(
    task: "Task[Any, Any]", targets: "Sequence[TargetAnswers]", config: EvaluateConfig, store: "PreparedStore"
) -> "list[JudgedClip]":
    """Return test actions that were answered right and wrong, with frames from their start to their end."""
    import numpy as np

    from earmark.clips.action_clips import ActionClips
    from earmark.evaluation.frame_strips import FRAMES_SHOWN
    from earmark.evaluation.judged_clips import JudgedClip, answers_to, choose_samples, right_and_confident

    if not targets or not isinstance(task.test_clips, ActionClips):
        return []
    right, confidence = right_and_confident(targets)
    actions = task.test_clips.actions
    videos = [action.video_id for action in actions]
    clips = []
    for wanted in (right, ~right):
        chosen = choose_samples(
            wanted & ~np.isnan(confidence),
            confidence,
            videos,
            num_confident=NUM_CONFIDENT,
            num_drawn=NUM_DRAWN,
            seed=config.environment.seed,
        )
        for samples, confident in zip(chosen, (True, False), strict=True):
            for sample in samples:
                action = actions[sample]
                video = store.videos[action.video_id]
                last = video.duration_seconds - 1 / store.fps
                times = np.linspace(action.start_seconds, min(action.stop_seconds, last), FRAMES_SHOWN)
                clips.append(
                    JudgedClip(
                        video_id=action.video_id,
                        start_seconds=action.start_seconds,
                        stop_seconds=action.stop_seconds,
                        frames=store.frames(action.video_id, np.minimum(times, last)),
                        answers=answers_to(sample, targets),
                        confident=confident,
                    )
                )
    return clips


def published_beside(
    task: "Task[Any, Any]",
    targets: "Sequence[TargetAnswers]",
    config: EvaluateConfig,
    judged: Judged,
    dataset: "DatasetRecords",
    options: Mapping[str, Any],
) -> "tuple[tuple[PublishedTable, ...], str]":
    """Return the tables of published results to show; without any, why not."""
    from earmark.datasets import Ego4D
    from earmark.evaluation.published_results import PUBLISHED, WITH_AUDIO, comparison, tables_of

    tables = tables_of(judged.data.name, task.name)
    if not tables:
        known = " and ".join(sorted({table.data_set for table in PUBLISHED.values()}))
        what = "Audible Kitchen is synthetic" if judged.data.name == "kitchen" else "there are none for this task on it"
        return (), f"data={judged.data.name}: {what}. There are published results on {known}"
    if isinstance(dataset, Ego4D):
        labels = _numbers_of_ego4d(task, config, dataset)
    elif targets:
        labels = _labels_of_actions(targets, config, dataset)
    else:
        return (), f"the answers of {task.name} are not scores of classes"
    for table in tables:
        reason = comparison(table, labels)
        if reason:
            return (), reason
    head, modalities = _head_in_words(options), options.get("modalities", ["video"])
    shown = []
    for table in tables:
        with_sound = any(measure.label.endswith(WITH_AUDIO) for measure in table.measures)
        if table.head and (head != table.head or not (modalities == ["video"] or with_sound)):
            here = f"here it is: {head}, on {' and '.join(modalities)}."
            other = f"Published is a {table.head} on the video encoder; {here}"
            table = dataclasses.replace(table, differences=(other, *table.differences))
        shown.append(table)
    return tuple(shown), ""


def _labels_of_actions(
    targets: "Sequence[TargetAnswers]", config: EvaluateConfig, dataset: "DatasetRecords"
) -> "JudgedLabels":
    """Return what tells the judged actions from those of an official split: their labels."""
    import numpy as np

    from earmark.evaluation.published_results import JudgedLabels

    actions = dataset.actions(config.evaluate.split)
    return JudgedLabels(
        split=config.evaluate.split,
        num_judged=len(targets[0].labels),
        labels={
            target.column: np.array([action.labels.get(target.column, -1) for action in actions], np.int64)
            for target in targets
        },
        num_classes={target.column: len(target.names) for target in targets},
        part=(config.data.subset or "").replace("_", " "),
    )


def _numbers_of_ego4d(task: "Task[Any, Any]", config: EvaluateConfig, ego4d: "Ego4D") -> "JudgedLabels":
    """Return what tells the judged rows of Ego4D from those of an official split: their number and classes."""
    from earmark.evaluation.published_results import JudgedLabels

    split = config.evaluate.split
    count = [count for count in task.records if count.split == split][-1]  # of train the second, which is judged
    lost = ego4d.num_left_out("fho_oscc-pnr" if task.name == "oscc_pnr" else "fho_lta", split)
    return JudgedLabels(
        split=split,
        num_judged=count.num_used,
        labels={},
        num_classes={column: len(names) for column, names in ego4d.classes.items()},
        num_annotated=count.num_used + len(count.left_out) + lost,
    )


def _statements(
    task: "Task[Any, Any]",
    judgement: "Judgement[Any, Any]",
    judged: Judged,
    config: EvaluateConfig,
    store: "PreparedStore",
    dataset: "DatasetRecords",
    seen: "Collection[str] | None",
) -> dict[str, str]:
    """Return in sentences how the numbers came about."""
    used = {count.split: count for count in task.records}
    statements = {"Pretraining saw": pretraining_saw(judged, judgement.result, store, seen)}
    trained, tested = used.get("train"), used.get(config.evaluate.split)
    if trained is not None and tested is not None:
        statements["Trained and judged on"] = (
            f"{trained.num_used:,} {task.sample}s of train, {tested.num_used:,} of {config.evaluate.split}; "
            f"left out: {len(trained.left_out):,} and {len(tested.left_out):,}"
        )
    remarks = getattr(dataset, "remarks", ())
    if remarks:
        statements["Unusual, and read all the same"] = "; ".join(at_most(remarks, MAX_REMARKS))
    statements["Settings of the head"] = how_chosen(judgement)
    statements["Seeds"] = _seeds(judgement)
    notes = task.also_measured(judgement.result)
    if notes:
        statements["Also measured"] = ". ".join(notes)
    return statements


def pretraining_saw(
    judged: Judged, result: "TaskResult[Any]", store: "PreparedStore", seen: "Collection[str] | None"
) -> str:
    """Say which videos pretraining saw, by their split, and how many of those that are judged here."""
    if judged.path is None:
        return judged.name
    data = judged.stored.get("config", {}).get("data", {})
    asked = f"data={data.get('name', 'unknown')}, split {data.get('split', 'unknown')}"
    if seen is None:
        return f"{asked}; which videos is not known"
    ids = judged.stored.get("videos", {}).get("pretraining")
    number = f"{counted(len(ids), 'video')} ({asked})" if ids is not None else asked
    splits = Counter(store.videos[name].split for name in seen if name in store.videos)
    if not splits:
        return f"{number}, none of the videos here"
    here = ", ".join(f"{count} of {split}" for split, count in sorted(splits.items()))
    among = next((judged_videos.num_videos for judged_videos in result.seen if judged_videos.by == SAW), None)
    if set(splits) == {"train"} and among == 0:
        return f"{number}: training videos only, none of the {counted(result.num_test_videos or 0, 'test video')}"
    return f"{number}: {here}; {among} of {counted(result.num_test_videos or 0, 'test video')} among them"


def how_chosen(judgement: "Judgement[Any, Any]") -> str:
    """Say how the settings of the head were found: what was chosen for each label column and on what, or as given."""
    by_seed = {answers.seed: getattr(answers.encoder, "chosen", {}) for answers in judgement.answers}
    texts = {seed: "; ".join(_chosen_text(*item) for item in chosen.items()) for seed, chosen in by_seed.items()}
    options = judgement.result.options.get("probe") or judgement.result.options.get("fine_tuning")
    options = options or judgement.result.options.get("anticipation_head")
    if options is None:
        return "this task trains no head"
    kind = f"{_head_in_words(judgement.result.options)}, "
    if not any(texts.values()):
        return f"{kind}as configured{_given_text(options)}; nothing was chosen by trying"
    how = f"{kind}chosen on {100 * options['held_out']:g} % of the training videos, held out, never on what is reported"
    if len(set(texts.values())) == 1:
        return f"{how}. {next(iter(texts.values()))}"
    return f"{how}. " + ". ".join(f"Seed {seed}: {text}" for seed, text in texts.items())


def _head_in_words(options: Mapping[str, Any]) -> str:
    if "anticipation_head" in options:
        return f"{options['anticipation_head']['aggregator']} of the seen actions' frozen features"
    return f"{options['probe']['kind']} probe" if "probe" in options else "fine-tuned encoder"


def _given_text(options: Mapping[str, Any]) -> str:
    """Name what a probe was trained with where there was nothing to choose."""
    if options.get("kind") == "knn":
        return f": neighbours {options['neighbours'][0]}, temperature {options['temperature']:g}"
    lr, weight_decay = ((options[f"{name}s"] or [options[name]])[0] for name in ("lr", "weight_decay"))
    return f": lr {lr:g}, weight decay {weight_decay:g}"


def _chosen_text(column: str, values: Mapping[str, float]) -> str:
    """Name the values of one label column, what their choice rests on, and those at the edge of what was tried."""
    settings = {
        name: value
        for name, value in values.items()
        if not name.startswith("held_out_") and not name.endswith("_on_edge")
    }
    text = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in settings.items())
    text = f"{column}: {text}"
    if "held_out_distance" in values:
        basis = f"edit distance {values['held_out_distance']:.3f} on {values['held_out_windows']:,.0f} held-out windows"
    elif "held_out_actions" in values:
        basis = f"{values['held_out_accuracy']:.1f} % of {values['held_out_actions']:,.0f} held-out actions"
    elif "held_out_moments" in values:
        measured = f"mean reciprocal rank {values[RECIPROCAL]:.1f} %" if RECIPROCAL in values else None
        basis = measured or f"{values['held_out_accuracy']:.1f} %"
        basis += f" of {values['held_out_moments']:,.0f} held-out moments"
    else:
        return text
    for name in settings:
        side = values.get(f"{name}_on_edge", 0)
        if side:
            basis += f"; the {'largest' if side > 0 else 'smallest'} {name.replace('_', ' ')} of those tried"
    return f"{text} ({basis})"


def _seeds(judgement: "Judgement[Any, Any]") -> str:
    """Name the seeds, with the first number of each target under each of them and the spread over them."""
    numbers = ", ".join(str(answers.seed) for answers in judgement.answers)
    lines = []
    for column in judgement.result.columns:
        row = column.rows()[0]
        if row.score.spread is not None:
            values = ", ".join(f"{value:.{row.decimals}f}" for value in row.score.per_seed)
            lines.append(f"{row.label} {values} (standard deviation {row.score.spread:.{row.decimals + 1}f})")
    return numbers + (f"; {'; '.join(lines)}" if lines else ": one, so no spread")


def _place_and_reason(text: str) -> tuple[str, str]:
    """Split what a data set tells into the file and the rest."""
    place, colon, reason = text.partition(": ")
    return (place, reason) if colon else ("", text)
