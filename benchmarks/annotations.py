"""How long annotation files of a million rows take to read, and how much memory.

    python benchmarks/annotations.py

Files in the official layouts are generated, one bad row in a thousand, and each is read in a process of its own.
Printed are seconds, seconds of the processor (on a busy machine fewer), peak memory of the process (imports included),
and how many rows were used and how many named as left out.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

BAD_EVERY = 1000
NUM_VIDEOS = 700
VERBS, NOUNS = 97, 300
BATCH = 100_000  # rows of parquet written at once


def timestamp(hundredths: int) -> str:
    """Return ``HH:MM:SS.ff``."""
    seconds, rest = divmod(hundredths, 100)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:02d}"


def write_epic(folder: Path, num_rows: int) -> None:
    """Write EPIC-KITCHENS-100 and EPIC-SOUNDS."""
    from earmark.datasets import SOUND_CLASSES

    folder.mkdir()
    for label, number in (("verb", VERBS), ("noun", NOUNS)):
        rows = "".join(f"{k},name {k}\n" for k in range(number))
        (folder / f"EPIC_100_{label}_classes.csv").write_text(f"id,key\n{rows}")
    columns = "participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame"
    with (folder / "EPIC_100_train.csv").open("w") as file:
        file.write(f"narration_id,{columns},narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n")
        for place in row_numbers(num_rows):
            file.write(
                f"{place.video}_{place.row},P01,{place.video},00:00:01.000,{place.start},{place.stop},8,202,open door,"
                f"open,{place.row % VERBS},door,{place.row % NOUNS},\"['door', 'lid']\",\"[3, 7]\"\n"
            )
    with (folder / "EPIC_Sounds_train.csv").open("w") as file:
        file.write("annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,start_sample,stop_sample,")
        file.write("description,class,class_id\n")
        for place in row_numbers(num_rows):
            number = place.row % len(SOUND_CLASSES)
            file.write(
                f"{place.video}_{place.row},P01,{place.video},{place.start},{place.stop},49656,71832,clang,"
                f"{SOUND_CLASSES[number]},{number}\n"
            )


class Place:
    """What the formats say of row k in their own ways."""

    def __init__(self, row: int) -> None:
        self.row = row
        self.video = f"P{row % NUM_VIDEOS // 20 + 1:02d}_{row % NUM_VIDEOS % 20:02d}"
        self.seconds = (row // NUM_VIDEOS) * 2.5
        self.is_bad = row % BAD_EVERY == BAD_EVERY - 1
        self.start, self.stop = timestamp(round(100 * self.seconds)), timestamp(round(100 * self.seconds) + 150)
        if self.is_bad:
            self.stop = "1e400"


def row_numbers(num_rows: int) -> Iterator[Place]:
    """Yield what each row says."""
    return map(Place, range(num_rows))


def write_ego4d(folder: Path, num_rows: int) -> None:
    """Write Ego4D's list of videos and long-term anticipation, as compact as the official files."""
    (folder / "v2/annotations").mkdir(parents=True)
    (folder / "v2/full_scale").mkdir()
    uids = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(NUM_VIDEOS)]
    videos = [{"video_uid": uid, "split_fho": "train", "video_metadata": {"fps": 30.0}} for uid in uids]
    (folder / "ego4d.json").write_text(json.dumps({"videos": videos}))
    classes = {"verbs": [str(k) for k in range(VERBS)], "nouns": [str(k) for k in range(NOUNS)]}
    (folder / "v2/annotations/fho_lta_taxonomy.json").write_text(json.dumps(classes))
    with (folder / "v2/annotations/fho_lta_train.json").open("w") as file:
        file.write('{"version": "v2", "clips": [')
        for place in row_numbers(num_rows):
            uid = uids[place.row % NUM_VIDEOS]
            row = {
                "video_uid": uid, "clip_uid": uid[::-1], "action_idx": place.row // NUM_VIDEOS, "verb": "take",
                "noun": "cup_(cup,_mug)", "verb_label": place.row % VERBS, "noun_label": place.row % NOUNS,
                "action_clip_start_sec": place.seconds,
                "action_clip_end_sec": -1 if place.is_bad else place.seconds + 2,
                "action_clip_start_frame": round(30 * place.seconds), "clip_parent_start_sec": 292.0,
            }  # fmt: skip
            file.write(("," if place.row else "") + json.dumps(row))
        file.write("]}")
    with (folder / "v2/annotations/fho_oscc-pnr_train.json").open("w") as file:
        file.write('{"version": "v2", "clips": [')
        for place in row_numbers(num_rows):
            uid, first = uids[place.row % NUM_VIDEOS], round(30 * place.seconds)
            row = {
                "clip_uid": uid[::-1], "clip_id": str(place.row), "unique_id": f"u{place.row}", "video_uid": uid,
                "clip_start_sec": place.seconds, "clip_end_sec": place.seconds + 8,
                "parent_start_sec": place.seconds + 292, "parent_end_sec": -1 if place.is_bad else place.seconds + 300,
                "clip_start_frame": first, "clip_end_frame": first + 240,
                "parent_start_frame": first + 8760, "parent_end_frame": first + 9000,
                "state_change": place.row % 2 == 0, "clip_pnr_frame": first + 100, "parent_pnr_frame": first + 8860,
            }  # fmt: skip
            if not row["state_change"]:
                row |= {"clip_pnr_frame": None, "parent_pnr_frame": None}
            file.write(("," if place.row else "") + json.dumps(row))
        file.write("]}")


def write_truths(folder: Path, num_rows: int) -> None:
    """Write the ground truth that moments are scored against."""
    import pyarrow as pa  # here, since it would count as memory of the readers, which do without but for one
    import pyarrow.parquet as pq

    folder.mkdir()
    with (folder / "labels.txt").open("w") as file:
        for place in row_numbers(num_rows):
            stop = "nan" if place.is_bad else f"{place.seconds:.6f}"
            file.write(f"{place.seconds:.6f}\t{stop}\thit {place.row}\n")
    fields = [("video_id", pa.string()), ("audible", pa.bool_())]
    times = ("point_of_no_return_seconds", "onset_seconds", "offset_seconds")
    schema = pa.schema([*fields, *((name, pa.float64()) for name in times)])
    with pq.ParquetWriter(folder / "events.parquet", schema) as writer:
        for first in range(0, num_rows, BATCH):
            places = [Place(row) for row in range(first, min(first + BATCH, num_rows))]
            starts = [place.seconds for place in places]
            ends = [float("inf") if place.is_bad else place.seconds + 1 for place in places]
            columns = [[place.video for place in places], [True] * len(places), starts, starts, ends]
            writer.write_table(pa.table(columns, schema=schema))


def read_epic(folder: Path) -> tuple[int, int]:
    """Read the actions of EPIC-KITCHENS-100."""
    from earmark.datasets import EpicKitchens

    epic = EpicKitchens(folder)
    return len(epic.actions("train")), num_left_out(epic.problems)


def read_sounds(folder: Path) -> tuple[int, int]:
    """Read the sounds of EPIC-SOUNDS."""
    from earmark.datasets import EpicSounds

    sounds = EpicSounds(folder)
    return len(sounds.actions("train")), num_left_out(sounds.problems)


def read_ego4d(folder: Path) -> tuple[int, int]:
    """Read the actions of Ego4D."""
    from earmark.datasets import Ego4D

    ego4d = Ego4D(folder)
    return len(ego4d.actions("train")), num_left_out(ego4d.problems)


def read_state_changes(folder: Path) -> tuple[int, int]:
    """Read the state changes of Ego4D."""
    from earmark.datasets import Ego4D

    ego4d = Ego4D(folder)
    return len(ego4d.state_changes("train")), num_left_out(ego4d.problems)


def read_held_out(folder: Path) -> tuple[int, int]:
    """Read what Ego4D holds out, from the rows of both tasks."""
    from earmark.datasets import Ego4D

    ego4d = Ego4D(folder)
    return len(ego4d.held_out()), num_left_out(ego4d.problems)


def read_truth(path: Path) -> tuple[int, int]:
    """Read ground truth."""
    from earmark.moments.scoring import read_ground_truth

    truth = read_ground_truth(path)
    return sum(map(len, truth.spans.values())), num_left_out(truth.problems)


def num_left_out(problems: tuple[str, ...]) -> int:
    """Return how many rows the lines name or count."""
    return sum(int(text.split(": ")[1].split()[0]) if text.endswith(" of this kind") else 1 for text in problems)


def measured(read: Callable[[Path], tuple[int, int]], path: Path) -> tuple[float, float, float, tuple[int, int]]:
    """Return seconds, those of the processor, MB at the peak, and what was read."""
    started, used = time.perf_counter(), time.process_time()
    found = read(path)
    passed = time.perf_counter() - started, time.process_time() - used
    return *passed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, found


def main() -> None:
    """Print a line for each kind of file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_epic(folder / "epic", arguments.rows)
        write_ego4d(folder / "ego4d", arguments.rows)
        write_truths(folder / "truth", arguments.rows)
        cases: list[tuple[str, Callable[[Path], tuple[int, int]], Path]] = [
            ("EPIC-KITCHENS-100, csv", read_epic, folder / "epic"),
            ("EPIC-SOUNDS, csv", read_sounds, folder / "epic"),
            ("Ego4D long-term anticipation, json", read_ego4d, folder / "ego4d"),
            ("Ego4D state changes, json", read_state_changes, folder / "ego4d"),
            ("Ego4D, what is held out", read_held_out, folder / "ego4d"),
            ("truth: EPIC-SOUNDS, csv", read_truth, folder / "epic/EPIC_Sounds_train.csv"),
            ("truth: EPIC-KITCHENS-100, csv", read_truth, folder / "epic/EPIC_100_train.csv"),
            ("truth: Audible Kitchen, parquet", read_truth, folder / "truth/events.parquet"),
            ("truth: Audacity labels", read_truth, folder / "truth/labels.txt"),
        ]
        print(f"{arguments.rows:,} rows                            s  CPU s     MB      used  left out")
        for name, read, path in cases:
            with multiprocessing.get_context("spawn").Pool(1) as pool:  # its own peak of memory
                seconds, of_processor, megabytes, (used, left_out) = pool.apply(measured, (read, path))
            print(f"{name:36} {seconds:6.1f} {of_processor:6.1f} {megabytes:6.0f} {used:9,} {left_out:9,}", flush=True)


if __name__ == "__main__":
    main()
