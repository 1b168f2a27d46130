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
