"""A sheet of all kinds of action: a frame before, a frame after, and the spectrogram of the sound between.

For a person who judges a kitchen by eye. It is drawn from the files of a finished kitchen, or
from short scenes that are rendered for it, one for each verb and noun. Below the actions are the sounds that none of
them makes: those off screen, those of what runs, and talk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from scipy.signal import spectrogram

from earmark.atomic import replacing
from earmark.kitchen.picture import Picture
from earmark.kitchen.room import draw_room
from earmark.kitchen.script import OFF_SCREEN_SOUNDS, TRANSITIONS, Event, Script, Transition
from earmark.kitchen.sound import render_sound
from earmark.kitchen.states import RUNNING
from earmark.media import SoundReader, read_frames

SAMPLE_RATE = 16000
_BEFORE_SECONDS, _AFTER_SECONDS = 0.6, 1.0  # of the sound, around the contact
_LOOKED_SECONDS = 0.45  # after the reach begins the head has turned to the thing, and the hand is not there yet
_DYNAMIC_RANGE_DB = 60.0
_FLOOR_DB = -120.0
_FRAME_WIDTH, _FRAME_HEIGHT, _SOUND_HEIGHT, _TITLE_HEIGHT, _GAP = 152, 86, 64, 18, 8


@dataclass(frozen=True, slots=True)
class Example:
    """One action, seen and heard, or a sound alone.

    Attributes:
        title: What is done, to what; or what is heard.
        sound: float32 (S,) at `SAMPLE_RATE`, from 0.6 s before the contact, or its begin, to 1 s after it.
        frames: Before and after, uint8 (H, W, 3), RGB; None for a sound alone.
    """

    title: str
    sound: npt.NDArray[np.float32]
    frames: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None = None


def draw_contact_sheet(
    path: str | Path,
    *,
    kitchen: str | Path | None = None,
    seed: int = 0,
    columns: int = 6,
    pairs: Sequence[tuple[str, str]] | None = None,
    sounds: bool = True,
) -> int:
    """Write a contact sheet, a PNG of 256 colours; equal arguments give equal pixels.

    Args:
        path: The file to write.
        kitchen: Folder of a finished kitchen, whose first audible action of each kind is shown; None for scenes
            rendered for the sheet.
        seed: Of the rendered scenes.
        columns: Actions side by side.
        pairs: Verbs and nouns to show; None for all.
        sounds: Whether to show the sounds that no action makes.

    Returns:
        How many actions and sounds it shows.

    Raises:
        ValueError: If it would be empty.
        OSError: If the kitchen is not finished.
    """
    wanted = None if pairs is None else set(pairs)
    examples = list(_rendered(seed, wanted) if kitchen is None else _recorded(Path(kitchen), wanted))
    if sounds:
        examples += _rendered_sounds(seed) if kitchen is None else _recorded_sounds(Path(kitchen))
    if not examples:
        raise ValueError(f"{kitchen or 'contact sheet'}: has none of the actions asked for")
    sheet = _assemble(examples, columns)
    with replacing(path) as temporary:
        sheet.quantize(256, dither=Image.Dither.NONE).save(temporary, format="PNG", optimize=True)
    return len(examples)


def scene(thing: str, step: Transition, *, contact_seconds: float, stop_seconds: float) -> Script:
    """Return a script in which one thing is done, from a second before to one after its contact.

    Args:
        thing: Key of `TRANSITIONS`.
        step: What is done to it.
        contact_seconds: When, at least 1.
        stop_seconds: Length of the scene, at least a second longer.
    """
    initial = {name: steps[0].before for name, steps in TRANSITIONS.items()} | dict(step.needs)
    times = (contact_seconds - 1, contact_seconds, contact_seconds + 1)
    event = Event(thing, step.verb, step.noun, *times, step.before, step.after, 0.0)
    return Script(stop_seconds, initial | {thing: step.before}, (event,))


def _rendered(seed: int, wanted: set[tuple[str, str]] | None) -> Iterator[Example]:
    """Yield an example of each verb and noun, each in a scene and a kitchen of its own."""
    shown = set()
    contact, fps = 2.0, 8
    for thing, ring in TRANSITIONS.items():
        for step in ring:
            pair = (step.verb, step.noun)
            if pair in shown or (wanted is not None and pair not in wanted):
                continue
            shown.add(pair)
            rng = np.random.default_rng((seed, len(shown)))
            script = scene(thing, step, contact_seconds=contact, stop_seconds=4.0)
            room = draw_room(rng)
            sound = render_sound(room, script, rng, sample_rate=SAMPLE_RATE).wave
            size = {"width": 2 * _FRAME_WIDTH, "height": 2 * _FRAME_HEIGHT}
            frames = list(Picture(room, script, rng, fps=fps, **size).frames())
            before, after = (frames[round((contact + time) * fps)] for time in (_LOOKED_SECONDS - 1, 0.9))
            yield Example(" ".join(pair), _around(sound, contact), (before, after))


def _rendered_sounds(seed: int) -> Iterator[Example]:
    """Yield what is heard off screen, what runs, and talk, each begun in a quiet room of its own."""
    begin, duration = 2.0, 4.0
    calm = {name: steps[0].before for name, steps in TRANSITIONS.items()}
    scripts = {}
    for sound, source in OFF_SCREEN_SOUNDS.items():
        times = (begin - 0.1, begin, begin + 0.4)
        event = Event(source, "", "", *times, "", "", 0.0, on_screen=False, sound=sound)
        scripts[f"{sound}, off screen"] = Script(duration, calm, (event,))
    for thing, states in RUNNING.items():
        step = next(step for step in TRANSITIONS[thing] if step.after == states[0])
        times = (begin - 0.1, begin, begin + 0.4)
        turned = Event(thing, step.verb, step.noun, *times, step.before, step.after, 0.0, audible=False)
        scripts[f"running {thing}"] = Script(duration, calm | {thing: step.before}, (turned,))
    scripts["talk"] = Script(duration, calm, (), talk=((begin, duration),))
    scripts["room alone"] = Script(duration, calm, ())
    for number, (title, script) in enumerate(scripts.items()):
        rng = np.random.default_rng((seed, 1000 + number))
        yield Example(title, _around(render_sound(draw_room(rng), script, rng, sample_rate=SAMPLE_RATE).wave, begin))


def _recorded(kitchen: Path, wanted: set[tuple[str, str]] | None) -> Iterator[Example]:
    """Yield the first audible example of each verb and noun in a kitchen's files, sorted by verb."""
    events = pq.read_table(kitchen / "events.parquet").to_pylist()
    firsts: dict[tuple[str, str], dict[str, object]] = {}
    for event in events:
        pair = (event["verb"], event["noun"])
        if event["on_screen"] and event["audible"] and (wanted is None or pair in wanted):
            firsts.setdefault(pair, event)
    for pair, event in sorted(firsts.items()):
        video = kitchen / str(event["participant_id"]) / "videos" / f"{event['video_id']}.MP4"
        start, contact, stop = (
            float(str(event[name])) for name in ("onset_seconds", "point_of_no_return_seconds", "offset_seconds")
        )
        times = np.array([start + _LOOKED_SECONDS, stop - 0.1])
        before, after = read_frames(video, times, short_side=2 * _FRAME_HEIGHT)
        sound = np.concatenate(list(SoundReader(video, sample_rate=SAMPLE_RATE)))
        yield Example(" ".join(pair), _around(sound, contact), (before, after))


def _recorded_sounds(kitchen: Path) -> Iterator[Example]:
    """Yield the first sound of each description that no action makes, sorted by it."""
    firsts: dict[str, dict[str, Any]] = {}
    for row in pq.read_table(kitchen / "sounds.parquet").to_pylist():
        if not row["event_id"] or "_offscreen_" in row["event_id"]:
            firsts.setdefault(row["description"] + (", off screen" if row["event_id"] else ""), row)
    for title, row in sorted(firsts.items()):
        video = kitchen / row["participant_id"] / "videos" / f"{row['video_id']}.MP4"
        sound = np.concatenate(list(SoundReader(video, sample_rate=SAMPLE_RATE)))
        yield Example(title, _around(sound, row["start_seconds"]))


def _around(sound: npt.NDArray[np.float32], contact_seconds: float) -> npt.NDArray[np.float32]:
    """Return the sound around a contact, zeros where there is none."""
    first = round((contact_seconds - _BEFORE_SECONDS) * SAMPLE_RATE)
    numbers = first + np.arange(round((_BEFORE_SECONDS + _AFTER_SECONDS) * SAMPLE_RATE))
    inside = (numbers >= 0) & (numbers < len(sound))
    return np.where(inside, sound[np.clip(numbers, 0, len(sound) - 1)], 0).astype(np.float32)


def _assemble(examples: Sequence[Example], columns: int) -> Image.Image:
    width = 2 * _FRAME_WIDTH + 2
    cell = (width + _GAP, _TITLE_HEIGHT + _FRAME_HEIGHT + 2 + _SOUND_HEIGHT + _GAP)
    columns = min(columns, len(examples))
    sheet = Image.new("RGB", (columns * cell[0] + _GAP, -(-len(examples) // columns) * cell[1] + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    contact = round(width * _BEFORE_SECONDS / (_BEFORE_SECONDS + _AFTER_SECONDS))
    for number, example in enumerate(examples):
        x, y = _GAP + number % columns * cell[0], _GAP + number // columns * cell[1]
        pen.text((x, y), example.title, fill="black", font=font)
        y += _TITLE_HEIGHT
        height = _FRAME_HEIGHT + 2 + _SOUND_HEIGHT
        for place, frame in zip((x, x + _FRAME_WIDTH + 2), example.frames or (), strict=False):
            sheet.paste(Image.fromarray(frame).resize((_FRAME_WIDTH, _FRAME_HEIGHT), Image.Resampling.BOX), (place, y))
        if example.frames is not None:
            y, height = y + _FRAME_HEIGHT + 2, _SOUND_HEIGHT
        picture = Image.fromarray(_spectrogram_picture(example.sound))
        sheet.paste(picture.resize((width, height), Image.Resampling.BILINEAR), (x, y))
        pen.line([(x + contact, y), (x + contact, y + 5)], fill="white")
    return sheet


def _spectrogram_picture(sound: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the spectrogram as uint8 (frequency from 8 kHz down, time, 3)."""
    _, _, power = spectrogram(sound, SAMPLE_RATE, nperseg=512, noverlap=384)
    level = 10 * np.log10(power + 10 ** (_FLOOR_DB / 10))
    loudest = max(level.max(), _FLOOR_DB + _DYNAMIC_RANGE_DB)  # silence stays dark
    share = np.clip(1 + (level - loudest) / _DYNAMIC_RANGE_DB, 0, 1)
    coloured: npt.NDArray[np.uint8] = colormaps["magma"](share[::-1], bytes=True)[..., :3]
    return np.ascontiguousarray(coloured)
