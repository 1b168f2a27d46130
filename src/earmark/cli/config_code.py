"""Configurations are data: what in Hydra's own part of one would have code run is refused before Hydra starts.

Beside the path of a sample; part of `earmark.cli.config`. Hydra calls whatever ``hydra.callbacks.*._target_`` names,
and `logging.config` whatever a handler's ``class`` or ``()`` does. Hydra blocks well-known targets (``os.system``), not
all that do harm (``os.mkdir``), so here only those that are known to be harmless are let through.
"""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["code_in"]

PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.")  # what is installed as a plugin of Hydra
LOGGING_CLASSES = (
    *("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter"),
    *("logging.handlers.RotatingFileHandler", "logging.handlers.TimedRotatingFileHandler", "colorlog.ColoredFormatter"),
)


def code_in(hydra: Mapping[str, Any]) -> Iterator[str]:
    """Yield, with its key, each thing in Hydra's part of a configuration that would have code run.

    Args:
        hydra: What is below ``hydra``, as plain nested values, interpolations not resolved.

    Example:
        >>> list(code_in({"callbacks": {"a": {"_target_": "os.mkdir", "path": "b"}}}))
        ['hydra.callbacks.a: a configuration of Earmark is data, it calls nothing']
        >>> list(code_in({"launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}}))
        []
    """
    callbacks = hydra.get("callbacks") or {}
    for name in callbacks if isinstance(callbacks, Mapping) else ("",):
        yield f"hydra.callbacks.{name}: a configuration of Earmark is data, it calls nothing".replace(".:", ":")
    for plugin in ("launcher", "sweeper"):
        yield from _targets_in(hydra.get(plugin), f"hydra.{plugin}")
    for name in ("job_logging", "hydra_logging"):
        section = hydra.get(name)
        if section is not None:
            yield from _classes_in(section, f"hydra.{name}")


def _targets_in(node: Any, key: str) -> Iterator[str]:
    """Yield the targets that are no plugin's; a section that is an interpolation could hold any."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target is not None and not str(target).startswith(PLUGINS):
            yield f"{key}._target_: {target!r} is not an installed plugin of Hydra"
        for name, child in node.items():
            yield from _targets_in(child, f"{key}.{name}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _targets_in(child, f"{key}[{number}]")
    elif isinstance(node, str) and node.startswith("${") and key.count(".") == 1:
        yield f"{key}: must be written out, not {node!r}"


def _classes_in(section: Any, key: str) -> Iterator[str]:
    """Yield what a logging configuration would have called, but for the usual handlers and formatters."""
    if not isinstance(section, Mapping):
        yield f"{key}: must be written out, not {section!r}"
        return
    for kind in ("handlers", "formatters", "filters"):
        parts = section.get(kind) or {}
        for name, part in parts.items() if isinstance(parts, Mapping) else [("", parts)]:
            place = f"{key}.{kind}.{name}".rstrip(".")
            if not isinstance(part, Mapping):
                yield f"{place}: must be written out, not {part!r}"
                continue
            for word in ("class", "()"):
                if word in part and part[word] not in LOGGING_CLASSES:
                    yield f"{place}.{word}: {part[word]!r} is not one of {', '.join(LOGGING_CLASSES)}"
