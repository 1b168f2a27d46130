"""Damaged media: read, listened to for moments, prepared.

What is read counts as right where it agrees with what the file held before in the number of samples and pictures, or
carries a ``problem``. Where a claim of a header was changed, the file is another one, so only this is asked: that a
clip of two seconds of data is not taken for minutes.
"""

import random
from pathlib import Path
from typing import Any

from earmark.datasets.records import VideoRecord
from earmark.media import FrameReader, MediaError, SoundReader, media_info
from earmark.moments import MomentStream
from earmark.preparation.options import Transcoding
from earmark.preparation.preparing import prepare
from fuzzing.made_media import LENGTH_IS_DECLARED, SECONDS, layout, make_clips
from fuzzing.mutations import edited_bytes, flipped
from fuzzing.running import Input, Kind, WrongError

READ_RATE, READ_FPS = 16000, 16
MOST_SECONDS = 20 * SECONDS + 60  # that so little data can plausibly last
# A damaged packet at either end may cost or leave what a codec needs to begin with.
SAMPLES_APART, PICTURES_APART = round(0.1 * READ_RATE), 2
WORDS = (0, 1, 2, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 90000, 1000, 1)


class Media(Kind):
    """Clips in many containers."""

    name = "media"

    def make(self, folder: Path) -> None:
        self._clips = make_clips(folder)
        self._layouts = {name: layout(name, data) for name, data in self._clips.items()}
        self._held = {name: _read(folder / name) for name in self._clips}

    def damaged(self, draw: random.Random, folder: Path) -> Input:
        name = draw.choice(sorted(self._clips))
        data, is_same_file = self._clips[name], False
        payload, claims = self._layouts[name]
        told = []
        how = draw.choice(("claims", "claims", "payload", "cut", "bytes", "joined"))
        if how == "claims" and claims:
            for _ in range(draw.choice((1, 1, 2, 4))):
                data, text = _with_claim(data, draw, _one_of(claims, draw), little=name.endswith((".wav", ".avi")))
                told.append(text)
        elif how == "payload" and payload:
            data, text = flipped(data, draw, draw.choice(payload))
            told, is_same_file = [text], True
        elif how == "cut":
            stop = draw.randrange(len(data))
            data, is_same_file = data[:stop], Path(name).suffix in LENGTH_IS_DECLARED
            told = [f"cut after {stop} bytes"]
        elif how == "joined":
            other = draw.choice(sorted(self._clips))
            at = draw.randrange(len(data))
            data, told = data[:at] + self._clips[other][at:], [f"{other} from {at} on"]
        else:
            data, text = edited_bytes(data, draw)
            told = [text]
        path = folder / f"damaged{Path(name).suffix}"
        path.write_bytes(data)
        target = draw.choice(("read", "read", "moments", "prepare"))
        held = self._held[name] if is_same_file else None

        def attempt() -> None:
            {"read": _attempt_read, "moments": _attempt_moments, "prepare": _attempt_prepare}[target](path, held)

        return Input(f"{name}: {target}, {how}: {'; '.join(told)}", attempt, (str(path),))


def _one_of(claims: dict[Any, list[range]], draw: random.Random) -> range:
    return draw.choice(draw.choice([places for places in claims.values() if places]))


def _with_claim(data: bytes, draw: random.Random, place: range, *, little: bool) -> tuple[bytes, str]:
    order = "little" if little else "big"
    old, most = int.from_bytes(data[place.start : place.stop], order), (1 << (8 * len(place))) - 1  # type: ignore[arg-type]
    new = draw.choice((draw.choice(WORDS), old + 1, old * 2, old // 2, old ^ (1 << draw.randrange(8 * len(place)))))
    new = max(0, new) & most
    changed = data[: place.start] + new.to_bytes(len(place), order) + data[place.stop :]  # type: ignore[arg-type]
    return changed, f"{old} at {place.start} is {new}"


Held = tuple[int, int]
"""Samples at READ_RATE and pictures at READ_FPS."""


def _read(path: Path) -> Held:
    """Read an undamaged file."""
    counts = [0, 0]
    info = media_info(path)
    if info.audio is not None:
        counts[0] = sum(len(block) for block in SoundReader(path, sample_rate=READ_RATE))
    if info.video is not None:
        counts[1] = sum(1 for _ in FrameReader(path, fps=READ_FPS, short_side=32))
    return counts[0], counts[1]


def _attempt_read(path: Path, held: Held | None) -> None:
    info = media_info(path)
    num_samples, num_pictures, problems, refusals = 0, 0, [], []
    if info.audio is not None:
        try:
            sound = SoundReader(path, sample_rate=READ_RATE)
            for block in sound:
                num_samples += len(block)
                _require_plausible(num_samples / READ_RATE, "sound")
            problems.append(sound.problem)
        except MediaError as error:
            refusals.append(error)
    if info.video is not None:
        try:
            frames = FrameReader(path, fps=READ_FPS, short_side=32)
            for _ in frames:
                num_pictures += 1
                _require_plausible(num_pictures / READ_FPS, "picture")
            problems.append(frames.problem)
        except MediaError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]
    _require_plausible(info.duration_seconds, "media_info's length")
    if held is not None and not any(problems):
        _require_same(num_samples, num_pictures, held)


def _attempt_moments(path: Path, held: Held | None) -> None:
    stream = MomentStream(path)
    for moment in stream:
        _require_plausible(moment.time_seconds, "a moment")
    _require_plausible(stream.duration_seconds, "sound")
    if held is not None and not stream.problem:
        _require_same(round(stream.duration_seconds * READ_RATE), None, held)


def _attempt_prepare(path: Path, held: Held | None) -> None:
    root = path.parent / "store"
    report = prepare(
        [VideoRecord("a", path, "train")],
        root,
        transcoding=Transcoding(short_side=32),
        isolate=False,  # what ends the process is to be counted
        progress=False,
    )
    row = report.videos[0]
    if row.status == "refused":
        if not row.reason:
            raise WrongError("refused without a reason")
        raise MediaError(f"{path}: {row.reason}")
    _require_plausible(max(row.num_frames / READ_FPS, row.num_samples / READ_RATE), "the prepared video")
    if held is not None and row.status == "ok":
        _require_same(row.num_samples, row.num_frames, held)


def _require_plausible(seconds: float, what: str) -> None:
    if not -1 <= seconds <= MOST_SECONDS:
        raise WrongError(f"{what} lasts longer than its data make plausible")


def _require_same(num_samples: int, num_pictures: int | None, held: Held) -> None:
    if abs(num_samples - held[0]) > SAMPLES_APART:
        way = "fewer" if num_samples < held[0] else "more"
        raise WrongError(f"{way} samples than were there, and no word of it")
    if num_pictures is not None and abs(num_pictures - held[1]) > PICTURES_APART:
        way = "fewer" if num_pictures < held[1] else "more"
        raise WrongError(f"{way} pictures than were there, and no word of it")


KIND = Media()
