"""A map of moments in two dimensions, and its picture.

Path of a sample: appearances and changes --principal components--> points --figure--> page.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from earmark.media.page import data_uri

__all__ = ["MapPanel", "draw_map", "map_figure", "plane_of_means", "principal_plane", "projected"]

PANEL_INCHES = (4.2, 4.6)
PIXELS_PER_INCH = 110
MOST_COLOURS = 7  # the other groups are grey
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
        undoes: Groups that have the colour of another and a marker of their own: verbs that undo it.
    """

    title: str
    points: Floats
    shares: tuple[float, float]
    groups: Sequence[str]
    undoes: Mapping[str, str] = field(default_factory=dict)


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


def plane_of_means(vectors: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> Floats | None:
    """Return the directions in which the means of classes differ most, each class weighted by its size.

    Of whitened vectors they are the linear discriminants.

    Args:
        vectors: ``(N, D)``.
        labels: Class of each, ``(N,)``; -1 for none.

    Returns:
        Orthonormal rows ``(2, D)``; None where there are fewer than three classes, or two dimensions.

    Example:
        >>> axes = plane_of_means(np.array([[9.0, 0.0, 1.0], [0.0, 3.0, 1.0], [-9.0, 0.0, 1.0]]), np.array([0, 1, 2]))
        >>> (axes.round(3) + 0.0).tolist()  # no -0.0
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    if len(classes) < 3 or vectors.shape[1] < 2:
        return None
    means = np.stack([np.asarray(vectors, np.float64)[labels == label].mean(axis=0) for label in classes])
    centred = means - counts @ means / counts.sum()
    axes: Floats = np.linalg.svd(centred * np.sqrt(counts)[:, None], full_matrices=False)[2][:2]
    return axes * np.where(axes[[0, 1], np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]


def projected(vectors: npt.NDArray[np.floating], axes: Floats) -> tuple[Floats, tuple[float, float]]:
    """Return vectors in a plane, their mean at its origin, and the share of their variance along each axis.

    Args:
        vectors: ``(N, D)``.
        axes: Orthonormal rows ``(2, D)``.

    Returns:
        Points ``(N, 2)``, and two shares in %.

    Example:
        >>> points, shares = projected(np.array([[0.0, 5.0, 2.0], [4.0, 5.0, 2.0]]), np.eye(3)[:2])
        >>> points.tolist(), shares
        ([[-2.0, 0.0], [2.0, 0.0]], (100.0, 0.0))
    """
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0)
    points: Floats = centred @ axes.T
    total = float((centred**2).sum()) or 1.0
    along = 100 * (points**2).sum(axis=0) / total
    return points, (float(along[0]), float(along[1]))


def draw_map(panels: Sequence[MapPanel], *, dark: bool) -> str:
    """Return panels beside each other as the data URI of a picture; the same panels give the same bytes.

    Args:
        panels: At least one.
        dark: For a dark page.
    """
    picture = io.BytesIO()
    map_figure(panels, dark=dark).savefig(picture, format="png", metadata={"Software": None})
    return data_uri("image/png", picture.getvalue())


def map_figure(panels: Sequence[MapPanel], *, dark: bool = False, background: str = "none") -> Figure:
    """Return panels beside each other as a figure.

    Args:
        panels: At least one.
        dark: For a dark page.
        background: Its colour.
    """
    ink, grey = ("#d5d9df", "#6b7480") if dark else ("#3b434c", "#b4bac2")
    with mpl.rc_context({"font.size": 10}):
        size = (PANEL_INCHES[0] * len(panels), PANEL_INCHES[1])
        figure = Figure(figsize=size, layout="constrained", facecolor=background, dpi=PIXELS_PER_INCH)
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), number + 1, facecolor="none")
            colours = _colours(panel, dark=dark)
            groups = np.array([group if group in colours else OTHERS for group in panel.groups])
            # grey ones first, below the others
            for group in (OTHERS, *colours):
                x, y = panel.points[groups == group].T
                if len(x):
                    is_reverse = panel.undoes.get(group) in colours
                    marker, line_width = ("x", 1.1) if is_reverse else ("o", 0.0)
                    colour = colours.get(group, grey)
                    axes.scatter(x, y, s=14, color=colour, alpha=0.8, label=group, marker=marker, linewidths=line_width)
            axes.set_title(panel.title, color=ink, fontsize=11)
            axes.set_xlabel(f"{panel.shares[0]:.0f} % of the variance", color=ink, fontsize=9)
            axes.set_ylabel(f"{panel.shares[1]:.0f} %", color=ink, fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color(ink)
            axes.spines[:].set_linewidth(0.5)
            axes.legend(frameon=False, labelcolor=ink, fontsize=9, ncols=4, loc="upper center", markerscale=1.6,
                        bbox_to_anchor=(0.5, -0.09), handletextpad=0.1, columnspacing=0.9)  # fmt: skip
    return figure


def _colours(panel: MapPanel, *, dark: bool) -> Mapping[str, str]:
    """Return the colours of the most frequent groups, those that undo one another beside each other and in one."""
    names, counts = np.unique([panel.undoes.get(group, group) for group in panel.groups if group], return_counts=True)
    frequent = names[np.argsort(-counts, kind="stable")[:MOST_COLOURS]].tolist()
    palette = mpl.colormaps["Set1" if dark else "tab10"].colors  # type: ignore[attr-defined]
    there = set(panel.groups)
    shown = {}
    for name, colour in zip(sorted(frequent), palette, strict=False):
        for group in (name, *(other for other, first in panel.undoes.items() if first == name)):
            if group in there:
                shown[group] = mpl.colors.to_hex(colour)
    return shown
