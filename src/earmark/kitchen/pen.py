"""Anti-aliased drawing in world units: the tool with which room, objects and hands of the kitchen are drawn."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Colour: TypeAlias = tuple[int, int, int]
Image: TypeAlias = npt.NDArray[np.uint8]
Matrix: TypeAlias = npt.NDArray[np.float64]
Point: TypeAlias = tuple[float, float]

_SHIFT = 4  # bits below the pixel in cv2's fixed-point coordinates


def shade(colour: Colour, gain: float) -> Colour:
    """Return a colour made lighter (gain over 1) or darker.

    >>> shade((100, 200, 50), 1.5)
    (150, 255, 75)
    """
    red, green, blue = (min(255, max(0, round(channel * gain))) for channel in colour)
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour between two, `share` of the way to the second.

    >>> mix((0, 0, 0), (100, 200, 50), 0.5)
    (50, 100, 25)
    """
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


class Pen:
    """Draws shapes given in units into an image through a similarity transform.

    Args:
        image: uint8 (H, W, 3), drawn into.
        matrix: float64 (2, 3): units to pixels; rotation, uniform scale and translation only.

    >>> image = np.zeros((20, 20, 3), np.uint8)
    >>> Pen.scaled(image, 10).rectangle(0.5, 0.5, 1.5, 1.5, (255, 0, 0))
    >>> image[10, 10].tolist(), image[2, 2].tolist()
    ([255, 0, 0], [0, 0, 0])
    """

    def __init__(self, image: Image, matrix: Matrix) -> None:
        self.image = image
        self.matrix = matrix
        self.scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        self._linear, self._shift = matrix[:, :2].T, matrix[:, 2]
        self._degrees = float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))

    @classmethod
    def scaled(cls, image: Image, pixels_per_unit: float) -> "Pen":
        """Return a pen whose origin is the top left corner."""
        return cls(image, np.array([[pixels_per_unit, 0.0, 0.0], [0.0, pixels_per_unit, 0.0]]))

    def to_pixels(self, points: Sequence[Point] | Matrix) -> Matrix:
        """Return float64 (N, 2) pixel coordinates of points in units."""
        pixels: Matrix = np.asarray(points, np.float64) @ self._linear + self._shift
        return pixels

    def moved(self, origin: Point, place: Point, *, degrees: float = 0.0) -> "Pen":
        """Return a pen that draws what stands at `origin` at `place` instead, turned about it by `degrees`."""
        turn = np.radians(degrees)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        shift = np.asarray(place) - rotation @ np.asarray(origin)
        linear = self.matrix[:, :2]
        return Pen(self.image, np.column_stack([linear @ rotation, linear @ shift + self.matrix[:, 2]]))

    def polygon(self, points: Sequence[Point] | Matrix, colour: Colour, *, opacity: float = 1.0) -> None:
        """Fill a polygon."""
        pixels = self.to_pixels(points)

        def draw(image: Image, moved: Matrix) -> None:
            cv2.fillPoly(image, [_fixed(moved)], colour, cv2.LINE_AA, _SHIFT)

        self._draw(draw, pixels, 0.0, opacity)

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour, **options: Any) -> None:
        """Fill a rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour, **options)

    def line(self, points: Sequence[Point], width: float, colour: Colour, *, opacity: float = 1.0) -> None:
        """Draw a chain of lines with round ends; `width` is in units."""
        pixels = self.to_pixels(points)
        thickness = max(1, round(width * self.scale))

        def draw(image: Image, moved: Matrix) -> None:
            cv2.polylines(image, [_fixed(moved)], False, colour, thickness, cv2.LINE_AA, _SHIFT)

        self._draw(draw, pixels, thickness, opacity)

    def ellipse(
        self,
        centre: Point,
        axes: tuple[float, float],
        colour: Colour,
        *,
        degrees: float = 0.0,
        width: float | None = None,
        opacity: float = 1.0,
    ) -> None:
        """Fill an ellipse with the given half axes, or draw its rim where a line width is given."""
        half = (axes[0] * self.scale, axes[1] * self.scale)
        thickness = -1 if width is None else max(1, round(width * self.scale))

        def draw(image: Image, moved: Matrix) -> None:
            x, y = _fixed(moved[0]).tolist()
            cv2.ellipse(
                image,
                (x, y),
                (round(half[0] * 2**_SHIFT), round(half[1] * 2**_SHIFT)),
                degrees + self._degrees,
                0,
                360,
                colour,
                thickness,
                cv2.LINE_AA,
                _SHIFT,
            )

        self._draw(draw, self.to_pixels([centre]), max(half) + max(thickness, 0), opacity)

    def _draw(self, draw: Callable[[Image, Matrix], None], pixels: Matrix, reach: float, opacity: float) -> None:
        """Draw straight into the image, or blend a drawing of the part that lies within `reach` of the points."""
        if opacity >= 1:
            draw(self.image, pixels)
            return
        size = np.array(self.image.shape[1::-1])
        first = np.clip(np.floor(pixels.min(0) - reach).astype(int) - 1, 0, size)
        last = np.clip(np.ceil(pixels.max(0) + reach).astype(int) + 2, 0, size)
        if (first >= last).any():
            return
        part = self.image[first[1] : last[1], first[0] : last[0]]
        overlay = part.copy()
        draw(overlay, pixels - first)
        cv2.addWeighted(overlay, opacity, part, 1 - opacity, 0, dst=part)


def _fixed(pixels: Matrix) -> npt.NDArray[np.int32]:
    fixed: npt.NDArray[np.int32] = np.rint(pixels * 2**_SHIFT).astype(np.int32)
    return fixed
