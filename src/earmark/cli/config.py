"""The configuration: composed by Hydra from `earmark.cli.configs`, checked, given to commands as typed values.

Beside the path of a sample: only the command line reads it; nothing below sees a configuration.

A mistyped key or value is refused with its full name and the near matches, before anything starts and for every job of
a sweep. `earmark.cli.config_schema` says what each may be; the yaml files hold the defaults.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from earmark.cli.config_code import code_in
from earmark.cli.config_contradictions import contradictions
from earmark.cli.config_fit import unfitting
from earmark.cli.config_probe import with_probe_defaults
from earmark.cli.config_schema import EvaluateConfig, PretrainConfig
from earmark.cli.config_values import ConfigError, convert, near_matches, not_one_of

__all__ = [
    "ConfigError",
    "EvaluateConfig",
    "PretrainConfig",
    "checked",
    "checked_sweep",
    "compose",
    "path_value",
    "quoted",
    "quoted_where_needed",
    "unfitting",
]

CONFIG_PACKAGE = "earmark.cli.configs"
SWEEP_NEEDED = (
    "{key}: several values need a sweep (-m); a comma that is part of the value needs quotes: \"{key}='a,b'\""
)


Schema = TypeVar("Schema")


def checked(schema: type[Schema], values: Mapping[str, Any], *, section: str = "", cuts_clips: bool = True) -> Schema:
    """Turn composed values into a typed configuration.

    Args:
        schema: What they must be.
        values: Plain nested values, interpolations resolved.
        section: Their place in the whole configuration, such as ``backbone.video``, for the names of keys.
        cuts_clips: Whether clips are cut from the prepared videos, which must fit them then (`unfitting`); preparing
            alone makes videos for clips of other settings, too.

    Raises:
        ConfigError: Naming every unknown key, missing key, value of the wrong type and value out of range.

    Example:
        >>> checked(PretrainConfig, compose("default_ssrl", ["optim.epochs=3"])).optim.epochs
        3
    """
    problems: list[str] = []
    config = convert(schema, values, section=section, problems=problems)
    if not problems and isinstance(config, PretrainConfig | EvaluateConfig):
        problems = contradictions(config) + (unfitting(config) if cuts_clips else [])
    if problems:
        raise ConfigError("\n".join(problems))
    assert isinstance(config, schema)
    return config


def compose(config_name: str, overrides: Sequence[str], *, config_dir: Path | None = None) -> dict[str, Any]:
    """Compose a configuration as Hydra does, without running anything.

    Args:
        config_name: Such as ``default_ssrl``.
        overrides: As on Hydra's command line, without sweeps.
        config_dir: A further folder of configurations.

    Returns:
        Plain nested values, interpolations resolved.

    Raises:
        ConfigError: If an override names an unknown key, group or choice, or cannot be read.

    Example:
        >>> compose("default_lincls", ["data=folder"])["data"]["name"]
        'folder'
    """
    overrides = quoted_where_needed(overrides)
    with _hydra_at(config_dir):
        parsed = _parse(overrides)
        swept = [override.key_or_group for override in parsed if override.is_sweep_override()]
        if swept:
            raise ConfigError("\n".join(SWEEP_NEEDED.format(key=key) for key in swept))
        _check_choices(config_name, parsed)
        return _composed(config_name, overrides, parsed)


def quoted_where_needed(overrides: Sequence[str]) -> list[str]:
    """Put quotes around values that Hydra's grammar cannot read as they are, such as a path with an umlaut.

    What it can read keeps its meaning: ``a,b`` is two values of a sweep, ``[18,24]`` a list.

    Args:
        overrides: As typed on the command line.

    Example:
        >>> quoted_where_needed(["optim.epochs=3", "data.args.base_path=~/Küche", "data.args.base_path=a=b"])
        ['optim.epochs=3', "data.args.base_path='~/Küche'", "data.args.base_path='a=b'"]
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    readable = []
    for text in overrides:
        key, equals, value = text.partition("=")
        try:
            parser.parse_override(text)
        except HydraException:
            if key and equals and value[:1] not in ("'", '"', "[", "{", "$", "") and not value.endswith("\\"):
                text = f"{key}={quoted(value)}"
        readable.append(text)
    return readable


def path_value(path: Path) -> str:
    """Return a path as the value of an override, in quotes if it has more than the plainest characters.

    Example:
        >>> path_value(Path("data/kitchen")), path_value(Path("my data"))
        ('data/kitchen', "'my data'")
    """
    return str(path) if re.fullmatch(r"[\w./-]+", str(path), re.ASCII) else quoted(str(path))


def quoted(value: str) -> str:
    r"""Return a text in the quotes of Hydra's grammar.

    Example:
        >>> quoted("it's")
        "'it\\'s'"
    """
    return "'" + value.replace("'", "\\'") + "'"


def checked_sweep(
    schema: type[Schema], config_name: str, overrides: Sequence[str], *, config_dir: Path | None = None
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Check a command line, every value of a sweep included.

    Args:
        schema: What the configuration must be.
        config_name: Such as ``default_ssrl``.
        overrides: As on Hydra's command line.
        config_dir: A further folder of configurations.

    Returns:
        The keys and groups that are given several values, and the composed values of the first job (of the only one
        where nothing is swept over).

    Raises:
        ConfigError: As `compose` and `checked`.

    Example:
        >>> keys, first = checked_sweep(PretrainConfig, "default_ssrl", ["optim.args.lr=0.1,0.01", "optim.epochs=2"])
        >>> keys, first["optim"]["args"]["lr"]
        (('optim.args.lr',), 0.1)
    """
    overrides = quoted_where_needed(overrides)
    with _hydra_at(config_dir):
        parsed = _parse(overrides)
        _check_choices(config_name, parsed)
        known = _known_before(parsed)
        if len(known) < len(parsed) and (problems := _unknown_keys(config_name, parsed)):
            raise ConfigError("\n".join(problems))
        jobs = []
        for lines in _variants([_choices(override) for override in known]):
            jobs.append(_composed(config_name, lines, parsed))
            checked(schema, jobs[-1])
        return tuple(override.key_or_group for override in parsed if override.is_sweep_override()), jobs[0]


# --- composing ---


@contextmanager
def _hydra_at(config_dir: Path | None) -> Iterator[None]:
    """Have Hydra search a further folder of configurations, if any, and then the package's, as hydra.main does."""
    from hydra import version
    from hydra._internal.hydra import Hydra  # hydra.initialize knows one place only
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra
    from yaml import YAMLError

    version.setbase("1.3")
    search_path = create_config_search_path(f"pkg://{CONFIG_PACKAGE}")
    if config_dir is not None:
        if not config_dir.is_dir():
            raise ConfigError(f"{config_dir}: no such folder of configurations")
        search_path.prepend("command-line", f"file://{config_dir.resolve()}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    Hydra.create_main_hydra2(task_name="earmark", config_search_path=search_path)
    try:
        yield
    except YAMLError as error:  # its message names the file and the line
        raise ConfigError(str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{_first_undecodable(config_dir)}: not text in UTF-8 ({error.reason})") from error
    except RecursionError as error:
        raise ConfigError(f"{config_dir or 'the overrides'}: a value is nested too deeply, or within itself") from error
    except ConfigError:
        raise
    except ValueError as error:  # of a number with thousands of digits, say
        raise ConfigError(f"{config_dir or 'the overrides'}: {error}") from error
    finally:
        GlobalHydra.instance().clear()


def _first_undecodable(config_dir: Path | None) -> Path | str:
    """Return which file of a folder is not text; the decoder does not say which one it was reading."""
    for path in sorted(config_dir.rglob("*.yaml")) if config_dir else ():
        try:
            path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            return path
    return config_dir or "the overrides"


def _parse(overrides: Sequence[str]) -> list[Any]:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(config_loader=loader)
    parsed = []
    for text in overrides:
        if text.startswith("="):
            raise ConfigError(f"{text!r} is not an override KEY=VALUE (the key is missing)")
        try:
            override = parser.parse_override(text)
            override.config_loader = loader  # a sweep over glob(...) looks up the choices
            parsed.append(override)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{text!r} is not an override KEY=VALUE ({reason})") from error
    return parsed


def _check_choices(config_name: str, parsed: Sequence[Any]) -> None:
    """Refuse unknown names of configurations and unknown choices of groups."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    loader = GlobalHydra.instance().config_loader()
    names = loader.get_group_options("", ObjectType.CONFIG)
    if config_name.removesuffix(".yaml") not in names:
        shipped = [name for name in names if name.startswith("default_")]
        raise ConfigError(f"--config-name: {not_one_of(config_name, shipped)}")
    problems = []
    for override in parsed:
        key = override.key_or_group
        if override.is_hydra_override() and "/" in key and isinstance(override.value(), bool | int | float | dict):
            problems.append(f"{key}: {override.value()!r} is not the name of a configuration")
        options = [] if override.is_hydra_override() else loader.get_group_options(key)
        if not options or override.is_delete():
            continue
        choices = [line.partition("=")[2] for line in _choices(override)]
        problems += [f"{key}: {not_one_of(choice, options)}" for choice in choices if choice not in options]
    if problems:
        raise ConfigError("\n".join(problems))


def _unknown_keys(config_name: str, parsed: Sequence[Any]) -> list[str]:
    """Return the keys of a command line that the configuration does not have, one line per key with near matches.

    Args:
        config_name: Such as ``default_ssrl``.
        parsed: All overrides of the command line; their choices of groups are known.
    """
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    values: list[Any] = []
    chosen: list[Any] = []
    for override in parsed:
        if not override.is_hydra_override():
            (chosen if loader.get_group_options(override.key_or_group) else values).append(override)
    keys = _keys_of_values(_composed(config_name, [_choices(override)[0] for override in chosen], resolve=False))
    sections = [key for key in keys if any(other.startswith(f"{key}.") for other in keys)]
    groups = [group for section in sections if loader.get_group_options(group := section.replace(".", "/"))]
    known = [key for key in keys if key not in sections] + groups
    unknown = [override.key_or_group for override in values if override.key_or_group not in keys]
    return [f"{key}: no such key{near_matches(key, known)}" for key in unknown]


def _known_before(parsed: Sequence[Any]) -> list[Any]:
    """Leave out what is known only inside a job: what depends on it (${hydra:job.num}), or a sweeper draws.

    Each job checks its own configuration again.
    """
    return [
        override
        for override in parsed
        if "${hydra:" not in str(override.input_line) and not override.is_interval_sweep()
    ]


def _choices(override: Any) -> list[str]:
    """Return the overrides that a job may get from one of the command line: several for a sweep."""
    if override.is_discrete_sweep():
        return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    return [override.input_line]


def _variants(choices: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Yield override lists that together hold every choice: one by one, not every combination."""
    yield [lines[0] for lines in choices]
    for position, lines in enumerate(choices):
        for line in lines[1:]:
            yield [line if other == position else others[0] for other, others in enumerate(choices)]


def _composed(
    config_name: str, overrides: Sequence[str], parsed: Sequence[Any] = (), *, resolve: bool = True
) -> dict[str, Any]:
    """Compose a configuration.

    Args:
        config_name: Such as ``default_ssrl``.
        overrides: What to compose it with.
        parsed: The command line that they are from: where Hydra refuses it, its unknown keys are named.
        resolve: Replace interpolations by their values.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf, flag_override
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = hydra.compose(config_name, list(overrides), return_hydra_config=True)
        problems = list(code_in(OmegaConf.to_container(config["hydra"], resolve=False)))  # type: ignore[arg-type]
        with flag_override(config, ["struct", "readonly"], False):
            del config["hydra"]
        values = OmegaConf.to_container(config, resolve=resolve)
    except (HydraException, OmegaConfBaseException) as error:
        causes = dict.fromkeys(str(part) for part in (error, error.__cause__) if part)
        unknown = _unknown_keys(config_name, parsed) if parsed else []
        raise ConfigError("\n".join(unknown or causes)) from error
    if problems:
        raise ConfigError("\n".join(problems))
    assert isinstance(values, dict)
    plain = {str(key): value for key, value in values.items()}
    return with_probe_defaults(plain) if resolve else plain


def _keys_of_values(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for name, value in values.items():
        keys.append(prefix + name)
        if isinstance(value, Mapping):
            keys += _keys_of_values(value, f"{prefix}{name}.")
    return keys
