"""Audible Kitchen: the same for the same seed, restartable, and true to its tables in picture and in sound."""

import csv
import hashlib
import itertools
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from earmark.kitchen import (
    NOUNS,
    PRESETS,
    TRANSITIONS,
    VERBS,
    Difficulty,
    KitchenError,
    KitchenSize,
    make_kitchen,
    seconds_to_make,
    writing,
)
from earmark.kitchen.picture import Picture
from earmark.kitchen.room import Thing
from earmark.kitchen.script import LOOKS, write_script
from earmark.kitchen.writing import draw_video
from earmark.media import FrameReader, SoundReader, VideoWriter, media_info
from earmark.moments import find_moments

SMALL = KitchenSize(3, 1, 5, width=96, height=64, fps=8, sample_rate=16000)
TRUE = KitchenSize(3, 2, 30, width=228, height=128, fps=16, sample_rate=48000)
TRUE_SEED = 26
CALM = Difficulty(silent_share=0.0, off_screen_share=0.0)
CSV_HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)


@dataclass(frozen=True)
class Made:
    """A finished kitchen, its events, and its decoded sound by video."""

    path: Path
    events: list[dict[str, Any]]
    videos: list[tuple[int, int, Path]]

    def sound(self, path: Path) -> np.ndarray:
        return np.concatenate(list(SoundReader(path)))

    def of_video(self, path: Path) -> list[dict[str, Any]]:
        return [event for event in self.events if event["video_id"] == path.stem]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("kitchen") / "k"
    make_kitchen(path, size=TRUE, seed=TRUE_SEED, progress=False)
    videos = [(k, v, path / f"P{k + 1:02d}/videos/P{k + 1:02d}_{v + 1:02d}.MP4") for k in range(3) for v in range(2)]
    return Made(path, pq.read_table(path / "events.parquet").to_pylist(), videos)


def decoded(path: Path) -> tuple[np.ndarray, np.ndarray]:
    frames = np.stack([frame for _, frame in FrameReader(path, fps=8, short_side=64)])
    return frames, np.concatenate(list(SoundReader(path)))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_frames_and_samples_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    make_kitchen(tmp_path / "one", size=SMALL, progress=False)
    make_kitchen(tmp_path / "two", size=SMALL, num_workers=2, progress=False)
    make_kitchen(tmp_path / "other", size=SMALL, seed=1, progress=False)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    for path in sorted((tmp_path / "one").rglob("*.MP4")):
        frames, sound = decoded(path)
        same_frames, same_sound = decoded(tmp_path / "two" / path.relative_to(tmp_path / "one"))
        np.testing.assert_array_equal(frames, same_frames)
        np.testing.assert_array_equal(sound, same_sound)
        other_frames, other_sound = decoded(tmp_path / "other" / path.relative_to(tmp_path / "one"))
        assert (frames != other_frames).mean() > 0.5
        assert (sound != other_sound).mean() > 0.5
    assert pq.read_table(tmp_path / "one/events.parquet").equals(pq.read_table(tmp_path / "two/events.parquet"))


def test_an_interrupted_kitchen_resumes_to_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_kitchen(tmp_path / "whole", size=SMALL, progress=False)
    cut = tmp_path / "cut"
    num_frames = 0
    write_frame = VideoWriter.write_frame

    def stop_in_second_video(writer: VideoWriter, frame: Any) -> None:
        nonlocal num_frames
        num_frames += 1
        if num_frames > 60:
            raise KeyboardInterrupt
        write_frame(writer, frame)

    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "write_frame", stop_in_second_video)
        with pytest.raises(KeyboardInterrupt):
            make_kitchen(cut, size=SMALL, progress=False)
    assert [path.name for path in cut.rglob("*.MP4")] == ["P01_01.MP4"]
    assert not (cut / "events.parquet").exists()
    first_written = (cut / "P01/videos/P01_01.MP4").stat().st_mtime_ns
    assert make_kitchen(cut, size=SMALL, progress=False).num_new_videos == 2
    assert (cut / "P01/videos/P01_01.MP4").stat().st_mtime_ns == first_written
    assert make_kitchen(cut, size=SMALL, progress=False).num_new_videos == 0
    assert files(cut) == files(tmp_path / "whole")
    for name in files(cut):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_run_that_another_one_overtakes_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_frames = 0
    write_frame = VideoWriter.write_frame

    def overtaken_in_second_video(writer: VideoWriter, frame: Any) -> None:
        nonlocal num_frames
        num_frames += 1
        if num_frames == 60:
            make_kitchen(tmp_path / "k", size=SMALL, progress=False)
        write_frame(writer, frame)

    monkeypatch.setattr(VideoWriter, "write_frame", overtaken_in_second_video)
    assert make_kitchen(tmp_path / "k", size=SMALL, progress=False).num_new_videos == 3
    monkeypatch.undo()
    make_kitchen(tmp_path / "whole", size=SMALL, progress=False)
    assert files(tmp_path / "k") == files(tmp_path / "whole")
    for name in files(tmp_path / "k"):
        assert (tmp_path / "k" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_lost_video_is_made_again(tmp_path: Path) -> None:
    make_kitchen(tmp_path, size=SMALL, progress=False)
    lost = tmp_path / "P02/videos/P02_01.MP4"
    content = lost.read_bytes()
    lost.unlink()
    assert make_kitchen(tmp_path, size=SMALL, progress=False).num_new_videos == 1
    assert lost.read_bytes() == content


def test_folders_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(KitchenError, match="not empty, and not a kitchen"):
        make_kitchen(tmp_path, size=SMALL, progress=False)
    assert files(tmp_path) == ["thesis.tex"]
    with pytest.raises(KitchenError, match="not a folder"):
        make_kitchen(tmp_path / "thesis.tex", size=SMALL, progress=False)
    (tmp_path / "kitchen.json").write_text("[1")
    with pytest.raises(KitchenError, match=r"kitchen\.json: not the description"):
        make_kitchen(tmp_path, size=SMALL, progress=False)


def test_a_kitchen_of_other_options_is_refused_by_their_names(tmp_path: Path) -> None:
    size = replace(SMALL, num_kitchens=1)
    make_kitchen(tmp_path, size=size, progress=False)
    with pytest.raises(KitchenError, match="seed is 0, not 7, fps is 8, not 10"):
        make_kitchen(tmp_path, size=replace(size, fps=10), seed=7, progress=False)


def test_an_idle_share_that_is_not_the_usual_is_one_of_the_options(tmp_path: Path) -> None:
    size = replace(SMALL, num_kitchens=1, videos_per_kitchen=1)
    make_kitchen(tmp_path / "usual", size=size, difficulty=Difficulty(), progress=False)
    make_kitchen(tmp_path / "idle", size=size, difficulty=Difficulty(idle_share=0.8), progress=False)
    assert json.loads((tmp_path / "idle/kitchen.json").read_text())["idle_share"] == 0.8
    with pytest.raises(KitchenError, match=r"idle_share is 0\.52, not 0\.8"):
        make_kitchen(tmp_path / "usual", size=size, difficulty=Difficulty(idle_share=0.8), progress=False)
    with pytest.raises(KitchenError, match=r"idle_share is 0\.8, not 0\.52"):
        make_kitchen(tmp_path / "idle", size=size, difficulty=Difficulty(), progress=False)
    with pytest.raises(KitchenError, match=r"idle_share=0\.9: must be from 0\.2 to 0\.8"):
        Difficulty(idle_share=0.9)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"preset": "huge"}, "preset=huge: must be one of demo, tiny"),
        ({"num_workers": 0}, "num_workers=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(KitchenError, match=re.escape(reason)):
        make_kitchen(tmp_path / "k", **options)
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_kitchens": 0}, "num_kitchens=0: must be from 1 to 99"),
        ({"video_seconds": 2}, "video_seconds=2: must be from 5 to 3600"),
        ({"video_seconds": float("nan")}, "video_seconds=nan"),
        ({"width": 101}, "width=101: H.264 needs an even size"),
        ({"sample_rate": 12345}, "sample_rate=12345: must be one of"),
    ],
)
def test_a_size_out_of_bounds_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(KitchenError, match=re.escape(reason)):
        replace(SMALL, **options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"silent_share": 1.5}, "silent_share=1.5: must be from 0 to 1"),
        ({"babble_share": 0.99}, "babble_share=0.99: must be from 0 to 0.95"),
        ({"noise_db": -70}, "noise_db=-70: must be from -60 to 30"),
    ],
)
def test_a_difficulty_out_of_bounds_is_refused(options: dict[str, float], reason: str) -> None:
    with pytest.raises(KitchenError, match=re.escape(reason)):
        Difficulty(**options)


def test_scripts_never_break_the_chain_of_states() -> None:
    verbs, nouns = set(), set()
    for seed in range(40):
        script = write_script(np.random.default_rng(seed), duration_seconds=60, difficulty=CALM)
        states, free = dict(script.initial), 0.0
        for event in script.events:
            assert event.before == states[event.thing]
            assert any(
                (s.verb, s.noun, s.after) == (event.verb, event.noun, event.after)
                for s in TRANSITIONS[event.thing]
                if s.before == event.before
            )
            assert free <= event.start_seconds < event.contact_seconds - 0.55
            assert event.contact_seconds + 0.55 < event.stop_seconds <= 60
            assert 1.2 <= event.stop_seconds - event.start_seconds <= 2.95
            assert script.look(event.thing, event.start_seconds) == LOOKS[event.before]
            assert script.look(event.thing, event.stop_seconds) == LOOKS[event.after]
            states[event.thing], free = event.after, event.stop_seconds
        busy = sum(event.stop_seconds - event.start_seconds for event in script.events)
        assert 0.4 <= 1 - busy / 60 <= 0.6
        verbs |= {event.verb for event in script.events}
        nouns |= {event.noun for event in script.events}
    assert verbs == set(VERBS)
    assert nouns == set(NOUNS)


def test_annotations_have_the_columns_and_formats_of_epic_kitchens(made: Made) -> None:
    folder = made.path / "annotations"
    by_id = {event["event_id"]: event for event in made.events}
    listed = []
    for split in ("train", "validation"):
        text = (folder / f"EPIC_100_{split}.csv").read_text()
        assert text.splitlines()[0] == CSV_HEADER
        assert "\r" not in text
        for row in rows_of(folder / f"EPIC_100_{split}.csv"):
            event = by_id[row["narration_id"]]
            listed.append(row["narration_id"])
            assert re.fullmatch(r"P\d\d_\d\d_\d+", row["narration_id"])
            assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", row["narration_timestamp"])
            for name, seconds in (("start", "onset_seconds"), ("stop", "offset_seconds")):
                hours, minutes, rest = row[f"{name}_timestamp"].split(":")
                assert re.fullmatch(r"\d\d\.\d\d", rest)
                time = int(hours) * 3600 + int(minutes) * 60 + float(rest)
                assert time == pytest.approx(event[seconds], abs=1e-9)
                assert int(row[f"{name}_frame"]) == max(1, int(time * 16 + 1e-6))
            assert (row["verb"], row["noun"]) == (VERBS[int(row["verb_class"])], NOUNS[int(row["noun_class"])])
            assert row["narration"] == f"{row['verb'].replace('-', ' ')} {row['noun']}"
            assert row["all_nouns"] == f"['{row['noun']}']"
            assert row["all_noun_classes"] == f"[{row['noun_class']}]"
    assert sorted(listed) == sorted(event["event_id"] for event in made.events if event["on_screen"])
    for kind, names in (("verb", VERBS), ("noun", NOUNS)):
        classes = rows_of(folder / f"EPIC_100_{kind}_classes.csv")
        assert list(classes[0]) == ["id", "key", "instances", "category"]
        assert [(int(row["id"]), row["key"]) for row in classes] == list(enumerate(names))
    for row in rows_of(folder / "EPIC_100_video_info.csv"):
        info = media_info(made.path / row["video_id"][:3] / "videos" / f"{row['video_id']}.MP4")
        assert info.video is not None
        assert info.duration_seconds == pytest.approx(float(row["duration"]), abs=0.05)
        assert (info.video.fps, f"{info.video.width}x{info.video.height}") == (float(row["fps"]), row["resolution"])


def test_validation_holds_other_videos_of_seen_kitchens_and_an_unseen_kitchen(made: Made) -> None:
    folder = made.path / "annotations"
    videos = {
        split: {row["video_id"] for row in rows_of(folder / f"EPIC_100_{split}.csv")}
        for split in ("train", "validation")
    }
    assert videos == {"train": {"P01_01", "P02_01"}, "validation": {"P01_02", "P02_02", "P03_01", "P03_02"}}
    assert (folder / "EPIC_100_unseen_participant_ids_validation.csv").read_text() == "participant_id\nP03\n"


def test_silent_and_off_screen_events_are_told_in_the_table(tmp_path: Path) -> None:
    size = replace(SMALL, num_kitchens=1, video_seconds=60)
    make_kitchen(tmp_path, size=size, difficulty=Difficulty(silent_share=1.0, off_screen_share=0.5), progress=False)
    events = pq.read_table(tmp_path / "events.parquet").to_pylist()
    off_screen = [event for event in events if not event["on_screen"]]
    silent = [event for event in events if not event["audible"]]
    assert off_screen
    assert all(event["verb_class"] == -1 and event["audible"] for event in off_screen)
    assert {event["verb"] for event in events if event["audible"]} <= {"", "turn-on", "turn-off", "pour"}
    assert silent
    assert all(event["loudness_db"] is None for event in silent)
    listed = {row["narration_id"] for row in rows_of(tmp_path / "annotations/EPIC_100_train.csv")}
    assert listed == {event["event_id"] for event in events if event["on_screen"]}
    sound = np.concatenate(list(SoundReader(tmp_path / "P01/videos/P01_01.MP4")))
    heard = np.array([event["point_of_no_return_seconds"] for event in events if event["audible"]])
    alone = [e for e in silent if np.abs(heard - e["point_of_no_return_seconds"]).min() > 1.0]
    assert alone
    for event in alone:
        around = round(event["point_of_no_return_seconds"] * 16000) + np.arange(-800, 800)
        assert np.abs(sound[around]).max() < 0.12


def test_sound_onsets_in_the_encoded_file_agree_with_the_truth(made: Made) -> None:
    errors = []
    for _, _, path in made.videos:
        power = made.sound(path) ** 2
        for event in made.of_video(path):
            if not event["audible"] or event["loudness_db"] < -22:
                continue
            contact = round(event["point_of_no_return_seconds"] * 48000)
            around = np.convolve(power[contact - 4800 : contact + 2400], np.ones(48) / 48, "same")
            onset = np.argmax(around > 0.2 * around[4800:].max())
            errors.append((onset - 4800) / 48000)
    assert len(errors) >= 20
    assert np.abs(errors).max() < 0.010


def test_the_original_detector_finds_the_events(made: Made) -> None:
    num_events = num_found = 0
    for _, _, path in made.videos:
        times = np.array([moment.time_seconds for moment in find_moments(made.sound(path), 48000, detector="replai")])
        for event in made.of_video(path):
            if event["audible"] and event["on_screen"]:
                num_events += 1
                num_found += bool((np.abs(times - event["point_of_no_return_seconds"]) <= 0.1).any())
    assert num_found >= 0.8 * num_events


def focus(thing: Thing) -> tuple[float, float, float]:
    """Return (x, y, half side) of the square in which a thing's states differ most."""
    places = {
        "drawer": (thing.x, 1.7, 0.16),
        "cupboard": (thing.x + 0.08, 0.3, 0.12),
        "fridge": (thing.x + 0.08, 0.9, 0.12),
        "oven": (thing.x, 1.6, 0.12),
        "cloth": (thing.x, thing.y, 0.06),
        "tap": (thing.x, 1.06, 0.06),
        "kettle": (thing.x, thing.y + 0.1 * thing.size, 0.03),
        "cup": (thing.x, thing.y, 0.05),
        "jar": (thing.x, thing.y, 0.05),
        "bread": (thing.x + 0.06, thing.y + 0.01, 0.06),
        "spoon": (thing.x, thing.y, 0.05),
        "peeler": (thing.x, thing.y, 0.06),
        "sponge": (thing.x, thing.y, 0.05),
    }
    return places.get(thing.name, (thing.x, thing.y, 0.08))


def patch(image: np.ndarray, matrix: np.ndarray, thing: Thing) -> np.ndarray | None:
    """Return the focus of a thing cut out of an image, float32 (24, 24, 3); None where it is not wholly in view."""
    x, y, half = focus(thing)
    corners = np.array([(x - half, y - half), (x + half, y + half), (x - half, y + half), (x + half, y - half)])
    pixels = corners @ matrix[:, :2].T + matrix[:, 2]
    if (pixels < 2).any() or (pixels > np.array(image.shape[1::-1]) - 3).any():
        return None
    to_world = cv2.invertAffineTransform(matrix)
    to_patch = np.array([[12 / half, 0, 12 - 12 * x / half], [0, 12 / half, 12 - 12 * y / half]])
    whole = np.vstack([to_world, [0, 0, 1]])
    return cv2.warpAffine(image, to_patch @ whole, (24, 24), flags=cv2.INTER_AREA).astype(np.float32)


def unlikeness(seen: np.ndarray, expected: np.ndarray) -> float:
    """Return the mean difference of two patches, but for the exposure."""
    return float(np.abs(seen * ((seen * expected).sum() / (seen * seen).sum()) - expected).mean())


def replay(made: Made, kitchen: int, video: int) -> tuple[Any, Any, Picture]:
    room, script, of_picture, _ = draw_video(
        TRUE_SEED, kitchen, video, duration_seconds=TRUE.video_seconds, difficulty=Difficulty()
    )
    return room, script, Picture(room, script, of_picture, width=228, height=128, fps=16)


def test_states_are_seen_in_the_encoded_file_before_and_after_each_action(made: Made) -> None:
    num_seen = num_right = 0
    for kitchen, video, path in made.videos:
        room, script, picture = replay(made, kitchen, video)
        frames = [frame for _, frame in FrameReader(path, fps=16, short_side=128)]
        for event in (event for event in script.events if event.on_screen):
            thing = room.things[event.thing]
            looks = {name: script.look(name, event.start_seconds) for name in room.things}
            scale = np.array([[picture.scene_scale, 0, 0], [0, picture.scene_scale, 0.0]])
            expected = [
                patch(picture.scene({**looks, event.thing: LOOKS[state]}), scale, thing)
                for state in (event.before, event.after)
            ]
            assert np.abs(expected[0] - expected[1]).mean() > 5, f"{event.verb} {event.noun} can't be seen"
            start, stop = event.start_seconds, event.stop_seconds
            for time, answer in ((start + 0.1, 0), (start + 0.2, 0), (stop, 1), (stop + 0.15, 1)):
                frame = min(round(time * 16), len(frames) - 2)
                if np.hypot(*(picture.camera(frame + 1) - picture.camera(frame))[:, 2]) > 2:
                    continue  # blurred by a turn of the head
                seen = patch(frames[frame], picture.camera(frame), thing)
                if seen is not None:
                    num_seen += 1
                    num_right += int(np.argmin([unlikeness(seen, each) for each in expected])) == answer
    assert num_seen >= 30
    assert num_right >= 0.95 * num_seen


def test_the_picture_changes_within_a_frame_of_the_contact(made: Made) -> None:
    errors = []
    for kitchen, video, path in made.videos:
        room, script, picture = replay(made, kitchen, video)
        frames = [frame for _, frame in FrameReader(path, fps=16, short_side=128)]
        for event in (event for event in script.events if event.thing == "hob"):  # the hand never hides the ring
            around = range(int((event.contact_seconds - 0.4) * 16), int((event.contact_seconds + 0.4) * 16))
            patches = [patch(frames[frame], picture.camera(frame), room.things["hob"]) for frame in around]
            if any(each is None for each in patches):
                continue
            jumps = [np.abs(b - a).mean() for a, b in itertools.pairwise(patches)]
            errors.append((around[int(np.argmax(jumps)) + 1] / 16) - event.contact_seconds)
    assert len(errors) >= 2
    assert min(errors) >= 0
    assert max(errors) < 1 / 16


def test_options_and_seed_are_written_down(made: Made) -> None:
    description = json.loads((made.path / "kitchen.json").read_text())
    assert description["version"] == writing.VERSION
    assert description["seed"] == TRUE_SEED
    usual = asdict(Difficulty())
    assert usual.pop("idle_share") == 0.52  # as that of kitchens made before there was the option, whose bytes stay
    assert description | asdict(TRUE) | usual == description
    assert "idle_share" not in description


def test_a_seed_gives_what_it_always_gave(tmp_path: Path) -> None:
    """Files of text that commit e2cc9bf wrote; pictures and sound are left out, since encoders change by version."""
    size = KitchenSize(3, 2, 20, width=64, height=64, fps=8, sample_rate=16000)
    make_kitchen(tmp_path, preset="small", size=size, seed=11, progress=False)
    hashes = {
        "kitchen.json": "21e2a6eed411cccd",
        "annotations/EPIC_100_train.csv": "6bc4f6be1c36763d",
        "annotations/EPIC_100_validation.csv": "eb7320e8078067b5",
        "ego4d/v1/annotations/fho_lta_train.json": "78790de573c756a8",
        "ego4d/ego4d.json": "4a105d51b667c06b",
    }
    for name, expected in hashes.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest().startswith(expected), name


def test_the_time_to_come_is_that_of_the_frames_of_the_worker_with_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which 30 frames take 3 s: a tenth of a second each."""
    for num_videos, num_workers, in_turn in ((8, 1, 8), (8, 3, 3), (1, 4, 1), (0, 2, 0)):
        seconds = iter([10.0, 13.0])
        monkeypatch.setattr("earmark.kitchen.writing.time.perf_counter", lambda: next(seconds))  # noqa: B023
        size = PRESETS["tiny"].size
        found = seconds_to_make("tiny", num_videos=num_videos, num_workers=num_workers)
        assert found == pytest.approx(0.1 * in_turn * size.video_seconds * size.fps)


def test_where_no_terminal_is_a_line_tells_how_many_videos_are_made_and_the_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 4.0, 20.0, 30.0])  # begun, and after each of three videos
    monkeypatch.setattr("earmark.kitchen.writing.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    make_kitchen(tmp_path, size=SMALL)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kitchen: ")]
    assert lines == ["kitchen: 2/3 videos, 0:00:10 left"]
