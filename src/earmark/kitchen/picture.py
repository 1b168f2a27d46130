"""The picture: the camera on the person's head, the light, and the frames of one video.

Rendered from the script, like the sound. The kitchen with its things is painted once whenever a look changes, in world
units on a canvas; each frame is a window of that canvas under the camera's motion, with what moves all the time (water,
steam, hands) drawn on top at twice the size of the frame.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TypeVar

import cv2
import numpy as np

from earmark.kitchen.background import draw_front_clutter, paint_background
from earmark.kitchen.foods import Look
from earmark.kitchen.hands import draw_gesture, draw_hands, draw_held_tool, held_tool
from earmark.kitchen.objects import draw_thing, grip_point, stream_ends
from earmark.kitchen.pen import Image, Matrix, Pen
from earmark.kitchen.room import WORLD_HEIGHT, WORLD_WIDTH, Room
from earmark.kitchen.script import LOOKS, Event, Gesture, Script

_OVERSAMPLING = 2
_VIEW_HEIGHT = 0.8  # world units: near enough that an object fills a good part of a training crop
_NUM_NOISE_FIELDS = 8
_Span = TypeVar("_Span", Event, Gesture)


class Picture:
    """Renders the frames of one video.

    Args:
        room: The kitchen.
        script: What happens.
        rng: Source of camera motion, exposure and noise.
        width: Width of a frame in pixels.
        height: Height of a frame in pixels.
        fps: Frames per second; frame k shows time k / fps.
    """

    def __init__(
        self, room: Room, script: Script, rng: np.random.Generator, *, width: int, height: int, fps: float
    ) -> None:
        self.num_frames = round(script.duration_seconds * fps)
        self._room, self._script, self._fps = room, script, fps
        self._width, self._height = width, height
        self._cameras = _camera_path(room, script, rng, np.arange(self.num_frames) / fps, width, height)
        self._gain = _gain_map(room, rng, width, height)
        noise = rng.normal(0, 1.8, (_NUM_NOISE_FIELDS, height, width, 3))
        self._noise_up = np.clip(noise.round(), 0, 255).astype(np.uint8)
        self._noise_down = np.clip((-noise).round(), 0, 255).astype(np.uint8)
        self._actions = [event for event in script.events if event.on_screen]
        self.scene_scale = _OVERSAMPLING * height / _VIEW_HEIGHT
        self._background = paint_background(room, self.scene_scale)

    def camera(self, frame: int) -> Matrix:
        """Return float64 (2, 3): world units to pixels of a frame."""
        matrix: Matrix = self._cameras[frame]
        return matrix

    def scene(self, looks: dict[str, Look]) -> Image:
        """Return the whole kitchen with its things as they look, uint8 RGB, at `scene_scale` pixels per world unit."""
        canvas = self._background.copy()
        pen = Pen.scaled(canvas, self.scene_scale)
        for name, thing in self._room.things.items():
            draw_thing(pen, thing, looks[name])
        draw_front_clutter(pen, self._room)
        return canvas

    def frames(self) -> Iterator[Image]:
        """Yield uint8 (H, W, 3) RGB frames in order of time."""
        canvas, shown = self._background, None
        for frame in range(self.num_frames):
            time_seconds = frame / self._fps
            looks = {name: self._script.look(name, time_seconds) for name in self._room.things}
            if looks != shown:
                canvas, shown = self.scene(looks), looks
            view = self.camera(frame) * _OVERSAMPLING
            window: Image = cv2.warpAffine(
                canvas,
                np.column_stack([view[:, :2] / self.scene_scale, view[:, 2]]),
                (self._width * _OVERSAMPLING, self._height * _OVERSAMPLING),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            self._draw_moving(window, view, looks, time_seconds)
            self._draw_person(window, view, time_seconds)
            yield self._develop(window, frame)

    def _draw_person(self, window: Image, view: Matrix, time_seconds: float) -> None:
        """Draw the hands: acting, moving idly, or holding a tool at rest."""
        script, room = self._script, self._room
        pen = Pen.scaled(window, float(np.hypot(view[0, 0], view[1, 0])))
        to_units = view / pen.scale
        event = self._under_way(self._actions, time_seconds)
        gesture = self._under_way(script.gestures, time_seconds)
        tool = held_tool(script, event or gesture, time_seconds)
        if tool is not None:
            draw_held_tool(pen, room, tool)
        if event is not None:
            draw_hands(pen, to_units, room, script, event, time_seconds)
        elif gesture is not None:
            draw_gesture(pen, to_units, room, script, gesture, time_seconds)

    @staticmethod
    def _under_way(spans: Sequence[_Span], time_seconds: float) -> _Span | None:
        """Return what begins before and ends after a time, of spans in order that don't overlap."""
        index = bisect_right(spans, time_seconds, key=lambda span: span.start_seconds) - 1
        return spans[index] if index >= 0 and time_seconds <= spans[index].stop_seconds else None

    def _draw_moving(self, window: Image, view: Matrix, looks: dict[str, Look], time_seconds: float) -> None:
        """Draw the running water and the steam of the kettle."""
        pen = Pen(window, view)
        if looks["tap"] == LOOKS["on"]:
            (x, top), (_, end) = stream_ends(self._room.things["tap"])
            sway = 0.003 * np.sin(time_seconds * 47)
            pen.line([(x, top), (x + sway, end)], 0.03, (176, 206, 228), opacity=0.7)
            pen.line([(x - 0.004, top), (x - 0.004 - sway, end)], 0.009, (240, 248, 255))
            ring = 0.08 + 0.012 * np.sin(time_seconds * 61)
            pen.ellipse((x, end), (ring, ring * 0.63), (220, 234, 246), width=0.006, opacity=0.7)
        if looks["kettle"] == LOOKS["on"]:
            x, y = grip_point(self._room.things["kettle"], looks["kettle"])
            for puff in range(4):
                age = (time_seconds * 0.9 + puff / 4) % 1
                place = (x - 0.12 + 0.03 * np.sin(5 * age + puff), y - 0.18 - 0.24 * age)
                pen.ellipse(place, (0.03 + 0.05 * age, 0.03 + 0.05 * age), (240, 240, 244), opacity=0.42 * (1 - age))

    def _develop(self, window: Image, frame: int) -> Image:
        """Return the window at frame size, with light, motion blur and noise."""
        small: Image = cv2.resize(window, (self._width, self._height), interpolation=cv2.INTER_AREA)
        motion = self.camera(min(frame + 1, self.num_frames - 1))[:, 2] - self.camera(frame)[:, 2]
        shutter = motion / 2  # open half of the time
        length = int(min(np.hypot(*shutter), self._height / 12))
        if length >= 2:
            kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
            half = np.round(shutter / np.hypot(*shutter) * length / 2).astype(int)
            cv2.line(kernel, (length - half[0], length - half[1]), (length + half[0], length + half[1]), 1.0)
            small = cv2.filter2D(small, -1, kernel / kernel.sum())
        lit: Image = cv2.multiply(small, self._gain, scale=1 / 128)
        field = frame * 5 % _NUM_NOISE_FIELDS
        cv2.add(lit, self._noise_up[field], dst=lit)
        cv2.subtract(lit, self._noise_down[field - 3], dst=lit)
        return lit


def _gain_map(room: Room, rng: np.random.Generator, width: int, height: int) -> Image:
    """Return uint8 (H, W, 3), 128 for gain 1: colour of the light, exposure of the video, vignette."""
    exposure = rng.uniform(0.88, 1.1)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = 1 - 0.16 * (x**2 + y**2)
    gain = vignette[..., None] * np.array(room.light) * exposure * 128
    as_bytes: Image = np.clip(gain.round(), 0, 255).astype(np.uint8)
    return as_bytes


def _camera_path(
    room: Room, script: Script, rng: np.random.Generator, times: Matrix, width: int, height: int
) -> Matrix:
    """Return float64 (num_frames, 2, 3), world units to frame pixels.

    The eyes go to each thing a little before the hand does, look around in long pauses, and never rest quite still.
    """
    gaze = np.empty((len(times), 2))
    gaze[:] = rng.uniform([1.0, 0.6], [WORLD_WIDTH - 1.0, 1.3])
    for begin, seconds, target in _fixations(room, script, rng):
        share = np.clip((times - begin) / seconds, 0, 1)
        gaze += (np.asarray(target) - gaze) * (share**2 * (3 - 2 * share))[:, None]

    def sway(amplitude: float) -> Matrix:
        rates, phases = rng.uniform(0.12, 0.9, 4), rng.uniform(0, 2 * np.pi, 4)
        waves: Matrix = amplitude * np.sin(2 * np.pi * times[:, None] * rates + phases).mean(1)
        return waves

    half_height = 0.5 * _VIEW_HEIGHT
    half_width = half_height * width / height
    x = np.clip(gaze[:, 0], half_width, WORLD_WIDTH - half_width) + sway(0.04)
    y = np.clip(gaze[:, 1], half_height * 0.8, WORLD_HEIGHT - half_height * 0.9) + sway(0.03)
    y += 0.003 * np.sin(2 * np.pi * 1.7 * times + rng.uniform(0, 6))
    scale = height / (_VIEW_HEIGHT * (1 + sway(0.08)))
    angle = sway(0.05)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    shift = np.array([width / 2, height / 2]) - (linear @ np.stack([x, y], -1)[..., None])[..., 0]
    return np.concatenate([linear, shift[..., None]], -1)


def _fixations(room: Room, script: Script, rng: np.random.Generator) -> Iterator[tuple[float, float, Matrix]]:
    """Yield (begin, seconds of the turn, world point) of each turn of the head."""
    free = 0.0
    spans: list[Event | Gesture] = [*(event for event in script.events if event.on_screen), *script.gestures]
    for span in sorted(spans, key=lambda span: span.start_seconds):
        pause = span.start_seconds - 0.25 - free
        if pause > 1.0 and rng.random() < 0.75:
            begin = free + rng.uniform(0.1, pause - 0.8)
            yield begin, rng.uniform(0.25, 0.6), rng.uniform([0.8, 0.5], [WORLD_WIDTH - 0.8, 1.4])
        seconds, aside = rng.uniform(0.35, 0.6), rng.uniform([-0.32, -0.16], [0.32, 0.1])
        if isinstance(span, Event) or span.kind in ("withdraw", "point"):
            look = script.look(span.thing, span.start_seconds)
            target = np.array(grip_point(room.things[span.thing], look)) + aside
            yield span.start_seconds - 0.25, seconds, target
        free = span.stop_seconds
