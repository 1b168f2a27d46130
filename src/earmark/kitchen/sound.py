"""The sound of one video: impacts, friction and liquids of its events over the tone of the room.

Rendered from the script, like the picture. What goes on in a state (running water,
the hob, the kettle, a frying egg) sounds as long as the state lasts; somebody out of sight may talk.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from earmark.kitchen.room import Room
from earmark.kitchen.script import Script
from earmark.kitchen.sound_events import event_wave
from earmark.kitchen.states import RUNNING
from earmark.kitchen.synthesis import Wave, noise_loop, voice

_TALK_RMS = 0.012
_RUNNING = {
    **{"tap": (0.02, (700.0, 4500.0)), "hob": (0.007, (180.0, 900.0))},
    **{"kettle": (0.012, (90.0, 500.0)), "pan": (0.011, (2500.0, 9000.0))},
}
"""Level and band in hertz of what sounds as long as a state lasts."""


@dataclass(frozen=True, slots=True)
class Sound:
    """The sound of a video.

    Attributes:
        wave: float32 (S,), mono, within -1..1.
        loudness_db: Level of each event of the script over the 100 ms from its contact, decibels re full scale,
            without the background; -inf for silent events.
    """

    wave: npt.NDArray[np.float32]
    loudness_db: tuple[float, ...]


def render_sound(
    room: Room, script: Script, rng: np.random.Generator, *, sample_rate: int, noise_db: float = 0.0
) -> Sound:
    """Render the sound of one video.

    Args:
        room: The kitchen.
        script: What happens.
        rng: Source of noise and of small differences between blows.
        sample_rate: Samples per second.
        noise_db: Level of the background in decibels against the usual.

    Returns:
        The sound, round(duration * sample_rate) samples; sample k is at time k / sample_rate.
    """
    num_samples = round(script.duration_seconds * sample_rate)
    wave = 10 ** (noise_db / 20) * _background(room, rng, num_samples, sample_rate)
    for thing, (level, band) in _RUNNING.items():
        envelope = _running(script, thing, num_samples, sample_rate)
        if envelope.any():
            wave += level * envelope * noise_loop(rng, num_samples, sample_rate, band)
    for begin, end in script.talk:
        talk = _TALK_RMS * voice(rng, end - begin, sample_rate)
        first = round(begin * sample_rate)
        wave[first : first + len(talk)] += talk[: num_samples - first]
    loudness = []
    for event in script.events:
        if not event.audible:
            loudness.append(-np.inf)
            continue
        lead, contact_wave = event_wave(room, event, rng, sample_rate)
        tenth = contact_wave[lead : lead + sample_rate // 10]
        loudness.append(round(20 * float(np.log10(np.sqrt(np.mean(tenth**2)))), 2))
        start = round(event.contact_seconds * sample_rate) - lead
        first, last = max(0, start), min(num_samples, start + len(contact_wave))
        wave[first:last] += contact_wave[first - start : last - start]
    return Sound(np.tanh(wave).astype(np.float32), tuple(loudness))


def _background(room: Room, rng: np.random.Generator, num_samples: int, sample_rate: int) -> Wave:
    """Return room tone, the hum of the fridge, and faint traffic that swells and fades."""
    times = np.arange(num_samples) / sample_rate
    tone = 0.0012 * noise_loop(rng, num_samples, sample_rate, (60, 6000))
    swell = 1 + 0.6 * np.sin(2 * np.pi * times * rng.uniform(0.02, 0.06) + rng.uniform(0, 6))
    tone += 0.002 * swell * noise_loop(rng, num_samples, sample_rate, (40, 300))
    for harmonic, level in ((1, 0.0016), (2, 0.0009), (3, 0.0004)):
        tone += level * np.sin(2 * np.pi * times * room.hum_hz * harmonic + rng.uniform(0, 6))
    return tone


def _running(script: Script, thing: str, num_samples: int, sample_rate: int) -> Wave:
    """Return 0..1: whether a thing runs, with short ramps at the contacts."""
    envelope = np.zeros(num_samples)
    for begin, end in script.spans(thing, RUNNING[thing]):
        envelope[round(begin * sample_rate) : round(end * sample_rate)] = 1.0
    rise = max(1, round(0.03 * sample_rate))
    smoothed = np.cumsum(np.concatenate([np.full(rise, envelope[0]), envelope]))
    ramped: Wave = (smoothed[rise:] - smoothed[:-rise]) / rise
    return ramped
