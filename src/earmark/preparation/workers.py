"""Spread videos over processes: on this machine (loky), or over a Ray cluster, both through joblib.

Beside the path of a sample: `earmark.preparation.prepare` hands the videos in and gets their rows back, in the order in
which they are done. A process that dies (memory, a fault in a codec) stops no other video, and videos that another run
is at are left to it and collected at the end.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal

import joblib

from earmark.clips.store import PreparedVideo
from earmark.datasets.records import VideoRecord
from earmark.preparation.locks import left_behind
from earmark.preparation.video import prepare_video, refused_row

__all__ = ["Backend", "BackendError", "in_processes", "prepared_rows"]

Backend = Literal["loky", "ray"]


class BackendError(ValueError):
    """Processes cannot be started as asked for; the message says why."""


def prepared_rows(
    videos: Sequence[VideoRecord],
    root: Path,
    parameters: dict[str, Any],
    *,
    num_workers: int = 1,
    backend: Backend = "loky",
) -> Iterator[PreparedVideo]:
    """Prepare videos and yield the row of each as soon as it is done.

    Args:
        videos: Which ones.
        root: Folder of the store; on a cluster, where all machines see it.
        parameters: As `earmark.preparation.prepare.prepare` wrote them to ``store.json``.
        num_workers: Processes side by side, a video each; -1 for as many as the cluster has processors.
        backend: ``loky`` or ``ray``.

    Yields:
        Rows of the catalog, one for each video.

    Raises:
        OSError: If the store cannot be written.
        BackendError: If Ray is asked for and not installed.
    """
    _check(backend)
    waiting = {video.video_id: video for video in videos}
    suspects: dict[str, VideoRecord] = {}
    num_threads = max(1, num_workers // max(1, len(videos)))  # a few long videos: the rest of the processors help along

    def prepared(videos: Sequence[VideoRecord], *, wait: bool) -> Iterator[PreparedVideo]:
        calls = [
            joblib.delayed(prepare_video)(video, root, parameters, num_threads=num_threads, wait=wait)
            for video in videos
        ]
        for row in in_processes(calls, num_workers=num_workers, backend=backend):
            if row is not None:
                del waiting[row.video_id]
                yield row

    for wait in (False, True):  # what another run is at comes last
        while len(waiting) > len(suspects):
            try:
                yield from prepared([video for name, video in waiting.items() if name not in suspects], wait=wait)
                break
            except _worker_death(backend):
                dead = left_behind(root, waiting.keys() - suspects.keys()) or waiting.keys()
                suspects |= {name: waiting[name] for name in dead}
    for video in suspects.values():  # which of them did it is not told: each by itself
        try:
            # two jobs: a single one would run in this process
            call = joblib.delayed(prepare_video)(video, root, parameters, wait=True)
            yield joblib.Parallel(n_jobs=2)([call])[0]
        except BrokenProcessPool:  # leaves no record, so that the next run tries again
            left_behind(root, [video.video_id])
            yield refused_row(video, "the process that read it was killed: out of memory, or a fault in a codec")


def in_processes(calls: Sequence[Any], *, num_workers: int, backend: Backend = "loky") -> Iterator[Any]:
    """Make calls in other processes (in this one, if one will do) and yield what they return as it comes.

    Args:
        calls: Made by ``joblib.delayed``.
        num_workers: Processes side by side; -1 for as many as there are processors.
        backend: ``loky`` or ``ray``.

    Raises:
        BackendError: If Ray is asked for and not installed.

    Example:
        >>> sorted(in_processes([joblib.delayed(abs)(-1), joblib.delayed(abs)(2)], num_workers=1))
        [1, 2]
    """
    _check(backend)
    if not calls:
        return
    if backend == "loky":
        num_jobs = num_workers if num_workers < 0 else min(num_workers, len(calls))
        yield from joblib.Parallel(n_jobs=num_jobs, return_as="generator_unordered")(calls)
        return
    with joblib.parallel_config(backend=_ray_backend()):
        yield from joblib.Parallel(n_jobs=num_workers, return_as="generator_unordered")(calls)


def _check(backend: Backend) -> None:
    if backend == "ray" and importlib.util.find_spec("ray") is None:
        raise BackendError("the backend ray needs Ray: pip install 'earmark[ray]'")


def _ray_backend() -> Any:
    from ray.util.joblib.ray_backend import RayBackend

    class UnorderedRayBackend(RayBackend):  # type: ignore[misc]
        """Ray's backend for joblib, results as they come: joblib denies that to the class of pools it derives from."""

        supports_return_generator = True

    return UnorderedRayBackend()


def _worker_death(backend: Backend) -> tuple[type[Exception], ...]:
    """Return the exceptions that tell of a dead process."""
    if backend == "loky":
        return (BrokenProcessPool,)
    from ray.exceptions import RayActorError

    return (BrokenProcessPool, RayActorError)
