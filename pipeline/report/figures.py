"""Figures of a night as PNG bytes: no global state, no dates, the same bytes for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from matplotlib import patheffects as path_effects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.archive.pruning import separation_deg
from pipeline.report.axes import MINUS
from pipeline.report.palette import ACCENT, FAINT, INK, RULE, in_order, style

_DPI = 160
_SKY_ORDER = 6
_MOST_ZOOM_DEG = 30.0
_MARKED = "#b3122b"
_OBLIQUITY_DEG = 23.4392911
"""Of the ecliptic at J2000."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Zoom:
    """A circle on the sky that is shown enlarged; degrees."""

    ra: float
    dec: float
    radius: float


def zoom_on(ra: Floats, dec: Floats, marked: Sequence[tuple[float, float]]) -> Zoom | None:
    """Return the circle around all alerts, else around the marked ones; None if that is no small part of the sky."""
    for some_ra, some_dec in ((ra, dec), tuple(np.array(marked, dtype=np.float64).reshape(-1, 2).T)):
        if len(some_ra) == 0:
            continue
        vectors = SkyCoord(some_ra, some_dec, unit="deg").cartesian.xyz.value.mean(axis=1)
        if np.linalg.norm(vectors) < 0.5:
            continue
        centre_dec = float(np.degrees(np.arcsin(vectors[2] / np.linalg.norm(vectors))))
        centre_ra = float(np.degrees(np.arctan2(vectors[1], vectors[0])) % 360)
        reach = float(separation_deg(centre_ra, centre_dec, some_ra, some_dec).max())
        if reach <= _MOST_ZOOM_DEG:
            return Zoom(centre_ra, centre_dec, max(1.08 * reach, 0.05))
    return None


def sky_figure(ra: Floats, dec: Floats, marked: Sequence[tuple[float, float]], zoom: Zoom | None) -> bytes:
    """Draw where the alerts are: counts per order-6 HEALPix cell on a Mollweide map, ICRS, east to the left.

    Parameters
    ----------
    ra, dec : ndarray
        Degrees, shape (n,).
    marked : sequence of (ra, dec)
        Positions that are numbered from 1, unless a zoom does that.
    zoom : Zoom, optional
        Outlined.
    """
    figure = Figure(figsize=(7.6, 4.9), dpi=_DPI, facecolor="white")
    axes = figure.add_axes((0.06, 0.13, 0.88, 0.86), projection="mollweide")
    axes.set_facecolor("#f4f7fa")
    axes.grid(color=RULE, linewidth=0.7)
    _galactic_plane(axes)
    _ecliptic(axes)
    cells, counts = np.unique(healpix.ang2pix(_SKY_ORDER, ra, dec), return_counts=True)
    cell_ra, cell_dec = healpix.pix2ang(_SKY_ORDER, cells)
    # the densest cells are drawn last, on top
    order = np.argsort(counts, kind="stable")
    drawn = axes.scatter(
        *_map(cell_ra[order], cell_dec[order]),
        c=counts[order],
        s=7,
        marker="o",
        linewidths=0,
        cmap="viridis_r",
        norm=LogNorm(1, max(10, int(counts.max()))),
        zorder=3,
    )
    if zoom is not None:
        _outline(axes, zoom)
    else:
        for number, (mark_ra, mark_dec) in enumerate(marked, start=1):
            x, y = _map(np.array([mark_ra]), np.array([mark_dec]))
            _number(axes, number, float(x[0]), float(y[0]))
    ticks = np.arange(-150, 151, 30)
    axes.set_xticks(np.radians(ticks))
    axes.set_xticklabels([f"{int(-degree) % 360}°" for degree in ticks], fontsize=8, color=FAINT)
    axes.tick_params(axis="y", labelsize=8, labelcolor=FAINT)
    bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", fraction=0.04, pad=0.06, shrink=0.6)
    bar.set_label("alerts per HEALPix cell of 0.84 deg²", fontsize=10, color=INK)
    bar.ax.tick_params(labelsize=9, colors=INK)
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return _png(figure)


def zoom_figure(
    ra: Floats, dec: Floats, band: Sequence[str], marked: Sequence[tuple[float, float]], zoom: Zoom
) -> bytes:
    """Draw the alerts within a circle, by band, in degrees from its centre (zenithal equidistant, east to the left).

    Parameters
    ----------
    ra, dec : ndarray
        Degrees, shape (n,).
    band : sequence of str
        Band of each alert.
    marked : sequence of (ra, dec)
        Positions that are numbered from 1.
    zoom : Zoom
        The circle.
    """
    figure = Figure(figsize=(4.9, 4.9), dpi=_DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    inside = separation_deg(zoom.ra, zoom.dec, ra, dec) <= zoom.radius
    here_ra, here_dec, here_band = ra[inside], dec[inside], np.array(band)[inside]
    size = float(np.clip(6000 / max(len(here_ra), 1), 1.5, 26.0))
    for name in in_order(set(here_band.tolist())):
        of_band = here_band == name
        x, y = _offsets(zoom, here_ra[of_band], here_dec[of_band])
        drawn = style(name)
        label = f"{name}: {int(of_band.sum()):,}"
        axes.scatter(x, y, s=size, color=drawn.colour, marker=drawn.plot_mark, linewidths=0, alpha=0.8, label=label)
    for number, (mark_ra, mark_dec) in enumerate(marked, start=1):
        x, y = _offsets(zoom, np.array([mark_ra]), np.array([mark_dec]))
        if separation_deg(zoom.ra, zoom.dec, mark_ra, mark_dec) <= zoom.radius:
            _number(axes, number, float(x[0]), float(y[0]))
    axes.set_xlim(zoom.radius, -zoom.radius)
    axes.set_ylim(-zoom.radius, zoom.radius)
    axes.set_aspect("equal")
    axes.set_xlabel(f"degrees east of {zoom.ra:.2f}°")
    axes.set_ylabel(f"degrees north of {zoom.dec:+.2f}°".replace("-", MINUS))
    _plain(axes)
    axes.yaxis.set_major_formatter(axes.xaxis.get_major_formatter())
    axes.grid(color=RULE, linewidth=0.7)
    axes.legend(frameon=True, framealpha=0.9, edgecolor=RULE, fontsize=9, labelcolor=INK, markerscale=2)
    return _png(figure)


def _number(axes: Axes, number: int, x: float, y: float) -> None:
    axes.plot(x, y, marker="o", markersize=9, markerfacecolor="none", markeredgecolor=_MARKED, zorder=5)
    halo = [path_effects.withStroke(linewidth=2.5, foreground="white")]
    axes.annotate(
        str(number),
        (x, y),
        xytext=(6, 5),
        textcoords="offset points",
        fontsize=9,
        fontweight="bold",
        color=_MARKED,
        path_effects=halo,
        zorder=6,
    )


def _offsets(zoom: Zoom, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Return degrees east and north of the centre, shape (n,) each, distances from the centre kept."""
    distance = separation_deg(zoom.ra, zoom.dec, ra, dec)
    lon, lat, lat0 = np.radians(ra - zoom.ra), np.radians(dec), np.radians(zoom.dec)
    east = np.cos(lat) * np.sin(lon)
    north = np.sin(lat) * np.cos(lat0) - np.cos(lat) * np.sin(lat0) * np.cos(lon)
    length = np.hypot(east, north)
    scale = np.divide(distance, length, out=np.zeros_like(distance), where=length > 0)
    return east * scale, north * scale


def _outline(axes: Axes, zoom: Zoom) -> None:
    """Draw the circle's edge, at least large enough to be seen."""
    angle = np.radians(np.linspace(0, 360, 181))
    reach = np.radians(max(zoom.radius, 2.5))
    lat0 = np.radians(zoom.dec)
    lat = np.arcsin(np.sin(lat0) * np.cos(reach) + np.cos(lat0) * np.sin(reach) * np.cos(angle))
    east = np.sin(angle) * np.sin(reach) * np.cos(lat0)
    lon = np.arctan2(east, np.cos(reach) - np.sin(lat0) * np.sin(lat))
    _curve(axes, (zoom.ra + np.degrees(lon)) % 360, np.degrees(lat), color=_MARKED, linewidth=1.6)


def _map(ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Return map coordinates in radians: right ascension grows to the left, 0 in the middle."""
    return -np.radians((ra + 180.0) % 360.0 - 180.0), np.radians(dec)


def _galactic_plane(axes: Axes) -> None:
    plane = SkyCoord(l=np.linspace(0, 360, 721) * u.deg, b=np.zeros(721) * u.deg, frame="galactic").icrs
    _curve(axes, plane.ra.deg, plane.dec.deg, color="#7a3e9d", linewidth=1.4, linestyle="-", label="Galactic plane")


def _ecliptic(axes: Axes) -> None:
    longitude = np.radians(np.linspace(0, 360, 721))
    tilt = np.radians(_OBLIQUITY_DEG)
    ra = np.degrees(np.arctan2(np.sin(longitude) * np.cos(tilt), np.cos(longitude))) % 360
    dec = np.degrees(np.arcsin(np.sin(longitude) * np.sin(tilt)))
    _curve(axes, ra, dec, color="#8a6500", linewidth=1.2, linestyle="--", label="Ecliptic")
    axes.legend(loc="lower right", fontsize=9, frameon=False, labelcolor=INK, bbox_to_anchor=(1.02, -0.06))


def _curve(axes: Axes, ra: Floats, dec: Floats, **options: Any) -> None:
    x, y = _map(ra, dec)
    jump = np.abs(np.diff(x)) > np.pi
    x = np.insert(x, np.flatnonzero(jump) + 1, np.nan)
    y = np.insert(y, np.flatnonzero(jump) + 1, np.nan)
    axes.plot(x, y, zorder=4, **options)


def magnitude_figure(
    magnitudes: Mapping[str, Floats], limits: Mapping[str, float], name: str = "difference magnitude (AB mag)"
) -> bytes:
    """Draw the alerts' magnitudes by band, and the median limit of the exposures as dotted lines.

    Parameters
    ----------
    magnitudes : mapping
        Band to difference magnitudes (AB), each of shape (n,), finite.
    limits : mapping
        Band to the median 5 sigma limit.
    name : str
        What the axis says.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=_DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    everything = np.concatenate([*magnitudes.values(), np.array(list(limits.values()))])
    if everything.size:
        low, high = np.quantile(everything, [0.001, 0.999])
        bins = np.arange(np.floor(2 * low) / 2, np.ceil(2 * high) / 2 + 0.3, 0.25)
        for band, values in magnitudes.items():
            counts, _ = np.histogram(values, bins)
            drawn = style(band)
            label = f"{band}: {len(values):,}"
            axes.stairs(counts, bins, color=drawn.colour, linewidth=2, linestyle=drawn.line, label=label)
        for band, limit in limits.items():
            axes.axvline(limit, color=style(band).colour, linewidth=1.2, linestyle=":")
    axes.set_xlabel(name)
    axes.set_ylabel("alerts per 0.25 mag")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes)
    axes.legend(frameon=False, fontsize=10, labelcolor=INK, title="band: alerts", title_fontsize=9)
    return _png(figure)


def score_figure(scores: Mapping[str, Floats]) -> bytes:
    """Draw a histogram of each classifier's score, counts on a logarithmic axis.

    Parameters
    ----------
    scores : mapping
        Model to scores in 0 to 1, each of shape (n,), finite.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=_DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    bins = np.linspace(0, 1, 41)
    looks = [("#0b5cad", "-"), ("#d1460f", "--"), ("#00806b", "-."), ("#7a3e9d", ":"), ("#3a3a3a", "-")]
    for number, (model, values) in enumerate(scores.items()):
        counts, _ = np.histogram(values, bins)
        colour, line = looks[number % len(looks)]
        label = f"{model}: {len(values):,}"
        axes.stairs(counts, bins, color=colour, linestyle=line, linewidth=2, label=label)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(0, None)
    axes.set_xlim(0, 1)
    axes.set_xlabel("classifier score (0 to 1)")
    axes.set_ylabel("alerts per 0.025 of score")
    _plain(axes)
    axes.legend(frameon=False, fontsize=10, labelcolor=INK, title="model: alerts with a score", title_fontsize=9)
    return _png(figure)


def link_figure(ra: Floats, dec: Floats, mjd: Floats) -> bytes:
    """Draw the alerts of one link on the sky, in arcminutes from their mean position, coloured by time.

    Parameters
    ----------
    ra, dec, mjd : ndarray
        Degrees, degrees and days, shape (n,).
    """
    figure = Figure(figsize=(3.4, 3.0), dpi=_DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    centre_dec = float(np.mean(dec))
    east = ((ra - ra[0] + 180.0) % 360.0 - 180.0) * np.cos(np.radians(centre_dec)) * 60
    east, north = east - east.mean(), (dec - centre_dec) * 60
    minutes = (mjd - mjd.min()) * 24 * 60
    axes.plot(east, north, color=RULE, linewidth=1, zorder=1)
    is_timed = float(minutes.max()) > 0
    coloured: dict[str, Any] = {"c": minutes, "cmap": "viridis"} if is_timed else {"color": ACCENT}
    drawn = axes.scatter(east, north, s=28, edgecolors=INK, linewidths=0.5, zorder=2, **coloured)
    axes.set_aspect("equal", adjustable="datalim")
    axes.invert_xaxis()
    axes.set_xlabel("east (arcmin)", fontsize=9)
    axes.set_ylabel("north (arcmin)", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=8)
    if is_timed:
        bar = figure.colorbar(drawn, ax=axes, shrink=0.85)
        bar.set_label("minutes from the first", fontsize=8)
        bar.ax.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return _png(figure)


def _plain(axes: Axes) -> None:
    axes.xaxis.label.set(fontsize=11, color=INK)
    axes.yaxis.label.set(fontsize=11, color=INK)
    axes.tick_params(labelsize=10, colors=INK)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
