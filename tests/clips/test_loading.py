import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from earmark.clips.action_clips import ActionClips
from earmark.clips.dataset import MomentClips, collate
from earmark.clips.loading import BATCHES_AHEAD, load_batches
from earmark.clips.sampling import EpochBatches
from earmark.clips.store import PreparedStore
from earmark.datasets.records import ActionRecord
from earmark.media import PacketIndex
from earmark.preparation.catalog import StoreError
from tests.helpers.made_store import add_video, finish_store

CPU = torch.device("cpu")


class Numbers:
    """Items that are their index, which can take a while, and are counted."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, seed = key
        self.asked.append(index)
        time.sleep(0.001 * (seed % 5))
        if index == 13:
            raise ValueError("item 13 is broken")
        return {"index": index, "seed": seed, "video": np.full((1, 2, 2, 3), index % 256, np.uint8)}


def _threads() -> int:
    return sum(thread.name.startswith("earmark-") for thread in threading.enumerate())


@pytest.fixture
def store(tmp_path: Path) -> PreparedStore:
    rows = [add_video(tmp_path, name, num_frames=480) for name in ("a", "P01/b")]
    finish_store(tmp_path, rows, {name: [3.0, 4.5, 12.0, 15.0, 25.0] for name in ("a", "P01/b")})
    return PreparedStore(tmp_path)


@pytest.mark.parametrize("num_workers", [0, 1, 3, 8])
def test_batches_come_in_order_whatever_the_number_of_threads(num_workers: int) -> None:
    keys = [[(10 * batch + place, 7 * batch + 3 * place) for place in range(3)] for batch in range(20, 30)]
    loaded = list(load_batches(Numbers(), keys, collate_fn=collate, num_workers=num_workers, device=CPU))
    assert [batch["index"].tolist() for batch in loaded] == [[index for index, _ in batch] for batch in keys]
    assert [batch["video"][:, 0, 0, 0, 0].tolist() for batch in loaded] == [
        [index % 256 for index, _ in batch] for batch in keys
    ]
    assert _threads() == 0


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_stored_clips_load_as_they_are_read_one_by_one(store: PreparedStore, num_workers: int) -> None:
    clips = MomentClips(store)
    keys = [batch for epoch in range(3) for batch in EpochBatches(len(clips), 2, seed=5, epoch=epoch)]
    loaded = list(load_batches(clips, keys, collate_fn=collate, num_workers=num_workers, device=CPU))
    assert len(loaded) == len(keys) == 9
    for batch, expected in zip(loaded, ([clips[key] for key in batch] for batch in keys), strict=True):
        for name, tensor in collate(expected).items():
            assert torch.equal(batch[name], tensor), name


def test_reading_ahead_is_bounded() -> None:
    clips = Numbers()
    loaded = load_batches(clips, ([(100 + k, 0)] for k in range(1000)), collate_fn=collate, num_workers=2, device=CPU)
    for count in range(1, 4):
        next(loaded)
        time.sleep(0.05)
        assert len(clips.asked) <= count + BATCHES_AHEAD
    loaded.close()
    assert _threads() == 0


def test_without_threads_nothing_is_read_before_it_is_asked_for() -> None:
    clips = Numbers()
    loaded = load_batches(clips, [[(k, 0)] for k in range(5)], collate_fn=collate, num_workers=0, device=CPU)
    assert clips.asked == []
    next(loaded)
    assert clips.asked == [0]


@pytest.mark.parametrize("num_workers", [0, 3])
def test_a_broken_item_is_raised_in_its_place_and_ends_the_threads(num_workers: int) -> None:
    keys = [[(11, 0)], [(12, 1), (13, 2), (14, 3)], [(15, 4)]]
    loaded = load_batches(Numbers(), keys, collate_fn=collate, num_workers=num_workers, device=CPU)
    assert next(loaded)["index"].tolist() == [11]
    with pytest.raises(ValueError, match="item 13 is broken"):
        next(loaded)
    assert _threads() == 0


def _damage_frame(movie: Path) -> None:
    offset = int(PacketIndex.load(movie.with_suffix(".index.npz")).frame_offsets[400])
    content = bytearray(movie.read_bytes())
    content[offset : offset + 2] = b"\0\0"
    movie.write_bytes(content)


def _truncate(movie: Path) -> None:
    movie.write_bytes(movie.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_damage_frame, r"frame 400 of P01/b \(25\.000 s\) is damaged"),
        (
            lambda movie: movie.write_bytes(movie.read_bytes()[:-1000]),
            r"truncated .* \(asked for P01/b from 2\d\.\d+ s\)",
        ),
        (Path.unlink, r"cannot be opened: No such file .* \(asked for P01/b from 2\d\.\d+ s\)"),
    ],
    ids=["damaged picture", "truncated movie", "missing movie"],
)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_in_training_damage_is_told_with_video_time_and_file(
    store: PreparedStore, damage: Callable[[Path], None], reason: str, num_workers: int
) -> None:
    places = [("a", 5.0), ("a", 24.8), ("P01/b", 5.0), ("P01/b", 24.8)]
    clips = ActionClips(
        store, [ActionRecord(f"{name} {start}", name, start, start + 0.5, "P01", {"verb": 0}) for name, start in places]
    )
    damage(store.root / "videos" / "P01" / "b.mov")
    keys = [[(0, 0), (1, 0)], [(0, 0), (3, 0)]]
    loaded = load_batches(clips, keys, collate_fn=collate, num_workers=num_workers, device=CPU)
    assert next(loaded)["index"].tolist() == [0, 1]
    with pytest.raises(StoreError, match=rf"P01/b\.mov: .*{reason}"):
        next(loaded)
    assert not [p for p in multiprocessing.active_children() if p.name.startswith("earmark-")]


@pytest.mark.gpu
@pytest.mark.parametrize("num_workers", [0, 2])
def test_on_a_gpu_the_same_batches_arrive(store: PreparedStore, num_workers: int) -> None:
    clips, device = MomentClips(store), torch.device("cuda", 0)
    keys = [batch for epoch in range(20) for batch in EpochBatches(len(clips), 2, seed=5, epoch=epoch)]
    assert clips.read_batch(keys[0], pin_memory=True)["video_before"].is_pinned()
    loaded = load_batches(clips, keys, collate_fn=collate, num_workers=num_workers, device=device)
    for number, batch in enumerate(loaded):
        torch.cuda._sleep(1_000_000)  # so that copies run ahead of what is queued here
        for name, tensor in collate([clips[key] for key in keys[number]]).items():
            assert batch[name].device == device
            assert torch.equal(batch[name].cpu(), tensor), name
