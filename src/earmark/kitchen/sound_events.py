"""The sound of each kind of action, and of what happens out of sight.

sound.py mixes them into the sound of a video.
"""

from collections.abc import Callable

import numpy as np

from earmark.kitchen.room import WORLD_HEIGHT, Room, Thing
from earmark.kitchen.script import Event
from earmark.kitchen.synthesis import (
    MATERIALS,
    Wave,
    add_at,
    attack_level,
    bubbles,
    filtered_noise,
    friction,
    impact,
    sample_times,
)

_CONTACT_RMS = 0.16  # of the 30 ms that follow a contact of force 0
_OFF_SCREEN_GAIN = 0.63  # from another room


def event_wave(room: Room, event: Event, rng: np.random.Generator, sample_rate: int) -> tuple[int, Wave]:
    """Return the sound of one event.

    Its level follows from the force, the material and size of the thing, and its distance from the ears.

    Args:
        room: The kitchen.
        event: On screen or off.
        rng: Source of small differences between blows.
        sample_rate: Samples per second.

    Returns:
        (Number of samples before the contact, samples).
    """
    before = np.zeros(0)
    if event.on_screen:
        thing = room.things[event.thing]
        before, wave = _action(event.verb, thing, rng, sample_rate)
        far = 0.75 + 0.35 * (WORLD_HEIGHT - thing.y)  # the head is above the near edge of the counter
        gain = 10 ** (MATERIALS[thing.material].gain_db / 20) * thing.size**2 / far
    else:
        wave, gain = _elsewhere(event.sound, rng, sample_rate), _OFF_SCREEN_GAIN
    level = _CONTACT_RMS * gain * 10 ** (event.force_db / 20)
    wave = wave * (level / attack_level(wave, sample_rate))
    fade = min(len(wave), round(0.02 * sample_rate))
    wave[len(wave) - fade :] *= np.linspace(1, 0, fade)
    return len(before), np.concatenate([before * level, wave])


def _elsewhere(sound: str, rng: np.random.Generator, rate: int) -> Wave:
    """Return a sound with no visible cause."""
    voice = int(rng.integers(2**31))
    if sound == "thump":
        return impact("wood", voice, rng, rate, pitch=0.5)
    if sound == "clink":
        return add_at(impact("glass", voice, rng, rate), 0.5 * impact("glass", voice + 1, rng, rate), rate // 12)
    if sound == "door":
        creak = 0.25 * friction(rng, 0.6, rate, (300, 1600), stick_hz=24.0)
        return add_at(impact("wood", voice, rng, rate, pitch=0.35, damping=0.5), creak, round(0.1 * rate))
    if sound == "dishes":
        wave = impact("ceramic", voice, rng, rate)
        for delay in np.sort(rng.uniform(0.04, 0.5, 5)):
            blow = impact("ceramic", voice + int(rng.integers(3)), rng, rate, pitch=rng.uniform(0.8, 1.3))
            wave = add_at(wave, rng.uniform(0.3, 0.9) * blow, round(delay * rate))
        return wave
    if sound == "beep":
        times = sample_times(0.12, rate)
        tone = np.sin(2 * np.pi * rng.uniform(1800, 2600) * times) * np.minimum(1, (0.12 - times) / 0.01)
        return add_at(add_at(tone, tone, round(0.25 * rate)), tone, round(0.5 * rate))
    times = sample_times(0.18, rate)  # a dog
    pitch = rng.uniform(380, 620) * (1 + 0.5 * np.sin(np.pi * times / 0.18))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    bark = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 6)) * np.exp(-times / 0.07)
    bark = bark + 0.3 * filtered_noise(rng, 0.18, rate, (600, 3000)) * np.exp(-times / 0.05)
    return add_at(bark, 0.9 * bark, round(rng.uniform(0.3, 0.4) * rate))


_STROKES = {
    "peel": (0.114, (1500.0, 7000.0), 110.0, 0.9),
    "wash": (0.147, (900.0, 5000.0), 45.0, 0.7),
    "dry": (0.2, (600.0, 3500.0), 25.0, 0.6),
    "spread": (0.167, (700.0, 4200.0), 40.0, 0.6),
}
"""Sounds of strokes to and fro: seconds of a stroke, band, rate of sticking, level."""

_HINGES = {"drawer": ((250.0, 3500.0), 38.0), "fridge": ((120.0, 1500.0), 21.0), "oven": ((400.0, 3000.0), 14.0)}


def _action(verb: str, thing: Thing, rng: np.random.Generator, rate: int) -> tuple[Wave, Wave]:
    """Return (what leads up to the contact, the contact and what follows), at level 1 about the contact."""
    if verb == "close":
        return (_close_jar if thing.name == "jar" else _close_door)(thing, rng, rate)
    if verb in _STROKES:
        wave = _stroke(verb, thing, rng, rate)
    elif verb in ("turn-on", "turn-off"):
        wave = _switch(verb == "turn-on", thing, rng, rate)
    else:
        wave = _CONTACTS[verb](thing, rng, rate)
    return np.zeros(0), wave


def _open(thing: Thing, rng: np.random.Generator, rate: int) -> Wave:
    """Return a latch and a door or drawer that glides; or a seal that pops and a thread that turns."""
    if thing.name == "jar":
        pop = impact("metal", thing.voice, rng, rate, pitch=0.9, damping=6)
        return add_at(pop, 0.3 * friction(rng, 0.3, rate, (1500, 6000), stick_hz=16.0), round(0.05 * rate))
    latch = impact("metal", thing.voice, rng, rate, pitch=rng.uniform(1.2, 2.4), damping=rng.uniform(3, 8))
    band, stick = _HINGES.get(thing.name, ((500.0, 2600.0), 55.0))
    return add_at(
        latch,
        rng.uniform(0.1, 0.35) * friction(rng, rng.uniform(0.3, 0.55), rate, band, stick_hz=stick),
        round(0.03 * rate),
    )


def _close_jar(thing: Thing, rng: np.random.Generator, rate: int) -> tuple[Wave, Wave]:
    twist = 0.12 * friction(rng, 0.3, rate, (1500, 6000), stick_hz=16.0)
    return twist, impact("metal", thing.voice, rng, rate, pitch=1.6, damping=2)


def _close_door(thing: Thing, rng: np.random.Generator, rate: int) -> tuple[Wave, Wave]:
    band = (250, 3500) if thing.name == "drawer" else (150, 1200)
    thump = impact(thing.material, thing.voice, rng, rate, pitch=rng.uniform(0.4, 0.7), damping=rng.uniform(0.6, 2.0))
    rattle = rng.uniform(0.1, 0.5) * impact(thing.material, thing.voice + 1, rng, rate, pitch=1.4, damping=2)
    return rng.uniform(0.02, 0.14) * friction(rng, 0.4, rate, band, stick_hz=30.0), add_at(
        thump, rattle, round(0.045 * rate)
    )


def _cut(thing: Thing, rng: np.random.Generator, rate: int) -> Wave:
    crunch = (
        rng.uniform(0.2, 1.0) * filtered_noise(rng, 0.07, rate, (900, 6500)) * (rng.random(round(0.07 * rate)) < 0.25)
    )
    knock = impact("wood", thing.voice, rng, rate, pitch=rng.uniform(0.7, 1.6), damping=rng.uniform(1.0, 2.5))
    scrape = rng.uniform(0.0, 0.3) * friction(rng, 0.25, rate, (2500, 7000), stick_hz=70.0)
    return add_at(add_at(knock, crunch, 0), scrape, round(0.08 * rate))


def _crack(thing: Thing, rng: np.random.Generator, rate: int) -> Wave:
    shell = 5 * filtered_noise(rng, 0.03, rate, (3000, 9000)) * np.exp(-sample_times(0.03, rate) / 0.005)
    for delay in np.sort(rng.uniform(0.008, 0.09, 7)):
        snap = impact("ceramic", thing.voice, rng, rate, pitch=rng.uniform(1.8, 3.4), damping=16)
        shell = add_at(shell, rng.uniform(0.3, 0.8) * snap, round(delay * rate))
    return add_at(shell, 0.4 * impact("food", thing.voice, rng, rate), round(0.11 * rate))


def _pour(thing: Thing, rng: np.random.Generator, rate: int) -> Wave:
    """Return a splash, then bubbles, lower in a larger vessel."""
    splash = filtered_noise(rng, 0.08, rate, (500, 7500)) * np.exp(-sample_times(0.08, rate) / 0.025)
    lowest_hz = {"cup": 800.0, "bowl": 600.0}.get(thing.name, 420.0) / thing.size
    return add_at(1.6 * splash, 0.55 * bubbles(rng, 0.55, rate, lowest_hz), 0)


def _stir(thing: Thing, rng: np.random.Generator, rate: int) -> Wave:
    clink = impact(thing.material, thing.voice, rng, rate, pitch=1.15, damping=rng.uniform(1.2, 4.0))
    for turn in range(1, 4):
        tick = impact(thing.material, thing.voice, rng, rate, pitch=1.15, damping=3)
        clink = add_at(clink, rng.uniform(0.0, 0.35) * tick, round((turn * 0.19 + rng.uniform(-0.02, 0.02)) * rate))
    return add_at(
        clink,
        rng.uniform(0.05, 0.3) * friction(rng, 0.6, rate, (1200, 4800), stick_hz=rng.uniform(4, 12)),
        round(0.04 * rate),
    )


def _stroke(verb: str, thing: Thing, rng: np.random.Generator, rate: int) -> Wave:
    """Return a tool that touches the thing and goes to and fro on it."""
    stroke_seconds, band, stick_hz, level = _STROKES[verb]
    stroke_seconds *= rng.uniform(0.7, 1.45)  # hands differ from one time to the next more than tools do
    shift = rng.uniform(0.55, 1.6)
    band, stick_hz, level = (
        (band[0] * shift, band[1] * shift),
        stick_hz * rng.uniform(0.6, 1.6),
        level * rng.uniform(0.5, 1.2),
    )
    touched = "food" if verb in ("peel", "spread") else thing.material
    wave = 0.5 * impact(touched, thing.voice, rng, rate, pitch=1.6, damping=2)
    for begin in np.arange(0.0, 0.55, stroke_seconds):
        stroke = friction(rng, 0.8 * stroke_seconds, rate, band, stick_hz=stick_hz)
        wave = add_at(wave, level * rng.uniform(0.7, 1.0) * stroke, round(begin * rate))
    return wave


def _put(thing: Thing, rng: np.random.Generator, rate: int) -> Wave:
    """Return a blow on the counter, flat or with a bounce, now and then pushed on."""
    thud = rng.uniform(0.1, 1.0) * impact("wood", thing.voice, rng, rate, pitch=0.7)
    blow = add_at(impact(thing.material, thing.voice, rng, rate, damping=rng.uniform(0.9, 4.0)), thud, 0)
    bounce = rng.uniform(0.0, 0.5) * impact(thing.material, thing.voice, rng, rate, pitch=1.03, damping=1.5)
    slide = rng.uniform(0.0, 0.4) ** 2 * _slide(rng, rate)
    return add_at(
        add_at(blow, bounce, round(rng.uniform(0.04, 0.1) * rate)), slide, round(rng.uniform(0.0, 0.15) * rate)
    )


def _take(thing: Thing, rng: np.random.Generator, rate: int) -> Wave:
    """Return a touch, light or clumsy, and the thing sliding off."""
    tick = impact(thing.material, thing.voice, rng, rate, pitch=rng.uniform(1.0, 1.3), damping=rng.uniform(1.5, 6.0))
    knock = rng.uniform(0.0, 0.6) * impact("wood", thing.voice, rng, rate, pitch=0.8, damping=2)
    slide = rng.uniform(0.05, 0.45) * _slide(rng, rate)
    return add_at(add_at(tick, knock, round(rng.uniform(0.0, 0.08) * rate)), slide, round(rng.uniform(0.0, 0.1) * rate))


def _slide(rng: np.random.Generator, rate: int) -> Wave:
    shift = rng.uniform(0.5, 1.3)
    return friction(rng, rng.uniform(0.12, 0.3), rate, (1500 * shift, 6500 * shift), stick_hz=rng.uniform(40, 110))


_CONTACTS: dict[str, Callable[[Thing, np.random.Generator, int], Wave]] = {
    **{"take": _take, "put": _put, "open": _open, "cut": _cut, "crack": _crack, "pour": _pour, "stir": _stir},
}


def _switch(on: bool, thing: Thing, rng: np.random.Generator, rate: int) -> Wave:
    """Return a lever, a knob or a switch: what starts clicks up, what stops clunks down."""
    if thing.name == "tap":
        if on:
            squeak = impact("metal", thing.voice, rng, rate, pitch=2.4, damping=6)
            rush = filtered_noise(rng, 0.3, rate, (900, 6500)) * np.exp(-sample_times(0.3, rate) / 0.1)
            return add_at(squeak, 0.5 * rush, 0)
        return add_at(impact("metal", thing.voice, rng, rate, pitch=0.55, damping=2), np.zeros(1), 0)
    if thing.name == "hob":
        click = impact("plastic", thing.voice, rng, rate, pitch=2.6 if on else 1.1)
        if not on:
            return click
        for delay in (0.07, 0.13):
            click = add_at(click, 0.5 * impact("plastic", thing.voice, rng, rate, pitch=3.0), round(delay * rate))
        whoosh = filtered_noise(rng, 0.35, rate, (120, 1400)) * np.sin(np.pi * sample_times(0.35, rate) / 0.35)
        return add_at(click, 0.35 * whoosh, round(0.15 * rate))
    first, second = (1.6, 2.3) if on else (2.0, 1.0)
    press = impact("plastic", thing.voice, rng, rate, pitch=first)
    return add_at(press, 0.7 * impact("plastic", thing.voice + 1, rng, rate, pitch=second), round(0.035 * rate))
