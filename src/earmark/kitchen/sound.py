"""The sound of one video: impacts, friction and liquids of its events over the tone of the room.

Third station of the generator, beside the picture and from the same script. Impacts are modal: decaying sines whose
frequencies and decays belong to the material and, by `Thing.voice`, to the thing, plus the broad click of the contact.
What goes on in a state (running water, the hob, the kettle) sounds as long as the state lasts.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, sosfilt

from earmark.kitchen.room import Room, Thing
from earmark.kitchen.script import Event, Script

Wave: TypeAlias = npt.NDArray[np.float64]

_CONTACT_RMS = 0.16  # of the 30 ms that follow a contact of force 0
_LOOP_SECONDS = 11.0


@dataclass(frozen=True, slots=True)
class Material:
    """How a struck material rings.

    Attributes:
        lowest_hz: Frequency of its lowest mode at usual size.
        num_modes: Number of modes.
        stretch: Exponent of the mode number: over 1 the modes grow apart, as those of bars and plates do.
        decay_seconds: Time in which the lowest mode falls by 1/e; higher ones fall faster.
        click: Level of the broad click beside the modes.
    """

    lowest_hz: float
    num_modes: int
    stretch: float
    decay_seconds: float
    click: float


MATERIALS: dict[str, Material] = {
    "wood": Material(170, 9, 1.25, 0.055, 0.5),
    "metal": Material(620, 14, 1.2, 0.3, 0.45),
    "ceramic": Material(1150, 8, 1.35, 0.11, 0.5),
    "glass": Material(2100, 7, 1.3, 0.2, 0.5),
    "plastic": Material(380, 8, 1.15, 0.028, 0.6),
    "food": Material(120, 6, 1.1, 0.022, 0.7),
}


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


def render_sound(room: Room, script: Script, rng: np.random.Generator, *, sample_rate: int) -> Sound:
    """Render the sound of one video.

    Args:
        room: The kitchen.
        script: What happens.
        rng: Source of noise and of small differences between blows.
        sample_rate: Samples per second.

    Returns:
        The sound, round(duration * sample_rate) samples; sample k is at time k / sample_rate.
    """
    num_samples = round(script.duration_seconds * sample_rate)
    wave = _background(room, rng, num_samples, sample_rate)
    for thing, level, band in (("tap", 0.02, (700, 4500)), ("hob", 0.007, (180, 900)), ("kettle", 0.012, (90, 500))):
        envelope = _running(script, thing, num_samples, sample_rate)
        if envelope.any():
            wave += level * envelope * _loop(rng, num_samples, sample_rate, band)
    loudness = []
    for event in script.events:
        if not event.audible:
            loudness.append(-np.inf)
            continue
        lead, contact_wave = _event_wave(room, event, rng, sample_rate)
        tenth = contact_wave[lead : lead + sample_rate // 10]
        loudness.append(round(20 * float(np.log10(np.sqrt(np.mean(tenth**2)))), 2))
        start = round(event.contact_seconds * sample_rate) - lead
        first, last = max(0, start), min(num_samples, start + len(contact_wave))
        wave[first:last] += contact_wave[first - start : last - start]
    return Sound(np.tanh(wave).astype(np.float32), tuple(loudness))


def _background(room: Room, rng: np.random.Generator, num_samples: int, sample_rate: int) -> Wave:
    """Return room tone, the hum of the fridge, and faint traffic that swells and fades."""
    times = np.arange(num_samples) / sample_rate
    tone = 0.0012 * _loop(rng, num_samples, sample_rate, (60, 6000))
    swell = 1 + 0.6 * np.sin(2 * np.pi * times * rng.uniform(0.02, 0.06) + rng.uniform(0, 6))
    tone += 0.002 * swell * _loop(rng, num_samples, sample_rate, (40, 300))
    for harmonic, level in ((1, 0.0016), (2, 0.0009), (3, 0.0004)):
        tone += level * np.sin(2 * np.pi * times * room.hum_hz * harmonic + rng.uniform(0, 6))
    return tone


def _running(script: Script, thing: str, num_samples: int, sample_rate: int) -> Wave:
    """Return 0..1: whether an appliance is on, with short ramps at the contacts."""
    envelope = np.zeros(num_samples)
    turns = [(0.0, script.initial[thing])] + [(e.contact_seconds, e.after) for e in script.events_of(thing)]
    ends = [time for time, _ in turns[1:]] + [script.duration_seconds]
    for (begin, state), end in zip(turns, ends, strict=True):
        if state == "on":
            envelope[round(begin * sample_rate) : round(end * sample_rate)] = 1.0
    rise = max(1, round(0.03 * sample_rate))
    smoothed = np.cumsum(np.concatenate([np.full(rise, envelope[0]), envelope]))
    ramped: Wave = (smoothed[rise:] - smoothed[:-rise]) / rise
    return ramped


def _loop(rng: np.random.Generator, num_samples: int, sample_rate: int, band: tuple[float, float]) -> Wave:
    """Return noise of unit power in a band with soft edges; a seamless loop, so its cost doesn't grow with length."""
    length = min(num_samples, round(_LOOP_SECONDS * sample_rate))
    frequencies = np.fft.rfftfreq(length, 1 / sample_rate)
    shape = 1 / (1 + (band[0] / np.maximum(frequencies, 1)) ** 4) / (1 + (frequencies / band[1]) ** 4)
    spectrum = np.fft.rfft(rng.standard_normal(length)) * shape
    noise = np.fft.irfft(spectrum, length)
    tiled: Wave = np.resize(noise / noise.std(), num_samples)
    return tiled


def _times(seconds: float, sample_rate: int) -> Wave:
    return np.arange(round(seconds * sample_rate)) / sample_rate


def _noise(rng: np.random.Generator, seconds: float, sample_rate: int, band: tuple[float, float]) -> Wave:
    """Return filtered noise of unit power."""
    top = min(band[1], 0.45 * sample_rate)
    filters = butter(2, (min(band[0], 0.5 * top), top), "bandpass", fs=sample_rate, output="sos")
    noise: Wave = sosfilt(filters, rng.standard_normal(round(seconds * sample_rate)))
    level = float(noise.std())
    return noise / level


def _impact(
    material: str, voice: int, rng: np.random.Generator, sample_rate: int, *, pitch: float = 1.0, damping: float = 1.0
) -> Wave:
    """Return one blow that begins at sample 0; `damping` over 1 shortens the ring, as a hand on the thing does."""
    kind = MATERIALS[material]
    own = np.random.default_rng(voice)
    numbers = np.arange(1, kind.num_modes + 1)
    frequencies = kind.lowest_hz * own.uniform(0.85, 1.2) * pitch * numbers**kind.stretch
    frequencies = frequencies * own.uniform(0.93, 1.07, len(numbers))
    decays = kind.decay_seconds / damping / numbers**0.4
    gains = own.uniform(0.4, 1.0, len(numbers)) / numbers**0.45 * rng.uniform(0.7, 1.3, len(numbers))
    times = _times(min(1.2, 6 * float(decays[0]) + 0.06), sample_rate)
    wave = np.zeros(len(times))
    for frequency, decay, gain in zip(frequencies, decays, gains, strict=True):
        if frequency < 0.45 * sample_rate:
            wave += gain * np.exp(-times / decay) * np.sin(2 * np.pi * frequency * times)
    burst = rng.standard_normal(len(times)) * np.exp(-times / 0.006)
    return wave / _level(wave, sample_rate) + kind.click * burst / _level(burst, sample_rate)


def _level(wave: Wave, sample_rate: int) -> float:
    """Return the root mean square of the first 30 ms."""
    return float(np.sqrt(np.mean(wave[: round(0.03 * sample_rate)] ** 2)))


def _add(base: Wave, wave: Wave, at: int) -> Wave:
    """Return `base` with `wave` added from sample `at` on, made longer where needed."""
    total = np.zeros(max(len(base), at + len(wave)))
    total[: len(base)] = base
    total[at : at + len(wave)] += wave
    return total


def _friction(
    rng: np.random.Generator, seconds: float, sample_rate: int, band: tuple[float, float], *, stick_hz: float
) -> Wave:
    """Return something sliding: noise that sticks and slips at a rate, swelling and fading."""
    times = _times(seconds, sample_rate)
    rate = stick_hz * (1 + 0.4 * np.sin(np.pi * times / seconds))
    slips = 0.55 + 0.45 * np.sin(2 * np.pi * np.cumsum(rate) / sample_rate + rng.uniform(0, 6))
    bell: Wave = np.sin(np.pi * times / seconds)
    return _noise(rng, seconds, sample_rate, band) * slips * bell


def _bubbles(rng: np.random.Generator, seconds: float, sample_rate: int, lowest_hz: float) -> Wave:
    """Return a liquid filling a vessel: a splash, then many short rising tones whose pitch climbs with the level."""
    times = _times(seconds, sample_rate)
    wave = 0.35 * _noise(rng, seconds, sample_rate, (900, 7000)) * np.minimum(1, (seconds - times) / 0.1)
    for _ in range(round(90 * seconds)):
        begin = rng.uniform(0, seconds - 0.06)
        pitch = lowest_hz * (1 + 1.2 * begin / seconds) * rng.uniform(0.7, 1.6)
        short = _times(0.05, sample_rate)
        tone = np.sin(2 * np.pi * pitch * short * (1 + 3 * short)) * np.exp(-short / 0.012) * rng.uniform(0.2, 1)
        first = round(begin * sample_rate)
        wave[first : first + len(tone)] += tone
    return wave


def _event_wave(room: Room, event: Event, rng: np.random.Generator, sample_rate: int) -> tuple[int, Wave]:
    """Return (number of samples before the contact, the sound of one event)."""
    if not event.on_screen:
        before, wave = np.zeros(0), _impact(event.thing, 7, rng, sample_rate, pitch=0.6)
    else:
        before, wave = _action(event.verb, room.things[event.thing], rng, sample_rate)
    level = _CONTACT_RMS * 10 ** (event.force_db / 20)
    wave = wave * (level / _level(wave, sample_rate))
    fade = min(len(wave), round(0.02 * sample_rate))
    wave[len(wave) - fade :] *= np.linspace(1, 0, fade)
    return len(before), np.concatenate([before * level, wave])


def _action(verb: str, thing: Thing, rng: np.random.Generator, rate: int) -> tuple[Wave, Wave]:
    """Return (what leads up to the contact, the contact and what follows), at level 1 about the contact."""
    nothing = np.zeros(0)
    own, voice = thing.material, thing.voice
    if verb == "open":
        latch = _impact("metal", voice, rng, rate, pitch=2.2, damping=7)
        band, stick = {"drawer": ((250, 3500), 38.0), "fridge": ((120, 1500), 21.0)}.get(
            thing.name, ((500, 2600), 55.0)
        )
        return nothing, _add(latch, 0.3 * _friction(rng, 0.5, rate, band, stick_hz=stick), round(0.03 * rate))
    if verb == "close":
        band = (250, 3500) if thing.name == "drawer" else (150, 1200)
        thump = _impact(own, voice, rng, rate, pitch=0.42, damping=0.6)
        thump = _add(thump, 0.4 * _impact(own, voice + 1, rng, rate, pitch=1.4, damping=2), round(0.045 * rate))
        return 0.12 * _friction(rng, 0.4, rate, band, stick_hz=30.0), thump
    if verb in ("turn-on", "turn-off"):
        return nothing, _switch(verb == "turn-on", thing, rng, rate)
    if verb == "cut":
        crunch = _noise(rng, 0.07, rate, (900, 6500)) * (rng.random(round(0.07 * rate)) < 0.25)
        knock = _impact("wood", voice, rng, rate, pitch=1.5, damping=1.4)
        scrape = 0.18 * _friction(rng, 0.25, rate, (2500, 7000), stick_hz=70.0)
        return nothing, _add(_add(knock, crunch, 0), scrape, round(0.08 * rate))
    if verb == "crack":
        shell = 5 * _noise(rng, 0.03, rate, (3000, 9000)) * np.exp(-_times(0.03, rate) / 0.005)
        for delay in np.sort(rng.uniform(0.008, 0.09, 7)):
            snap = _impact("ceramic", voice, rng, rate, pitch=rng.uniform(1.8, 3.4), damping=16)
            shell = _add(shell, rng.uniform(0.3, 0.8) * snap, round(delay * rate))
        return nothing, _add(shell, 0.4 * _impact("food", voice, rng, rate), round(0.11 * rate))
    if verb == "pour":
        splash = _noise(rng, 0.08, rate, (500, 7500)) * np.exp(-_times(0.08, rate) / 0.025)
        return nothing, _add(1.6 * splash, 0.55 * _bubbles(rng, 0.55, rate, 650.0), 0)
    if verb == "stir":
        clink = _impact(own, voice, rng, rate, pitch=1.15, damping=1.6)
        for turn in range(1, 4):
            tick = _impact(own, voice, rng, rate, pitch=1.15, damping=3)
            clink = _add(clink, rng.uniform(0.15, 0.3) * tick, round((turn * 0.19 + rng.uniform(-0.02, 0.02)) * rate))
        return nothing, _add(clink, 0.16 * _friction(rng, 0.6, rate, (1200, 4800), stick_hz=5.2), round(0.04 * rate))
    if verb == "put":
        thud = _add(_impact(own, voice, rng, rate), 0.8 * _impact("wood", voice, rng, rate, pitch=0.7), 0)
        bounce = 0.35 * _impact(own, voice, rng, rate, pitch=1.03, damping=1.5)
        return nothing, _add(thud, bounce, round(rng.uniform(0.05, 0.08) * rate))
    tick = _impact(own, voice, rng, rate, pitch=1.25, damping=5)
    return nothing, _add(tick, 0.45 * _friction(rng, 0.22, rate, (1800, 7500), stick_hz=90.0), round(0.005 * rate))


def _switch(on: bool, thing: Thing, rng: np.random.Generator, rate: int) -> Wave:
    """Return a lever, a knob or a switch: what starts clicks up, what stops clunks down."""
    if thing.name == "tap":
        if on:
            squeak = _impact("metal", thing.voice, rng, rate, pitch=2.4, damping=6)
            rush = _noise(rng, 0.3, rate, (900, 6500)) * np.exp(-_times(0.3, rate) / 0.1)
            return _add(squeak, 0.5 * rush, 0)
        return _add(_impact("metal", thing.voice, rng, rate, pitch=0.55, damping=2), np.zeros(1), 0)
    if thing.name == "hob":
        click = _impact("plastic", thing.voice, rng, rate, pitch=2.6 if on else 1.1)
        if not on:
            return click
        for delay in (0.07, 0.13):
            click = _add(click, 0.5 * _impact("plastic", thing.voice, rng, rate, pitch=3.0), round(delay * rate))
        whoosh = _noise(rng, 0.35, rate, (120, 1400)) * np.sin(np.pi * _times(0.35, rate) / 0.35)
        return _add(click, 0.35 * whoosh, round(0.15 * rate))
    first, second = (1.6, 2.3) if on else (2.0, 1.0)
    press = _impact("plastic", thing.voice, rng, rate, pitch=first)
    return _add(press, 0.7 * _impact("plastic", thing.voice + 1, rng, rate, pitch=second), round(0.035 * rate))
