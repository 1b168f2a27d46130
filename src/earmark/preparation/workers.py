"""Spread videos over processes: on this machine (loky), or over a Ray cluster, both through joblib.

Beside the path of a sample: `earmark.preparation.prepare` hands the videos in and gets their catalog rows back as they
finish. A process that dies (out of memory, a fault in a codec) stops no other video. Videos that another run is working
on are left to it and collected at the end.
"""

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal

import joblib

from earmark.datasets.records import VideoRecord
from earmark.preparation.catalog import PreparedVideo
from earmark.preparation.locks import left_behind
from earmark.preparation.video import prepare_video, refused_row
from earmark.worker_processes import ending_with_parent

__all__ = ["Backend", "BackendError", "WorkerDiedError", "each_in_order", "in_processes", "prepared_rows"]

Backend = Literal["loky", "ray"]


class BackendError(ValueError):
    """Processes cannot be started as requested; the message says why."""


class WorkerDiedError(RuntimeError):
    """A call killed the process that it was made in; the message says what that may mean."""


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
        parameters: As `earmark.preparation.prepare` wrote them to ``store.json``.
        num_workers: Concurrent processes, one video each; -1 for as many as the cluster has processors.
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

    for wait in (False, True):  # videos that another run works on come last
        while len(waiting) > len(suspects):
            try:
                yield from prepared([video for name, video in waiting.items() if name not in suspects], wait=wait)
                break
            except _worker_death(backend):
                dead = left_behind(root, waiting.keys() - suspects.keys()) or waiting.keys()
                suspects |= {name: waiting[name] for name in dead}
    for video in suspects.values():  # the pool does not say which of them killed it: each by itself
        try:
            yield _in_own_process(joblib.delayed(prepare_video)(video, root, parameters, wait=True))
        except WorkerDiedError as error:  # leaves no record, so that the next run tries again
            left_behind(root, [video.video_id])
            yield refused_row(video, str(error))


def each_in_order(calls: Sequence[Any], *, num_workers: int) -> Iterator[Any]:
    """Make calls in processes of this machine and yield what they return, in the order of the calls.

    A call that kills its process stops no other: calls without a result are then made one by one, each in a process of
    its own, and what is yielded for the deadly one is the error.

    Args:
        calls: Made by ``joblib.delayed``.
        num_workers: Processes side by side, at least 1; with 1, or for a single call, all is done in this process,
            which a deadly call would end.

    Yields:
        What each call returns, or a `WorkerDiedError`.

    Example:
        >>> list(each_in_order([joblib.delayed(abs)(-2), joblib.delayed(abs)(1)], num_workers=1))
        [2, 1]
    """
    num_done = 0
    with contextlib.suppress(BrokenProcessPool):
        parallel = joblib.Parallel(n_jobs=max(1, min(num_workers, len(calls))), return_as="generator")
        for result in parallel(ending_with_parent(calls)):
            num_done += 1
            yield result
    for call in calls[num_done:]:  # the pool does not say which call killed it
        try:
            result = _in_own_process(call)
        except WorkerDiedError as error:
            result = error
        yield result


def _in_own_process(call: Any) -> Any:
    """Make a call in a process of its own and return what it returns, or raise WorkerDiedError."""
    try:
        (result,) = joblib.Parallel(n_jobs=2)(ending_with_parent([call]))  # of one worker it would be this process
    except BrokenProcessPool as error:
        raise WorkerDiedError("the process that read it was killed: out of memory, or a fault in a codec") from error
    return result


def in_processes(calls: Sequence[Any], *, num_workers: int, backend: Backend = "loky") -> Iterator[Any]:
    """Make calls in other processes (in this one, if one is enough) and yield what they return as it comes.

    Args:
        calls: Made by ``joblib.delayed``.
        num_workers: Concurrent processes; -1 for as many as there are processors.
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
        yield from joblib.Parallel(n_jobs=num_jobs, return_as="generator_unordered")(ending_with_parent(calls))
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
    """Return the exceptions that mean a process died."""
    if backend == "loky":
        return (BrokenProcessPool,)
    from ray.exceptions import RayActorError

    return (BrokenProcessPool, RayActorError)
