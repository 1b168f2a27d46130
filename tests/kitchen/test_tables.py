"""The truth of a kitchen in its official forms: the very fields of the official files, and the events behind them."""

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from earmark.datasets import Ego4D, EpicKitchens, EpicSounds, Kitchen
from earmark.datasets.epic_sounds import SOUND_CLASSES
from earmark.kitchen import NOUNS, VERBS, Difficulty, KitchenSize, make_kitchen
from earmark.kitchen.ego4d_clips import video_uid
from earmark.kitchen.epic_sounds_tables import collision_class, sound_class, sound_stop
from earmark.kitchen.epic_tables import tail_classes
from earmark.kitchen.script import Event, Script, write_script
from earmark.kitchen.writing import draw_video
from earmark.media import FrameReader, SoundReader, media_info

FPS = 10
EPIC_FILES = {
    "EPIC_100_train.csv": "EPIC_100_uda_source_train.csv",  # has the train file's own columns
    **{
        name: name
        for name in (
            *("EPIC_100_validation.csv", "EPIC_100_test_timestamps.csv", "EPIC_100_verb_classes.csv"),
            *("EPIC_100_noun_classes.csv", "EPIC_100_tail_verbs.csv", "EPIC_100_tail_nouns.csv"),
            *("EPIC_100_unseen_participant_ids_validation.csv", "EPIC_100_unseen_participant_ids_test.csv"),
            *("EPIC_100_video_info.csv",),
        )
    },
}
SOUND_FILES = {
    "EPIC_Sounds_train.csv": "EPIC_Sounds_validation.csv",
    **{
        name: name
        for name in (
            *("EPIC_Sounds_validation.csv", "EPIC_Sounds_recognition_test_timestamps.csv"),
            *("sound_events_not_categorised.csv",),
        )
    },
}
DETECTION_FILE = "EPIC_Sounds_detection_test_videos.csv"
FORMATS = {
    "narration_timestamp": r"\d\d:\d\d:\d\d\.\d{3}",
    "start_timestamp": r"\d\d:\d\d:\d\d\.\d\d",
    "stop_timestamp": r"\d\d:\d\d:\d\d\.\d\d",
    "all_nouns": r"\['[\w:/ -]+'(, '[\w:/ -]+')*\]",
    "all_noun_classes": r"\[\d+(, \d+)*\]",
    "instances": r"\['.*'\]",
    "resolution": r"\d+x\d+",
    "fps": r"\d+\.\d+",
    "duration": r"\d+\.\d+",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "k"
    sizes = {"num_kitchens": 4, "videos_per_kitchen": 3, "video_seconds": 30, "width": 64, "height": 64, "fps": FPS}
    size = KitchenSize(sample_rate=16000, **sizes)
    make_kitchen(path, size=size, difficulty=Difficulty(off_screen_share=0.3), seed=5, progress=False)
    return path


@pytest.fixture(scope="module")
def events(made: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(made / "events.parquet").to_pylist()
    return rows


@pytest.fixture(scope="module")
def sounds(made: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(made / "sounds.parquet").to_pylist()
    return rows


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def seconds(timestamp: str) -> float:
    hours, minutes, rest = timestamp.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


# --- splits ---


def test_each_split_has_other_videos_and_a_kitchen_that_training_never_sees(made: Path) -> None:
    kitchen = Kitchen(made)
    splits = {split: {video.video_id for video in kitchen.videos(split)} for split in kitchen.splits}
    assert splits == {
        "train": {"P01_01", "P02_01"},
        "validation": {"P01_02", "P02_02", "P03_01", "P03_02", "P03_03"},
        "test": {"P01_03", "P02_03", "P04_01", "P04_02", "P04_03"},
    }
    folder = made / "annotations"
    assert (folder / "EPIC_100_unseen_participant_ids_validation.csv").read_text() == "participant_id\nP03\n"
    assert (folder / "EPIC_100_unseen_participant_ids_test.csv").read_text() == "participant_id\nP04\n"


def test_a_single_video_is_for_training_and_no_other_split_exists(tmp_path: Path) -> None:
    sizes = {"num_kitchens": 1, "videos_per_kitchen": 1, "video_seconds": 5, "width": 64, "height": 64, "fps": 8}
    make_kitchen(tmp_path, size=KitchenSize(sample_rate=16000, **sizes), progress=False)
    assert EpicKitchens(tmp_path).splits == EpicSounds(tmp_path).splits == ("train",)
    assert {path.name for path in (tmp_path / "ego4d/v1/annotations").iterdir()} == {
        *("fho_lta_taxonomy.json", "fho_lta_train.json", "fho_oscc-pnr_train.json")
    }


def test_without_a_test_split_its_part_is_for_training(tmp_path: Path) -> None:
    sizes = {"num_kitchens": 4, "videos_per_kitchen": 3, "video_seconds": 5, "width": 64, "height": 64, "fps": 4}
    make_kitchen(tmp_path, size=KitchenSize(sample_rate=16000, **sizes), test_split=False, progress=False)
    kitchen = Kitchen(tmp_path)
    assert kitchen.splits == ("train", "validation")
    assert {video.video_id for video in kitchen.videos("validation")} == {
        *("P01_03", "P02_03", "P03_03", "P04_01", "P04_02", "P04_03")
    }
    assert len(kitchen.videos("train")) == 6


def test_idle_motions_have_a_table_of_their_own(tmp_path: Path) -> None:
    sizes = {"num_kitchens": 1, "videos_per_kitchen": 1, "video_seconds": 40, "width": 64, "height": 64, "fps": 4}
    size, difficulty = KitchenSize(sample_rate=16000, **sizes), Difficulty(idle_motion_share=0.8)
    make_kitchen(tmp_path, size=size, difficulty=difficulty, seed=3, progress=False)
    rows = pq.read_table(tmp_path / "idle_motions.parquet").to_pylist()
    _, script, _, _ = draw_video(3, 0, 0, duration_seconds=40, difficulty=difficulty)
    assert len(rows) >= 3
    assert [(row["motion"], row["object"], row["start_seconds"], row["stop_seconds"]) for row in rows] == [
        (gesture.kind, gesture.thing, gesture.start_seconds, gesture.stop_seconds) for gesture in script.gestures
    ]
    assert {(row["video_id"], row["participant_id"], row["split"]) for row in rows} == {("P01_01", "P01", "train")}


# --- EPIC-KITCHENS-100 ---


@pytest.mark.parametrize("name", EPIC_FILES)
def test_epic_columns_and_formats_are_those_of_the_official_file(made: Path, annotations: Path, name: str) -> None:
    ours, official = made / "annotations" / name, annotations / "epic100" / EPIC_FILES[name]
    assert ours.read_text().splitlines()[0] == official.read_text().splitlines()[0]
    for column, pattern in FORMATS.items():
        for rows in (rows_of(ours), rows_of(official)[:200]):
            assert all(re.fullmatch(pattern, row[column]) for row in rows if column in row), column


def test_every_file_of_the_official_download_that_tasks_need_is_there(made: Path) -> None:
    names = {path.name for path in (made / "annotations").iterdir()}
    assert names == {*EPIC_FILES, *SOUND_FILES, DETECTION_FILE}


def test_test_timestamps_are_read_without_labels_and_the_events_keep_them(
    made: Path, events: list[dict[str, Any]]
) -> None:
    by_id = {event["event_id"]: event for event in events}
    for split in ("train", "validation", "test"):
        actions = EpicKitchens(made).actions(split)
        expected = [e["event_id"] for e in events if e["on_screen"] and e["split"] == split]
        assert [action.action_id for action in actions] == expected
        for action in actions:
            event = by_id[action.action_id]
            assert action.start_seconds == pytest.approx(event["onset_seconds"], abs=0.005)
            assert action.stop_seconds == pytest.approx(event["offset_seconds"], abs=0.005)
            labels = {"verb": event["verb_class"], "noun": event["noun_class"]}
            assert action.labels == ({} if split == "test" else labels)
    for row in rows_of(made / "annotations/EPIC_100_test_timestamps.csv"):
        event = by_id[row["narration_id"]]
        assert seconds(row["narration_timestamp"]) == pytest.approx(event["point_of_no_return_seconds"], abs=5e-4)


def test_the_tail_is_made_of_the_rarest_classes_up_to_a_fifth_of_the_training_instances() -> None:
    labels = [0] * 50 + [1] * 30 + [2] * 10 + [3] * 6 + [4] * 4
    assert tail_classes(labels) == [2, 3, 4]
    assert tail_classes([*labels, 2]) == [3, 4]  # 21 of 101 are more than a fifth
    assert tail_classes([]) == []


def test_tail_files_count_the_training_split_alone(made: Path, events: list[dict[str, Any]]) -> None:
    for kind, names in (("verb", VERBS), ("noun", NOUNS)):
        counts = Counter(e[f"{kind}_class"] for e in events if e["on_screen"] and e["split"] == "train")
        tail = [int(row[kind]) for row in rows_of(made / f"annotations/EPIC_100_tail_{kind}s.csv")]
        assert set(tail) <= set(counts) <= set(range(len(names)))
        assert sum(counts[label] for label in tail) <= counts.total() / 5
        head = set(counts) - set(tail)
        assert max((counts[label] for label in tail), default=0) <= min(counts[label] for label in head)


# --- EPIC-SOUNDS ---


@pytest.mark.parametrize("name", SOUND_FILES)
def test_sound_columns_and_formats_are_those_of_the_official_file(made: Path, annotations: Path, name: str) -> None:
    ours, official = made / "annotations" / name, annotations / "epic_sounds" / SOUND_FILES[name]
    assert ours.read_text().splitlines()[0] == official.read_text().splitlines()[0]
    for rows, truncation in ((rows_of(ours), 0), (rows_of(official)[:500], 1)):  # theirs lost a bit to floor
        for row in rows:
            assert re.fullmatch(r"P\d\d_\d{2,3}(_NC)?_\d+", row["annotation_id"])
            for end in ("start", "stop"):
                assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", row[f"{end}_timestamp"])
                sample = round(seconds(row[f"{end}_timestamp"]) * 24000)
                assert sample - truncation <= int(row[f"{end}_sample"]) <= sample


def test_sounds_are_read_with_their_class_and_held_back_in_the_test(made: Path, sounds: list[dict[str, Any]]) -> None:
    by_id = {sound["annotation_id"]: sound for sound in sounds}
    assert len(by_id) == len(sounds)
    num_read = 0
    for split in ("train", "validation", "test"):
        for action in EpicSounds(made).actions(split):
            sound = by_id[action.action_id]
            assert (action.start_seconds, action.stop_seconds) == (sound["start_seconds"], sound["stop_seconds"])
            assert action.labels == ({} if split == "test" else {"sound": sound["sound_class"]})
            num_read += 1
    assert num_read == sum(sound["sound_class"] >= 0 for sound in sounds)
    assert {video.video_id for video in EpicSounds(made).videos("test")} == {
        *("P01_03", "P02_03", "P04_01", "P04_02", "P04_03")
    }


def test_every_audible_event_has_its_sound_from_the_contact_on(
    events: list[dict[str, Any]], sounds: list[dict[str, Any]]
) -> None:
    by_event = {sound["event_id"]: sound for sound in sounds if sound["event_id"]}
    assert set(by_event) == {event["event_id"] for event in events if event["audible"]}
    assert any(not event["on_screen"] for event in events)
    for event in events:
        if event["audible"]:
            sound = by_event[event["event_id"]]
            assert sound["start_seconds"] == event["point_of_no_return_seconds"]
            assert 0.009 < sound["stop_seconds"] - sound["start_seconds"] <= 2.51
            if event["on_screen"]:
                assert sound["sound"] == sound_class(event["verb"], event["material"])


def test_every_material_that_meets_another_has_the_official_class() -> None:
    assert collision_class("wood", "plastic") == "plastic / wood collision"
    for verb in VERBS:
        for material in ("wood", "metal", "ceramic", "glass", "plastic", "food"):
            assert sound_class(verb, material) in {*SOUND_CLASSES, ""}


def test_the_end_of_a_sound_is_where_it_has_died_away() -> None:
    rate = 16000
    times = np.arange(3 * rate) / rate
    ring = np.where(times >= 1, np.exp(-(times - 1) / 0.1), 0) * np.sin(2 * np.pi * 440 * times)
    for hum in (0.0, 0.02):
        wave = (ring + hum * np.sin(2 * np.pi * 50 * times)).astype(np.float32)
        stop = sound_stop(wave, rate, start_seconds=1.0, limit_seconds=3.0)
        assert stop == pytest.approx(1 + 0.1 * np.log(10), abs=0.03)  # 20 dB below the first block
    assert sound_stop(wave, rate, start_seconds=1.0, limit_seconds=1.1) <= 1.1
    assert sound_stop(wave, rate, start_seconds=2.999, limit_seconds=3.0) == pytest.approx(3.009)


def test_what_is_on_sounds_from_switch_to_switch() -> None:
    calm = Difficulty(silent_share=0.0, off_screen_share=0.0, plan_share=0.9)
    script = write_script(np.random.default_rng(2), duration_seconds=600, difficulty=calm)
    turns = script.events_of("tap")
    assert turns
    spans = script.spans("tap", ("on",))
    edges = sorted({time for span in spans for time in span} - {0.0, 600})
    assert edges == [event.contact_seconds for event in turns]
    assert Script(5.0, {"tap": "on"}, ()).spans("tap", ("on",)) == [(0.0, 5.0)]
    assert Script(5.0, {"tap": "off"}, ()).spans("tap", ("on",)) == []


def test_states_that_sound_alike_are_one_sound() -> None:
    steps = (("crack", "oiled", "raw egg", 3.0), ("stir", "raw egg", "fried", 6.0), ("take", "fried", "bare", 9.0))
    events = tuple(
        Event("pan", verb, "egg", time - 0.5, time, time + 0.5, before, after, 0.0)
        for verb, before, after, time in steps
    )
    assert Script(12.0, {"pan": "oiled"}, events).spans("pan", ("raw egg", "fried")) == [(3.0, 9.0)]


def test_what_lasts_and_what_is_out_of_sight_have_their_classes(tmp_path: Path) -> None:
    from earmark.kitchen.script import OFF_SCREEN_SOUNDS

    sizes = {"num_kitchens": 1, "videos_per_kitchen": 1, "video_seconds": 60, "width": 64, "height": 64, "fps": 4}
    size, difficulty = KitchenSize(sample_rate=16000, **sizes), Difficulty(off_screen_share=1.0, babble_share=0.4)
    make_kitchen(tmp_path, size=size, difficulty=difficulty, progress=False)
    rows = pq.read_table(tmp_path / "sounds.parquet").to_pylist()
    classes = {row["description"]: row["sound"] for row in rows}
    assert classes["talk"] == "human"
    off_screen = {row["description"] for row in rows if "offscreen" in row["event_id"]}
    assert off_screen <= set(OFF_SCREEN_SOUNDS)
    assert {classes[name] for name in off_screen} & {"beep", "open / close", "wood-only collision"}
    assert all(row["event_id"] == "" for row in rows if row["description"].startswith(("running", "talk")))


# --- Ego4D ---

JSON_TYPES = {
    "string": [str],
    "number": [int, float],
    "integer": [int],
    "boolean": [bool],
    "null": [type(None)],
    "object": [dict],
    "array": [list],
}


def schema(text: str, title: str) -> list[tuple[int, str, list[str]]]:
    """Return (depth, field, types) of each line of one of the official schemas in words."""
    section = text.split(title, 1)[1].split("</details>")[0]
    found = re.findall(r"^( *)- \*\*(?:`([^`]+)`|Items)\*\*(?: *\*\((.*?)\)\*)?", section, re.MULTILINE)
    return [  # some files have an array's items at the depth of the array
        (len(indent) + (not name), name or "Items", re.findall(r"[a-z]+", types)) for indent, name, types in found
    ]


def check(value: Any, fields: list[tuple[int, str, list[str]]], *, optional: frozenset[str] = frozenset()) -> None:
    """Assert that an object has the fields of a schema and no others, each of an allowed type."""
    depth = min(indent for indent, _, _ in fields)
    names = {name for indent, name, _ in fields if indent == depth}
    assert names - optional <= set(value) <= names
    for position, (indent, name, types) in enumerate(fields):
        if indent != depth or name not in value:
            continue
        if types:
            assert type(value[name]) in [each for kind in types for each in JSON_TYPES[kind]], name
        below = []
        for line in fields[position + 1 :]:
            if line[0] <= depth:
                break
            below.append(line)
        if below and isinstance(value[name], dict):
            check(value[name], below)
        if below and isinstance(value[name], list) and below[0][1] == "Items":
            for item in value[name] if below[1:] else ():
                check(item, below[1:], optional=optional)


@pytest.fixture
def schemas(annotations: Path) -> str:
    return (annotations / "ego4d/annotations-schemas.md").read_text()


def test_the_metadata_has_the_official_fields_and_types(made: Path, schemas: str) -> None:
    fields = schema(schemas, "Metadata - ego4d.json schema")
    assert len(fields) > 100
    check(load(made / "ego4d/ego4d.json"), fields)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("split", ["train", "val", "test_unannotated"])
def test_actions_have_the_official_fields_and_types(made: Path, schemas: str, split: str, version: str) -> None:
    content = load(made / f"ego4d/{version}/annotations/fho_lta_{split}.json")
    assert content["version"] == version
    labels = frozenset({"verb", "noun", "verb_label", "noun_label"})
    check(content, schema(schemas, "fho_lta_&lt;set>.json schema"), optional=labels)
    held_back = split == "test_unannotated"
    assert content["clips"]
    assert all(labels.isdisjoint(row) if held_back else labels <= set(row) for row in content["clips"])


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("split", ["train", "val", "test_unannotated"])
def test_state_changes_have_the_official_fields_and_types(made: Path, schemas: str, split: str, version: str) -> None:
    content = load(made / f"ego4d/{version}/annotations/fho_oscc-pnr_{split}.json")
    labels = frozenset({"state_change", "clip_pnr_frame", "parent_pnr_frame", "pnr_frame"})
    check(content, schema(schemas, "fho_oscc-pnr_&lt;set>.json schema"), optional=labels)
    for row in content["clips"]:
        expected = {"state_change", "clip_pnr_frame", "parent_pnr_frame"}
        if split == "test_unannotated":
            expected = set()
        elif not row["state_change"]:
            expected = {"state_change", "pnr_frame"}
        assert labels & set(row) == expected


def test_the_taxonomy_counts_as_the_classes_do(made: Path) -> None:
    taxonomy = load(made / "ego4d/v1/annotations/fho_lta_taxonomy.json")
    assert taxonomy == {"verbs": list(VERBS), "nouns": list(NOUNS)}


def test_videos_are_linked_and_are_as_the_metadata_says(made: Path) -> None:
    for row in load(made / "ego4d/ego4d.json")["videos"]:
        assert row["video_uid"] == video_uid(5, row["origin_video_id"])
        link = made / f"ego4d/v1/full_scale/{row['video_uid']}.mp4"
        assert not link.readlink().is_absolute()
        source = made / row["origin_video_id"][:3] / "videos" / f"{row['origin_video_id']}.MP4"
        assert link.samefile(source)
        info, metadata = media_info(link), row["video_metadata"]
        assert info.video is not None
        assert info.audio is not None
        assert (info.video.fps, info.audio.sample_rate) == (metadata["fps"], metadata["audio_base_denominator"])
        assert info.duration_seconds == pytest.approx(row["duration_sec"], abs=0.07)


def test_actions_read_from_ego4d_are_the_events(made: Path, events: list[dict[str, Any]]) -> None:
    ego4d = Ego4D(made / "ego4d")
    for split in ("train", "validation", "test"):
        actions = ego4d.actions(split)
        expected = [event for event in events if event["on_screen"] and event["split"] == split]
        assert len(actions) == len(expected) > 0
        for action, event in zip(actions, expected, strict=True):
            assert action.video_id == video_uid(5, event["video_id"])
            assert action.start_seconds == pytest.approx(event["onset_seconds"], abs=5e-4)
            assert action.stop_seconds == pytest.approx(event["offset_seconds"], abs=5e-4)
            labels = {"verb": event["verb_class"], "noun": event["noun_class"]}
            assert action.labels == ({} if split == "test" else labels)


def test_state_changes_hold_a_change_at_its_frame_or_none_at_all(made: Path, events: list[dict[str, Any]]) -> None:
    ego4d = Ego4D(made / "ego4d")
    lengths = set()
    kinds: Counter[bool | None] = Counter()
    for split in ("train", "validation", "test"):
        for change in ego4d.state_changes(split):
            lengths.add(round(change.stop_seconds - change.start_seconds, 2))
            kinds[change.state_change] += 1
            times = [
                event["point_of_no_return_seconds"]
                for event in events
                if event["on_screen"] and video_uid(5, event["video_id"]) == change.video_id
                if event["state_before"] != event["state_after"]
            ]
            inside = [time for time in times if change.start_seconds <= time <= change.stop_seconds]
            if change.state_change is not None:
                assert bool(inside) == change.state_change
            if change.pnr_seconds is not None:
                assert min(abs(change.pnr_seconds - time) for time in inside) <= 1 / FPS  # start and frame are rounded
                place = (change.pnr_seconds - change.start_seconds) / (change.stop_seconds - change.start_seconds)
                assert 0 <= place <= 1
    assert lengths == {8.0}
    assert kinds[True] == kinds[False] > 0


def test_long_videos_are_cut_into_canonical_clips_of_five_minutes_with_padding() -> None:
    from earmark.kitchen.ego4d_clips import canonical_clips
    from earmark.kitchen.events import VideoFacts

    video = VideoFacts("P01_01", "P01", "train", num_frames=6600, fps=10, width=64, height=48, sample_rate=16000)
    clips = list(canonical_clips([video], 0))
    assert [clip.interval for clip in clips] == [(0.0, 300.0), (300.0, 600.0), (600.0, 660.0)]
    assert [(clip.start, clip.stop) for clip in clips] == [(0.0, 308.0), (292.0, 608.0), (592.0, 660.0)]
    assert [clip.number for clip in clips] == [0, 1, 2]


def test_other_seeds_give_other_unique_names() -> None:
    assert video_uid(0, "P01_01") != video_uid(1, "P01_01") != video_uid(1, "P01_02")


def test_the_list_of_detection_videos_has_the_form_of_the_official_one(made: Path, annotations: Path) -> None:
    folders = (made / "annotations", annotations / "epic_sounds")
    ours, official = ((folder / DETECTION_FILE).read_text().splitlines() for folder in folders)
    assert ours[0] == official[0] == "video_id"
    assert set(ours[1:]) == {row["video_id"] for row in rows_of(made / "annotations/EPIC_100_test_timestamps.csv")}
    assert all(re.fullmatch(r"P\d\d_\d{2,3}", video_id) for video_id in (*ours[1:], *official[1:]))


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("layout", ["full_scale", "clips"])
def test_each_version_and_layout_of_the_download_is_there_and_complete(made: Path, version: str, layout: str) -> None:
    ego4d = Ego4D(made / "ego4d", version=version, layout=layout)
    videos = ego4d.videos()
    assert len(videos) == 12
    assert {video.path.parent for video in videos} == {made / "ego4d" / version / layout}
    lengths = ego4d.seconds_of_videos()
    for video in videos:
        info = media_info(video.path)
        assert info.audio is not None
        assert info.duration_seconds == pytest.approx(lengths[video.video_id], abs=0.07)
    held_out = ego4d.held_out()
    assert {video.video_id for video in videos} - set(held_out) == {
        video.video_id for video in videos if video.split == "train"
    }
    for split in ("train", "validation", "test"):
        assert {action.video_id for action in ego4d.actions(split)} <= {v.video_id for v in ego4d.videos(split)}
        assert {each.video_id for each in ego4d.state_changes(split)} <= {v.video_id for v in ego4d.videos(split)}
    assert ego4d.problems == ()


def test_a_clip_of_a_long_video_has_its_pictures_and_its_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video of 12 s in intervals of 6 s, with 2 s more on either side: seconds 0 to 8 and 4 to 12."""
    monkeypatch.setattr("earmark.kitchen.ego4d_clips.INTERVAL_SECONDS", 6.0)
    monkeypatch.setattr("earmark.kitchen.ego4d_clips.PADDING_SECONDS", 2.0)
    sizes = {"num_kitchens": 1, "videos_per_kitchen": 1, "video_seconds": 12, "width": 64, "height": 64, "fps": 8}
    make_kitchen(tmp_path, size=KitchenSize(sample_rate=16000, **sizes), progress=False)
    source = tmp_path / "P01/videos/P01_01.MP4"
    frames = np.stack([frame for _, frame in FrameReader(source, fps=8)]).astype(float)
    wave = np.concatenate(list(SoundReader(source)))
    ego4d = Ego4D(tmp_path / "ego4d", version="v2", layout="clips")
    clips = load(tmp_path / "ego4d/ego4d.json")["clips"]
    assert [(clip["video_start_sec"], clip["video_end_sec"]) for clip in clips] == [(0.0, 8.0), (4.0, 12.0)]
    for video, start in zip(ego4d.videos(), (0, 4), strict=True):
        assert video.path.samefile(tmp_path / f"ego4d/v1/clips/{video.video_id}.mp4")
        cut = np.stack([frame for _, frame in FrameReader(video.path, fps=8)]).astype(float)
        assert cut.shape == (64, 64, 64, 3)
        # another frame of the source differs by more than coding anew does
        errors = [
            np.abs(cut - frames[8 * start + k : 8 * start + k + 64]).mean() for k in range(-8 * start, 33 - 8 * start)
        ]
        assert int(np.argmin(errors)) == 8 * start
        assert min(errors) < 4
        sound = np.concatenate(list(SoundReader(video.path)))
        assert len(sound) == pytest.approx(8 * 16000, abs=1100)
        expected = wave[16000 * start : 16000 * start + 16000 * 7]
        assert np.corrcoef(sound[: len(expected)], expected)[0, 1] > 0.9
    whole = {change.unique_id: change for change in Ego4D(tmp_path / "ego4d", version="v2").state_changes("train")}
    for change in ego4d.state_changes("train"):
        offset = 4.0 if change.video_id == clips[1]["clip_uid"] else 0.0
        assert whole[change.unique_id].start_seconds == pytest.approx(change.start_seconds + offset)
        if change.pnr_seconds is not None:
            assert whole[change.unique_id].pnr_seconds == pytest.approx(change.pnr_seconds + offset, abs=1e-6)
