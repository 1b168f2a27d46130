"""Environment variables that torch reads as it is loaded, set to what suits training beside other work.

Beside the path of a sample: `earmark.cli.main` calls this before anything imports torch. A variable that the user has
set stays as it is, and processes that are started inherit them all.
"""

from collections.abc import MutableMapping

__all__ = ["set_torch_environment"]

WAITING = frozenset({"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"})


def set_torch_environment(environ: MutableMapping[str, str]) -> None:
    """Have the threads of OpenMP wait for one another asleep, and torch ask for huge pages.

    By default the threads spin for milliseconds: on a busy machine, while the thread that they wait for has no core, so
    that training slows by far more than its share of the machine (`benchmarks/busy.py`). It is not changed where the
    user has said how they wait.

    On the CPU each step of training gives its large tensors back to the system and is given new ones, one page of 4 KiB
    at a time, each cleared by the system at its first use. In pages of 2 MiB a step takes about a fifth less time
    (`benchmarks/train_step.py`). torch asks for them for tensors of 2 MiB and more, where the system gives them on
    request, as Linux does by default.

    Args:
        environ: The variables of the process.

    Example:
        >>> variables = {"OMP_WAIT_POLICY": "active"}
        >>> set_torch_environment(variables)
        >>> sorted(variables.items())
        [('OMP_WAIT_POLICY', 'active'), ('THP_MEM_ALLOC_ENABLE', '1')]
    """
    if not WAITING & environ.keys():
        environ["OMP_WAIT_POLICY"] = "passive"
        environ["GOMP_SPINCOUNT"] = "1000"  # rounds of a loop, some microseconds, against 300,000 by default
    environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
