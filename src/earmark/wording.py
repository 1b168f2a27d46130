"""Numbers in sentences, for messages of all parts.

Beside the path of a sample.
"""

__all__ = ["counted"]


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
