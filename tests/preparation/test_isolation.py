"""What a file does to the process that reads it costs that file, by name, and nothing else."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import earmark.preparation.preparing
from earmark.clips.store import PreparedStore
from earmark.datasets import Folder
from earmark.datasets.records import VideoRecord
from earmark.preparation import prepare
from earmark.preparation.isolation import Limits, limited
from tests.helpers.clicking import make_video
from tests.helpers.media_clips import grey_ramp, write_clip

resource = pytest.importorskip("resource", reason="this system has no limits of memory")
linux_only = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is counted as Linux does")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("isolation") / "sources"
    for name in ("a", "c"):
        make_video(folder / f"{name}.mp4", seconds=2.0, times=(1.0,))
    return folder


class EvilPath(type(Path())):  # type: ignore[misc]
    """A source that does to the process that reads it what a fault of a codec does; looking at it is harmless."""

    def stat(self, **options: bool) -> os.stat_result:
        if os.environ.get("EARMARK_TEST_READER") != str(os.getpid()):
            self.strike()
        return super().stat(**options)

    def strike(self) -> None:
        raise NotImplementedError


class CrashingPath(EvilPath):
    def strike(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class HangingPath(EvilPath):
    def strike(self) -> None:
        ctypes.PyDLL(None).sleep(600)  # without letting go of the interpreter, as a decoder's loop


class HungryPath(EvilPath):
    def strike(self) -> None:
        np.ones(3 << 30, np.uint8)


def prepared_beside(evil: Path, sources: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Prepare a source between two good ones with one worker; return why it was refused."""
    monkeypatch.setenv("EARMARK_TEST_READER", str(os.getpid()))
    records = [VideoRecord(n, sources / f"{n}.mp4", "train") for n in ("a", "c")]
    report = prepare([records[0], VideoRecord("b", evil, "train"), records[1]], root, progress=False)
    assert [video.status for video in report.videos] == ["ok", "refused", "ok"]
    assert sorted(PreparedStore(root).videos) == ["a", "c"]
    return report.videos[1].reason


@pytest.mark.slow
def test_a_video_that_crashes_its_decoder_is_refused_though_there_is_one_worker(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = prepared_beside(CrashingPath(sources / "a.mp4"), sources, tmp_path / "store", monkeypatch)
    assert reason == "the process that read it was killed: a fault in a codec (SIGSEGV)"


@pytest.mark.slow
def test_a_video_that_hangs_its_decoder_is_refused(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earmark.preparation.preparing, "LIMITS", Limits(seconds=8.0, seconds_per_second=1.0))
    started = time.monotonic()
    reason = prepared_beside(HangingPath(sources / "a.mp4"), sources, tmp_path / "store", monkeypatch)
    assert reason == (
        "the process that read it was killed: it took longer than a file of its length may take (SIGALRM)"
    )
    assert time.monotonic() - started < 600


@linux_only
def test_a_video_that_takes_too_much_memory_is_refused(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = prepared_beside(HungryPath(sources / "a.mp4"), sources, tmp_path / "store", monkeypatch)
    assert reason == "reading it takes more memory than there is for one file"


@linux_only
def test_memory_is_limited_within_the_block_and_not_after_it(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=grey_ramp(2))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited(Limits(memory_bytes=200 << 20), tmp_path / "a.mp4"):
        np.ones(50 << 20, np.uint8)
        with pytest.raises(MemoryError):
            np.ones(400 << 20, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    np.ones(400 << 20, np.uint8)


def test_a_larger_picture_may_take_more_memory_and_time() -> None:
    limits = Limits(memory_bytes=10, memory_bytes_per_pixel=2, seconds=5.0, seconds_per_second=3.0)
    assert limits.memory(4, 3) == 34
    assert limits.time_seconds(10.0, 4, 3) == 35.0
    assert limits.time_seconds(10.0, 3840, 2160) == 5.0 + 3.0 * 10.0 * 4


@pytest.mark.parametrize(("seconds", "returncode"), [(60.0, 0), (1.0, -signal.SIGALRM)])
def test_out_of_time_the_process_ends_and_in_time_it_does_not(tmp_path: Path, seconds: float, returncode: int) -> None:
    write_clip(tmp_path / "a.mp4", frames=grey_ramp(16))  # a second
    code = (
        "import ctypes, sys; from pathlib import Path; from earmark.preparation.isolation import Limits, limited\n"
        "with limited(Limits(seconds=float(sys.argv[2]), seconds_per_second=1.0), Path(sys.argv[1])):\n"
        "    ctypes.PyDLL(None).sleep(3)\n"  # without letting go of the interpreter, as a decoder's loop
        "print('done')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.mp4"), str(seconds)]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (run.returncode, run.stdout == "done\n") == (returncode, returncode == 0), run.stderr


def test_a_video_far_longer_than_it_says_is_stopped_and_refused(tmp_path: Path) -> None:
    """The header of a Matroska file says a second; an hour of pictures follows."""
    times_ms = [50_000 * k for k in range(72)]
    (tmp_path / "sources").mkdir()
    write_clip(tmp_path / "sources/good.mkv", frames=[grey_ramp(1)[0]] * 72, times_ms=times_ms)
    data = bytearray((tmp_path / "sources/good.mkv").read_bytes())
    tag = data.index(b"00:59:10.0")
    data[tag : tag + 8] = b"00:00:01"
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = np.array(1000.0, ">f8").tobytes()
    (tmp_path / "sources/less.mkv").write_bytes(data)
    make_video(tmp_path / "sources/one.mp4", seconds=1.0, times=())
    (tmp_path / "sources/good.mkv").unlink()
    report = prepare(Folder(tmp_path / "sources").videos(), tmp_path / "store", isolate=False, progress=False)
    assert [video.status for video in report.videos] == ["refused", "ok"]
    assert re.fullmatch(
        r"stopped, since it grew to 1[67]\.\d MB, far more than the 1\.0\d s that it says it lasts can take; "
        "nothing of it is kept",
        report.videos[0].reason,
    )
    assert sorted(path.name for path in (tmp_path / "store/videos").glob("less*")) == ["less.json"]
