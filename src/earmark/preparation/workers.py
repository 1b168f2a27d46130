"""Spread videos over processes: on this machine (loky), or over a Ray cluster, both through joblib.

Beside the path of a sample: `earmark.preparation.prepare` hands the videos in and gets their catalog rows back as they
finish. A process that dies (out of memory, out of time, a fault in a codec) stops no other video. Videos that another
run is working on are left to it and collected at the end.
"""

import contextlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import joblib

from earmark.datasets.records import VideoRecord
from earmark.preparation.catalog import PreparedVideo
from earmark.preparation.disk_space import SourceLength, source_lengths
from earmark.preparation.isolation import Limits, in_limits
from earmark.preparation.locks import left_behind
from earmark.preparation.video import prepare_video, refused_row
from earmark.worker_processes import parallel

__all__ = [
    "Backend",
    "BackendError",
    "WorkerDiedError",
    "each_in_order",
    "in_processes",
    "isolated_lengths",
    "prepared_rows",
]

Backend = Literal["loky", "ray"]

_LENGTHS_AT_ONCE = 64  # headers of so many files are read by one call
# What ended a process, by the signal in what loky says of it.
_DEATHS = {
    "SIGALRM": "it took longer than a file of its length may take",
    "SIGKILL": "the machine was out of memory, or somebody ended it",
    "SIGSEGV": "a fault in a codec",
    "SIGABRT": "out of memory, or a fault in a codec",
    "SIGBUS": "a fault in a codec, or the file became shorter while it was read",
    "SIGFPE": "a fault in a codec",
    "SIGILL": "a fault in a codec",
}


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
    limits: Limits | None = None,
) -> Iterator[PreparedVideo]:
    """Prepare videos and yield the row of each as soon as it is done.

    Args:
        videos: Which ones.
        root: Folder of the store; on a cluster, where all machines see it.
        parameters: As `earmark.preparation.prepare` wrote them to ``store.json``.
        num_workers: Concurrent processes, one video each; -1 for as many as the cluster has processors.
        backend: ``loky`` or ``ray``.
        limits: What each video may take, in a process that is not this one; None for no limits, and for this process
            where one is enough.

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
            joblib.delayed(prepare_video)(video, root, parameters, num_threads=num_threads, wait=wait, limits=limits)
            for video in videos
        ]
        for row in in_processes(calls, num_workers=num_workers, backend=backend, isolate=limits is not None):
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
            yield _in_own_process(joblib.delayed(prepare_video)(video, root, parameters, wait=True, limits=limits))
        except WorkerDiedError as error:  # leaves no record, so that the next run tries again
            left_behind(root, [video.video_id])
            yield refused_row(video, str(error))


def isolated_lengths(videos: Sequence[VideoRecord], *, num_workers: int = 1, limits: Limits) -> dict[str, SourceLength]:
    """Read the headers of sources as `source_lengths` does, in other processes of this machine.

    Args:
        videos: Which ones.
        num_workers: Concurrent processes.
        limits: What each video may take; for the headers of a few there is a fifth of the time that any video has.

    Returns:
        By video id; of length 0 where the header kills the process that reads it.
    """
    lengths: dict[str, SourceLength] = {}
    limits = replace(limits, seconds=limits.seconds / 5)
    parts = [list(videos[first : first + _LENGTHS_AT_ONCE]) for first in range(0, len(videos), _LENGTHS_AT_ONCE)]
    while parts:
        calls = [joblib.delayed(in_limits)(limits, None, source_lengths, part) for part in parts]
        results = list(zip(parts, each_in_order(calls, num_workers=num_workers, isolate=True), strict=True))
        parts = []
        for part, result in results:
            if not isinstance(result, WorkerDiedError):
                lengths |= result
            elif len(part) == 1:
                lengths[part[0].video_id] = SourceLength(0.0, 1.0)
            else:
                parts += [[video] for video in part]
    return lengths


def each_in_order(calls: Sequence[Any], *, num_workers: int, isolate: bool = False) -> Iterator[Any]:
    """Make calls in processes of this machine and yield what they return, in the order of the calls.

    A call that kills its process stops no other: calls without a result are then made one by one, each in a process of
    its own, and what is yielded for the deadly one is the error.

    Args:
        calls: Made by ``joblib.delayed``.
        num_workers: Processes side by side, at least 1; with 1, or for a single call, all is done in this process,
            which a deadly call would end.
        isolate: Use another process even then.

    Yields:
        What each call returns, or a `WorkerDiedError`.

    Example:
        >>> list(each_in_order([joblib.delayed(abs)(-2), joblib.delayed(abs)(1)], num_workers=1))
        [2, 1]
    """
    num_done = 0
    with contextlib.suppress(BrokenProcessPool):
        for result in _made(calls, max(1, min(num_workers, len(calls))), "generator", isolate=isolate):
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
        (result,) = parallel(2, [call])  # of one worker it would be this process
    except BrokenProcessPool as error:
        raise WorkerDiedError(f"the process that read it was killed: {_cause(error)}") from error
    return result


def _cause(error: BrokenProcessPool) -> str:
    """Say what may have ended a process, by the signals that loky names."""
    signals = re.findall(r"SIG[A-Z]+", str(error))
    # The pool ends its other processes itself, by SIGTERM or SIGKILL.
    known = sorted((name for name in signals if name in _DEATHS), key=lambda name: name == "SIGKILL")
    return f"{_DEATHS[known[0]]} ({known[0]})" if known else "out of memory, or a fault in a codec"


def _made(calls: Sequence[Any], num_jobs: int, return_as: str, *, isolate: bool) -> Iterator[Any]:
    """Make calls side by side; with ``isolate`` in other processes even if they are one at a time."""
    one_at_a_time: dict[str, Any] = {}
    if isolate and joblib.effective_n_jobs(num_jobs) == 1:
        # joblib takes this process for one job; of two, the second has nothing to do with one call at a time.
        num_jobs, one_at_a_time = 2, {"pre_dispatch": 1, "batch_size": 1}
    results: Iterator[Any] = parallel(num_jobs, calls, return_as=return_as, **one_at_a_time)
    return results


def in_processes(
    calls: Sequence[Any], *, num_workers: int, backend: Backend = "loky", isolate: bool = False
) -> Iterator[Any]:
    """Make calls in other processes (in this one, if one is enough) and yield what they return as it comes.

    Args:
        calls: Made by ``joblib.delayed``.
        num_workers: Concurrent processes; -1 for as many as there are processors.
        backend: ``loky`` or ``ray``.
        isolate: Use another process even if one is enough.

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
        yield from _made(calls, num_jobs, "generator_unordered", isolate=isolate)
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
