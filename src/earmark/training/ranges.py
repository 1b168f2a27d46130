"""Ranges of settings: every number that is out of range, named in one message."""

from collections.abc import Mapping

__all__ = ["require_in_range"]


def require_in_range(
    *,
    at_least_1: Mapping[str, int | None] | None = None,
    at_least_0: Mapping[str, int] | None = None,
    above_0: Mapping[str, float | None] | None = None,
) -> None:
    """Refuse numbers that are out of range; None stands for a setting that is off.

    Args:
        at_least_1: Numbers by name.
        at_least_0: Numbers by name.
        above_0: Numbers by name; NaN is refused.

    Raises:
        ValueError: If any is out of range; all of them are named.

    Example:
        >>> require_in_range(at_least_1={"epochs": 0, "max_steps": None}, above_0={"max_gradient_norm": -1.0})
        Traceback (most recent call last):
        ...
        ValueError: epochs must be at least 1, got 0; max_gradient_norm must be above 0, got -1.0
    """
    wrong = [f"{name} must be at least 1, got {x}" for name, x in (at_least_1 or {}).items() if x is not None and x < 1]
    wrong += [f"{name} must be at least 0, got {x}" for name, x in (at_least_0 or {}).items() if x < 0]
    wrong += [f"{name} must be above 0, got {x}" for name, x in (above_0 or {}).items() if x is not None and not x > 0]
    if wrong:
        raise ValueError("; ".join(wrong))
