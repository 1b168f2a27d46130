"""How long `earmark score` takes for the largest files of each challenge, and how much memory.

    python benchmarks/score.py

Annotations and submissions with the official numbers of segments and classes are made up (the test split's 13,092
segments with 97 verbs, 300 nouns and 100 actions each; here with labels, so that they are scored, too; of Ego4D more
clips than any split has, and 117 verbs and 521 nouns), and each is scored by the command in a process of its own.
Printed are the size of the json, seconds, seconds of the processor (on a busy machine fewer), and the peak memory of
the process, imports included.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from earmark.evaluation import (
    Events,
    SupervisionLevels,
    write_action_submission,
    write_anticipation_submission,
    write_detection_submission,
    write_keyframe_submission,
    write_sound_submission,
    write_state_change_submission,
)

NUM_VERBS, NUM_NOUNS, NUM_ACTIONS, NUM_SOUND_CLASSES = 97, 300, 100, 44
NUM_ACTION_SEGMENTS, NUM_SOUND_SEGMENTS, NUM_SOUND_VIDEOS = 13_092, 8_035, 79
DETECTIONS_PER_VIDEO = 2_000
NUM_EGO4D_CLIPS, NUM_EGO4D_VIDEOS = 200_000, 10_000
NUM_LTA_CLIPS, ACTIONS_PER_CLIP = 1_000, 64  # windows of 4 seen and 20 coming actions: 41 each
NUM_EGO4D_VERBS, NUM_EGO4D_NOUNS = 117, 521
LEVELS = SupervisionLevels(pretraining=4, training_labels=3, training_data=3)


def write_rows(path: Path, columns: str, rows: Sequence[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns.split(), *rows])


def actions(folder: Path, rng: np.random.Generator, challenge: str, *, with_actions: bool) -> Path:
    """Write annotations and a submission of actions."""
    ids = [f"P{number % 37:02d}_{number % 20:02d}_{number}" for number in range(NUM_ACTION_SEGMENTS)]
    rows = [(name, name[:3], rng.integers(NUM_VERBS), rng.integers(NUM_NOUNS)) for name in ids]
    write_rows(folder / "EPIC_100_validation.csv", "narration_id participant_id verb_class noun_class", rows)
    write_rows(folder / "EPIC_100_tail_verbs.csv", "verb", [(number,) for number in range(40, NUM_VERBS)])
    write_rows(folder / "EPIC_100_tail_nouns.csv", "noun", [(number,) for number in range(100, NUM_NOUNS)])
    unseen = folder / "EPIC_100_unseen_participant_ids_validation.csv"
    write_rows(unseen, "participant_id", [("P18",), ("P32",)])
    given = None
    if with_actions:
        pairs = np.stack([rng.choice(NUM_VERBS * NUM_NOUNS, NUM_ACTIONS, replace=False) for _ in ids])
        given = (pairs // NUM_NOUNS, pairs % NUM_NOUNS, rng.random(pairs.shape))
    path = folder / "test.json"
    write_action_submission(
        path,
        challenge,
        segment_ids=ids,
        verb_scores=rng.normal(size=(len(ids), NUM_VERBS)),
        noun_scores=rng.normal(size=(len(ids), NUM_NOUNS)),
        actions=given,
        levels=LEVELS,
    )
    return path


def sound_annotations(folder: Path, rng: np.random.Generator) -> list[str]:
    """Write annotations of sounds; return their ids."""
    rows = []
    for number in range(NUM_SOUND_SEGMENTS):
        video, start = f"P01_{number % NUM_SOUND_VIDEOS:02d}", number // NUM_SOUND_VIDEOS * 4
        times = (f"00:{second // 60:02d}:{second % 60:02d}.000" for second in (start, start + 2))
        rows.append((f"{video}_{number}", video, *times, rng.integers(NUM_SOUND_CLASSES)))
    columns = "annotation_id video_id start_timestamp stop_timestamp class_id"
    write_rows(folder / "EPIC_Sounds_validation.csv", columns, rows)
    return [row[0] for row in rows]


def sounds(folder: Path, rng: np.random.Generator) -> Path:
    """Write annotations and a submission of recognised sounds."""
    ids = sound_annotations(folder, rng)
    path = folder / "test.json"
    scores = rng.normal(size=(len(ids), NUM_SOUND_CLASSES))
    write_sound_submission(path, segment_ids=ids, scores=scores, levels=LEVELS, modality=0)
    return path


def detections(folder: Path, rng: np.random.Generator) -> Path:
    """Write annotations and a submission of detected sounds."""
    sound_annotations(folder, rng)
    number = NUM_SOUND_VIDEOS * DETECTIONS_PER_VIDEO
    starts = rng.uniform(0, 420, number)
    events = Events(
        np.repeat(np.arange(NUM_SOUND_VIDEOS), DETECTIONS_PER_VIDEO),
        rng.integers(NUM_SOUND_CLASSES, size=number),
        np.stack([starts, starts + rng.uniform(0.2, 5, number)], axis=1),
        rng.random(number),
    )
    path = folder / "test.json"
    names = [f"P01_{video:02d}" for video in range(NUM_SOUND_VIDEOS)]
    write_detection_submission(path, video_ids=names, events=events, levels=LEVELS, modality=0)
    return path


def ego4d_clips(folder: Path, rng: np.random.Generator) -> list[str]:
    """Write the manifest and annotations of state changes, half of the clips with one; return their ids."""
    videos = [{"video_uid": f"v{number}", "video_metadata": {"fps": 30.0}} for number in range(NUM_EGO4D_VIDEOS)]
    (folder / "ego4d.json").write_text(json.dumps({"videos": videos}))
    rows = []
    for number in range(NUM_EGO4D_CLIPS):
        start = int(rng.integers(100_000))
        row = {"unique_id": f"{rng.integers(2**62):032x}", "video_uid": f"v{number % NUM_EGO4D_VIDEOS}"}
        row |= {"clip_uid": f"c{number // 50}", "state_change": number % 2 == 0}
        row |= {"parent_start_frame": start, "parent_end_frame": start + 240}
        row |= {"parent_start_sec": start / 30, "parent_end_sec": start / 30 + 8}
        row |= {"parent_pnr_frame": start + int(rng.integers(240))} if number % 2 == 0 else {}
        rows.append(row)
    (folder / "fho_oscc-pnr_val.json").write_text(json.dumps({"clips": rows}))
    return [row["unique_id"] for row in rows]


def state_changes(folder: Path, rng: np.random.Generator) -> Path:
    """Write annotations and a submission of state changes."""
    ids = ego4d_clips(folder, rng)
    write_state_change_submission(folder / "test.json", ids, rng.random(len(ids)) < 0.5)
    return folder / "test.json"


def keyframes(folder: Path, rng: np.random.Generator) -> Path:
    """Write annotations and a submission of points of no return."""
    ids = ego4d_clips(folder, rng)
    write_keyframe_submission(folder / "test.json", ids, rng.uniform(0, 240, len(ids)))
    return folder / "test.json"


def anticipation(folder: Path, rng: np.random.Generator) -> Path:
    """Write annotations and a submission of long-term anticipation, of windows of 4 seen actions."""
    labels = {"verb_label": NUM_EGO4D_VERBS, "noun_label": NUM_EGO4D_NOUNS}
    rows = [
        {
            "clip_uid": f"c{clip}",
            "action_idx": index,
            **{name: int(rng.integers(most)) for name, most in labels.items()},
        }
        for clip in range(NUM_LTA_CLIPS)
        for index in range(ACTIONS_PER_CLIP)
    ]
    (folder / "fho_lta_val.json").write_text(json.dumps({"clips": rows}))
    taxonomy = {"verbs": ["verb"] * NUM_EGO4D_VERBS, "nouns": ["noun"] * NUM_EGO4D_NOUNS}
    (folder / "fho_lta_taxonomy.json").write_text(json.dumps(taxonomy))
    names = [f"c{clip}_{index}" for clip in range(NUM_LTA_CLIPS) for index in range(3, ACTIONS_PER_CLIP - 20)]
    verbs, nouns = (rng.integers(most, size=(len(names), 5, 20)) for most in labels.values())
    write_anticipation_submission(folder / "test.json", names, verbs, nouns)
    return folder / "test.json"


CASES: dict[str, Callable[[Path, np.random.Generator], Path]] = {
    "recognition, 13,092 segments with 100 actions": lambda folder, rng: actions(
        folder, rng, "action_recognition", with_actions=True
    ),
    "recognition, 13,092 segments": lambda folder, rng: actions(folder, rng, "action_recognition", with_actions=False),
    "anticipation, 13,092 segments": lambda folder, rng: actions(
        folder, rng, "action_anticipation", with_actions=False
    ),
    "EPIC-SOUNDS recognition, 8,035 segments": sounds,
    f"EPIC-SOUNDS detection, {NUM_SOUND_VIDEOS * DETECTIONS_PER_VIDEO:,} detections": detections,
    f"Ego4D OSCC, {NUM_EGO4D_CLIPS:,} clips": state_changes,
    f"Ego4D PNR, {NUM_EGO4D_CLIPS:,} clips": keyframes,
    f"Ego4D LTA, {NUM_LTA_CLIPS * (ACTIONS_PER_CLIP - 23):,} windows": anticipation,
}


def scored(path: Path) -> tuple[float, float, float]:
    """Score a file by the command; return seconds, seconds of the processor and MB at the peak."""
    began = time.monotonic()
    command = [sys.executable, "-m", "earmark", "score", str(path), "--annotations", str(path.parent), "--json"]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    child = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, nowhere, 1)])
    os.close(nowhere)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print("| file | MB of json | s | s of the processor | MB at the peak |\n|---|---|---|---|---|")
    for name, write in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder), np.random.default_rng(0))
            seconds, of_processor, peak = scored(path)
            size = path.stat().st_size / 1e6
            print(f"| {name} | {size:.0f} | {seconds:.1f} | {of_processor:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
