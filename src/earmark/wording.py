"""Numbers in sentences, for messages of all parts.

Beside the path of a sample.
"""

from collections.abc import Iterator, Sequence

__all__ = ["at_most", "counted"]


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun, in the singular for one.

    Args:
        number: How many.
        singular: The noun for one of them.
        plural: The noun for several; None adds an s.

    Example:
        >>> counted(1, "video"), counted(2, "video"), counted(0, "clip")
        ('1 video', '2 videos', '0 clips')
        >>> counted(1, "batch", "batches"), counted(3, "batch", "batches")
        ('1 batch', '3 batches')
    """
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def at_most(lines: Sequence[str], number: int) -> Iterator[str]:
    """Yield the first lines, and a last one that counts the others.

    Example:
        >>> list(at_most(["a", "b", "c"], 2)), list(at_most(["a", "b"], 2))
        (['a', 'b', '1 more of this kind'], ['a', 'b'])
    """
    yield from lines[:number]
    if len(lines) > number:
        yield f"{len(lines) - number} more of this kind"
