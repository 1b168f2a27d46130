import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from earmark.clips.store import PreparedStore
from earmark.datasets.records import ActionRecord, VideoRecord
from earmark.media import PacketIndex
from earmark.preparation import MomentSearch, Transcoding, prepare
from earmark.preparation.catalog import SparseStoreError, StoreError
from earmark.preparation.verifying import verify
from tests.helpers.clicking import make_video, without_sound

CLICKS = (2.0, 8.5, 9.6, 17.2, 24.9)
SEARCH = MomentSearch("replai", min_prominence=6.0)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedStore, PreparedStore]:
    """A recording prepared whole, and around its moments."""
    folder = tmp_path_factory.mktemp("sparse")
    make_video(folder / "a.mp4", seconds=26.0, times=CLICKS)
    without_sound(folder / "a.mp4", folder / "mute.mp4")
    videos = [VideoRecord(name, folder / f"{name}.mp4", "train") for name in ("a", "mute")]
    # noise has peaks too: only the clicks are to be moments
    prepare(videos, folder / "whole", search=SEARCH, progress=False)
    prepare(videos, folder / "sparse", transcoding=Transcoding(around="moments"), search=SEARCH, progress=False)
    return PreparedStore(folder / "whole"), PreparedStore(folder / "sparse")


def test_around_moments_everything_is_as_in_the_whole(stores: tuple[PreparedStore, PreparedStore]) -> None:
    whole, sparse = stores
    np.testing.assert_array_equal(sparse.moments["a"], whole.moments["a"])
    np.testing.assert_allclose(whole.moments["a"], CLICKS, atol=0.03)
    for moment in whole.moments["a"]:
        last = whole.videos["a"].duration_seconds - 1 / 16
        times = np.clip(moment + np.linspace(-1, 1, 33), 0, last)
        np.testing.assert_array_equal(sparse.frames("a", times), whole.frames("a", times))
        start = moment - 1.0
        np.testing.assert_array_equal(sparse.sound("a", start, 32000), whole.sound("a", start, 32000))


def test_what_lies_between_is_not_in_the_file(stores: tuple[PreparedStore, PreparedStore]) -> None:
    whole, sparse = stores
    row, dense = sparse.videos["a"], whole.videos["a"]
    assert row.duration_seconds == dense.duration_seconds
    kept_seconds = 4 * (2.0 + 3 / 16) + 1.1  # two of the five windows are one; the last one ends with the recording
    assert row.num_frames / 16 == pytest.approx(kept_seconds - 0.1, abs=0.3)
    assert row.num_bytes < 0.5 * dense.num_bytes
    for time in (4.5, 13.0, 20.0):
        with pytest.raises(StoreError, match=rf"nothing of video 'a' is kept at {time:.3f} s.*only 1.0 s on each side"):
            sparse.frames("a", [time])
        with pytest.raises(StoreError, match="nothing of video 'a' is kept"):
            sparse.sound("a", time, 100)
    with pytest.raises(StoreError, match="nothing of video 'a' is kept"):
        sparse.sound("a", 2.0, 32000)  # begins within a window and ends outside
    with pytest.raises(StoreError, match="lies outside video 'a'"):
        sparse.frames("a", [27.0])


def test_a_source_with_nothing_to_keep_is_refused_by_name(stores: tuple[PreparedStore, PreparedStore]) -> None:
    row = next(video for video in stores[1].catalog if video.video_id == "mute")
    assert row.status == "refused"
    assert row.reason == "nothing to keep around moments: no sound stream: left out of pretraining"


def test_the_windows_outlive_the_index(stores: tuple[PreparedStore, PreparedStore]) -> None:
    path = stores[1].root / "videos" / "a.index.npz"
    before = PacketIndex.load(path)
    assert len(before.windows) == 4
    assert PacketIndex.of_file(path.with_name("a.mov")).windows.tolist() == before.windows.tolist()
    assert PacketIndex.of_file(stores[0].root / "videos" / "a.mov").windows.tolist() == [
        [0, stores[0].videos["a"].num_frames, 0, stores[0].videos["a"].num_samples]
    ]


def test_training_clips_are_those_of_the_whole(stores: tuple[PreparedStore, PreparedStore]) -> None:
    pytest.importorskip("torch", reason="clips need torch, preparing does not")
    from earmark.clips.dataset import MomentClips

    clips = [MomentClips(store) for store in stores]
    assert len(clips[0]) == len(clips[1])
    for key in ((index, seed) for index in range(len(clips[0])) for seed in range(4)):
        one, other = (data[key] for data in clips)
        for name in ("video_before", "video_after", "audio"):
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
    ("lengths", "needed_seconds"),
    [
        ({"clip_seconds": 1.0}, 1.1),
        ({"gap_seconds": 0.6}, 1.1),
        ({"audio_seconds": 2.5}, 1.25),
        ({"gap_seconds": 0.0, "clip_seconds": 2.0}, 2.0),
    ],
)
def test_clips_that_reach_past_what_was_kept_are_refused(
    stores: tuple[PreparedStore, PreparedStore], lengths: dict[str, float], needed_seconds: float
) -> None:
    pytest.importorskip("torch", reason="clips need torch, preparing does not")
    from earmark.clips.dataset import MomentClips

    MomentClips(stores[0], **lengths)
    with pytest.raises(
        SparseStoreError, match=r"sparse: holds only 1 s on .*, less than .* gap and clip are"
    ) as caught:
        MomentClips(stores[1], **lengths)
    assert caught.value.needed_seconds == pytest.approx(needed_seconds)
    MomentClips(stores[1], gap_seconds=0.1, clip_seconds=0.9, audio_seconds=2.0)  # just as much as was kept


def test_random_moments_are_refused_where_only_moments_were_kept(stores: tuple[PreparedStore, PreparedStore]) -> None:
    pytest.importorskip("torch", reason="clips need torch, preparing does not")
    from earmark.clips.dataset import MomentClips

    MomentClips(stores[0], moments="random")
    needs = r"sparse: holds only 1 s on each side of each audible moment; random moments need the whole videos$"
    with pytest.raises(SparseStoreError, match=needs):
        MomentClips(stores[1], moments="random")


def test_every_usable_clip_of_just_what_was_kept_can_be_read(stores: tuple[PreparedStore, PreparedStore]) -> None:
    pytest.importorskip("torch", reason="clips need torch, preparing does not")
    from earmark.clips.dataset import MomentClips

    options = {"gap_seconds": 0.5, "clip_seconds": 0.5, "audio_seconds": 2.0}
    whole, sparse = (MomentClips(store, **options) for store in stores)
    for key in ((index, seed) for index in range(len(whole)) for seed in range(8)):
        np.testing.assert_array_equal(sparse[key]["video_after"], whole[key]["video_after"])
        np.testing.assert_array_equal(sparse[key]["video_before"], whole[key]["video_before"])
        np.testing.assert_array_equal(sparse[key]["audio"], whole[key]["audio"])


def test_clips_of_actions_need_whole_videos(stores: tuple[PreparedStore, PreparedStore]) -> None:
    pytest.importorskip("torch", reason="clips need torch, preparing does not")
    from earmark.clips.action_clips import ActionClips

    actions = [ActionRecord("x", "a", 1.8, 2.6, "P01", {"verb": 1})]
    assert len(ActionClips(stores[0], actions)) == 1
    needs = r"sparse: holds only 1 s on each side of each moment; clips of actions need the whole videos$"
    with pytest.raises(SparseStoreError, match=needs) as caught:
        ActionClips(stores[1], actions)
    assert caught.value.needed_seconds is None


def test_frames_in_any_order_are_found_through_the_windows(stores: tuple[PreparedStore, PreparedStore]) -> None:
    whole, sparse = stores
    windows = PacketIndex.load(sparse.root / "videos" / "a.index.npz").windows
    kept = np.concatenate([np.arange(first, first + count) for first, count in windows[:, :2]])
    times = np.random.default_rng(0).permutation(kept) / sparse.fps
    np.testing.assert_array_equal(sparse.frames("a", times), whole.frames("a", times))
    for number in np.setdiff1d(np.arange(whole.videos["a"].num_frames), kept):
        with pytest.raises(StoreError, match="nothing of video 'a' is kept"):
            sparse.frames("a", [number / sparse.fps])


def test_sound_before_the_recording_is_silence_and_between_windows_an_error(
    stores: tuple[PreparedStore, PreparedStore],
) -> None:
    whole, sparse = stores
    for _, _, first, count in PacketIndex.load(sparse.root / "videos" / "a.index.npz").windows.tolist():
        rate = sparse.sample_rate
        np.testing.assert_array_equal(sparse.sound("a", first / rate, count), whole.sound("a", first / rate, count))
        for start in (first - 1, first + 1):
            with pytest.raises(StoreError, match="nothing of video 'a' is kept"):
                sparse.sound("a", start / rate, count)
    assert not sparse.sound("a", -2.0, 16000).any()


def test_the_time_of_damage_is_that_of_the_recording(
    tmp_path: Path, stores: tuple[PreparedStore, PreparedStore]
) -> None:
    shutil.copytree(stores[1].root, tmp_path / "store")
    store = PreparedStore(tmp_path / "store")
    path = store.root / "videos" / "a.mov"
    index = PacketIndex.load(path.with_suffix(".index.npz"))
    place = int(index.windows[0, 1]) + 3  # in the second window
    content = bytearray(path.read_bytes())
    content[int(index.frame_offsets[place]) + 400] ^= 1
    path.write_bytes(content)
    seconds = (int(index.windows[1, 0]) + 3) / store.fps
    with pytest.raises(StoreError, match=rf"a\.mov: frame \d+ of a \({seconds:.3f} s\) is damaged"):
        store.frames("a", [seconds])
    assert f"({seconds:.3f} s)" in verify(store.root, progress=False).faults[0].reason


@pytest.mark.parametrize("name", ["chopping.mp4", "pancake.mkv", "kinetics_segway.mp4"])
def test_real_clips_are_kept_around_their_moments_as_in_the_whole(media: Path, tmp_path: Path, name: str) -> None:
    videos = [VideoRecord("a", media / name, "train")]
    search = MomentSearch("replai", min_prominence=1.5)
    prepare(videos, tmp_path / "whole", search=search, progress=False)
    prepare(
        videos,
        tmp_path / "sparse",
        transcoding=Transcoding(around="moments", around_seconds=0.2),
        search=search,
        progress=False,
    )
    whole, sparse = PreparedStore(tmp_path / "whole"), PreparedStore(tmp_path / "sparse")
    assert sparse.videos["a"].num_frames < whole.videos["a"].num_frames
    for moment in whole.moments["a"]:
        times = np.clip(moment + np.linspace(-0.2, 0.2, 7), 0, whole.videos["a"].duration_seconds - 1 / 16)
        np.testing.assert_array_equal(sparse.frames("a", times), whole.frames("a", times))
        np.testing.assert_array_equal(sparse.sound("a", moment - 0.2, 6400), whole.sound("a", moment - 0.2, 6400))


def test_a_picture_that_ends_before_its_sound_is_kept_as_far_as_it_goes(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="clips need torch, preparing does not")
    from earmark.clips.dataset import MomentClips

    # Off 10 s, where two segments meet: muxers differ by the delay of the sound encoder (23 ms) in where they put it.
    make_video(tmp_path / "a.mp4", seconds=13.0, times=(2.0, 6.0, 11.0))
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "b.mkv"), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None and (packet.stream.type == "audio" or packet.pts * packet.time_base < 6.0):
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    report = prepare(
        [VideoRecord("b", tmp_path / "b.mkv", "train")],
        tmp_path / "store",
        transcoding=Transcoding(around="moments"),
        search=SEARCH,
        progress=False,
    )
    assert report.videos[0].duration_seconds == pytest.approx(6.0, abs=0.2)
    store = PreparedStore(tmp_path / "store")
    assert store.frames("b", [5.5]).shape[0] == 1
    assert np.abs(store.sound("b", 10.5, 16000)).max() > 2000  # its sound is there
    assert [time for _, time in (MomentClips(store).moment_of(0, seed) for seed in range(8))] == pytest.approx(
        [2.0] * 8, abs=0.03
    )


def test_the_number_of_decoder_threads_changes_nothing(tmp_path: Path, media: Path) -> None:
    for workers in (1, 3):  # one video: the others help as threads
        prepare(
            [VideoRecord("a", media / "pancake.mkv", "train")],
            tmp_path / str(workers),
            num_workers=workers,
            progress=False,
        )
    assert (tmp_path / "1/videos/a.mov").read_bytes() == (tmp_path / "3/videos/a.mov").read_bytes()
