import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import pyarrow.parquet as pq
import pytest

import earmark.preparation.preparing
import earmark.preparation.workers
from earmark.clips.store import PreparedStore
from earmark.datasets import Folder
from earmark.datasets.records import VideoRecord
from earmark.preparation import PrepareError, prepare
from earmark.preparation.locks import locked
from earmark.preparation.workers import BackendError, WorkerDiedError, each_in_order
from tests.helpers.clicking import make_video

NUM_VIDEOS = 5


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers") / "sources"
    for number in range(NUM_VIDEOS):
        make_video(folder / f"{number}.mp4", seconds=2.0 + number / 2, times=(1.0,))
    return folder


@pytest.fixture(scope="module")
def whole(sources: Path) -> Path:
    root = sources.parent / "whole"
    prepare(Folder(sources).videos(), root, progress=False)
    return root


def assert_equal_stores(root: Path, whole: Path) -> None:
    for name in ("videos.parquet", "moments.parquet", *(f"videos/{number}.mov" for number in range(NUM_VIDEOS))):
        assert (root / name).read_bytes() == (whole / name).read_bytes(), name
    assert PreparedStore(root).fingerprint == PreparedStore(whole).fingerprint


def test_parts_share_the_videos_and_make_one_store(sources: Path, whole: Path, tmp_path: Path) -> None:
    records = Folder(sources).videos()
    first = prepare(records, tmp_path / "store", part=(1, 2), progress=False)
    assert [row.video_id for row in first.videos] == ["0", "2", "4"]
    assert first.num_elsewhere == 2
    assert sorted(PreparedStore(tmp_path / "store").videos) == ["0", "2", "4"]
    second = prepare(records, tmp_path / "store", part=(2, 2), progress=False)
    assert [row.video_id for row in second.videos] == ["1", "3"]
    assert (second.num_elsewhere, second.num_reused) == (0, 0)
    assert_equal_stores(tmp_path / "store", whole)
    for part in ((0, 2), (3, 2)):
        with pytest.raises(PrepareError, match="k from 1 to n"):
            prepare(records, tmp_path / "store", part=part, progress=False)


def test_a_part_without_videos_does_no_harm(sources: Path, whole: Path, tmp_path: Path) -> None:
    records = Folder(sources).videos()
    prepare(records, tmp_path / "store", progress=False)
    assert prepare(records, tmp_path / "store", part=(9, 9), progress=False).videos == ()
    assert_equal_stores(tmp_path / "store", whole)


def test_two_runs_at_once_share_the_work_and_make_one_store(sources: Path, whole: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from earmark.datasets import Folder; import earmark.preparation.video as one\n"
        "real = one._transcode\n"
        "def noted(video, *rest):\n"
        "    print('made', video.video_id)\n"
        "    return real(video, *rest)\n"
        "one._transcode = noted\n"
        "from earmark.preparation import prepare\n"
        "report = prepare(Folder(sys.argv[1]).videos(), sys.argv[2], isolate=False, progress=False)\n"
        "assert len(report.videos) == 5 and not report.with_status('refused')\n"
    )
    command = [sys.executable, "-c", code, str(sources), str(tmp_path / "store")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    made = [line for run in runs for line in run.communicate()[0].split("\n") if line]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted(made) == [f"made {number}" for number in range(NUM_VIDEOS)]  # none twice
    assert_equal_stores(tmp_path / "store", whole)


def test_a_video_that_another_run_is_at_is_waited_for_at_the_end(sources: Path, whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    prepare(Folder(sources).videos()[1:2], root, progress=False)
    with locked(root, "0") as lock:
        assert lock is not None
        waiting = threading.Thread(target=prepare, args=(Folder(sources).videos(), root), kwargs={"progress": False})
        waiting.start()
        waiting.join(0.2)
        while len(list((root / "videos").glob("[0-9]*.json"))) < NUM_VIDEOS - 1:
            waiting.join(0.1)
        assert not (root / "videos/0.mov").exists()
        assert waiting.is_alive()
    waiting.join(60)
    assert_equal_stores(root, whole)


def test_the_catalog_holds_what_another_run_finishes_while_it_is_written(
    sources: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Folder(sources).videos()
    written = []
    real = earmark.preparation.preparing.write_moments_of_store

    def slow(root: Path, table: object) -> None:
        if not written:
            written.append(root)  # meanwhile another run does the rest, catalog and all
            prepare(records, tmp_path / "store", part=(2, 2), progress=False)
        real(root, table)

    monkeypatch.setattr(earmark.preparation.preparing, "write_moments_of_store", slow)
    prepare(records, tmp_path / "store", part=(1, 2), progress=False)
    assert_equal_stores(tmp_path / "store", whole)


class FatalPath(type(Path())):  # type: ignore[misc]
    """A source that kills the worker process that reads it."""

    def stat(self, **options: bool) -> os.stat_result:
        if os.environ.get("READER") != str(os.getpid()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().stat(**options)


def double(number: int) -> int:
    """Double a number, or die of a negative one."""
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def test_a_call_that_kills_its_process_is_told_in_its_place_and_stops_no_other() -> None:
    calls = [joblib.delayed(double)(number) for number in (1, -1, 2)]
    before, fatal, *after = each_in_order(calls, num_workers=2)
    assert (before, after) == (2, [4])
    assert isinstance(fatal, WorkerDiedError)
    assert "was killed" in str(fatal)
    assert list(each_in_order([joblib.delayed(double)(4)], num_workers=3)) == [8]
    assert list(each_in_order([], num_workers=2)) == []


def assert_only_the_fatal_one_is_refused(sources: Path, whole: Path, root: Path, backend: str) -> None:
    records = Folder(sources).videos()
    fatal = [VideoRecord("fatal", FatalPath(sources / "0.mp4"), "train")]
    report = prepare([*records[:2], *fatal, *records[2:]], root, num_workers=2, backend=backend, progress=False)
    assert {row.video_id for row in report.with_status("refused")} == {"fatal"}
    assert "was killed" in report.with_status("refused")[0].reason
    catalog = pq.read_table(root / "videos.parquet").to_pylist()
    assert [row["status"] for row in catalog].count("ok") == NUM_VIDEOS
    prepare(records, root, progress=False)
    assert_equal_stores(root, whole)


def test_a_video_that_kills_its_process_stops_no_other(
    sources: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READER", str(os.getpid()))
    assert_only_the_fatal_one_is_refused(sources, whole, tmp_path / "store", "loky")


@pytest.mark.slow
def test_only_videos_in_hand_are_suspected_of_killing_a_process(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READER", str(os.getpid()))
    alone: list[str] = []
    real = earmark.preparation.workers.parallel

    def noted(num_workers: int, calls: list[tuple[Any, tuple[Any, ...], Any]], **options: Any) -> Any:
        if options.get("return_as", "list") == "list":
            alone.extend(given.video_id for call in calls for given in call[1] if isinstance(given, VideoRecord))
        return real(num_workers, calls, **options)

    monkeypatch.setattr(earmark.preparation.workers, "parallel", noted)
    records = [VideoRecord("fatal", FatalPath(sources / "0.mp4"), "train"), *Folder(sources).videos()]
    prepare(records, tmp_path / "store", num_workers=2, progress=False)
    assert "fatal" in alone
    assert len(alone) <= 2  # it, and what the other process was at


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """A real Ray on this machine."""
    module = pytest.importorskip("ray", reason="Ray is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, of its start
        paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        module.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONPATH": paths}},  # of FatalPath
        )
        yield
        module.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_ray_makes_the_same_store(sources: Path, whole: Path, tmp_path: Path) -> None:
    report = prepare(Folder(sources).videos(), tmp_path / "store", num_workers=-1, backend="ray", progress=False)
    assert not report.with_status("refused")
    assert_equal_stores(tmp_path / "store", whole)


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_video_that_kills_its_process_stops_no_other_on_ray(
    sources: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READER", str(os.getpid()))
    assert_only_the_fatal_one_is_refused(sources, whole, tmp_path / "store", "ray")


def test_without_ray_its_backend_says_how_to_get_it(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendError, match=r"pip install 'earmark\[ray\]'"):
        prepare(Folder(sources).videos(), tmp_path / "store", backend="ray", progress=False)
