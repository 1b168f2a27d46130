"""Names of a package that are fetched from its modules at first use, so that importing the package stays quick.

What needs no torch (`earmark moments`, `prepare`, `runs`) must be able to import a package whose other modules do.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, module_of: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return what a package's ``__getattr__`` and ``__dir__`` are to be (PEP 562).

    Args:
        package: The package's ``__name__``.
        module_of: For each name the module below the package that holds it.

    Example:
        >>> fetch, names = lazy_names("earmark", {"counted": "wording"})
        >>> fetch("counted")(1, "video"), names()
        ('1 video', ['counted'])
    """

    def fetch(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    return fetch, lambda: sorted(module_of)
