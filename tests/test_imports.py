"""Who may import whom: packages reach back along the path of a sample, never forward, and nothing goes in a circle."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCE = ROOT / "src" / "earmark"
# Each package may import those before it; `docs/DESIGN.md` says what each is for.
ORDER = [
    "lazy",
    "atomic",
    "json_text",
    "wording",
    "console",
    "worker_processes",
    "media",
    "datasets",
    "kitchen",
    "moments",
    "preparation",
    "clips",
    "encoders",
    "methods",
    "training",
    "evaluation",
    "cli",
]
WITHOUT_TORCH = ("atomic", "media", "datasets", "kitchen", "moments", "preparation")
COMMAND_LINE_ONLY = {"hydra", "omegaconf", "antlr4", "argparse"}


def _name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def _imports(path: Path) -> Iterator[tuple[str, str, ast.stmt, bool]]:
    """Yield (module, name or '', statement, whether it runs when the module is imported)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    deferred = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                yield node.module or "", alias.name, node, node not in deferred
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "", node, node not in deferred


def _own(module: str, name: str) -> str | None:
    """Return the module of this package that an import is of, without ``earmark.``; None for another library's."""
    if module != "earmark" and not module.startswith("earmark."):
        return None
    inner = module.removeprefix("earmark").removeprefix(".")
    longer = f"{inner}.{name}".removeprefix(".")
    return longer if longer in FILES else inner or None  # None: the version, which the package itself holds


def _package(module: str) -> str:
    return module.split(".")[0]


CHECKED = [name for name in FILES if _package(name) not in ("", "__main__")]


def test_every_file_lies_in_a_package_of_the_plan() -> None:
    assert {_package(name) for name in CHECKED} == set(ORDER)


@pytest.mark.parametrize("name", CHECKED)
def test_a_file_imports_only_packages_before_its_own(name: str) -> None:
    allowed = set(ORDER[: ORDER.index(_package(name)) + 1])
    for module, imported, statement, _ in _imports(FILES[name]):
        own = _own(module, imported)
        if own:
            assert _package(own) in allowed, f"{name}, line {statement.lineno}: reaches forward to {own}"


@pytest.mark.parametrize("name", CHECKED)
def test_a_file_leaves_the_underscore_names_of_other_packages_alone(name: str) -> None:
    for module, imported, statement, _ in _imports(FILES[name]):
        own = _own(module, imported)
        if own and _package(own) != _package(name):
            hidden = [part for part in [*own.split("."), imported] if part.startswith("_") and not part.endswith("__")]
            assert not hidden, f"{name}, line {statement.lineno}: {hidden[0]} of {own}"


@pytest.mark.parametrize("name", [name for name in CHECKED if _package(name) != "cli"])
def test_only_the_command_line_knows_of_hydra(name: str) -> None:
    used = {module.split(".")[0] for module, *_ in _imports(FILES[name])}
    assert not used & COMMAND_LINE_ONLY


@pytest.mark.parametrize("name", [name for name in CHECKED if _package(name) == "evaluation"])
def test_evaluation_does_without_the_training_loop(name: str) -> None:
    used = {_own(module, imported) for module, imported, *_ in _imports(FILES[name])}
    assert not {own for own in used if own and _package(own) == "training"}


@pytest.mark.parametrize("name", [name for name in CHECKED if _package(name) in WITHOUT_TORCH])
def test_finding_moments_and_preparing_need_no_torch(name: str) -> None:
    at_import = {module.split(".")[0] for module, _, _, runs in _imports(FILES[name]) if runs}
    assert not at_import & {"torch", "lightning_fabric", "torchvision"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions count too: they hide a circle, they don't open it."""
    needs = {
        name: {own for module, imported, *_ in _imports(FILES[name]) if (own := _own(module, imported)) and own != name}
        for name in CHECKED
    }
    # A package's __init__ names what its own modules hold; a module that asks it for a sibling would be in a circle.
    done: set[str] = set()
    while True:
        ready = {name for name in CHECKED if name not in done and needs[name] & set(CHECKED) <= done}
        if not ready:
            break
        done |= ready
    assert sorted(set(CHECKED) - done) == []


@pytest.mark.parametrize("package", [name for name in ORDER if (SOURCE / name).is_dir()])
def test_a_package_names_what_others_may_use(package: str) -> None:
    tree = ast.parse((SOURCE / package / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    targets = [node.targets[0] for node in tree.body if isinstance(node, ast.Assign)]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    lists = [target for target in targets if ast.unparse(target) == "__all__"]
    assert lists, f"earmark.{package} has no __all__"


def test_no_test_file_imports_another() -> None:
    """Nor do the scripts that tests write for other processes."""
    importing = re.compile(r"(from|import) tests\.([a-z_]+\.)*test_")
    for path in sorted((ROOT / "tests").rglob("*.py")):
        found = importing.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.relative_to(ROOT)}: {found}; put what is shared into tests/helpers"
