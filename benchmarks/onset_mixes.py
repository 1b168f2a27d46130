"""Mixes of real recordings whose onsets are known to the sample, for benchmarks/onsets.py.

Hits are foley recordings (Debian's package minetest-data, CC BY-SA 3.0 for the most part), backgrounds are rain, sea
and crackling fire of ESC-10 (CC BY 3.0), speech of espeak-ng (GPL 3, which says nothing of its output) and a
synthetic room. Nothing of them is kept in the repository. Recordings are split into two halves, *tuning* and
*reporting*: no recording is in both.

The onset of a foley recording is found by energy alone, by a rule that has nothing to do with any detector: the first
millisecond within 20 dB of the loudest. Only single hits are used: the loudest millisecond comes at most 15 ms after
the onset, and from then on no 5 ms within 20 dB of the loudest rise by more than 6 dB above the softest of the 50 ms
before. Where a recording rises so again 60 ms after its onset or later, it is faded out before that. What fails is
left out and named.
"""

import json
import math
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import scipy.io.wavfile
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter1d, uniform_filter1d
from scipy.signal import resample_poly, sosfilt

from earmark.media import SoundReader

Sound = NDArray[np.float32]

RATE = 44100
MIX_SECONDS = 20.0
HALVES = ("tuning", "reporting")
BACKGROUNDS = ("room", "rain", "sea", "fire", "speech")
TEMPI = ("slow", "fast")
LEVELS_DB = {"clear": 30.0, "medium": 15.0, "quiet": 5.0}
"""Level of the first 50 ms of the hits over that of the background (root mean squares), of each hit up to 4 dB off."""

_LEVEL_SPREAD_DB = 4.0
_BACKGROUND_DB = -40.0  # re full scale
_HIT_SECONDS = 0.05  # over which the level of a hit is taken
_LEAD_SECONDS = 0.005  # before its onset, faded in
_SLOW_SECONDS = (1.0, 3.0)  # between hits
_FAST_SECONDS = (0.1, 0.4)
_BURST = (4, 9)  # hits of a fast sequence, the end not included; sequences are as far apart as slow hits
_RISE_MILLISECONDS = 15  # from the onset of a hit to its loudest, at most
_LEAST_CLEAR_MILLISECONDS = 60  # without another rise
_VERSION = 3  # of what is written below: mixes of another are made anew

_ESC_CLASSES = {"rain": "002 - Rain", "sea": "003 - Sea waves", "fire": "010 - Fire crackling"}
_VOICES = {"tuning": ("en-us", "en-gb+f2", "en-gb-scotland+m3"), "reporting": ("en-gb-x-rp", "en-us+f4", "en-029+m5")}
_SENTENCES = {
    "tuning": (
        "Could you pass me the big pan from the second shelf?",
        "I think the potatoes need another ten minutes.",
        "Turn the heat down before the butter burns.",
        "We should keep a quarter of the dough for tomorrow.",
        "Did you take the cat to the doctor on Tuesday?",
        "Put the plates back, but not the deep ones.",
    ),
    "reporting": (
        "Where did you put the lid of this pot?",
        "Chop the parsley a bit finer, please, and keep the stalks.",
        "There's a packet of biscuits behind the teapot.",
        "My brother took the bus to Bristol at half past eight.",
        "Taste it first, it probably wants a pinch of salt.",
        "Don't forget that the guests are coming at six.",
    ),
}


class SourceError(Exception):
    """Recordings that mixes are made of are not there; the message says which and where they come from."""


@dataclass(frozen=True)
class Hit:
    """A recording of one hit, from shortly before its onset.

    Attributes:
        name: of its file.
        wave: at `RATE`, of level 1 over the first 50 ms from its onset.
        onset: number of the sample that it begins with.
    """

    name: str
    wave: Sound
    onset: int


@dataclass(frozen=True)
class Mix:
    """A mix with known onsets.

    Attributes:
        name: tempo, background, level and number.
        path: its sound, 16-bit wav.
        onsets: in seconds, ``(N,)``.
    """

    name: str
    path: Path
    onsets: NDArray[np.float64]

    @property
    def conditions(self) -> tuple[str, str, str]:
        """Tempo, background and level."""
        tempo, background, level, _ = self.name.split("_")
        return tempo, background, level


@cache
def read_sound(path: Path) -> Sound:
    """Read a file as mono sound at `RATE`."""
    reader = SoundReader(path)
    return resampled(np.concatenate(list(reader)), reader.sample_rate)


def resampled(wave: Sound, rate: int) -> Sound:
    """Return sound of a rate in Hz at `RATE`."""
    divisor = math.gcd(RATE, rate)
    at_rate: Sound = resample_poly(wave, RATE // divisor, rate // divisor).astype(np.float32)
    return at_rate


def single_hit(name: str, wave: Sound) -> Hit | str:
    """Return the hit that a recording holds, or why it holds none (see the top of this file)."""
    size = RATE // 1000
    power = np.mean(np.square(wave[: len(wave) // size * size], dtype=np.float64).reshape(-1, size), axis=1)
    loudest = int(power.argmax())
    first = int(np.argmax(power >= power[loudest] / 100))
    if loudest - first > _RISE_MILLISECONDS:
        return f"rises for {loudest - first} ms"
    decay = uniform_filter1d(power[loudest:], 5)
    softest = minimum_filter1d(decay, 51, origin=25, mode="nearest")  # of this and the 50 before
    again = (decay >= power[loudest] / 100) & (decay > 4 * softest)
    stop = len(wave)
    if again.any():
        clear = loudest - first + int(np.argmax(again))  # ms from the onset
        if clear < _LEAST_CLEAR_MILLISECONDS:
            return f"rises again {clear} ms after its onset"
        stop = (first + clear - 5) * size
    start = max(0, first * size - round(_LEAD_SECONDS * RATE))
    hit = wave[start:stop].copy()
    onset = first * size - start
    hit[:onset] *= np.linspace(0, 1, onset, endpoint=False, dtype=np.float32)
    tail = min(len(hit) - onset, RATE // 100)
    hit[len(hit) - tail :] *= np.linspace(1, 0, tail, dtype=np.float32)
    return Hit(name, hit / _level(hit[onset : onset + round(_HIT_SECONDS * RATE)]), onset)


def foley_hits(folder: Path) -> tuple[dict[str, list[list[Hit]]], list[str]]:
    """Return the single hits of each half by family, and what is left out and why.

    A family is what is named alike but for a number, such as default_dig_choppy.1.ogg and .2.ogg. Every second family,
    in order of name, is in one half. Of recordings that are the same but for their
    encoding only the first counts.

    Raises:
        SourceError: if there are fewer than two families.
    """
    families: dict[str, list[Hit]] = defaultdict(list)
    left_out: list[str] = []
    known: list[tuple[str, Sound]] = []
    for path in sorted(folder.rglob("*.ogg"), key=lambda path: path.name):
        wave = read_sound(path)
        same = next((name for name, other in known if _alike(wave, other)), None)
        known.append((path.name, wave))
        hit = f"the same as {same}" if same else single_hit(path.name, wave)
        if isinstance(hit, str):
            left_out.append(f"{path.name}: {hit}")
        else:
            families[re.sub(r"(\.\d+)?\.ogg$", "", path.name)].append(hit)
    if len(families) < 2:
        raise SourceError(f"{folder}: no hits. Unpack Debian's minetest-data there: apt-get download, dpkg -x")
    in_order = [families[name] for name in sorted(families)]
    return {half: in_order[number::2] for number, half in enumerate(HALVES)}, left_out


def esc_recordings(folder: Path, background: str, half: str) -> list[Path]:
    """Return ESC-10's recordings of a background: of its folds 1, 3 and 5 for tuning, 2 and 4 for reporting.

    Recordings cut from one file are in one fold.

    Raises:
        SourceError: if there are none.
    """
    folds = "135" if half == "tuning" else "24"
    found = [path for path in sorted((folder / _ESC_CLASSES[background]).glob("*.ogg")) if path.name[0] in folds]
    if not found:
        raise SourceError(
            f"{folder}: no recordings in '{_ESC_CLASSES[background]}' (ESC-10, github.com/karoldvl/ESC-10)"
        )
    return found


def spoken(espeak: str, half: str) -> list[Sound]:
    """Return sentences by three voices, those of each half its own.

    Raises:
        SourceError: if the command does not run.
    """
    waves = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "sentence.wav")
        for number, sentence in enumerate(_SENTENCES[half]):
            for voice in _VOICES[half]:
                command = [espeak, "-v", voice, "-s", str(140 + 8 * number), "-w", str(path), sentence]
                try:
                    subprocess.run(command, check=True, capture_output=True)
                except (OSError, subprocess.CalledProcessError) as error:
                    raise SourceError(f"speech needs the command espeak-ng (--espeak): {error}") from error
                waves.append(read_sound(path))
    return waves


def make_mixes(
    folder: Path, half: str, *, foley: Path, esc: Path, espeak: str, num_each: int, seed: int = 0
) -> tuple[list[Mix], list[str]]:
    """Make the mixes of a half, or read them again where the same were made before.

    Args:
        folder: is given a folder for the half: of each mix its sound and its onsets as Audacity labels.
        half: of the recordings.
        foley: folder of minetest-data.
        esc: folder of ESC-10.
        espeak: the command.
        num_each: mixes of each tempo, background and level.
        seed: of everything drawn.

    Returns:
        The mixes, and what is missing or left out and why.

    Raises:
        SourceError: without foley there is no mix.
    """
    recipe = {"version": _VERSION, "num_each": num_each, "seed": seed}
    written = folder / half / "mixes.json"
    if written.is_file() and (content := json.loads(written.read_text()))["recipe"] == recipe:
        mixes = [Mix(name, written.with_name(f"{name}.wav"), np.array(on)) for name, on in content["onsets"].items()]
        return mixes, content["notes"]
    written.parent.mkdir(parents=True, exist_ok=True)
    hits, notes = foley_hits(foley)
    mixes = []
    for background in BACKGROUNDS:
        rng = np.random.default_rng([seed, HALVES.index(half), BACKGROUNDS.index(background)])
        try:
            sources: Sequence[Path | Sound] = []
            if background == "speech":
                sources = spoken(espeak, half)
            elif background != "room":
                sources = esc_recordings(esc, background, half)
        except SourceError as error:
            notes.append(f"no mixes with {background}: {error}")
            continue
        for tempo in TEMPI:
            for level, level_db in LEVELS_DB.items():
                for number in range(num_each):
                    name = f"{tempo}_{background}_{level}_{number}"
                    sound = _background(background, sources, rng)
                    sound, onsets = _with_hits(sound, hits[half], tempo, level_db, rng)
                    mix = Mix(name, written.with_name(f"{name}.wav"), onsets)
                    scipy.io.wavfile.write(mix.path, RATE, np.rint(sound * 32767).astype(np.int16))
                    labels = "".join(f"{time:.6f}\t{time:.6f}\thit\n" for time in onsets)
                    mix.path.with_suffix(".txt").write_text(labels)
                    mixes.append(mix)
    if not any(note.startswith("no mixes") for note in notes):  # else made again once the sources are there
        onsets_of = {mix.name: mix.onsets.tolist() for mix in mixes}
        written.write_text(json.dumps({"recipe": recipe, "notes": notes, "onsets": onsets_of}))
    return mixes, notes


def _background(name: str, sources: Sequence[Path | Sound], rng: np.random.Generator) -> Sound:
    """Return 20 s of a background at -40 dB re full scale."""
    num_samples = round(MIX_SECONDS * RATE)
    if name == "room":  # noise that falls by 6 dB per octave above 200 Hz, and a hum
        noise = sosfilt(np.array([[1, 0, 0, 1, -np.exp(-2 * np.pi * 200 / RATE), 0]]), rng.standard_normal(num_samples))
        phase = 2 * np.pi * 50 * np.arange(num_samples) / RATE
        hum = sum(rng.uniform(0.2, 1) * np.sin(k * phase + rng.uniform(0, 6)) / k for k in (1, 2, 3))
        sound = noise / _level(noise) + 0.7 * hum / _level(hum)
    else:
        sound = np.zeros(num_samples)
        at = 0
        fade = RATE // 10 if name != "speech" else 1  # crossfade, so that a cut is no onset
        while at < num_samples:
            source = sources[int(rng.integers(len(sources)))]
            part = (read_sound(source) if isinstance(source, Path) else source).astype(np.float64)
            part /= _level(part)
            part[:fade] *= np.linspace(0, 1, fade)
            part[-fade:] *= np.linspace(1, 0, fade)
            stop = min(num_samples, at + len(part))
            sound[at:stop] += part[: stop - at]
            at = stop - fade if name != "speech" else stop + round(rng.uniform(0.3, 1.5) * RATE)
            if stop == num_samples:
                break
    return (10 ** (_BACKGROUND_DB / 20) / _level(sound) * sound).astype(np.float32)


def _with_hits(
    sound: Sound, families: list[list[Hit]], tempo: str, level_db: float, rng: np.random.Generator
) -> tuple[Sound, NDArray[np.float64]]:
    """Return a sound with hits added, kept below full scale, and their onsets in seconds."""
    mixed = sound.copy()
    onsets = []
    seconds = rng.uniform(0.5, 1.5)
    while seconds < MIX_SECONDS - 0.5:
        family = families[rng.integers(len(families))]
        for number in range(1 if tempo == "slow" else int(rng.integers(*_BURST))):
            if number:
                seconds += rng.uniform(*_FAST_SECONDS)
            if seconds >= MIX_SECONDS - 0.5:
                break
            hit = family[rng.integers(len(family))]
            gain_db = _BACKGROUND_DB + level_db + rng.uniform(-_LEVEL_SPREAD_DB, _LEVEL_SPREAD_DB)
            onset = round(seconds * RATE)
            part = hit.wave[: len(mixed) - (onset - hit.onset)]
            mixed[onset - hit.onset : onset - hit.onset + len(part)] += np.float32(10 ** (gain_db / 20)) * part
            onsets.append(onset / RATE)
        seconds += rng.uniform(*_SLOW_SECONDS)
    return np.clip(mixed, -1, 1), np.array(onsets)


def _alike(wave: Sound, other: Sound) -> bool:
    """Return whether two recordings are the same but for their encoding and level."""
    if len(wave) != len(other):
        return False
    return bool(np.dot(wave, other) > 0.98 * np.linalg.norm(wave) * np.linalg.norm(other))


def _level(sound: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
