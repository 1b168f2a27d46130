"""What every test shares: the media folder, the slow switch, which tests see GPUs, the guard on global random state.

Without torch the test files that import it are skipped, each by name; a file of what must work without it never is.
"""

import importlib
import os
import re
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.forkserver import ForkServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    torch = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = Path(__file__).parent / "reference"
HIDDEN_GPUS = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}  # of NVIDIA and of AMD
LONGEST = "test_learning.py"  # of the slow tests
NOT_THERE_WITHOUT_TORCH = ("torch", "lightning_fabric", "tensorboard")
MUST_RUN_WITHOUT_TORCH = re.compile(r"without_torch|media/|moments/|preparation/|cli/test_(config|doctor)|kitchen/")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")


def asks_for_gpu(markers: str) -> bool:
    """Return whether the expression after ``-m`` asks for tests marked gpu, and for no others."""
    words = re.findall(r"\w+", markers)
    return "gpu" in words and not {"not", "or"} & set(words[: words.index("gpu") + 1]) and "or" not in words


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPUs from this process and its children, unless the tests marked gpu are what is asked for.

    All other tests are about the CPU: they compare bits, and numbers that were recorded there, and start commands that
    choose where they run. CUDA reads the variable when it is first used, which importing torch does not do.
    """
    if not asks_for_gpu(config.option.markexpr):
        os.environ.update(HIDDEN_GPUS)
    # Beside other tests each takes its share of the processors: N times all of them would wait for one another.
    num_beside = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if num_beside > 1 and "OMP_NUM_THREADS" not in os.environ:
        num_threads = max(1, (os.cpu_count() or 1) // num_beside)
        os.environ["OMP_NUM_THREADS"] = str(num_threads)  # of processes that tests start
        if torch is not None:
            torch.set_num_threads(num_threads)


def pytest_report_header(config: pytest.Config) -> str:
    if not asks_for_gpu(config.option.markexpr):
        return "GPUs: hidden; the tests that need one are run by -m gpu"
    return f"GPUs: {torch.cuda.device_count() if torch else 0} visible"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skip_slow = pytest.mark.skip(reason="slow: run with --run-slow")
    hidden = "needs a CUDA device, which these tests do not see: run it with -m gpu"
    skip_gpu = pytest.mark.skip(reason="needs a CUDA device" if asks_for_gpu(config.option.markexpr) else hidden)
    for item in items:
        # by marker: the keywords of an item hold the names of its folders too, such as that of a checkout called gpu
        if item.get_closest_marker("slow") and not config.getoption("--run-slow"):
            item.add_marker(skip_slow)
        if item.get_closest_marker("gpu") and (torch is None or not torch.cuda.is_available()):
            item.add_marker(skip_gpu)
    if config.getoption("--run-slow"):
        # Two at once end soonest if the long ones are not the last. Files stay whole: their fixtures are made once.
        with_slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (item.path.name != LONGEST, item.path not in with_slow))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):  # type: ignore[no-untyped-def]
    """Skip a test file that needs torch where there is none."""
    report = yield
    if (
        torch is None
        and report.failed
        and not MUST_RUN_WITHOUT_TORCH.search(str(collector.path.relative_to(ROOT / "tests")))
    ):
        error = report.call.excinfo.value.__cause__
        while error is not None and getattr(error, "name", None) not in NOT_THERE_WITHOUT_TORCH:
            error = error.__cause__
        if error is not None:
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), None, f"Skipped: needs {error.name}")
    return report


@pytest.fixture(autouse=True)
def _same_random_state() -> None:
    """Seed the global generators, so that no test depends on the ones before it."""
    if torch is not None:
        torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the guard is on the legacy global state


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute on one thread: tiny tensors on many wait for one another, for minutes on a busy machine."""
    if torch is None:
        pytest.skip("needs torch")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def process_server() -> ForkServer:
    """Return a server, of its own beside that of the loader, that has imported what processes of a training need."""
    server = ForkServer()
    server.set_forkserver_preload(["earmark.training.pretraining", "lightning_fabric", "torch.distributed.tensor"])
    server.ensure_running()
    return server


@pytest.fixture
def forked_processes(process_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the processes of a training from a server: those that are spawned need seconds each to import torch.

    For tests of what several processes compute. How they are started, what becomes of them where one fails, and what
    they are to the process that starts them is for tests without this.
    """
    spawning = importlib.import_module("torch.multiprocessing.spawn")
    monkeypatch.setattr(forkserver, "connect_to_new_process", process_server.connect_to_new_process)
    spawned = spawning.start_processes

    def forked(*arguments: Any, **options: Any) -> Any:
        return spawned(*arguments, **options | {"start_method": "forkserver"})

    monkeypatch.setattr(spawning, "start_processes", forked)


@pytest.fixture(scope="session")
def media() -> Path:
    """Return the folder of real clips; the test is skipped where it is missing."""
    folder = Path(os.environ.get("EARMARK_TEST_MEDIA", ROOT.parent / "shared" / "media"))
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder} (set EARMARK_TEST_MEDIA)")
    return folder


@pytest.fixture(scope="session")
def annotations() -> Path:
    """Return the folder of official annotation files; the test is skipped where it is missing."""
    folder = Path(os.environ.get("EARMARK_TEST_ANNOTATIONS", ROOT.parent / "shared" / "annotations"))
    if not folder.is_dir():
        pytest.skip(f"no official annotations at {folder} (set EARMARK_TEST_ANNOTATIONS)")
    return folder


@pytest.fixture(scope="session")
def reference() -> Path:
    """Return the folder of frozen reference arrays."""
    return REFERENCE
