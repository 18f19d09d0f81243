"""Figures drawn without a display, and the same figures as SVG that follows the colours of the page around it."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

# Readable on white and on near-black alike, and in this order also for colour-blind eyes.
COLOURS = ("#2f81d8", "#e08a2c", "#2fa37c", "#c5539a", "#8d7be8", "#8a949e", "#7a5230", "#c7b52a")
# Drawn in this colour, text and axes become the text colour of the page when the figure is inlined.
INK = "#5b6570"

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def curves(
    series: Series,
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    levels: Mapping[str, float] | None = None,
    bands: Series | None = None,
    marks: Series | None = None,
    size: tuple[float, float] = (6.4, 3.4),
) -> Figure:
    """Lines through (x, y) points, one per name, with dashed horizontal `levels` to compare them against.

    bands: (low, high) at the x of the series of that name, drawn as a shade around it. marks: points in the colour of
    the series of that name, such as what a line was fitted to.

    Raises ValueError when there is no series, one has unequally many x and y, or a band or marks fit no series.
    """
    if not series:
        raise ValueError("a figure of curves needs at least one series; got none")
    figure, axes = _figure(size)
    for index, (name, (x, y)) in enumerate(series.items()):
        if len(x) != len(y):
            raise ValueError(f"series {name!r} has {len(x)} x values and {len(y)} y values")
        marker = "o" if len(x) < 25 else None
        axes.plot(x, y, label=name, color=_colour(index), linewidth=1.8, marker=marker, markersize=3.5)
    for name, (low, high) in (bands or {}).items():
        if name not in series or not len(low) == len(high) == len(series[name][0]):
            raise ValueError(f"band {name!r} has {len(low)} and {len(high)} values; the series are {list(series)}")
        colour = _colour(list(series).index(name))
        axes.fill_between(series[name][0], low, high, color=colour, alpha=0.15, linewidth=0)
    for name, (x, y) in (marks or {}).items():
        if name not in series:
            raise ValueError(f"marks {name!r} belong to no series; the series are {list(series)}")
        axes.scatter(x, y, color=_colour(list(series).index(name)), s=14)
    for index, (name, value) in enumerate((levels or {}).items()):
        axes.axhline(value, label=name, color=_colour(len(series) + index), linewidth=1.3, linestyle=(0, (5, 3)))
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    _legend(axes)
    return figure


def bars(
    groups: Mapping[str, Mapping[str, float | tuple[float, float, float]]],
    *,
    y_label: str,
    size: tuple[float, float] = (6.4, 3.4),
) -> Figure:
    """Bars side by side: `groups[group][name]` is a value or (low, value, high), drawn with its interval.

    Raises ValueError when there is no group or the groups have different names in them.
    """
    if not groups:
        raise ValueError("a figure of bars needs at least one group; got none")
    names = list(next(iter(groups.values())))
    for group, values in groups.items():
        if list(values) != names:
            raise ValueError(f"group {group!r} has bars {list(values)}, the first group has {names}")
    figure, axes = _figure(size)
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        triples = np.array([_triple(values[name]) for values in groups.values()])
        at = np.arange(len(groups)) + (index - (len(names) - 1) / 2) * width
        low, value, high = triples.T
        axes.bar(at, value, width * 0.92, label=name, color=_colour(index))
        if (high > low).any():
            spread = np.maximum(np.stack([value - low, high - value]), 0)
            axes.errorbar(at, value, yerr=spread, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    axes.set_xticks(np.arange(len(groups)), list(groups))
    axes.set_ylabel(y_label)
    _legend(axes)
    return figure


def points(
    groups: Mapping[str, Sequence[tuple[str, float, float]]],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    size: tuple[float, float] = (7.2, 4.2),
) -> Figure:
    """Named points (name, x, y), one colour per group; no name lies on another, far ones get a line to their point.

    Raises ValueError when there is no group or one is empty.
    """
    if not groups or not all(groups.values()):
        raise ValueError(f"a figure of points needs points in every group; got {dict(groups)}")
    figure, axes = _figure(size)
    for index, (group, named) in enumerate(groups.items()):
        axes.scatter([x for _, x, _ in named], [y for _, _, y in named], label=group, color=_colour(index), s=16)
    if log_x:
        axes.set_xscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    _legend(axes)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is placed stays where it is
    _name(axes, [point for named in groups.values() for point in named])
    return figure


def contours(
    x: Sequence[float],
    y: Sequence[float],
    z: np.ndarray,
    *,
    x_label: str,
    y_label: str,
    lines: Series | None = None,
    marks: Series | None = None,
    size: tuple[float, float] = (6.4, 4.2),
) -> Figure:
    """Lines of equal z [y, x] over two logarithmic axes, numbered, under named lines and points.

    Raises ValueError when z has other rows than y or other columns than x.
    """
    if np.shape(z) != (len(y), len(x)):
        raise ValueError(f"z has shape {np.shape(z)}; expected (y, x) = {(len(y), len(x))}")
    figure, axes = _figure(size)
    axes.set_xscale("log")
    axes.set_yscale("log")
    drawn = axes.contour(x, y, z, levels=12, colors=INK, linewidths=0.7)
    axes.clabel(drawn, fontsize=7)
    for index, (name, (xs, ys)) in enumerate((lines or {}).items()):
        axes.plot(xs, ys, label=name, color=_colour(index), linewidth=1.8)
    for index, (name, (xs, ys)) in enumerate((marks or {}).items()):
        axes.scatter(xs, ys, label=name, color=_colour(len(lines or {}) + index), s=14)
    axes.set_xlim(min(x), max(x))
    axes.set_ylim(min(y), max(y))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    _legend(axes)
    return figure


def _name(axes: Axes, named: Sequence[tuple[str, float, float]]) -> None:
    """A label beside every point: the nearest free place to its right or left, higher or lower."""
    at = {point: axes.transData.transform(point[1:]) for point in named}
    taken = [Bbox.from_bounds(x - 2, y - 2, 4, 4) for x, y in at.values()]
    left, floor = axes.bbox.x0, axes.bbox.y0 + 6  # beyond them are the numbers of the axes
    offsets = sorted(((dx, 4.0 * step) for dx in (4, -4, 16, -16) for step in range(-50, 51)), key=_far)
    for point in sorted(named, key=lambda p: at[p][1]):
        for offset in offsets:
            note, box = _label(axes, point, offset)
            if box.x0 > left and box.y0 > floor and not any(box.overlaps(other) for other in taken):
                break
            note.remove()
        else:  # no place is free: better crowded than left out
            _, box = _label(axes, point, offsets[0])
        taken.append(box)


def _label(axes: Axes, point: tuple[str, float, float], offset: tuple[float, float]) -> tuple[Annotation, Bbox]:
    """The label that far from its point, and the box of its text."""
    line = {"arrowstyle": "-", "color": INK, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 1}
    note = axes.annotate(
        point[0], point[1:], xytext=offset, textcoords="offset points", fontsize=6.5, color=INK,
        ha="left" if offset[0] > 0 else "right", va="center", arrowprops=line if _far(offset) > 8 else None,
    )  # fmt: skip
    note.get_window_extent()  # puts the text where it belongs
    return note, Text.get_window_extent(note)


def _far(offset: tuple[float, float]) -> float:
    return abs(offset[0]) + abs(offset[1])


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a figure to a .png (twice the screen resolution), .pdf or .svg file, folders made as needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160, bbox_inches="tight")
    return path


def svg(figure: Figure) -> str:
    """A figure as an `<svg>` element whose text and axes take the text colour and font of the page around it."""
    buffer = io.StringIO()
    # A fixed salt keeps ids, and so the page, equal from run to run; text stays text and can be searched.
    with matplotlib.rc_context({"svg.hashsalt": "lifecycle", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.S)
    drawn = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawn, count=1)
    drawn = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%" role="img"', drawn, count=1)
    drawn = re.sub(r" font-family: [^;\"]*;", "", drawn)
    return drawn.replace(INK, "currentColor").strip()


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(which="both", colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis="y", color=INK, alpha=0.18, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(axes: Axes) -> None:
    # Outside the axes, above them: no curve is ever hidden behind a legend.
    entries = len(axes.get_legend_handles_labels()[1])
    if entries > 1:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=min(entries, 4), frameon=False, labelcolor=INK, fontsize=9
        )


def _triple(value: float | tuple[float, float, float]) -> tuple[float, float, float]:
    return value if isinstance(value, tuple) else (value, value, value)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]
