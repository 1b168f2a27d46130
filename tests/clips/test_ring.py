"""Batches read by processes into shared memory: the same batches, clean ends, and nothing left behind."""

import contextlib
import gc
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from torch import Tensor

from earmark.clips import ring, ring_memory
from earmark.clips.action_clips import ActionClips
from earmark.clips.dataset import MomentClips, collate
from earmark.clips.loading import WorkerLostError, load_batches
from earmark.clips.sampling import sample_seed
from earmark.clips.store import PreparedStore
from earmark.datasets.records import ActionRecord
from tests.helpers.made_store import add_video, finish_store

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0  # for what takes one: only a test that would wait for ever notices

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes share memory on POSIX only")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two sizes of pictures."""
    root = tmp_path_factory.mktemp("store")
    rows = [
        add_video(root, "a", num_frames=320),
        add_video(root, "P01/b", num_frames=320, width=40, height=36),
        add_video(root, "c", num_frames=160),
    ]
    finish_store(root, rows, {name: [3.0, 4.5, 12.0, 15.0] for name in ("a", "P01/b")} | {"c": [2.0, 5.0]})
    return root


@pytest.fixture
def store(folder: Path) -> PreparedStore:
    return PreparedStore(folder)


ACTIONS = [ActionRecord(f"{v} {s}", v, s, s + 4, "P01", {"verb": int(s)}) for v in ("a", "P01/b") for s in (1.0, 11.0)]

DATA_SETS: dict[str, Callable[[PreparedStore], MomentClips | ActionClips]] = {
    "moments": MomentClips,
    "labels": lambda store: MomentClips(store, actions=ACTIONS, gap_seconds=[0.1, 0.3]),
    "same clip": lambda store: MomentClips(store, views="same_clip"),
    "actions": lambda store: ActionClips(store, ACTIONS, num_clips=2, random=True),
    "actions with sound": lambda store: ActionClips(store, ACTIONS, audio_seconds=0.5),
}


class Mischief(MomentClips):
    """Clips of which some, by index, do what they should not."""

    def __init__(self, store: PreparedStore, doing: Mapping[int, str]) -> None:
        super().__init__(store)
        self.doing = dict(doing)

    def read_row(self, index: int, seed: int, row: Mapping[str, npt.NDArray[Any]]) -> None:
        match self.doing.get(index, "").split():
            case ["kill"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["hang"]:
                time.sleep(600)
            case ["fail", text]:
                raise ValueError(text)
            case ["odd"]:
                raise OddError("one", "two")
            case ["exit"]:
                raise SystemExit(3)
        super().read_row(index, seed, row)


class OddError(Exception):
    """It can be pickled, and not unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def keys_of(num_items: int, sizes: list[int]) -> list[list[tuple[int, int]]]:
    ends = np.cumsum(sizes).tolist()
    return [
        [(place * 7 % num_items, sample_seed(3, 0, place)) for place in range(end - size, end)]
        for size, end in zip(sizes, ends, strict=True)
    ]


def workers() -> list[int]:
    return [p.pid or 0 for p in multiprocessing.active_children() if p.name.startswith("earmark-loader-")]


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def load(clips: Any, keys: Any, num_workers: int = 2, **options: Any) -> Any:
    return load_batches(clips, keys, collate_fn=collate, num_workers=num_workers, device=CPU, **options)


# -- The batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize("name", DATA_SETS)
def test_batches_equal_samples_read_one_by_one(store: PreparedStore, name: str, num_workers: int) -> None:
    clips = DATA_SETS[name](store)
    keys = keys_of(len(clips), [1, 4, 4, 4, 3, 6, 2])
    loaded = list(load(clips, keys, num_workers))
    assert len(loaded) == len(keys)
    for batch, visits in zip(loaded, keys, strict=True):
        expected = collate([clips[key] for key in visits])
        assert batch.keys() == expected.keys()
        for part, tensor in expected.items():
            assert batch[part].dtype == tensor.dtype
            assert torch.equal(batch[part], tensor), part
    assert workers() == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize(("start_method", "num_workers"), [("fork", 3), ("forkserver", 2), ("spawn", 1)])
def test_however_processes_are_started(store: PreparedStore, start_method: str, num_workers: int) -> None:
    clips = MomentClips(store)
    keys = keys_of(len(clips), [3] * 5)
    for batch, visits in zip(load(clips, keys, num_workers, start_method=start_method), keys, strict=True):
        for part, tensor in clips.read_batch(visits).items():
            assert torch.equal(batch[part], tensor), part
    assert workers() == []


def test_the_start_method_that_the_program_has_set_is_taken(store: PreparedStore) -> None:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        loaded = load(MomentClips(store), keys_of(4, [2]), 1)
        next(loaded)
        (process,) = (p for p in multiprocessing.active_children() if p.name.startswith("earmark-loader-"))
        assert type(process).__name__ == "SpawnProcess"
        loaded.close()
    finally:
        multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize("start_method", [None, "forkserver"])
def test_a_fork_server_has_imported_what_workers_need(
    store: PreparedStore, start_method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[str] = []
    monkeypatch.setattr(multiprocessing.forkserver, "set_forkserver_preload", imported.extend)
    load(MomentClips(store), keys_of(4, [2]), 1, start_method=start_method).close()  # not begun, so nothing is started
    assert imported == []
    loaded = load(MomentClips(store), keys_of(4, [2]), 1, start_method=start_method)
    next(loaded)
    loaded.close()
    assert imported == ["earmark.clips.dataset", "earmark.clips.ring_worker"]


def test_batches_stand_where_they_were_read_and_memory_is_used_again(store: PreparedStore) -> None:
    places = [batch["video_before"].data_ptr() for batch in load(MomentClips(store), keys_of(4, [4] * 12))]
    assert len(set(places)) <= 4 < len(places)  # one held, one asked for, two ahead


def test_a_batch_that_is_kept_is_not_written_over(store: PreparedStore) -> None:
    clips = MomentClips(store)
    keys = keys_of(len(clips), [4] * 12)
    kept = []
    for number, batch in enumerate(load(clips, keys)):
        if number in (2, 5):
            kept.append((number, batch["video_after"][1:3]))  # a part keeps the whole
    for number, part in kept:
        assert torch.equal(part, clips.read_batch(keys[number])["video_after"][1:3])


def test_numbers_that_are_kept_do_not_keep_the_pictures_memory(store: PreparedStore) -> None:
    kept, places = [], set()
    for batch in load(MomentClips(store), keys_of(4, [4] * 12)):
        kept.append({name: batch[name] for name in ("index", "seed", "video_size")})
        places.add(batch["audio"].data_ptr())
    assert len(places) <= 4


def test_reading_ahead_is_bounded(store: PreparedStore) -> None:
    asked = []

    def batches() -> Iterator[list[tuple[int, int]]]:
        for number in range(100):
            asked.append(number)
            yield [(number % 4, number)]

    loaded = load(MomentClips(store), batches())
    for count in range(1, 5):
        next(loaded)
        assert len(asked) <= count + ring.BATCHES_AHEAD
    loaded.close()


def test_more_tasks_than_a_pipe_holds(store: PreparedStore) -> None:
    """Nobody waits for anybody who waits for him."""
    clips = MomentClips(store, clip_seconds=1 / 16, audio_seconds=0.01)
    keys = keys_of(len(clips), [1500] * 3)
    for batch, visits in zip(load(clips, keys), keys, strict=True):
        assert batch["seed"].tolist() == [seed for _, seed in visits]


def test_two_rings_at_once(store: PreparedStore) -> None:
    clips, others = MomentClips(store), ActionClips(store, ACTIONS)
    keys = keys_of(4, [4] * 6)
    training = load(clips, keys)
    seen = [next(training)["seed"].tolist() for _ in range(2)]
    assert [batch["seed"].tolist() for batch in load(others, keys)] == [[s for _, s in visits] for visits in keys]
    seen += [batch["seed"].tolist() for batch in training]
    assert seen == [[s for _, s in visits] for visits in keys]


# -- Errors -----------------------------------------------------------------------------------------------------------


def test_the_error_of_the_lowest_row_is_raised_when_its_batch_is_asked_for(store: PreparedStore) -> None:
    clips = Mischief(store, {2: "fail third", 3: "fail fourth"})
    loaded = load(clips, [[(0, 0)] * 4, [(0, 0), (1, 0), (3, 0), (2, 0)], [(0, 0)]])
    assert next(loaded)["index"].tolist() == [0] * 4
    with pytest.raises(ValueError, match=r"^fourth") as raised:
        next(loaded)
    assert "read_row" in raised.value.__notes__[0]  # where it was raised
    assert workers() == []
    assert list(loaded) == []


@pytest.mark.parametrize(
    ("doing", "kind", "text"), [("odd", RuntimeError, "OddError: one and two"), ("exit", SystemExit, "3")]
)
def test_any_exception_reaches_the_caller(store: PreparedStore, doing: str, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        list(load(Mischief(store, {1: doing}), [[(0, 0), (1, 0)]]))


def test_a_key_that_means_nothing_is_told_in_its_place(store: PreparedStore) -> None:
    loaded = load(MomentClips(store), [[(0, 0)], [(1, 1)], [(99, 0)]])
    assert [next(loaded)["index"].tolist() for _ in range(2)] == [[0], [1]]
    with pytest.raises(IndexError, match="item 99 is out of range"):
        next(loaded)


def test_a_data_set_that_cannot_be_sent_is_told(store: PreparedStore) -> None:
    clips = MomentClips(store)
    clips.same_clips = {"other": lambda: None}  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"MomentClips can't be handed to loader processes: .*; num_workers=0 or"):
        next(load(clips, [[(0, 0)]]))
    assert workers() == []


class Unreadable(MomentClips):
    def __setstate__(self, state: Any) -> None:
        raise LookupError("this side has no such thing")

    def __getstate__(self) -> Any:
        return self.__dict__


def test_a_data_set_that_cannot_be_received_is_told(store: PreparedStore) -> None:
    with pytest.raises(WorkerLostError, match=r"can't read Unreadable: this side has no such thing"):
        next(load(Unreadable(store), [[(0, 0)]]))
    assert workers() == []


# -- Ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("start_method", ["forkserver", "fork"])
def test_a_worker_that_is_killed_is_named_with_what_it_was_reading(store: PreparedStore, start_method: str) -> None:
    clips = Mischief(store, {3: "kill"})
    loaded = load(clips, [[(0, 0)], [(1, 0), (3, 0)], [(0, 0)]], start_method=start_method)
    with pytest.raises(WorkerLostError, match=r"process \d+\) was killed by SIGKILL .*sample 3: a from \d+\.\d\d s"):
        list(loaded)
    assert workers() == []


def test_a_worker_that_is_killed_while_it_waits_is_told_at_the_next_batch(store: PreparedStore) -> None:
    loaded = load(MomentClips(store), ([(k % 4, k)] for k in range(1000)))
    next(loaded)
    os.kill(workers()[0], signal.SIGKILL)
    with pytest.raises(WorkerLostError, match=r"was killed by SIGKILL"):
        list(loaded)
    assert workers() == []


@pytest.mark.parametrize("how", ["close", "drop", "raise"])
def test_workers_end_with_the_iterator_in_the_middle_of_a_batch(store: PreparedStore, how: str) -> None:
    loaded = load(Mischief(store, {1: "hang"}), [[(0, 0)], [(1, 0)], [(0, 0)]])
    next(loaded)
    pids = workers()
    assert len(pids) == 2
    if how == "close":
        loaded.close()
    elif how == "raise":
        with pytest.raises(RuntimeError, match="mine"), contextlib.closing(loaded):
            raise RuntimeError("mine")
    del loaded
    gc.collect()
    assert workers() == []
    assert not any(map(is_there, pids))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_nothing_grows_with_the_number_of_loads(store: PreparedStore) -> None:
    def count() -> tuple[int, int]:
        gc.collect()
        children = Path("/proc/self/task", str(os.getpid()), "children").read_text().split()
        return len(list(Path("/proc/self/fd").iterdir())), len(children)

    clips = MomentClips(store)
    get_reusable_executor(max_workers=1).shutdown(wait=True)  # workers of other tests, which would end meanwhile
    list(load(clips, [[(0, 0)]] * 3))  # starts the fork server, which stays
    before = count()
    for _ in range(20):
        loaded = load(clips, [[(0, 0)]] * 4)
        next(loaded)
        loaded.close()
    assert count() == before
    assert "earmark-batches" not in Path("/proc/self/maps").read_text()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_process_forked_meanwhile_leaves_the_workers_alone(store: PreparedStore) -> None:
    loaded = load(MomentClips(store), ([(k % 4, k)] for k in range(1000)))
    next(loaded)
    child = os.fork()
    if child == 0:
        loaded.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert [next(loaded)["index"].tolist() for _ in range(6)] == [[1], [2], [3], [0], [1], [2]]
    loaded.close()


SCRIPT = """
import multiprocessing, os, signal, sys, time
import torch
from earmark.clips.dataset import MomentClips, collate
from earmark.clips.loading import load_batches
from earmark.clips.store import PreparedStore

def main():
    clips, keys = MomentClips(PreparedStore(sys.argv[1])), ([(k % 4, k)] for k in range(10**9))
    start_method = sys.argv[2] if len(sys.argv) > 2 else None
    loaded = load_batches(
        clips, keys, collate_fn=collate, num_workers=2, device=torch.device("cpu"), start_method=start_method
    )
    next(loaded)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    return loaded
"""


@contextlib.contextmanager
def running(script: str, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """Start a script in a session of its own; its first line names its workers."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process, [int(pid) for pid in process.stdout.readline().split()]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("start_method", ["forkserver", "fork", "spawn"])
def test_workers_end_with_a_caller_that_is_killed(folder: Path, start_method: str) -> None:
    """Also where that has forked another process, which lives on."""
    script = SCRIPT + "\nif __name__ == '__main__':\n    loaded = main()\n    os.fork()\n    time.sleep(600)\n"
    with running(script, str(folder), start_method) as (process, pids):
        assert len(pids) == 2
        assert all(map(is_there, pids))
        process.kill()
        assert wait_until(lambda: not any(map(is_there, pids)))


def test_a_signal_to_all_processes_is_the_callers_to_obey(folder: Path) -> None:
    """It goes on with its batches, and ends when it wants."""
    script = f"""{SCRIPT}
if __name__ == "__main__":
    got = []
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        signal.signal(getattr(signal, name), lambda number, frame: got.append(number))
    loaded = main()
    while len(set(got)) < 4:
        time.sleep(0.01)
    for _ in range(50):
        next(loaded)
    loaded.close()
    print("done", len(multiprocessing.active_children()))
"""
    with running(script, str(folder)) as (process, pids):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.killpg(process.pid, number)
        out, err = process.communicate(timeout=SECONDS)
        assert (out, err, process.returncode) == ("done 0\n", "", 0)
        assert wait_until(lambda: not any(map(is_there, pids)))


class EndedByASignalOnce(MomentClips):
    """Ends the first worker that it comes to and Python's tracker of resources, as a signal to all processes does."""

    def __init__(self, store: PreparedStore, flag: Path) -> None:
        super().__init__(store)
        resource_tracker.ensure_running()
        self.flag, self.tracker = flag, resource_tracker._resource_tracker._pid

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self.flag.exists():
            self.flag.touch()
            os.kill(self.tracker, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGABRT)


def test_a_worker_that_a_signal_ended_before_it_was_ready_is_started_again_without_a_word(
    store: PreparedStore, tmp_path: Path
) -> None:
    clips = EndedByASignalOnce(store, tmp_path / "ended")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load(clips, [[(0, 0)]] * 3, num_workers=1)
        assert [batch["index"].tolist() for batch in loaded] == [[0]] * 3
    assert clips.flag.exists()


def test_ctrl_c_ends_a_program_that_does_not_handle_it(folder: Path) -> None:
    script = f"""{SCRIPT}
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    for batch in main():
        time.sleep(0.001)
"""
    with running(script, str(folder)) as (process, pids):
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
        assert err.count("Traceback") == 1
        assert err.endswith("KeyboardInterrupt\n")
        assert wait_until(lambda: not any(map(is_there, pids)))


def test_a_program_ends_that_never_closed_its_batches(folder: Path) -> None:
    script = SCRIPT + "\nif __name__ == '__main__':\n    loaded = main()\n"
    with running(script, str(folder)) as (process, pids):
        _, err = process.communicate(timeout=SECONDS)
        assert (err, process.returncode) == ("", 0)
        assert wait_until(lambda: not any(map(is_there, pids)))


def test_a_script_that_loads_when_it_is_imported_is_told_what_to_do(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT + "\nmain()\n")
    done = subprocess.run(
        [sys.executable, str(path), str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert "WorkerLostError: loader worker" in done.stderr
    assert "below `if __name__ == '__main__':`" in done.stderr


# -- A device that is not at hand -------------------------------------------------------------------------------------


class FakeEvent:
    """The end of a copy that ends when it is told to."""

    def __init__(self) -> None:
        self.has_ended = False

    def query(self) -> bool:
        return self.has_ended


def test_memory_is_not_used_again_before_its_copy_has_ended(
    store: PreparedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is copied late is what was read, whichever slot it stands in; and pinned memory is bounded."""
    copies: list[tuple[FakeEvent, dict[str, Tensor], dict[str, Tensor]]] = []
    places = set()

    def send(batch: dict[str, Tensor], device: torch.device, stream: Any) -> tuple[dict[str, Tensor], FakeEvent]:
        target = {name: torch.zeros_like(tensor) for name, tensor in batch.items()}
        places.add(batch["audio"].data_ptr())
        copies.append((FakeEvent(), dict(batch), target))
        return target, copies[-1][0]

    def arrived(batch: dict[str, Tensor], event: FakeEvent) -> dict[str, Tensor]:
        while not event.has_ended:  # copies end as late as they may: when the batch is used
            oldest, source, target = copies.pop(0)
            for name, tensor in source.items():
                target[name].copy_(tensor)
            oldest.has_ended = True
        return batch

    monkeypatch.setattr(ring, "copy_stream", lambda device: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr(ring, "send", send)
    monkeypatch.setattr(ring, "arrived", arrived)
    monkeypatch.setattr(ring_memory, "_pin", lambda *_: None)
    clips = MomentClips(store)
    keys = keys_of(len(clips), [4] * 20)
    loaded = list(load(clips, keys))
    for batch, visits in zip(loaded, keys, strict=True):
        for name, tensor in clips.read_batch(visits).items():
            assert torch.equal(batch[name], tensor), name
    assert len(places) <= ring.MAX_PINNED_SLOTS


def test_memory_that_cannot_be_pinned_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import mmap

    library = SimpleNamespace(cudaHostRegister=lambda address, num_bytes, flags: 2)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: library)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    memory = mmap.mmap(-1, 1 << 20)
    with pytest.warns(RuntimeWarning, match=r"1 MB of memory for batches can't be pinned \(CUDA error 2\)"):
        assert ring_memory._pin(memory, 1 << 20, CPU) is None
    library.cudaHostRegister = lambda address, num_bytes, flags: 0
    address = ring_memory._pin(memory, 1 << 20, CPU)
    assert address == np.frombuffer(memory, np.uint8).ctypes.data


def test_exceptions_of_the_loader_can_be_pickled() -> None:
    assert str(pickle.loads(pickle.dumps(WorkerLostError("worker 1")))) == "worker 1"
