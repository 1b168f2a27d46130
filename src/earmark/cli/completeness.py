"""What is there of a data set: put together from its annotations, its files and their states.

Beside the path of a sample: `earmark.cli.check` and `earmark.cli.prepare` show it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from earmark.cli.terminal import screen
from earmark.wording import visible

if TYPE_CHECKING:
    from earmark.datasets import DatasetRecords, Ego4D, VideoRecord
    from earmark.preparation.completeness import Completeness, TaskState, VideoState

__all__ = ["completeness_of", "lengths_of", "print_completeness", "sound_of"]

NUM_SEEN = 4  # actions that the paper's anticipation sees; how many windows there are depends on it


def completeness_of(
    dataset: "DatasetRecords",
    videos: "Sequence[VideoRecord]",
    states: "Sequence[VideoState]",
    *,
    checksums: dict[str, frozenset[str]] | None = None,
    left_out: Sequence[str] = (),
    num_workers: int = 1,
) -> "Completeness":
    """Put together what is there of a data set.

    Args:
        dataset: The data set.
        videos: Its videos.
        states: Their states, or those of some of them.
        checksums: Those to compare; None for none.
        left_out: What of their list was left out.
        num_workers: Files whose checksums are computed side by side.
    """
    from earmark.datasets import (
        DatasetError,
        Ego4D,
        EpicKitchens,
        absent_annotations,
        files_not_read,
        stray_files,
    )
    from earmark.preparation.completeness import Completeness, lost_actions, times_beyond, wrong_checksums

    by_id = {state.video_id: state for state in states}
    actions, problems = {}, list(left_out)
    unread: list[str] = []
    lengths = lengths_of(dataset)
    doubtful_times: list[str] = []
    tasks = _tasks_of(dataset, by_id, problems, unread) if isinstance(dataset, Ego4D) else []
    has_actions = dataset.classes and not isinstance(dataset, Ego4D)  # whose actions are among its tasks
    for split in dict.fromkeys(video.split for video in videos) if has_actions else ():
        try:
            annotated = dataset.actions(split)
        except DatasetError as error:
            problems.append(str(error))
            unread.append(split)
            continue
        actions[split] = (len(annotated), lost_actions(annotated, by_id))
        doubtful_times += times_beyond(annotated, lengths)
    strays: tuple[str, ...] = ()
    if isinstance(dataset, EpicKitchens):
        problems += absent_annotations(dataset)
        if dataset.layout_of(videos) == "videos":
            strays = stray_files(dataset, videos)
    held_out: list[str] = []
    if isinstance(dataset, Ego4D):
        strays = files_not_read(dataset, videos)
        reasons = dataset.held_out()
        held_out = [f"{v.video_id}: {reasons.get(v.video_id, '')}" for v in videos if v.split == "mixed"]
    num_compared: int | None = None
    faults: tuple[str, ...] = ()
    if checksums is not None:
        num_compared, faults = wrong_checksums(states, checksums, num_workers=num_workers)
    return Completeness(
        videos=tuple(states),
        actions=actions,
        strays=strays,
        num_lengths=sum(state.video_id in lengths for state in states),
        num_checksums=num_compared,
        checksum_faults=faults,
        problems=(*problems, *dataset.problems),
        doubtful_times=tuple(doubtful_times),
        unread_splits=tuple(unread),
        remarks=dataset.remarks if isinstance(dataset, Ego4D) else (),
        tasks=tuple(tasks),
        held_out=tuple(held_out),
    )


def print_completeness(report: "Completeness") -> None:
    """Print the counts, what is wrong by name, and the verdict, each of these a line however long a path in it is."""
    from rich.text import Text  # names are not markup: [brackets] in them stay

    console = screen()
    console.print(report.table())
    for line in [*report.lines(), report.verdict()]:
        console.print(Text(visible(line)), soft_wrap=True)


def lengths_of(dataset: "DatasetRecords") -> dict[str, float]:
    """Return how long the videos of a data set last by its own list, where it has one."""
    from earmark.datasets import Ego4D, EpicKitchens

    return dataset.seconds_of_videos() if isinstance(dataset, EpicKitchens | Ego4D) else {}


def sound_of(dataset: "DatasetRecords") -> dict[str, bool]:
    """Return which videos of a data set have sound by its own list, where it has one."""
    from earmark.datasets import Ego4D

    return dataset.sound_of_videos() if isinstance(dataset, Ego4D) else {}


def _tasks_of(
    ego4d: "Ego4D", states: "dict[str, VideoState]", problems: list[str], unread: list[str]
) -> "list[TaskState]":
    """Return what is there of each task of Ego4D by split; what cannot be read is added to the last two arguments."""
    from earmark.datasets import NUM_COMING, DatasetError, anticipation_windows, num_anticipation_windows
    from earmark.preparation.completeness import task_state

    tasks = []
    for split in ego4d.splits("fho_lta"):
        try:
            clips = ego4d.anticipation_clips(split)
        except DatasetError as error:
            problems.append(str(error))
            unread.append(f"{split} anticipation")
            continue
        actions = [[(action.video_id, action.start_seconds)] for clip in clips for action in clip.actions]
        left_out = {"cannot be used": ego4d.num_left_out("fho_lta", split)}
        tasks.append(task_state("action recognition", split, actions, states, not_usable=left_out))
        num_coming = 0 if split == "test" else NUM_COMING
        windows = [
            window for clip in clips for window in anticipation_windows(clip, num_seen=NUM_SEEN, num_coming=num_coming)
        ]
        num_listed = sum(
            num_anticipation_windows(clip.num_listed, num_seen=NUM_SEEN, num_coming=num_coming) for clip in clips
        )
        seen = [[(action.video_id, action.start_seconds) for action in window.seen] for window in windows]
        lost = {"with an action that cannot be used": num_listed - len(windows)}
        tasks.append(task_state(f"anticipation ({NUM_SEEN} seen)", split, seen, states, not_usable=lost))
    for split in ego4d.splits("fho_oscc-pnr"):
        try:
            changes = ego4d.state_changes(split)
        except DatasetError as error:
            problems.append(str(error))
            unread.append(f"{split} state change")
            continue
        left_out = {"cannot be used": ego4d.num_left_out("fho_oscc-pnr", split)}
        spans = [[(change.video_id, change.start_seconds)] for change in changes]
        tasks.append(task_state("state change (OSCC)", split, spans, states, not_usable=left_out))
        changed = [[(c.video_id, c.start_seconds)] for c in changes if c.state_change is not False]
        tasks.append(task_state("point of no return (PNR)", split, changed, states, not_usable={}))
    tasks.sort(key=lambda task: task.task)  # stable: splits stay in their order
    return tasks
