"""Which settings help against an error of the library, whose messages name no config keys.

Beside the path of a sample: `earmark.cli.terminal.report_error` asks here.
"""

from collections.abc import Callable
from typing import Any

__all__ = ["remedy"]


def _keep_more(error: Any) -> str:
    if error.needed_seconds is None:
        return "prepare with prepare.around=null"
    return f"prepare with prepare.around_seconds={error.needed_seconds:g} or more, or make clip, gap or sound shorter"


def _make_room(error: Any) -> str:
    return "make room, choose another environment.data_dir, or a smaller prepare.short_side or prepare.quality"


def _gather_anew(error: Any) -> str:
    return "`earmark prepare --verify --repair` makes it anew"


def _need_less(error: Any) -> str:
    if error.num_fitting:
        factor = -(-error.num_samples // error.num_fitting)
        return f"divide optim.batch_size or multiply optim.accumulate by {factor}, or try model.recompute=true"
    return "a smaller optim.batch_size, a larger optim.accumulate or model.recompute=true needs less"


def _choose_cuts(error: Any) -> str:
    return "data.args.layout=segments or data.args.layout=action_segments chooses"


# By the names of the classes: importing them here would load the library for commands that need none of it.
REMEDIES: dict[str, Callable[[Any], str]] = {
    "AmbiguousLayoutError": _choose_cuts,
    "SparseStoreError": _keep_more,
    "DiskSpaceError": _make_room,
    "BatchMemoryError": _need_less,
    "DamagedTablesError": _gather_anew,
}


def remedy(error: Exception) -> str | None:
    """Return which settings help against an error, or None if nothing is known.

    Args:
        error: Of the library; its attributes hold the facts.

    Example:
        >>> remedy(ValueError("a.mp4: no sound")) is None
        True
    """
    known = REMEDIES.get(type(error).__name__)
    return None if known is None else known(error)
