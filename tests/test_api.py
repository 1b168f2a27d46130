"""The public names: they are what __all__ says, and importing them stays light."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import earmark

PUBLIC = {
    "ActionClips",
    "AudioVisualModel",
    "EpochBatches",
    "LogMel",
    "Moment",
    "MomentClips",
    "PreparedStore",
    "R2Plus1D",
    "SpecCNN9",
    "VideoCrop",
    "__version__",
    "audible_state_change_loss",
    "audio_visual_correspondence_loss",
    "collate",
    "extract_features",
    "find_moments",
    "linear_probe",
    "load_checkpoint",
    "load_encoder",
    "load_features",
    "make_kitchen",
    "moments_of_file",
    "prepare",
    "pretrain",
    "media_info",
    "projection_head",
    "save_encoder",
    "write_report",
}


def test_the_public_names_are_these_and_all_are_there() -> None:
    assert set(earmark.__all__) == PUBLIC
    pytest.importorskip("torch")
    for name in PUBLIC:
        assert getattr(earmark, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        earmark.nothing  # noqa: B018


def test_importing_earmark_brings_in_no_heavy_module() -> None:
    code = "import sys, earmark; print({'hydra', 'av', 'lightning_fabric', 'torch', 'cv2'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


ALL_MODULES = """
import importlib, pkgutil, sys, types
import earmark
names = [m.name for m in pkgutil.walk_packages(earmark.__path__, "earmark.") if not m.name.endswith("__main__")]
for name in sorted(names, reverse=sys.argv[1] == "reversed"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
for name in ["earmark", *names]:
    package = sys.modules.get(name)
    for public in getattr(package, "__all__", ()) if hasattr(package, "__path__") else ():
        try:
            if isinstance(getattr(package, public), types.ModuleType):
                print(f"{name}.{public} is a module")
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
"""


@pytest.mark.parametrize("order", ["sorted", "reversed"])
def test_no_public_name_is_shadowed_by_a_module_whatever_was_imported(order: str) -> None:
    done = subprocess.run([sys.executable, "-c", ALL_MODULES, order], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("package", "unwanted"), [("media", "torch"), ("preparation", "torch"), ("preparation", "earmark.clips")]
)
def test_a_package_brings_in_nothing_that_comes_after_it(package: str, unwanted: str) -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        f"import earmark.{package} as package\n"
        "for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
        f"print({unwanted!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


MODULES = [
    module.name
    for module in pkgutil.walk_packages(earmark.__path__, "earmark.")
    if not module.name.startswith("earmark.cli.configs")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings_run(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        pytest.skip("needs torch")
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert results.failed == 0
