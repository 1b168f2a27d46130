"""Worker processes that end with the process they work for, however that ends.

Beside the path of a sample: kitchens, moments and prepared videos are made in several processes through joblib. A
parent that is killed cannot stop its workers, and theirs is the work of hours; so each watches for its parent.
"""

import contextlib
import functools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor

__all__ = ["parallel"]

WATCH_SECONDS = 0.5

_watching = threading.Lock()  # held from the first call on


def parallel(num_workers: int, calls: Iterable[Any], **options: Any) -> Any:
    """Make calls in worker processes (in this one, if one is enough), which end as soon as this process is gone.

    A worker asks twice a second, from its start on, who its parent is. (Linux can send a signal instead, but does so
    when the *thread* ends that started the worker, which in joblib's pool is not the one that lives as long as the
    process.) What it was writing stays under its temporary name (`earmark.atomic`), and the next start of the command
    removes it.

    Workers make the calls in the folder in which this process is: joblib keeps them, and a program may have gone to
    another folder since they were started, to which relative paths would lead.

    Args:
        num_workers: Concurrent processes; -1 for one per processor.
        calls: Made by ``joblib.delayed``.
        **options: Of `joblib.Parallel`.

    Returns:
        What `joblib.Parallel` returns for its ``return_as``: a list, unless told otherwise.

    Example:
        >>> import joblib
        >>> parallel(1, [joblib.delayed(abs)(-2)])
        [2]
    """
    folder = None
    with contextlib.suppress(FileNotFoundError):  # it was removed, and no relative path leads anywhere
        folder = str(Path.cwd())
    own = os.getpid()
    if multiprocessing.parent_process() is not None:
        _end_workers_with_process(own)
    pool = joblib.Parallel(num_workers, initializer=_watch, initargs=(own,), **options)
    return pool(joblib.delayed(_called_in)(own, folder, function, *given, **named) for function, given, named in calls)


@functools.cache  # by process: a fork inherits neither workers nor what is to be done at its end
def _end_workers_with_process(_: int) -> None:
    """Have the workers ended when this process ends, which is one that multiprocessing started.

    Such a process waits for its children before it does what is registered with `atexit`, where joblib ends them; and
    they wait five minutes for more work.
    """
    Finalize(None, lambda: get_reusable_executor(reuse=True).shutdown(kill_workers=True), exitpriority=1)


def _called_in(own: int, folder: str | None, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    if folder is not None and os.getpid() != own:  # the program itself goes where it wants, in each of its threads
        os.chdir(folder)
    return function(*arguments, **keywords)


def _watch(parent_pid: int) -> None:
    """Have this worker process end when its parent does."""
    if os.name == "posix" and os.getpid() != parent_pid and _watching.acquire(blocking=False):
        threading.Thread(target=_end_with, args=[parent_pid], name="watch parent", daemon=True).start()


def _end_with(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(WATCH_SECONDS)
    os._exit(1)  # nobody is left to hand a result to, or to tell
