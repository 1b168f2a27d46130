"""Worker processes that end with the process they work for, however that ends.

Beside the path of a sample: kitchens, moments and prepared videos are made in several processes through joblib. A
parent that is killed cannot stop its workers, and theirs is the work of hours; so each watches for its parent.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

__all__ = ["EndsWithParent", "ending_with_parent"]

WATCH_SECONDS = 0.5

_watching = threading.Lock()  # held from the first call on


class EndsWithParent:
    """A function that ends the worker process in which it is called as soon as the process that made it is gone.

    Prepared where the calls are handed out; in that process itself it is the plain function. What the worker was
    writing stays under its temporary name (`earmark.atomic`), and the next start of the command removes it.

    The worker works in the folder in which the calls were handed out: joblib keeps workers, and a program may have gone
    to another folder since they were started, to which relative paths would lead.

    The worker asks twice a second who its parent is. (Linux can send a signal instead, but does so when the *thread*
    ends that started the worker, which in joblib's pool is not the one that lives as long as the process.)

    Args:
        function: What to call; it can be pickled, like this.

    Example:
        >>> EndsWithParent(abs)(-2)
        2
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.parent_pid = os.getpid()
        self.folder: str | None = None
        with contextlib.suppress(FileNotFoundError):  # it was removed, and no relative path leads anywhere
            self.folder = str(Path.cwd())

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the function.

        Raises:
            OSError: If the folder in which the calls were handed out is gone.
        """
        if os.getpid() == self.parent_pid:
            return self.function(*arguments, **keywords)
        if self.folder is not None:
            os.chdir(self.folder)
        if os.name == "posix" and _watching.acquire(blocking=False):
            threading.Thread(target=_end_with, args=[self.parent_pid], name="watch parent", daemon=True).start()
        return self.function(*arguments, **keywords)


def ending_with_parent(calls: Iterable[Any]) -> list[Any]:
    """Return calls made by ``joblib.delayed`` such that workers which make them end with this process.

    Example:
        >>> import joblib
        >>> joblib.Parallel(n_jobs=1)(ending_with_parent([joblib.delayed(abs)(-2)]))
        [2]
    """
    return [(EndsWithParent(function), arguments, keywords) for function, arguments, keywords in calls]


def _end_with(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(WATCH_SECONDS)
    os._exit(1)  # nobody is left to hand a result to, or to tell
