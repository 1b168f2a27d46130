"""A map of moments in two dimensions, and its picture.

Path of a sample: appearances and changes --principal components--> points --figure--> page.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from earmark.media.page import data_uri

__all__ = ["MapPanel", "draw_map", "principal_plane"]

PANEL_INCHES = (4.0, 4.2)
PIXELS_PER_INCH = 110
MOST_COLOURS = 9  # the other groups are grey
OTHERS = "others"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MapPanel:
    """One map.

    Attributes:
        title: What is shown, and what colours it.
        points: ``(N, 2)``.
        shares: Of the variance, along each axis, in %.
        groups: Name of each point's group, which has a colour; "" is grey.
    """

    title: str
    points: Floats
    shares: tuple[float, float]
    groups: Sequence[str]


def principal_plane(vectors: npt.NDArray[np.floating], *, centred: bool = True) -> tuple[Floats, tuple[float, float]]:
    """Return vectors in the plane of their first two principal components, and the share of the variance along each.

    The sign of each axis, which is arbitrary, makes its largest coordinate positive.

    Args:
        vectors: ``(N, D)``.
        centred: Subtract the mean first; without it the components are those of the vectors and their reverses.

    Returns:
        Points ``(N, 2)``, and two shares in %; where there are fewer than two dimensions, or nothing varies, zeros.

    Example:
        >>> points, shares = principal_plane(np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]))
        >>> points.round(6).T.tolist(), shares
        ([[-2.0, 0.0, 2.0], [0.0, 0.0, 0.0]], (100.0, 0.0))
    """
    values = np.asarray(vectors, np.float64)
    if centred:
        values = values - values.mean(axis=0)
    u, spread, _ = np.linalg.svd(values, full_matrices=False)
    points = np.zeros((len(values), 2))
    shares = np.zeros(2)
    total = float((spread**2).sum())
    number = min(2, len(spread))
    if total > 0:
        points[:, :number] = u[:, :number] * spread[:number]
        shares[:number] = 100 * spread[:number] ** 2 / total
        largest = points[np.abs(points).argmax(axis=0), [0, 1]]
        points *= np.where(largest < 0, -1.0, 1.0)
    return points, (float(shares[0]), float(shares[1]))


def draw_map(panels: Sequence[MapPanel], *, dark: bool) -> str:
    """Return panels beside each other as the data URI of a picture; the same panels give the same bytes.

    Args:
        panels: At least one.
        dark: For a dark page.
    """
    ink = "#b9bec6" if dark else "#57606a"
    colours = _colours([group for panel in panels for group in panel.groups], dark=dark)
    with mpl.rc_context({"font.size": 9}):
        size = (PANEL_INCHES[0] * len(panels), PANEL_INCHES[1])
        figure = Figure(figsize=size, layout="constrained", facecolor="none", dpi=PIXELS_PER_INCH)
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), number + 1, facecolor="none")
            groups = np.array([group if group in colours else OTHERS for group in panel.groups])
            # grey ones first, below the others
            for group in (OTHERS, *colours):
                x, y = panel.points[groups == group].T
                if len(x):
                    colour = colours.get(group, "#8a929c")
                    axes.scatter(x, y, s=9, color=colour, alpha=0.75, linewidths=0, label=group)
            axes.set_title(panel.title, color=ink, fontsize=9)
            axes.set_xlabel(f"{panel.shares[0]:.0f} % of the variance", color=ink, fontsize=8)
            axes.set_ylabel(f"{panel.shares[1]:.0f} %", color=ink, fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color(ink)
            axes.spines[:].set_linewidth(0.5)
            axes.legend(frameon=False, labelcolor=ink, fontsize=7, ncols=3, loc="upper center",
                        bbox_to_anchor=(0.5, -0.1), handletextpad=0.1, columnspacing=0.8)  # fmt: skip
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    return data_uri("image/png", picture.getvalue())


def _colours(groups: Sequence[str], *, dark: bool) -> Mapping[str, str]:
    """Return a colour for each of the most frequent groups, in the order of their names."""
    names, counts = np.unique([group for group in groups if group], return_counts=True)
    frequent = sorted(names[np.argsort(-counts, kind="stable")[:MOST_COLOURS]].tolist())
    palette = mpl.colormaps["Set1" if dark else "tab10"].colors  # type: ignore[attr-defined]
    return {name: mpl.colors.to_hex(colour) for name, colour in zip(frequent, palette, strict=False)}
