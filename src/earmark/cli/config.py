"""The configuration: composed by Hydra from `earmark.cli.configs`, checked here, given to commands as typed values.

Beside the path of a sample: only the command line reads it; nothing below sees a configuration.

A mistyped key or value is refused with its full name and the near matches, before anything starts and for every job of
a sweep. `earmark.cli.config_schema` says what each may be; the yaml files hold the defaults.
"""

import difflib
import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from earmark.cli.checks import unused_by_criterion
from earmark.cli.config_fit import unfitting
from earmark.cli.config_schema import Environment, EvaluateConfig, Prepare, PretrainAugm, PretrainConfig
from earmark.wording import counted

__all__ = [
    "ConfigError",
    "EvaluateConfig",
    "PretrainConfig",
    "checked",
    "compose",
    "quoted",
    "quoted_where_needed",
    "swept_keys",
    "unfitting",
    "values_of_first",
]

CONFIG_PACKAGE = "earmark.cli.configs"
DETECTOR_OPTIONS = {  # those of earmark.moments, which is slow to import
    "earmark": ("min_score", "min_distance_seconds"),
    "replai": ("min_prominence", "min_distance"),
}
PREPARE_CHOICES = {"earmark": "default", "replai": "replai"}  # of the group prepare, by the detector that it chooses
SWEEP_NEEDED = (
    "{key}: several values need a sweep (-m); a comma that is part of the value needs quotes: \"{key}='a,b'\""
)


class ConfigError(ValueError):
    """The configuration is not as it should be; one line a problem, each with the full name of its key."""


Schema = TypeVar("Schema")


def checked(schema: type[Schema], values: Mapping[str, Any], *, section: str = "", cuts_clips: bool = True) -> Schema:
    """Turn composed values into a typed configuration.

    Args:
        schema: What they must be.
        values: Plain nested values, interpolations resolved.
        section: Where in the whole configuration they stand, such as ``backbone.video``; for the names of keys.
        cuts_clips: Whether clips are cut from the prepared videos, which must fit them then (`unfitting`); preparing
            alone makes videos for clips of other settings, too.

    Raises:
        ConfigError: Naming every unknown key, missing key, value of the wrong type and value out of range.

    Example:
        >>> checked(PretrainConfig, compose("default_ssrl", ["optim.epochs=3"])).optim.epochs
        3
    """
    problems: list[str] = []
    config = _convert(schema, values, section, problems, list(_keys_of_schema(schema)))
    if not problems and isinstance(config, PretrainConfig | EvaluateConfig):
        problems = _contradictions(config) + (unfitting(config) if cuts_clips else [])
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
        _check_overrides(config_name, parsed)
        return _composed(config_name, overrides)


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


def quoted(value: str) -> str:
    r"""Return a text in the quotes of Hydra's grammar.

    Example:
        >>> quoted("it's")
        "'it\\'s'"
    """
    return "'" + value.replace("'", "\\'") + "'"


def swept_keys(
    schema: type[Schema], config_name: str, overrides: Sequence[str], *, config_dir: Path | None = None
) -> tuple[str, ...]:
    """Check a command line, every value of a sweep included, and say what it sweeps over.

    Args:
        schema: What the configuration must be.
        config_name: Such as ``default_ssrl``.
        overrides: As on Hydra's command line.
        config_dir: A further folder of configurations.

    Returns:
        The keys and groups that are given several values.

    Raises:
        ConfigError: As `compose` and `checked`.

    Example:
        >>> swept_keys(PretrainConfig, "default_ssrl", ["optim.args.lr=0.1,0.01", "optim.epochs=2"])
        ('optim.args.lr',)
    """
    overrides = quoted_where_needed(overrides)
    with _hydra_at(config_dir):
        parsed = _parse(overrides)
        _check_overrides(config_name, parsed)
        for lines in _variants([_choices(override) for override in _known_before(parsed)]):
            checked(schema, _composed(config_name, lines))
        return tuple(override.key_or_group for override in parsed if override.is_sweep_override())


def values_of_first(config_name: str, overrides: Sequence[str], *, config_dir: Path | None = None) -> dict[str, Any]:
    """Compose the configuration of the first job of a command line, which may sweep.

    Args:
        config_name: Such as ``default_ssrl``.
        overrides: As on Hydra's command line; checked before, by `swept_keys`.
        config_dir: A further folder of configurations.

    Returns:
        Plain nested values, interpolations resolved.

    Example:
        >>> values_of_first("default_ssrl", ["optim.args.lr=0.1,0.01"])["optim"]["args"]["lr"]
        0.1
    """
    with _hydra_at(config_dir):
        known = _known_before(_parse(quoted_where_needed(overrides)))
        return _composed(config_name, [_choices(override)[0] for override in known])


# --- composing ---


@contextmanager
def _hydra_at(config_dir: Path | None) -> Iterator[None]:
    """Have Hydra search a further folder of configurations, if any, and then the package's, as hydra.main does."""
    from hydra import version
    from hydra._internal.hydra import Hydra  # hydra.initialize knows one place only
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra

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
    finally:
        GlobalHydra.instance().clear()


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


def _check_overrides(config_name: str, parsed: Sequence[Any]) -> None:
    """Refuse unknown configuration names, groups, choices and keys."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    loader = GlobalHydra.instance().config_loader()
    names = loader.get_group_options("", ObjectType.CONFIG)
    if config_name.removesuffix(".yaml") not in names:
        shipped = [name for name in names if name.startswith("default_")]
        raise ConfigError(f"--config-name: {_none_of(config_name, shipped)}")
    problems: list[str] = []
    values, chosen = [], []
    for override in parsed:
        key = override.key_or_group
        if override.is_hydra_override():
            continue
        options = loader.get_group_options(key)
        if not options:
            values.append(override)
            continue
        chosen.append(override)
        for line in _choices(override):
            choice = line.partition("=")[2]
            if not override.is_delete() and choice not in options:
                problems.append(f"{key}: {_none_of(choice, options)}")
    if not problems and values:
        keys = _keys_of_values(_composed(config_name, [_choices(override)[0] for override in chosen], resolve=False))
        unknown = [override.key_or_group for override in values if override.key_or_group not in keys]
        if unknown:
            sections = [key for key in keys if any(other.startswith(f"{key}.") for other in keys)]
            groups = [group for section in sections if loader.get_group_options(group := section.replace(".", "/"))]
            known = [key for key in keys if key not in sections] + groups
            problems = [f"{key}: no such key{_near(key, known)}" for key in unknown]
    if problems:
        raise ConfigError("\n".join(problems))


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


def _composed(config_name: str, overrides: Sequence[str], *, resolve: bool = True) -> dict[str, Any]:
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = hydra.compose(config_name, list(overrides))
        values = OmegaConf.to_container(config, resolve=resolve)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError("\n".join(dict.fromkeys(str(part) for part in (error, error.__cause__) if part))) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


# --- checking ---


def _convert(kind: Any, value: Any, key: str, problems: list[str], keys: Sequence[str]) -> Any:
    """Return a value as its type wants it, or add what is wrong with it to the problems."""
    rules: tuple[Any, ...] = ()
    if get_origin(kind) is Annotated:
        kind, *rules = get_args(kind)  # type: ignore[assignment]
    if get_origin(kind) in (Union, types.UnionType):  # only X | None occurs
        if value is None:
            return None
        return _convert(next(part for part in get_args(kind) if part is not type(None)), value, key, problems, keys)
    if is_dataclass(kind):
        return _convert_section(kind, value, key, problems, keys)
    if get_origin(kind) is list:
        (item_kind,) = get_args(kind)
        if not isinstance(value, list):
            problems.append(f"{key}: expected a list, got {value!r}")
            return None
        return [_convert(item_kind, item, f"{key}[{index}]", problems, keys) for index, item in enumerate(value)]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            problems.append(f"{key}: {_none_of(value, get_args(kind))}")
        return value
    value, problem = _convert_scalar(kind, value)
    if problem is None:
        problem = next((f"must be {rule.words}, got {value!r}" for rule in rules if not rule.holds(value)), None)
    if problem is not None:
        problems.append(f"{key}: {problem}")
    return value


def _convert_section(kind: Any, value: Any, key: str, problems: list[str], keys: Sequence[str]) -> Any:
    if not isinstance(value, Mapping):
        problems.append(f"{key}: expected a section with the keys {', '.join(kind.__slots__)}, got {value!r}")
        return None
    hints = get_type_hints(kind, include_extras=True)
    prefix = f"{key}." if key else ""
    for name in value:
        if name not in hints:
            problems.append(f"{prefix}{name}: no such key{_near(f'{prefix}{name}', keys)}")
    parts = {}
    for field in fields(kind):
        if field.name in value:
            parts[field.name] = _convert(hints[field.name], value[field.name], prefix + field.name, problems, keys)
        elif field.default is MISSING:
            problems.append(f"{prefix}{field.name}: is missing")
    return None if problems else kind(**parts)


def _convert_scalar(kind: type, value: Any) -> tuple[Any, str | None]:
    """Return the value, and what is wrong with it if something is."""
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)  # logging.name=2024 is a name
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text"}[kind]
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        return value, f"expected {words}, got {value!r}"
    if value == "None":
        return value, "got the text 'None'; nothing is written null"
    if isinstance(value, float) and not math.isfinite(value):
        return value, f"expected a finite number, got {value!r}"
    return value, None


def _contradictions(config: PretrainConfig | EvaluateConfig) -> list[str]:
    """Return what is wrong with values that are right one by one."""
    problems = []
    optim, environment = config.optim, config.environment
    if environment.accelerator == "cuda" and environment.ngpu == 0:
        problems.append("environment.ngpu: must be at least 1 with environment.accelerator=cuda")
    if environment.force_processes is not None and environment.accelerator == "cuda":
        problems.append("environment.force_processes: are processes of the CPU; environment.accelerator=cuda is not")
    problems += _wrong_nodes(environment) + _options_of_another_detector(config.prepare)
    if isinstance(config, EvaluateConfig):
        problems += _unused_by_probe(config)
    else:
        problems += _wrong_crop(config.data_augm)
        if config.criterion.name == "supervised" and config.data.split == "all":
            problems.append("data.split: criterion=supervised needs one split, whose annotated actions it learns from")
        if config.criterion.name == "simclr_video" and config.data_augm.shared_crop:
            problems.append("data_augm.shared_crop: must be false with criterion=simclr_video, of two crops")
        problems += unused_by_criterion(config)
        if environment.force and not environment.resume:
            problems.append("environment.force: goes on with a run, which environment.resume=false refuses; give one")
        if config.model.fused_optimizer and optim.max_gradient_norm is not None and environment.precision == "16-mixed":
            problems.append(
                "optim.max_gradient_norm: needs model.fused_optimizer=false with environment.precision=16-mixed: the "
                "fused update undoes the scale of gradients too late for clipping"
            )
    if optim.use_lr_scheduler and optim.schedule:
        problems.append("optim.schedule: is for optim.use_lr_scheduler=false; give one or the other")
    total_steps = optim.lr_scheduler_args.total_steps
    if optim.use_lr_scheduler and total_steps is not None and total_steps < optim.epochs:
        problems.append(
            f"optim.lr_scheduler_args.total_steps: {total_steps} is too few for {counted(optim.epochs, 'epoch')}"
        )
    return problems


def _wrong_nodes(environment: Environment) -> list[str]:
    problems = []
    if environment.rank >= environment.world_size:
        problems.append(f"environment.rank: must be below environment.world_size ({environment.world_size})")
    url = environment.dist_url
    if url is not None and not re.fullmatch(r"env://|tcp://[^/:]+:\d+", url):
        problems.append(f"environment.dist_url: must be tcp://HOST:PORT, env:// or null, got {url!r}")
    if environment.world_size > 1 and not environment.slurm and url is None:
        problems.append(
            "environment.dist_url: several nodes need tcp://HOST:PORT of the first, or env:// if torchrun or srun "
            "starts the processes"
        )
    return problems


def _options_of_another_detector(prepare: Prepare) -> list[str]:
    own = " and ".join(f"prepare.{name}" for name in DETECTOR_OPTIONS[prepare.detector])
    return [
        f"prepare.{name}: is an option of the detector {detector} (prepare={PREPARE_CHOICES[detector]}); here it is "
        f"{prepare.detector} (prepare={PREPARE_CHOICES[prepare.detector]}), which has {own}"
        for detector, names in DETECTOR_OPTIONS.items()
        for name in names
        if detector != prepare.detector and getattr(prepare, name) is not None
    ]


def _wrong_crop(augm: PretrainAugm) -> list[str]:
    problems = []
    if augm.max_short_side < augm.min_short_side:
        problems.append(f"data_augm.max_short_side: must be at least min_short_side ({augm.min_short_side})")
    if augm.min_short_side < augm.crop_size:
        problems.append(f"data_augm.min_short_side: must be at least crop_size ({augm.crop_size})")
    return problems


def _unused_by_probe(config: EvaluateConfig) -> list[str]:
    """Return what is asked for in the groups shared with pretraining and would change nothing here."""
    problems = []
    if config.optim.use_lr_scheduler:
        problems.append("optim.use_lr_scheduler: must be false; the probe's learning rate falls at optim.schedule")
    if config.optim.args.nesterov:
        problems.append("optim.args.nesterov: must be false; the probe has plain momentum")
    if config.optim.max_steps is not None:
        problems.append("optim.max_steps: must be null; the probe has optim.epochs")
    for name, plain in (("accumulate", 1), ("max_gradient_norm", None), ("ema_decay", None)):
        if getattr(config.optim, name) != plain:
            problems.append(f"optim.{name}: must be {plain}; it is for pretraining")
    if config.environment.force:
        problems.append("environment.force: must be false; it is for pretraining")
    if config.environment.force_processes not in (None, 1):
        problems.append("environment.force_processes: must be null; evaluation runs in one process")
    if config.environment.precision != "32-true":
        problems.append("environment.precision: must be 32-true; features and probe are computed in float32")
    if config.data.split not in ("train", "all"):
        problems.append("data.split: must be train, where the probe learns; evaluate.split is what it is judged on")
    return problems


def _keys_of_schema(kind: Any, prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from _keys_of_schema(hint, f"{prefix}{name}.")
        else:
            yield prefix + name


def _keys_of_values(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for name, value in values.items():
        keys.append(prefix + name)
        if isinstance(value, Mapping):
            keys += _keys_of_values(value, f"{prefix}{name}.")
    return keys


def _near(text: object, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(str(text), known, n=3)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def _none_of(value: object, known: Sequence[str]) -> str:
    return f"{str(value)!r} is none of {', '.join(known)}{_near(value, known)}"
