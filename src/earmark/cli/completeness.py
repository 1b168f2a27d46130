"""What is there of a data set: put together from its annotations, its files and their states.

Beside the path of a sample: `earmark.cli.check` and `earmark.cli.prepare` show it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from earmark.cli.terminal import screen
from earmark.wording import visible

if TYPE_CHECKING:
    from earmark.datasets import DatasetRecords, VideoRecord
    from earmark.preparation.completeness import Completeness, VideoState

__all__ = ["completeness_of", "lengths_of", "print_completeness"]


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
    from earmark.datasets import DatasetError, EpicKitchens, absent_annotations, stray_files
    from earmark.preparation.completeness import Completeness, lost_actions, times_beyond, wrong_checksums

    by_id = {state.video_id: state for state in states}
    actions, problems = {}, list(left_out)
    unread: list[str] = []
    lengths = lengths_of(dataset)
    doubtful_times: list[str] = []
    for split in dict.fromkeys(video.split for video in videos) if dataset.classes else ():
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
    from earmark.datasets import EpicKitchens

    return dataset.seconds_of_videos() if isinstance(dataset, EpicKitchens) else {}
