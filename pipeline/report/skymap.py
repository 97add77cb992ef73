"""The figure of a sky map: contours, what exposures saw, and the alerts within, those with a past told apart."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib import patheffects as path_effects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Patch
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.followup.summary import area_text
from pipeline.report.axes import MINUS, round_ticks, tick_text
from pipeline.report.palette import ACCENT, FAINT, INK, RULE
from pipeline.report.projections import Gnomonic, Mollweide, Projection
from pipeline.skymap import SkyMap, levels, region, region_area_deg2
from pipeline.skymap.levels import reached_level

Floats = NDArray[np.float64]

CONTOURS = (0.5, 0.9)
_DPI = 160
_MOST_ZOOM_DEG = 28.0
_LEAST_ZOOM_DEG = 1e-4
_LEFT, _DIGIT = 0.125, 0.0115
"""Left margin, and what one more digit of the labels there takes, of the width of a figure."""
_SEEN = "#3f8f5f"
_NEW = "#d1260f"
_SHADES = LinearSegmentedColormap.from_list("levels", ["#0b3d78", "#3f86c9", "#a9cdec", "#e6f0f9", "#ffffff"])
_STEPS_SEC = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800)
"""Steps of right ascension, seconds of time."""


@dataclass(frozen=True)
class Marks:
    """What is drawn on a map besides its contours.

    Attributes
    ----------
    ra, dec : numpy.ndarray, shape (n,)
        Alerts, degrees.
    has_prior_activity : numpy.ndarray of bool, shape (n,)
        Whether each was active before the event; one that is not known is no prior activity.
    seen : numpy.ndarray of int64, shape (k, 2)
        Range set that exposures saw.
    """

    ra: Floats = field(default_factory=lambda: np.zeros(0))
    dec: Floats = field(default_factory=lambda: np.zeros(0))
    has_prior_activity: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    seen: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))


def marks_of(alerts: pa.Table, event: str, seen: NDArray[np.int64]) -> Marks:
    """Return the marks of a search's table (:func:`pipeline.followup.search`) for one event; no injected sources."""
    mine = pc.and_(
        pc.equal(alerts.column("event"), event), pc.invert(pc.fill_null(alerts.column("is_injected"), False))
    )
    rows = alerts.filter(mine)
    activity = pc.fill_null(rows.column("has_prior_activity"), False).to_numpy()
    return Marks(rows.column("ra").to_numpy(), rows.column("dec").to_numpy(), activity, seen)


def projection_of(skymap: SkyMap) -> Projection:
    """Return the map to draw on: around the 90 % region where that is small, else the whole sky."""
    ranges = region(skymap, CONTOURS[-1])
    cells, order = np.zeros(0, dtype=np.int64), 5
    while order < healpix.MAX_ORDER and len(cells) < 3_000:
        order += 1
        cells = healpix.cells_of_ranges(ranges, order)
    ra, dec = (np.radians(item) for item in healpix.pix2ang(order, cells))
    vectors = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    centre = vectors.mean(axis=1)
    if np.linalg.norm(centre) < 0.5:
        return Mollweide()
    centre /= np.linalg.norm(centre)
    chord = np.linalg.norm(vectors - centre[:, None], axis=0).max(initial=0.0)
    reach = 1.15 * math.degrees(2 * math.asin(min(chord / 2, 1.0)))
    if reach > _MOST_ZOOM_DEG:
        return Mollweide()
    centre_ra = math.degrees(math.atan2(centre[1], centre[0])) % 360.0
    return Gnomonic(centre_ra, math.degrees(math.asin(centre[2])), max(reach, _LEAST_ZOOM_DEG))


def skymap_figure(skymap: SkyMap, marks: Marks | None = None, *, subtitle: str = "") -> bytes:
    """Draw a map as PNG; the same bytes for the same numbers.

    Parameters
    ----------
    skymap : SkyMap
        The map; its event and the area of its 90 % region stand in the title.
    marks : Marks, optional
        Alerts and exposures.
    subtitle : str
        One line below the title.
    """
    marks = marks or Marks()
    projection = projection_of(skymap)
    whole = isinstance(projection, Mollweide)
    figure = Figure(figsize=(9.6, 5.9) if whole else (7.0, 7.6), dpi=_DPI, facecolor="white")
    axes = figure.add_axes((0.02, 0.1, 0.96, 0.8) if whole else (_LEFT, 0.12, 0.935 - _LEFT, 0.746))
    _shade(axes, projection, skymap, marks.seen)
    if whole:
        _whole_frame(axes, projection)
    else:
        _zoom_frame(axes, projection)
    counts = _alerts(axes, projection, marks)
    _title(figure, skymap, subtitle)
    _legend(figure, counts, bool(len(marks.seen)))
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _shade(axes: Axes, projection: Projection, skymap: SkyMap, seen: NDArray[np.int64]) -> None:
    """Draw credible levels as shades, contours as lines, and what exposures saw as a tint."""
    half_x, half_y = projection.half
    width = 1600 if half_x > half_y else 1000
    height = round(width * half_y / half_x)
    x = (np.arange(width) + 0.5) / width * 2 * half_x - half_x
    y = (np.arange(height) + 0.5) / height * 2 * half_y - half_y
    grid_x, grid_y = np.meshgrid(x, y)
    ra, dec = projection.inverse(grid_x.ravel(), grid_y.ravel())
    cells = healpix.ang2pix(healpix.MAX_ORDER, ra, dec)
    level = levels(skymap, cells)[0].reshape(height, width)
    extent = (-half_x, half_x, -half_y, half_y)
    shown: dict[str, Any] = {"extent": extent, "origin": "lower", "interpolation": "nearest", "aspect": "equal"}
    axes.imshow(level, cmap=_SHADES, vmin=0, vmax=1, alpha=0.85, zorder=1, **shown)
    if len(seen):
        axes.imshow(_tint(seen, cells, (height, width), projection), zorder=2, **shown)
    closed = np.where(np.isnan(level), 1.0, level)
    for value, dash in zip(CONTOURS, ("-", "--"), strict=True):
        line = reached_level(skymap, value)
        axes.contour(
            x, y, (closed <= line).astype(float), [0.5], colors=[ACCENT], linewidths=1.3, linestyles=dash, zorder=4
        )


def _tint(
    seen: NDArray[np.int64], cells: NDArray[np.int64], shape: tuple[int, int], projection: Projection
) -> NDArray[np.float64]:
    """Return an RGBA picture of what was seen; cells smaller than a pixel fill it."""
    pixel_deg = 0.25 if isinstance(projection, Mollweide) else 2 * projection.half[0] / shape[1]
    order = min(max(healpix.order_for_radius(pixel_deg), 0), healpix.MAX_ORDER)
    drawn = healpix.ranges_of(order, healpix.cells_of_ranges(seen, order)) if pixel_deg > 0.02 else seen
    picture = np.zeros((*shape, 4))
    picture[healpix.in_ranges(drawn, cells).reshape(shape)] = to_rgba(_SEEN, 0.32)
    return picture


def _alerts(axes: Axes, projection: Projection, marks: Marks) -> tuple[int, int]:
    """Draw the alerts, those without a past on top; returns how many with and without are on the map."""
    x, y = projection.forward(marks.ra, marks.dec)
    half_x, half_y = projection.half
    there = np.isfinite(x) & (np.abs(x) <= half_x) & (np.abs(y) <= half_y)
    prior = there & marks.has_prior_activity
    fresh = there & ~marks.has_prior_activity
    size = float(np.clip(9_000 / max(int(there.sum()), 1), 5.0, 42.0))
    axes.scatter(x[prior], y[prior], s=0.7 * size, marker="x", color=FAINT, linewidths=0.8, alpha=0.8, zorder=5)
    axes.scatter(x[fresh], y[fresh], s=size, marker="o", color=_NEW, edgecolors="white", linewidths=0.5, zorder=6)
    return int(prior.sum()), int(fresh.sum())


def _title(figure: Figure, skymap: SkyMap, subtitle: str) -> None:
    area = ", ".join(f"{100 * level:.0f} % in {area_text(region_area_deg2(skymap, level))}" for level in CONTOURS)
    figure.text(0.03, 0.965, skymap.event, fontsize=16, fontweight="bold", color=INK, va="center")
    figure.text(0.97, 0.965, area, fontsize=11, color=INK, va="center", ha="right")
    figure.text(0.03, 0.929, subtitle, fontsize=10, color=FAINT, va="center")


def _legend(figure: Figure, counts: tuple[int, int], is_seen: bool) -> None:
    prior, fresh = counts
    handles: list[Any] = [
        Line2D([], [], color=ACCENT, linestyle=look, linewidth=1.3, label=f"{100 * level:.0f} % region")
        for level, look in zip(CONTOURS, ("-", "--"), strict=True)
    ]
    if is_seen:
        handles.append(Patch(color=to_rgba(_SEEN, 0.4), label="exposures (where they had alerts)"))
    if fresh:
        label = f"no known prior activity: {fresh:,}"
        handles.append(Line2D([], [], color=_NEW, marker="o", markeredgecolor="white", linestyle="none", label=label))
    if prior:
        handles.append(Line2D([], [], color=FAINT, marker="x", linestyle="none", label=f"prior activity: {prior:,}"))
    figure.legend(
        handles=handles, loc="lower center", ncols=3, frameon=False, fontsize=9, labelcolor=INK, columnspacing=1.6
    )


# ------------------------------------------------------------------------------------------------ frames
def _whole_frame(axes: Axes, projection: Projection) -> None:
    half_x, half_y = projection.half
    border = Ellipse((0, 0), 2 * half_x, 2 * half_y, facecolor="none", edgecolor=FAINT, linewidth=1.0, zorder=7)
    axes.add_patch(border)
    parallel, meridian = np.linspace(-89.9, 89.9, 181), np.linspace(180.001, 539.999, 361)
    for ra in range(0, 360, 30):
        axes.plot(*projection.forward(np.full(181, float(ra)), parallel), color=RULE, linewidth=0.6, zorder=3)
    for dec in range(-60, 61, 30):
        x, y = projection.forward(meridian, np.full(361, float(dec)))
        axes.plot(x, y, color=RULE, linewidth=0.6, zorder=3)
        text = f"{dec:+d}°".replace("-", MINUS) if dec else "0°"
        axes.text(x.min() - 0.05, y[0], text, fontsize=9, color=FAINT, ha="right", va="center")
    halo = [path_effects.withStroke(linewidth=2.5, foreground="white", alpha=0.8)]
    for hour in (0, 4, 8, 16, 20):
        x, y = projection.forward(np.array([15.0 * hour]), np.array([0.0]))
        for text, above in ((f"{hour}h", 7), (f"{15 * hour}°", -7)):
            offset: dict[str, Any] = {
                "xytext": (0, above),
                "textcoords": "offset points",
                "path_effects": halo,
                "zorder": 7,
            }
            axes.annotate(text, (x[0], y[0]), fontsize=8.5, color=INK, ha="center", va="center", **offset)
    axes.set_xlim(-half_x * 1.05, half_x * 1.02)
    axes.set_ylim(-half_y * 1.03, half_y * 1.03)
    axes.axis("off")


def _zoom_frame(axes: Axes, projection: Projection) -> None:
    half_x, half_y = projection.half
    edge = np.linspace(-1, 1, 2001)
    bottom_ra, _ = projection.inverse(edge * half_x, np.full(2001, -half_y))
    top_ra, _ = projection.inverse(edge * half_x, np.full(2001, half_y))
    left_ra, left_dec = projection.inverse(np.full(2001, -half_x), edge * half_y)
    right_ra, _ = projection.inverse(np.full(2001, half_x), edge * half_y)
    turned = np.unwrap(bottom_ra, period=360.0)
    span = float(turned.max() - turned.min())
    step = next((item for item in _STEPS_SEC if item / 240 >= span / 6), _STEPS_SEC[-1])
    every_ra = _multiples(
        [np.unwrap(item, period=360.0) for item in (bottom_ra, top_ra, left_ra, right_ra)], step / 240
    )
    every_dec = round_ticks(float(left_dec.min()), float(left_dec.max()), about=6)
    _graticule(axes, projection, every_ra, np.array(every_dec))
    at, shown = _spaced(*_crossings(bottom_ra, every_ra, edge * half_x, wraps=True), 0.28 * half_x)
    axes.set_xticks(at, [_hours(value, step) for value in shown])
    at, shown = _spaced(*_crossings(top_ra, every_ra, edge * half_x, wraps=True), 0.28 * half_x)
    above = axes.secondary_xaxis("top")
    digits = max(1, 2 - math.floor(math.log10(step / 240)))
    above.set_xticks(at, [f"{round(value, digits):.10g}°" for value in shown])
    at, shown = _crossings(left_dec, np.array(every_dec), edge * half_y, wraps=False)
    texts = [f"{tick_text(value, every_dec)}°" for value in shown]
    axes.set_yticks(at, texts)
    left = _LEFT + _DIGIT * max(max(map(len, texts), default=0) - 6, 0)  # small circles have long declinations
    axes.set_position((left, 0.12, 0.935 - left, 0.746))
    axes.set_xlim(-half_x, half_x)
    axes.set_ylim(-half_y, half_y)
    axes.set_xlabel("right ascension (ICRS)", fontsize=10, color=INK)
    axes.set_ylabel("declination (ICRS)", fontsize=10, color=INK)
    for part in (axes, above):
        part.tick_params(labelsize=9, colors=INK, color=FAINT)
    for side in (*axes.spines.values(), *above.spines.values()):
        side.set_color(FAINT)


def _multiples(edges: Sequence[Floats], step: float) -> Floats:
    """Return the multiples of a step that the edges span, degrees from 0 to 360, none twice."""
    spans = [np.arange(math.floor(item.min() / step), math.ceil(item.max() / step) + 1) for item in edges]
    turn = round(360.0 / step)
    return np.unique(np.concatenate(spans) % turn) * step


def _graticule(axes: Axes, projection: Projection, every_ra: Floats, every_dec: Floats) -> None:
    """Draw meridians, which are straight here, and parallels, drawn as finely as they are curved."""
    half_x, half_y = projection.half
    lats = np.linspace(-90, 90, 721)
    for ra in every_ra:
        axes.plot(*projection.forward(np.full(721, ra), lats), color=RULE, linewidth=0.6, zorder=3)
    edge = np.linspace(-1.2, 1.2, 400)
    grid = np.meshgrid(edge * half_x, edge * half_y)
    _, dec = projection.inverse(grid[0].ravel(), grid[1].ravel())
    axes.contour(
        *grid, dec.reshape(400, 400), levels=every_dec, colors=[RULE], linewidths=0.6, linestyles="-", zorder=3
    )


def _crossings(along: Floats, values: Floats, place: Floats, *, wraps: bool) -> tuple[list[float], list[float]]:
    """Return where a coordinate along an edge takes each of some values, and which, both in the order of the edge."""
    found = []
    for value in values:
        apart = along - value
        if wraps:
            apart = (apart + 180.0) % 360.0 - 180.0
        before, after = apart[:-1], apart[1:]
        crossed = np.flatnonzero((np.sign(before) != np.sign(after)) & (np.abs(before - after) < 90))
        for i in crossed[:1]:
            share = before[i] / (before[i] - after[i]) if before[i] != after[i] else 0.0
            found.append((float(place[i] + share * (place[i + 1] - place[i])), float(value)))
    found.sort()
    return [item[0] for item in found], [item[1] for item in found]


def _spaced(at: list[float], shown: list[float], least: float) -> tuple[list[float], list[float]]:
    """Return every tick, or every second or third ..., so that no two are closer than ``least``: labels have room."""
    for every in range(1, len(at)):
        kept = at[::every]
        if min(np.diff(kept), default=least) >= least:
            return kept, shown[::every]
    return at[:1], shown[:1]


def _hours(ra: float, step_sec: float) -> str:
    """Return a right ascension in hours and minutes, seconds where the step needs them."""
    digits = max(0, -math.floor(math.log10(step_sec) + 1e-9))
    ticks = round(ra * 240 * 10**digits)
    minutes, part = divmod(ticks, 60 * 10**digits)
    hours, minutes = divmod(minutes, 60)
    if step_sec >= 3600 and not minutes:
        return f"{hours}h"
    text = f"{hours}h{minutes:02d}m"
    width = 2 if digits == 0 else 3 + digits
    return text if step_sec >= 60 else f"{text}{part / 10**digits:0{width}.{digits}f}s"
