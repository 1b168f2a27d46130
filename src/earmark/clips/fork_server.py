"""The server that loader processes are forked from, with its socket where nothing is left of it.

Beside the path of a sample: `earmark.clips.ring` starts it before its first worker.
"""

import os
import shutil
import tempfile
from functools import cache
from multiprocessing import forkserver
from multiprocessing.util import Finalize

from earmark.atomic import make_scratch_folder

__all__ = ["ensure_fork_server"]

MAX_FOLDER_BYTES = 74  # a socket's path has at most 107, and multiprocessing appends 32


def ensure_fork_server() -> None:
    """Start the server, unless it runs.

    multiprocessing keeps its socket in a folder ``pymp-*`` below the one for temporary files, and removes that as the
    process ends, but not where the process is killed. Here that folder lies in one that names the process, and which
    the next process that loads samples removes where that one has ended (`earmark.atomic.make_scratch_folder`). Where
    multiprocessing had a folder already, or the path would be too long for a socket, it is as it is without this.

    Example:
        >>> ensure_fork_server()
    """
    _place_socket(os.getpid())
    forkserver.ensure_running()


@cache
def _place_socket(pid: int) -> None:
    """Start the server of a process with its socket in a scratch folder that lasts until the process ends."""
    folder = make_scratch_folder()
    before = tempfile.tempdir
    try:
        if len(os.fsencode(folder)) <= MAX_FOLDER_BYTES:
            tempfile.tempdir = str(folder)
            forkserver.ensure_running()
    finally:
        tempfile.tempdir = before
        if any(folder.iterdir()):  # removed after multiprocessing has removed its own, whose priority is -100
            Finalize(None, shutil.rmtree, args=(folder,), kwargs={"ignore_errors": True}, exitpriority=-101)
        else:
            folder.rmdir()
