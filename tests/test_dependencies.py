"""The libraries that Earmark needs are said once, in pyproject.toml; whatever else lists them says the same."""

import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMES_WITH_TORCH = {"torch", "lightning-fabric", "tensorboard"}


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~;\s]", requirement)[0]


@pytest.fixture(scope="module")
def legs() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("matrix", ROOT / ".ci" / "matrix.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["matrix"] = module  # where its dataclass looks for its annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules["matrix"]


def test_each_library_stands_once_for_each_python_with_a_lower_bound() -> None:
    keys = [(name_of(text), text.partition(";")[2].strip()) for text in PROJECT["dependencies"]]
    assert len(set(keys)) == len(keys)
    for text in PROJECT["dependencies"]:
        assert re.fullmatch(r"[\w-]+>=[\d.]+(,!=[\d.]+)*(; python_version >= '3\.1\d')?", text), text


def test_every_version_that_is_left_out_has_a_reason_beside_it() -> None:
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        if re.match(r'\s+"[\w\[\]-]+[^"#]*(<|!=)', line):
            assert re.search(r"#.*\b(break|fail|removed|lacks|otherwise)", line), line


def test_every_python_that_is_named_has_its_legs(legs: ModuleType) -> None:
    prefix = "Programming Language :: Python :: 3."
    assert {f"3.{name.removeprefix(prefix)}" for name in PROJECT["classifiers"] if name.startswith(prefix)} == set(
        legs.PYTHONS
    )
    assert PROJECT["requires-python"] == f">={legs.PYTHONS[0]}"


def test_the_oldest_leg_takes_the_bounds_of_its_python(legs: ModuleType) -> None:
    for python, numpy in (("3.11", "==1.26"), ("3.12", "==1.26"), ("3.13", "==2.1.2")):
        oldest = legs.requirements(python, "oldest", with_torch=True)
        assert oldest["numpy"] == numpy
        assert oldest["scipy"] == ("==1.14.1" if python == "3.13" else "==1.12")
        assert oldest.keys() == {name_of(text) for text in PROJECT["dependencies"]}
    assert legs.requirements("3.13", "newest", with_torch=True)["numpy"] == ">=2.1.2"
    assert not COMES_WITH_TORCH & legs.requirements("3.11", "oldest", with_torch=False).keys()


def test_the_list_without_torch_is_that_of_the_package() -> None:
    lines = (ROOT / "requirements-without-torch.txt").read_text().splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert listed == [text for text in PROJECT["dependencies"] if name_of(text) not in COMES_WITH_TORCH]


def test_the_conda_environment_installs_this_package_under_a_python_that_it_takes() -> None:
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert content["name"] == PROJECT["name"]
    *conda, last = content["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert last == {"pip": ["--constraint constraints.txt", "--editable ."]}
    assert (ROOT / "constraints.txt").is_file()
