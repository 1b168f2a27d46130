"""Damaged annotations: EPIC-KITCHENS-100, EPIC-SOUNDS, Ego4D, and the truths that moments are scored against.

What is read counts as right where there is a record for each row of the file as another reader sees it, in their order
and with the times and labels that stand there, but for rows that are left out and named, each; and where no record
holds what none could mean: a time that is negative or longer than a week, a name that is no name.
"""

import csv
import io
import json
import math
import random
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from earmark.datasets import Ego4D, EpicKitchens, EpicSounds, anticipation_windows
from earmark.datasets.epic_sounds import SOUND_CLASSES
from earmark.moments.scoring import read_spans, read_truth
from fuzzing.mutations import TEXTS, edited_bytes, edited_text, edited_tree, json_text, nested
from fuzzing.running import Input, Kind, WrongError

MOST_SECONDS = 7 * 24 * 3600
TIMES = (
    *("00:00:00.00", "99:99:99", "1e400", "-00:00:01.00", "00:00:-1", "9" * 400 + ":00:00.0", "00:00:00." + "9" * 400),
    *(
        "0:0:0",
        "00:00:60.00",
        "00:61:00.00",
        "nan",
        "inf",
        "24:00:00.00",
        "1000000:00:00.0",
        "٠٠:٠٠:٠١.٠",
        "00:00:01,5",
    ),
)


class Annotations(Kind):
    """Folders of annotations in the layout of the official downloads."""

    name = "annotations"

    def make(self, folder: Path) -> None:
        self._epic, self._sounds, self._ego4d, self._truths = _epic(), _sounds(), _ego4d(), _truths()

    def damaged(self, draw: random.Random, folder: Path) -> Input:
        source = draw.choice(("epic", "epic", "sounds", "ego4d", "ego4d", "truth"))
        if source == "ego4d":
            return self._damaged_ego4d(draw, folder)
        if source == "truth":
            return self._damaged_truth(draw, folder)
        files = dict(self._epic if source == "epic" else self._sounds)
        name = draw.choice(sorted(files))
        content, told = _edited_csv(files[name], draw)
        for other, text in files.items():
            path = folder / "annotations" / other
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if other == name else text.encode())
        _place_videos(folder, "P01/videos", ("P01_01.MP4", "P01_02.MP4"))
        reader = EpicKitchens if source == "epic" else EpicSounds

        def attempt() -> None:
            dataset = reader(folder)
            for split in dataset.splits:
                dataset.videos(split)
                actions = dataset.actions(split)
                rows = _rows(folder / "annotations" / reader._files[split])
                id_column = "narration_id" if source == "epic" else "annotation_id"
                _require_actions(actions, rows, id_column, dataset.problems)
            for names in dataset.classes.values():
                _require_names(names)

        return Input(f"{source} {name}: {told}", attempt, (str(folder),))

    def _damaged_ego4d(self, draw: random.Random, folder: Path) -> Input:
        files = dict(self._ego4d)
        name = draw.choice(sorted(files))
        content, told = _edited_json(files[name], draw)
        for other, tree in files.items():
            path = folder / other
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if other == name else json.dumps(tree).encode())
        whole = draw.random() < 0.5
        _place_videos(folder, *(("v2/full_scale", ("v1.mp4",)) if whole else ("v2/clips", ("c1.mp4",))))

        def attempt() -> None:
            dataset = Ego4D(folder)
            _require_held_out(dataset)
            for names in dataset.classes.values():
                _require_names(names)
            for split in ("train", "validation"):
                for action in dataset.actions(split):
                    _require_times((action.start_seconds, action.stop_seconds))
                    _require_names((action.action_id, action.video_id))
                for change in dataset.state_changes(split):
                    _require_times((change.start_seconds, change.stop_seconds))
                    _require_names((change.unique_id, change.video_id))
                    if not 0 < change.fps <= 1000:
                        raise WrongError("pictures at a rate that no camera has")
                    if change.pnr_seconds is not None:
                        _require_times((change.pnr_seconds,))
            if other_rows := _missing_rows(dataset, folder):
                raise WrongError(other_rows)

        return Input(f"ego4d {name}: {told}", attempt, (str(folder),))

    def _damaged_truth(self, draw: random.Random, folder: Path) -> Input:
        name = draw.choice(sorted(self._truths))
        text = self._truths[name]
        content, told = _edited_csv(text, draw) if name.endswith(".csv") else _edited_labels(text, draw)
        path = folder / name
        path.write_bytes(content)

        def attempt() -> None:
            for read in (read_truth, read_spans):
                try:
                    found = read(path)
                except ValueError as error:
                    if "no onsets" in str(error) or ("onsets" in str(error) and read is read_truth):
                        continue  # a csv of actions has none
                    raise
                for seconds in found.values():
                    _require_times(seconds.reshape(-1).tolist())

        return Input(f"truth {name}: {told}", attempt, (str(path),))


# --- what is undamaged ---


def _csv_text(columns: str, rows: Iterable[tuple[Any, ...]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([columns.split(), *rows])
    return file.getvalue()


def _epic() -> dict[str, str]:
    columns = "narration_id participant_id video_id start_timestamp stop_timestamp narration verb_class noun_class"
    rows = [
        (f"P01_0{1 + n // 4}_{n}", "P01", f"P01_0{1 + n // 4}", f"00:00:{5 * n:02d}.50", f"00:00:{5 * n + 3:02d}.25",
         "cut, then stir", n % 3, n % 4) for n in range(8)
    ]  # fmt: skip
    return {
        "EPIC_100_train.csv": _csv_text(columns, rows[:4]),
        "EPIC_100_validation.csv": _csv_text(columns, rows[4:]),
        "EPIC_100_verb_classes.csv": _csv_text("id key instances", [(n, f"verb{n}", "['a']") for n in range(3)]),
        "EPIC_100_noun_classes.csv": _csv_text("id key instances", [(n, f"noun{n}", "['a']") for n in range(4)]),
    }


def _sounds() -> dict[str, str]:
    columns = "annotation_id participant_id video_id start_timestamp stop_timestamp description class class_id"
    rows = [
        (f"P01_01_{n}", "P01", "P01_01", f"00:01:{n:02d}.069", f"00:01:{n + 1:02d}.993", "clang", SOUND_CLASSES[n], n)
        for n in range(6)
    ]
    return {"EPIC_Sounds_train.csv": _csv_text(columns, rows)}


def _ego4d() -> dict[str, Any]:
    videos = [
        {"video_uid": f"v{n}", "split_fho": split, "fb_participant_id": n, "video_metadata": {"fps": 30.0}}
        for n, split in ((1, "train"), (2, "val"))
    ]
    clips = [
        {"clip_uid": f"c{n}", "video_uid": f"v{n}", "video_start_sec": 10.0, "video_end_sec": 90.0,
         "clip_metadata": {"fps": 30.0}}
        for n in (1, 2)
    ]  # fmt: skip
    files: dict[str, Any] = {"ego4d.json": {"videos": videos, "clips": clips}}
    for n, split in ((1, "train"), (2, "val")):
        clip = {"video_uid": f"v{n}", "clip_uid": f"c{n}"}
        files[f"v2/annotations/fho_lta_{split}.json"] = {
            "clips": [
                clip | {"action_idx": k, "clip_parent_start_sec": 10.0, "action_clip_start_sec": 2.0 * k,
                        "action_clip_end_sec": 2.0 * k + 1.5, "verb_label": k % 2, "noun_label": k % 3}
                for k in range(3)
            ]
        }  # fmt: skip
        files[f"v2/annotations/fho_oscc-pnr_{split}.json"] = {
            "clips": [
                {"unique_id": f"u{n}{k}", "video_uid": f"v{n}", "clip_uid": f"c{n}", "state_change": k == 1,
                 "clip_start_sec": 8.0 * k, "clip_end_sec": 8.0 * k + 8, "clip_start_frame": 240 * k,
                 "clip_end_frame": 240 * k + 240, "clip_pnr_frame": 240 * k + 100,
                 "parent_pnr_frame": 240 * k + 100, "parent_start_sec": 8.0 * k, "parent_end_sec": 8.0 * k + 8,
                 "parent_start_frame": 240 * k, "parent_end_frame": 240 * k + 240}
                for k in range(3)
            ]
        }  # fmt: skip
    files["v2/annotations/fho_lta_taxonomy.json"] = {"verbs": ["cut", "stir"], "nouns": ["a", "b", "c"]}
    return files


def _truths() -> dict[str, str]:
    labels = "".join(f"{n}.500000\t{n}.750000\tcut\n" for n in range(6))
    return {"EPIC_Sounds_validation.csv": _sounds()["EPIC_Sounds_train.csv"], "a.txt": labels,
            "EPIC_100_train.csv": _epic()["EPIC_100_train.csv"]}  # fmt: skip


def _place_videos(root: Path, below: str, names: Iterable[str]) -> None:
    for name in names:
        path = root / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# --- damage ---


def _edited_csv(text: str, draw: random.Random) -> tuple[bytes, str]:
    how = draw.choice(("cell", "cell", "cell", "line", "bytes", "encoding"))
    if how == "line":
        changed, told = edited_text(text, draw)
        return changed.encode(), told
    if how == "bytes":
        return edited_bytes(text.encode(), draw)
    if how == "encoding":
        name = draw.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7"))
        return text.encode(name), name
    rows = list(csv.reader(io.StringIO(text)))
    told = []
    for _ in range(draw.choice((1, 1, 3))):
        row = draw.randrange(len(rows))
        column = draw.randrange(len(rows[row]))
        is_time = "timestamp" in rows[0][column] and draw.random() < 0.7
        rows[row][column] = draw.choice(TIMES if is_time else (*TEXTS, rows[draw.randrange(len(rows))][column]))
        told.append(f"row {row}, {rows[0][column][:30]!r} set to {rows[row][column][:30]!r}")
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode(), "; ".join(told)


def _edited_labels(text: str, draw: random.Random) -> tuple[bytes, str]:
    if draw.random() < 0.3:
        return edited_bytes(text.encode(), draw)
    if draw.random() < 0.3:
        changed, told = edited_text(text, draw)
        return changed.encode(), told
    lines = [line.split("\t") for line in text.splitlines()]
    line, place = draw.randrange(len(lines)), draw.randrange(3)
    lines[line][place] = draw.choice(("nan", "inf", "-inf", "-1", "1e308", "1e400", "9" * 400, "1_0", "0x1", *TEXTS))
    return "".join("\t".join(line) + "\n" for line in lines).encode(), f"line {line}: {lines[line][place][:30]!r}"


def _edited_json(tree: Any, draw: random.Random) -> tuple[bytes, str]:
    how = draw.choice(("tree", "tree", "tree", "tree", "bytes", "deep", "twice"))
    if how == "bytes":
        return edited_bytes(json.dumps(tree).encode(), draw)
    if how == "deep":
        return json_text(nested(draw.choice((1000, 100_000)))).encode(), "a deep list"
    if how == "twice":
        text = json.dumps(tree)
        key = draw.choice(re.findall(r'"(\w+)": ', text))
        return text.replace(f'"{key}": ', f'"{key}": 0, "{key}": ', 1).encode(), f"{key} twice"
    changed, told = edited_tree(tree, draw)
    return json_text(changed).encode(), told


# --- what is right ---


def _rows(path: Path) -> list[dict[str, str]]:
    """Read a csv file without this project's checks; a row is a line, and one that `csv` alone can't read is none."""
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    lines = [row for line in io.StringIO(text, newline="") for row in _fields(line)]
    return [dict(zip(lines[0], row, strict=False)) for row in lines[1:]]


def _fields(line: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader([line], strict=True) if row]
    except csv.Error:
        return []


def _require_actions(actions: list[Any], rows: list[dict[str, str]], id_column: str, left_out: Sequence[str]) -> None:
    if len(actions) > len(rows):
        raise WrongError("more actions than rows")
    if len(actions) < len(rows) and not left_out:
        raise WrongError("fewer actions than rows, and no word of it")
    unread = iter(rows)
    for action in actions:
        # what is before its row was left out
        row = next((row for row in unread if _is_of(action, row, id_column)), None)
        if row is None:
            raise WrongError("an action has other names than any row that is left, or is out of order")
        times = [_exact_seconds(row[column]) for column in ("start_timestamp", "stop_timestamp")]
        found = (action.start_seconds, action.stop_seconds)
        _require_times(found)
        if any(abs(Fraction(one) - time) > Fraction(1, 10**6) for one, time in zip(found, times, strict=True)):
            raise WrongError("an action has other times than its row")
        labels = {int(row[name]) for name in ("verb_class", "noun_class", "class_id") if name in row}
        if set(action.labels.values()) - labels and action.labels:
            raise WrongError("an action has other labels than its row")
        _require_names((action.action_id, action.video_id, action.participant_id))


def _is_of(action: Any, row: dict[str, str], id_column: str) -> bool:
    is_whole = "class_id" in row or "verb_class" in row  # one that ends before is left out, and may be there again
    return bool(is_whole and action.action_id == row.get(id_column) and action.video_id == row.get("video_id"))


def _exact_seconds(text: str) -> Fraction:
    hours, minutes, seconds = text.split(":")
    return 3600 * Fraction(hours) + 60 * Fraction(minutes) + Fraction(seconds)


def _require_times(times: Iterable[float]) -> None:
    for time in times:
        if not math.isfinite(time) or not 0 <= time <= MOST_SECONDS:
            raise WrongError("a time that no recording has")


def _require_names(names: Iterable[str]) -> None:
    for name in names:
        if len(name) > 1000 or not name.strip():
            raise WrongError("a name that is none")


def _require_held_out(dataset: Ego4D) -> None:
    videos, held_out = dataset.videos(), dataset.held_out()
    _require_names([*(video.video_id for video in videos), *held_out])
    if any(video.split == "train" and video.video_id in held_out for video in videos):
        raise WrongError("a video is for training and is held out")
    for split in ("train", "validation"):
        for clip in dataset.anticipation_clips(split):
            _require_names(window.window_id for window in anticipation_windows(clip, num_seen=1, num_coming=1))


def _missing_rows(dataset: Ego4D, folder: Path) -> str:
    """Say whether rows of the files have no record; json as python reads it."""
    for split, file_split in (("train", "train"), ("validation", "val")):
        for task, found in (("fho_lta", dataset.actions(split)), ("fho_oscc-pnr", dataset.state_changes(split))):
            path = folder / f"v2/annotations/{task}_{file_split}.json"
            content = json.loads(path.read_bytes().decode(errors="replace"))
            rows = content["clips"] if isinstance(content, dict) else content
            if len(rows) < len(found):  # type: ignore[arg-type]
                return "more records than rows"
            if len(rows) > len(found) and not dataset.problems:  # type: ignore[arg-type]
                return "fewer records than rows, and no word of it"
    return ""


KIND = Annotations()
