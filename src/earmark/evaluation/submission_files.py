"""Files of predictions for the challenges: what all of them share, read and written.

Path of a sample: scores --here--> `test.json`, alone or in a zip file, as the challenges' servers take it. A file is
read segment by segment, so that of one of any size only its numbers are kept, and everything in it may be wrong: what
is, is named with its segment, a thousand times at most, and counted beyond. `SubmissionReader` and `write_submission`
are for the form that the EPIC challenges have in common; `json_members`, `json_items` and `writing_json` for any.
"""

import io
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from earmark.atomic import replacing
from earmark.datasets.annotation_files import RowError, RowFaults, checked_id, quoted
from earmark.datasets.json_stream import JsonReader, NoListError, RepeatedKey
from earmark.wording import counted

__all__ = [
    "EGO4D_ANTICIPATION",
    "EGO4D_KEYFRAMES",
    "EGO4D_STATE_CHANGES",
    "WINDOW_ID",
    "Form",
    "SubmissionError",
    "SubmissionReader",
    "SupervisionLevels",
    "checked_segment_ids",
    "class_scores",
    "finite_number",
    "is_json_list",
    "json_items",
    "json_members",
    "read_challenge",
    "read_first_name",
    "repeated_key",
    "write_submission",
    "writing_json",
]

EGO4D_STATE_CHANGES = "ego4d_oscc"
EGO4D_KEYFRAMES = "ego4d_pnr"
EGO4D_ANTICIPATION = "ego4d_lta"
JSON_NAME = "test.json"  # in the zip file
MAX_JSON_BYTES = 2**31  # unpacked; that of EPIC-KITCHENS-100's test split, the largest, has 150 MB
WINDOW_ID = re.compile(r".+_(0|[1-9][0-9]{0,8})", re.DOTALL)  # <clip_uid>_<index of the last action that is seen>
WRITTEN_TIME = (1980, 1, 1, 0, 0, 0)  # in the zip file: the same predictions give the same bytes
MODALITIES = ("sound", "picture", "both")


class SubmissionError(ValueError):
    """A file is no valid submission.

    Attributes:
        faults: A line for each fault, with file, segment and reason; a last one counts those beyond a thousand.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        more = f" (and {counted(len(faults) - 1, 'more fault')})" if len(faults) > 1 else ""
        super().__init__(f"{faults[0]}{more}")


@dataclass(frozen=True, slots=True)
class SupervisionLevels:
    """What a model was trained on, by the challenges' scales of supervision levels (SLS), each from 0 to 5.

    Attributes:
        pretraining: ``sls_pt``: 3 with Ego4D; 4 self-supervised on public data and EPIC.
        training_labels: ``sls_tl``: 3 all labels of the training split.
        training_data: ``sls_td``: 3 the training split; 4 the validation split, too.
    """

    pretraining: int
    training_labels: int
    training_data: int

    def __post_init__(self) -> None:
        for name, level in self.fields.items():
            if not _is_level(level, 5):
                raise ValueError(f"{name} is {quoted(level)}, expected a whole number from 0 to 5")

    @property
    def fields(self) -> dict[str, int]:
        """The levels under the names that files have for them."""
        return {"sls_pt": self.pretraining, "sls_tl": self.training_labels, "sls_td": self.training_data}


@dataclass(frozen=True, slots=True)
class Form:
    """What the files of a challenge have in common.

    Attributes:
        challenge: Its name there.
        version: Of the form.
        has_modality: Whether ``t_mod`` says what the model perceives: 0 sound, 1 picture, 2 both.
    """

    challenge: str
    version: str
    has_modality: bool = False


class SubmissionReader:
    """Reads the segments of a submission and what it says of itself.

    Args:
        path: A json file, or a zip file with ``test.json``.
        form: What it should be.

    Attributes:
        faults: What is wrong so far.
        levels: ``sls_pt``, ``sls_tl``, ``sls_td`` and, where the form has it, ``t_mod``; complete after `entries`.
        notes: What is not wrong but ignored.
    """

    def __init__(self, path: Path, form: Form) -> None:
        self.path, self.form = path, form
        self.faults = RowFaults(path)
        self.levels: dict[str, int] = {}
        self.notes: list[str] = []
        self._has_results = False
        self._seen_fields: set[str] = set()

    def entries(self) -> Iterator[tuple[str, Any]]:
        """Yield id and content of each segment; one that is given twice, or gives a key twice, counts as a fault.

        Raises:
            SubmissionError: If it is no readable json.
        """
        seen: set[str] = set()
        for within, name, value in json_members(self.path, "results"):
            if within is None:
                self._take_field(name, value)
                continue
            self._has_results = True
            if name in seen:
                self.faults.add(f"segment {quoted(name)}", "it is given twice")
                continue
            seen.add(name)
            repeated = repeated_key(value)
            if repeated is not None:
                self.faults.add(f"segment {quoted(name)}", f"{quoted(repeated)} is given twice")
            else:
                yield name, value
        if not self._has_results:
            self.faults.add("results", "there are none")
        levels = ("sls_pt", "sls_tl", "sls_td", *(("t_mod",) if self.form.has_modality else ()))
        for name in ("version", "challenge", *levels):
            if name not in self._seen_fields:
                self.faults.add(name, "it is missing")

    def require_valid(self) -> None:
        """Raise unless nothing was wrong.

        Raises:
            SubmissionError: With all faults.
        """
        if self.faults.num_rows:
            raise SubmissionError(self.faults.lines())

    def _take_field(self, name: str, value: Any) -> None:
        if name in self._seen_fields:
            self.faults.add(name, "it is given twice")
        self._seen_fields.add(name)
        expected = {"version": self.form.version, "challenge": self.form.challenge}
        highest = {"sls_pt": 5, "sls_tl": 5, "sls_td": 5} | ({"t_mod": 2} if self.form.has_modality else {})
        if name in expected:
            if value != expected[name]:
                self.faults.add(name, f"it is {quoted(value)}, expected {expected[name]!r}")
        elif name in highest:
            if _is_level(value, highest[name]):
                self.levels[name] = value
            else:
                self.faults.add(name, f"it is {quoted(value)}, expected a whole number from 0 to {highest[name]}")
        elif name == "results":
            self._has_results = True
            self.faults.add(name, f"it is {quoted(value)}, expected an object")
        else:
            self.notes.append(f"{self.path}: {quoted(name)} is no field of this form; it is ignored")


def read_challenge(path: Path) -> str:
    """Return the challenge that a file says it is for, or, of Ego4D, that its form shows.

    A list is of clips with ``state_change`` (``ego4d_oscc``) or ``pnr_frame`` (``ego4d_pnr``), an object that has a
    window of actions before anything says a challenge is of long-term anticipation (``ego4d_lta``).

    Raises:
        SubmissionError: If it is no readable json, or there is nothing to tell it by.
    """
    if is_json_list(path):
        return _challenge_of_clips(path)
    for within, name, value in json_members(path, "results"):
        if within is not None:
            continue
        if name == "challenge":
            if not isinstance(value, str):
                raise SubmissionError([f"{path}, challenge: it is {quoted(value)}, expected a name"])
            return value
        if WINDOW_ID.fullmatch(name):
            return EGO4D_ANTICIPATION
    lacks = "it is missing, and there is no window of actions <clip_uid>_<index> as in files for Ego4D"
    raise SubmissionError([f"{path}, challenge: {lacks}"])


def _challenge_of_clips(path: Path) -> str:
    """Return which of Ego4D's challenges a list of clips is for, by the first of them that tells."""
    challenges = {"state_change": EGO4D_STATE_CHANGES, "pnr_frame": EGO4D_KEYFRAMES}
    for number, row in enumerate(json_items(path)):
        fields = [field for field in challenges if isinstance(row, dict) and field in row]
        if len(fields) > 1:
            both = "it has state_change and pnr_frame; a file is for one of Ego4D's challenges, OSCC or PNR"
            raise SubmissionError([f"{path}, entry {number}: {both}"])
        if fields:
            return challenges[fields[0]]
    raise SubmissionError([f"{path}: no entry of this list has state_change or pnr_frame, as Ego4D's files have"])


def read_first_name(path: Path) -> str | None:
    """Return the id of a file's first segment, or None if it has none.

    Raises:
        SubmissionError: If it is no readable json.
    """
    return next((name for within, name, _ in json_members(path, "results") if within is not None), None)


def write_submission(
    path: str | os.PathLike[str],
    form: Form,
    levels: SupervisionLevels,
    entries: Iterable[tuple[str, Any]],
    *,
    modality: int | None = None,
) -> None:
    """Write a submission, whole or not at all; the same predictions give the same bytes.

    Args:
        path: ``.zip`` for a zip file with ``test.json``, as the servers take it; ``.json`` for that alone.
        form: Of the challenge.
        levels: What the model was trained on.
        entries: Id and content of each segment; plain data with finite numbers.
        modality: ``t_mod``, where the form has it: 0 sound, 1 picture, 2 both.

    Raises:
        ValueError: If the suffix is another, a number is not finite, or the modality is missing or not to be given.
        OSError: Naming the file, if it cannot be written.
    """
    path = Path(path)
    _require_suffix(path)
    if form.has_modality != (modality is not None) or (modality is not None and not _is_level(modality, 2)):
        choices = ", ".join(f"{number} {name}" for number, name in enumerate(MODALITIES))
        expected = f"one of {choices}" if form.has_modality else "none"
        raise ValueError(f"{path}: the modality (t_mod) is {quoted(modality)}, expected {expected}")
    header: dict[str, Any] = {"version": form.version, "challenge": form.challenge, **levels.fields}
    if modality is not None:
        header["t_mod"] = modality
    with writing_json(path) as file:
        file.write(json.dumps(header, allow_nan=False)[:-1] + ', "results": {')
        for number, (name, content) in enumerate(entries):
            separator = ", " if number else ""
            file.write(f"{separator}{json.dumps(name)}: {json.dumps(content, allow_nan=False)}")
        file.write("}}")


@contextmanager
def writing_json(path: Path) -> Iterator[TextIO]:
    """Give a text file to write json to, which becomes the submission, whole or not at all.

    Args:
        path: ``.zip`` for a zip file with ``test.json``; ``.json`` for that alone.

    Raises:
        ValueError: If the suffix is another.
        OSError: Naming the file, if it cannot be written.
    """
    _require_suffix(path)
    with replacing(path) as temporary:
        if path.suffix == ".json":
            with temporary.open("w", encoding="utf-8") as file:
                yield file
            return
        info = zipfile.ZipInfo(JSON_NAME, date_time=WRITTEN_TIME)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o644 << 16
        with (
            zipfile.ZipFile(temporary, "w") as archive,
            archive.open(info, "w", force_zip64=True) as raw,
            io.TextIOWrapper(raw, encoding="utf-8") as file,
        ):
            yield file


def checked_segment_ids(ids: Sequence[str], num_scores: int, *, what: str = "segment") -> list[str]:
    """Return the ids of segments, or whatever is predicted for, as plain text.

    Raises:
        ValueError: If there are none, or not one for each row of scores, or one is empty or there twice.
    """
    names = [checked_id(f"the {what}'s id", str(name)) for name in ids]
    if not names or len(names) != num_scores:
        raise ValueError(f"need one id for each {what}: {len(names)} ids, scores of {num_scores}")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {quoted(name)} is given twice")
        seen.add(name)
    return names


def class_scores(value: Any, what: str, keys: Mapping[str, int]) -> list[float]:
    """Return the scores that a segment gives to the classes of a task, in their order.

    Args:
        value: As it stands in the file.
        what: The task.
        keys: Text of each class id -> its place, in order.

    Raises:
        RowError: If it is no object, or lacks a class, or has one that does not exist, or a score is no finite number.
    """
    if not isinstance(value, dict):
        raise RowError(f"{what} is {quoted(value)}, expected an object of scores")
    if list(value) != list(keys):
        missing = [name for name in keys if name not in value]
        unknown = [name for name in value if name not in keys]
        if missing:
            raise RowError(f"{what}: {counted(len(missing), 'class', 'classes')} missing, the first: {missing[0]}")
        if unknown:
            raise RowError(f"{what}: {quoted(unknown[0])} is no class, expected 0 to {len(keys) - 1}")
        value = {name: value[name] for name in keys}
    scores = list(value.values())
    if set(map(type, scores)) == {float} and math.isfinite(sum(scores)):  # as almost always, in a fraction of the time
        return scores
    return [finite_number(f"the score of {what} {name}", score) for name, score in value.items()]


def finite_number(what: str, value: Any) -> float:
    """Return a number of a file as a float.

    Raises:
        RowError: If it is none, as texts and true are, or not finite, or too large.
    """
    if type(value) is float:
        if math.isfinite(value):
            return value
    elif type(value) is int and abs(value) < 2**1000:
        return float(value)
    raise RowError(f"{what} is {quoted(value)}, expected a finite number")


def repeated_key(value: Any) -> str | None:
    """Return a key that an object, or one below it, gives twice; None if there is none."""
    waiting = [value]  # no recursion: what json's decoder can read may be nested deeper than Python calls
    while waiting:
        item = waiting.pop()
        if isinstance(item, RepeatedKey):
            return item.key
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        waiting.extend(child for child in inner if isinstance(child, dict | list))
    return None


def json_members(path: Path, key: str | None) -> Iterator[tuple[str | None, str, Any]]:
    """Yield the members of the object that a file holds, as `JsonReader.members` does.

    Raises:
        SubmissionError: If it is no readable json, or no object.
    """
    form = "a json object" if key is None else f"a json object with {key}"
    with _readable(path, form) as file:
        yield from JsonReader(file).members(key)


def json_items(path: Path) -> Iterator[Any]:
    """Yield the items of the list that a file holds.

    Raises:
        SubmissionError: If it is no readable json, or no list.
    """
    with _readable(path, "a json list") as file:
        yield from JsonReader(file).items()


def is_json_list(path: Path) -> bool:
    """Return whether a file holds a list rather than an object, by its first character.

    Raises:
        SubmissionError: If it cannot be read, or begins with neither.
    """
    with _readable(path, "a json object or list") as file:
        return JsonReader(file).is_list()


def _is_level(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _require_suffix(path: Path) -> None:
    if path.suffix not in (".zip", ".json"):
        raise ValueError(f"{path}: a submission is a .zip or .json file")


@contextmanager
def _readable(path: Path, form: str) -> Iterator[TextIO]:
    """Open the json of a submission, and name what is wrong with it as a file."""
    try:
        with _opened(path) as file:
            yield file
    except NoListError as error:
        raise SubmissionError([f"{path}: must be {form}"]) from error
    except json.JSONDecodeError as error:
        raise SubmissionError([f"{path}: not readable as json ({error.msg} at character {error.pos})"]) from error
    except RecursionError as error:
        raise SubmissionError([f"{path}: not readable as json (nested too deeply)"]) from error
    except UnicodeDecodeError as error:
        raise SubmissionError([f"{path}: not readable as json (not UTF-8)"]) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise SubmissionError([f"{path}: a damaged zip file, or one of a kind that is not read ({error})"]) from error
    except OSError as error:
        reason = error.strerror.lower() if error.strerror else str(error)
        raise SubmissionError([f"{path}: {reason}"]) from error


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open the json of a submission, which by its size can't be a burden."""
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        if not zipped:
            _require_plausible(path, path.stat().st_size)
            with io.TextIOWrapper(file, encoding="utf-8-sig") as text:
                yield text
            return
        with zipfile.ZipFile(file) as archive:
            names = [info.filename for info in archive.infolist() if info.filename == JSON_NAME]
            if len(names) != 1:
                held = f"holds {counted(len(archive.namelist()), 'file')}, and {JSON_NAME} {len(names)} times"
                raise SubmissionError([f"{path}: {held}; expected it once, at the top"])
            _require_plausible(path, archive.getinfo(JSON_NAME).file_size)  # no more is unpacked than it says here
            with archive.open(JSON_NAME) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig") as text:
                yield text


def _require_plausible(path: Path, num_bytes: int) -> None:
    if num_bytes > MAX_JSON_BYTES:
        raise SubmissionError(
            [f"{path}: {num_bytes:,} bytes of json, more than the {MAX_JSON_BYTES:,} of any submission"]
        )
